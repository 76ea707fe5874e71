"""What the filter's frozen backbone makes of windows, kept for the stages after it: running the
backbone over them again would take longer than all else that these do with it.

data/features has the windows with cells alone, which are all that can be labelled: features.npy
(N, D) float32 memory-mapped, their names in windows.parquet, and what made them in source.json.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ..workspace.errors import UserError
from ..workspace.paths import existing
from ..workspace.records import read_json, write_json

BLOCK = 4096  # windows


class UnknownWindows(UserError):
    """Windows are asked for that the filter did not call cells."""


def save_features(
    directory: Path, patch_ids: pd.Series, features: np.ndarray, kept: np.ndarray, source: dict
) -> None:
    """Writes the features (N, D) float32 of the windows `kept` (N,) bool, named by patch_ids (N,),
    and what made them: the weights' source.json, and `sees` (windows | frame). A block at a time,
    since those of a screen are more than memory holds.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rows, patch_ids = np.flatnonzero(kept), patch_ids[kept]
    shape = len(rows), features.shape[1]
    written = np.lib.format.open_memmap(directory / "features.npy", "w+", np.float32, shape)
    for start in range(0, len(rows), BLOCK):
        block = slice(start, start + BLOCK)
        written[block] = features[rows[block]]
    pd.DataFrame({"patch_id": patch_ids}).to_parquet(directory / "windows.parquet", index=False)
    write_json(directory / "source.json", source)


class FrozenFeatures:
    """Read access to data/features. source: what made them."""

    def __init__(self, directory: Path):
        self.source = read_json(directory / "source.json")
        self._names = pd.Index(pd.read_parquet(directory / "windows.parquet")["patch_id"])
        self._features = np.load(existing(directory / "features.npy"), mmap_mode="r")

    def of(self, table: pd.DataFrame) -> np.ndarray:
        """Features (N, D) float32 of the windows of a table (patch_id). Raises UnknownWindows."""
        rows = self._names.get_indexer(table["patch_id"])
        if (rows < 0).any():
            lacking = table["patch_id"].iloc[int(np.argmin(rows))]
            raise UnknownWindows(
                f"data/features lacks window {lacking}: run `dvc repro filter`, whose verdicts "
                "must be those that were labelled"
            )
        return np.asarray(self._features[rows])

    def made_by(self, weights: dict) -> bool:
        """Whether the weights of that source.json made them."""
        return self.source["sha256"] == weights["sha256"]
