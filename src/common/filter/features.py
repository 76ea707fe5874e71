"""What the filter's frozen backbone sees in windows: in blocks, here or on a Dask cluster."""

import hashlib
import tempfile
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..patches.store import PatchStore
from ..scoring.networks.inference import WINDOWS, WORTH_WINDOWS
from ..scoring.networks.net import Net
from ..scoring.networks.overview import compiled_filter, embed_seen, filter_net
from ..workspace.cache import Kept, file_digest

AT_ONCE = 512  # windows of one image at most: sixteen batches, a few seconds of one core


def features(
    arch: str, weights: Path, sees: str, patches: Path, windows: pd.DataFrame
) -> np.ndarray:
    """Features (N, D) float32 of the windows of a table (image_id, y, x, size) of a patch store.

    sees: windows | frame. Blocks are the same wherever they are computed, and so are the results.
    They lie in a nameless file beside the store, half a megabyte an image, not in memory.
    """
    rows = list(windows.groupby(["image_id", "size"], sort=False).indices.values())
    if sees == "windows":
        rows = [block[i : i + AT_ONCE] for block in rows for i in range(0, len(block), AT_ONCE)]
    version = weights.stat().st_mtime_ns, (patches / "frames.parquet").stat().st_mtime_ns
    opened = arch, weights, sees, patches, version, len(windows) >= WORTH_WINDOWS
    items = [(opened, windows.iloc[block][WINDOWS]) for block in rows]
    rests_on = partial(_rests_on, file_digest(weights), PatchStore(patches))
    made = Kept.of_stage("filter").each(_block, items, rests_on, 1, "embed", "block")
    first = next(made)
    features_made = _on_disk((len(windows), first.shape[1]), patches.parent)
    for block, part in zip(rows, chain([first], made), strict=True):
        features_made[block] = part
    return features_made


def _on_disk(shape: tuple[int, int], folder: Path) -> np.memmap:
    """An array of float32 in a file of FOLDER that is gone with the array."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def _rests_on(weights: str, store: PatchStore, opened: tuple, windows: pd.DataFrame) -> tuple:
    """What the features of a block rest on, all of one image; the last bits, on the processor."""
    arch, _, sees, _, _, many = opened
    machine = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    frame = store.brightfield(windows["image_id"].iloc[0])
    seen = frame.shape, hashlib.sha256(frame).hexdigest()
    corners = windows[["y", "x", "size"]].to_numpy().tolist()
    return seen, corners, arch, weights, sees, many, machine


def _block(opened: tuple, windows: pd.DataFrame) -> np.ndarray:
    return embed_seen(*_opened(*opened), windows)


@lru_cache(maxsize=1)
def _opened(
    arch: str, weights: Path, sees: str, patches: Path, _: tuple[int, int], many: bool
) -> tuple[Net, PatchStore]:
    """Kept between blocks, until one of the files has another time."""
    net = filter_net(arch, weights, sees)
    return compiled_filter(net) if many else net, PatchStore(patches)
