"""Neighbourhood purity with known answers, and maps that repeat."""

import numpy as np
import pytest

from src.common.explain.map_figures import thumbnail_canvas
from src.common.explain.purity import purity
from src.common.figures.embedding import TooFewWindows, tsne


def blobs(count: int, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Two classes of `count` points each in 8 dimensions, centres `distance` apart."""
    points = np.random.default_rng(0).normal(size=(2 * count, 8))
    labels = np.repeat(["dead", "live"], count)
    points[labels == "live", 0] += distance
    return points, labels


def test_separate_classes_are_pure():
    found = purity(*blobs(30, 100), k=10)
    assert found["purity"] == found["excess"] == 1 and found["n"] == 60
    assert found["chance"] == pytest.approx(29 / 59)
    assert found["by_label"]["dead"]["n"] == 30 and found["by_label"]["dead"]["purity"] == 1


def test_mixed_classes_are_as_pure_as_chance():
    found = purity(*blobs(300, 0), k=10)
    assert abs(found["excess"]) < 0.06


def test_chance_follows_the_class_shares():
    points = np.random.default_rng(1).normal(size=(100, 3))
    labels = np.repeat(["dead", "live"], [90, 10])
    found = purity(points, labels, k=5)
    assert found["chance"] == pytest.approx((90 * 89 + 10 * 9) / 99 / 100)
    assert found["by_label"]["live"]["chance"] == pytest.approx(9 / 99)


def test_known_neighbours():
    points = np.array([[0.0], [1.0], [3.0], [7.0]])
    found = purity(points, np.array(["a", "a", "b", "a"]), k=1)
    assert found["purity"] == 0.5  # nearest: 0 -> 1, 1 -> 0, 2 -> 1, 3 -> 2: a-a, a-a, b-a, a-b


def test_copies_within_a_group_do_not_count():
    centres = np.random.default_rng(2).normal(
        size=(40, 4)
    )  # each group: 10 near-copies, labels at random
    points = np.repeat(centres, 10, axis=0) + np.random.default_rng(3).normal(0, 1e-3, (400, 4))
    groups = np.repeat(np.arange(40), 10)
    labels = np.random.default_rng(4).permutation(np.repeat(["dead", "live"], 20))[groups]
    assert purity(points, labels, k=9)["excess"] == 1
    assert abs(purity(points, labels, k=9, groups=groups)["excess"]) < 0.25


def test_one_group_has_no_others():
    points, labels = blobs(5, 1)
    assert purity(points, labels, k=3, groups=np.zeros(10))["purity"] is None


def test_one_class_has_no_excess():
    found = purity(np.arange(5.0)[:, None], np.array(["dead"] * 5), k=2)
    assert found["purity"] == found["chance"] == 1 and found["excess"] is None


def test_map_repeats_and_keeps_classes_apart():
    points, labels = blobs(30, 30)
    places, perplexity = tsne(points, perplexity=30, seed=1)
    again, _ = tsne(points, perplexity=30, seed=1)
    np.testing.assert_array_equal(places, again)
    assert places.shape == (60, 2) and perplexity == pytest.approx(59 / 3)
    assert purity(places, labels, k=10)["purity"] == 1


def test_too_few_windows_are_refused():
    with pytest.raises(TooFewWindows, match="7 windows or more, not 6"):
        tsne(np.zeros((6, 3)), perplexity=30, seed=1)


def test_thumbnails_stand_at_their_places():
    places = np.array([[0.0, 0.0], [10.0, 5.0]])  # the second: right and above
    windows = [np.full((32, 32), 40, np.uint8), np.full((32, 32), 200, np.uint8)]
    canvas = thumbnail_canvas(places, windows, np.array(["dead", "live"]), side=300)
    height, width = canvas.shape[:2]
    assert width == 300 and height == 90 + 105  # thumbnails of 90 px; the map's aspect is kept
    assert (
        (canvas[-45, 45] == 40).all()
        and (canvas[45, -45] == 200).all()
        and (canvas[0, 0] == 255).all()
    )
