"""The simulated plate: the paper's intensities, both states in every field, the same bytes on every
CPU.
"""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture

from src.common.acquire.simulator import SimulatedField, plan_plate, simulate_field, true_windows
from src.common.acquire.simulator_cells import SIGNS, Cells, place_cells
from src.common.acquire.simulator_render import render_brightfield, render_pi
from src.common.acquire.simulator_thickness import thickness

ROOT = Path(__file__).parents[2]
HEIGHT, WIDTH, SIZE, STRIDE = 560, 784, 224, 112
PARTITIONS = ["no_treatment", "doxo_paclitaxel"]


def measured(plan):
    """The field's windows with their true verdict and mean PI counts."""
    field = simulate_field(plan)
    windows = true_windows(field, plan.height, plan.width, SIZE, STRIDE)
    means = [
        field.pi[y : y + SIZE, x : x + SIZE].mean() for y, x in zip(windows["y"], windows["x"])
    ]
    return field, windows.assign(image_id=plan.image_id, partition=plan.partition, mean_pi=means)


@pytest.fixture(scope="module")
def plate():
    plans = plan_plate(PARTITIONS, 6, HEIGHT, WIDTH, seed=1)
    rendered = [measured(plan) for plan in plans]
    return plans, [field for field, _ in rendered], pd.concat([windows for _, windows in rendered])


@pytest.fixture
def small_plan():
    return plan_plate(["no_treatment"], 1, 256, 320, seed=3)[0]


def thresholds(values):
    """Live and dead threshold of a two-component mixture, as in the paper's step 3."""
    fitted = GaussianMixture(2, random_state=0).fit(np.asarray(values)[:, None])
    mean, sd = fitted.means_.ravel(), np.sqrt(fitted.covariances_.ravel())
    live, dead = np.argsort(mean)
    return mean[live] + sd[live], mean[dead] - sd[dead]


def test_plan_names_every_field_once_and_keeps_arms_in_their_wells():
    plans = plan_plate(PARTITIONS, 40, 1024, 1344, seed=1)
    assert len({plan.image_id for plan in plans}) == len(plans) == 80
    assert len({(plan.partition, plan.position) for plan in plans}) == 72  # 8 twice
    assert {plan.well[0] for plan in plans if plan.partition == "no_treatment"} == {"A"}
    assert len({plan.experiment for plan in plans if plan.partition == "doxo_paclitaxel"}) >= 3
    assert plans[0].pixel_size_um == 0.3225
    assert 1 <= sum(plan.out_of_focus for plan in plans[:40]) <= 4
    assert {plan.day for plan in plans} >= {1, 2, 3, 4, 5}


def test_plan_refuses_what_it_cannot_simulate():
    with pytest.raises(ValueError, match="placebo"):
        plan_plate(["placebo"], 4, 512, 512, seed=1)
    with pytest.raises(ValueError, match="224"):
        plan_plate(["no_treatment"], 4, 200, 512, seed=1)


def test_a_field_is_two_registered_16_bit_frames_and_its_cells(plate):
    plans, fields, _ = plate
    for plan, field in zip(plans, fields):
        for frame in (field.brightfield, field.pi):
            assert frame.shape == (HEIGHT, WIDTH) and frame.dtype == np.uint16
        assert field.out_of_focus == plan.out_of_focus
        assert set(field.cells["state"]) == {"live", "dead"}
        assert (
            field.cells["y"].between(0, HEIGHT).all() and field.cells["x"].between(0, WIDTH).all()
        )


def test_thresholds_land_near_the_papers(monkeypatch):
    monkeypatch.setattr(
        "src.common.acquire.simulator.render_brightfield", lambda plan, cells, rng: None
    )  # PI alone is quick
    plans = plan_plate(["no_treatment"], 12, 1024, 1344, seed=2)
    windows = pd.concat([measured(plan)[1] for plan in plans])
    live, dead = thresholds(windows.query("verdict == 'cells'")["mean_pi"])
    assert live == pytest.approx(258.97, rel=0.08)  # of so few fields
    assert dead == pytest.approx(396.89, rel=0.10)


def placed(partition: str, frames: int, seed: int) -> pd.DataFrame:
    """The tumour cells of all fields in focus, with their session and signs: no image is drawn."""
    tables = []
    for plan in plan_plate([partition], frames, 1024, 1344, seed):
        cells = place_cells(plan, np.random.default_rng((*plan.seed, 0)))
        columns = {
            name: getattr(cells, name) for name in ("y", "x", "dead", "round", "lifted", "blebs")
        }
        signs = dict(zip(SIGNS, cells.signs.T, strict=True))
        table = pd.DataFrame(columns | signs).assign(
            image_id=plan.image_id, session=plan.experiment
        )
        tables.append(table[~cells.immune])
    return pd.concat(tables, ignore_index=True)


def test_controls_are_balanced_and_treated_wells_mostly_dead_in_the_mean_of_sessions():
    share = {
        name: placed(name, 10, seed=1).groupby("session")["dead"].mean() for name in PARTITIONS
    }
    assert share["no_treatment"].mean() == pytest.approx(0.5, abs=0.06)
    assert share["doxo_paclitaxel"].mean() == pytest.approx(0.83, abs=0.06)
    assert share["no_treatment"].max() > share["no_treatment"].min() + 0.4
    assert share["doxo_paclitaxel"].max() > share["doxo_paclitaxel"].min() + 0.1


def test_the_session_alone_tells_something_and_not_all():
    cells = placed("no_treatment", 20, seed=1)
    mean = cells.groupby("session")["dead"].transform("mean")
    assert 0.65 < roc_auc_score(cells["dead"], mean) < 0.85


def test_a_session_has_its_own_exposure_focus_and_light():
    plans = plan_plate(["no_treatment"], 40, 1024, 1344, seed=1)
    table = pd.DataFrame([vars(plan) for plan in plans]).groupby("experiment")
    assert table.ngroups == 5 and table.size().between(7, 9).all()
    for name in ("focus", "light_y", "light_x", "pi_background", "pi_gain", "cell_radius_um"):
        first = table[name].first()
        assert table[name].max().equals(first) and table[name].min().equals(first)
        assert len(first.unique()) > 1
    spread = table["brightness"].agg(lambda values: values.max() - values.min())
    assert spread.max() < table["brightness"].mean().std()


def test_every_sign_of_death_is_weak_and_live_cells_have_them_too():
    cells = placed("no_treatment", 5, seed=4)
    for sign in SIGNS:
        assert 0.6 < roc_auc_score(cells["dead"], cells[sign]) < 0.85, sign
    balls = cells[cells["round"]]
    shares = cells.groupby("dead")["round"].mean()
    assert 0.03 < shares[False] < 0.2 < shares[True] < 0.6
    for cue in (balls["blebs"] > 0, balls["lifted"]):
        share = cue.groupby(balls["dead"]).mean()
        assert 0 < share[False] < share[True] < 1


def test_some_windows_hold_cells_of_both_states():
    cells = placed("no_treatment", 5, seed=4).query("0 <= y < 896 and 0 <= x < 1344")
    square = [cells["image_id"], cells["y"] // SIZE, cells["x"] // SIZE]
    share = cells.groupby(square)["dead"].mean()
    assert 0.05 < share.between(0.25, 0.75).mean() < 0.35


def test_a_field_that_comes_back_has_the_same_cells_and_more_dead_ones():
    plans = plan_plate(["no_treatment"], 10, 1024, 1344, seed=1)
    first, again = plans[0], plans[-1]
    assert (again.position, again.well, again.experiment) == (
        first.position,
        first.well,
        first.experiment,
    )
    assert again.day == first.day + 1 and again.image_id != first.image_id
    before, after = (
        place_cells(plan, np.random.default_rng((*plan.seed, 0))) for plan in (first, again)
    )
    assert np.array_equal(before.y, after.y) and after.dead.sum() > before.dead.sum()
    small = [replace(plan, height=256, width=320) for plan in (first, again)]
    assert not np.array_equal(*(simulate_field(plan).brightfield for plan in small))


def test_immune_cells_are_small_round_partly_dead_and_do_not_fill_a_window():
    plan = replace(
        plan_plate(["no_treatment"], 1, 512, 512, seed=3)[0], immune=200.0, immune_dead=0.4
    )
    cells = place_cells(plan, np.random.default_rng(0))
    assert cells.immune.sum() == 53 and cells.round[cells.immune].all()
    assert cells.radius[cells.immune].max() < cells.radius[~cells.immune & ~cells.round].min()
    assert 0 < cells.dead[cells.immune].mean() < 1
    table = pd.DataFrame({"y": cells.y, "x": cells.x, "radius": cells.radius})
    table = table[cells.immune].assign(state="dead", kind="immune")
    blank = np.zeros((512, 512), np.uint16)
    windows = true_windows(SimulatedField(blank, blank, table, False), 512, 512, SIZE, STRIDE)
    assert set(windows["verdict"]) == {"empty"}


def test_there_are_empty_and_unusable_windows(plate):
    windows = plate[2]
    share = windows["verdict"].value_counts(normalize=True)
    assert share["empty"] > 0.03 and share["unusable"] > 0.03 and share["cells"] > 0.6
    assert (
        windows.groupby("image_id")["verdict"].agg(lambda v: (v == "unusable").mean()).isin([0, 1])
    ).all()


def test_windows_follow_the_truth_of_a_field_with_two_cells():
    cells = pd.DataFrame(
        {"y": [112.0, 112.0], "x": [40.0, 100.0], "radius": [30.0, 30.0], "state": ["live", "dead"]}
    ).assign(kind="tumour")
    blank = np.zeros((1024, 1344), np.uint16)
    windows = true_windows(SimulatedField(blank, blank, cells, False), 1024, 1344, SIZE, STRIDE)
    assert len(windows) == 88  # the paper's grid
    assert windows.query("verdict == 'cells'")[["y", "x"]].to_numpy().tolist() == [[0, 0]]
    blurred = true_windows(SimulatedField(blank, blank, cells, True), 1024, 1344, SIZE, STRIDE)
    assert set(blurred["verdict"]) == {"unusable"}


def one_cell(**values) -> Cells:
    """A flat live tumour cell at 128, 160 with a radius of 29 px, but for `values`."""
    cell = {"y": 128.0, "x": 160.0, "radius": 29.0, "dead": False, "immune": False, "round": False}
    cell |= {"lifted": False, "blebs": 0} | values
    columns = {name: np.array([value]) for name, value in cell.items()}
    return Cells(**columns, signs=np.zeros((1, len(SIGNS))), outline=np.zeros((1, 6)))


@pytest.mark.parametrize(("sign", "outwards"), [("blank", True), ("gathered", False)])
def test_a_sign_of_place_moves_what_there_is_to_see_and_adds_nothing(small_plan, sign, outwards):
    def drawn(value: float) -> np.ndarray:
        signs = np.zeros((1, len(SIGNS)))
        signs[0, SIGNS.index("granular")] = 1.0
        signs[0, SIGNS.index(sign)] = value
        cell = replace(one_cell(), signs=signs)
        return thickness(small_plan, cell, np.random.default_rng(0))[0]

    without, full = drawn(0.0), drawn(1.0)
    assert full.sum() == pytest.approx(without.sum(), rel=0.01)
    dy, dx = np.mgrid[: small_plan.height, : small_plan.width]
    shift = ((full - without) * np.hypot(dy - 128, dx - 160)).sum()
    assert (shift > 0) == outwards and abs(shift) > 20


def test_pi_shows_the_nucleus_and_glows_beyond_the_cell(small_plan):
    frames = [
        render_pi(small_plan, one_cell(dead=dead), np.random.default_rng(0)).astype(float)
        for dead in (True, False)
    ]
    glow = (frames[0] - frames[1])[123:134].mean(axis=0)
    assert glow[160] > 1000
    assert glow[160 - 40] > 10 and glow[160 + 40] > 10  # outside the cell's outline, on both sides
    assert glow[160] > 10 * glow[160 + 40] and abs(glow[5]) < 10


def test_round_cells_stand_out_and_the_other_side_of_focus_inverts_them(small_plan):
    def relief(cell: Cells, focus: int) -> np.ndarray:
        plan = replace(small_plan, focus=focus, noise=0.2, vignette=0.0)
        frame = render_brightfield(plan, cell, np.random.default_rng(0)) / plan.brightness
        return (frame - np.median(frame))[88:168, 120:200]

    ball = one_cell(round=True, radius=14.0)
    above, below = relief(ball, 3), relief(ball, -3)
    assert above.std() > 0.03
    assert np.corrcoef(above.ravel(), below.ravel())[0, 1] < -0.9


def test_a_field_depends_on_its_plan_alone(small_plan):
    first, again = simulate_field(small_plan), simulate_field(small_plan)
    assert np.array_equal(first.brightfield, again.brightfield) and np.array_equal(
        first.pi, again.pi
    )
    pd.testing.assert_frame_equal(first.cells, again.cells)
    other = simulate_field(replace(small_plan, seed=(9, 9)))
    assert not np.array_equal(first.brightfield, other.brightfield)


DIGEST = """
import hashlib
from src.common.acquire.simulator import plan_plate, simulate_field
for plan in plan_plate(["no_treatment", "doxo_paclitaxel"], 4, 256, 320, 5)[2:6]:
    field = simulate_field(plan)
    cells = field.cells[["y", "x", "radius"]].to_numpy()
    frames = field.brightfield.tobytes() + field.pi.tobytes() + cells.tobytes()
    print(plan.out_of_focus, hashlib.sha256(frames).hexdigest())
"""


def test_the_bytes_are_the_same_without_avx_and_fma():
    masks = {
        "NPY_DISABLE_CPU_FEATURES": "AVX512_SPR AVX512_ICL X86_V4 X86_V3",
        "OPENCV_CPU_DISABLE": "AVX512_SKX,AVX2,FMA3,AVX,SSE4_2,SSE4_1",
    }
    digests = []
    for extra in ({}, masks):
        command = [sys.executable, "-W", "ignore", "-c", DIGEST]
        run = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **extra},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.append(run.stdout)
    assert digests[0].count("\n") == 4
    assert digests[0] == digests[1]


@pytest.fixture(scope="module")
def from_truth():
    spec = importlib.util.spec_from_file_location(
        "from_truth", ROOT / "annotations" / "from_truth.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_annotations_are_spread_over_the_fields_and_repeatable(from_truth, plate):
    counts = {"cells": 40, "empty": 10, "unusable": 10}
    chosen = from_truth.annotate(plate[2], counts)
    assert chosen["verdict"].value_counts().to_dict() == counts
    assert not chosen.duplicated(["image_id", "y", "x"]).any()
    assert chosen.query("verdict == 'cells'")["image_id"].value_counts().max() <= 4
    pd.testing.assert_frame_equal(
        chosen, from_truth.annotate(plate[2].sample(frac=1, random_state=0), counts)
    )
    with pytest.raises(ValueError, match="simulate more frames"):
        from_truth.annotate(plate[2], {"empty": 10_000})


def test_committed_annotations_are_the_papers_226_and_226():
    table = pd.read_csv(ROOT / "annotations" / "synthetic.csv")
    assert list(table.columns) == ["image_id", "y", "x", "size", "verdict", "annotator", "date"]
    assert (table["verdict"] == "cells").sum() == (table["verdict"] != "cells").sum() == 226
    assert set(table["annotator"]) == {"simulator"}
    known = {plan.image_id for plan in plan_plate(PARTITIONS, 40, 1024, 1344, seed=1)}
    assert set(table["image_id"]) <= known
