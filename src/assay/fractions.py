"""From the windows of an image to its counts and its live-patch fraction.

Under `anchor` the last windows of a frame lie flush with its right and bottom edge, wherever that
is, and may be near-copies of their neighbours (93% alike in a frame of 1024 px, say). A window
counts by how far it lies from its neighbours, in strides: all of a regular grid count 1, and a
flush one and its neighbour share what they add. Otherwise the edge band would count twice.
"""

import numpy as np
import pandas as pd

from ..common.scoring.emptiness import VERDICTS

CALLS = ["live", "dead", "abstain"]
COUNTS = ["windows", *VERDICTS, *CALLS, "unlike"]
FRACTIONS = ["called", "live_patch_fraction"]


def weights(windows: pd.DataFrame, stride: int) -> np.ndarray:
    """How many windows of a regular grid each window (rows with y, x) stands for: (N,) float64."""
    return _along(windows["y"].to_numpy(), stride) * _along(windows["x"].to_numpy(), stride)


def _along(starts: np.ndarray, stride: int) -> np.ndarray:
    """Along one axis: the mean distance to both neighbours, in strides, at most 1."""
    places, index = np.unique(starts, return_inverse=True)
    gaps = np.concatenate([[1.0], np.minimum(np.diff(places) / stride, 1.0), [1.0]])
    return ((gaps[:-1] + gaps[1:]) / 2)[index]


def of_image(windows: pd.DataFrame, stride: int) -> dict[str, int | float]:
    """How many windows of an image were seen and called as what (COUNTS, plain numbers), `called`
    (weighted number of windows called live or dead) and live_patch_fraction (their weighted share
    of live ones, NaN where nothing is called).
    """
    weight, call = weights(windows, stride), windows["call"].to_numpy()
    live, called = (float(weight[np.isin(call, of)].sum()) for of in (["live"], ["live", "dead"]))
    seen = {"windows": len(windows), "unlike": int((windows["novelty"] > 1).sum())}
    seen |= {name: int((windows["verdict"] == name).sum()) for name in VERDICTS}
    seen |= {name: int((call == name).sum()) for name in CALLS}
    fraction = round(live / called, 6) if called else np.nan
    return seen | {"called": round(called, 6), "live_patch_fraction": fraction}
