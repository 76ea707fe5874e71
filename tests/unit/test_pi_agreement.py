"""Agreement of maps with PI: what counts as a stained nucleus, and intervals and p values over
groups.
"""

import cv2
import numpy as np
import pandas as pd
import pytest

from src.common.explain import pi_agreement
from src.common.explain.pi_agreement import (
    agreement,
    iou_pairs,
    over_groups,
    pi_ratio,
    stained_nuclei,
    stands_out,
)

SIDE = 112  # px of a reduced field; the windows are of 224 px, 56 here


class Store:
    """One field of given counts; its 8-bit PI runs from 0 to 2550 counts."""

    def __init__(self, counts: np.ndarray):
        self.field = np.round(counts / 10).astype(np.uint8)
        facts = {"pi_background": float(np.median(counts)), "pi_low": 0.0, "pi_high": 2550.0}
        self.frames = pd.DataFrame(facts, index=["a"])

    def pi(self, image_id: str) -> np.ndarray:
        return self.field


def nuclei(places: list[tuple[int, int]], radius: int = 3) -> np.ndarray:
    drawn = np.zeros((SIDE, SIDE), np.uint8)
    for y, x in places:
        cv2.circle(drawn, (x, y), radius, 1, -1)
    return drawn > 0


def test_pi_is_taken_over_the_background_in_counts():
    counts = np.full((SIDE, SIDE), 200.0)
    counts[0, :2] = 400, 90
    np.testing.assert_allclose(pi_ratio(Store(counts), "a", 0, 0, 224)[0, :3], [2, 0.45, 1])


def test_nuclei_are_bright_and_the_haze_over_a_colony_is_not():
    places = [(20, 20), (20, 40), (40, 30), (80, 90)]
    haze = cv2.GaussianBlur(nuclei([(30, 30)], 28).astype(float), (0, 0), 6)
    counts = (
        150 + 450 * haze + 700 * nuclei(places)
    )  # the haze lifts half the window to four times the background
    store = Store(counts)
    assert (pi_ratio(store, "a", 0, 0, 224) > 2).mean() > 0.5
    np.testing.assert_array_equal(stained_nuclei(store, "a", 0, 0, 224), nuclei(places)[:56, :56])
    np.testing.assert_array_equal(
        stained_nuclei(store, "a", 224, 224, 224), nuclei(places)[56:, 56:]
    )


def test_twice_the_surroundings_is_the_limit():
    field = np.full((SIDE, SIDE), 100, np.float32)
    field[10, 10], field[30, 30] = 200, 201
    assert np.argwhere(stands_out(field, 25)).tolist() == [[30, 30]]


def test_nothing_is_bright_without_nuclei():
    field = np.random.default_rng(0).normal(200, 15, (SIDE, SIDE)).astype(np.float32)
    assert not stands_out(
        field + np.linspace(0, 600, SIDE, dtype=np.float32), 25
    ).any()  # noise, uneven light
    assert not stands_out(np.zeros((SIDE, SIDE), np.float32), 25).any()


def test_surroundings_scale_with_the_window(monkeypatch):
    widths = []
    monkeypatch.setattr(
        pi_agreement, "stands_out", lambda counts, width: widths.append(width) or counts > 0
    )
    for size in (224, 112):
        stained_nuclei(Store(np.ones((SIDE, SIDE))), "a", 0, 0, size)
    assert widths == [25, 13]


def quadrant(row: int, column: int, dtype=np.float32) -> np.ndarray:
    area = np.zeros((4, 4), dtype)
    area[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 1
    return area


CORNERS = [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_perfect_maps_against_chance():
    maps, bright = [quadrant(*c) for c in CORNERS], [quadrant(*c, bool) for c in CORNERS]
    found = agreement(maps, bright, np.array(list("abcd")))
    assert found["area_share"] == 0.25
    for name in ("pointing", "iou"):
        expected = {
            "observed": 1,
            "chance": 0,
            "gain": 1,
            "gain_interval": None,
            "p": None,
        }  # the groups do not differ
        assert found[name] == expected


def test_the_same_bright_area_everywhere_is_no_evidence():
    found = agreement([quadrant(0, 0)] * 4, [quadrant(0, 0, bool)] * 4, np.array(list("abcd")))
    assert [found["pointing"][name] for name in ("observed", "chance", "gain")] == [1, 1, 0]


def test_pointing_beside_a_nucleus_counts_within_15_px():
    assert pi_agreement.grown(nuclei([(20, 20)], radius=0)).sum(0).nonzero()[0].tolist() == list(
        range(16, 25)
    )
    bright = [nuclei([(20, 20)]), nuclei([(90, 90)])]
    beside = np.zeros((2, SIDE, SIDE), np.float32)
    beside[0, 20, 27], beside[1, 90, 98] = (
        1,
        1,
    )  # radius 3: 4 px and 5 px away, which are 16 and 20 px of the image
    found = agreement(list(beside), bright, np.array(["a", "b"]))
    assert found["pointing"]["observed"] == 0 and found["pointing_15px"]["observed"] == 0.5


def test_pairs_within_a_group_are_no_chance():
    maps, bright = (
        [quadrant(*c) for c in CORNERS[:3]],
        [quadrant(*c, bool) for c in ((0, 0), (0, 0), (1, 0))],
    )
    found = agreement(maps, bright, np.array(["a", "a", "b"]))
    assert found["pointing"]["observed"] == (1 / 2 + 1) / 2 and found["pointing"]["chance"] == 0
    alone = agreement(maps[:1], bright[:1], np.array(["a"]))
    assert alone["pointing"]["observed"] == 1 and alone["pointing"]["chance"] is None


def test_a_map_without_evidence_neither_points_nor_overlaps():
    maps, bright = [np.zeros((4, 4), np.float32)] * 2, [np.ones((4, 4), bool)] * 2
    found = agreement(maps, bright, np.array(["a", "b"]))
    assert (
        found["pointing"]["observed"] == found["iou"]["observed"] == 0 and found["empty_maps"] == 2
    )


def test_interval_and_p_are_over_groups_whatever_the_windows():
    bright = [quadrant(*c, bool) for c in CORNERS] * 3
    maps = [quadrant(*c) for c in CORNERS] + [quadrant(*c) for c in CORNERS[::-1]] * 2
    groups = np.repeat(
        np.array(["a", "b", "c"]), 4
    )  # group a is right throughout, the others are wrong throughout
    once = agreement(maps, bright, groups)["pointing"]
    assert once["gain"] == pytest.approx((0.75 - 0.25 - 0.25) / 3)
    assert once["gain_interval"] == pytest.approx([1 / 12 - 4.302653 / 3, 1 / 12 + 4.302653 / 3])
    assert once["p"] == pytest.approx(0.826, abs=5e-4)
    five = agreement(maps * 5, bright * 5, np.tile(groups, 5))[
        "pointing"
    ]  # copies of windows are no evidence
    assert five["p"] == pytest.approx(once["p"]) and five["gain_interval"] == pytest.approx(
        once["gain_interval"]
    )


def test_p_value_of_known_gains():
    interval, p = over_groups(np.array([0.1, 0.2, 0.3, 0.4]))  # t = 3.873 with 3 degrees of freedom
    assert p == pytest.approx(0.03047, abs=1e-5) and interval == pytest.approx(
        [0.04457, 0.45543], abs=1e-5
    )
    for gains in ([0.0, 0.2, 0.3, 0.4], [-0.1, 0.2, 0.3, 0.4], [-0.5, -0.4, -0.45]):
        (low, high), p = over_groups(np.array(gains))
        assert (p < 0.05) == (low > 0 or high < 0)
    assert over_groups(np.array([0.3])) == over_groups(np.array([0.2, 0.2])) == (None, None)


def test_iou_takes_as_many_pixels_as_are_bright():
    values = np.array([[4.0, 3.0, 2.0, 1.0]])
    mask = np.array(
        [[True, False, True, False]]
    )  # highest two: the first two pixels, one of them bright
    assert iou_pairs(values, mask)[0, 0] == 1 / 3
    assert (
        iou_pairs(np.array([[4.0, 0, 0, 0]]), mask)[0, 0] == 1 / 2
    )  # pixels of no evidence do not fill up
