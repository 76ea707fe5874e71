"""The whole road in a clone with a small simulated plate: `dvc repro`, round trip, leak,
experiment, model.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from tests.conftest import default_params

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS = ("no_treatment",)
REPRO = sys.executable, "-m", "src.cli", "repro"
SMALL = {
    "dataset": {"partitions": ["no_treatment"]},  # both are the slow test's
    "synthetic": {"frames": 14, "height": 448, "width": 672},
    "label": {"min_class": 5},
    "check": {"min_class": 2, "tolerance": 0.5},
    "train": {"epochs": 1, "samples_per_epoch": 32, "batch_size": 8},
    "evaluate": {"bootstrap": 100},
    "explain": {"patches": 2, "perplexity": 5},
    "register": {"min_balanced_accuracy": 0.0},
}


def run(tree: Path, *command: str, ok: bool = True, **environment: str) -> str:
    """Runs a command in a clone, this interpreter first on the path; returns what it printed."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    env |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    env |= environment
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    printed = done.stdout + done.stderr
    assert (done.returncode == 0) == ok, (
        f"{' '.join(command)} ended with {done.returncode}:\n{printed[-6000:]}"
    )
    return printed


def clone(target: Path) -> Path:
    """The project as it stands, as a repository of its own with a small plate in params.yaml."""
    names = run(ROOT, "git", "ls-files", "-co", "--exclude-standard").splitlines()
    for name in names:
        if (
            (ROOT / name).is_file()
            and name not in ("dvc.lock",)
            and not name.startswith("metrics/")
        ):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    (target / "params.yaml").write_text(yaml.safe_dump(default_params(**SMALL)))
    run(target, "git", "init", "-q", "-b", "main")
    run(target, "git", "config", "user.name", "test")
    run(target, "git", "config", "user.email", "test@test.invalid")
    run(target, "git", "add", "-A")
    run(target, "git", "commit", "-qm", "start")
    return target


@pytest.fixture(scope="module")
def plate(tmp_path_factory) -> Path:
    """A clone in which `unstained repro` has run."""
    tree = clone(tmp_path_factory.mktemp("plate"))
    run(tree, *REPRO)
    run(tree, "git", "add", "-A")
    run(tree, "git", "commit", "-qm", "reproduced")
    return tree


@pytest.fixture
def copy(plate, tmp_path) -> Path:
    """A copy of that clone, for what changes it: no test depends on another."""
    return Path(shutil.copytree(plate, tmp_path / "plate", symlinks=True))


def runs(tree: Path) -> pd.DataFrame:
    """All runs of a clone's MLflow store."""
    code = (
        "import mlflow; mlflow.set_tracking_uri('sqlite:///mlruns/mlflow.db'); "
        "mlflow.search_runs(experiment_names=['unstained']).to_json('mlruns/runs.json')"
    )
    run(tree, sys.executable, "-c", code)
    return pd.read_json(tree / "mlruns" / "runs.json")


def test_everything_is_made(plate):
    for partition in PARTITIONS:
        record = json.loads((plate / "metrics" / "evaluate" / f"{partition}.json").read_text())
        assert record["synthetic"] is True
        saved = plate / "reports" / "evaluate" / partition / "predictions.parquet"
        test = pd.read_parquet(saved).query("split == 'test'")
        auc = roc_auc_score(test["label"] == "live", test["probability"])
        assert record["overall"]["auc"]["value"] == pytest.approx(auc, abs=1e-3)
        assert (plate / "reports" / "explain" / partition).is_dir()
        registered = json.loads((plate / "metrics" / "register" / f"{partition}.json").read_text())
        assert registered["alias"] == "champion"
    assert "synthetic" in (plate / "reports" / "compare.md").read_text().lower()


@pytest.mark.slow
def test_two_partitions_are_two_models_that_are_tried_on_each_other(tmp_path):
    both = default_params(
        **SMALL | {"dataset": {"partitions": ["no_treatment", "doxo_paclitaxel"]}}
    )
    made = []
    for name, command in (("in turn", ("dvc", "repro")), ("side by side", REPRO)):
        tree = clone(tmp_path / name)
        (tree / "params.yaml").write_text(yaml.safe_dump(both))
        run(tree, *command, OMP_NUM_THREADS="1")
        made.append(yaml.safe_load((tree / "dvc.lock").read_text()))
    assert made[0] == made[1]  # of every stage the same outputs
    train = runs(tree).query("`tags.stage` == 'train'")
    assert sorted(train["tags.partition"]) == ["doxo_paclitaxel", "no_treatment"]
    record = json.loads((tree / "metrics" / "evaluate" / "no_treatment.json").read_text())
    assert list(record["cross_partition"]) == ["doxo_paclitaxel"]
    assert record["cross_partition"]["doxo_paclitaxel"]["n_patches"] > 0


def test_a_second_repro_has_nothing_to_do(plate):
    assert "Running stage" not in run(plate, "dvc", "repro")
    assert "repro: no stages were out of date" in run(plate, *REPRO)
    assert run(plate, "git", "status", "--porcelain") == ""


def test_runs_carry_metrics_digests_and_origin(plate):
    found = runs(plate)
    train = found[found["tags.stage"] == "train"]
    assert sorted(train["tags.partition"]) == sorted(PARTITIONS)
    assert (train["status"] == "FINISHED").all()
    assert train["metrics.test/auc"].notna().all()
    assert train["metrics.valid/auc"].notna().all()
    assert train["tags.data.splits"].notna().all()
    assert len(found[found["tags.stage"] == "filter"]) == 1


def test_sync_adds_nothing_and_rebuilds_a_lost_store(plate):
    before = len(runs(plate))
    run(plate, sys.executable, "-m", "src.cli", "sync")
    assert len(runs(plate)) == before
    shutil.move(plate / "mlruns" / "mlflow.db", plate / "mlflow.db.kept")
    try:
        run(plate, sys.executable, "-m", "src.cli", "sync")
        rebuilt = runs(plate)
        assert sorted(rebuilt["tags.stage"]) == ["filter", "train"]
        assert rebuilt.loc[rebuilt["tags.stage"] == "train", "metrics.test/auc"].notna().all()
    finally:
        shutil.move(plate / "mlflow.db.kept", plate / "mlruns" / "mlflow.db")


def test_registered_model_scores_frames_elsewhere(plate, tmp_path):
    (tmp_path / "frames.npz").unlink(missing_ok=True)
    random = np.random.default_rng(0)
    np.savez(
        tmp_path / "frames.npz",
        a=random.integers(500, 4000, (300, 260)).astype(np.uint16),
        b=random.integers(0, 255, (448, 448)).astype(np.uint8),
    )
    code = f"""
import mlflow, numpy as np, pandas as pd
mlflow.set_tracking_uri("sqlite:///{plate}/mlruns/mlflow.db")
model = mlflow.pyfunc.load_model("models:/unstained-no_treatment@champion")
frames = np.load("frames.npz")
images = [frames["a"], frames["b"]]
table = model.predict(pd.DataFrame({{"image": images, "pixel_size_um": [0.3225, 0.3225]}}))
table.to_csv("windows.csv", index=False)
try:
    model.predict(pd.DataFrame({{"image": [frames["a"]], "pixel_size_um": [1.0]}}))
except Exception as error:
    print("REFUSED", error)
"""
    printed = run(tmp_path, sys.executable, "-c", code, MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false")
    assert "REFUSED" in printed and "um per pixel" in printed
    table = pd.read_csv(tmp_path / "windows.csv", keep_default_na=False)
    assert list(table) == [
        "image_id",
        "y",
        "x",
        "size",
        "verdict",
        "live_probability",
        "novelty",
        "call",
    ]
    assert table.groupby("image_id").size().to_dict() == {0: 4, 1: 9}
    assert set(table["verdict"]) <= {"cells", "empty", "unusable"}
    assert ((table["verdict"] == "cells") == (table["call"] != "none")).all()


def test_every_user_may_read_a_registered_model(plate):
    """Others than who registered it score with it; safetensors writes files that their owner alone
    may read.
    """
    files = [
        path for path in (plate / "mlruns" / "artifacts" / "models").rglob("*") if path.is_file()
    ]
    assert any(path.suffix == ".safetensors" for path in files)
    assert [path.name for path in files if not path.stat().st_mode & 0o044] == []


def test_push_wipe_pull_restores_everything(plate):
    run(plate, "dvc", "push")
    for name in (
        "data/raw",
        "data/patches",
        "data/filtered",
        "data/features",
        "data/labels",
        "data/splits",
        ".dvc/cache",
    ):
        shutil.rmtree(plate / name)
    for name in ("models", "reports"):
        for path in (plate / name).iterdir():
            if path.name != ".gitignore":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    run(plate, "dvc", "pull")
    assert "Running stage" not in run(plate, "dvc", "repro")
    assert "repro: no stages were out of date" in run(plate, *REPRO)


def test_changed_model_reruns_no_data_stage_and_lands_in_the_store(copy):
    changes = ("-S", "model.arch=squeezenet1_1", "-S", "model.weights=random")
    printed = run(copy, "dvc", "exp", "run", "--temp", "-n", "squeeze", *changes, "compare")
    ran = {
        line.split("'")[1].split("@")[0]
        for line in printed.splitlines()
        if line.startswith("Running stage")
    }
    assert ran == {"weights", "train", "evaluate", "compare"}
    found = runs(copy)
    mine = found[(found["tags.stage"] == "train") & (found["tags.dvc_exp"] == "squeeze")]
    assert sorted(mine["tags.partition"]) == sorted(PARTITIONS)
    assert (mine["tags.arch"] == "squeezenet1_1").all()
    assert mine["metrics.test/auc"].notna().all()
    assert "squeeze" in run(copy, "dvc", "exp", "show", "--csv")


def test_planted_leak_stops_before_training(copy):
    path = copy / "data" / "splits" / "splits.parquet"
    splits = pd.read_parquet(path)
    image = splits.loc[splits["split"] == "train", "image_id"].iloc[0]
    rows = splits.index[splits["image_id"] == image][:1]
    splits.loc[rows, "split"] = "test"
    path.unlink()
    splits.to_parquet(path)
    run(copy, "dvc", "commit", "-f", "split")
    printed = run(copy, "dvc", "repro", ok=False)
    assert image in printed
    assert "expect" in printed.lower()
    assert "Running stage 'train" not in printed
