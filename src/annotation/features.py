"""Features of windows under the filter's frozen network, computed once and kept in `.cache`."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..common.filter.annotations import WINDOW_KEY
from ..common.patches.store import PatchStore
from ..common.scoring.networks.overview import embed_seen, filter_net
from ..common.workspace.cache import file_digest
from ..common.workspace.entries import opened

CHUNK = 64


class FeatureCache:
    """Features (float32) by window; the keys under which they are kept tell the frames and the
    network, so neither is ever mixed up.
    """

    def __init__(self, store: PatchStore, arch: str, weights: Path, sees: str):
        self._store, self._named = store, (arch, weights, sees)
        files = store.directory / "frames.parquet", weights
        self._rests_on = arch, sees, *(file_digest(path) for path in files)
        self._net, self._kept = None, opened()
        self._known: dict[tuple, np.ndarray] = {}

    def of(self, windows: pd.DataFrame) -> np.ndarray:
        """(N, D) features of windows (image_id, y, x, size); the unknown ones are computed, with
        progress, and kept.
        """
        keys = list(windows[WINDOW_KEY].itertuples(index=False, name=None))
        new = [window for window in dict.fromkeys(keys) if window not in self._known]
        kept = {window: self._kept.get(self._key(window)) for window in new if self._kept}
        self._known |= {window: vector for window, vector in kept.items() if vector is not None}
        self._compute([window for window in new if window not in self._known])
        return (
            np.stack([self._known[key] for key in keys]) if keys else np.empty((0, 1), np.float32)
        )

    def _compute(self, lacking: list[tuple]) -> None:
        """In blocks, each kept at once: what was computed before an interruption is not computed
        again.
        """
        quiet = len(lacking) < CHUNK
        with tqdm(total=len(lacking), desc="features", unit="window", disable=quiet) as bar:
            for start in range(0, len(lacking), CHUNK):
                self._net = self._net or filter_net(*self._named)
                block = lacking[start : start + CHUNK]
                table = pd.DataFrame(block, columns=WINDOW_KEY)
                vectors = embed_seen(self._net, self._store, table)
                self._known |= dict(zip(block, vectors))
                for window, vector in zip(block, vectors if self._kept else []):
                    self._kept.put(self._key(window), vector)
                bar.update(len(block))

    def _key(self, window: tuple) -> str:
        return hashlib.sha256(repr((__name__, self._rests_on, window)).encode()).hexdigest()
