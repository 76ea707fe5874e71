"""The patch store: 8-bit frames end to end in few memory-mappable shards, and windows as rows of a
table.

Frames are stored once, so overlapping windows cost no bytes. PI is kept at a quarter of the
resolution, twice: in 8 bit for figures (pi-000.npy, ...), and over the field's background as
float16 to train on (pi_ratio-000.npy, ...; `tile.measures.ratio`), NaN where there are no counts
and negative where the camera clipped; and so is the share of nuclei, where masks name them
(nuclei-000.npy, ...; 255 is all). All shards are 1-D, frames in the order of frames.parquet:
`offset` counts pixels of the bright-field, `pi_offset` those of the reduced shards of the same
number.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pyarrow.parquet import read_schema

from ..workspace.paths import existing
from ..workspace.tables import read_table

PI_REDUCTION = 4  # PI is kept at a quarter of the resolution: 1.2 um a pixel of the real fields
SHARD_BYTES = 256 * 2**20  # few files, as DVC likes them, yet many enough to move in parallel


class PatchStore:
    """Read access to data/patches: `frames` (DataFrame by image_id), tables of windows, and pixels
    as memory maps.
    """

    def __init__(self, directory: Path):
        self.directory = Path(directory)
        self._shards: dict[str, np.ndarray] = {}
        path = existing(self.directory / "frames.parquet")
        # Fingerprints, 34 kB a field, are for the gates alone
        columns = [name for name in read_schema(path).names if not name.startswith("phash_")]
        self.frames = pd.read_parquet(path, columns=columns).set_index("image_id", drop=False)
        # Faster than .loc
        self._facts = {frame.image_id: frame for frame in self.frames.itertuples(index=False)}

    def patches(self, partitions: Sequence[str]) -> pd.DataFrame:
        """The table of windows of the named partitions."""
        return read_table(self.directory / "patches.parquet", partitions)

    def brightfield(self, image_id: str) -> np.ndarray:
        """The (H, W) uint8 bright-field frame, read only."""
        frame = self._facts[image_id]
        return self._view(
            f"brightfield-{frame.shard:03d}.npy", frame.offset, frame.height, frame.width
        )

    def pi(self, image_id: str) -> np.ndarray:
        """The (ceil(H/4), ceil(W/4)) uint8 PI frame, scaled between the frame's pi_low and pi_high
        counts.
        """
        return self._reduced("pi", image_id)

    def pi_ratio(self, image_id: str) -> np.ndarray:
        """PI over the field's background, means of 4 x 4 px: (ceil(H/4), ceil(W/4)) float32.

        NaN where a pixel has no count; a lower bound where `pi_clipped`.
        """
        return np.abs(self._reduced("pi_ratio", image_id)).astype(np.float32)

    def pi_clipped(self, image_id: str) -> np.ndarray:
        """Which of `pi_ratio`'s pixels hold clipped counts: (ceil(H/4), ceil(W/4)) bool."""
        return self._reduced("pi_ratio", image_id) < 0

    def nuclei(self, image_id: str) -> np.ndarray | None:
        """Share of nuclei by the field's mask, means of 4 x 4 px: (ceil(H/4), ceil(W/4)) float32;
        None of a field without a mask.
        """
        if not self._facts[image_id].nuclei:
            return None
        return self._reduced("nuclei", image_id) / np.float32(255)

    def window(self, image_id: str, y: int, x: int, size: int) -> np.ndarray:
        """The (size, size) uint8 bright-field window whose upper left corner is (y, x)."""
        return self.brightfield(image_id)[y : y + size, x : x + size]

    def pi_window(self, image_id: str, y: int, x: int, size: int) -> np.ndarray:
        """The same window of the reduced PI frame, (size // 4, size // 4) uint8."""
        y, x, size = y // PI_REDUCTION, x // PI_REDUCTION, size // PI_REDUCTION
        return self.pi(image_id)[y : y + size, x : x + size]

    def _reduced(self, name: str, image_id: str) -> np.ndarray:
        frame = self._facts[image_id]
        height, width = -(-frame.height // PI_REDUCTION), -(-frame.width // PI_REDUCTION)
        return self._view(f"{name}-{frame.shard:03d}.npy", frame.pi_offset, height, width)

    def _view(self, name: str, offset: int, height: int, width: int) -> np.ndarray:
        if name not in self._shards:
            self._shards[name] = np.asarray(np.load(existing(self.directory / name), mmap_mode="r"))
        return self._shards[name][offset : offset + height * width].reshape(height, width)


class ShardWriter:
    """Writes 1-D shards NAME-000.npy, ... of planned sizes, in memory that does not grow."""

    def __init__(self, directory: Path, name: str, sizes: Sequence[int], dtype: type = np.uint8):
        self._maps = [
            _reserved(directory / f"{name}-{i:03d}.npy", size, dtype)
            for i, size in enumerate(sizes)
        ]

    def put(self, shard: int, offset: int, frame: np.ndarray) -> None:
        """Copies an array of the shards' type to its planned place."""
        self._maps[shard][offset : offset + frame.size] = frame.ravel()

    def close(self) -> None:
        """Flushes and releases all shards."""
        for shard in self._maps:
            shard.flush()
        self._maps.clear()


def _reserved(path: Path, size: int, dtype: type) -> np.memmap:
    """A new memory map whose room is taken from the disk at once. Raises OSError on a full disk.

    Else the file is sparse, and writing to a page that the disk has no room for ends the process.
    """
    shard = np.lib.format.open_memmap(path, "w+", dtype, (size,))
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return shard


def plan_shards(
    areas: Sequence[int], limit: int = SHARD_BYTES
) -> tuple[list[int], list[int], list[int]]:
    """Places arrays of the given sizes into shards in order: (shard of each, offset of each, size
    of each shard).

    A shard takes arrays until it would pass `limit` bytes; one larger than that has a shard of its
    own.
    """
    shard, offset, sizes = [], [], []
    for area in areas:
        if not sizes or (sizes[-1] and sizes[-1] + area > limit):
            sizes.append(0)
        shard.append(len(sizes) - 1)
        offset.append(sizes[-1])
        sizes[-1] += area
    return shard, offset, sizes
