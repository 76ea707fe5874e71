"""What the filter's frozen backbone sees in windows: in blocks, here or on a Dask cluster."""

import tempfile
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from ..patches.store import PatchStore
from ..scoring.networks.inference import WINDOWS, WORTH_WINDOWS
from ..scoring.networks.net import Net
from ..scoring.networks.overview import compiled_filter, embed_seen, filter_net
from ..workspace.parallel import each

BLOCK = 512  # windows: sixteen batches, a few seconds of one core


def features(
    arch: str, weights: Path, sees: str, patches: Path, windows: pd.DataFrame
) -> np.ndarray:
    """Features (N, D) float32 of the windows of a table (image_id, y, x, size) of a patch store.

    sees: windows | frame. Blocks are the same wherever they are computed, and so are the results.
    They lie in a nameless file beside the store, half a megabyte an image, not in memory.
    """
    rows = _blocks(windows["size"].to_numpy())
    if sees == "frame":
        rows = list(windows.groupby(["image_id", "size"], sort=False).indices.values())
    version = weights.stat().st_mtime_ns, (patches / "frames.parquet").stat().st_mtime_ns
    opened = arch, weights, sees, patches, version, len(windows) >= WORTH_WINDOWS
    items = ((opened, windows.iloc[block][WINDOWS]) for block in rows)
    made = each(_block, items, 1, "embed", "block", len(rows))
    first = next(made)
    found = _on_disk((len(windows), first.shape[1]), patches.parent)
    for block, part in zip(rows, chain([first], made), strict=True):
        found[block] = part
    return found


def _on_disk(shape: tuple[int, int], folder: Path) -> np.memmap:
    """An array of float32 in a file of FOLDER that is gone with the array."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def _blocks(sizes: np.ndarray) -> list[np.ndarray]:
    """Row numbers in blocks of windows of one size."""
    of_size = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
    return [rows[i : i + BLOCK] for rows in of_size for i in range(0, len(rows), BLOCK)]


def _block(opened: tuple, windows: pd.DataFrame) -> np.ndarray:
    return embed_seen(*_opened(*opened), windows)


@lru_cache(maxsize=1)
def _opened(
    arch: str, weights: Path, sees: str, patches: Path, _: tuple[int, int], many: bool
) -> tuple[Net, PatchStore]:
    """Kept between blocks, until one of the files has another time."""
    net = filter_net(arch, weights, sees)
    return compiled_filter(net) if many else net, PatchStore(patches)
