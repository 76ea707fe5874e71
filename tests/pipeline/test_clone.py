"""How people come by the repository: clones with other line ends, shallow ones, ZIP downloads."""

import os
import shutil
import subprocess

import pytest

from tests.conftest import REPO


def sh(command: str, cwd, **environment) -> subprocess.CompletedProcess:
    # the suite itself runs under `make test`, whose flags a make of its own would take over
    ours = ("DVC_", "MAKE", "MFLAGS")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return subprocess.run(
        command, shell=True, cwd=cwd, capture_output=True, text=True, check=False,
        env=clean | environment,
    )  # fmt: skip


@pytest.fixture
def origin(tmp_path):
    """A repository of two commits with the line-end rules and the runner of this one."""
    root = tmp_path / "origin"
    (root / "src").mkdir(parents=True)
    (root / "annotations").mkdir()
    for name in (".gitattributes", "src/run", "params.yaml"):
        shutil.copy(REPO / name, root / name)
    (root / "annotations" / "lab.csv").write_bytes(b"image_id,y,x\r\na,0,0\r\n")
    git = "git -c user.name=t -c user.email=t@localhost"
    done = sh(f"git init -q && git add -A && {git} commit -qm 1 && "
              f"{git} commit -q --allow-empty -m 2", root)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("setting", ["true", "input", "false"])
def test_line_ends_stay_whatever_git_is_set_to(origin, tmp_path, setting):
    done = sh(f"git clone -q -c core.autocrlf={setting} {origin} copy", tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("src/run", "params.yaml", "annotations/lab.csv"):
        assert (tmp_path / "copy" / name).read_bytes() == (origin / name).read_bytes(), name


@pytest.mark.parametrize(("depth", "stops"), [("--depth 1", True), ("", False)])
def test_a_copy_of_a_shallow_clone_stops_before_the_work(origin, tmp_path, depth, stops):
    assert not sh(f"git clone -q {depth} file://{origin} clone", tmp_path).returncode
    copy = tmp_path / "temporary"
    shutil.copytree(tmp_path / "clone" / "src", copy / "src")
    python = copy / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho works\n")
    python.chmod(0o755)
    done = sh("sh src/run acquire", copy, DVC_EXP_NAME="x", DVC_ROOT=str(tmp_path / "clone"))
    assert (done.returncode, done.stdout) == ((1, "") if stops else (0, "works\n"))
    assert ("fetch --unshallow" in done.stderr) == stops
    here = sh("sh src/run acquire", tmp_path / "clone", DVC_EXP_NAME="x",
              PATH=f"{python.parent}:{os.environ['PATH']}")  # fmt: skip
    assert here.stdout == "works\n"  # in the clone itself nothing is lost


def test_files_are_utf_8_whatever_the_locale(origin):
    python = origin / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho $PYTHONUTF8\n")
    python.chmod(0o755)
    assert sh("sh src/run acquire", origin, PYTHONUTF8="0").stdout == "1\n"


def test_a_page_of_runs_opens_in_a_folder_of_any_name(tmp_path):
    """`mlflow` gets the places of its store whole."""
    folder = tmp_path / "it's (1) & ü $HOME"
    (folder / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(REPO / "Makefile", folder)
    for name, does in (("mlflow", 'printf "%s\\n" "$@"'), ("python", ":")):
        (folder / ".venv" / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / ".venv" / "bin" / name).chmod(0o755)
    (folder / ".venv" / ".ready").touch()
    words = sh("make ui -o .venv/.ready", folder).stdout.splitlines()
    assert f"sqlite:///{folder}/mlruns/mlflow.db" in words and f"{folder}/mlruns/artifacts" in words


def test_a_download_without_git_stops_before_it_builds_anything(tmp_path):
    for name in ("Makefile", "requirements.txt", "requirements.lock", "pyproject.toml"):
        shutil.copy(REPO / name, tmp_path)
    done = sh("make repro", tmp_path)
    assert done.returncode == 2 and "no git clone" in done.stdout
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(("given", "said"), [("/fields", "/fields"), ("", "none at hand")])
def test_ci_says_which_real_fields_it_takes(tmp_path, given, said):
    (tmp_path / "clone" / ".ci").mkdir(parents=True)
    shutil.copy(REPO / ".ci" / "run", tmp_path / "clone" / ".ci" / "run")
    (tmp_path / "clone" / "Makefile").write_text("test:\n\t@echo tests $$UNSTAINED_MCF7\n")
    done = sh("bash .ci/run", tmp_path / "clone", UNSTAINED_MCF7=given)
    assert said in done.stdout.splitlines()[0]
    assert done.stdout.splitlines()[1].split() == ["tests", *([given] if given else [])]
