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


class Likest:
    """Of each of N fields the likest one so far (`other`, -1 for none) and their likeness."""

    def __init__(self, count: int) -> None:
        self.likeness = np.full(count, -np.inf, np.float32)
        self.other = np.full(count, -1)

    def hold(self, rows: np.ndarray, others: np.ndarray, values: np.ndarray) -> None:
        """Likenesses (rows, others) of two blocks of fields; -inf for pairs that do not count."""
        self._take(rows, others, values)
        self._take(others, rows, values.T)

    def _take(self, rows: np.ndarray, others: np.ndarray, values: np.ndarray) -> None:
        best = values.argmax(axis=1)
        highest = values[np.arange(len(rows)), best]
        new = highest > self.likeness[rows]
        self.likeness[rows[new]] = highest[new]
        self.other[rows[new]] = others[best[new]]


def likest(layouts: Layouts, wanted: Pairs) -> Likest:
    """The likest field of each of N, among those that `wanted` (symmetric) lets it meet."""
    found = Likest(len(layouts))
    for rows, others in combinations_with_replacement(_blocks(np.arange(len(layouts))), 2):
        likeness = layouts.likeness(rows, others)
        found.hold(rows, others, np.where(wanted(rows[:, None], others), likeness, -np.inf))
    return found


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
