"""Runs in MLflow: one of each training, to which later stages add their outcome.

A training run is found again by the digest of its model, never by an id kept in a file: a cached
stage does not run, so `training_run` makes from the stage's outputs whatever MLflow lacks, and
`unstained sync` calls it for all. A run so rebuilt is tagged `restored`, and claims neither the
revision nor the DVC stage nor the experiment of who rebuilds it.
"""

import hashlib
import json
import os
import time
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag

from ..workspace.params import load
from ..workspace.paths import METRICS, MODELS, REPORTS
from ..workspace.records import read_json
from . import content as run_content
from .experiment import EXPERIMENT, NOTE, connect, run
from .inputs import log_data

DIGEST = "model_digest"  # the tag by which a run and a model version are found again


def find_run(digest: str, stage: str = "train") -> str | None:
    """Id of the newest finished or running run of a stage with that digest, or None.

    A run that was cut off is not taken for whole: it ends as KILLED, and is left out. A training
    goes on in its own run, and so keeps it.
    """
    client = connect()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    same = f"tags.{DIGEST} = '{digest}' and tags.stage = '{stage}'"
    for seen in client.search_runs([experiment.experiment_id], same):
        cut_off = stage != "train" or "restored" in seen.data.tags
        if seen.info.status == "RUNNING" and cut_off:
            client.set_terminated(seen.info.run_id, "KILLED")
        elif seen.info.status in ("RUNNING", "FINISHED"):
            return seen.info.run_id
    return None


def training_run(partition: str) -> str:
    """Id of the run that trained models/PARTITION; made from the stage's outputs if MLflow has
    none.

    An experiment that found the model in DVC's cache is added to the experiments the run belongs
    to.
    """
    model = read_json(MODELS / partition / "model.json")
    if known := find_run(model["digest"]):
        if experiment := os.environ.get("DVC_EXP_NAME"):
            add_experiment(known, experiment)
        return known
    with run("train", run_name(model), {DIGEST: model["digest"]}, restored=True) as run_id:
        log_training(model, MODELS / partition)
        history = pd.read_csv(REPORTS / "train" / partition / "history.csv")
        for row in history.to_dict("records"):
            log_epoch(run_id, row.pop("round"), row, int(row.pop("epoch")))
    return run_id


def add_experiment(run_id: str, experiment: str, trained: bool = False) -> None:
    """Adds a DVC experiment to the tag `dvc_exps` of a run, once: all experiments that this model
    is part of.

    A run rebuilt from outputs gets the name of the first one that `trained` its model, as it had
    where it was trained.
    """
    client = MlflowClient()
    tracked = client.get_run(run_id)
    tags = tracked.data.tags
    names = [name for name in tags.get("dvc_exps", "").split(", ") if name]
    if experiment not in names:
        client.set_tag(run_id, "dvc_exps", ", ".join([*names, experiment])[:5000])
    if trained and "restored" in tags and "dvc_exp" not in tags:
        client.set_tag(run_id, "dvc_exp", experiment)
        client.update_run(run_id, name=f"{experiment}: {tracked.info.run_name}")


def run_name(model: dict) -> str:
    """Name of a training run, from its model.json: partition, architecture, and that it started
    from nothing.
    """
    random = " from random weights" if model["weights"]["weights"] == "random" else ""
    return f"{model['partition']} {model['arch']}{random}"


def log_epoch(run_id: str, round_name: str, row: dict[str, float], epoch: int) -> None:
    """One epoch's metrics of one round of a run, which another process may have begun."""
    mlflow.log_metrics(run_content.epoch(round_name, row), step=epoch, run_id=run_id)


def log_training(model: dict, directory: Path) -> None:
    """What a finished training leaves in the active run: tags, parameters, data, weights, history
    and note.
    """
    tags = {DIGEST: model["digest"], "partition": model["partition"], "arch": model["arch"]}
    tags["synthetic"] = str(model["synthetic"]).lower()
    mlflow.set_tags(tags | {"weights": model["weights"]["weights"]})
    names = ("dataset", "tile", "label", "split")
    sections = {name: section.model_dump() for name, section in zip(names, load(*names))}
    mlflow.log_params(run_content.parameters(model, sections))
    log_data(model["partition"])
    run_id = mlflow.active_run().info.run_id
    log_folder(run_id, directory, "model")
    log_folder(run_id, REPORTS / "train" / model["partition"], "train")
    log_folder(run_id, REPORTS / "checks", "checks")
    mlflow.set_tag(NOTE, run_content.note(model, None, ["model", "train", "checks"]))


def log_folder(run_id: str, folder: Path, name: str) -> None:
    """Adds the files of a folder to a run, one by one: MLflow replaces a file so, where a whole
    folder is written over the files there, which are read-only as DVC's cache left their originals.
    """
    client = MlflowClient()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        place = Path(name) / path.relative_to(folder).parent
        client.log_artifact(run_id, str(path), place.as_posix())


def filter_run(restored: bool = False) -> str:
    """Id of the run that fitted models/filter; made if MLflow has none, by the stage or `restored`
    from its outputs.
    """
    directory = MODELS / "filter"
    digest = hashlib.sha256(
        b"".join(p.read_bytes() for p in sorted(directory.iterdir()))
    ).hexdigest()
    if existing := find_run(digest, "filter"):
        return existing
    metrics = read_json(METRICS / "filter.json")
    facts = read_json(directory / "filter.json")
    tags = {DIGEST: digest, "arch": facts["arch"]}
    with run("filter", f"filter {facts['arch']}", tags, restored=restored) as run_id:
        mlflow.log_params(
            {f"filter.{k}": str(v) for k, v in facts.items() if isinstance(v, str | int | float)}
        )
        scores = {f"filter/{name}": metrics[name] for name in ("f1_cells", "f1_not_cells")}
        known = {name: value for name, value in scores.items() if value is not None}
        mlflow.log_metrics(known)  # none by rules alone
        log_folder(run_id, directory, "model")
        log_folder(run_id, REPORTS / "filter", "figures")
        mlflow.log_dict(metrics, "filter.json")
    return run_id


def log_evaluation(partition: str, record: dict, reports: Path) -> None:
    """Adds the test metrics, figures and predictions to the run that trained the model, and puts
    them in its note.
    """
    model = read_json(MODELS / partition / "model.json")
    text = run_content.note(model, record, ["evaluate", "explain", "model", "train", "checks"])
    _add(partition, "evaluate", run_content.evaluation(record), record, reports, {NOTE: text})


def log_explanation(partition: str, record: dict, reports: Path) -> None:
    """Adds the embedding maps and Grad-CAM figures and their numbers to the run that trained the
    model.
    """
    _add(partition, "explain", run_content.explanation(record), record, reports, {})


def _add(
    partition: str, name: str, metrics: dict[str, float], record: dict, reports: Path, tags: dict
) -> None:
    """Adds a later stage's outcome to a training run, unless that very outcome is there already.

    Through the client, which leaves the run's status and times alone.
    """
    run_id, client = training_run(partition), MlflowClient()
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    if client.get_run(run_id).data.tags.get(f"{name}_digest") == digest:
        return
    now = int(time.time() * 1000)
    client.log_batch(run_id, metrics=[Metric(key, value, now, 0) for key, value in metrics.items()])
    log_folder(run_id, reports, name)
    if name == "evaluate":  # the explanation's folder has its own
        client.log_dict(run_id, record, "evaluate/record.json")
    tags = tags | {f"{name}_digest": digest}
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
