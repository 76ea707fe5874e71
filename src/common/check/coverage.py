"""Which pixels of the frames are in some window: evidence for the gate on data/patches."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd


def coverage(windows: pd.DataFrame, frames: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """One row per frame: windows, uncovered_px (but at the far edges), right_px and bottom_px (left
    over there) beside what frames.parquet says of them, stride, and frame_end beside the pixels of
    its shard (shard_px).
    """
    by_image = dict(list(windows.groupby("image_id", sort=False)))
    none = windows.iloc[:0]
    rows = [
        _cover(frame, by_image.get(frame["image_id"], none)) for frame in frames.to_dict("records")
    ]
    shards = {
        path.name: np.load(path, mmap_mode="r").size for path in folder.glob("brightfield-*.npy")
    }
    table = pd.DataFrame(rows)
    names = frames["shard"].map("brightfield-{:03d}.npy".format)
    table["shard_px"] = names.map(shards).fillna(0).to_numpy()
    table["frame_end"] = (frames["offset"] + frames["height"] * frames["width"]).to_numpy()
    noted = frames[["remainder_right", "remainder_bottom"]].reset_index(drop=True)
    return table.join(noted)


def uncovered(y: np.ndarray, x: np.ndarray, size: np.ndarray, height: int, width: int) -> int:
    """Pixels of a (height, width) area in no window (y, x, size), counted on the grid that the
    windows' edges make.
    """
    rows = np.unique(np.clip([0, height, *y, *(y + size)], 0, height))
    cols = np.unique(np.clip([0, width, *x, *(x + size)], 0, width))
    seen = np.zeros((len(rows) - 1, len(cols) - 1), bool)
    for top, left, extent in zip(y, x, size, strict=True):
        down = np.searchsorted(rows, [top, top + extent])
        across = np.searchsorted(cols, [left, left + extent])
        seen[slice(*down), slice(*across)] = True
    return int((~seen * np.outer(np.diff(rows), np.diff(cols))).sum())


def _cover(frame: Mapping, windows: pd.DataFrame) -> dict:
    height, width = int(frame["height"]), int(frame["width"])
    y, x, size = (windows[name].to_numpy(np.int64) for name in ("y", "x", "size"))
    right, bottom = width - int((x + size).max(initial=0)), height - int((y + size).max(initial=0))
    inner = uncovered(y, x, size, height - max(bottom, 0), width - max(right, 0))
    steps = [
        int(step.min()) for step in (np.diff(np.unique(y)), np.diff(np.unique(x))) if step.size
    ]
    only = int(size.min(initial=max(height, width)))  # of one window, its size
    return {
        "image_id": frame["image_id"], "windows": len(windows), "uncovered_px": inner,
        "right_px": right, "bottom_px": bottom, "stride": min(steps, default=only),
    }  # fmt: skip
