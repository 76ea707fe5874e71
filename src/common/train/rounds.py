"""The rounds of a partition's training, each at most once: a finished one is kept until all are."""

import json
import shutil
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from pathlib import Path
from statistics import median_high

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from ..patches.rounds import Round
from ..patches.store import PatchStore
from ..scoring.networks.net import Net, build
from ..scoring.networks.stain import build_stain
from ..tracking import runs as tracking
from ..workspace.records import read_json
from ..workspace.sections import Model, Stain, Train
from . import head
from .checkpoint import Report
from .devices import is_rank_zero
from .fine_tuning import fit
from .loading import refuse_one_class, targets
from .processes import at_a_time, is_beside_others, side_by_side
from .stain import fit_stain, stain_facts

TOLD = {"label": 1, "stain": 10}  # epochs between two lines of a round beside others


@dataclass(frozen=True)
class Job:
    """What all rounds of a partition share.

    table: the partition's rows of splits.parquet; weights: file of the body's first weights;
    scratch: folder of what an interruption must not lose; run_id: of the MLflow run.
    """

    table: pd.DataFrame
    store: PatchStore
    weights: Path
    train: Train
    model: Model
    stain: Stain
    scratch: Path
    run_id: str = ""


@dataclass(frozen=True)
class Trained:
    """A trained round: a row of metrics for each epoch, the kept epoch, its file of weights."""

    round: Round
    history: list[dict[str, float]]
    epoch: int
    weights: Path


def train_rounds(job: Job, planned: list[Round]) -> list[Trained]:
    """Trains every round, several at a time where that is faster; the final one of kfold, which has
    no validation, for as long as its folds found best.

    A stain network's final round takes no epochs from the folds, and so waits for none of them.
    """
    last = [part for part in planned if part.name == "final" and job.model.target == "label"]
    first = planned[: len(planned) - len(last)]
    processes = at_a_time(job.train, len(first))
    trained = partial(side_by_side, processes) if processes > 1 else starmap
    done = list(trained(train_round, [(job, part, None) for part in first]))
    epochs = median_high([each.epoch + 1 for each in done])
    return [*done, *trained(train_round, [(job, part, epochs) for part in last])]


def train_round(job: Job, part: Round, epochs: int | None) -> Trained:
    """Trains one round, unless an interrupted run has finished it. epochs: stop after so many.

    On several devices every process trains, and the first alone writes.
    """
    finished = job.scratch / "done" / f"{part.name}.json"
    weights = finished.with_suffix(".safetensors")
    if finished.exists():
        return Trained(part, **read_json(finished), weights=weights)
    if job.model.target == "stain":
        state, history, epoch = fit_fields(job, part)
    elif job.train.layers == "head":
        state, history, epoch = fit_head(job, part)
    else:
        train, valid = job.table[part.train], job.table[part.valid]
        state, history, epoch = fit(
            first_network(job), job.store, train, valid, job.train, job.scratch / part.name,
            reporter(job, part), epochs,
        )  # fmt: skip
    if is_rank_zero():
        finished.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, weights)
        unfinished = finished.with_suffix(".part")
        unfinished.write_text(json.dumps({"history": history, "epoch": epoch}))
        unfinished.replace(finished)  # all or nothing, also when killed here
        shutil.rmtree(job.scratch / part.name, ignore_errors=True)
    return Trained(part, history, epoch, weights)


def reporter(job: Job, part: Round) -> Report:
    """What a round does with the metrics of an epoch: to MLflow, and at times a line."""

    def report(row: dict[str, float], epoch: int) -> None:
        tracking.log_epoch(job.run_id, part.name, row, epoch)
        if is_beside_others() and (epoch + 1) % TOLD[job.model.target] == 0:
            print(f"train: {part.name}, epoch {epoch}, loss {row['train_loss']:.3f}", flush=True)

    return report


def fit_fields(job: Job, part: Round) -> tuple[dict, list, int]:
    """Trains the stain network on the whole fields of the training part (see `stain.fit_stain`),
    under kfold of all folds but the tested one.
    """
    torch.manual_seed(job.train.seed)
    net = build_stain(job.model.arch, stain_facts(job.stain), job.weights)
    # Under kfold the other folds choose a round's operating point, so its own validation fold is
    # free to learn from; under holdout that part is all there is to choose by
    rows = part.train if part.name == "holdout" else part.train | part.valid
    images = job.table.loc[rows, "image_id"].unique().tolist()
    return fit_stain(net, job.store, images, job.train, job.stain, reporter(job, part))


def fit_head(job: Job, part: Round) -> tuple[dict, list, int]:
    """Fits the head alone, which has no epochs (see `head.fit_head`); features are computed once
    for all rounds.
    """
    refuse_one_class(job.table.loc[part.train, "label"])
    net, features = first_network(job), job.scratch / "features.npy"
    if not features.exists():
        unfinished = job.scratch / "features.part.npy"
        np.save(unfinished, head.views(net, job.store, job.table))
        unfinished.replace(features)
    labels = targets(job.table)
    state, history, epoch = head.fit_head(
        net, np.load(features), labels, part.train, part.valid, job.train.C
    )
    metrics = {name: value for name, value in history[0].items() if name != "epoch"}
    reporter(job, part)(metrics, epoch)
    return state, history, epoch


def first_network(job: Job) -> Net:
    """The network before training: pretrained body, new head from the seed."""
    torch.manual_seed(job.train.seed)
    return build(job.model.arch, job.weights, pooling=job.model.pooling)
