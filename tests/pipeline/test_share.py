"""An experiment goes to another clone, and out of the working tree, by the very lines of
docs/experiments.md.
"""

import shutil
from pathlib import Path

import pytest

from tests.pipeline.test_end_to_end import ROOT, run

GRAPH = """
stages:
  train:
    cmd: cp params.yaml models/model.txt && cp params.yaml metrics/train.yaml
    params: [lr]
    outs:
      - models/model.txt
      - metrics/train.yaml: {cache: false}
  evaluate:
    cmd: cp metrics/train.yaml reports/evaluate/page.txt
    deps: [models, metrics]
    outs: [reports/evaluate/page.txt]
"""
PAGE = ROOT / "docs" / "experiments.md"


@pytest.fixture(scope="module")
def pushed(tmp_path_factory) -> Path:
    """A folder with a bare repository `origin`, and a clone `one` that pushed its experiment
    `wider` as documented.
    """
    folder = tmp_path_factory.mktemp("share")
    run(folder, "git", "init", "-q", "--bare", "-b", "main", "origin")
    one = connected(folder, "one")
    run(one, "git", "checkout", "-q", "-B", "main")
    (one / "dvc.yaml").write_text(GRAPH)
    (one / "params.yaml").write_text("lr: 1\n")
    for name in ("models", "metrics", "reports/evaluate", "sources"):
        (one / name).mkdir(parents=True)
    (one / "sources" / "folder.csv").write_text("digest of one plate\n")
    run(one, "dvc", "repro", "-q")
    run(one, "git", "add", "-A")
    run(one, "git", "commit", "-qm", "first")
    run(one, "git", "push", "-q", "origin", "main")
    run(one, "dvc", "exp", "run", "-q", "-n", "wider", "-S", "lr=2")
    run(one, "sh", "-ec", documented("dvc exp push"))
    return folder


def connected(folder: Path, name: str) -> Path:
    """A clone of `origin` with this project's DVC settings and the documented remote, in a folder
    both can reach.
    """
    run(folder, "git", "clone", "-q", "origin", name)
    clone = folder / name
    run(clone, "git", "config", "user.name", "test")
    run(clone, "git", "config", "user.email", "test@test.invalid")
    if not (clone / ".dvc").exists():
        run(clone, "dvc", "init", "-q")
        shutil.copy(ROOT / ".dvc" / "config", clone / ".dvc" / "config")
    line = documented("dvc remote add --local --default shared")
    assert "/path/all/can/reach" in line
    run(clone, "sh", "-ec", line.replace("/path/all/can/reach", str(folder / "shared")))
    return clone


def documented(command: str) -> str:
    """The first line of the page that begins with that command."""
    return next(line for line in PAGE.read_text().splitlines() if line.startswith(command))


def test_the_files_lie_in_the_shared_folder(pushed):
    stored = [path.read_text() for path in (pushed / "shared").rglob("*") if path.is_file()]
    assert "lr: 2\n" in stored


def test_the_remote_is_committed_nowhere(pushed):
    assert "shared" not in (pushed / "one" / ".dvc" / "config").read_text()
    assert run(pushed / "one", "git", "status", "--porcelain", ".dvc") == ""


def test_another_clone_pulls_the_experiment_with_its_files(pushed):
    two = connected(pushed, "two")
    for command in ("dvc exp pull", "dvc exp apply"):
        run(two, "sh", "-ec", documented(command))
    assert (
        (two / "params.yaml").read_text() == (two / "models" / "model.txt").read_text() == "lr: 2\n"
    )


def test_going_back_undoes_an_experiment_that_brought_another_partition(pushed):
    row = next(line for line in PAGE.read_text().splitlines() if line.startswith("| go back"))
    one = pushed / "one"
    (one / "models" / "other.txt").write_text(
        "the model of a partition that only the experiment has"
    )
    (one / "metrics" / "other.json").write_text("{}")
    (one / "sources" / "folder.csv").write_text("digest of another plate\n")
    assert "changed" in run(one, "dvc", "status")
    run(one, "sh", "-ec", row.split("`")[1])
    assert (one / "models" / "model.txt").read_text() == "lr: 1\n"
    assert run(one, "git", "status", "--porcelain") == ""
    assert "up to date" in run(one, "dvc", "status")
