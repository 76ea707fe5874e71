"""A stage that fails leaves one FAILED run with the reason, and prints and exits as alone; a good
one leaves none.
"""

import os
import runpy
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from src.common.tracking import runs as tracking
from src.common.tracking import server
from src.common.workspace.tables import MissingInput
from src.stages import __main__ as runner

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def client(store, monkeypatch) -> MlflowClient:
    """An MLflow store away from the repository, without runs."""
    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    monkeypatch.setattr(tracking, "failed", set())
    mlflow.set_tracking_uri(store)
    found = tracking.connect()
    yield found
    for run in runs(found):
        found.delete_run(run.info.run_id)
    mlflow.set_tracking_uri(before)


@pytest.fixture
def stage(monkeypatch):
    """Runs `STAGE ITEM` whose work is `body`; returns the exit code."""

    def go(body, *arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["runner", *arguments])
        monkeypatch.setattr(runpy, "run_module", lambda *given, **options: body())
        with pytest.raises(SystemExit) as ended:
            runner.main()
        return ended.value.code

    return go


def raises(error: BaseException):
    def body():
        raise error

    return body


def runs(client: MlflowClient) -> list[Run]:
    return client.search_runs([client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id])


def test_a_users_mistake_is_printed_and_recorded(client, stage, capsys, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "idea")
    message = "error: evaluate no_treatment: models/no_treatment/model.json does not exist"
    assert stage(raises(SystemExit(message)), "evaluate", "no_treatment") == 1
    printed = capsys.readouterr().err
    assert printed.startswith(message) and "Traceback" not in printed
    (run,) = runs(client)
    assert (run.info.status, run.info.run_name) == (
        "FAILED",
        "idea: evaluate no_treatment (failed)",
    )
    assert run.info.run_id in printed and run.info.start_time <= run.info.end_time
    tags = run.data.tags
    assert (tags["failure"], tags["stage"], tags["partition"]) == (
        message,
        "evaluate",
        "no_treatment",
    )
    assert tags["dvc_exp"] == "idea" and "git_revision" in tags and message in tags[tracking.NOTE]


def test_a_crash_is_recorded_with_its_last_lines(client, stage, capsys):
    def overflow():
        raise MemoryError("no room for this field")

    assert stage(overflow, "check", "raw") == 1
    assert "Traceback" in capsys.readouterr().err
    (run,) = runs(client)
    assert run.info.run_name == "check raw (failed)" and run.data.tags["artifact"] == "raw"
    reason = run.data.tags["failure"]
    assert reason.startswith("MemoryError: no room for this field\n") and "in overflow" in reason


def test_a_stage_without_an_item_and_a_long_reason(client, stage):
    assert stage(raises(ValueError("x" * 100_000)), "tile") == 1
    (run,) = runs(client)
    assert run.info.run_name == "tile (failed)" and "partition" not in run.data.tags
    assert len(run.data.tags["failure"]) < 4000


def test_a_missing_file_of_an_earlier_stage_is_no_crash(client, stage, capsys):
    assert (
        stage(raises(MissingInput("data/raw/images.csv does not exist: run `dvc repro`")), "tile")
        == 1
    )
    assert capsys.readouterr().err.startswith(
        "error: tile: data/raw/images.csv does not exist: run `dvc repro`\n"
    )
    assert runs(client)[0].data.tags["failure"].startswith("error: tile: data/raw")


def test_success_leaves_nothing(client, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["runner", "tile"])
    monkeypatch.setattr(runpy, "run_module", lambda *given, **options: None)
    runner.main()
    assert not runs(client)


def test_an_exit_without_error_and_an_interruption_are_no_failures(client, stage, monkeypatch):
    assert not stage(raises(SystemExit(0)), "tile")
    with pytest.raises(KeyboardInterrupt):
        stage(raises(KeyboardInterrupt()), "tile")
    assert not runs(client)


def test_training_that_left_its_run_gets_no_second_one(client, stage):
    def train():
        try:
            with tracking.run("train", "p resnet18"):
                raise ValueError("one class only")
        except ValueError as error:
            sys.exit(f"error: train@p: {error}")

    assert stage(train, "train", "p") == 1
    (run,) = runs(client)
    assert (run.info.status, run.info.run_name) == ("FAILED", "p resnet18")


def test_training_that_failed_before_its_run_gets_one_from_the_leader_alone(
    client, stage, monkeypatch
):
    gate = SystemExit("error: the gate splits failed")
    with monkeypatch.context() as worker:
        worker.setattr(runner, "leads", lambda: False)
        assert stage(raises(gate), "train", "p") == 1
    assert not runs(client)
    monkeypatch.setattr(runner, "leads", lambda: True)
    assert stage(raises(gate), "train", "p") == 1
    assert [run.info.run_name for run in runs(client)] == ["train p (failed)"]


def test_tracking_that_fails_or_hangs_hides_nothing(client, stage, monkeypatch, capsys):
    def refuse():
        raise OSError("the disk is full")

    monkeypatch.setattr(tracking, "connect", refuse)
    assert stage(raises(SystemExit("error: mine")), "tile") == 1
    assert (
        capsys.readouterr().err == "error: mine\nnote: not recorded in MLflow: the disk is full\n"
    )
    forever = threading.Event()
    monkeypatch.setattr(tracking, "connect", forever.wait)
    monkeypatch.setattr(runner, "PATIENCE", 0.1)
    assert stage(raises(SystemExit("error: mine")), "tile") == 1
    forever.set()
    assert capsys.readouterr().err.startswith(
        "error: mine\nnote: not recorded in MLflow: it did not answer"
    )


def test_a_server_that_failed_the_stage_is_not_asked_again(client, stage, monkeypatch, capsys):
    monkeypatch.setattr(tracking, "connect", lambda: pytest.fail("asked again"))
    assert (
        stage(raises(server.ServerError("the MLflow server does not answer")), "evaluate", "p") == 1
    )
    assert capsys.readouterr().err == "the MLflow server does not answer\n"


def test_the_command_of_dvc_runs_a_stage_as_its_module_and_records_its_crash(
    client, store, tmp_path
):
    shutil.copytree(REPO / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "src" / "stages" / "act.py").write_text(
        "import sys, __main__\n"
        "from ..common import paths\n"
        "def work():\n    print(sys.argv[1:], __main__.__spec__.name)\n    return 1 / len(sys.argv[2:])\n"
        "if __name__ == '__main__':\n    work()\n"
    )
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def act(*arguments: str) -> subprocess.CompletedProcess:
        command = ["sh", "src/run", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    good = act("act", "p", "q")
    assert (good.returncode, good.stdout) == (0, "['p', 'q'] src.stages.act\n") and not runs(client)
    bad = act("act", "p")
    assert bad.returncode == 1 and "ZeroDivisionError: division by zero" in bad.stderr
    (run,) = runs(client)
    assert run.info.run_name == "act p (failed)" and "in work" in run.data.tags["failure"]
    unknown = act("nonsense")
    assert (
        unknown.returncode == 1
        and unknown.stderr == "error: there is no stage 'nonsense': src/stages has a file of each\n"
    )
