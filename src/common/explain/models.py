"""The networks that explain: each window by the one that did not see it."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..patches.store import PatchStore
from ..scoring.networks.backbones import CLASSES
from ..scoring.networks.inference import live_logits, load_model
from ..scoring.networks.net import Net
from ..scoring.operating import calibrate, conformal_call
from ..workspace.records import read_json
from . import gradcam


class Models:
    """The networks of a partition, by the round whose test windows they did not see; each is loaded
    once. directory: models/PARTITION.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.card = read_json(directory / "model.json")
        note = " (synthetic data)" if self.card["synthetic"] else ""
        self.title = f"{directory.name}{note}, {self.card['arch']}"
        self.of = cache(self._load)

    def _load(self, name: str) -> Net:
        return load_model(self.directory / ("" if name == "holdout" else name), self.card)

    def maps(
        self, store: PatchStore, rows: pd.DataFrame, change: Callable[[Net], Net] = lambda net: net
    ) -> dict[str, list[np.ndarray]]:
        """Raw Grad-CAM of each class for each row, by the (changed) network of its round."""
        maps: list[np.ndarray] = [np.empty(0)] * len(rows)
        for name, part in rows.reset_index(drop=True).groupby("round"):
            own = gradcam.window_evidence(change(self.of(name)), store, part)
            for position, cam in zip(part.index, own):
                maps[position] = cam
        return {label: [gradcam.of_class(signed, label) for signed in maps] for label in CLASSES}

    def score(self, store: PatchStore, rows: pd.DataFrame, points: dict[str, dict]) -> pd.DataFrame:
        """The rows with probability and call, by the network and the operating point of each row's
        round.
        """
        parts = [rows.assign(probability=np.nan, call="").head(0)]
        for name, part in rows.groupby("round"):
            logit = live_logits(self.of(name), store, part, "explain: empty windows")
            live = calibrate(logit, points[name]["temperature"])
            call = conformal_call(live, points[name]["live_from"], points[name]["dead_to"])
            parts.append(part.assign(probability=live, call=call))
        return pd.concat(parts).loc[rows.index]
