"""`unstained adapt` from stained fields of a stain network: it learns on, and is judged on fields
that it did not learn from.
"""

import json
import re

import mlflow
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from mlflow import MlflowClient

from src.assay import adapt, model, stained, tuning
from src.assay.controls import ControlsError
from src.assay.model import load
from src.common.images.layout import Layout
from src.common.register import packaging
from src.common.scoring.networks.stain import StainFacts, build_stain
from src.common.tracking import runs
from tests.conftest import mlflow_at
from tests.pipeline.test_assay_score import save_model

NAME = "unstained-stain"
RULE = {"intensity": "background_ratio", "log": True, "live_below": 1.2, "dead_above": 1.5,
        "background": 5.0}  # fmt: skip
SMALL = "timm:test_efficientnet"
CONTRACT = {"target": "stain", "arch": SMALL, "label": RULE, "training_images": [],
            "unlike_share": 1.0, "stain": {"reduction": 2, "orientations": 2, "networks": 2},
            "weights": {"weights": "random"}, "intensity": None,
            "operating": {"temperature": 2.0, "threshold": 0.5, "live_from": 0.5,
                          "dead_to": 0.49, "shift": 0.0},
            "nuclei": {"weights": [1.0, 0.5, 0.0, 0.0], "intercept": -3.0, "shift": 0.0,
                       "live_from": 0.5, "dead_to": 0.49, "area_um2": [1, 9999],
                       "speck_um2": 0.2}}  # fmt: skip
SIDE, SQUARE = 256, 64


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """A store with a stain network of random weights as champion."""
    root = tmp_path_factory.mktemp("tuning")
    with mlflow_at(f"sqlite:///{root}/mlflow.db"):
        client = runs.connect()
        torch.manual_seed(0)
        save_model(root, "a" * 64, net=build_stain(SMALL, StainFacts(2, 2, 2)), **CONTRACT)
        with mlflow.start_run() as run:
            metadata = {"digest": "a" * 64}
            uri = packaging.log_package(root / "files", ["numpy"], metadata, run.info.run_id)
        client.create_registered_model(NAME)
        made = client.create_model_version(NAME, uri, run_id=run.info.run_id)
        client.set_registered_model_alias(NAME, "champion", made.version)
        yield client


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Fewer and smaller crops than real fields want."""
    changed = {"samples_per_epoch": 60 * tuning.BATCH, "lr": 3e-3}
    monkeypatch.setattr(tuning, "TRAIN", tuning.TRAIN.model_copy(update=changed))
    monkeypatch.setattr(tuning, "SEEN", 64)


def field(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bright-field, PI, and where it is stained: what is bright is dead."""
    rng = np.random.default_rng(number)
    squares = rng.random((SIDE // SQUARE, SIDE // SQUARE)) < 0.4
    dead = np.kron(squares, np.ones((SQUARE, SQUARE))) > 0
    brightfield = rng.integers(1000, 2400, dead.shape) + 1500 * dead
    pi = rng.integers(190, 210, dead.shape) + 400 * dead
    return brightfield.astype(np.uint16), pi.astype(np.uint16), dead


def folder(path, numbers):
    path.mkdir()
    rows = []
    for number in numbers:
        brightfield, pi, _ = field(number)
        tifffile.imwrite(path / f"bf{number}.tif", brightfield)
        tifffile.imwrite(path / f"pi{number}.tif", pi)
        rows.append({"brightfield": f"bf{number}.tif", "pi": f"pi{number}.tif"})
    pd.DataFrame(rows).assign(pixel_size_um=0.5).to_csv(path / "images.csv", index=False)
    return path


def run(images, out, **asked):
    uri, options = f"models:/{NAME}@champion", stained.Options(Layout(()))
    return adapt.adapt(images, uri, out, options, controls=False, **asked)


def contrast(scored: model.Model, number: int) -> float:
    """Predicted PI where a field is stained over that where it is not."""
    brightfield, _, dead = field(number)
    seen = scored.stain(brightfield, 0.5)
    return float(seen[dead].mean() / seen[~dead].mean())


def test_a_stain_network_learns_on_and_is_judged_by_fields_it_did_not_learn_from(
    registered: MlflowClient, tmp_path, monkeypatch
):
    monkeypatch.setattr(model, "WORTH_FRAMES", 3)  # so many that scoring compiles the network
    learnt, seen, states = tuning.learnt, [], []

    def noted(scorer, fields, names):
        seen.append(set(names))
        states.append(learnt(scorer, fields, names))
        return states[-1]

    monkeypatch.setattr(tuning, "learnt", noted)
    judged, by_others = adapt.judged, []
    monkeypatch.setattr(
        adapt, "judged", lambda known, seen: by_others.append((known, seen)) or judged(known, seen)
    )
    record = run(folder(tmp_path / "plate", range(3)), tmp_path / "out", learn=True)
    assert record["network"] == "learnt on" and record["images"] == 3
    ids = set.union(*seen)
    assert sorted(map(len, seen)) == [2, 2, 2, 3] and len(ids) == 3
    assert record["after"]["called"] is not None
    statistics = [k for k in states[0] if "decoder" in k and k.endswith("running_mean")]
    assert statistics and not torch.equal(states[0][statistics[0]], states[1][statistics[0]])
    ((known, judges),) = by_others
    moved = (known.merge(judges, on=["image_id", "y", "x"]).eval("p_x - p_y")).abs()
    assert len(moved) and moved.max() > 1e-3  # judged by networks that learnt, not by the compiled
    assert json.loads((tmp_path / "out" / adapt.FILE).read_text()) == record
    old, new = load(f"models:/{NAME}@champion"), load(f"models:/{NAME}/{record['version']}")
    assert new.contract["digest"] != old.contract["digest"]
    assert new.contract["adapted"]["network"] == "learnt on"
    assert new.facts["digest"] != old.facts["digest"]
    assert contrast(new, 7) > 1.05 * contrast(old, 7)  # a field that nothing has seen
    assert len(new.contract["training_images"]) == 3


def test_the_network_stays_unless_asked_to_learn_which_one_field_is_too_little_for(
    registered, tmp_path
):
    kept = run(folder(tmp_path / "two", [3, 4]), tmp_path / "kept")
    assert kept["network"] == "as it was" and kept["after"]["called"] is not None
    plate = folder(tmp_path / "one", [3])
    with pytest.raises(ControlsError, match="--learn takes two stained fields or more: of 1 image"):
        run(plate, tmp_path / "refused", learn=True)
    with pytest.raises(ControlsError, match="--learn wants stained fields, and --controls uses"):
        adapt.adapt(plate, f"models:/{NAME}@champion", tmp_path / "refused",
                    stained.Options(Layout(())), controls=True, learn=True)  # fmt: skip
    one = run(plate, tmp_path / "out")
    assert one["network"] == "as it was" and one["shift"] != 0
    assert one["after"] == {"called": None, "wrong": None}  # there is nothing to judge it by
    old, new = load(f"models:/{NAME}@champion"), load(f"models:/{NAME}/{one['version']}")
    assert contrast(new, 7) == contrast(old, 7)


def test_nuclei_of_masks_move_by_their_own_pi_and_else_with_the_windows(
    registered, tmp_path, capsys
):
    without = run(folder(tmp_path / "without", [3, 4]), tmp_path / "out")
    assert "nuclei" not in without
    images = folder(tmp_path / "with", [3, 4])
    table = pd.read_csv(images / "images.csv").assign(nuclei=["m3.tif", "m4.tif"])
    table.to_csv(images / "images.csv", index=False)
    inner = np.pad(np.ones((SQUARE // 2, SQUARE // 2), np.uint16), SQUARE // 4)
    mask = np.kron(np.arange(1, 17, dtype=np.uint16).reshape(4, 4), inner)
    for number in (3, 4):
        tifffile.imwrite(images / f"m{number}.tif", mask * (mask != number))  # no mask of another
    record = run(images, tmp_path / "moved")
    told = re.search(
        r"nuclei: moved by ([+-]\d\.\d\d) .* from (\d+) live, (\d+) dead", capsys.readouterr().out
    )
    by, live, dead = told.groups()
    assert int(live) + int(dead) == 30 and min(int(live), int(dead)) > 3
    old, new = load(f"models:/{NAME}@champion"), load(f"models:/{NAME}/{record['version']}")
    assert new.contract["nuclei"] == record["nuclei"]
    assert (
        record["nuclei"]["shift"] == record["operating"]["shift"] == without["operating"]["shift"]
    )
    pi, shape = np.array([1.1, 2.0]), np.array([[100.0, 0, 1], [200, 0, 1]])
    before, after = (one.probability_of(pi, shape) for one in (old, new))
    moved = np.log(after / (1 - after)) - np.log(before / (1 - before))
    np.testing.assert_allclose(moved, float(by), atol=0.01)
