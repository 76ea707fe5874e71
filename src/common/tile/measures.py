"""What PI says of windows and of pixels, and PI at a quarter of the resolution.

All sums are of integers and the rest is elementwise, so that the results are the same bytes on
every processor.
"""

import numpy as np
import pandas as pd

from ..exposure.background import backgrounds, block_means, ceiling, over_blocks
from ..patches.store import PI_REDUCTION
from ..scoring.frames.imaging import window_sums


def window_measures(
    pi: np.ndarray, corners: np.ndarray, bits: int, percentile: float
) -> dict[str, np.ndarray]:
    """What PI (H, W) uint16 says of each window (y, x, size), (N,) each: the label's raw material
    (paper, step 3).

    mean_pi: mean counts; pi_background: the field's background, a `percentile` of its blocks;
    pi_saturated: share of pixels that are clipped, so that the mean is a lower bound.
    """
    area = corners[:, 2].astype(np.float64) ** 2
    [background] = backgrounds(pi, [percentile])
    return {
        "mean_pi": window_sums(pi, corners) / area,
        "pi_background": np.full(len(corners), background),
        "pi_saturated": window_sums(pi >= ceiling(pi, bits), corners) / area,
    }


def ratio(pi: np.ndarray, background: float, bits: int) -> np.ndarray:
    """PI (H, W) over its background in blocks of PI_REDUCTION px: (ceil(H / 4), ceil(W / 4))
    float16, to 1 part in 2,000.

    NaN where a pixel has no count, or everywhere if there is no background; negative where a pixel
    is clipped, so that its size is a lower bound.
    """
    means, lit = block_means(pi, PI_REDUCTION)
    if background <= 0:
        return np.full(means.shape, np.nan, np.float16)
    clipped = over_blocks(np.logical_or, pi >= ceiling(pi, bits), PI_REDUCTION)
    signed = np.where(clipped, -means, means) / background
    return np.where(lit, np.clip(signed, -65504, 65504), np.nan).astype(np.float16)


def reduce_mean(frame: np.ndarray) -> np.ndarray:
    """A (H, W) unsigned frame, up to 16 bit, averaged over blocks of PI_REDUCTION px (rounded
    down), edge blocks padded by repetition.
    """
    return over_blocks(np.add, frame.astype(np.uint32), PI_REDUCTION) // PI_REDUCTION**2


def reduced_size(height: int | pd.Series, width: int | pd.Series) -> int | pd.Series:
    """Number of pixels of `reduce_mean`'s result for a (height, width) frame, or for many."""
    return -(-height // PI_REDUCTION) * -(-width // PI_REDUCTION)
