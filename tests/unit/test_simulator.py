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
from sklearn.mixture import GaussianMixture

from src.common.acquire.simulator import SimulatedField, plan_plate, simulate_field, true_windows
from src.common.acquire.simulator_render import Cells, render_pi

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
    assert len({(plan.partition, plan.position) for plan in plans}) == 80
    assert {plan.well[0] for plan in plans if plan.partition == "no_treatment"} == {"A"}
    assert len({plan.experiment for plan in plans if plan.partition == "doxo_paclitaxel"}) >= 3
    assert plans[0].pixel_size_um == 0.3225
    assert 1 <= sum(plan.out_of_focus for plan in plans[:40]) <= 4


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
    assert live == pytest.approx(258.97, rel=0.05)
    assert dead == pytest.approx(396.89, rel=0.10)


def test_controls_are_balanced_and_treated_wells_mostly_dead(monkeypatch):
    for channel in ("render_brightfield", "render_pi"):
        monkeypatch.setattr(
            f"src.common.acquire.simulator.{channel}", lambda plan, cells, rng: None
        )
    share = {}
    for name in PARTITIONS:
        plans = plan_plate([name], 10, 1024, 1344, seed=1)
        share[name] = (
            pd.concat([simulate_field(plan).cells for plan in plans])["state"] == "dead"
        ).mean()
    assert share["no_treatment"] == pytest.approx(0.5, abs=0.06)
    assert share["doxo_paclitaxel"] == pytest.approx(
        0.83, abs=0.06
    )  # about 9 in 10 of the windows that get a label


def test_nearly_every_control_field_has_windows_of_both_classes(plate):
    usable = plate[2].query("partition == 'no_treatment' and verdict == 'cells'")
    live = (usable["mean_pi"] < 258.97).groupby(usable["image_id"]).sum()
    dead = (usable["mean_pi"] > 396.89).groupby(usable["image_id"]).sum()
    assert ((live > 0) & (dead > 0)).mean() > 0.8


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
    )
    blank = np.zeros((1024, 1344), np.uint16)
    windows = true_windows(SimulatedField(blank, blank, cells, False), 1024, 1344, SIZE, STRIDE)
    assert len(windows) == 88  # the paper's grid
    assert windows.query("verdict == 'cells'")[["y", "x"]].to_numpy().tolist() == [[0, 0]]
    blurred = true_windows(SimulatedField(blank, blank, cells, True), 1024, 1344, SIZE, STRIDE)
    assert set(blurred["verdict"]) == {"unusable"}


def test_pi_glows_over_more_than_a_cell_diameter(small_plan):
    one = {
        "y": np.array([128.0]),
        "x": np.array([160.0]),
        "radius": np.array([29.0]),
        "decay": np.array([1.0]),
    }
    one |= {"rounded": np.array([False]), "outline": np.zeros((1, 6))}
    frames = [
        render_pi(small_plan, Cells(dead=np.array([dead]), **one), np.random.default_rng(0)).astype(
            float
        )
        for dead in (True, False)
    ]
    glow = (frames[0] - frames[1])[123:134].mean(axis=0)
    assert glow[160] > 500
    assert (
        glow[160 - 40] > 50 and glow[160 + 40] > 50
    )  # well outside the cell's outline, on both sides
    assert abs(glow[5]) < 10


def test_live_cells_have_a_dark_nucleolus_and_dead_ones_do_not(small_plan):
    plan = replace(small_plan, height=768, width=768, defocus=0.0, noise=0.5, confluence=0.9)
    field = simulate_field(plan)
    darkest = {"live": [], "dead": []}
    for cell in field.cells.query("28 < y < 740 and 28 < x < 740").itertuples():
        y, x, reach = int(cell.y), int(cell.x), int(0.3 * cell.radius)
        middle = (
            field.brightfield[y - reach : y + reach + 1, x - reach : x + reach + 1]
            / plan.brightness
        )
        darkest[cell.state].append(np.percentile(middle, 5) - np.median(middle))
    assert np.median(darkest["live"]) < np.median(darkest["dead"]) - 0.03


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
from src.common.sources.simulator import plan_plate, simulate_field
for plan in plan_plate(["no_treatment", "doxo_paclitaxel"], 4, 256, 320, 5)[2:6]:
    field = simulate_field(plan)
    frames = field.brightfield.tobytes() + field.pi.tobytes() + field.cells[["y", "x", "radius"]].to_numpy().tobytes()
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
