"""Planted faults: killed, a disk that is full, a file that vanishes; the next run is as if nothing
had happened.
"""

import os
import resource

import pytest

from src.common.acquire import digests
from src.stages import acquire, tile
from tests.kill import CRASHED, in_child, killed
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
        ("pandas:DataFrame.to_parquet", 1),
        ("pandas:DataFrame.to_parquet", 2),
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
