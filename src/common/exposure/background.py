"""Propidium iodide (PI): a field's background, and what the stain says of windows and of pixels.

The background is a low percentile of PI averaged over blocks of pixels. Averaging takes the
camera's noise out, which alone puts the 5th percentile of pixels 4 to 15% under the background of
the real MCF-7 fields, and gives fractions of a count. A low percentile stays dark where most cells
are dead and the median, or the mode, lies in their glow.

All sums are of integers and the rest is elementwise, so that the results are the same bytes on
every processor. A PI count of zero means no count: registration leaves such borders.
"""

from functools import reduce

import numpy as np

BLOCK_PX = 8  # smaller than a nucleus (13 um of the real fields are 42 px), larger than noise
FLOOR = 1  # percentile that is still darker than any background asked for, to judge that by
PILED = 10  # pixels at the brightest count, and as many times those of a count below: clipped


def over_blocks(combine: np.ufunc, frame: np.ndarray, factor: int) -> np.ndarray:
    """A frame (H, W) combined over factor x factor px, as (ceil(H / factor), ceil(W / factor)) of
    the ufunc's type; edge blocks padded by repetition.

    Whole rows first: numpy's own reduction over both axes of a block takes ten times as long.
    """
    height, width = frame.shape
    padded = np.pad(frame, ((0, -height % factor), (0, -width % factor)), mode="edge")
    rows = reduce(combine, [padded[first::factor] for first in range(factor)])
    return reduce(combine, [rows[:, first::factor] for first in range(factor)])


def block_means(frame: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over factor x factor px of a frame (H, W) uint16, as float64, and where every pixel of
    them has a count (bool).
    """
    means = over_blocks(np.add, frame.astype(np.uint32), factor) / factor**2
    return means, over_blocks(np.minimum, frame, factor) > 0


def backgrounds(pi: np.ndarray, percentiles: list[float]) -> list[float]:
    """Percentiles of a field's PI (H, W) uint16 over blocks that are wholly lit, in counts, to 6
    decimals; zeros if there is no such block.
    """
    means, lit = block_means(pi, BLOCK_PX)
    if not lit.any():
        return [0.0] * len(percentiles)
    return [round(float(value), 6) for value in np.percentile(means[lit], percentiles)]


def ceiling(pi: np.ndarray, bits: int) -> int:
    """The count from which on PI (H, W) is clipped: where pixels pile up at its maximum, that (a
    12-bit camera clips at 4095, or at 65520 if its bits lie to the left), else the most that `bits`
    hold.
    """
    counts = np.bincount(pi.ravel())
    top = len(counts) - 1
    below = counts[top - top // 20 : top]
    usual = float(np.median(below[below > 0])) if below.any() else 0.0
    piled = counts[top] >= PILED * max(usual, 1.0) and top > np.median(pi)
    return top if piled else 2**bits - 1
