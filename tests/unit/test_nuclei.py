"""Dead nuclei in maps of PI: spots of known place are found, haze and borders are not."""

import numpy as np
import pytest

from src.common.explain.nuclei import dead_nuclei, matched

PIXEL = 1.2  # um: a nucleus is about 11 px wide


def plate(centres: list[tuple[int, int]], height: float = 3.0) -> np.ndarray:
    y, x = np.mgrid[:200, :240]
    spots = [np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * 3.5**2)) for a, b in centres]
    return 1 + height * np.sum(spots, axis=0)


def test_each_spot_is_found_once_at_its_place():
    centres = [(30, 40), (30, 60), (120, 200), (199, 10)]
    noise = np.random.default_rng(0).normal(0, 0.05, (200, 240))
    found = dead_nuclei(plate(centres) + noise, PIXEL)
    assert len(found) == 4 and matched(found, np.array(centres), 4) == 4


@pytest.mark.parametrize("height", [0.0, 0.4])
def test_nothing_is_found_where_nothing_is_stained(height):
    assert len(dead_nuclei(plate([(50, 50)], height), PIXEL)) == 0


def test_unknown_pixels_hold_no_nuclei():
    ratio = plate([(50, 50), (150, 150)])
    ratio[:100] = np.nan
    assert dead_nuclei(ratio, PIXEL).tolist() == [[150, 150]]


def test_matching_is_one_to_one_and_within_reach():
    true = np.array([[10, 10], [50, 50]])
    assert matched(np.array([[11, 10], [9, 10], [80, 80]]), true, 5) == 1
    assert matched(np.empty((0, 2)), true, 5) == 0
    assert matched(true, true, 5) == 2
