"""The patch store gives back the pixels that were put in, in few bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.common.patches.store import PatchStore, plan_shards
from src.common.tile.measures import reduce_mean
from src.common.workspace.tables import MissingInput
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
