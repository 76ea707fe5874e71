"""The patch store gives back the pixels that were put in, in few bytes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.parquet import read_metadata

from src.common.patches.store import PatchStore, plan_shards
from src.common.tile import tables
from src.common.tile.measures import reduce_mean
from src.common.tile.tables import FieldTables
from src.common.workspace.errors import MissingInput
from tests.conftest import write_store


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    rng = np.random.default_rng(0)
    shapes = {"a": (70, 90), "b": (65, 61), "c": (130, 40), "d": (64, 64)}
    frames = {name: rng.integers(0, 256, shape).astype(np.uint8) for name, shape in shapes.items()}
    return write_store(tmp_path_factory.mktemp("mixed"), frames, limit=10_000), frames


def test_frames_of_mixed_sizes_come_back_equal(mixed):
    store, frames = mixed
    for name, frame in frames.items():
        np.testing.assert_array_equal(store.brightfield(name), frame)
    np.testing.assert_array_equal(store.window("c", 60, 3, 32), frames["c"][60:92, 3:35])


def test_pi_has_a_quarter_of_the_resolution(mixed):
    store, frames = mixed
    for name, frame in frames.items():
        assert store.pi(name).shape == (-(-frame.shape[0] // 4), -(-frame.shape[1] // 4))
        np.testing.assert_array_equal(store.pi(name), reduce_mean(frame))
    np.testing.assert_array_equal(store.pi_window("a", 16, 32, 32), store.pi("a")[4:12, 8:16])


def test_pixels_are_mapped_and_read_only(mixed):
    window = mixed[0].window("a", 0, 0, 16)
    with pytest.raises(ValueError, match="read-only"):
        window[0, 0] = 1


def test_disk_bytes_of_the_papers_frames(tmp_path):
    frames = {f"f{i}": np.full((1024, 1344), i, np.uint8) for i in range(3)}
    store = write_store(tmp_path, frames, limit=2**30)
    on_disk = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert on_disk <= 1.25 * 3 * 1024 * 1344
    assert store.brightfield("f2").mean() == 2


@given(st.lists(st.integers(1, 300), max_size=40), st.integers(1, 500))
def test_shards_hold_every_array_once_within_the_limit(areas, limit):
    shard, offset, sizes = plan_shards(areas, limit)
    assert sum(sizes) == sum(areas)
    assert all(size <= limit or shard.count(i) == 1 for i, size in enumerate(sizes))
    ends = {}
    for number, start, area in zip(shard, offset, areas):
        assert start == ends.get(number, 0)
        ends[number] = start + area


def test_a_missing_store_says_what_to_run(tmp_path):
    with pytest.raises(MissingInput, match="dvc repro"):
        PatchStore(tmp_path)


def test_pi_over_background_comes_back_with_what_is_absent_and_what_is_clipped(tmp_path):
    frame = np.full((66, 90), 50, np.uint8)
    write_store(tmp_path, {"a": frame, "b": frame + 1})
    shard = np.load(tmp_path / "pi_ratio-000.npy", mmap_mode="r+")
    shard[17 * 23 :][:3] = [np.nan, -7.5, 2.25]
    store = PatchStore(tmp_path)
    ratio, clipped = store.pi_ratio("b"), store.pi_clipped("b")
    assert ratio.shape == (17, 23) and ratio.dtype == np.float32
    np.testing.assert_array_equal(ratio[0, :3], [np.nan, 7.5, 2.25])
    assert clipped.sum() == 1 and clipped[0, 1]


def test_a_store_leaves_the_fingerprints_of_its_fields_on_disk(tmp_path):
    write_store(tmp_path, {"a": np.full((66, 90), 50, np.uint8)})
    frames = pd.read_parquet(tmp_path / "frames.parquet")
    frames.assign(phash_corners=[bytes(72)]).to_parquet(tmp_path / "frames.parquet")
    assert list(PatchStore(tmp_path).frames) == list(frames)


def test_nuclei_come_back_as_shares_and_not_at_all_without_a_mask(tmp_path):
    frame = np.full((66, 90), 50, np.uint8)
    write_store(tmp_path, {"a": frame, "b": frame + 1})
    frames = pd.read_parquet(tmp_path / "frames.parquet").assign(nuclei=[False, True])
    frames.to_parquet(tmp_path / "frames.parquet")
    shares = np.zeros(2 * 17 * 23, np.uint8)
    shares[17 * 23 :][:2] = [255, 51]
    np.save(tmp_path / "nuclei-000.npy", shares)
    store = PatchStore(tmp_path)
    assert store.nuclei("a") is None and store.nuclei("b").shape == (17, 23)
    np.testing.assert_allclose(store.nuclei("b")[0, :3], [1, 0.2, 0])


def fields(count: int) -> tuple[pd.DataFrame, list[dict], list[pd.DataFrame]]:
    """Rows of images.csv, what was found of each field, and its windows; a well is known of one
    field, a compound of none.
    """
    images = pd.DataFrame({"image_id": [f"f{n}" for n in range(count)], "brightfield": "b"})
    unknown = {"compound": pd.Series([np.nan] * count, dtype="str"), "concentration": np.nan}
    wells = pd.Series(["A1", *[np.nan] * (count - 1)], dtype="str")
    images = images.assign(
        pi="p",
        nuclei="",
        partition="arm",
        experiment="one",
        well=wells,
        position="",
        time=0.5,
        day=4,
        **unknown,
    )
    found = [{"shard": n, "pi_floor": n / 2, "phash_layout": bytes([n])} for n in range(count)]
    windows = [
        pd.DataFrame({"y": range(n % 3 + 1), "x": 0, "size": 64, "mean_pi": 0.5}).astype(
            {"y": "int32"}
        )
        for n in range(count)
    ]
    return images, found, windows


def written(folder: Path, count: int) -> dict[str, pd.DataFrame]:
    folder.mkdir()
    images, found, windows = fields(count)
    made = FieldTables(folder, images)
    for one in zip(found, windows, strict=True):
        made.put(*one)
    assert not list(folder.glob("*.parquet"))  # half a table has no name of a whole one
    made.close()
    return {n: pd.read_parquet(folder / f"{n}.parquet") for n in ("frames", "patches")}


def test_tables_by_row_groups_hold_what_they_hold_at_once(tmp_path, monkeypatch):
    whole = written(tmp_path / "whole", 8)
    assert whole["frames"]["phash_layout"].tolist() == [bytes([n]) for n in range(8)]
    assert whole["patches"]["patch_id"].tolist()[:3] == ["f0:0:0:64", "f1:0:0:64", "f1:1:0:64"]
    assert whole["patches"]["well"].notna().sum() == 1
    monkeypatch.setattr(tables, "FIELDS", 3)
    parts = written(tmp_path / "parts", 8)
    for name, table in parts.items():
        assert read_metadata(tmp_path / "parts" / f"{name}.parquet").num_row_groups == 3
        pd.testing.assert_frame_equal(table, whole[name])
