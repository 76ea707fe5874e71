"""Do intervals over few groups cover as often as they say? By simulation, with the result."""

import numpy as np
import pytest

from src.common.metrics import intervals

REPETITIONS, RESAMPLES = 600, 300


def covered(groups: int, expand: bool, rng: np.random.Generator) -> float:
    """How often the interval of the mean of normal groups of unequal size holds the truth, 0."""
    hits = []
    for _ in range(REPETITIONS):
        size = rng.integers(5, 60, groups)
        value = rng.normal(0, 1, groups)
        weights = rng.multinomial(groups, np.full(groups, 1 / groups), RESAMPLES)
        drawn = (weights @ (size * value)) / (weights @ size)
        low, high = intervals.percentile(drawn, 0.95, groups if expand else None)
        hits.append(low <= 0 <= high)
    return float(np.mean(hits))


@pytest.mark.parametrize(("groups", "least"), [(4, 0.82), (8, 0.89), (19, 0.90)])
def test_expanded_intervals_cover_from_few_groups_where_plain_ones_do_not(groups, least):
    plain = covered(groups, False, np.random.default_rng(groups))
    expanded = covered(groups, True, np.random.default_rng(groups))
    assert expanded >= least and expanded <= 0.99
    assert expanded > plain + (0.04 if groups < 10 else 0)


def test_few_groups_are_said():
    assert "7 groups are few" in intervals.few_groups(7) and intervals.few_groups(8) == ""
