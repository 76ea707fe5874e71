"""Which pixels of the frames are in some window: evidence for the gate on data/patches."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd


def coverage(windows: pd.DataFrame, frames: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """One row per frame: windows, outside (windows beyond the frame), inner (uncovered px but at
    the far edges), excess (uncovered px at a far edge, less the stride), unreported (that, less
    what frames.parquet says), pixels_left (in the shard after the frame; negative if it is cut
    off).
    """
    by_image = dict(list(windows.groupby("image_id", sort=False)))
    none = windows.iloc[:0]
    rows = [
        _cover(frame, by_image.get(frame["image_id"], none)) for frame in frames.to_dict("records")
    ]
    shards = {
        path.name: np.load(path, mmap_mode="r").size
        for path in sorted(folder.glob("brightfield-*.npy"))
    }
    length = frames["shard"].map(lambda shard: shards.get(f"brightfield-{shard:03d}.npy", 0))
    left = length - frames["offset"] - frames["height"] * frames["width"]
    return pd.DataFrame(rows).assign(pixels_left=left.to_numpy())


def uncovered(y: np.ndarray, x: np.ndarray, size: np.ndarray, height: int, width: int) -> int:
    """Pixels of a (height, width) area in no window (y, x, size), counted on the grid that the
    windows' edges make.
    """
    rows = np.unique(np.clip([0, height, *y, *(y + size)], 0, height))
    cols = np.unique(np.clip([0, width, *x, *(x + size)], 0, width))
    seen = np.zeros((len(rows) - 1, len(cols) - 1), bool)
    for top, left, extent in zip(y, x, size, strict=True):
        down, across = (
            np.searchsorted(rows, [top, top + extent]),
            np.searchsorted(cols, [left, left + extent]),
        )
        seen[slice(*down), slice(*across)] = True
    return int((~seen * np.outer(np.diff(rows), np.diff(cols))).sum())


def _cover(frame: Mapping, windows: pd.DataFrame) -> dict:
    height, width = int(frame["height"]), int(frame["width"])
    y, x, size = (windows[name].to_numpy(np.int64) for name in ("y", "x", "size"))
    outside = int(np.count_nonzero((y < 0) | (x < 0) | (y + size > height) | (x + size > width)))
    right, bottom = width - int((x + size).max(initial=0)), height - int((y + size).max(initial=0))
    inner = uncovered(y, x, size, height - max(bottom, 0), width - max(right, 0))
    steps = [
        int(step.min()) for step in (np.diff(np.unique(y)), np.diff(np.unique(x))) if step.size
    ]
    stride = min(
        steps, default=int(size.min(initial=max(height, width)))
    )  # of one window, its size
    unreported = abs(right - int(frame["remainder_right"])) + abs(
        bottom - int(frame["remainder_bottom"])
    )
    edges = f"{right} px left over at the right, {bottom} at the bottom"
    return {
        "what": f"{frame['image_id']}: {len(windows)} windows, {inner} px in none, {edges}",
        "images": frame["image_id"],
        "windows": len(windows), "outside": outside, "inner": inner, "excess": max(right, bottom) - stride,
        "unreported": unreported,
    }  # fmt: skip
