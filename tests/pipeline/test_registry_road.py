"""Registering model after model in a real MLflow store: pairs, scoring anew, refusals, restored
outputs, lost store.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import ARCH, REPO, default_params, write_live_dead

FRAMES = 32

# Runs in the tree, with the tree's own code. `present` lays a model's outputs down, as train and
# evaluate leave them.
SETUP = """
import hashlib, json, shutil, sys
import mlflow, numpy as np, pandas as pd, torch
from safetensors.torch import save_file
from src.common.evaluate.rounds import test_digest as digest
from src.common.patches.store import PatchStore
from src.common.register import aliases, packaging, registry
from src.common.register.sync import sync_all
from src.common.scoring.networks.net import build
from src.common.scoring.networks.inference import predict
from src.common.scoring.operating import calibrate
from src.common.tracking import runs as tracking
from src.common.workspace.params import load
from src.common.workspace.paths import METRICS, MODELS, PATCHES, REPORTS, WORKSPACE

ARCH, WINDOWS = sys.argv[1], pd.read_parquet("windows.parquet")
MEASURES = ("balanced_accuracy", "auc", "average_precision", "mcc")
seen = []


def assemble(partition, tile, folder):
    '''A package with what the registry reads of one: its contract and its network.'''
    contract = {"arch": ARCH, "pooling": "last", "target": "label", "pixel_size_um": 0.5,
                "bits": [16],
                "training_images": sorted(set(seen)),
                "tile": {"window": tile.window, "stride": tile.stride, "unit": tile.unit},
                "scaling": tile.scaling.model_dump(),
                "operating": {"temperature": 1.0, "threshold": 0.5, "live_from": 0.5,
                              "dead_to": 0.5, "shift": 0.0},
                "label": {"live_below": 1.0, "dead_above": 2.0, "intensity": "counts"}}
    (folder / "scorer" / "net").mkdir(parents=True)
    (folder / "scorer" / "contract.json").write_text(json.dumps(contract))
    weights = (MODELS / partition / "model.safetensors").read_bytes()
    (folder / "scorer" / "net" / "model.safetensors").write_bytes(weights)
    (folder / "unstained_nothing").mkdir()
    (folder / "unstained_nothing" / "__init__.py").touch()
    code = "import mlflow\\nmlflow.models.set_model(mlflow.pyfunc.PythonModel())\\n"
    (folder / "model.py").write_text(code)
    return hashlib.sha256(weights + json.dumps(contract).encode()).hexdigest()


packaging.assemble = assemble
packaging.requirements = lambda arch, target: ["mlflow"]


def present(seed, images, right, trained, weights="imagenet"):
    '''A model of that seed, right on that share of the images' patches, trained on other images.'''
    torch.manual_seed(seed)
    (MODELS / "p").mkdir(parents=True, exist_ok=True)
    state = {k: v.contiguous() for k, v in build(ARCH).state_dict().items()}
    save_file(state, MODELS / "p" / "model.safetensors")
    name = hashlib.sha256((MODELS / "p" / "model.safetensors").read_bytes()).hexdigest()
    rows = WINDOWS[WINDOWS["image_id"].isin(images)].assign(round="holdout", split="test")
    order = np.random.default_rng(0).permutation(len(rows)) < right * len(rows)
    towards = np.where((rows["label"] == "live") == order, 1, -1)
    rows["probability"] = 0.5 + 0.4 * towards
    model = {"partition": "p", "arch": ARCH, "digest": name, "synthetic": True,
             "source": "synthetic", "groups": 9,
             "weights": {"weights": weights, "origin": "a test"}, "patches": {"live": 1, "dead": 1},
             "scheme": "holdout", "pooling": "last", "target": "label", "params": {"lr": 0.1}}
    (MODELS / "p" / "model.json").write_text(json.dumps(model))
    figure = {"value": right, "group_interval": [0.1, 0.9]}
    record = {"model": {"digest": name},
              "overall": dict.fromkeys(MEASURES, figure),
              "calibration": {"temperature": 1.0, "brier": {"after": 0.2}, "ece": {"after": 0.1}},
              "threshold": {"value": 0.5},
              "conformal": {"live_from": 0.5, "dead_to": 0.5, "abstention": 0.0},
              "rounds": [{"round": "holdout", "threshold": 0.5}],
              "data": {"digest": digest(rows), "n_patches": len(rows), "n_groups": len(images),
                       "scheme": "holdout"}}
    (METRICS / "evaluate").mkdir(parents=True, exist_ok=True)
    (METRICS / "evaluate" / "p.json").write_text(json.dumps(record))
    folder = REPORTS / "evaluate" / "p"
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(folder / "predictions.parquet")
    digests = PatchStore(PATCHES).frames["brightfield_sha256"]
    seen[:] = digests.loc[trained].tolist() if trained else []
    tracking.log_evaluation("p", record, folder)


def state():
    '''What the registry holds now.'''
    client, name = tracking.connect(), "unstained-p"
    found = client.get_registered_model(name)
    used = {k: json.loads(v) for k, v in found.tags.items() if k.startswith("test_split.")}
    versions = aliases.versions_of(client, name)
    return {"aliases": {k: str(v) for k, v in found.aliases.items()}, "used": used,
            "versions": len(versions), "moves": len(aliases.moves(versions)),
            "tags": versions[-1].tags, "card": versions[-1].description,
            "decisions": [version.tags.get("decision") for version in versions],
            "about": found.description}


def step(name):
    record = registry.register_model("p", *load("tile", "register"))
    found[name] = {"record": record} | state()


found = {}
images = [f"img{i}" for i in range(32)]
a, b, c, train = images[:8], images[8:16], images[16:24], images[24:]
"""
STEPS = """
present(1, a, 0.7, train)
step("first")
present(7, a, 0.9, train)
step("better")
step("again")
present(1, a, 0.7, train)
step("restored")
present(3, b, 0.99, train + a)
step("elsewhere")
test = WINDOWS[WINDOWS["image_id"].isin(b)]
torch.manual_seed(7)
logits = predict(build(ARCH), PatchStore(PATCHES), test, desc=None).astype(float)
probability = calibrate(logits[:, 1] - logits[:, 0], 1.0)
called = probability >= 0.5
live = (test["label"] == "live").to_numpy()
found["by_hand"] = {"balanced_accuracy": float((called[live].mean() + (~called[~live]).mean()) / 2),
                    "brier": float(((probability - live) ** 2).mean())}
present(4, a, 0.95, b)
step("leaky")  # the champion, number 3, was trained on a
present(5, c, 0.95, [])
step("unlisted")
present(6, a, 0.95, train)
step("old")
mlflow.set_tracking_uri("sqlite:///lost.db")
__import__("os").environ["MLFLOW_TRACKING_URI"] = "sqlite:///lost.db"
sync_all()
sync_all()
found["rebuilt"] = state()
client = tracking.connect()
shutil.rmtree(WORKSPACE / "artifacts" / "models")  # beside the database
sync_all()
sync_all()
found["emptied"] = state()
client.delete_registered_model_alias("unstained-p", "champion")
sync_all()
found["taken down"] = state()
other = client.create_model_version("unstained-p", (WORKSPACE / "data").as_uri())
client.set_registered_model_alias("unstained-p", "champion", other.version)
present(5, a, 0.9, train)
step("foreign")
json.dump(found, open("found.json", "w"))
"""


def lay_out(root: Path) -> None:
    """A tree with code, params.yaml and the inputs that registering reads."""
    shutil.copytree(REPO / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    params = default_params(dataset={"partitions": ["p"]}, tile={"window": 64, "stride": 64})
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    windows = write_live_dead(root / "data" / "patches", FRAMES)
    frames = pd.read_parquet(root / "data" / "patches" / "frames.parquet")
    frames = frames.assign(
        pixel_size_um=0.5,
        brightfield_bits=16,
        brightfield_sha256=[f"sha-{i}" for i in frames["image_id"]],
    )
    frames.to_parquet(root / "data" / "patches" / "frames.parquet")
    windows.to_parquet(root / "windows.parquet")
    (root / "reports" / "checks" / "raw").mkdir(parents=True)
    (root / "reports" / "checks" / "raw" / "verdict.json").write_text('{"success": true}')
    (root / "data" / "splits").mkdir()
    windows.to_parquet(root / "data" / "splits" / "splits.parquet")
    (root / "reports" / "train" / "p").mkdir(parents=True)
    history = pd.DataFrame(
        {"round": ["holdout"], "epoch": [0], "train_loss": [1.0], "valid_auc": [0.5], "lr": [0.1]}
    )
    history.to_csv(root / "reports" / "train" / "p" / "history.csv", index=False)


def drive(root: Path, script: str) -> dict:
    """Runs a script in the tree, with the tree's own code; returns what it found."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    env |= {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": str(REPO)}  # tests, after the tree
    command = [sys.executable, "-c", script, ARCH]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((root / "found.json").read_text())


@pytest.fixture(scope="module")
def road(tmp_path_factory) -> dict:
    """What the registry held after each step."""
    root = tmp_path_factory.mktemp("road")
    lay_out(root)
    return drive(root, SETUP + STEPS)


def only(used: dict) -> int:
    """Decisions of the one test split that decided."""
    (value,) = used.values()
    return value["decisions"]


def test_the_first_model_is_champion_and_a_better_one_replaces_it(road):
    assert road["first"]["aliases"] == {"champion": "1"} and road["first"]["used"] == {}
    better = road["better"]
    assert better["aliases"] == {"champion": "2"} and only(better["used"]) == 1
    gain = better["record"]["comparison"]["balanced_accuracy"]
    assert gain["difference"] == pytest.approx(0.2, abs=0.03) and gain["interval"][0] > 0
    assert better["record"]["comparison"]["how"] == "both as saved on the same test split"


def test_registering_again_changes_and_counts_nothing(road):
    first, again = road["better"], road["again"]
    assert first == again and "better by more" in again["record"]["reason"]


def test_restored_outputs_of_the_former_champion_do_not_win_it_back(road):
    found = road["restored"]
    assert found["aliases"] == {"champion": "2", "challenger": "1"}
    assert "unstained promote" in found["record"]["reason"]
    assert found["versions"] == 2 and only(found["used"]) == 1


def test_a_champion_tested_elsewhere_is_scored_anew_if_it_never_saw_the_images(road):
    found = road["elsewhere"]["record"]["comparison"]
    assert found["how"] == "the champion scored anew on the candidate's test split"
    for name in ("balanced_accuracy", "brier"):
        assert found[name]["champion"] == pytest.approx(road["by_hand"][name], abs=1e-5)
    assert road["elsewhere"]["aliases"]["champion"] == "3"
    assert len(road["elsewhere"]["used"]) == 2  # each split keeps its own count


def test_a_champion_that_trained_on_the_test_images_is_not_compared(road):
    found = road["leaky"]
    assert "trained on 8 of the 8 images" in found["record"]["reason"]
    assert (
        found["aliases"] == {"champion": "3", "challenger": "4"}
        and found["record"]["comparison"] is None
    )
    assert found["used"] == road["elsewhere"]["used"]


def test_a_champion_without_a_list_of_training_images_is_not_compared(road):
    assert road["unlisted"]["aliases"]["champion"] == "5"  # the champion before has a list
    told = road["old"]["record"]["reason"]
    assert "does not list its training images" in told


def test_the_outcome_is_on_the_version_and_fits_mlflow(road):
    found = road["better"]
    assert json.loads(found["tags"]["comparison"])["against"] == "1"
    assert found["tags"]["decision"].startswith("champion: better by more than the paired error")
    assert found["card"].count("### Decision") == 1 and found["tags"]["decision"] in found["card"]
    assert "SYNTHETIC" in found["card"] and len(found["card"]) < 5000
    assert all(len(value) <= 5000 for value in found["tags"].values())


def test_the_model_is_described_and_the_replaced_champion_says_by_which(road):
    assert "models:/unstained-p@champion" in road["first"]["about"]
    assert road["better"]["decisions"][0].startswith(
        "replaced by version 2: better by more than the paired error"
    )
    left = road["restored"]["decisions"][0]
    assert (
        left.startswith("challenger: only `unstained promote` brings it back")
        and "replaced by version 2" in left
    )


def test_a_lost_store_is_rebuilt_once(road):
    assert road["rebuilt"]["versions"] == 1 and road["rebuilt"]["aliases"] == {"champion": "1"}


def test_a_version_whose_files_are_gone_is_registered_anew_once(road):
    found = road["emptied"]
    assert found["aliases"] == {"champion": "2"} and found["versions"] == 2
    assert found["tags"]["decision"] == "champion: the champion's weights, packaged anew"


def test_a_champion_that_was_taken_down_by_hand_stays_down(road):
    assert road["taken down"]["aliases"] == {"challenger": "2"}


def test_a_champion_that_is_no_model_of_ours_stays_until_somebody_promotes(road):
    found = road["foreign"]
    assert found["aliases"] == {"champion": "3", "challenger": "4"}
    assert "no model of this project: it has no contract" in found["record"]["reason"]
