"""Scoring bright-field frames of any size: tile, filter, call, under the contract that travels with
the model.

This file ships inside registered models: it knows nothing of DVC, MLflow or the graph.
"""

import json
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from . import ScoringError
from .emptiness import EmptyFilter, decide, load_filter
from .frames.focus import sharpness
from .frames.imaging import bright_field_measures, scaling_range, to_uint8
from .frames.windows import in_pixels, windows
from .networks.inference import apply_to_windows, compiled_net, load_model
from .networks.net import Net
from .networks.overview import compiled_filter, cut, features_of, filter_net
from .networks.stain import StainNet, predict_stain, stain_logits, window_logits
from .novelty import Novelty, load_novelty
from .nuclei import nucleus_logits
from .operating import calibrate, conformal_call
from .reading.pixel_size import PIXEL_SIZE_TOLERANCE

WINDOW_COLUMNS = ["y", "x", "size", "verdict", "live_probability", "novelty", "call"]


class RefusedFrame(ScoringError):
    """A frame that the model's contract does not allow; the message says what was found and what is
    wanted.
    """


@dataclass(frozen=True)
class Scorer:
    """A trained network with its filter, training bank and contract (see README: the registered
    model).
    """

    contract: dict
    net: Net
    chosen: EmptyFilter
    filter_net: Net | None = None
    novelty: Novelty | None = None
    last: dict[bytes, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, directory: Path) -> "Scorer":
        """From the folder that a registered model carries: contract.json, novelty.safetensors, net/
        and filter/.
        """
        directory = Path(directory)
        contract = json.loads((directory / "contract.json").read_text())
        chosen, novelty = load_filter(directory / "filter"), load_novelty(directory)
        frozen = None
        if chosen.cells is not None or novelty is not None:
            weights = directory / "filter" / "model.safetensors"
            sees = chosen.facts.get("sees", "windows")
            frozen = filter_net(chosen.facts["arch"], weights, sees)
        return cls(contract, load_model(directory / "net", contract), chosen, frozen, novelty)

    def compiled(self) -> "Scorer":
        """The same for many frames: in some seconds, networks that take a half to a third of the
        time and say the same but for rounding. Needs openvino.
        """
        seeing = self.filter_net and compiled_filter(self.filter_net)
        return replace(self, net=compiled_net(self.net), filter_net=seeing)

    def score(self, frame: np.ndarray, pixel_size_um: float | None = None) -> pd.DataFrame:
        """Every window of one bright-field frame (H, W), uint8 or uint16, as a row.

        Columns: y, x, size (px); verdict (cells, empty, or unusable: a border, or less sharp than
        all but 1% of the training windows); live_probability (calibrated) and novelty (above 1:
        unlike the training data; NaN too for a model packaged without), both NaN unless the verdict
        is cells; call: live, dead, abstain where the evidence is too weak for the stated error, or
        none where there is nothing to call. Raises RefusedFrame if the frame or its pixel size is
        not what the model knows.
        """
        counts, table = self.check(frame, pixel_size_um)
        low, high = scaling_range(counts, **self.contract["scaling"])
        frame8 = to_uint8(counts, low, high)
        corners = table[["y", "x", "size"]].to_numpy(np.int64)
        measures = bright_field_measures(frame8, counts == 0, corners)
        features = np.empty((len(corners), 0), np.float32)
        if self.filter_net is not None:
            features = features_of(self.filter_net, frame8, corners)
        verdict, _ = decide(features, measures, self.chosen)
        # The filter alone does not reject what is out of focus: its features see the cells all the
        # same
        blurred = sharpness(frame8, corners) < self.contract.get("least_sharpness", 0.0)
        table["verdict"] = np.where(blurred & (verdict == "cells"), "unusable", verdict)
        table["live_probability"], table["novelty"], table["call"] = np.nan, np.nan, "none"
        seen = (table["verdict"] == "cells").to_numpy()
        if seen.any():
            table.loc[seen, "live_probability"] = self._probability(frame8, corners[seen])
            table.loc[seen, "call"] = self._call(table.loc[seen, "live_probability"].to_numpy())
            if self.novelty is not None:
                table.loc[seen, "novelty"] = self.novelty.score(features[seen])
        return table[WINDOW_COLUMNS]

    def check(
        self, frame: np.ndarray, pixel_size_um: float | None = None
    ) -> tuple[np.ndarray, pd.DataFrame]:
        """The frame's counts (H, W) and its windows (y, x, size), without scoring.

        Raises RefusedFrame.
        """
        counts = _grey(frame)
        self._check_pixel_size(pixel_size_um)
        return counts, self._windows(counts.shape, pixel_size_um)

    def stain(self, frame: np.ndarray, pixel_size_um: float | None = None) -> np.ndarray | None:
        """Predicted stain of a frame (H, W): (2, H, W) float32; None of a model of target label.

        First PI over background (1 is none), then the probability of PI above STAINED times it.
        Raises RefusedFrame as `score`.
        """
        counts, _ = self.check(frame, pixel_size_um)
        if not isinstance(self.net, StainNet):
            return None
        low, high = scaling_range(counts, **self.contract["scaling"])
        excess, above = self._maps(to_uint8(counts, low, high))
        return np.stack([1 + excess, above])

    def _maps(self, frame8: np.ndarray) -> np.ndarray:
        """predict_stain; the last frame's is kept, for its windows and its stain come in turn."""
        key = sha256(frame8.tobytes()).digest()
        if key not in self.last:
            self.last.clear()
            self.last[key] = predict_stain(self.net, frame8)
        return self.last[key]

    def probability_of(self, pi: np.ndarray) -> np.ndarray:
        """Live probability (n,) of areas of any shape from their mean predicted PI over background
        (n,), calibrated as windows are.
        """
        at = self.contract["operating"]
        return calibrate(stain_logits(pi - 1), at["temperature"], at.get("shift", 0.0))

    def nuclei_probability(self, pi: np.ndarray, shape: np.ndarray) -> np.ndarray:
        """Live probability (n,) of nuclei from mean predicted PI over background (n,) and size and
        shape (n, 3) as in nuclei.SHAPE; of contracts with `nuclei`.
        """
        at, shift = self.contract["nuclei"], self.contract["operating"]["shift"]
        return calibrate(nucleus_logits(stain_logits(pi - 1), shape, at, shift), 1.0)

    def _probability(self, frame8: np.ndarray, corners: np.ndarray) -> np.ndarray:
        """Live probability (n,) of windows (n, 3), from the whole frame or each window."""
        if isinstance(self.net, StainNet):
            logits = window_logits(self._maps(frame8), corners)
        else:
            scores = apply_to_windows(self.net, self.net.forward, cut(frame8, corners))
            logits = np.diff(scores.astype(np.float64))[:, 0]
        at = self.contract["operating"]
        return calibrate(logits, at["temperature"], at.get("shift", 0.0))

    def _call(self, probability: np.ndarray) -> np.ndarray:
        at = self.contract["operating"]
        return conformal_call(probability, at["live_from"], at["dead_to"])

    def _windows(self, shape: tuple[int, int], pixel_size_um: float | None) -> pd.DataFrame:
        tile = self.contract["tile"]
        size, stride = (
            in_pixels(tile[name], tile["unit"], pixel_size_um) for name in ("window", "stride")
        )
        if min(shape) < size:
            raise RefusedFrame(
                f"the frame has {shape[0]} x {shape[1]} pixels, "
                f"less than one window of {size} x {size}"
            )
        table = pd.DataFrame(windows(*shape, size, stride, tile["edge"]))
        return table[["y", "x", "size"]].astype("int64")

    def _check_pixel_size(self, given: float | None) -> None:
        wanted = self.contract["pixel_size_um"]
        if wanted is None:
            return
        if given is None or not given > 0:
            raise RefusedFrame(
                f"pixel_size_um is {'not given' if given is None else given}: "
                f"the model was trained at {wanted} um per pixel"
            )
        if self.contract["tile"]["unit"] == "px" and abs(given / wanted - 1) > PIXEL_SIZE_TOLERANCE:
            raise RefusedFrame(
                f"the frame has {given} um per pixel, the model was trained at {wanted} (within "
                f"{PIXEL_SIZE_TOLERANCE:.0%}): rescale the frame, or train with tile.unit um"
            )


def _grey(frame: np.ndarray) -> np.ndarray:
    """The frame as unsigned integer counts (H, W).

    Integers of another type are taken if they fit 16 bit.
    """
    counts = np.asarray(frame)
    if counts.ndim != 2:
        raise RefusedFrame(
            f"a frame is one bright-field channel (H, W), not an array of shape {counts.shape}"
        )
    if counts.dtype in (np.uint8, np.uint16):
        return counts
    if counts.dtype.kind not in "iu":
        raise RefusedFrame(
            f"a frame holds raw 8 or 16 bit counts, not {counts.dtype}: give the camera's counts, "
            "unscaled, as uint8 or uint16"
        )
    if counts.size and (counts.min() < 0 or counts.max() > 65535):
        seen = f"{counts.min()} to {counts.max()}"
        raise RefusedFrame(f"a frame holds raw 8 or 16 bit counts within 0..65535, not {seen}")
    return counts.astype(np.uint16)
