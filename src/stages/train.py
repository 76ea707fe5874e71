"""Fine-tunes the backbone for one partition: one round for holdout; every fold and a final model
for kfold.

`python -m src.stages.train PARTITION`; reads data/splits, data/patches, models/weights and the
gates' verdicts; writes models/PARTITION (with what the training data look like) and
reports/train/PARTITION. Paper, step 5.
"""

import fcntl
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median_high

import mlflow
import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from ..common.patches.store import PatchStore
from ..common.scoring import backbones, inference
from ..common.scoring.backbones import CLASSES, Net, build
from ..common.split import rounds as splitting
from ..common.split.rounds import Round, rounds
from ..common.tracking import runs as tracking
from ..common.train import fine_tuning as training
from ..common.train import head, loading, training_range
from ..common.train.fine_tuning import TrainingError, fit, is_rank_zero, precision, refuse_one_class
from ..common.train.loading import targets
from ..common.workspace.params import Model, Train, load
from ..common.workspace.paths import CHECKPOINTS, MODELS, PATCHES, RAW, REPORTS, SPLITS
from ..common.workspace.tables import read_table

WEIGHTS = MODELS / "weights" / "model"


def refuse_failed_gates() -> None:
    """Stops unless every gate passed: training never starts on data that a check refused."""
    for verdict in sorted((REPORTS / "checks").glob("*/verdict.json")):
        if not json.loads(verdict.read_text())["success"]:
            sys.exit(
                f"error: the gate {verdict.parent.name} failed: see {verdict.parent}, mend the data and repeat"
            )


def identity(partition: str, train: Train, model: Model) -> str:
    """A digest of all that determines the training: an interrupted run goes on only if this is the
    same.
    """
    parts = [partition, model.model_dump_json(), train.model_dump_json()]
    code = [
        Path(module.__file__)
        for module in (backbones, head, inference, loading, splitting, training)
    ]
    for path in (
        WEIGHTS / "model.safetensors",
        SPLITS / "splits.parquet",
        PATCHES / "frames.parquet",
        *code,
    ):
        parts.append(hashlib.sha256(path.read_bytes()).hexdigest())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def train_rounds(
    turns: list[Round], table: pd.DataFrame, train: Train, model: Model, scratch: Path
) -> list[tuple]:
    """Trains every round; the final one of kfold, which has no validation, for as long as its folds
    found best.

    Returns (round, outcome, file of weights) of each, as `train_round` gives them.
    """
    found: list[tuple] = []
    for turn in turns:
        kept = [outcome["epoch"] + 1 for _, outcome, _ in found]
        epochs = median_high(kept) if turn.name == "final" else None
        found.append((turn, *train_round(turn, table, train, model, scratch, epochs)))
    return found


def train_round(
    turn: Round, table: pd.DataFrame, train: Train, model: Model, scratch: Path, epochs: int | None
) -> tuple[dict, Path]:
    """Trains one round, unless an interrupted run has finished it.

    Returns ({"history": rows of metrics per epoch, "epoch": the kept one}, file of weights). On
    several devices every process trains, and the first alone writes.
    """
    done, weights = (
        scratch / "done" / f"{turn.name}.json",
        scratch / "done" / f"{turn.name}.safetensors",
    )
    if not done.exists():
        learn = learn_head if train.layers == "head" else learn_all
        state, history, epoch = learn(turn, table, train, model, scratch, epochs)
        if not is_rank_zero():
            return {"history": history, "epoch": epoch}, weights
        done.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, weights)
        written = done.with_suffix(".part")
        written.write_text(json.dumps({"history": history, "epoch": epoch}))
        written.replace(done)  # all or nothing, also when killed here
        shutil.rmtree(scratch / turn.name, ignore_errors=True)
    return json.loads(done.read_text()), weights


def learn_all(
    turn: Round, table: pd.DataFrame, train: Train, model: Model, scratch: Path, epochs: int | None
) -> tuple[dict, list, int]:
    """Fine-tunes the whole network on a round (see `training.fit`)."""
    return fit(
        start(train, model), PatchStore(PATCHES), table[turn.train], table[turn.valid], train, scratch / turn.name,
        lambda row, step: tracking.log_epoch(turn.name, row, step), epochs,
    )  # fmt: skip


def learn_head(
    turn: Round, table: pd.DataFrame, train: Train, model: Model, scratch: Path, epochs: int | None
) -> tuple[dict, list, int]:
    """Fits the head alone, which has no epochs (see `head.fit_head`); features are computed once
    for all rounds.
    """
    refuse_one_class(table.loc[turn.train, "label"])
    net, kept = start(train, model), scratch / "features.npy"
    if not kept.exists():
        partial = scratch / "features.part.npy"
        np.save(partial, head.views(net, PatchStore(PATCHES), table))
        partial.replace(kept)
    found = head.fit_head(net, np.load(kept), targets(table), turn.train, turn.valid, train.C)
    tracking.log_epoch(
        turn.name, {name: v for name, v in found[1][0].items() if name != "epoch"}, 0
    )
    return found


def start(train: Train, model: Model) -> Net:
    """The network before training: pretrained body, new head from the seed."""
    torch.manual_seed(train.seed)
    return build(model.arch, WEIGHTS / "model.safetensors", pooling=model.pooling)


def main(partition: str) -> dict:
    """Runs the stage for a partition; returns the record written to model.json."""
    refuse_failed_gates()
    train, model = load("train", "model")
    table = read_table(SPLITS / "splits.parquet", [partition], aloud=False)
    turns = rounds(table, json.loads((SPLITS / "split.json").read_text()))
    scratch = CHECKPOINTS / identity(partition, train, model)
    try:
        if is_rank_zero():
            return lead(partition, train, model, table, turns, scratch)
        train_rounds(turns, table, train, model, scratch)
    except TrainingError as error:
        sys.exit(f"error: train@{partition}: {error}")
    return {}


def lead(
    partition: str,
    train: Train,
    model: Model,
    table: pd.DataFrame,
    turns: list[Round],
    scratch: Path,
) -> dict:
    """Trains every round inside one MLflow run and writes the outputs; returns the record written
    to model.json.

    An interrupted or failed training goes on in its own run, whose id lies beside the checkpoints.
    """
    directory, reports = MODELS / partition, REPORTS / "train" / partition
    record = description(partition, train, table, model)
    scratch.mkdir(parents=True, exist_ok=True)
    with (
        alone(scratch),
        tracking.run("train", tracking.run_name(record), run_id=earlier_run(scratch)) as run_id,
    ):
        (scratch / "run_id").write_text(run_id)
        forgive(run_id)
        outcomes = train_rounds(turns, table, train, model, scratch)
        shutil.rmtree(directory, ignore_errors=True)
        for turn, _, weights in outcomes:
            turn.folder(directory).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(weights, turn.folder(directory) / "model.safetensors")
        note_range(directory, table[turns[-1].train], partition)
        record |= {"epochs_kept": {turn.name: result["epoch"] for turn, result, _ in outcomes}}
        record |= {
            "digest": hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
        }
        (directory / "model.json").write_text(json.dumps(record, indent=2) + "\n")
        rows = [
            {"round": turn.name, **row} for turn, result, _ in outcomes for row in result["history"]
        ]
        reports.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(reports / "history.csv", index=False)
        tracking.log_training(record, directory)
    shutil.rmtree(scratch)
    print(
        f"train@{partition}: {model.arch}, {record['digest'][:12]}, kept epochs {record['epochs_kept']}"
    )
    return record


@contextmanager
def alone(scratch: Path) -> Iterator[None]:
    """Holds the folder of checkpoints, so that no second process writes to it.

    Raises TrainingError if one does.
    """
    with (scratch / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TrainingError(
                f"this very training is running already, with its checkpoints in {scratch}"
            ) from None
        yield


def note_range(directory: Path, windows: pd.DataFrame, partition: str) -> None:
    """Keeps beside the final model what its training data look like; validation images were seen as
    well.
    """
    frames = read_table(SPLITS / "frames.parquet", [partition], aloud=False)
    frames = frames[frames["split"] != "test"]
    training_range.record(
        directory, PatchStore(PATCHES), windows, frames, WEIGHTS.parent / "filter"
    )


def earlier_run(scratch: Path) -> str | None:
    """Id of the MLflow run that an interrupted training of the same identity left, if the store
    still has it.
    """
    if not (scratch / "run_id").exists():
        return None
    run_id = (scratch / "run_id").read_text()
    try:
        run = tracking.connect().get_run(run_id)
    except mlflow.MlflowException:
        return None
    return run_id if run.info.lifecycle_stage == "active" else None


def forgive(run_id: str) -> None:
    """A run that failed before and now goes on says so, instead of being called failed."""
    client = mlflow.MlflowClient()
    if reason := client.get_run(run_id).data.tags.get("failure"):
        client.set_tag(run_id, "resumed_after", reason)
        client.delete_tag(run_id, "failure")


def description(partition: str, train: Train, table: pd.DataFrame, model: Model) -> dict:
    """What is known of the model before it is trained."""
    source = json.loads((RAW / "source.json").read_text())
    return {
        "partition": partition,
        "arch": model.arch,
        "pooling": model.pooling,
        "classes": list(CLASSES),
        "synthetic": source["synthetic"],
        "source": source["source"],
        "weights": json.loads((WEIGHTS / "source.json").read_text()),
        "scheme": json.loads((SPLITS / "split.json").read_text())["scheme"],
        "patches": {label: int((table["label"] == label).sum()) for label in CLASSES},
        "groups": int(table["group"].nunique()),
        "params": train.model_dump(),
        "precision": precision(train.precision)
        if train.layers == "all"
        else "32-true",  # what `auto` came to
    }


if __name__ == "__main__":
    main(sys.argv[1])
