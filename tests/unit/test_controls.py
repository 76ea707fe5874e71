"""A session's operating point from windows of known class: how far it moves, what it mends."""

import numpy as np
import pandas as pd
import pytest

from src.assay import controls, heldout
from src.assay.cells import calling_point
from src.assay.checked import Checked
from src.assay.controls import PRIOR, Expected, evidence, moved, shift
from src.assay.model import Model
from src.assay.predicted import Predicted
from src.assay.scored import Scored
from src.common.images.files import FileField

MEANS = Expected(live=2.0, dead=-2.0)
OPERATING = {"temperature": 1.0, "threshold": 0.5, "live_from": 0.7, "dead_to": 0.3}


def p_of(z) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(z, float)))


def windows(z) -> pd.DataFrame:
    table = pd.DataFrame({"live_probability": p_of(z), "verdict": "cells", "novelty": 0.0})
    return moved(table.assign(call="none"), 0.0, OPERATING)


def test_the_shift_is_the_mean_distance_shrunk_by_the_prior():
    z = np.array([1.0] * 12 + [-3.0] * 8)
    live = z > 0
    assert shift(p_of(z), live, MEANS) == pytest.approx(20 / (20 + PRIOR), abs=1e-4)
    assert shift(p_of(z)[:9], live[:9], MEANS) == 0.0  # too few to move by


def test_moved_windows_keep_their_order_and_what_is_not_called():
    table = windows([-2.0, 0.0, 1.0])
    table.loc[0, ["live_probability", "call"]] = [np.nan, "none"]
    after = moved(table, 1.5, OPERATING)
    assert after["call"].tolist() == ["none", "live", "live"]
    np.testing.assert_allclose(evidence(after["live_probability"][1:]), [1.5, 2.5], atol=1e-4)


def test_a_session_that_is_off_is_called_rightly_by_its_controls():
    """Evidence 2 too low: half of the live windows are called dead or left open, until controls
    set the operating point."""
    rng, wrong = np.random.default_rng(0), {True: [], False: []}
    for _ in range(100):
        live = rng.random(200) < 0.5
        z = np.where(live, 2.0, -2.0) + rng.normal(0, 1, 200) - 2.0
        known = np.where(np.arange(40) < 20, 2.0, -2.0) + rng.normal(0, 1, 40) - 2.0
        by = shift(p_of(known), np.arange(40) < 20, MEANS)
        for adapted in wrong:
            call = moved(windows(z), by if adapted else 0.0, OPERATING)["call"].to_numpy()
            wrong[adapted].append(np.mean((call == "dead") & live) / live.mean())
    assert np.mean(wrong[False]) > 0.15 and np.mean(wrong[True]) < 0.02


def test_each_plate_is_moved_by_its_own_controls_only(monkeypatch):
    own = pd.DataFrame({"live": [True, False], "group": ["a", "a"], "score": [2.0, -2.0]})
    monkeypatch.setattr(heldout, "patches", lambda run_id: own)
    model = Model(None, {"operating": OPERATING}, {"run_id": "r", "uri": "models:/m/1"})

    def image(name: str, plate: str, control: str, z: float) -> Scored:
        facts = {"image_id": name, "partition": "", "experiment": plate, "brightfield": None}
        return Scored(Checked(FileField(**facts, control=control)), windows([z] * 16))

    images = [
        image("a", "one", "negative", 0.0),
        image("b", "two", "negative", 2.0),
        image("c", "one", "", 0.0),
        image("d", "two", "", 0.0),
        image("e", "three", "", 0.0),
        image("f", "four", "positive", 0.0),  # all-dead wells alone set no operating point
    ]
    after, told = controls.by_controls(images, model)
    assert [one.checked.image.image_id for one in after] == list("abcdef")
    calls = {one.checked.image.image_id: one.windows["call"][0] for one in after}
    assert calls == {
        "a": "live",
        "b": "live",
        "c": "live",
        "d": "abstain",
        "e": "abstain",
        "f": "abstain",
    }
    assert (
        len(told) == 4
        and "16 windows of negative" in told[0]
        and all("not moved" in t for t in told[2:])
    )


def test_control_images_that_are_flagged_set_nothing_and_that_is_said(monkeypatch):
    own = pd.DataFrame({"live": [True, False], "group": ["a", "a"], "score": [2.0, -2.0]})
    monkeypatch.setattr(heldout, "patches", lambda run_id: own)
    contract = {"operating": OPERATING, "unlike_share": 0.5}
    model = Model(None, contract, {"run_id": "r", "uri": "models:/m/1"})

    def image(name: str, z: float, novelty: float) -> Scored:
        facts = {"image_id": name, "partition": "", "brightfield": None, "control": "negative"}
        return Scored(Checked(FileField(**facts)), windows([z] * 16).assign(novelty=novelty))

    like, unlike = image("a", 0.0, 0.5), image("b", -6.0, 2.0)
    (alone, *_), told = controls.by_controls([like], model)
    (beside, _), both = controls.by_controls([like, unlike], model)
    pd.testing.assert_frame_equal(alone.windows, beside.windows)
    assert "left out" not in told[0] and "1 images of controls flagged or refused" in both[0]


def test_cells_are_moved_by_what_predicted_pi_weighs_in_them_and_called_in_their_own_band():
    contract = {
        "operating": OPERATING | {"temperature": 2.0},
        "nuclei": {
            "weights": [0.25, 1, 1, 1], "live_from": 0.9, "dead_to": 0.1, "speck_um2": 20.0,
        },
    }  # fmt: skip
    at = calling_point(contract)
    assert at["weight"] == 0.5 and calling_point(contract | {"nuclei": None})["weight"] == 1.0
    cells = windows([0.0, 1.7, 1.7]).assign(area_um2=[99.0, 150.0, 19.0])  # the last is a speck
    one = Scored(Checked(None), windows([0.0]), Predicted(None, cells))
    after = controls._moved(one, 1.0, contract["operating"], at)
    z = np.log(1 / after.cells["live_probability"] - 1)
    np.testing.assert_allclose(z, [-0.5, -2.2, -2.2], atol=1e-4)
    assert after.cells["call"].tolist() == ["abstain", "live", "abstain"]
    assert after.windows["live_probability"][0] == pytest.approx(1 / (1 + np.exp(-1.0)), abs=1e-6)


def test_without_the_models_own_test_nothing_is_moved_and_that_is_said(monkeypatch):
    monkeypatch.setattr(heldout, "patches", lambda run_id: None)
    model = Model(None, {"operating": OPERATING}, {"run_id": None, "uri": "models:/m/1"})
    with pytest.raises(
        controls.ControlsError, match="own test of models:/m/1 is not in the MLflow"
    ):
        controls.by_controls([], model)


def test_stained_fields_move_as_far_as_their_classes_ask_and_the_prior_lets():
    """Dead windows that look live pull down; those that are rightly called move little."""
    fields = np.repeat(["a", "b", "c"], 4)
    wrong, right = (controls.intercept(p_of(np.full(12, z)), np.zeros(12, bool), fields)
                    for z in (2.0, -4.0))  # fmt: skip
    assert -4 < wrong < -2 and -0.3 < right < 0
    known = np.array([True, False] * 6)  # as often right as wrong on both sides: no reason to move
    assert controls.intercept(np.full(12, 0.5), known, fields) == pytest.approx(0, abs=1e-6)


def test_a_field_of_many_windows_moves_no_further_than_one_of_four():
    few, many = (
        controls.intercept(p_of(np.ones(n)), np.zeros(n, bool), np.zeros(n)) for n in (4, 88)
    )
    assert many == pytest.approx(few, abs=1e-6) and few < -0.5
