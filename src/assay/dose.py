"""Dose response: a four-parameter logistic through the wells of one compound, its IC50 and what may
be said of it.

response(c) = bottom + (top - bottom) / (1 + (c / IC50)^hill), fitted by lmfit on the logarithm of
the concentration. Each well weighs by the inverse of its variance: the binomial one of the patches
that it is worth (wells.py), largest half-way down the curve, and one between wells that is common
to all and estimated from what the first fit leaves. The IC50 is the relative one: the concentration
half-way between top and bottom. Its interval (dose_interval.py) may be open.
"""

import lmfit
import numpy as np
import pandas as pd
from scipy import stats

from .dose_interval import limits
from .words import number

LEAST = 4  # concentrations above zero
ALPHA = 0.05  # of the test that there is a response at all
DECADES = 1.0  # beyond the tested range, as far as the IC50 is looked for
HILL = (0.2, 8.0)
ALIKE = 0.05  # doses that differ by less may be one, written with more or fewer digits
NOTHING = dict.fromkeys(("ic50", "low", "high", "top", "bottom", "hill")) | {"interval_by": ""}


def responses(wells: pd.DataFrame) -> list[dict]:
    """The fit of every compound, experiment and time of a table of wells, in that order.

    The response is the live-patch fraction. Wells of concentration zero, and negative controls of
    the same experiment and time, stand for no compound: they inform the top and are kept out of the
    logarithmic axis.
    """
    found = []
    known = wells.dropna(subset=["live_patch_fraction"])
    treated = known[(known["compound"] != "") & (known["control"] == "")]
    keys = ["compound", "experiment", "time"]
    for values, _ in treated.groupby(keys, dropna=False):
        head = dict(zip(keys, values))
        head["time"] = None if pd.isna(head["time"]) else head["time"]
        found.append(head | fit(*dosed_and_zero(known, **head)))
    return found


def dosed_and_zero(
    wells: pd.DataFrame, compound: str, experiment: str, time: float | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of the wells of an experiment and time: those that hold the compound, and those that hold
    none (its concentration zero, and negative controls).
    """
    when = wells["time"].isna() if pd.isna(time) else wells["time"] == time
    same = wells[(wells["experiment"] == experiment) & when]
    own, negative = same["compound"] == compound, same["control"] == "negative"
    dosed = own & (same["concentration"] > 0) & (same["control"] == "")
    return same[dosed], same[negative | (own & (same["concentration"] == 0))]


def doses_alike(wells: pd.DataFrame) -> list[str]:
    """A remark on each compound with doses that may be one; they are fitted as they stand."""
    remarks = []
    dosed = wells[(wells["compound"] != "") & (wells["concentration"] > 0)]
    for compound, part in dosed.groupby("compound"):
        several = [group for group in apart(part["concentration"]) if len(group) > 1]
        if several:
            told = "; ".join(", ".join(f"{dose:g}" for dose in group) for group in several)
            remarks.append(
                f"{compound}: doses within {ALIKE:.0%} of each other count as different ones "
                f"({told}): if they are one, write it alike"
            )
    return remarks


def apart(doses: pd.Series) -> list[np.ndarray]:
    """The different doses, sorted, in groups: within one each is at most ALIKE above the last."""
    levels = np.sort(doses.unique())
    if not len(levels):
        return []  # where np.split gives one empty group
    return np.split(levels, 1 + np.flatnonzero(levels[1:] > (1 + ALIKE) * levels[:-1]))


def curve(
    concentration: np.ndarray, top: float, bottom: float, log_ic50: float, hill: float
) -> np.ndarray:
    """The four-parameter logistic at concentrations (n,), zero included; log_ic50 is decadic."""
    with np.errstate(divide="ignore"):
        exponent = hill * (np.log10(np.asarray(concentration, float)) - log_ic50)
    return bottom + (top - bottom) / (1 + 10 ** np.clip(exponent, -300, 300))


def fit(dosed: pd.DataFrame, zero: pd.DataFrame) -> dict:
    """The curve of one compound: tables of wells with concentration, live_patch_fraction and
    effective (independent patches that a well is worth).

    outcome: fitted | no response | above | below (the tested range) | rising | not converged | too
    few; `text` says it for people. ic50, low and high are None where they cannot be given; an open
    side of the interval is None too, and interval_by says how it came about (profile likelihood
    | '').
    """
    levels = np.sort(dosed["concentration"].unique())
    facts = {
        "concentrations": len(levels), "wells": len(dosed), "zero_wells": len(zero),
        "lowest": float(levels[0]) if len(levels) else None,
        "highest": float(levels[-1]) if len(levels) else None,
    }  # fmt: skip
    blank = facts | NOTHING
    if (count := len(apart(dosed["concentration"]))) < LEAST:
        which = f" more than {ALIKE:.0%} apart" if count < len(levels) else ""
        text = f"concentrations above zero{which}: {count}, a curve needs {LEAST}"
        return blank | _said("too few", text)
    both = pd.concat([dosed, zero])
    if len(both) < LEAST + 1:
        text = f"{len(both)} wells do not fix a curve of {LEAST} parameters"
        return blank | _said("too few", f"{text}: add replicates or controls")
    x = np.r_[dosed["concentration"], np.zeros(len(zero))]
    y, patches = (both[name].to_numpy(float) for name in ("live_patch_fraction", "effective"))
    _, first = _best(x, y, np.sqrt(patches / patches.mean()), np.log10(levels))
    weight = _weights(curve(x, **first.params.valuesdict()), y, patches)
    minimizer, result = _best(x, y, weight, np.log10(levels))
    if not result.success:
        text = "the fit did not converge: look at the wells in the figure"
        return blank | _said("not converged", text)
    if not _responds(y, weight, result):
        span = f"{number(facts['lowest'])} to {number(facts['highest'])}"
        text = f"not reached: no response from {span}"
        text += ", as a curve fits no better than a constant (F test)"
        return blank | _said("no response", text)
    return blank | _read_off(minimizer, result, facts)


def _read_off(minimizer: lmfit.Minimizer, result, facts: dict) -> dict:
    """Plateaus, slope and IC50 of a curve that responds, with what may be said of it."""
    values = {name: float(result.params[name].value) for name in ("top", "bottom", "hill")}
    if values["top"] < values["bottom"]:
        text = "the live-patch fraction rises with concentration: there is no IC50"
        return values | _said("rising", text)
    low, high, by = limits(minimizer, result)
    ic50 = 10 ** result.params["log_ic50"].value
    return values | _judge(ic50, low, high, facts) | {"interval_by": by}


def _best(x, y, weight, log_levels) -> tuple[lmfit.Minimizer, lmfit.minimizer.MinimizerResult]:
    """The best of fits started at several concentrations: the surface has local minima."""
    low, high = log_levels[0] - DECADES, log_levels[-1] + DECADES

    def residual(params: lmfit.Parameters) -> np.ndarray:
        return weight * (curve(x, **params.valuesdict()) - y)

    tried = []
    top, bottom = (np.clip(y[x == level].mean(), 0.01, 0.99) for level in (x.min(), x.max()))
    for start in np.quantile(log_levels, [0.1, 0.5, 0.9]):
        params = lmfit.Parameters()
        params.add("top", top, min=0, max=1)
        params.add("bottom", bottom, min=0, max=1)
        params.add("log_ic50", start, min=low, max=high)
        params.add("hill", 1.5, min=HILL[0], max=HILL[1])
        minimizer = lmfit.Minimizer(residual, params)
        tried.append((minimizer, minimizer.minimize(method="leastsq")))
    return min(tried, key=lambda pair: (not pair[1].success, pair[1].chisqr))


def _weights(expected: np.ndarray, y: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """One over the standard error of each well, mean 1, from the curve of a first fit: (n,)."""
    p = (expected * patches + 2) / (patches + 4)  # Agresti and Coull 1998: no weight is infinite
    binomial = p * (1 - p) / patches
    between = max(0.0, float(np.mean((y - expected) ** 2 - binomial)))
    weight = 1 / np.sqrt(binomial + between)
    return weight / weight.mean()


def _responds(y: np.ndarray, weight: np.ndarray, result) -> bool:
    """Whether the curve explains more than one mean does: F test of the extra sum of squares."""
    mean = np.average(y, weights=weight**2)
    flat = float((weight**2 * (y - mean) ** 2).sum())
    if result.chisqr <= 1e-12 * max(flat, 1e-12):
        return flat > 1e-12
    f = (flat - result.chisqr) / 3 / (result.chisqr / result.nfree)
    return bool(stats.f.sf(f, 3, result.nfree) < ALPHA)


def _judge(ic50: float, low: float, high: float, facts: dict) -> dict:
    """What may be said of an IC50 and its limits, given the concentrations tested."""
    lowest, highest = facts["lowest"], facts["highest"]
    ends = {"low": low, "high": high}
    limits = {k: float(v) if np.isfinite(v) and v > 0 else None for k, v in ends.items()}
    if ic50 > highest:
        least = f" (95% interval from {number(low)})" if limits["low"] else ""
        text = f"> {number(highest)}{least}: not reached within the tested range"
        return limits | _said("above", text)
    if ic50 < lowest:
        text = f"< {number(lowest)}: the fall begins below the tested range"
        return limits | _said("below", text)
    at = {"ic50": float(ic50), **limits}
    if np.isnan(low):
        return at | _said("fitted", f"{number(ic50)}; its interval cannot be given")
    left = f"< {number(lowest)}" if low < lowest else number(low)
    right = f"> {number(highest)}" if high > highest else number(high)
    beyond = "above" if high > highest else "below" if low < lowest else ""
    text = f"{number(ic50)} (95% interval {left} to {right})"
    text += f"; it may lie {beyond} the tested range" if beyond else ""
    return at | _said("fitted", text)


def _said(outcome: str, text: str) -> dict:
    return {"outcome": outcome, "text": text}
