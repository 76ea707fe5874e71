"""Rebuilds MLflow from stage outputs: a stage that DVC restores from its cache does not run, so it logs nothing."""

import json

from . import tracking
from .params import load
from .paths import METRICS, MODELS, REPORTS
from .registry import register_model


def sync_all() -> None:
    """Runs, model versions and aliases of every model at hand. What MLflow has already is left as it is."""
    dataset, tile, rule = load("dataset", "tile", "register")
    sync_filter()
    for partition in dataset.partitions:
        if not (MODELS / partition / "model.json").exists():
            print(f"sync: no model of {partition} at hand: run `dvc repro`, or `dvc pull`")
            continue
        sync_run(partition)
        if (METRICS / "evaluate" / f"{partition}.json").exists():
            register_model(partition, tile, rule)
    sync_experiments()


def sync_filter() -> None:
    """The filter's run."""
    if (METRICS / "filter.json").exists() and (MODELS / "filter" / "filter.json").exists():
        print(f"sync: filter is run {tracking.filter_run()}")


def sync_run(partition: str) -> None:
    """The training run of a partition, with its test metrics and explanation."""
    run_id = tracking.training_run(partition)
    record = METRICS / "evaluate" / f"{partition}.json"
    if record.exists() and (REPORTS / "evaluate" / partition).exists():
        tracking.log_evaluation(partition, json.loads(record.read_text()), REPORTS / "evaluate" / partition)
    explanation = REPORTS / "explain" / partition / "explain.json"
    if explanation.exists():
        tracking.log_explanation(partition, json.loads(explanation.read_text()), explanation.parent)
    print(f"sync: {partition} is run {run_id}")


def sync_experiments() -> None:
    """Names every DVC experiment in git on the runs of its models: a model from the cache belongs to several.

    What an experiment holds is read from its commit, so its files need not be at hand.
    """
    for ref in tracking.git("for-each-ref", "--format=%(refname)", "refs/exps/*/*/*").split():
        for path in tracking.git("ls-tree", "-r", "--name-only", ref, "metrics/evaluate/").split():
            digest = json.loads(tracking.git("show", f"{ref}:{path}"))["model"]["digest"]
            if run_id := tracking.find_run(digest):
                tracking.add_experiment(run_id, ref.rsplit("/", 1)[1])
