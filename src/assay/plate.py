"""A plate as a lab runs it: controls, normalisation, assay quality and edge effects, per experiment
and time.
"""

import numpy as np
import pandas as pd
from scipy import stats

from .edge import edge_effect
from .layout import plate_format

LEAST_CONTROLS = 3  # wells of each control; the spread of fewer is not worth a Z'
MAD = 1.4826  # median absolute deviation to standard deviation, for normal values


def describe(wells: pd.DataFrame) -> list[dict]:
    """Controls, quality, normalisation and edge effect of every experiment and time of a table of
    wells.
    """
    states = []
    for (experiment, time), part in wells.groupby(["experiment", "time"], dropna=False, sort=True):
        control = {name: _control(part, name) for name in ("negative", "positive")}
        states.append({
            "experiment": experiment, "time": None if pd.isna(time) else time,
            "wells": len(part), "format": plate_format(part["well"]),
            "controls": {name: _summary(values) for name, values in control.items()},
            "quality": quality(control["negative"], control["positive"]),
            "normalisation": scale(control["negative"], control["positive"])[2],
            "edge": edge_effect(part),
        })  # fmt: skip
    return states


def normalise(wells: pd.DataFrame) -> pd.DataFrame:
    """The wells with `normalised`: 0 at the mean positive control, 1 at the mean negative control
    of the same experiment and time; without positive controls 0 is no live patch; NaN where
    controls do not allow it.
    """
    parts = []
    for _, part in wells.groupby(["experiment", "time"], dropna=False, sort=False):
        zero, one, _ = scale(_control(part, "negative"), _control(part, "positive"))
        parts.append(((part["live_patch_fraction"] - zero) / (one - zero)).round(6))
    return wells.assign(normalised=pd.concat(parts) if parts else np.nan)


def scale(negative: np.ndarray, positive: np.ndarray) -> tuple[float, float, str]:
    """The live-patch fractions that stand for 0 and 1, and in words what they rest on; NaN where
    there are none.
    """
    if not len(negative):
        return np.nan, np.nan, "not given: no negative control well with a live-patch fraction"
    one, zero = float(negative.mean()), float(positive.mean()) if len(positive) else 0.0
    if one <= zero:
        lower = "is not above that of the positive controls" if len(positive) else "is zero"
        return np.nan, np.nan, f"not given: the mean of the negative controls {lower}"
    without = "no live patch (no positive control well has a live-patch fraction)"
    lowest = "mean of the positive controls" if len(positive) else without
    return zero, one, f"0 = {lowest}, 1 = mean of the negative controls"


def quality(negative: np.ndarray, positive: np.ndarray) -> dict:
    """Z' (Zhang et al. 1999), its robust form with medians and MADs, and SSMD (Zhang 2007); None
    with the reason.

    Z' = 1 - 3 (sd_negative + sd_positive) / |mean_negative - mean_positive|: 1 is ideal, from 0.5
    the controls are well apart, at 0 and below their bands of three standard deviations touch.
    """
    none = dict.fromkeys(("z_prime", "robust_z_prime", "ssmd"))
    counts = {"negative": len(negative), "positive": len(positive)}
    few = [f"{count} {name}" for name, count in counts.items() if count < LEAST_CONTROLS]
    if few:
        needed = f"needs at least {LEAST_CONTROLS} wells of each control with a live-patch fraction"
        return none | {"reason": f"{needed}; there are {' and '.join(few)}"}
    gap = negative.mean() - positive.mean()
    if gap <= 0:
        inverted = "the negative controls (untreated) are not above the positive controls"
        return none | {"reason": f"{inverted} (all dead): look at the layout"}
    sd = [values.std(ddof=1) for values in (negative, positive)]
    mad = [MAD * stats.median_abs_deviation(values) for values in (negative, positive)]
    middle = np.median(negative) - np.median(positive)
    pooled = np.hypot(*sd)
    return {
        "z_prime": float(1 - 3 * sum(sd) / gap),
        "robust_z_prime": float(1 - 3 * sum(mad) / middle) if middle > 0 else None,
        "ssmd": float(gap / pooled) if pooled > 0 else None,
        "reason": "",
    }


def _control(part: pd.DataFrame, name: str) -> np.ndarray:
    return part.loc[part["control"] == name, "live_patch_fraction"].dropna().to_numpy(float)


def _summary(values: np.ndarray) -> dict:
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"wells": len(values), "mean": float(values.mean()) if len(values) else None, "sd": sd}
