"""What the answers so far amount to: the filter they would give, its F1, and how sure it is of each
candidate.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..common.filter import annotations
from ..common.filter import fit as fitting
from ..common.patches.store import PatchStore
from ..common.workspace.sections import Filter
from .features import FeatureCache


@dataclass(frozen=True)
class Standing:
    """After `rows` usable answers: the filter's method and F1 (as metrics/filter.json has them),
    candidates' scores.
    """

    rows: int
    method: str
    quality: dict
    scores: np.ndarray | None


class Study:
    """Fits and measures as the stage `filter` does, on annotations instead of files, over
    candidates of one store.
    """

    def __init__(
        self,
        store: PatchStore,
        patches: pd.DataFrame,
        pool: pd.DataFrame,
        cache: FeatureCache,
        params: Filter,
    ):
        self.store, self._patches, self._cache, self._params = store, patches, cache, params
        self._reference = patches[patches["border"] <= params.max_border]
        self.pool, self.features = pool, cache.of(pool)

    def usable(self, rows: pd.DataFrame) -> annotations.Annotations:
        """The rows of an annotation file of these frames, and how many are not, by reason."""
        return annotations.match(rows, self.store.frames.reset_index(drop=True))

    def standing(self, rows: pd.DataFrame, score: bool = True) -> Standing:
        """What usable rows (image_id, y, x, size, verdict) amount to; without `score` only how good
        they are.
        """
        table = annotations.annotated_windows(self.store, self._patches, rows)
        table = table[~(table["border"] > self._params.max_border)].reset_index(drop=True)
        features = self._cache.of(table)
        chosen = fitting.fit_filter(table, features, self._reference, self._params, {})
        quality = fitting.quality(table, features, chosen, self._params)
        scores = self._scores(table, features, chosen) if score else None
        return Standing(len(rows), chosen.facts["method"], quality, scores)

    def _scores(self, table: pd.DataFrame, features: np.ndarray, chosen) -> np.ndarray | None:
        """None until there is an answer of each kind; to wait for more of them did not help."""
        cells = (table["verdict"] == "cells").to_numpy()
        if cells.all() or not cells.any():
            return None
        params = self._params
        machine = chosen.cells or fitting.fit_svm(
            features, cells, params.kernel, params.C, params.svm == "one_class"
        )
        return machine.decision(self.features)
