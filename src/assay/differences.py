"""Live-patch fractions by the model against those by the stain, unit by unit."""

import numpy as np
import pandas as pd

from ..common.metrics.intervals import resample
from .agreement import SETTINGS, interval

LEAST_PATCHES = 10  # of a field or well, decided by both
LEAST_COMPARED = 5  # fields or wells, for agreement of fractions


def units(cells: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The live-patch fraction by the stain and by the model for each unit (well, or field) with
    enough patches.

    by: the unit's columns; weight: of windows flush with an edge (fractions.py), else 1.
    model: live / (live + dead) of its calls; stain: the same of its PI
    labels. Each on all the patches it decides, as each would be used.
    """
    weight, votes = cells.get("weight", 1.0), cells[by].copy()
    for who, column in (("model", "call"), ("stain", "label")):
        for kind in ("live", "dead"):
            votes[f"{who}_{kind}"] = (cells[column] == kind) * weight
    table = votes.groupby(by, dropna=False).sum().reset_index()
    for who in ("model", "stain"):
        live, dead = table.pop(f"{who}_live"), table.pop(f"{who}_dead")
        table[f"{who}_patches"] = total = live + dead
        table[who] = (live / total.where(total > 0)).round(6)
    return table[table[["model_patches", "stain_patches"]].min(axis=1) >= LEAST_PATCHES]


def bland_altman(table: pd.DataFrame, by: str = "fields") -> dict:
    """Mean difference model - stain and the 95% limits of agreement (Bland and Altman 1986), with
    intervals.

    spread: the limit that is farther from zero. by: resample the experiments of the table's rows,
    or the rows.
    """
    difference = (table["model"] - table["stain"]).to_numpy(float)
    n = len(difference)
    if n < LEAST_COMPARED:
        reason = f"{n} with at least {LEAST_PATCHES} patches decided by both"
        reason += f"; agreement needs {LEAST_COMPARED}"
        return {"units": n, "bias": None, "reason": reason}
    of = table["experiment"].to_numpy() if by == "experiments" else np.arange(n)
    names, codes = np.unique(of, return_inverse=True)
    random = np.random.default_rng(SETTINGS.seed)
    counts = resample(len(names), SETTINGS.bootstrap, random)
    (bias,), (spread,), (sd,) = _difference(difference, np.ones((1, n)))
    drawn_bias, drawn_spread, _ = _difference(difference, counts[:, codes].astype(float))
    return {
        "units": n, "bias": bias, "bias_interval": interval(drawn_bias, len(names)),
        "limits": [bias - 1.96 * sd, bias + 1.96 * sd],
        "spread": spread, "spread_interval": interval(drawn_spread, len(names)), "reason": "",
    }  # fmt: skip


def _difference(
    difference: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, farther limit of agreement, and standard deviation of differences (n,) under (b, n)
    weights.
    """
    total = weights.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = weights @ difference / total
        sd = np.sqrt((weights * (difference - mean[:, None]) ** 2).sum(1) / (total - 1))
    return mean, np.abs(mean) + 1.96 * sd, sd
