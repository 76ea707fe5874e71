"""How a nucleus's size and shape count beside the predicted PI inside it; fitted in
evaluate/nuclei.py.

A dying nucleus shrinks and rounds up (pyknosis), in every session alike, where how much of PI is
predicted varies. This file ships inside registered models: numpy only.
"""

from collections.abc import Mapping

import numpy as np

SPECK = 0.2  # of the least median area of training's groups: less is no nucleus, and is not called
SHAPE = ["area_um2", "eccentricity", "form_factor"]  # as images/nuclei.py measures them


def nucleus_features(evidence: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """What a nucleus is called by: evidence (n,), as `stain_logits` gives it, then SHAPE (n, 3)
    with the logarithm of its area: (n, 4) float64.
    """
    area, *others = np.asarray(shape, float).T
    return np.column_stack([evidence, np.log(np.maximum(area, 1e-6)), *others])


def nucleus_logits(
    evidence: np.ndarray, shape: np.ndarray, at: Mapping, shift: float
) -> np.ndarray:
    """Live logit (n,) of nuclei under weights (4,), intercept and shift of a contract's `nuclei`.

    shift: what the evidence of windows is measured from now; it was at["shift"] when the weights
    were fitted, and a session that moves it moves nuclei too.
    """
    features = nucleus_features(np.asarray(evidence) - (shift - at["shift"]), shape)
    return features @ np.asarray(at["weights"]) + at["intercept"]
