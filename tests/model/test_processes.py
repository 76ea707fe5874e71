"""Rounds side by side: the same models, one MLflow run, and nothing left behind however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from safetensors.torch import load_file

from src.common.train.processes import at_a_time
from tests.model.test_training import configure, params, runs, stage, three_folds, tree  # noqa: F401

FEW = "from src.common.train import rounds; rounds.at_a_time = lambda *asked: {}; "
RUN = 'from src.stages import __main__ as m; m.sys.argv = ["m", "train", "p"]; m.main()'
ROUNDS = ["fold-0", "fold-1", "fold-2", "final"]


def command(processes: int) -> list[str]:
    return ["-c", FEW.format(processes) + RUN]


def weights(tree: Path) -> dict[str, dict[str, torch.Tensor]]:  # noqa: F811
    model = tree / "models" / "p"
    return {str(p.relative_to(model)): load_file(p) for p in model.rglob("model.safetensors")}


def heeds_ctrl_c() -> None:
    """A job in the background of a shell ignores Ctrl-C, and hands that down to its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def started(tree):  # noqa: F811
    """The stage at work on two rounds at a time, in a process group of its own."""
    three_folds(tree)
    configure(tree, epochs=8)
    keep = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    with subprocess.Popen(
        [sys.executable, *command(2)], cwd=tree, env=keep | {"OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=heeds_ctrl_c,
    ) as process:  # fmt: skip
        seen = ""
        while "train: fold-1, epoch 0" not in seen or "train: fold-0, epoch 0" not in seen:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            seen += line
        yield process


@pytest.mark.slow
@pytest.mark.parametrize("target", ["label", "stain"])
def test_rounds_side_by_side_are_those_of_one_after_another(tree, target):  # noqa: F811
    three_folds(tree)
    configure(tree, {"target": target}, epochs=2)
    found = []
    for processes in (1, 3):
        done = stage(tree, *command(processes))
        assert done.returncode == 0, done.stderr
        found.append(weights(tree))
        history = pd.read_csv(tree / "reports" / "train" / "p" / "history.csv")
        assert history["round"].unique().tolist() == ROUNDS
    alone, beside = found
    assert alone.keys() == beside.keys() and len(alone) == 4
    for place, states in alone.items():
        assert all(torch.equal(value, beside[place][name]) for name, value in states.items())
    both = runs(tree)
    assert [run["status"] for run in both] == ["FINISHED"] * 2
    assert sorted(both[0]["epochs"]) == sorted(both[1]["epochs"])


def test_what_fails_in_one_round_is_one_line(tree):  # noqa: F811
    three_folds(tree)
    configure(tree, epochs=1, lr=1e30)
    failed = stage(tree, *command(2))
    assert failed.returncode == 1
    told = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and "train.lr is too high" in told[0]
    assert "Traceback" not in failed.stderr
    (run,) = runs(tree)
    assert run["status"] == "FAILED" and "train.lr is too high" in run["tags"]["failure"]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["kill", "terminate", "interrupt", "lose"])
def test_no_round_outlives_the_stage_which_goes_on_in_its_run(started, tree, ending):  # noqa: F811
    family = psutil.Process(started.pid).children(recursive=True)
    if ending == "interrupt":  # Ctrl-C reaches the whole group
        os.killpg(started.pid, signal.SIGINT)
    elif ending == "lose":  # as the system ends a process when memory runs out
        max(family, key=lambda child: child.memory_info().rss).kill()
    else:
        getattr(started, ending)()
    told = started.stderr.read()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    if ending != "kill":
        assert started.wait() == 1 and "the same command goes on" in told, told
        assert "Traceback" not in told
    (before,) = runs(tree)
    done = stage(tree, *command(2))
    assert done.returncode == 0, done.stderr
    (after,) = runs(tree)
    assert (after["id"], after["status"]) == (before["id"], "FINISHED")


def test_as_many_rounds_as_cores_have_threads_for(monkeypatch):
    monkeypatch.setattr("src.common.train.processes.cpu_count", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [at_a_time(params(), rounds) for rounds in (1, 2, 6)] == [1, 2, 2]
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert at_a_time(params(), 6) == 6
    assert at_a_time(params(layers="head"), 6) == at_a_time(params(devices=2), 6) == 1
