"""Confidence intervals: the paper's, which takes patches as independent, and the honest one, over
whole groups.

Overlapping patches of one field are near-copies of each other, so an interval over patches is too
narrow; resampling the groups that the split keeps together is not. From few groups a percentile
bootstrap is itself too narrow, so it is expanded (Hesterberg, The American Statistician 69, 2015);
below LEAST_GROUPS it still is, which `few_groups` says beside the interval.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

LEAST_GROUPS = 8  # below, even the expanded interval of a skewed statistic may cover too little
CELLS = 8_000_000  # resamples x patches worked on at once: 64 MB per array


def resample(groups: int, count: int, random: np.random.Generator) -> np.ndarray:
    """How often each of so many groups stands in `count` draws of as many, with replacement:
    (count, groups) integers.
    """
    return random.multinomial(groups, np.full(groups, 1 / groups), count)


@dataclass(frozen=True)
class Resamples:
    """Bootstrap draws: `weights` (B, G), how often each group stands in a resample; `codes` (n,), a
    patch's group.
    """

    weights: np.ndarray
    codes: np.ndarray
    lacking: int  # draws without one of the classes, redrawn

    @property
    def groups(self) -> int:
        """How many groups the draws are of."""
        return self.weights.shape[1]


def draw(groups: np.ndarray, live: np.ndarray, count: int, seed: int) -> Resamples:
    """`count` resamples of whole groups with replacement, each holding both classes; others are
    redrawn and counted.

    groups: (n,) names; live: (n,) bool. Fewer resamples come back if 20 x count draws do not
    suffice; none if there are fewer than two groups or a class lacks altogether.
    """
    names, codes = np.unique(groups, return_inverse=True)
    lives = np.bincount(codes, weights=live, minlength=len(names))
    deads = np.bincount(codes, weights=~live, minlength=len(names))
    possible = len(names) > 1 and lives.any() and deads.any()
    random = np.random.default_rng(seed)
    kept = [np.empty((0, len(names)))]
    have = lacking = 0
    for _ in range(20 if possible else 0):
        weights = resample(len(names), count, random)
        both = np.flatnonzero((weights @ lives > 0) & (weights @ deads > 0))[: count - have]
        have += len(both)
        tried = both[-1] + 1 if have == count else count
        lacking += int(tried) - len(both)
        kept.append(weights[both])
        if have == count:
            break
    return Resamples(np.concatenate(kept).astype(float), codes, lacking)


def draw_patches(live: np.ndarray, count: int, seed: int) -> Resamples:
    """Resamples of single patches, as if they were independent."""
    return draw(np.arange(len(live)), live, count, seed)


Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]


def bootstrap(
    statistic: Statistic, resamples: Resamples, by_patch: bool = True
) -> dict[str, np.ndarray]:
    """A statistic over all resamples, in pieces that fit in memory: name -> (B,).

    `statistic` takes (b, n) weights of patches, or (b, G) weights of groups if `by_patch` is false.
    """
    width = max(1, len(resamples.codes) if by_patch else resamples.groups)
    step, pieces = max(1, CELLS // width), []
    for start in range(0, len(resamples.weights), step):
        weights = resamples.weights[start : start + step]
        pieces.append(statistic(weights[:, resamples.codes] if by_patch else weights))
    names = pieces[0] if pieces else ()
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in names}


def percentile(
    values: np.ndarray | None, confidence: float, groups: int | None = None
) -> list[float] | None:
    """The central `confidence` share of bootstrap values, NaN left out; None if fewer than 20
    remain.

    groups: of how many the draws are; the interval is then expanded for few of them.
    """
    values = np.empty(0) if values is None else values[np.isfinite(values)]
    if len(values) < 20:
        return None
    level = confidence if groups is None else expanded(confidence, groups)
    return np.quantile(values, [(1 - level) / 2, (1 + level) / 2]).tolist()


def expanded(confidence: float, groups: int) -> float:
    """The level at which to take percentiles so that an interval over so few groups covers
    `confidence`.

    The plain one takes too little from few groups: by the factor sqrt((n - 1) / n), and by the
    normal quantile in place of Student's (Hesterberg 2015, expanded percentile interval). In 3,000
    simulations, means of 4, 8 and 19 normal groups were covered by 0.86, 0.92 and 0.95 where the
    plain interval covers 0.79, 0.87 and 0.93; groups of 5 to 60 patches, 19 of them, by 0.93.
    """
    if groups < 2:
        return confidence
    student = special.stdtrit(groups - 1, (1 - confidence) / 2)
    return float(1 - 2 * special.ndtr(np.sqrt(groups / (groups - 1)) * student))


def few_groups(groups: int) -> str:
    """The warning that belongs beside an interval over so few groups, or ''."""
    if groups >= LEAST_GROUPS:
        return ""
    return f"{groups} groups are few: an interval over fewer than {LEAST_GROUPS} is a rough guide"


def binomial(value: float, n: int, confidence: float) -> list[float] | None:
    """value +- z sqrt(value (1 - value) / n), cut to 0..1: the paper's interval of balanced
    accuracy.

    It gives the paper's 0.851-0.881 from its 0.866 and 1,872 test patches. None if undefined.
    """
    if not n or not np.isfinite(value):
        return None
    half = special.ndtri((1 + confidence) / 2) * np.sqrt(value * (1 - value) / n)
    return [max(0.0, value - half), min(1.0, value + half)]


def wilson(value: float, n: int, confidence: float) -> list[float] | None:
    """Wilson's interval of a proportion of n patches, which has a width at 0 and 1 too.

    None if undefined.
    """
    if not n or not np.isfinite(value):
        return None
    from scipy import stats  # imported late: it takes longer than all else here

    bounds = stats.binomtest(round(value * n), n).proportion_ci(confidence, method="wilson")
    return [float(bounds.low), float(bounds.high)]
