"""MLflow, anchored at the repository root, also from DVC's temporary copies; MLFLOW_TRACKING_URI wins.

A training run is found again by the digest of its model, never by an id kept in a file: a cached stage does not run,
so `training_run` makes from the stage's outputs whatever MLflow lacks, and `unstained sync` calls it for all.
"""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pandas as pd
import yaml
from mlflow import MlflowClient

from . import run_content, server
from .params import load
from .paths import METRICS, MLRUNS, MODELS, REPORTS, SPLITS, WORKSPACE

EXPERIMENT = "unstained"
NOTE = "mlflow.note.content"
KIND = "mlflow.experimentKind"  # the pages for trained models, not those for language models
ABOUT = """One run trains one partition's model; `test/` metrics are of the test split, with intervals over groups
(`_low`, `_high`); parameters are named as `dvc exp run -S` takes them. Group by the tag `dvc_exp` to see a DVC
experiment's runs together; search `tags.dvc_exps LIKE '%NAME%'` finds also models that NAME took from the cache. Runs
tagged `synthetic: true` are of simulated plates. A failed run says why in the tag `failure`."""
DIGEST = "model_digest"  # the tag by which a run and a model version are found again


def connect() -> MlflowClient:
    """Points MLflow at the store, makes the experiment if it lacks, and returns a client."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        MLRUNS.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(f"sqlite:///{MLRUNS / 'mlflow.db'}")
    server.check(mlflow.get_tracking_uri())
    client = MlflowClient()
    if client.get_experiment_by_name(EXPERIMENT) is None:
        local = mlflow.get_tracking_uri().startswith("sqlite:")
        place = (MLRUNS / "artifacts").as_uri() if local else None
        client.create_experiment(
            EXPERIMENT, artifact_location=place, tags={NOTE: ABOUT, KIND: "custom_model_development"}
        )
    mlflow.set_experiment(EXPERIMENT)
    return client


@contextmanager
def run(stage: str, name: str, tags: dict[str, str] | None = None, run_id: str | None = None) -> Iterator[str]:
    """A run of a stage with the tags of its origin; goes on with `run_id` if given. Yields the run's id.

    A run whose body raises ends as FAILED, with the reason in the tag `failure`.
    """
    connect()
    experiment = os.environ.get("DVC_EXP_NAME")
    title = f"{experiment}: {name}" if experiment else name
    with mlflow.start_run(run_id=run_id, run_name=None if run_id else title) as active:
        mlflow.set_tags(origin(stage) | (tags or {}))
        try:
            yield active.info.run_id
        except BaseException as error:
            mlflow.set_tag("failure", f"{type(error).__name__}: {error}"[:2000])
            raise


def origin(stage: str) -> dict[str, str]:
    """Where a run comes from: stage, DVC experiment, git revision and the digests of its data, as tags."""
    tags = {"stage": stage, "git_revision": git("rev-parse", "HEAD") or "none"}
    tags |= {"git_dirty": str(bool(git("status", "--porcelain", "--untracked-files=no"))).lower()}
    for tag, variable in (
        ("dvc_exp", "DVC_EXP_NAME"),
        ("dvc_baseline", "DVC_EXP_BASELINE_REV"),
        ("dvc_stage", "DVC_STAGE"),
    ):
        if value := os.environ.get(variable):
            tags[tag] = value
    if experiment := tags.get("dvc_exp"):
        tags["dvc_exps"] = experiment
    return tags | {f"data.{name}": digest for name, digest in data_digests().items()}


def data_digests() -> dict[str, str]:
    """DVC's digests of the folders of data/, as dvc.lock has them: {"raw": "md5...", ...}."""
    lock = WORKSPACE / "dvc.lock"
    stages = (yaml.safe_load(lock.read_text()) or {}).get("stages", {}) if lock.exists() else {}
    outs = [out for stage in stages.values() for out in stage.get("outs", [])]
    return {o["path"].removeprefix("data/"): o["md5"] for o in outs if o["path"].startswith("data/") and "md5" in o}


def find_run(digest: str, stage: str = "train") -> str | None:
    """Id of the newest finished or running run of a stage with that digest, or None."""
    client = connect()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    condition = f"tags.{DIGEST} = '{digest}' and tags.stage = '{stage}'"
    runs = client.search_runs([experiment.experiment_id], condition, max_results=1)
    return runs[0].info.run_id if runs else None


def training_run(partition: str, models: Path = MODELS) -> str:
    """Id of the run that trained models/PARTITION; made from the stage's outputs if MLflow has none.

    An experiment that found the model in DVC's cache is added to the experiments the run belongs to.
    """
    model = json.loads((models / partition / "model.json").read_text())
    if found := find_run(model["digest"]):
        if experiment := os.environ.get("DVC_EXP_NAME"):
            add_experiment(found, experiment)
        return found
    with run("train", run_name(model), tags={"restored": "true"}) as run_id:
        log_training(model, models / partition)
        log_history(pd.read_csv(REPORTS / "train" / partition / "history.csv"))
    return run_id


def add_experiment(run_id: str, experiment: str) -> None:
    """Adds a DVC experiment to the tag `dvc_exps` of a run, once: all experiments that this model is part of.

    A run rebuilt from outputs gets the first one's name, as it had where it was trained.
    """
    client = MlflowClient()
    found = client.get_run(run_id)
    names = [name for name in found.data.tags.get("dvc_exps", "").split(", ") if name]
    if experiment in names:
        return
    client.set_tag(run_id, "dvc_exps", ", ".join([*names, experiment])[:5000])
    if "restored" in found.data.tags and not names:
        client.set_tag(run_id, "dvc_exp", experiment)
        client.update_run(run_id, name=f"{experiment}: {found.info.run_name}")


def run_name(model: dict) -> str:
    """Name of a training run, from its model.json: partition, architecture, and that it started from nothing."""
    random = " from random weights" if model["weights"]["weights"] == "random" else ""
    return f"{model['partition']} {model['arch']}{random}"


def log_history(history: pd.DataFrame) -> None:
    """Per-epoch metrics of the active run."""
    for row in history.to_dict("records"):
        log_epoch(row.pop("round"), row, int(row.pop("epoch")))


def log_epoch(round_name: str, row: dict[str, float], epoch: int) -> None:
    """One epoch's metrics of one round of the active run."""
    mlflow.log_metrics(run_content.epoch(round_name, row), step=epoch)


def log_training(model: dict, directory: Path) -> None:
    """What a finished training leaves in the active run: tags, parameters, data, weights, history and note."""
    mlflow.set_tags({DIGEST: model["digest"], "partition": model["partition"], "arch": model["arch"]})
    mlflow.set_tags({"synthetic": str(model["synthetic"]).lower(), "weights": model["weights"]["weights"]})
    names = ("dataset", "tile", "label", "split")
    sections = {name: section.model_dump() for name, section in zip(names, load(*names))}
    mlflow.log_params(run_content.parameters(model, sections))
    log_data(model["partition"])
    mlflow.log_artifacts(str(directory), "model")
    mlflow.log_artifacts(str(REPORTS / "train" / model["partition"]), "train")
    for gate in sorted(path for path in (REPORTS / "checks").glob("*") if path.is_dir()):
        mlflow.log_artifacts(str(gate), f"checks/{gate.name}")
    mlflow.set_tag(NOTE, run_content.note(model, None, ["model", "train", "checks"]))


def log_data(partition: str) -> None:
    """Logs the labelled windows of each part of the split as inputs of the active run, by DVC's digest of data/splits.

    Without a dvc.lock (a stage run by hand) the digest is MLflow's own, of the table.
    """
    if MlflowClient().get_run(mlflow.active_run().info.run_id).inputs.dataset_inputs:
        return
    splits = pd.read_parquet(SPLITS / "splits.parquet").query("partition == @partition")
    digest = data_digests().get("splits")
    for part, rows in splits.groupby(splits["split"].replace("", "kfold"), sort=False):
        table = rows[["patch_id", "group", "label"]].reset_index(drop=True)
        name = f"{partition} {part}"
        dataset = mlflow.data.from_pandas(table, name=name, targets="label", digest=digest)
        mlflow.log_input(dataset, context=str(part))


def filter_run() -> str:
    """Id of the run that fitted models/filter; made from the stage's outputs if MLflow has none."""
    directory = MODELS / "filter"
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(directory.iterdir()))).hexdigest()
    if found := find_run(digest, "filter"):
        return found
    metrics = json.loads((METRICS / "filter.json").read_text())
    facts = json.loads((directory / "filter.json").read_text())
    with run("filter", f"filter {facts['arch']}", {DIGEST: digest, "arch": facts["arch"]}) as run_id:
        mlflow.log_params({f"filter.{k}": str(v) for k, v in facts.items() if isinstance(v, str | int | float)})
        mlflow.log_metrics({f"filter/{k}": float(v) for k, v in metrics.items() if k in ("f1_cells", "f1_not_cells")})
        mlflow.log_artifacts(str(directory), "model")
        mlflow.log_artifacts(str(REPORTS / "filter"), "figures")
        mlflow.log_dict(metrics, "filter.json")
    return run_id


def log_evaluation(partition: str, record: dict, reports: Path) -> None:
    """Adds the test metrics, figures and predictions to the run that trained the model, and puts them in its note."""
    model = json.loads((MODELS / partition / "model.json").read_text())
    text = run_content.note(model, record, ["evaluate", "explain", "model", "train", "checks"])
    _add(partition, "evaluate", run_content.evaluation(record), record, reports, {NOTE: text})


def log_explanation(partition: str, record: dict, reports: Path) -> None:
    """Adds the embedding maps and Grad-CAM figures and their numbers to the run that trained the model."""
    _add(partition, "explain", run_content.explanation(record), record, reports, {})


def _add(partition: str, name: str, metrics: dict[str, float], record: dict, reports: Path, tags: dict) -> None:
    """Adds a later stage's outcome to a training run, unless that very outcome is there already."""
    run_id = training_run(partition)
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    if MlflowClient().get_run(run_id).data.tags.get(f"{name}_digest") == digest:
        return
    with run_again(run_id):
        mlflow.log_metrics(metrics)
        mlflow.log_artifacts(str(reports), name)
        if name == "evaluate":  # the explanation's folder has its own
            mlflow.log_dict(record, "evaluate/record.json")
        mlflow.set_tags(tags | {f"{name}_digest": digest})


@contextmanager
def run_again(run_id: str) -> Iterator[None]:
    """Adds to a finished run without changing its status or times."""
    connect()
    status = MlflowClient().get_run(run_id).info.status
    with mlflow.start_run(run_id=run_id):
        yield
    if status not in ("FINISHED", "RUNNING"):
        MlflowClient().set_terminated(run_id, status)


def git(*arguments: str) -> str:
    """What a git command prints in the workspace; empty if it fails."""
    result = subprocess.run(["git", *arguments], cwd=WORKSPACE, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""
