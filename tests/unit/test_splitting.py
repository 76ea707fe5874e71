"""Groups and their assignment: one field is one group, nothing meets across parts, classes are
shared out evenly.
"""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.common.patches.groups import SplitError, groups
from src.common.patches.rounds import class_counts, rounds
from src.common.split import assign as assigning
from src.common.split.assign import assign


def table(**columns) -> pd.DataFrame:
    blank = dict.fromkeys(("experiment", "well", "position", "compound"))
    rows = len(columns["image_id"])
    frame = pd.DataFrame(
        {name: columns.get(name, [value] * rows) for name, value in blank.items()}, dtype="str"
    )
    return frame.assign(
        image_id=columns["image_id"], partition=columns.get("partition", "p"),
        time=columns.get("time", np.nan), day=columns.get("day", np.nan), concentration=np.nan,
    )  # fmt: skip


def test_one_field_at_several_times_is_one_group():
    found = groups(
        table(image_id=["a", "b", "c"], well=["W1"] * 3, position=["1", "1", "2"], time=[0, 1, 0]),
        [],
    )
    assert found[0] == found[1] != found[2]


def test_positions_are_numbered_anew_in_each_well_and_partition():
    found = groups(
        table(
            image_id=list("abc"),
            partition=["p", "p", "q"],
            well=["W1", "W2", "W1"],
            position=["1"] * 3,
        ),
        [],
    )
    assert found.nunique() == 3


def test_image_where_no_position_is_given():
    found = groups(table(image_id=["a", "a", "b", "c"], position=[None, None, "", "7"]), [])
    assert found.tolist() == ["a", "a", "b", "p/7"]


def test_several_columns_together_name_a_group():
    found = groups(
        table(image_id=list("abc"), experiment=["e", "e", "f"], day=[1, 2.5, 1]),
        ["experiment", "day"],
    )
    assert found.tolist() == ["e/1", "e/2.5", "f/1"]


def test_long_numbers_name_groups_of_their_own():
    found = groups(table(image_id=list("abc"), time=[1.7e9, 1.7e9 + 60, 0.1 + 0.2]), ["time"])
    assert found.tolist() == ["1700000000", "1700000060", "0.3"]


def test_unknown_column_is_refused_with_those_available():
    with pytest.raises(
        SplitError,
        match=r"no column 'plate'; columns filled for every image: image_id, .*experiment",
    ):
        groups(table(image_id=["a"], experiment=["e"]), ["plate"])


def test_column_empty_for_some_images_is_refused_with_their_names():
    with pytest.raises(
        SplitError, match=r"'well' is empty for 1 images \(b\).*image_id, partition"
    ):
        groups(table(image_id=["a", "b"], well=["W1", None]), ["well"])


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=5, max_size=30),
    st.integers(0, 3),
)
def test_every_part_gets_a_group_whatever_the_counts(counts, seed):
    parts = assign(np.array(counts), np.full(5, 0.2), seed)
    assert sorted(set(parts)) == [0, 1, 2, 3, 4]


def test_shares_of_both_classes_and_of_groups_are_near_the_fractions():
    random = np.random.default_rng(1)
    counts = np.column_stack([random.integers(0, 60, 60), random.integers(0, 60, 60)])
    fractions = np.array([0.8, 0.1, 0.1])
    parts = assign(counts, fractions, seed=1)
    for part, fraction in enumerate(fractions):
        assert np.allclose(counts[parts == part].sum(0) / counts.sum(0), fraction, atol=0.01)
        assert (parts == part).sum() == round(60 * fraction)


def test_a_rare_class_reaches_every_part_if_it_can():
    counts = np.tile([0, 50], (40, 1))
    counts[[3, 17, 31], 0] = [1, 1, 30]  # live patches in three groups only
    parts = assign(counts, np.array([0.8, 0.1, 0.1]), seed=1)
    assert sorted(parts[[3, 17, 31]]) == [0, 1, 2]


def test_the_largest_of_few_unequal_groups_is_trained_on():
    counts = np.array([[11, 30], [5, 0], [0, 6], [1, 3]])
    assert assign(counts, np.array([0.8, 0.1, 0.1]), seed=1).tolist() == [0, 2, 2, 1]


def test_many_groups_divide_as_evenly_though_few_are_tried_for_exchange(monkeypatch):
    monkeypatch.setattr(assigning, "MANY", 20)
    counts = np.random.default_rng(3).integers(0, 60, (400, 2))
    fractions = np.array([0.8, 0.1, 0.1])
    parts = assign(counts, fractions, seed=1)
    for part, fraction in enumerate(fractions):
        assert np.allclose(counts[parts == part].sum(0) / counts.sum(0), fraction, atol=0.002)


def test_assignment_depends_on_the_seed_alone():
    counts = np.random.default_rng(2).integers(1, 60, (30, 2))
    fractions = np.array([0.8, 0.1, 0.1])
    assert np.array_equal(assign(counts, fractions, 5), assign(counts, fractions, 5))
    assert any(
        not np.array_equal(assign(counts, fractions, 5), assign(counts, fractions, s))
        for s in (6, 7)
    )


def test_class_counts_are_per_group_and_zero_where_a_class_is_missing():
    found = class_counts(
        pd.DataFrame({"group": ["b", "a", "a"], "label": ["live", "dead", "dead"]})
    )
    assert found.to_dict("index") == {"a": {"live": 0, "dead": 2}, "b": {"live": 1, "dead": 0}}


def test_holdout_is_one_round():
    (found,) = rounds(
        pd.DataFrame({"split": ["train", "test", "valid", "train"], "fold": -1}),
        {"scheme": "holdout"},
    )
    assert found.name == "holdout"
    assert [m.tolist() for m in (found.train, found.valid, found.test)] == [
        [1, 0, 0, 1],
        [0, 0, 1, 0],
        [0, 1, 0, 0],
    ]


def test_kfold_tests_every_row_once_and_trains_last_on_everything():
    folds = np.array([0, 1, 2, 3, 0, 2])
    found = rounds(pd.DataFrame({"split": "", "fold": folds}), {"scheme": "kfold", "folds": 4})
    assert [r.name for r in found] == ["fold-0", "fold-1", "fold-2", "fold-3", "final"]
    assert (sum(r.test.astype(int) for r in found[:-1]) == 1).all()
    for f, r in enumerate(found[:-1]):
        assert (r.train.astype(int) + r.valid + r.test == 1).all()
        assert set(folds[r.test]) == {f} and set(folds[r.valid]) == {(f + 1) % 4}
    assert found[-1].train.all() and not found[-1].valid.any() and not found[-1].test.any()
