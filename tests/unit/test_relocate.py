"""A moved or copied clone: the store names the files of the clone it lies in, and no others."""

import os
import shutil
import sqlite3

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from src.common.tracking import server
from src.common.tracking.relocate import recorded, relocate, use_store
from src.common.workspace.errors import ServerError
from tests.conftest import mlflow_at


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A clone with a run that holds an artifact; returns its folder and the run's id."""
    root = tmp_path_factory.mktemp("clones") / "first clone"
    with mlflow_at(None), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")  # set_tracking_uri sets it, too
        use_store(root / "mlruns")
        client = MlflowClient()
        place = (root / "mlruns" / "artifacts").as_uri()
        experiment = client.create_experiment("unstained", artifact_location=place)
        run_id = client.create_run(experiment).info.run_id
        client.log_text(run_id, "first", "kept.txt")
        client.create_registered_model("unstained-p")
        client.create_model_version("unstained-p", f"{place}/{run_id}/artifacts", run_id)
    return root, run_id


@pytest.fixture
def clone(made, tmp_path, monkeypatch):
    """A copy of it in a folder of its own, mended once, as if it had been made there."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    root = tmp_path / "first clone"
    shutil.copytree(made[0], root)
    relocate(root / "mlruns" / "mlflow.db")
    assert recorded(root / "mlruns" / "mlflow.db") == root / "mlruns"
    with mlflow_at(None):
        yield root, made[1]


def used(root) -> MlflowClient:
    os.environ["MLFLOW_TRACKING_URI"] = ""  # as in a new process
    use_store(root / "mlruns")
    return MlflowClient()


def test_a_moved_clone_finds_its_files_and_says_so(clone, tmp_path, capsys):
    root, run_id = clone
    new = tmp_path / "zweiter Klon, ü"
    root.rename(new)
    capsys.readouterr()
    client = used(new)
    assert str(root) in capsys.readouterr().out
    assert [each.path for each in client.list_artifacts(run_id)] == ["kept.txt"]
    version = client.get_model_version("unstained-p", "1")
    here = (new / "mlruns").as_uri()
    assert version.source.startswith(here)
    assert client.get_model_version_download_uri("unstained-p", "1").startswith(here)
    assert client.get_experiment_by_name("unstained").artifact_location.startswith(here)
    used(new)
    assert capsys.readouterr().out == ""  # said once


def test_a_copied_clone_leaves_the_original_as_it_is(clone, tmp_path):
    root, run_id = clone
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    client = used(copy)
    assert client.get_run(run_id).info.artifact_uri.startswith(copy.as_uri())
    experiment = client.get_experiment_by_name("unstained").experiment_id
    client.log_text(client.create_run(experiment).info.run_id, "third", "new.txt")
    assert [path.name for path in (root / "mlruns").rglob("*.txt")] == ["kept.txt"]
    names = sorted(path.name for path in (copy / "mlruns").rglob("*.txt"))
    assert names == ["kept.txt", "new.txt"]
    assert [each.path for each in used(root).list_artifacts(run_id)] == ["kept.txt"]


def test_places_that_somebody_chose_are_left(clone, tmp_path):
    root, _ = clone
    used(root).create_experiment("other", artifact_location="s3://bucket/mlruns/artifacts")
    client = MlflowClient()
    kept = client.create_experiment("near", artifact_location=f"{root.as_uri()}-2/mlruns/x")
    new = tmp_path / "new"
    root.rename(new)
    client = used(new)
    assert (
        client.get_experiment_by_name("other").artifact_location == "s3://bucket/mlruns/artifacts"
    )
    assert client.get_experiment(kept).artifact_location == f"{root.as_uri()}-2/mlruns/x"


def test_no_store_and_no_database_are_left_to_the_stores_own_check(tmp_path):
    relocate(tmp_path / "mlflow.db")
    assert not (tmp_path / "mlflow.db").exists()
    (tmp_path / "mlflow.db").write_text("no database " * 100)
    assert recorded(tmp_path / "mlflow.db") is None


def test_a_locked_store_is_named_as_that(clone):
    root, _ = clone
    used(root)
    holder = sqlite3.connect(root / "mlruns" / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ServerError, match="is locked by another process") as error:
        server.require_store(mlflow.get_tracking_uri())
    assert "unset" not in str(error.value)
    holder.close()


def test_the_repositorys_own_store_is_named_and_what_to_do_with_it(clone, monkeypatch):
    """MLflow puts the store's address into MLFLOW_TRACKING_URI by itself: the user set nothing."""
    root, _ = clone
    used(root)
    monkeypatch.setattr(server, "MLRUNS", root / "mlruns")
    (root / "mlruns" / "mlflow.db").write_bytes(b"no database " * 100)
    with pytest.raises(ServerError, match=r"the MLflow store .*move it aside") as error:
        server.require_store(mlflow.get_tracking_uri())
    assert "unset" not in str(error.value) and "MLFLOW_TRACKING_URI" not in str(error.value)


@pytest.mark.parametrize(
    ("told", "why"),
    [("disk is full", "has no room"), ("readonly database", "may not be written by this user"),
     ("Detected out-of-date database schema (found version 1, but expected version 2)",
      "is of another version of MLflow.*copy it and run `mlflow db upgrade`")],
)  # fmt: skip
def test_what_sqlite_refuses_is_said_with_its_cure(clone, monkeypatch, told, why):
    used(clone[0])
    raised = MlflowException(f"(sqlite3.OperationalError) attempt to write, {told}")
    monkeypatch.setattr(MlflowClient, "search_experiments", raises(raised))
    with pytest.raises(ServerError, match=why) as error:
        server.require_store(mlflow.get_tracking_uri())
    assert "unset" not in str(error.value)


def raises(error):
    def refuse(*given, **more):
        raise error

    return refuse


def test_a_registry_from_elsewhere_is_ignored_aloud(clone, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{tmp_path}/other.db")
    assert [model.name for model in used(clone[0]).search_registered_models()] == ["unstained-p"]
    assert "other.db is ignored" in capsys.readouterr().out
    assert not (tmp_path / "other.db").exists()


def test_a_folder_that_ends_a_databases_address_is_refused(tmp_path):
    with pytest.raises(ServerError, match=r"rename the folder, without '\?'"):
        used(tmp_path / "cells?")
    assert list(tmp_path.iterdir()) == []


def test_a_run_id_from_elsewhere_is_ignored_aloud(clone, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef")
    used(clone[0])
    assert "MLFLOW_RUN_ID=0123456789abcdef is ignored" in capsys.readouterr().out
    with mlflow.start_run(experiment_id="1") as active:
        assert active.info.run_id != "0123456789abcdef"
