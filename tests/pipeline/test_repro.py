"""`unstained repro` on a small graph: what runs, in which order, and what a fault leaves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from src.repro import ReproError, environment, outdated, repro

# Two that wait for nobody, each of which ends only when the other has begun
MEET = """
import pathlib, sys, time
own, other = map(pathlib.Path, sys.argv[1:3])
own.write_text("here")
for _ in range(600):
    if other.exists():
        sys.exit()
    time.sleep(0.1)
sys.exit("alone")
"""
FIRST = {"cmd": "python meet.py left right", "outs": ["left"]}
SECOND = {"cmd": "python meet.py right left", "outs": ["right"]}


def run(jobs: int, root: Path) -> int:
    """Runs what is outdated; returns how many stages were."""
    stages = outdated(root)
    repro(stages, jobs, environment(jobs), root)
    return len(stages)


def both(extra: str = "") -> dict:
    return {"cmd": f"{extra}cat left right setting > both", "deps": ["left", "right", "setting"],
            "outs": ["both"]}  # fmt: skip


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """Writes a graph into a repository of its own; returns its folder."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def write(**stages) -> Path:
        if not (tmp_path / ".dvc").exists():
            subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
            subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True)
            (tmp_path / "meet.py").write_text(MEET)
            (tmp_path / "setting").write_text("1")
        (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
        return tmp_path

    return write


def test_what_waits_for_nobody_runs_side_by_side_and_only_what_changed_again(plant, capfd):
    last = {"cmd": "echo done && cat both > last", "deps": ["both"], "outs": ["last"]}
    root = plant(last=last, both=both(), first=FIRST, second=SECOND)
    assert run(2, root) == 4
    assert (root / "last").read_text() == "herehere1"
    said = capfd.readouterr().out
    assert said.index("both:") < said.index("last ...") and "  done\n" in said
    assert run(2, root) == 0
    (root / "setting").write_text("2")
    assert outdated(root) == {"both": set(), "last": {"both"}}
    assert run(1, root) == 2 and (root / "last").read_text() == "herehere2"
    status = [sys.executable, "-m", "dvc", "status"]
    told = subprocess.run(status, cwd=root, check=True, capture_output=True, text=True)
    assert "up to date" in told.stdout


def test_a_stage_that_fails_is_named_and_what_is_done_stays_done(plant, capfd):
    fails = {"cmd": "echo the reason && false", "deps": ["left"], "outs": ["never"]}
    after = {"cmd": "cat never > after", "deps": ["never"], "outs": ["after"]}
    root = plant(first=FIRST, second=SECOND, fails=fails, after=after)
    with pytest.raises(ReproError, match="fails: the lines above"):
        run(2, root)
    assert "the reason" in capfd.readouterr().out and not (root / "after").exists()
    assert outdated(root) == {"fails": set(), "after": {"fails"}}


def test_a_graph_that_dvc_cannot_read_is_one_line(plant):
    root = plant(one={"cmd": "true", "outs": ["one"]}, two={"cmd": "true", "outs": ["one"]})
    with pytest.raises(ReproError, match="DVC cannot say what changed"):
        run(1, root)


def test_threads_are_a_share_of_the_cores_unless_they_are_set(plant, monkeypatch):
    root = plant(one={"cmd": "echo $OMP_NUM_THREADS > one", "outs": ["one"]})
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    run(1, root)
    assert (root / "one").read_text() == "3\n"
    (root / "one").unlink()
    root = plant(one={"cmd": "echo $OMP_NUM_THREADS > ./one", "outs": ["one"]})
    monkeypatch.delenv("OMP_NUM_THREADS")
    run(os.cpu_count() or 1, root)
    assert (root / "one").read_text() == "1\n"


def test_beside_a_stage_that_takes_all_cores_nothing_begins(plant, capfd):
    took = {"cmd": "sleep 2; echo 1 > took", "outs": ["took"]}
    other = {"cmd": "echo 1 > other", "outs": ["other"]}
    run(2, plant(other=other, acquire=took))
    said = capfd.readouterr().out
    assert said.index("acquire:") < said.index("other ...")
