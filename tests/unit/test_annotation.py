"""Annotating: what is asked next, and a sitting of answers, skips, undoing and learning."""

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import save_file

from src.annotation.features import FeatureCache
from src.annotation.sampling import candidates, choose, diverse_order, known
from src.annotation.session import Session
from src.annotation.store import AnnotationFile, Refused
from src.annotation.study import Standing
from src.common.filter import annotations
from src.common.filter.annotations import WINDOW_KEY
from src.common.filter.features import features
from src.common.scoring.networks.net import build, library_model
from src.common.workspace import entries
from tests.conftest import ARCH

HEADER = "image_id,y,x,size,verdict,annotator,date\n"


def grid(images: str = "abcd", side: int = 4, step: int = 32, size: int = 64) -> pd.DataFrame:
    """Windows of `size` px every `step` px in each image: half overlapping by default."""
    rows = [(i, y * step, x * step, size) for i in images for y in range(side) for x in range(side)]
    return pd.DataFrame(rows, columns=WINDOW_KEY)


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("# by hand\n" + HEADER + 'c,0,0,64,empty,"Ana, B.",2026-01-02\n')
    return AnnotationFile(path, "me")


# what is asked next


def test_overlapping_windows_are_known_as_such():
    windows = grid("ab", side=3)
    same, overlapping = known(
        windows, pd.DataFrame([("a", 0, 0, 64), ("b", 64, 64, 10)], columns=WINDOW_KEY)
    )
    assert windows[same][WINDOW_KEY].values.tolist() == [["a", 0, 0, 64]]
    corners = {"a": (0, 32), "b": (32, 64)}
    expected = [[image, y, x, 64] for image, ends in corners.items() for y in ends for x in ends]
    assert windows[overlapping][WINDOW_KEY].values.tolist() == expected


def test_nearest_to_the_boundary_comes_first_but_no_neighbour_of_an_answer():
    windows, order = grid(), np.arange(64)
    scores = np.linspace(1, 2, 64)
    scores[[5, 6, 40]] = 0.01, -0.02, 0.03
    none = windows.iloc[:0]
    assert choose(windows, none, order, scores, set()) == 5
    assert choose(windows, windows.iloc[[5]], order, scores, set()) == 40  # 6 overlaps 5
    assert choose(windows, windows.iloc[[5]], order, scores, {40}) != 40


def test_of_the_uncertain_few_the_image_with_fewest_answers_comes_first():
    windows = grid("ab", side=8, step=64)
    scores = np.full(128, 5.0)
    scores[[3, 70]] = 0.1, 0.2
    rows = windows.iloc[[40]]  # of image a
    assert choose(windows, rows, np.arange(128), scores, set()) == 70
    assert choose(windows, windows.iloc[[100]], np.arange(128), scores, set()) == 3


def test_every_window_is_asked_once_overlapping_ones_last_and_then_none():
    windows = grid("a", side=3)
    order, asked = diverse_order(np.arange(9.0), 1), []
    while (place := choose(windows, windows.iloc[asked], order, None, set())) is not None:
        asked.append(place)
    assert sorted(asked) == list(range(9))
    first = asked[
        : next(i for i in range(1, 9) if known(windows, windows.iloc[asked[:i]])[1].all())
    ]
    assert not any(known(windows, windows.iloc[first[:i]])[1][p] for i, p in enumerate(first))


def test_the_start_takes_every_stratum_in_turn_and_is_the_same_each_time():
    values = np.random.default_rng(0).permutation(100)
    order = diverse_order(values, seed=1)
    assert sorted(order) == list(range(100)) and (order == diverse_order(values, seed=1)).all()
    for turn in range(10):
        assert sorted(values[order[10 * turn : 10 * turn + 10]] // 10) == list(range(10))
    assert not (diverse_order(values, seed=2) == order).all()


def test_candidates_leave_out_borders_and_take_all_images_alike():
    patches = grid("abc").assign(border=0.0)
    patches.loc[patches["image_id"] == "b", "border"] = np.where(np.arange(16) < 8, 0.5, 0.0)
    drawn = candidates(patches, 0.01, 15, seed=1)
    assert (
        drawn["image_id"].value_counts().to_dict() == {"a": 5, "b": 5, "c": 5}
        and (drawn["border"] == 0).all()
    )
    assert (
        drawn.equals(candidates(patches, 0.01, 15, seed=1))
        and len(candidates(patches, 0.01, 999, seed=1)) == 40
    )


# the sitting


class FakeStudy:
    """Scores that put the last window nearest to the boundary, and an F1 that tells the number of
    rows.
    """

    def __init__(self, pool: pd.DataFrame):
        self.pool = pool

    def usable(self, rows: pd.DataFrame) -> annotations.Annotations:
        return annotations.Annotations(rows[[*WINDOW_KEY, "verdict"]], {})

    def standing(self, rows: pd.DataFrame, score: bool = True) -> Standing:
        scores = np.arange(len(self.pool), 0, -1.0) if score else None
        return Standing(
            len(rows), "svm", {"f1_cells": len(rows) / 100, "f1_not_cells": 0.5}, scores
        )


@pytest.fixture
def session(notes) -> Session:
    windows = grid("ab", side=2, step=64)
    return Session(FakeStudy(windows), notes, np.arange(len(windows)))


def test_a_sitting_answers_skips_undoes_and_learns(session):
    assert session.current == 0
    session.answer("cells", 0)
    assert session.current == 1 and session.counts() == {"cells": 1, "empty": 1, "unusable": 0}
    session.skip(1)
    session.refresh()
    session.answer("empty", session.current)
    assert session.current == 7 and session.history == {2: (0.02, 0.5)}
    session.answer("unusable", 7)
    session.undo()
    assert session.current == 7
    session.undo(), session.undo()
    assert session.current == 1  # the skip
    session.undo()
    assert session.current == 0 and session.file.path.read_text().count("\n") == 3
    session.refresh()
    assert session.history == {1: (0.01, 0.5)}
    with pytest.raises(Refused, match="nothing to undo"):
        session.undo()


def test_an_undo_that_the_disk_refuses_is_tried_again_at_the_same_answer(session, monkeypatch):
    session.answer("cells", session.current)
    second = session.current
    session.answer("empty", second)
    with monkeypatch.context() as full:
        full.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(OSError):
            session.undo()
    session.undo()
    assert session.current == second and session.counts()["cells"] == 1


def test_an_answer_to_another_window_than_the_one_in_question_is_refused(session):
    before = session.file.path.read_bytes()
    with pytest.raises(Refused, match="no longer in question"):
        session.answer("cells", 1)
    assert session.file.path.read_bytes() == before and session.current == 0


def test_a_window_answered_by_somebody_else_is_passed_over(session):
    AnnotationFile(session.file.path, "other").append(session.window(0), "unusable")
    with pytest.raises(Refused, match="'unusable'"):
        session.answer("cells", 0)
    assert session.current == 1 and session.counts()["unusable"] == 1


def test_random_order_does_not_follow_the_scores(notes):
    windows = grid("ab", side=2, step=64)
    session = Session(FakeStudy(windows), notes, np.arange(8), uncertain=False)
    session.refresh()
    session.answer("cells", 0)
    assert session.current == 1


def test_features_are_kept_and_told_apart_by_frames_and_network(live_dead, tmp_path, monkeypatch):
    store, table = live_dead
    asked = []

    def embed(net, store, windows: pd.DataFrame) -> np.ndarray:
        asked.extend(windows.itertuples(index=False, name=None))
        return windows[["y", "x"]].to_numpy(np.float32)

    monkeypatch.setattr("src.annotation.features.embed_seen", embed)
    monkeypatch.setattr("src.annotation.features.filter_net", lambda *named: "no network")
    monkeypatch.setenv(entries.BOUND, "1")
    monkeypatch.setattr(entries, "FOLDER", tmp_path / "cache")
    weights = tmp_path / "w"
    weights.write_bytes(b"one")
    FeatureCache(store, ARCH, weights, "windows").of(table)
    assert len(asked) == len(table)
    again = FeatureCache(store, ARCH, weights, "windows").of(table.iloc[[5, 0, 5]])
    assert np.array_equal(again, table.iloc[[5, 0, 5]][["y", "x"]]) and again.dtype == np.float32
    assert len(asked) == len(table)
    weights.write_bytes(b"two")
    FeatureCache(store, ARCH, weights, "windows").of(table.iloc[:2])
    FeatureCache(store, "resnet18", weights, "windows").of(table.iloc[:1])
    FeatureCache(store, ARCH, weights, "frame").of(table.iloc[:1])
    assert len(asked) == len(table) + 4
    monkeypatch.setenv(entries.BOUND, "0")
    known = FeatureCache(store, ARCH, weights, "windows")
    assert np.array_equal(known.of(table.iloc[[1, 1]]), known.of(table.iloc[[1, 1]]))
    assert len(asked) == len(table) + 5


@pytest.mark.parametrize("sees", ["windows", "frame"])
def test_features_are_those_of_the_stage(live_dead, tmp_path, monkeypatch, sees):
    store, table = live_dead
    monkeypatch.setenv(entries.BOUND, "0")
    state = library_model(build(ARCH).backbone).state_dict()
    weights = tmp_path / "model.safetensors"
    save_file({name: value.contiguous() for name, value in state.items()}, weights)
    windows = table[WINDOW_KEY].iloc[::3].reset_index(drop=True)
    found = FeatureCache(store, ARCH, weights, sees).of(windows)
    assert np.allclose(found, features(ARCH, weights, sees, store.directory, windows), atol=1e-4)
