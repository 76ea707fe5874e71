"""Training: exact resume wherever it is cut off, best epoch, frozen body, several devices, one
MLflow run.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score

from src.common.patches.frozen import save_features
from src.common.patches.store import PatchStore
from src.common.scoring.networks.backbones import facts
from src.common.scoring.networks.inference import live_logits, load_model, predict
from src.common.scoring.networks.net import build, library_model
from src.common.tracking import experiment, inputs
from src.common.tracking import runs as tracking
from src.common.train import checkpoint, head, rounds
from src.common.train.checkpoint import ResumableCheckpoint
from src.common.train.classifier import Classifier, cosine
from src.common.train.devices import precision
from src.common.train.fine_tuning import fit
from src.common.train.loading import TrainingError
from src.common.workspace.params import load, parse
from src.common.workspace.sections import Train
from src.stages import train as train_stage
from tests.conftest import ARCH, default_params, mlflow_at

PARAMS = default_params()
SHORT = {
    "epochs": 3,
    "samples_per_epoch": 14,
    "batch_size": 4,
    "precision": "32",
    "lr": 2e-3,
    "workers": 0,
    "frozen_stages": 0,
}


def params(**changes) -> Train:
    return parse(yaml.safe_dump(PARAMS | {"train": PARAMS["train"] | SHORT | changes}))["train"]


class Cut(Exception):
    """Stands for a kill: nothing of the training's own code runs after it."""


@pytest.fixture
def train(live_dead, tmp_path):
    """Trains the small network; `scratch` names the checkpoint folder; returns (state, rows, epoch,
    reported).
    """
    store, table = live_dead

    def run(
        scratch: str = "scratch", valid: pd.DataFrame | None = None, arch: str = ARCH, **changes
    ):
        torch.manual_seed(0)
        reported = []
        tables = (
            table[table["split"] == "train"],
            table[table["split"] == "valid"] if valid is None else valid,
        )
        result = fit(
            build(arch), store, *tables, params(**changes), tmp_path / scratch,
            lambda row, epoch: reported.append((epoch, row)),
        )  # fmt: skip
        return *result, reported

    return run


def _cut(monkeypatch, owner: type, name: str, when) -> None:
    """Cuts training off before `owner.name` runs, the first time that `when(self, args)` holds."""
    original, spent = getattr(owner, name), []

    def method(self, *args):
        if not spent and when(self, args):
            spent.append(True)
            raise Cut
        return original(self, *args)

    monkeypatch.setattr(owner, name, method)


# Where training is cut off, and the steps (of 4 an epoch) that are then left: with a checkpoint
# after every step but the last of an epoch, after which comes validation, and after every epoch.
CUTS = {
    "inside the first epoch": (
        Classifier,
        "on_train_batch_start",
        lambda self, args: self.global_step == 2,
        2,
    ),
    "inside a later epoch": (
        Classifier,
        "on_train_batch_start",
        lambda self, args: self.global_step == 6,
        6,
    ),
    "at the last step of an epoch": (
        Classifier,
        "on_train_batch_start",
        lambda self, args: self.global_step == 7,
        7,
    ),
    "inside validation": (
        Classifier,
        "validation_step",
        lambda self, args: self.current_epoch == 1,
        7,
    ),
    "between epochs": (
        ResumableCheckpoint,
        "_stop_if_enough",
        lambda self, args: len(self.rows) == 2,
        8,
    ),
    "after the last epoch": (
        ResumableCheckpoint,
        "_stop_if_enough",
        lambda self, args: len(self.rows) == 3,
        12,
    ),
}


@pytest.fixture(scope="module")
def uninterrupted():
    return {}


@pytest.mark.parametrize("where", CUTS)
def test_a_training_cut_off_ends_as_if_it_had_not_been(where, train, uninterrupted, monkeypatch):
    if not uninterrupted:
        uninterrupted["result"] = train("whole")
    state, rows, epoch, reported = uninterrupted["result"]
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patch, pytest.raises(Cut):
        _cut(patch, *CUTS[where][:3])
        train()
    steps, step = [], Classifier.training_step
    monkeypatch.setattr(
        Classifier,
        "training_step",
        lambda self, batch, i: steps.append(self.global_step) or step(self, batch, i),
    )
    resumed, resumed_rows, resumed_epoch, resumed_reported = train()
    assert steps == list(range(CUTS[where][3], 12))  # goes on at the exact step
    assert resumed_rows == rows
    assert resumed_epoch == epoch
    assert resumed.keys() == state.keys()
    assert all(torch.equal(resumed[name], state[name]) for name in state)
    assert (
        resumed_reported == reported[len(reported) - len(resumed_reported) :]
    )  # finished epochs are not repeated


def test_two_trainings_are_the_same_and_other_seeds_differ(train):
    (one, rows, *_), (two, again, *_), (_, other, *_) = train("a"), train("b"), train("c", seed=2)
    assert rows == again != other
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_rows_say_what_happened(train, capfd):
    state, rows, epoch, reported = train(schedule="constant", batch_size=5)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert set(rows[0]) == {
        "epoch",
        "train_loss",
        "valid_loss",
        "valid_auc",
        "valid_balanced_accuracy",
        "lr",
    }
    assert [
        (row["epoch"], {k: v for k, v in row.items() if k != "epoch"}) for row in rows
    ] == reported
    assert {row["lr"] for row in rows} == {2e-3}
    assert epoch == max(rows, key=lambda row: (row["valid_auc"], -row["valid_loss"]))["epoch"]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert "Epoch 2: 100%" in capfd.readouterr().out  # progress is shown
    assert set(state) == set(build(ARCH).state_dict())


def test_all_windows_of_an_epoch_are_seen_the_last_batch_too(train, monkeypatch):
    seen, original = [], Classifier.training_step
    monkeypatch.setattr(
        Classifier,
        "training_step",
        lambda self, batch, i: seen.append(len(batch[1])) or original(self, batch, i),
    )
    train(epochs=1)
    assert seen == [4, 4, 4, 2]


def _scripted(monkeypatch, scores: list[float]) -> None:
    """Validation reports these AUCs, epoch by epoch."""

    def report(self):
        for name, value in (("valid_auc", scores[self.current_epoch]), ("valid_loss", 0.5)):
            self.log(name, value)

    monkeypatch.setattr(Classifier, "on_validation_epoch_end", report)


@pytest.mark.parametrize("cut_after", [None, 2, 3, 4])
def test_early_stopping_and_the_best_epoch_survive_a_cut(train, monkeypatch, cut_after):
    _scripted(monkeypatch, [0.6, 0.8, 0.8, 0.7, 0.9, 0.95])
    options = {"epochs": 6, "patience": 2, "samples_per_epoch": 4}
    if cut_after:
        with monkeypatch.context() as patch, pytest.raises(Cut):
            _cut(
                patch,
                ResumableCheckpoint,
                "_stop_if_enough",
                lambda self, args: len(self.rows) == cut_after,
            )
            train(**options)
    _, rows, epoch, _ = train(**options)
    assert [row["valid_auc"] for row in rows] == [
        0.6,
        0.8,
        0.8,
        0.7,
    ]  # 0.8 twice: the first, and two epochs on it ends
    assert epoch == 1


def test_the_kept_weights_are_those_of_the_best_epoch(train, monkeypatch):
    _scripted(monkeypatch, [0.6, 0.9, 0.7])
    state, _, epoch, _ = train(schedule="constant")
    two_epochs, *_ = train("two", epochs=2, schedule="constant")
    assert epoch == 1
    assert all(torch.equal(state[name], two_epochs[name]) for name in state)


def test_without_validation_the_last_epoch_is_kept(train, live_dead, capsys):
    table = live_dead[1]
    nothing, one_class = table[:0], table[(table["split"] == "valid") & (table["label"] == "live")]
    for name, valid in (("none", nothing), ("one", one_class)):
        _, rows, epoch, _ = train(name, valid, epochs=2, samples_per_epoch=4)
        assert epoch == 1
        assert set(rows[0]) == {"epoch", "train_loss", "lr"}
    assert "validation holds one class only" in capsys.readouterr().out


def test_one_class_cannot_be_trained_on(live_dead, tmp_path):
    store, table = live_dead
    live = table[table["label"] == "live"]
    with pytest.raises(TrainingError, match=r"both classes, and has {'live'}"):
        fit(build(ARCH), store, live, table, params(), tmp_path, print)


def test_a_frozen_body_keeps_weights_and_statistics_until_it_is_thawed(train, monkeypatch):
    torch.manual_seed(0)
    start = build(ARCH).state_dict()
    frozen, *_ = train("frozen", epochs=1, frozen_epochs=1)
    body = [name for name in start if name.startswith("body.")]
    assert any("running_mean" in name for name in body)
    assert all(torch.equal(frozen[name], start[name]) for name in body)
    assert not torch.equal(frozen["head.weight"], start["head.weight"])
    _scripted(monkeypatch, [0.6, 0.9])
    thawed, *_ = train("thawed", epochs=2, frozen_epochs=1)
    learned = [name for name in body if not name.endswith("num_batches_tracked")]
    assert all(not torch.equal(thawed[name], start[name]) for name in learned)


@pytest.mark.parametrize("arch", [ARCH, "squeezenet1_1", "resnet18", "tf_efficientnet_lite0"])
def test_first_stages_keep_weights_and_statistics_and_the_later_ones_learn(train, arch):
    torch.manual_seed(0)
    net = build(arch)
    start = {name: value.clone() for name, value in net.state_dict().items()}
    state, *_ = train(arch, arch=arch, epochs=1, samples_per_epoch=8, frozen_stages=2)
    names = [name for name in start if name.startswith("body.") and start[name].is_floating_point()]
    same = [torch.equal(state[name], start[name]) for name in names]
    first = same.index(False)  # all before it stayed as it was
    stage = net.backbone.levels[1]
    last = max(i for i, name in enumerate(names) if name.startswith(f"body.layers.{stage}."))
    assert first > last
    assert not torch.equal(state["head.weight"], start["head.weight"])


def test_a_frozen_epoch_cut_off_stays_frozen(train, monkeypatch):
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patch, pytest.raises(Cut):
        _cut(patch, Classifier, "on_train_batch_start", lambda self, args: self.global_step == 2)
        train(epochs=1, frozen_epochs=1)
    state, *_ = train(epochs=1, frozen_epochs=1)
    torch.manual_seed(0)
    start = build(ARCH).state_dict()
    assert all(torch.equal(state[name], start[name]) for name in start if name.startswith("body."))


class _Code:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scratch").mkdir()
    torch.save({"state_dict": {}, "loops": _Code()}, tmp_path / "scratch" / "last.ckpt")
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        train()
    assert not (tmp_path / "executed").exists()


def test_optimisers_are_the_papers_and_the_modern_one():
    net = build(ARCH)
    paper = Classifier(
        net, params(optimizer="adam", betas=[0.5, 0.999], lr=1e-5, schedule="constant"), 10
    )
    optimizer = paper.configure_optimizers()
    assert type(optimizer) is torch.optim.Adam
    assert (optimizer.defaults["lr"], optimizer.defaults["betas"]) == (1e-5, (0.5, 0.999))
    modern = Classifier(
        net, params(optimizer="adamw", schedule="cosine"), 10
    ).configure_optimizers()
    assert type(modern["optimizer"]) is torch.optim.AdamW
    assert modern["lr_scheduler"]["interval"] == "step"


def test_the_schedule_rises_then_falls_to_nothing():
    factors = [cosine(step, 4, 24) for step in range(25)]
    assert factors[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert factors[14] == pytest.approx(0.5)
    assert factors[24] == pytest.approx(0)
    assert factors[4:] == sorted(factors[4:], reverse=True)


def test_precision_is_what_the_machine_has(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for native, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        assert precision("auto") == expected
    assert (precision("32"), precision("bf16")) == ("32-true", "bf16-mixed")
    with pytest.raises(TrainingError, match="16 needs a CUDA device"):
        precision("16")


def test_bf16_trains(train):
    _, rows, *_ = train(precision="bf16", epochs=1)
    assert rows[0]["valid_auc"] > 0.5


def test_devices_that_are_not_there_are_refused(train):
    with pytest.raises(TrainingError, match="strategy"):
        train(strategy="telepathy")


# ---- the stage


@pytest.fixture
def tree(stage_tree) -> Path:
    torch.manual_seed(0)
    state = library_model(facts(ARCH)).state_dict()
    weights = stage_tree / "models" / "weights" / "model"
    weights.mkdir(parents=True)
    save_file(state, weights / "model.safetensors")
    source = {"arch": ARCH, "weights": "random", "origin": "seed 0"}
    (weights / "source.json").write_text(json.dumps(source))
    names = pd.read_parquet(stage_tree / "data" / "splits" / "splits.parquet")["patch_id"]
    seen = np.random.default_rng(0).normal(size=(len(names), 8)).astype(np.float32)
    save_features(stage_tree / "data" / "features", names, seen, np.ones(len(names), bool), source)
    configure(stage_tree)
    return stage_tree


def configure(tree: Path, model: dict | None = None, **changes) -> None:
    stain = {"crop": 128, "augmentation": 0.3, "orientations": 2}
    raw = default_params(model={"arch": ARCH} | (model or {}), train=SHORT | changes, stain=stain)
    (tree / "params.yaml").write_text(yaml.safe_dump(raw))


def three_folds(tree: Path) -> None:
    """Makes the tree's split one of three folds."""
    path = tree / "data" / "splits" / "splits.parquet"
    table = pd.read_parquet(path)
    table.assign(split="", fold=table["image_id"].str[3:].astype(int) % 3).to_parquet(path)
    (path.parent / "split.json").write_text('{"scheme": "kfold", "folds": 3}')


def stage(tree: Path, *command: str) -> subprocess.CompletedProcess:
    """The stage (or another command) as a process of its own in a tree."""
    keep = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("DVC_", "MLFLOW_TRACKING", "LOCAL_RANK"))
    }
    command = command or ("-m", "src.stages", "train", "p")
    return subprocess.run(
        [sys.executable, *command],
        cwd=tree,
        env=keep | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def here(tree, monkeypatch) -> Path:
    """The tree, with this process's copy of the stage working in it."""
    places = {
        "CHECKPOINTS": "mlruns/checkpoints", "FEATURES": "data/features", "MODELS": "models",
        "PATCHES": "data/patches",
        "RAW": "data/raw", "REPORTS": "reports", "SPLITS": "data/splits",
        "WEIGHTS": "models/weights/model", "MLRUNS": "mlruns",
    }  # fmt: skip
    for name, place in places.items():
        for module in (train_stage, tracking, experiment, inputs):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, tree / place)
    monkeypatch.setattr(train_stage, "load", lambda *names: load(*names, path=tree / "params.yaml"))
    # What tests replace is this process's alone
    monkeypatch.setattr(rounds, "at_a_time", lambda *asked: 1)
    with mlflow_at(None):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
        yield tree


def runs(tree: Path) -> list[dict]:
    """The MLflow runs of a tree: status, tags and epochs logged, straight from the store."""
    with sqlite3.connect(tree / "mlruns" / "mlflow.db") as db:
        found = []
        for run_id, status in db.execute("select run_uuid, status from runs"):
            tags = dict(db.execute("select key, value from tags where run_uuid = ?", [run_id]))
            steps = db.execute(
                "select step from metrics where run_uuid = ? and key = 'train/loss'", [run_id]
            )
            found.append(
                {"id": run_id, "status": status, "tags": tags, "epochs": [s for (s,) in steps]}
            )
    return found


def test_a_failed_gate_stops_the_stage_before_it_does_anything(here):
    (here / "reports" / "checks" / "splits" / "verdict.json").write_text('{"success": false}')
    with pytest.raises(TrainingError, match="check@splits failed"):
        train_stage.main("p")
    assert not (here / "models" / "p").exists()
    assert not (here / "mlruns").exists()


def test_a_failed_run_says_why_and_no_longer_when_it_goes_on(here, monkeypatch):
    def fail(self, batch, batch_idx):
        raise MemoryError("no room for this batch")

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(Classifier, "validation_step", fail)
        train_stage.main("p")
    (failed,) = runs(here)
    assert (failed["status"], failed["tags"]["failure"]) == (
        "FAILED",
        "MemoryError: no room for this batch",
    )
    record = train_stage.main("p")
    (mended,) = runs(here)
    assert (mended["id"], mended["status"], mended["epochs"]) == (
        failed["id"],
        "FINISHED",
        [0, 1, 2],
    )
    assert "failure" not in mended["tags"]
    assert mended["tags"]["resumed_after"] == failed["tags"]["failure"]
    assert mended["tags"]["model_digest"] == record["digest"]


def test_a_training_that_diverges_is_refused_and_its_run_failed(here):
    configure(here, lr=1e30)
    with pytest.raises(
        TrainingError, match=r"epoch 0: .*loss is not a number: train\.lr is too high"
    ):
        train_stage.main("p")
    (failed,) = runs(here)
    assert failed["status"] == "FAILED" and "train.lr is too high" in failed["tags"]["failure"]
    assert not (here / "models" / "p" / "model.json").exists()


def test_folds_lie_below_the_final_model_and_are_not_trained_twice(here, monkeypatch):
    configure(here, epochs=1, samples_per_epoch=4)
    three_folds(here)
    trained, fitted = [], rounds.fit

    def fit_and_fail(net, store, train_table, valid_table, *rest):
        trained.append(len(valid_table))
        if len(trained) == 3:
            raise OSError("the power went out")
        return fitted(net, store, train_table, valid_table, *rest)

    monkeypatch.setattr(rounds, "fit", fit_and_fail)
    with pytest.raises(OSError, match="power"):
        train_stage.main("p")
    record = train_stage.main("p")
    assert len(trained) == 5  # two folds, the failure, then the third fold and the final model
    assert trained[-1] == 0
    assert record["epochs_kept"] == {"fold-0": 0, "fold-1": 0, "fold-2": 0, "final": 0}
    found = sorted(
        str(p.relative_to(here / "models" / "p"))
        for p in (here / "models" / "p").rglob("*.safetensors")
    )
    assert found == [f"fold-{f}/model.safetensors" for f in range(3)] + [
        "model.safetensors",
        "novelty.safetensors",
    ]
    history = pd.read_csv(here / "reports" / "train" / "p" / "history.csv")
    assert history["round"].tolist() == ["fold-0", "fold-1", "fold-2", "final"]


def test_the_final_model_trains_for_as_long_as_its_folds_found_best(here, monkeypatch):
    configure(here, epochs=5, samples_per_epoch=4)
    three_folds(here)
    best, fitted = iter([0, 3, 1]), rounds.fit

    def fit_and_keep(net, store, train_table, valid_table, *rest):
        state, rows, epoch = fitted(net, store, train_table, valid_table, *rest)
        return state, rows, next(best) if len(valid_table) else epoch

    monkeypatch.setattr(rounds, "fit", fit_and_keep)
    record = train_stage.main("p")
    assert record["epochs_kept"] == {
        "fold-0": 0,
        "fold-1": 3,
        "fold-2": 1,
        "final": 1,
    }  # two epochs, the median
    history = pd.read_csv(here / "reports" / "train" / "p" / "history.csv")
    assert history.query("round == 'final'")["epoch"].tolist() == [0, 1]
    assert record["precision"] == "32-true"


def test_beside_the_model_lies_what_its_training_data_look_like(here):
    configure(here, epochs=1, samples_per_epoch=4)
    train_stage.main("p")
    facts = json.loads((here / "models" / "p" / "training_range.json").read_text())
    table = pd.read_parquet(here / "data" / "splits" / "splits.parquet")
    seen = sorted(set(table.loc[table["split"] != "test", "image_id"]))
    assert facts["images"] == [
        f"digest of {name}" for name in seen
    ]  # validation chose the epoch: it was seen too
    assert (facts["low"], facts["high"]) == ([1000.0, 1000.0], [4000.0, 4000.0])
    assert facts["least_sharpness"] > 0
    bank = load_file(here / "models" / "p" / "novelty.safetensors")["bank"]
    assert len(bank) == facts["novelty"]["windows"] == int((table["split"] == "train").sum())


def test_the_head_alone_is_trained_in_every_fold_on_features_computed_once(here, monkeypatch):
    configure(here, model={"pooling": "levels"}, layers="head")
    path = here / "data" / "splits" / "splits.parquet"
    table = pd.read_parquet(path)
    table.assign(split="", fold=table["image_id"].astype("category").cat.codes % 3).to_parquet(path)
    (path.parent / "split.json").write_text('{"scheme": "kfold", "folds": 3}')
    calls, original = [], head.views
    monkeypatch.setattr(head, "views", lambda *args: calls.append(1) or original(*args))
    record = train_stage.main("p")
    assert (record["pooling"], record["params"]["layers"], len(calls)) == ("levels", "head", 1)
    history = pd.read_csv(here / "reports" / "train" / "p" / "history.csv")
    assert list(history["round"]) == ["fold-0", "fold-1", "fold-2", "final"]
    weights = [
        load_file(here / "models" / "p" / place / "model.safetensors") for place in ("fold-0", ".")
    ]
    assert not torch.equal(weights[0]["head.weight"], weights[1]["head.weight"])
    body = next(name for name in weights[0] if name.startswith("body") and name.endswith("weight"))
    assert torch.equal(weights[0][body], weights[1][body])
    assert train_stage.main("p")["digest"] == record["digest"]  # nothing random in it


def test_what_cannot_be_trained_ends_the_stage_with_a_message(here):
    path = here / "data" / "splits" / "splits.parquet"
    pd.read_parquet(path).query("label == 'live'").to_parquet(path)
    with pytest.raises(TrainingError, match="training needs windows of both classes"):
        train_stage.main("p")
    (run,) = runs(here)
    assert run["status"] == "FAILED"


KILLED = """
import os, signal
from src.common.train import checkpoint
from src.common.train.classifier import Classifier
from src.stages import train
checkpoint.CHECKPOINT_SECONDS = 0.0
go_on = Classifier.on_train_batch_start
def stop(self, batch, batch_idx):
    if self.global_step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return go_on(self, batch, batch_idx)
Classifier.on_train_batch_start = stop
train.main("p")
"""


@pytest.mark.slow
def test_a_killed_stage_goes_on_in_its_own_run_to_the_same_weights(tree, tmp_path):
    killed = stage(tree, "-c", KILLED)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (before,) = runs(tree)
    assert (before["status"], before["epochs"]) == ("RUNNING", [0])
    done = stage(tree)
    assert done.returncode == 0, done.stderr
    (after,) = runs(tree)
    assert (after["id"], after["status"], after["epochs"]) == (before["id"], "FINISHED", [0, 1, 2])
    record = json.loads((tree / "models" / "p" / "model.json").read_text())
    assert after["tags"]["model_digest"] == record["digest"]
    assert not list((tree / "mlruns" / "checkpoints").iterdir())
    table = pd.read_parquet(tree / "data" / "splits" / "splits.parquet")
    torch.manual_seed(1)
    net = build(ARCH, tree / "models" / "weights" / "model" / "model.safetensors")
    expected, rows, epoch = fit(
        net, PatchStore(tree / "data" / "patches"), table[table["split"] == "train"],
        table[table["split"] == "valid"], params(), tmp_path / "whole", lambda row, epoch: None,
    )  # fmt: skip
    found = load_file(tree / "models" / "p" / "model.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert record["epochs_kept"] == {"holdout": epoch}
    history = pd.read_csv(tree / "reports" / "train" / "p" / "history.csv")
    assert history.drop(columns="round").to_dict("records") == rows


@pytest.mark.slow
def test_two_devices_share_the_work_and_the_first_alone_writes(tree):
    configure(tree, devices=2, strategy="ddp", epochs=2, frozen_epochs=1)
    done = stage(tree)
    assert done.returncode == 0, done.stderr
    (run,) = runs(tree)
    assert (run["status"], run["epochs"]) == ("FINISHED", [0, 1])
    assert done.stdout.count("kept epochs") == 1
    history = pd.read_csv(tree / "reports" / "train" / "p" / "history.csv").set_index("epoch")
    record = json.loads((tree / "models" / "p" / "model.json").read_text())
    table = pd.read_parquet(tree / "data" / "splits" / "splits.parquet").query("split == 'valid'")
    net, store = load_model(tree / "models" / "p", record), PatchStore(tree / "data" / "patches")
    logits = predict(net, store, table, desc=None)
    whole = roc_auc_score(table["label"] == "live", logits[:, 1] - logits[:, 0])
    kept = record["epochs_kept"]["holdout"]
    # Every validation window counted once, on whichever device
    assert history.loc[kept, "valid_auc"] == pytest.approx(whole, abs=0.01)
    assert not list((tree / "mlruns" / "checkpoints").iterdir())


def trained(tree: Path, target: str, **changes) -> dict[str, float]:
    """Trains at 16 windows or fields a step; the losses of the first and the last epoch, and the
    AUC of windows that were not trained on.
    """
    long = {"epochs": 6, "samples_per_epoch": 64, "lr": 5e-3}
    configure(tree, {"target": target}, **long, **changes)
    done = stage(tree)
    assert done.returncode == 0, done.stderr
    record = json.loads((tree / "models" / "p" / "model.json").read_text())
    table = pd.read_parquet(tree / "data" / "splits" / "splits.parquet").query("split != 'train'")
    net, store = load_model(tree / "models" / "p", record), PatchStore(tree / "data" / "patches")
    area = roc_auc_score(table["label"] == "live", live_logits(net, store, table, None))
    losses = pd.read_csv(tree / "reports" / "train" / "p" / "history.csv")["train_loss"]
    # The brighter windows of this store are its live ones, and so are the more stained
    return {
        "first": losses.iloc[0], "last": losses.iloc[-1],
        "auc": area if target == "label" else 1 - area,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("target", ["label", "stain"])
def test_two_devices_train_as_well_as_one(tree, target):
    one = trained(tree, target, batch_size=16)
    two = trained(tree, target, batch_size=8, devices=2, strategy="ddp")
    print(f"one process {one}, two {two}")
    assert one["last"] < one["first"] and two["last"] < two["first"]
    assert two["last"] == pytest.approx(one["last"], abs=0.1 * one["first"])
    assert min(one["auc"], two["auc"]) > 0.9 and two["auc"] == pytest.approx(one["auc"], abs=0.05)


@pytest.mark.slow
def test_every_fold_and_the_final_model_are_trained_on_two_devices(tree):
    three_folds(tree)
    configure(tree, devices=2, strategy="ddp", epochs=1)
    done = stage(tree)
    assert done.returncode == 0, done.stderr
    record = json.loads((tree / "models" / "p" / "model.json").read_text())
    assert len(record["epochs_kept"]) == 4
    (run,) = runs(tree)
    assert run["status"] == "FINISHED"
