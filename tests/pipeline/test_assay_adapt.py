"""`unstained adapt` on a registered package: a version of its own, and no alias moved."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import tifffile
from mlflow import MlflowClient

from src.assay import adapt, stained
from src.assay.controls import ControlsError
from src.assay.model import load
from src.common.images.layout import Layout
from src.common.register import packaging
from src.common.tracking import runs
from tests.conftest import mlflow_at
from tests.pipeline.test_assay_score import frame, save_model

NAME = "unstained-p"
RULE = {"intensity": "counts", "log": False, "live_below": 260.0, "dead_above": 400.0,
        "background": 5.0}  # fmt: skip


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """A store with one version of a package, its alias, and its own test; a plate of controls."""
    root = tmp_path_factory.mktemp("adapt")
    with mlflow_at(f"sqlite:///{root}/mlflow.db"):
        yield register(root), write_controls(root / "plate")


def register(root: Path) -> MlflowClient:
    """Registers a package whose run holds its own test; returns the store's client."""
    client = runs.connect()
    save_model(root, "a" * 64, label=RULE, training_images=[])
    test = pd.DataFrame({"label": ["live", "dead"] * 20, "probability": [0.9, 0.1] * 20})
    test = test.assign(call=test["label"], experiment="e", group="g", split="test")
    (root / "evaluate").mkdir()
    test.to_parquet(root / "evaluate" / "predictions.parquet")
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(root / "evaluate" / "predictions.parquet"), "evaluate")
        uri = packaging.log_package(
            root / "files", ["numpy"], {"digest": "a" * 64}, run.info.run_id
        )
    client.create_registered_model(NAME)
    made = client.create_model_version(NAME, uri, run_id=run.info.run_id, tags={"arch": "x"})
    client.set_registered_model_alias(NAME, "champion", made.version)
    return client


def write_controls(plate: Path) -> Path:
    """Two negative and two positive controls."""
    plate.mkdir()
    rows = []
    for number in range(4):
        tifffile.imwrite(plate / f"x{number}.tif", frame(number))
        control = "negative" if number < 2 else "positive"
        rows.append({"brightfield": f"x{number}.tif", "control": control, "pixel_size_um": 0.5})
    pd.DataFrame(rows).to_csv(plate / "images.csv", index=False)
    return plate


def run(plate, out, uri=f"models:/{NAME}@champion"):
    return adapt.adapt(plate, uri, out, stained.Options(Layout(())), controls=True)


def test_an_adapted_model_is_a_version_of_its_own_with_what_it_was_adapted_on(
    registered, tmp_path, capsys
):
    client, plate = registered
    record = run(plate, tmp_path / "out")
    assert record["images"] == 4 and record["by"] == "control wells" and record["shift"] != 0
    assert json.loads((tmp_path / "out" / adapt.FILE).read_text()) == record
    champion = client.get_model_version_by_alias(NAME, "champion")
    assert str(champion.version) == record["from_version"]
    new = load(f"models:/{NAME}/{record['version']}")
    old = load(f"models:/{NAME}@champion")
    moved = old.contract["operating"].get("shift", 0) - record["shift"] * 0.05
    assert new.contract["operating"]["shift"] == pytest.approx(moved, abs=1e-5)
    assert new.contract["adapted"]["live_windows"] > 0 and len(new.contract["training_images"]) == 4
    assert new.facts["run_id"] == old.facts["run_id"]  # its own test is still that of the network
    again = run(plate, tmp_path / "again")
    assert again["version"] == record["version"]  # the same package is not registered twice
    assert "adapted already" not in capsys.readouterr().out
    run(plate, tmp_path / "twice", new.facts["uri"])
    told = "already, to plate: right for that session alone; for another, adapt version "
    assert f"{told}{champion.version}" in capsys.readouterr().out
    before, after = (
        model.predict(frame(7), 0.5)["live_probability"].dropna() for model in (old, new)
    )
    assert np.sign((after - before).sum()) == np.sign(record["shift"])


def test_stained_fields_set_the_intercept_without_the_models_own_test(registered, tmp_path, capsys):
    """Fields that are all dead move the evidence down, all live ones up, and 4 windows do."""
    shifts, noise = {}, np.random.default_rng(0)
    for counts in (220, 560):
        folder = tmp_path / f"stained{counts}"
        folder.mkdir()
        tifffile.imwrite(folder / "bf.tif", frame(11)[:100])
        tifffile.imwrite(
            folder / "pi.tif", noise.integers(counts - 20, counts + 20, (100, 160), np.uint16)
        )
        row = {"brightfield": "bf.tif", "pi": "pi.tif", "pixel_size_um": 0.5}
        pd.DataFrame([row]).to_csv(folder / "images.csv", index=False)
        out, options = tmp_path / f"out{counts}", stained.Options(Layout(()))
        record = adapt.adapt(folder, f"models:/{NAME}@champion", out, options, controls=False)
        assert record["by"] == "stained fields"
        assert 0 < record["live_windows"] + record["dead_windows"] < 10
        shifts[counts] = record["shift"]
        kind = "live" if counts < 400 else "dead"
        assert f"windows are {kind}, and the model will take" in capsys.readouterr().out
    assert shifts[560] < 0 < shifts[220]


def test_control_images_that_are_refused_are_said_with_the_reason(registered, tmp_path, capsys):
    """An operating point from half of the controls looks like one from all of them."""
    _, plate = registered
    table = pd.read_csv(plate / "images.csv").assign(pixel_size_um=[3.0, 0.5, 0.5, 0.5])
    table.to_csv(tmp_path / "one.csv", index=False)
    options = stained.Options(Layout(()), tmp_path / "one.csv")
    uri = f"models:/{NAME}@champion"
    adapt.adapt(plate, uri, tmp_path / "out", options, controls=True)
    said = "of 4 images 4 of control wells (column control), 1 refused (the first: x0: contract: "
    assert said in capsys.readouterr().out
    table.assign(pixel_size_um=3.0).to_csv(tmp_path / "one.csv", index=False)
    with pytest.raises(ControlsError, match=r"0 windows of known class: .*4 refused \(the first"):
        adapt.adapt(plate, uri, tmp_path / "none", options, controls=True)


def test_too_few_windows_and_a_model_that_is_not_registered_are_refused(registered, tmp_path):
    _, plate = registered
    table = pd.read_csv(plate / "images.csv").assign(control=["", "", "", ""])
    table.to_csv(tmp_path / "none.csv", index=False)
    options = stained.Options(Layout(()), tmp_path / "none.csv")
    with pytest.raises(ControlsError, match="0 windows of known class"):
        adapt.adapt(plate, f"models:/{NAME}@champion", tmp_path / "out", options, controls=True)
    with pytest.raises(ControlsError, match="is not registered"):
        run(plate, tmp_path / "other", uri=str(next(plate.parent.glob("model"))))


def test_mlflow_says_nothing_of_its_own(registered, capfd, recwarn):
    client, plate = registered
    run_id = client.get_model_version_by_alias(NAME, "champion").run_id
    uri = packaging.log_package(plate.parent / "files", ["numpy"], {"digest": "b" * 64}, run_id)
    load(f"models:/{NAME}@champion")
    load(uri)
    assert not [one for one in recwarn if issubclass(one.category, UserWarning)]
    assert capfd.readouterr().err == ""
