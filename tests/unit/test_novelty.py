"""Novelty: distance to a bank of training windows, its limit by groups left out, and when a frame
is flagged.
"""

import numpy as np
import pytest

from src.common.scoring.novelty import Novelty, frame_flags, kth_distance, load_novelty, unit
from src.common.train.training_range import fit_novelty, least_sharpness, spread
from tests.conftest import write_store

CONTRACT = {
    "bits": [16],
    "intensity": {"low": [100.0, 200.0], "high": [1000.0, 3000.0], "tolerance": 0.5},
    "unlike_share": 0.25,
}


def cloud(
    centre: int, groups: int = 6, each: int = 50, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 40) around one axis, each group a little off, and their groups."""
    rng = np.random.default_rng(seed)
    shifts = np.repeat(rng.normal(0, 0.3, (groups, 40)), each, axis=0)
    features = 5 * np.eye(40)[centre] + shifts + rng.normal(0, 0.3, (groups * each, 40))
    return features, np.repeat([f"g{i}" for i in range(groups)], each)


def test_the_distance_to_the_kth_neighbour_is_that_of_sorting():
    rng = np.random.default_rng(1)
    rows, bank = unit(rng.normal(size=(20, 7))), unit(rng.normal(size=(30, 7)))
    every = np.sort(np.linalg.norm(rows[:, None] - bank[None], axis=2), axis=1)
    for k in (1, 5, 30):
        np.testing.assert_allclose(kth_distance(rows, bank, k), every[:, k - 1], atol=1e-9)


def test_what_is_like_training_is_below_the_limit_and_what_is_not_above():
    features, groups = cloud(0)
    novelty = fit_novelty(features, groups, 1)
    another_plate = cloud(0, groups=3, seed=5)[0]
    assert (novelty.score(another_plate) > 1).mean() < 0.1
    assert (novelty.score(cloud(1)[0]) > 1).all()
    assert (
        novelty.score(100 * another_plate) == novelty.score(another_plate)
    ).mean() > 0.99  # length does not count


def test_the_limit_is_set_by_groups_left_out():
    """A group far from the others widens the limit; within it, windows are near each other and
    would not.
    """
    features, groups = cloud(0)
    odd = groups == "g5"
    apart = np.where(odd[:, None], cloud(3)[0], features)
    assert fit_novelty(apart, groups, 1).limit > 2 * fit_novelty(features, groups, 1).limit
    assert (
        fit_novelty(apart, np.full(len(groups), "one"), 1).limit
        < fit_novelty(apart, groups, 1).limit
    )


def test_about_one_in_a_hundred_training_windows_is_above_the_limit():
    features, groups = cloud(0, groups=20)
    novelty = fit_novelty(features, groups, 1)
    allowed = groups[:, None] != groups[spread(groups, 500, 1)][None, :]
    beyond = kth_distance(unit(features), novelty.bank, novelty.k, allowed) > novelty.limit
    assert 0.005 <= beyond.mean() <= 0.015


def test_the_bank_is_bounded_and_spread_over_groups():
    groups = np.repeat(["large", "small", "tiny"], [2000, 300, 10])
    rows = spread(groups, 500, 1)
    assert len(rows) == len(set(rows)) == 500
    assert {name: int((groups[rows] == name).sum()) for name in set(groups)} == {
        "large": 245,
        "small": 245,
        "tiny": 10,
    }
    np.testing.assert_array_equal(rows, spread(groups, 500, 1))


@pytest.mark.parametrize("sizes", [[40], [39, 1], [3, 2], [2]])
def test_few_windows_or_groups_still_give_a_limit(sizes):
    features = np.abs(np.random.default_rng(2).normal(size=(sum(sizes), 8)))
    novelty = fit_novelty(features, np.repeat(np.arange(len(sizes)).astype(str), sizes), 1)
    assert 0 < novelty.limit < 2
    assert (novelty.score(features) <= 1).mean() > 0.5  # what was fitted on is like itself


def test_it_is_stored_as_numbers_and_reads_back_the_same(tmp_path):
    features, groups = cloud(0)
    novelty = fit_novelty(features, groups, 1)
    novelty.save(tmp_path)
    read = load_novelty(tmp_path)
    assert isinstance(read, Novelty)
    np.testing.assert_array_equal(
        read.score(cloud(0, seed=7)[0]), novelty.score(cloud(0, seed=7)[0])
    )
    assert load_novelty(tmp_path / "elsewhere") is None


def test_the_least_sharpness_is_that_of_the_least_sharp_windows(tmp_path):
    rng = np.random.default_rng(3)
    sharp, soft = (
        np.kron(rng.integers(0, 256, (128 // n,) * 2), np.ones((n, n))).astype(np.uint8)
        for n in (8, 32)
    )
    store = write_store(tmp_path, {"sharp": sharp, "soft": soft})
    table = store.frames[["image_id"]].assign(y=0, x=0, size=128).reset_index(drop=True)
    both, alone = (
        least_sharpness(store, table),
        least_sharpness(store, table[table["image_id"] == "sharp"]),
    )
    assert both < alone / 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"bits": 8}, "bit depth: 8-bit counts, trained on 16 bit"),
        ({"low": 40}, "intensity: darkest counts 40, in training 100 to 200"),
        ({"low": 60}, None),  # within the tolerance
        ({"high": 4600}, "intensity: brightest counts 4600, in training 1000 to 3000"),
        ({"novelty": np.array([0.5, 0.5, 0.9, 1.1])}, None),  # a quarter, not more
        (
            {"novelty": np.array([0.5, 0.5, 1.2, 1.1])},
            "unlike the training data: 2 of 4 windows with cells",
        ),
        ({"novelty": np.array([])}, None),
    ],
)
def test_a_frame_is_flagged_with_the_reason(change, words):
    facts = {"bits": 16, "low": 150, "high": 2000, "novelty": np.array([0.4, 0.6])} | change
    assert frame_flags(CONTRACT, **facts) == ([words] if words else [])
    assert frame_flags({}, **facts) == []  # an older package has none of these facts
