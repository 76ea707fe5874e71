"""Edge effect of a plate: outer minus inner wells of the same treatment, by permutation.

Which wells of a treatment are outer is shuffled within the treatment, so that neither treatments on
one side only nor treatments whose wells scatter more than others count (a linear model with one
error for all treatments finds an effect in 6.5% of plates without one, where it promises 5%). The
interval holds every difference that the same test does not reject.
"""

import numpy as np
import pandas as pd

from .layout import is_outer, plate_format

TREATMENT = ["compound", "concentration", "control"]
PERMUTATIONS, SEED, STEPS = 2000, 1, 30


def edge_effect(part: pd.DataFrame, confidence: float = 0.95) -> dict:
    """Outer minus inner wells of the same treatment: the difference of live-patch fractions, its
    interval and p.

    part: the wells of one plate and time. The difference is that of a linear model with a level for
    each treatment and one difference for the rim. None with the reason where layout and treatment
    cannot be told apart.
    """
    form = plate_format(part["well"])
    if form is None:
        return _not_given("the wells' names are not those of a plate")
    known = part.dropna(subset=["live_patch_fraction"])
    known = known.assign(
        outer=[float(is_outer(well, form)) for well in known["well"]],
        treatment=known.groupby(TREATMENT, dropna=False).ngroup(),
    )
    both = known.groupby("treatment")["outer"].transform("nunique") == 2
    used = known[both]
    if used.empty:
        reason = "no treatment has both outer and inner wells"
        return _not_given(f"{reason}: an edge effect cannot be told from the layout")
    y = used["live_patch_fraction"]
    y = y - y.groupby(used["treatment"]).transform("mean")
    if np.allclose(y, 0):
        return _not_given("the wells of each treatment have one and the same live-patch fraction")
    outer, treatment = used["outer"].to_numpy(), used["treatment"].to_numpy()
    difference, low, high, p = permuted(y.to_numpy(), outer, treatment, confidence)
    return {
        "difference": difference, "low": low, "high": high, "p": p, "outer": int(outer.sum()),
        "inner": int((1 - outer).sum()), "confounded": int((~both).sum()), "reason": "",
    }  # fmt: skip


def permuted(
    y: np.ndarray, outer: np.ndarray, treatment: np.ndarray, confidence: float
) -> tuple[float, float, float, float]:
    """The difference, both ends of its interval within -1 to 1, and its p, from wells (n,) whose
    values are relative to their treatment's mean.
    """
    x = outer - pd.Series(outer).groupby(treatment).transform("mean").to_numpy()
    rng = np.random.default_rng(SEED)
    ranks = np.argsort(treatment + rng.random((PERMUTATIONS, len(x))), axis=1)
    shuffled = np.empty_like(ranks, dtype=float)
    shuffled[:, np.argsort(treatment, kind="stable")] = x[ranks]
    of_y, of_x, scale = shuffled @ y, shuffled @ x, float(x @ x)
    difference = float(x @ y) / scale

    def p_of(shift: float) -> float:
        beyond = np.abs(of_y - shift * of_x) >= abs(scale * (difference - shift)) - 1e-12
        return float((beyond.sum() + 1) / (PERMUTATIONS + 1))

    low, high = (_end(p_of, difference, end, 1 - confidence) for end in (-1.0, 1.0))
    return difference, low, high, p_of(0.0)


def _end(p_of, inside: float, outside: float, least: float) -> float:
    """Where p falls below `least` between a difference that is accepted and one far from it."""
    if p_of(outside) >= least:
        return outside
    for _ in range(STEPS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if p_of(middle) >= least else (inside, middle)
    return inside


def _not_given(reason: str) -> dict:
    return {"difference": None, "reason": reason}
