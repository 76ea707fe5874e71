"""Planted faults: killed, a disk that is full, a file that vanishes; the next run is as if nothing
had happened.
"""

import os
import sys

import numpy as np
import pytest

from src.common.acquire import digests
from src.common.patches.store import ShardWriter
from src.stages import __main__ as runner
from src.stages import acquire, tile
from tests.kill import killed, on_a_disk
from tests.pipeline.test_acquire import Plant, tree


@pytest.fixture
def plant(tmp_path, monkeypatch) -> Plant:
    made = Plant(tmp_path, monkeypatch)
    for name in "abcd":
        made.add(name)
    return made


@pytest.mark.parametrize(
    ("place", "count"),
    [
        ("src.common.acquire.intake:write_tiff", 1),
        ("src.common.acquire.intake:write_tiff", 8),
        ("pandas:DataFrame.to_csv", 1),
        ("json:dumps", 1),
    ],
)
def test_acquire_killed_at_any_point_is_repeated_as_if_undisturbed(plant, place, count):
    plant.run()
    undisturbed = tree(plant.raw)
    killed(plant.run, place, count)
    assert not (plant.raw / "source.json").exists()  # what says that the folder is whole
    plant.run()
    assert tree(plant.raw) == undisturbed


@pytest.mark.parametrize(
    ("place", "count"),
    [
        ("src.common.patches.store:ShardWriter.put", 7),
        ("src.common.tile.tables:_Rows.add", 1),
        ("src.common.tile.tables:_Rows.add", 2),
        ("src.common.tile.tables:_Rows.close", 1),
        ("src.common.tile.tables:_Rows.close", 2),
    ],
)
def test_tile_killed_at_any_point_is_repeated_as_if_undisturbed(plant, monkeypatch, place, count):
    plant.set("tile", workers=1)
    plant.run()
    patches = plant.root / "data/patches"
    monkeypatch.setattr(tile, "RAW", plant.raw)
    monkeypatch.setattr(tile, "PATCHES", patches)
    monkeypatch.setattr(tile, "load", acquire.load)
    tile.main()
    undisturbed = tree(patches)
    killed(tile.main, place, count)
    assert not (patches / "patches.parquet").exists()  # written last: the folder is not whole
    tile.main()
    assert tree(patches) == undisturbed


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Runs `STAGE` in a process for which an empty disk lies over a folder; returns its exit code
    and what it said on standard error.
    """
    told = tmp_path / "stderr"
    monkeypatch.setattr(runner, "WRITTEN", [tmp_path / "data"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")

    def go(name, folder, room, writable=True) -> tuple[int, list[str]]:
        def run():
            sys.argv = ["runner", name]
            sys.stderr = told.open("w", buffering=1)
            try:
                runner.main()
            except SystemExit as ended:
                os._exit(ended.code)

        status = on_a_disk(folder, run, room, writable)
        assert os.WIFEXITED(status), f"ended by signal {os.WTERMSIG(status)}"
        said = [line for line in told.read_text().splitlines() if line.startswith("error: ")]
        assert "Traceback" not in told.read_text()
        return os.WEXITSTATUS(status), said

    return go


def test_acquire_on_a_full_disk_is_one_line_and_repeated_when_there_is_room(plant, stage):
    plant.run()
    undisturbed = tree(plant.raw)
    code, (said,) = stage("acquire", plant.root / "data", "32k")
    assert code == 1 and "acquire" in said and "No space left" in said
    plant.run()
    assert tree(plant.raw) == undisturbed


def test_a_folder_that_is_read_only_is_one_line_that_names_it(plant, stage):
    code, (said,) = stage("acquire", plant.root / "data", "1m", writable=False)
    assert code == 1 and "Read-only file system" in said and str(plant.raw) in said
    plant.run()
    assert (plant.raw / "source.json").exists()


def test_shards_ask_for_their_room_before_anything_is_written(tmp_path):
    """A sparse file on a full disk ends the process by SIGBUS, with no word of why."""

    def shards():
        with pytest.raises(OSError, match="No space left on device"):
            ShardWriter(tmp_path / "full", "brightfield", [2**20])

    assert on_a_disk(tmp_path / "full", shards, "64k") == 0
    writer = ShardWriter(tmp_path, "brightfield", [100, 7], np.float16)
    writer.put(1, 2, np.arange(5, dtype=np.float16))
    writer.close()
    assert np.load(tmp_path / "brightfield-001.npy").tolist() == [0, 0, 0, 1, 2, 3, 4]
    assert np.load(tmp_path / "brightfield-000.npy").shape == (100,)


def test_a_file_that_vanishes_between_listing_and_reading_is_rejected_by_name(plant, monkeypatch):
    gone, read_fields = plant.images / plant.rows[1]["pi"], acquire.read_fields

    def meanwhile(*arguments):
        gone.unlink()
        return read_fields(*arguments)

    monkeypatch.setattr(acquire, "read_fields", meanwhile)
    images, rejected = plant.run()
    assert images["image_id"].tolist() == ["a", "c", "d"]
    assert rejected[["image_id", "file"]].to_numpy().tolist() == [["b", gone.name]]
    assert rejected["reason"][0].startswith("missing file"), rejected["reason"][0]


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
