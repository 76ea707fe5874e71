"""For each field the one whose layout is likest, among those it may be held against.

Time grows as the square of the fields, in matrix products of two blocks of BLOCK of them, each two
blocks once: 40,000 multiplications a pair of fields. Memory grows as their number, by the 16 kB
that `Layouts` holds of each.
"""

from collections.abc import Callable
from itertools import combinations_with_replacement

import numpy as np

from ..tile.fingerprint import BLOCK, Layouts

SAMPLE = 2000  # fields that say how like different ones are
ENOUGH = 100  # pairs: fewer do not show how different fields correlate
# Centre and scale (sd) of different fields' likeness, of real and of simulated ones
USUAL = (1.2, 0.95)

Pairs = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of numbers of fields that broadcast: bool


def likest(layouts: Layouts, wanted: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Of each of N fields the likest one among those that `wanted` (symmetric) lets it meet, -1 for
    none, and their likeness.
    """
    other = np.full(len(layouts), -1)
    highest = np.full(len(layouts), -np.inf, np.float32)
    for rows, others in combinations_with_replacement(_blocks(np.arange(len(layouts))), 2):
        alike = np.where(wanted(rows[:, None], others), layouts.likeness(rows, others), -np.inf)
        for mine, theirs, values in ((rows, others, alike), (others, rows, alike.T)):
            best = values.argmax(axis=1)
            likeness = values[np.arange(len(mine)), best]
            new = likeness > highest[mine]
            highest[mine[new]] = likeness[new]
            other[mine[new]] = theirs[best[new]]
    return other, highest


def usual(layouts: Layouts, different: Pairs) -> tuple[float, float]:
    """Centre and scale of the likeness of `different` fields (median and MAD), so that what all
    fields share, dust or uneven light, counts for nothing.

    Of all pairs of up to SAMPLE fields; beyond, of so many evenly drawn ones.
    """
    count = len(layouts)
    blocks = _blocks(np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(int)))
    parts = [
        layouts.likeness(rows, others)[_once(rows, others) & different(rows[:, None], others)]
        for rows, others in combinations_with_replacement(blocks, 2)
    ]
    pairs = np.concatenate([np.empty(0, np.float32), *parts])
    if pairs.size < ENOUGH:
        return USUAL
    middle = float(np.median(pairs))
    return middle, max(1.4826 * float(np.median(np.abs(pairs - middle))), 1e-6)


def _once(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of pairs that a block has with itself, one of each two."""
    return rows[:, None] < others


def _blocks(numbers: np.ndarray) -> list[np.ndarray]:
    return [numbers[start : start + BLOCK] for start in range(0, len(numbers), BLOCK)]
