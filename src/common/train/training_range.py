"""What a model's training data look like, so that frames unlike them are noticed when it is
applied.

Kept beside the model: a bank of training windows for the novelty of others, the least sharpness,
the range of raw intensities, and which images training saw.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ..patches.frozen import FrozenFeatures
from ..patches.store import PatchStore
from ..scoring.frames.focus import sharpness
from ..scoring.networks.inference import WINDOWS
from ..scoring.novelty import RANGE, Novelty, kth_distance, unit
from ..workspace.records import write_json

BANK, SAMPLE = 500, 1000  # windows that are kept, and that set the limit
NEIGHBOUR = 5  # one neighbour alone may be an odd window of the training data
QUANTILE = 0.99  # so about 1% of windows like the training data are called unlike


def spread(groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Row numbers (at most `count`, sorted) drawn as evenly from the groups (N,) as their sizes
    allow.
    """
    order = np.random.default_rng(seed).permutation(len(groups))
    turn = pd.Series(groups[order]).groupby(groups[order]).cumcount().to_numpy()
    return np.sort(order[np.argsort(turn, kind="stable")[:count]])


def fit_novelty(features: np.ndarray, groups: np.ndarray, seed: int) -> Novelty:
    """Bank and limit from features (N, D) of training windows and their groups (N,).

    The limit is the 99th percentile of the distance to bank rows of other groups, for a new plate
    is another group too; with a single group, to any other window.
    """
    rows = unit(features)
    kept = spread(groups, BANK, seed)
    allowed = groups[:, None] != groups[kept][None, :]
    if not allowed.any(axis=1).all():
        allowed = np.arange(len(rows))[:, None] != kept[None, :]
    k = int(min(NEIGHBOUR, max(1, allowed.sum(axis=1).min())))
    limit = float(np.quantile(kth_distance(rows, rows[kept], k, allowed), QUANTILE))
    return Novelty(rows[kept].astype(np.float32), max(round(limit, 9), 1e-6), k)


def least_sharpness(store: PatchStore, table: pd.DataFrame) -> float:
    """The sharpness below which the least sharp 1% of windows (image_id, y, x, size) lie."""
    values = [
        sharpness(
            np.asarray(store.brightfield(image_id)), part[["y", "x", "size"]].to_numpy(np.int64)
        )
        for image_id, part in table.groupby("image_id")
    ]
    return round(float(np.quantile(np.concatenate(values), 1 - QUANTILE)), 9)


def record(
    directory: Path, store: PatchStore, windows: pd.DataFrame, frames: pd.DataFrame,
    features: FrozenFeatures,
) -> None:  # fmt: skip
    """Writes novelty.safetensors and training_range.json into the model's directory.

    windows: those trained on (patch_id, image_id, y, x, size, group); frames: the images that
    training saw, with brightfield_sha256; features: of the filter's backbone, which tell windows
    apart.
    """
    windows = windows.sort_values(WINDOWS, ignore_index=True)
    some = windows.iloc[spread(windows["group"].to_numpy(), SAMPLE, 1)]
    novelty = fit_novelty(features.of(some), some["group"].to_numpy(), 1)
    novelty.save(directory)
    seen = store.frames.loc[frames["image_id"]]
    facts = {
        "novelty": {
            "arch": features.source["arch"],
            "windows": len(novelty.bank),
            "neighbour": novelty.k,
            "limit": novelty.limit,
        },
        "least_sharpness": least_sharpness(store, windows),
        "low": [float(seen["scale_low"].min()), float(seen["scale_low"].max())],
        "high": [float(seen["scale_high"].min()), float(seen["scale_high"].max())],
        "images": sorted(frames["brightfield_sha256"]),
    }
    write_json(directory / RANGE, facts)
