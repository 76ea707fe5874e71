"""Stages forked from a process that made their imports: they end as by themselves."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

REPO = Path(__file__).resolve().parents[2]
PROBE = """
import os, signal, sys, time
from joblib import Parallel, delayed
from ..common.workspace.errors import UserError

def twice(number):
    return 2 * number

def main(what):
    print("parent", os.getppid(), "torch" in sys.modules)
    print(os.environ.get("TOLD"), os.getcwd(), file=sys.stderr)
    if what == "fault":
        raise UserError("the reason")
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "many":
        print(Parallel(2)(delayed(twice)(number) for number in range(3)))
    if what == "long":
        print("at work", os.getpid(), flush=True)
        time.sleep(600)
"""
KEEP = """
import os, subprocess, sys, time
from pathlib import Path
from src.warm import PLACE, warmed
with warmed(os.environ) as env:
    while not Path(env[PLACE]).exists():
        time.sleep(0.1)
    print(env[PLACE], flush=True)
    sys.stdin.read()
"""


def start(tree: Path) -> tuple[subprocess.Popen, str]:
    """Whatever keeps the process, and the place where that answers."""
    env = environment()
    keeper = subprocess.Popen(
        [sys.executable, "-c", KEEP], cwd=tree, env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    return keeper, keeper.stdout.readline().strip()


def environment(**changes: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"} | changes


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("warm")
    shutil.copytree(REPO / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "params.yaml", root)
    (root / "src" / "stages" / "probe.py").write_text(PROBE)
    return root


@pytest.fixture(scope="module")
def place(tree):
    keeper, where = start(tree)
    yield where
    keeper.communicate("")
    assert keeper.returncode == 0 and not Path(where).exists()


def command(tree: Path, place: str, *words: str, **options) -> subprocess.Popen:
    """A stage's command, as DVC starts it."""
    return subprocess.Popen(
        ["sh", "src/run", *words], cwd=tree, env=environment(UNSTAINED_WARM=place, TOLD="a word"),
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["probe", "well"], 0, ""),
        (["probe", "fault"], 1, "error: probe@fault: the reason"),
        (["probe", "killed"], 1, "the stage's process was killed"),
        (["probe"], 1, "error: probe: wants WHAT after the stage's name"),
        (["nothing"], 1, "there is no stage 'nothing'"),
    ],
)
def test_a_stage_ends_as_by_itself(tree, place, words, code, said):
    with command(tree, place, *words) as stage:
        out, err = stage.communicate()
    assert stage.returncode == code and said in err, err
    if words == ["probe", "well"]:
        server, imported = out.split()[1:]
        assert imported == "True" and "src.warm" in " ".join(psutil.Process(int(server)).cmdline())
        assert err.splitlines() == [f"a word {tree}"]


def test_before_the_imports_are_made_a_stage_makes_its_own(tree, tmp_path):
    with command(tree, str(tmp_path / "not yet"), "probe", "well") as stage:
        out, err = stage.communicate()
    assert stage.returncode == 0 and out.split()[2] == "False" and "a word" in err


def test_a_stage_has_processes_of_its_own(tree, place):
    with command(tree, place, "probe", "many") as stage:
        out, err = stage.communicate()
    assert stage.returncode == 0 and "[0, 2, 4]" in out, err


@pytest.mark.parametrize("whose", ["command", "stage"])
def test_a_stage_ends_with_its_command_and_a_command_with_its_stage(tree, place, whose):
    with command(tree, place, "probe", "long", start_new_session=True) as stage:
        while "at work" not in (line := stage.stdout.readline()):
            assert line, stage.stderr.read()
        worker = psutil.Process(int(line.split()[-1]))
        if whose == "command":
            stage.kill()
        else:
            worker.send_signal(signal.SIGINT)
        stage.wait(10)
        assert stage.returncode
        worker.wait(10)


def test_the_process_ends_with_whoever_keeps_it(tree):
    keeper, where = start(tree)
    [server] = psutil.Process(keeper.pid).children()
    keeper.kill()
    keeper.wait()
    server.wait(10)
    shutil.rmtree(Path(where).parent)
