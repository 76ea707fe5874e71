"""Maps of a network's features in the plane."""

import numpy as np
from openTSNE import TSNE

from ..workspace.errors import UserError


class TooFewWindows(UserError):
    """Not enough windows for a map."""


def tsne(features: np.ndarray, perplexity: float, seed: int) -> tuple[np.ndarray, float]:
    """t-SNE map (N, 2) of features (N, D), and the perplexity used: lowered to (N - 1) / 3 where
    there are few windows.

    One thread, exact neighbours and a start from the principal components: the same map every time.
    """
    if len(features) < 7:
        raise TooFewWindows(
            f"a t-SNE map needs 7 windows or more, not {len(features)}: it takes more images"
        )
    perplexity = float(min(perplexity, (len(features) - 1) / 3))
    method = TSNE(
        perplexity=perplexity,
        initialization="pca",
        neighbors="exact",
        negative_gradient_method="bh",
        random_state=seed,
        n_jobs=1,
    )
    return np.asarray(method.fit(np.asarray(features, np.float64))), perplexity
