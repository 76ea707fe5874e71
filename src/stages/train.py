"""Fine-tunes the backbone for one partition: one round for holdout; every fold and a final model for kfold.

`python -m src.stages.train PARTITION`; reads data/splits, data/patches, models/weights/model and the gates' verdicts;
writes models/PARTITION and reports/train/PARTITION. Paper, step 5.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import mlflow
import pandas as pd
from safetensors.torch import save_file

from ..common import tracking
from ..common.backbones import CLASSES, build
from ..common.params import Train, load
from ..common.patches import PatchStore
from ..common.paths import CHECKPOINTS, MODELS, PATCHES, RAW, REPORTS, SPLITS
from ..common.splitting import Round, rounds
from ..common.tables import read_table
from ..common.training import fit

WEIGHTS = MODELS / "weights" / "model"


def refuse_failed_gates() -> None:
    """Stops unless every gate passed: training never starts on data that a check refused."""
    for verdict in sorted((REPORTS / "checks").glob("*/verdict.json")):
        if not json.loads(verdict.read_text())["success"]:
            sys.exit(f"error: the gate {verdict.parent.name} failed: see {verdict.parent}, mend the data and repeat")


def identity(partition: str, train: Train, arch: str) -> str:
    """A digest of all that determines the training: an interrupted run goes on only if this is the same."""
    parts = [partition, arch, train.model_dump_json()]
    for path in (WEIGHTS / "model.safetensors", SPLITS / "splits.parquet", PATCHES / "frames.parquet"):
        parts.append(hashlib.sha256(path.read_bytes()).hexdigest())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def train_round(turn: Round, table: pd.DataFrame, train: Train, arch: str, directory: Path, scratch: Path) -> dict:
    """Trains one round, or takes it from an interrupted run; writes DIRECTORY/model.safetensors.

    Returns {"history": rows of metrics per epoch, "epoch": the kept one}.
    """
    done, weights = scratch / "done" / f"{turn.name}.json", scratch / "done" / f"{turn.name}.safetensors"
    if not done.exists():
        net = build(arch, WEIGHTS / "model.safetensors")
        state, history, epoch = fit(
            net, PatchStore(PATCHES), table[turn.train], table[turn.valid], train, scratch / turn.name,
            lambda row, step: tracking.log_epoch(turn.name, row, step),
        )  # fmt: skip
        done.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, weights)
        done.write_text(json.dumps({"history": history, "epoch": epoch}))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.safetensors").write_bytes(weights.read_bytes())
    return json.loads(done.read_text())


def main(partition: str) -> dict:
    """Runs the stage for a partition; returns the record written to model.json."""
    refuse_failed_gates()
    train, model = load("train", "model")
    table = read_table(SPLITS / "splits.parquet", [partition])
    turns = rounds(table, json.loads((SPLITS / "split.json").read_text()))
    directory, reports = MODELS / partition, REPORTS / "train" / partition
    scratch = CHECKPOINTS / identity(partition, train, model.arch)
    run_id = (scratch / "run_id").read_text() if (scratch / "run_id").exists() else None
    record = description(partition, train, table, model.arch)
    with tracking.run("train", tracking.run_name(record), run_id=run_id) as run_id:
        scratch.mkdir(parents=True, exist_ok=True)
        (scratch / "run_id").write_text(run_id)
        log_data(table, turns)
        results = {t.name: train_round(t, table, train, model.arch, place(directory, t), scratch) for t in turns}
        record |= {"epochs_kept": {name: result["epoch"] for name, result in results.items()}}
        record |= {"digest": hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()}
        (directory / "model.json").write_text(json.dumps(record, indent=2) + "\n")
        history = pd.DataFrame([{"round": n, **row} for n, result in results.items() for row in result["history"]])
        reports.mkdir(parents=True, exist_ok=True)
        history.to_csv(reports / "history.csv", index=False)
        tracking.log_training(record, directory)
    shutil.rmtree(scratch)
    print(f"train@{partition}: {model.arch}, {record['digest'][:12]}, kept epochs {record['epochs_kept']}")
    return record


def place(directory: Path, turn: Round) -> Path:
    """Where a round's model lies: the one to register at the top, folds below it."""
    return directory if turn.name in ("holdout", "final") else directory / turn.name


def description(partition: str, train: Train, table: pd.DataFrame, arch: str) -> dict:
    """What is known of the model before it is trained."""
    source = json.loads((RAW / "source.json").read_text())
    return {
        "partition": partition,
        "arch": arch,
        "classes": list(CLASSES),
        "synthetic": source["synthetic"],
        "source": source["source"],
        "weights": json.loads((WEIGHTS / "source.json").read_text()),
        "scheme": json.loads((SPLITS / "split.json").read_text())["scheme"],
        "patches": {label: int((table["label"] == label).sum()) for label in CLASSES},
        "groups": int(table["group"].nunique()),
        "params": train.model_dump(),
    }


def log_data(table: pd.DataFrame, turns: list[Round]) -> None:
    """Logs the windows of each part of the first round as MLflow inputs, with their digests."""
    for name in ("train", "valid", "test"):
        rows = table.loc[getattr(turns[0], name), ["patch_id", "group", "label"]].reset_index(drop=True)
        if len(rows):
            dataset = mlflow.data.from_pandas(rows, name=f"{turns[0].name}-{name}", targets="label")
            mlflow.log_input(dataset, context=name)


if __name__ == "__main__":
    main(sys.argv[1])
