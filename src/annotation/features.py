"""Features of windows under the filter's frozen network, computed once and kept in a file."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..common.filter.annotations import WINDOW_KEY
from ..common.patches.store import PatchStore
from ..common.scoring.networks.inference import embed
from ..common.scoring.networks.net import build

CHUNK = 64


class FeatureCache:
    """Features (float32) by window; the file's name tells the frames and the network, so neither is
    ever mixed up.
    """

    def __init__(self, store: PatchStore, arch: str, weights: Path, folder: Path):
        self._store, self._arch, self._weights = store, arch, weights
        key = hashlib.sha256(arch.encode())
        for path in (store.directory / "frames.parquet", weights):
            key.update(hashlib.sha256(path.read_bytes()).digest())
        self.path = folder / f"features-{key.hexdigest()[:16]}.npz"
        self._net = None
        self._known = self._read()

    def of(self, windows: pd.DataFrame) -> np.ndarray:
        """(N, D) features of windows (image_id, y, x, size); the unknown ones are computed, with
        progress, and kept.
        """
        keys = list(windows[WINDOW_KEY].itertuples(index=False, name=None))
        lacking = pd.DataFrame(
            [key for key in dict.fromkeys(keys) if key not in self._known], columns=WINDOW_KEY
        )
        if len(lacking):
            self._compute(lacking)
        return (
            np.stack([self._known[key] for key in keys]) if keys else np.empty((0, 1), np.float32)
        )

    def _compute(self, lacking: pd.DataFrame) -> None:
        """In blocks, each kept at once: what was computed before an interruption is not computed
        again.
        """
        self._net = self._net or build(self._arch, self._weights)
        with tqdm(
            total=len(lacking), desc="features", unit="window", disable=len(lacking) < CHUNK
        ) as bar:
            for start in range(0, len(lacking), CHUNK):
                block = lacking.iloc[start : start + CHUNK]
                vectors = embed(self._net, self._store, block, desc=None)
                self._known |= dict(zip(block.itertuples(index=False, name=None), vectors))
                self._write()
                bar.update(len(block))

    def _read(self) -> dict[tuple, np.ndarray]:
        try:
            with np.load(self.path) as held:
                keys = zip(held["image_id"].tolist(), *held["corners"].T.tolist())
                return dict(zip(keys, held["features"]))
        except Exception:  # absent or damaged in whatever way: it can always be computed again
            return {}

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        images, *corners = zip(*self._known)
        part = self.path.with_suffix(f".{os.getpid()}.npz")
        with part.open("wb") as stream:
            np.savez(
                stream,
                image_id=np.asarray(images),
                corners=np.column_stack(corners),
                features=np.stack(list(self._known.values())),
            )
        os.replace(part, self.path)
