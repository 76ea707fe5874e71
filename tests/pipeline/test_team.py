"""The shared set-up from nothing: log-in, artifacts on S3, data from another clone; afterwards
nothing runs on.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from team import postgres
from team.settings import TeamError
from tests.pipeline.test_end_to_end import ROOT, clone, run

SERVERS = ("postgres: checkpointer", "rclone serve s3", "uvicorn", "honcho")
COUNT = """
import mlflow
from mlflow import MlflowClient
runs = mlflow.search_runs(experiment_names=["unstained"])
versions = {f"{v.name} {v.version}": v.run_id for v in MlflowClient().search_model_versions()}
print("COUNT", sorted(runs["run_id"]), sorted(runs["tags.stage"]), sorted(versions.items()))
"""
SCORE = """
import os, mlflow, numpy as np, pandas as pd
model = mlflow.pyfunc.load_model("models:/unstained-no_treatment@champion")
frame = np.random.default_rng(0).integers(500, 4000, (300, 260)).astype(np.uint16)
table = model.predict(pd.DataFrame({"image": [frame], "pixel_size_um": [0.3225]}))
print("WINDOWS", len(table), sorted(set(table["verdict"]) - {"cells", "empty", "unusable"}))
"""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def environment(directory: Path, ports: list[int]) -> dict[str, str]:
    """Variables by which `python -m team.start` uses a folder and ports of its own."""
    names = ("TEAM_MLFLOW_PORT", "TEAM_S3_PORT", "TEAM_POSTGRES_PORT")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TEAM_", "MLFLOW_"))}
    return kept | {"TEAM_DIR": str(directory), **dict(zip(names, map(str, ports)))}


def start(directory: Path, env: dict[str, str]) -> subprocess.Popen:
    """Starts the set-up, what it prints going to team.log beside its folder; returns when it says
    that it is ready.
    """
    log = directory.parent / "team.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "team.start"], cwd=ROOT, env=env, stdout=out, stderr=out
        )
    while "to connect" not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.2)
    return process


def client(directory: Path, name: str = "team") -> dict[str, str]:
    """The variables of a user's file."""
    lines = (directory / "clients" / f"{name}.env").read_text().splitlines()
    return dict(line.removeprefix("export ").split("=", 1) for line in lines)


def stop(process: subprocess.Popen, number: int = signal.SIGINT) -> list[psutil.Process]:
    """Ends the set-up as Ctrl-C does; returns those of its processes that still run, after ending
    them too.
    """
    family = psutil.Process(process.pid).children(recursive=True)
    running = " ".join(word for member in family for word in member.cmdline())
    assert [name for name in SERVERS if name not in running] == []
    process.send_signal(number)
    process.wait(timeout=60)
    left = [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    for survivor in left:
        survivor.kill()
    return left


@pytest.fixture(scope="module")
def team() -> Iterator[tuple[Path, dict[str, str]]]:
    """(state folder, variables of a user) of a set-up that runs, started from nothing."""
    try:
        postgres.binaries()
    except TeamError as error:
        pytest.skip(str(error))
    pytest.importorskip(
        "boto3", reason="MLflow's server needs boto3 for S3: install requirements.txt"
    )
    folder = Path(
        tempfile.mkdtemp(prefix="unstained-team-")
    )  # pytest's own folders shut out PostgreSQL's user
    folder.chmod(0o711)
    process = None
    try:
        process = start(folder / "state", environment(folder / "state", free_ports(3)))
        yield folder / "state", client(folder / "state")
        assert stop(process) == []
    finally:
        if process and process.poll() is None:
            stop(process, signal.SIGTERM)
        shutil.rmtree(folder)


def use_remote(tree: Path, variables: dict[str, str], credentials: str | Path = "") -> None:
    """Points a repository's DVC at the shared remote, as `dvc remote modify --local` does (the slow
    test calls it).
    """
    path = credentials or variables["TEAM_S3_CREDENTIALS"]
    remote = (
        "url = s3://dvc/unstained\n"
        f"endpointurl = {variables['TEAM_S3_URL']}\n"
        f"credentialpath = {path}\n"
    )
    (tree / ".dvc" / "config.local").write_text(
        f"[core]\nremote = team\n['remote \"team\"']\n{remote}"
    )


@pytest.fixture(scope="module")
def repository(team, tmp_path_factory) -> Path:
    """A small DVC repository whose default remote is the shared one."""
    tree = tmp_path_factory.mktemp("repository")
    run(tree, "git", "init", "-q")
    run(tree, "dvc", "init", "-q")
    (tree / "plate.txt").write_text("pixels")
    run(tree, "dvc", "add", "plate.txt")
    use_remote(tree, team[1])
    return tree


def test_a_run_and_its_artifact_go_through_the_server_to_s3(team, tmp_path):
    directory, variables = team
    code = """
import mlflow
mlflow.set_experiment("try")
with mlflow.start_run() as run:
    mlflow.log_metric("auc", 0.5)
    mlflow.log_text("a note", "notes/note.txt")
uri = run.info.artifact_uri
print("READ", mlflow.artifacts.load_text(f"{uri}/notes/note.txt"), uri.split(":")[0])
"""
    assert "READ a note mlflow-artifacts" in run(tmp_path, sys.executable, "-c", code, **variables)
    stored = list((directory / "s3" / "mlflow").rglob("note.txt"))
    assert [path.read_text() for path in stored] == ["a note"]


def test_files_pushed_to_s3_come_back(team, repository):
    run(repository, "dvc", "push")
    shutil.rmtree(repository / ".dvc" / "cache")
    (repository / "plate.txt").unlink()
    run(repository, "dvc", "pull")
    assert (repository / "plate.txt").read_text() == "pixels"
    assert list((team[0] / "s3" / "dvc" / "unstained").rglob("*"))


def test_a_wrong_s3_secret_is_refused(team, repository, tmp_path):
    wrong = tmp_path / "wrong.s3"
    wrong.write_text("[default]\naws_access_key_id = client\naws_secret_access_key = wrong\n")
    shutil.rmtree(repository / ".dvc" / "cache", ignore_errors=True)
    (repository / "plate.txt").unlink(missing_ok=True)
    use_remote(repository, team[1], wrong)
    try:
        assert "403" in run(repository, "dvc", "pull", ok=False)
    finally:
        use_remote(repository, team[1])


def test_whom_the_server_refuses_is_told_so_at_once(team):
    code = """
import os
from src.common.tracking import runs as tracking
for name, value in (("PASSWORD", "wrong"), ("USERNAME", "nobody"), ("URI", "http://127.0.0.1:1")):
    os.environ[f"MLFLOW_TRACKING_{name}"] = value
    try:
        tracking.connect()
    except ValueError as error:
        print("REFUSED", error)
"""
    printed = run(ROOT, sys.executable, "-c", code, **team[1])
    refused = [line for line in printed.splitlines() if line.startswith("REFUSED")]
    assert len(refused) == 3
    assert "refuses user 'team'" in refused[0] and "refuses user 'nobody'" in refused[1]
    assert "does not answer" in refused[2]


def test_secrets_are_generated_private_and_in_no_command_line(team):
    directory, _ = team
    known = json.loads((directory / "credentials.json").read_text())
    assert len(set(known.values())) == len(known) and min(map(len, known.values())) >= 24
    for name in ("credentials.json", "basic_auth.ini", "clients/team.env", "clients/team.s3"):
        assert (directory / name).stat().st_mode & 0o077 == 0, name
    lines = "\n".join(" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"]))
    assert str(directory) in lines
    logged = (directory.parent / "team.log").read_text()
    assert not [name for name, value in known.items() if value in lines or value in logged]


def test_nothing_comes_in_without_a_password(team):
    directory, _ = team
    code = """
import os, psycopg
port = os.environ["TEAM_POSTGRES_PORT"]
for user, database in (("postgres", "postgres"), ("mlflow", "mlflow")):
    try:
        psycopg.connect(f"host=127.0.0.1 port={port} user={user} dbname={database} password=guess")
        print("IN", user)
    except psycopg.OperationalError:
        print("OUT", user)
"""
    options = (directory / "postgres" / "postmaster.opts").read_text()
    port = options.split("port=")[1].split('"')[0]
    printed = run(directory, sys.executable, "-c", code, TEAM_POSTGRES_PORT=port)
    assert printed.split() == ["OUT", "postgres", "OUT", "mlflow"]


def test_a_taken_port_is_named(team):
    directory, variables = team
    port = int(variables["MLFLOW_TRACKING_URI"].rsplit(":", 1)[1])
    env = environment(directory, [port, *free_ports(2)])
    printed = run(ROOT, sys.executable, "-m", "team.start", ok=False, **env)
    assert f"port {port} for mlflow is taken" in printed and "Traceback" not in printed


@pytest.mark.slow
def test_the_documented_lines_take_the_graph_to_the_server_and_back(team, tmp_path):
    """A small plate through the graph; another clone pulls the data and loads the model."""
    directory, variables = team
    first, second, elsewhere = tmp_path / "first", tmp_path / "second", tmp_path / "elsewhere"
    clone(first)
    connect = [
        line
        for line in (ROOT / "docs" / "team.md").read_text().splitlines()
        if line.startswith("dvc remote") and "team" in line
    ]
    assert len(connect) == 3
    run(first, "sh", "-ec", "\n".join(connect), **variables)
    run(first, "dvc", "repro", **variables)
    run(first, "dvc", "push")
    run(first, "git", "add", "-A")
    run(first, "git", "commit", "-qm", "reproduced")
    secrets = [
        variables["MLFLOW_TRACKING_PASSWORD"],
        *json.loads((directory / "credentials.json").read_text()).values(),
    ]
    assert not [secret for secret in secrets if secret in run(first, "git", "log", "-p")]
    known = counted(first, variables)
    assert known.count("'train'") == 1 and "unstained-no_treatment 1" in known
    assert list((directory / "s3" / "mlflow").rglob("contract.json"))

    run(tmp_path, "git", "clone", "-q", str(first), str(second))
    run(second, "sh", "-ec", "\n".join(connect), **variables)
    run(second, "dvc", "pull")
    assert "Running stage" not in run(second, "dvc", "repro", **variables)
    run(second, sys.executable, "-m", "src.cli", "sync", **variables)
    assert counted(second, variables) == known
    assert not (second / "mlruns" / "mlflow.db").exists()

    elsewhere.mkdir()
    printed = run(
        elsewhere,
        sys.executable,
        "-c",
        SCORE,
        MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false",
        **variables,
    )
    assert "WINDOWS 4 []" in printed


def counted(tree: Path, variables: dict[str, str]) -> str:
    """Ids and stages of the runs on the server, and its model versions, as one line."""
    printed = run(tree, sys.executable, "-c", COUNT, **variables)
    return next(line for line in printed.splitlines() if line.startswith("COUNT"))
