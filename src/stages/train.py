"""Trains one partition's network: one round for holdout; every fold and a final model for kfold.

`python -m src.stages train PARTITION`; reads data/splits, data/patches, data/features,
models/weights and the verdicts of the checks; writes models/PARTITION (with what the training data
look like) and reports/train/PARTITION. Paper, step 5.
"""

import hashlib
import shutil
from dataclasses import asdict, replace

import pandas as pd

from ..common.patches.frozen import FrozenFeatures
from ..common.patches.rounds import rounds
from ..common.patches.store import PatchStore
from ..common.scoring.networks.backbones import CLASSES
from ..common.tracking import runs as tracking
from ..common.train import training_range
from ..common.train.devices import is_rank_zero, precision
from ..common.train.loading import TrainingError
from ..common.train.resume import identity, resumable_run
from ..common.train.rounds import Job, Trained, train_rounds
from ..common.train.stain import stain_facts
from ..common.workspace.params import load
from ..common.workspace.paths import CHECKPOINTS, FEATURES, MODELS, PATCHES, RAW, REPORTS, SPLITS
from ..common.workspace.records import read_json, write_json
from ..common.workspace.sections import Model, Train
from ..common.workspace.tables import read_table

WEIGHTS = MODELS / "weights" / "model"


def main(partition: str) -> dict:
    """Runs the stage for a partition; returns the record written to model.json.

    On several devices each process comes here; the first alone tracks and writes.
    """
    refuse_failed_checks()
    train, model, stain = load("train", "model", "stain")
    if read_json(WEIGHTS / "source.json")["weights"] == "random":  # nothing worth keeping
        train = train.model_copy(update={"frozen_stages": 0})
    table = read_table(SPLITS / "splits.parquet", [partition], aloud=False)
    planned = rounds(table, read_json(SPLITS / "split.json"))
    weights = WEIGHTS / "model.safetensors"
    settings = [partition, *(section.model_dump_json() for section in (model, train, stain))]
    data = [weights, SPLITS / "splits.parquet", PATCHES / "frames.parquet"]
    scratch = CHECKPOINTS / identity(settings, data)
    job = Job(table, PatchStore(PATCHES), weights, train, model, stain, scratch)
    if not is_rank_zero():
        train_rounds(job, planned)
        return {}
    record = description(partition, table, train, model)
    if model.target == "stain":
        record["stain"] = asdict(stain_facts(stain))
    with resumable_run(scratch, tracking.run_name(record)) as run_id:
        trained = train_rounds(replace(job, run_id=run_id), planned)
        record |= write(partition, job, trained, record)
        tracking.log_training(record, MODELS / partition)
    kept = record["epochs_kept"]
    print(f"train@{partition}: {model.arch}, {record['digest'][:12]}, kept epochs {kept}")
    return record


def refuse_failed_checks() -> None:
    """Raises TrainingError unless every check passed: training never starts on data that a check
    refused.
    """
    for verdict in sorted((REPORTS / "checks").glob("*/verdict.json")):
        if not read_json(verdict)["success"]:
            raise TrainingError(
                f"check@{verdict.parent.name} failed: see {verdict.parent}, mend the data and "
                "repeat"
            )


def description(partition: str, table: pd.DataFrame, train: Train, model: Model) -> dict:
    """What is known of the model before it is trained."""
    source = read_json(RAW / "source.json")
    return {
        "partition": partition,
        "target": model.target,
        "arch": model.arch,
        "pooling": model.pooling,
        "classes": list(CLASSES),
        "synthetic": source["synthetic"],
        "source": source["source"],
        "weights": read_json(WEIGHTS / "source.json"),
        "scheme": read_json(SPLITS / "split.json")["scheme"],
        "patches": {label: int((table["label"] == label).sum()) for label in CLASSES},
        "groups": int(table["group"].nunique()),
        "params": train.model_dump(),
        # What `auto` came to
        "precision": precision(train.precision) if train.layers == "all" else "32-true",
    }


def write(partition: str, job: Job, trained: list[Trained], record: dict) -> dict:
    """Writes the models of all rounds, what the data of the last one look like, the history and
    model.json; returns what these add to the record.
    """
    directory = MODELS / partition
    shutil.rmtree(directory, ignore_errors=True)
    for each in trained:
        folder = each.round.folder(directory)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(each.weights, folder / "model.safetensors")
    windows = job.table[trained[-1].round.train]
    # Validation images chose the epoch, so they were seen as well
    frames = read_table(SPLITS / "frames.parquet", [partition], aloud=False).query(
        "split != 'test'"
    )
    training_range.record(directory, job.store, windows, frames, FrozenFeatures(FEATURES))
    digest = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    added = {"epochs_kept": {each.round.name: each.epoch for each in trained}, "digest": digest}
    write_json(directory / "model.json", record | added)
    reports = REPORTS / "train" / partition
    reports.mkdir(parents=True, exist_ok=True)
    rows = [{"round": each.round.name, **row} for each in trained for row in each.history]
    pd.DataFrame(rows).to_csv(reports / "history.csv", index=False)
    return added
