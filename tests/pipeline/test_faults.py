"""Planted faults: killed, a disk that is full, a file that vanishes; the next run is as if nothing
had happened.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import yaml

from src.common.acquire import digests, intake
from tests.conftest import REPO
from tests.pipeline.test_acquire import Plant, tree

CRASHED = 7


@pytest.fixture
def plant(tmp_path, monkeypatch) -> Plant:
    made = Plant(tmp_path, monkeypatch)
    for name in "abcd":
        made.add(name)
    return made


def in_child(call: Callable[[], object]) -> int:
    """Runs a call in a process of its own; returns how that ended, as os.waitpid says."""
    child = os.fork()
    if child == 0:
        try:
            call()
        except BaseException:
            os._exit(CRASHED)
        os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("point", ["first image", "last image", "table", "facts"])
def test_acquire_killed_at_any_point_is_repeated_as_if_undisturbed(plant, monkeypatch, point):
    plant.run()
    undisturbed = tree(plant.raw)
    count = {"first image": 1, "last image": 8, "table": 1, "facts": 1}[point]
    place = {"table": "pandas.DataFrame.to_csv", "facts": "json.dumps"}
    name = place.get(point, "src.common.acquire.intake.write_tiff")
    calls = []

    def dies(*arguments, **options):
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(*arguments, **options)

    write = intake.write_tiff
    with monkeypatch.context() as patch:
        patch.setattr(name, dies)
        assert os.WTERMSIG(in_child(plant.run)) == signal.SIGKILL
    assert not (plant.raw / "source.json").exists()  # what says that the folder is whole
    plant.run()
    assert tree(plant.raw) == undisturbed


TILE_KILLED = """
import os, signal, sys
from pathlib import Path
import pandas as pd
from src.common.patches import store
from src.common.workspace import params
from src.stages import tile

root, point = Path(sys.argv[1]), sys.argv[2]
tile.RAW, tile.PATCHES = root / "data/raw", root / "data/patches"
tile.load = lambda *names: params.load(*names, path=root / "params.yaml")
points = {"third frame": ("put", 7), "frames": ("to_parquet", 1), "patches": ("to_parquet", 2)}
name, count = points.get(point, ("", 0))
kind = store.ShardWriter if name == "put" else pd.DataFrame
calls, write = [], getattr(kind, name, None)

def dies(*arguments, **options):
    calls.append(1)
    if len(calls) == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(*arguments, **options)

if name:
    setattr(kind, name, dies)
tile.main()
"""


@pytest.mark.parametrize("point", ["third frame", "frames", "patches"])
def test_tile_killed_at_any_point_is_repeated_as_if_undisturbed(plant, point):
    plant.set("tile", workers=1)
    plant.run()
    (plant.root / "params.yaml").write_text(yaml.safe_dump(plant.sections))

    def tiled(point: str) -> int:
        command = [sys.executable, "-c", TILE_KILLED, plant.root, point]
        return subprocess.run(command, cwd=REPO).returncode

    assert tiled(point) == -signal.SIGKILL
    patches = plant.root / "data/patches"
    assert not (patches / "patches.parquet").exists()  # written last: the folder is not whole
    assert tiled("") == 0
    repeated = tree(patches)
    shutil.rmtree(patches)
    assert tiled("") == 0 and tree(patches) == repeated


def test_acquire_on_a_full_disk_ends_and_is_repeated_when_there_is_room(plant):
    plant.run()
    undisturbed = tree(plant.raw)

    def cramped():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # smaller than one image
        plant.run()

    assert os.WEXITSTATUS(in_child(cramped)) == CRASHED
    assert not (plant.raw / "source.json").exists()
    plant.run()
    assert tree(plant.raw) == undisturbed


def test_a_file_that_vanishes_after_it_was_listed_is_named(plant, capsys):
    digests.refresh(plant.dataset)
    (plant.images / plant.rows[1]["pi"]).unlink()
    with pytest.raises((SystemExit, ValueError), match=f"removed: {plant.rows[1]['pi']}"):
        plant.run()
    assert not plant.raw.exists()  # refused before the work


def test_a_list_of_digests_cut_off_while_it_was_written_is_refused(plant):
    written = digests.refresh(plant.dataset)
    whole = written.read_bytes()
    for size in (len(whole) // 2, len(whole) - 3):
        written.write_bytes(whole[:size])
        with pytest.raises((SystemExit, ValueError), match="folder"):
            plant.run()
