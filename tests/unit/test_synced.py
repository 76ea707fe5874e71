"""A sync with nothing to do is told without MLflow; whatever it reads, and the store, brings it."""

import os
import subprocess
from types import SimpleNamespace

import pytest

from src.common.register import synced
from src.common.tracking import origin
from tests.unit.test_imports import TRAINING, brought_by


@pytest.fixture
def tree(monkeypatch, tmp_path) -> SimpleNamespace:
    """A workspace that was synced once; `asked` counts the full syncs, which find `whole`."""
    tree = SimpleNamespace(root=tmp_path, asked=0, whole=True)

    store = tmp_path / "mlflow.db", tmp_path / "artifacts"

    def sync_all() -> bool:
        tree.asked += 1
        for path in store:
            path.write_text("more of it")  # what it lacked
        return tree.whole

    folders = [tmp_path / name for name in ("metrics", "models", "reports", "src")]
    singles = [tmp_path / name for name in ("params.yaml", "dvc.lock", "libraries")]
    for path in [*(folder / "file.py" for folder in folders), *singles, *store]:
        path.parent.mkdir(exist_ok=True)
        path.write_text("same")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    monkeypatch.setattr(synced, "FOLDERS", folders)
    monkeypatch.setattr(synced, "SINGLE", singles)
    monkeypatch.setattr(synced, "STORE", store)
    monkeypatch.setattr(synced, "LAST", tmp_path / "synced.json")
    monkeypatch.setattr(origin, "WORKSPACE", tmp_path)
    monkeypatch.setattr("src.common.register.sync.sync_all", sync_all)
    synced.sync()
    return tree


def test_with_nothing_changed_mlflow_is_not_asked(tree, capsys):
    synced.sync()
    assert tree.asked == 1 and "nothing has changed" in capsys.readouterr().out


def test_it_starts_without_mlflow():
    assert not brought_by("src.common.register.synced") & (TRAINING | {"pandas"})


@pytest.mark.parametrize("name", [
    "metrics/file.py", "models/file.py", "reports/file.py", "src/file.py", "params.yaml",
    "dvc.lock", "libraries", "mlflow.db", "artifacts",
])  # fmt: skip
@pytest.mark.parametrize("how", ["written", "replaced by one of the same size", "gone"])
def test_any_change_of_what_it_reads_asks_again(tree, name, how):
    path = tree.root / name
    seen = path.stat()
    path.rename(tree.root / "before")
    if how != "gone":
        path.write_text("more" if how.startswith("replaced") else "longer")
    if how.startswith("replaced"):  # as DVC links it from its cache
        os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    synced.sync()
    assert tree.asked == 2


def test_a_new_experiment_in_git_asks_again(tree):
    who = ("-c", "user.name=t", "-c", "user.email=t@t.invalid")
    for command in (["init", "-q"], ["commit", "-qm", "x", "--allow-empty"]):
        subprocess.run(["git", *who, *command], cwd=tree.root, check=True)
    synced.sync()
    before = tree.asked
    new = ["git", "update-ref", "refs/exps/ab/cd/name", "HEAD"]
    subprocess.run(new, cwd=tree.root, check=True)
    synced.sync()
    assert tree.asked == before + 1


def test_a_server_is_always_asked(tree, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    synced.sync()
    assert tree.asked == 2


@pytest.mark.parametrize("text", ["", '[["cut off'])
def test_a_note_that_was_cut_off_asks_again(tree, text):
    (tree.root / "synced.json").write_text(text)
    synced.sync()
    synced.sync()
    assert tree.asked == 2


def test_what_lacked_something_is_said_again(tree):
    (tree.root / "params.yaml").write_text("changed")
    tree.whole = False
    synced.sync()
    synced.sync()
    assert tree.asked == 3
