"""Rebuilds MLflow from stage outputs: a stage that DVC restores from its cache does not run, so it
logs nothing.
"""

from pathlib import Path

from ..tracking import runs as tracking
from ..tracking.origin import git
from ..workspace.errors import UserError
from ..workspace.params import load
from ..workspace.paths import METRICS, MODELS, REPORTS, WORKSPACE
from ..workspace.records import parse, read_json
from .registry import register_model


def sync_all() -> bool:
    """Runs, model versions and aliases of every model at hand; returns whether all of it was there.

    What MLflow has already is left as it is.
    """
    dataset, tile, rule = load("dataset", "tile", "register")
    sync_filter()
    whole = True
    for partition in dataset.partitions:
        if not (MODELS / partition / "model.json").exists():
            print(f"sync: no model of {partition} at hand: run `dvc repro`, or `dvc pull`")
            whole = False
            continue
        evaluated, explained = sync_run(partition)
        whole = whole and evaluated and explained
        if evaluated:
            register_model(partition, tile, rule)
    sync_experiments()
    return whole


def sync_filter() -> None:
    """The filter's run."""
    if (METRICS / "filter.json").exists() and (MODELS / "filter" / "filter.json").exists():
        print(f"sync: filter is run {tracking.filter_run(restored=True)}")


def sync_run(partition: str) -> tuple[bool, bool]:
    """The training run of a partition, with its test metrics and explanation; returns which of the
    two are at hand.
    """
    run_id = tracking.training_run(partition)
    evaluation = METRICS / "evaluate" / f"{partition}.json"
    explanation = REPORTS / "explain" / partition
    evaluated = is_of(partition, evaluation)
    if evaluated and (REPORTS / "evaluate" / partition).exists():
        reports = REPORTS / "evaluate" / partition
        tracking.log_evaluation(partition, read_json(evaluation), reports)
    explained = is_of(partition, explanation / "explain.json")
    if explained:
        record = read_json(explanation / "explain.json")
        tracking.log_explanation(partition, record, explanation)
    print(f"sync: {partition} is run {run_id}")
    return evaluated, explained


def is_of(partition: str, path: Path) -> bool:
    """Whether a record is there and of the model at hand; one of an earlier model is left out, and
    said so.
    """
    if not path.exists():
        return False
    model = read_json(MODELS / partition / "model.json")["digest"]
    same = _digest(read_json(path)) == model
    if not same:
        print(
            f"sync: {path.relative_to(WORKSPACE)} is of another model than models/{partition}: "
            "run `dvc repro`"
        )
    return same


def sync_experiments() -> None:
    """Names every DVC experiment in git on the runs of its models: a model from the cache belongs
    to several.

    What an experiment holds is read from its commit, so its files need not be at hand. It trained
    those models that the commit which it started from (part of the ref's name) does not have; of
    several experiments, the earliest did.
    """
    for ref in git(
        "for-each-ref", "--sort=creatordate", "--format=%(refname)", "refs/exps/*/*/*"
    ).split():
        *_, first, rest, experiment = ref.split("/")
        for path in git("ls-tree", "-r", "--name-only", ref, "metrics/evaluate/").split():
            digest, before = _committed(ref, path), _committed(f"{first}{rest}", path)
            if run_id := tracking.find_run(digest):
                tracking.add_experiment(run_id, experiment, trained=digest != before)


def _committed(revision: str, path: str) -> str:
    """Digest of the model that a record in git is of; '' where there is none that can be read."""
    try:
        return _digest(parse(git("show", f"{revision}:{path}"), path))
    except UserError:
        return ""


def _digest(record: dict) -> str:
    """Digest of the model that an evaluation or an explanation is of; '' if it does not say."""
    return record.get("model", record).get("digest", "")
