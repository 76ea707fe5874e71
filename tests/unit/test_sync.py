"""Rebuilding MLflow: which experiment a rebuilt run is named after, and no record on a model that
it is not of.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient

from src.common.register import sync
from src.common.tracking import origin
from src.common.tracking import runs as tracking
from tests.conftest import mlflow_at


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def client(store, monkeypatch, tmp_path) -> MlflowClient:
    """A client of a store away from the repository; the workspace is a folder of its own."""
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    monkeypatch.setattr(origin, "WORKSPACE", tmp_path)
    for name in ("METRICS", "MODELS", "REPORTS"):
        monkeypatch.setattr(sync, name, tmp_path / name.lower())
    monkeypatch.setattr(sync, "WORKSPACE", tmp_path)
    with mlflow_at(store):
        yield tracking.connect()


class Repository:
    """A git repository with evaluation records in its commits."""

    def __init__(self, root: Path):
        self.root, self.day = root, 0
        self.git("init", "-q")

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@t.invalid")
        env = os.environ | {"GIT_COMMITTER_DATE": f"2026-01-{self.day + 1:02d}T00:00:00"}
        done = subprocess.run(
            ["git", *who, *arguments], cwd=self.root, env=env, capture_output=True, check=True
        )
        return done.stdout.decode().strip()

    def commit(self, **models: str) -> str:
        """A commit a day later, whose partitions have models of those digests."""
        self.day += 1
        folder = self.root / "metrics" / "evaluate"
        folder.mkdir(parents=True, exist_ok=True)
        for partition, digest in models.items():
            (folder / f"{partition}.json").write_text(json.dumps({"model": {"digest": digest}}))
        self.git("add", "-A")
        self.git("commit", "-qm", "x", "--allow-empty")
        return self.git("rev-parse", "HEAD")

    def experiment(self, name: str, baseline: str, **models: str) -> None:
        """A DVC experiment as it stands in git: a commit on its baseline, under a ref that names
        both.
        """
        self.git("checkout", "-q", baseline)
        made = self.commit(**models)
        self.git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", made)
        self.git("checkout", "-q", baseline)


def rebuilt(digest: str) -> str:
    with tracking.run("train", "p net", {tracking.DIGEST: digest}, restored=True) as run_id:
        return run_id


def test_a_rebuilt_run_is_named_after_the_first_experiment_that_trained_it_and_no_other(
    client, tmp_path
):
    repository = Repository(tmp_path)
    start = repository.commit(p="base", q="other")
    repository.experiment("weights-only", start, p="base")  # sorts last by name, made first
    repository.experiment("trained", start, p="new")
    repository.experiment("again", start, p="new")  # from the cache
    base, new = rebuilt("base"), rebuilt("new")
    sync.sync_experiments()
    sync.sync_experiments()
    found = client.get_run(base)
    assert found.info.run_name == "p net" and "dvc_exp" not in found.data.tags
    assert set(found.data.tags["dvc_exps"].split(", ")) == {"weights-only"}
    found = client.get_run(new)
    assert found.info.run_name == "trained: p net" and found.data.tags["dvc_exp"] == "trained"
    assert found.data.tags["dvc_exps"] == "trained, again"


@pytest.mark.parametrize("text", ["", "[]", "<<<<<<< HEAD"])
def test_an_experiment_whose_record_is_damaged_keeps_no_other_from_being_named(
    client, tmp_path, text
):
    repository = Repository(tmp_path)
    start = repository.commit()
    repository.experiment("whole", start, p="kept")
    (tmp_path / "metrics" / "evaluate").mkdir(parents=True)
    (tmp_path / "metrics" / "evaluate" / "q.json").write_text(text)
    repository.experiment("damaged", start)
    run_id = rebuilt("kept")
    sync.sync_experiments()
    assert client.get_run(run_id).data.tags["dvc_exps"] == "whole"


def test_an_experiment_on_a_commit_without_models_trained_its_own(client, tmp_path):
    repository = Repository(tmp_path)
    start = repository.commit()
    repository.experiment("first", start, p="fresh")
    run_id = rebuilt("fresh")
    sync.sync_experiments()
    assert client.get_run(run_id).info.run_name == "first: p net"


def test_records_of_an_earlier_model_are_not_added_to_the_present_one(
    client, monkeypatch, tmp_path, capsys
):
    places = ("models/p/model.json", "metrics/evaluate/p.json", "reports/explain/p/explain.json")
    for place in (*places, "reports/evaluate/p/predictions.parquet"):
        (tmp_path / place).parent.mkdir(parents=True)
    model, evaluation, explanation = (tmp_path / place for place in places)
    model.write_text('{"digest": "new"}')
    evaluation.write_text('{"model": {"digest": "old"}}')
    explanation.write_text('{"digest": "new"}')
    added = []
    monkeypatch.setattr(tracking, "training_run", lambda partition: "r")
    monkeypatch.setattr(tracking, "log_evaluation", lambda *given: added.append("evaluation"))
    monkeypatch.setattr(tracking, "log_explanation", lambda *given: added.append("explanation"))
    assert sync.sync_run("p") == (False, True) and added == ["explanation"]
    assert (
        "metrics/evaluate/p.json is of another model than models/p: run `dvc repro`"
        in capsys.readouterr().out
    )
    evaluation.write_text('{"model": {"digest": "new"}}')
    explanation.unlink()
    assert sync.sync_run("p") == (True, False) and added == ["explanation", "evaluation"]
