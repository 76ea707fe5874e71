"""A stage that fails leaves one FAILED run with the reason, and prints and exits as alone; a good
one leaves none.
"""

import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from src.common.scoring.networks.backbones import UnknownBackbone
from src.common.scoring.scorer import RefusedFrame
from src.common.tracking import runs as tracking
from src.common.workspace import room
from src.common.workspace.errors import MissingInput, ServerError, UserError
from src.common.workspace.params import ParamsError
from src.stages import __main__ as runner
from tests.conftest import mlflow_at

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def client(store, monkeypatch) -> MlflowClient:
    """An MLflow store away from the repository, without runs."""
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    with mlflow_at(store):
        found = tracking.connect()
        yield found
        for run in runs(found):
            found.delete_run(run.info.run_id)


@pytest.fixture
def stage(monkeypatch):
    """Runs `STAGE ITEM` whose work is `body`; returns the exit code."""

    def go(body, *arguments: str) -> int:
        work = SimpleNamespace(main=lambda *items: body())
        monkeypatch.setattr(sys, "argv", ["runner", *arguments])
        monkeypatch.setattr(runner, "import_module", lambda name: work)
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


REFUSALS = [MissingInput, ParamsError, UnknownBackbone, RefusedFrame, UserError]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_users_mistake_is_one_line_and_recorded(client, stage, capsys, monkeypatch, refusal):
    monkeypatch.setenv("DVC_EXP_NAME", "idea")
    assert stage(raises(refusal("model.json does not exist")), "evaluate", "no_treatment") == 1
    message, note = capsys.readouterr().err.splitlines()
    assert message == "error: evaluate@no_treatment: model.json does not exist"
    (run,) = runs(client)
    assert run.info.status == "FAILED" and run.info.start_time <= run.info.end_time
    assert run.info.run_name == "idea: evaluate no_treatment (failed)" and run.info.run_id in note
    tags = run.data.tags
    assert (tags["failure"], tags["stage"]) == (message, "evaluate")
    assert tags["partition"] == "no_treatment" and message in tags[tracking.NOTE]
    assert tags["dvc_exp"] == "idea" and "git_revision" in tags


def test_what_a_disk_refuses_is_one_line_that_names_the_file(client, stage, capsys, monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "data/raw/a.tif")
    assert stage(raises(full), "acquire") == 1
    told = "error: acquire: [Errno 28] No space left on device: 'data/raw/a.tif'"
    assert capsys.readouterr().err.splitlines()[0] == told
    assert stage(raises(RuntimeError("unexpected pos 576")), "tile") == 1  # PyTorch's, on any disk
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setattr(room, "LEAST", 2**63)
    assert stage(raises(RuntimeError("unexpected pos 576")), "tile") == 1
    (told, _) = capsys.readouterr().err.splitlines()
    assert told.startswith("error: tile: No space left on the disk of ")


def test_what_a_server_refuses_amid_a_stage_is_one_line(client, stage, capsys):
    failed = MlflowException("API request to http://mlflow/api failed: too many 500 errors")
    assert stage(raises(failed), "evaluate", "p") == 1
    (told, _) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"error: evaluate@p: {failed} (said by MLflow")


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),  # a worker's, without the file
     RuntimeError("autoflush\n(sqlite3.OperationalError) database or disk is full\n[SQL: ...]")],
)  # fmt: skip
def test_a_full_disk_is_one_line_also_where_room_is_left_again(client, stage, capsys, error):
    assert stage(raises(error), "acquire") == 1
    (told, _) = capsys.readouterr().err.splitlines()
    assert told.startswith("error: acquire: No space left on the disk: make room and repeat (")
    assert "full" in told or "No space left on device" in told


def test_an_exit_with_a_message_is_told_as_it_is(client, stage, capsys):
    assert stage(raises(SystemExit("error: training was interrupted")), "train", "p") == 1
    assert capsys.readouterr().err.startswith("error: training was interrupted\nnote: ")
    assert runs(client)[0].data.tags["failure"] == "error: training was interrupted"


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


@pytest.mark.parametrize("items", [[], ["p", "q"]])
def test_a_stage_without_its_item_says_what_it_wants(client, monkeypatch, capsys, items):
    monkeypatch.setattr(sys, "argv", ["runner", "train", *items])
    work = SimpleNamespace(main=lambda partition: pytest.fail("it ran"))
    monkeypatch.setattr(runner, "import_module", lambda name: work)
    monkeypatch.setattr(runner, "leads", lambda: True)
    with pytest.raises(SystemExit) as ended:
        runner.main()
    assert ended.value.code == 1
    told = f"wants PARTITION after the stage's name, not '{' '.join(items)}'"
    assert (
        capsys.readouterr().err.splitlines()[0] == f"error: {'@'.join(['train', *items])}: {told}"
    )


def test_success_leaves_nothing(client, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["runner", "tile"])
    monkeypatch.setattr(runner, "import_module", lambda name: SimpleNamespace(main=lambda: None))
    runner.main()
    assert not runs(client)


def test_an_exit_without_error_and_an_interruption_are_no_failures(client, stage, monkeypatch):
    assert not stage(raises(SystemExit(0)), "tile")
    with pytest.raises(KeyboardInterrupt):
        stage(raises(KeyboardInterrupt()), "tile")
    assert not runs(client)


def test_training_that_left_its_run_gets_no_second_one(client, stage):
    def train():
        with tracking.run("train", "p resnet18"):
            raise UserError("one class only")

    assert stage(train, "train", "p") == 1
    (run,) = runs(client)
    assert (run.info.status, run.info.run_name) == ("FAILED", "p resnet18")


def test_training_that_failed_before_its_run_gets_one_from_the_leader_alone(
    client, stage, monkeypatch
):
    gate = UserError("check@splits failed")
    with monkeypatch.context() as worker:
        worker.setattr(runner, "leads", lambda: False)
        assert stage(raises(gate), "train", "p") == 1
    assert not runs(client)
    monkeypatch.setattr(runner, "leads", lambda: True)
    assert stage(raises(gate), "train", "p") == 1
    assert [run.info.run_name for run in runs(client)] == ["train p (failed)"]


def test_tracking_that_fails_or_hangs_hides_nothing(client, stage, monkeypatch, capsys):
    def refuse():
        raise OSError("the disk is gone")

    monkeypatch.setattr(tracking, "connect", refuse)
    assert stage(raises(SystemExit("error: mine")), "tile") == 1
    assert (
        capsys.readouterr().err == "error: mine\nnote: not recorded in MLflow: the disk is gone\n"
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
    assert stage(raises(ServerError("the MLflow server does not answer")), "evaluate", "p") == 1
    told = "error: evaluate@p: the MLflow server does not answer\n"
    assert capsys.readouterr().err == told


ACT = """
import sys
from pathlib import Path
from ..common.workspace.paths import WORKSPACE
HERE = "{place}"
def main(*items):
    print(items, HERE, Path(__file__).parents[2] == WORKSPACE == Path.cwd())
    return 1 / (len(items) - 1)
"""


def tree_with_a_stage(folder: Path) -> Path:
    """A copy of the code with one more stage, `act`, which says where it is."""
    shutil.copytree(REPO / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "src" / "stages" / "act.py").write_text(ACT.format(place=folder.name))
    return folder


def act(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Runs a stage by the command that dvc.yaml has."""
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["sh", "src/run", *arguments]
    return subprocess.run(
        command, cwd=folder, env=os.environ | path | variables, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_the_command_of_dvc_runs_a_stage_and_records_its_crash(client, tmp_path):
    tree = tree_with_a_stage(tmp_path / "tree")
    good = act(tree, "act", "p", "q")
    assert (good.returncode, good.stdout) == (0, "('p', 'q') tree True\n") and not runs(client)
    bad = act(tree, "act", "p")
    assert bad.returncode == 1 and "ZeroDivisionError: division by zero" in bad.stderr
    (run,) = runs(client)
    assert run.info.run_name == "act p (failed)" and "in main" in run.data.tags["failure"]
    unknown = act(tree, "nonsense")
    told = "error: there is no stage 'nonsense': src/stages has a file of each\n"
    assert (unknown.returncode, unknown.stderr) == (1, told)


def test_a_temporary_copy_runs_its_own_code_with_the_python_of_the_repository(client, tmp_path):
    """As `dvc exp run --temp` does it: the copy has no .venv, and DVC_ROOT names the repository."""
    repository = tree_with_a_stage(tmp_path / "repository")
    (repository / ".venv").symlink_to(Path(sys.executable).parents[1])
    copy = tree_with_a_stage(tmp_path / "copy")
    done = act(copy, "act", "p", "q", DVC_ROOT=str(repository))
    assert (done.returncode, done.stdout) == (0, "('p', 'q') copy True\n"), done.stderr
