"""From logits to a probability, a call and an abstention: temperature, threshold, reliability,
conformal band.

Everything is fitted on validation scores and applied to others; applied in operating.py.
"""

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from sklearn.metrics import brier_score_loss

from ..scoring.operating import Operating, calibrate

LOG_TEMPERATURE = (-4.0, 4.0)  # where it is looked for
BINS = 10


def fit_operating(
    logit: np.ndarray,
    live: np.ndarray,
    error: float,
    shifted: bool = False,
    groups: np.ndarray | None = None,
) -> Operating:
    """Temperature, threshold and conformal band from validation logits (n,) and truth (n,) bool.

    Raises ValueError if validation lacks a class: neither a threshold nor a band can then be
    chosen.
    """
    if live.all() or not live.any():
        raise ValueError("validation holds one class only")
    temperature, shift = fit_platt(logit, live) if shifted else (fit_temperature(logit, live), 0.0)
    probability = calibrate(logit, temperature, shift)
    live_from, dead_to = fit_conformal(probability, live, error, groups)
    threshold = fit_threshold(probability, live, live_from, dead_to)
    return Operating(temperature, threshold, live_from, dead_to, shift)


def fit_platt(logit: np.ndarray, live: np.ndarray) -> tuple[float, float]:
    """Temperature and shift of (logit - shift) / temperature, to 6 decimals (Platt 1999).

    Both classes weigh the same, so that the probability is that of equal classes, as a classifier's
    is. A logit that ranks the wrong way round gets the highest temperature: no evidence.
    """
    weights, truth = equal_classes(live), smoothed(live)

    def loss(at: np.ndarray) -> float:
        scaled = (logit - at[1]) / np.exp(at[0])
        return float((weights * (np.logaddexp(0, scaled) - truth * scaled)).mean())

    middle = float(np.mean([np.median(logit[live]), np.median(logit[~live])]))
    span = (float(np.min(logit)) - 1, float(np.max(logit)) + 1)
    fit = minimize(loss, [0.0, middle], bounds=[LOG_TEMPERATURE, span], method="L-BFGS-B")
    return round(float(np.exp(fit.x[0])), 6), round(float(fit.x[1]), 6)


def smoothed(live: np.ndarray) -> np.ndarray:
    """Truth (n,) as Platt smooths it: (n + 1) / (n + 2) for a class of n."""
    lives, deads = int(live.sum()), int((~live).sum())
    return np.where(live, (lives + 1) / (lives + 2), 1 / (deads + 2))


def fit_temperature(logit: np.ndarray, live: np.ndarray) -> float:
    """The temperature T that minimises the cross entropy of logit / T (Guo et al. 2017), rounded to
    6 decimals.

    Truth is smoothed as by Platt (1999), (n + 1) / (n + 2) for a class of n: a few validation
    patches that happen to be separated would otherwise drive T to zero and every probability to 0
    or 1.
    """
    truth = smoothed(live)

    def loss(log_t: float) -> float:
        scaled = logit / np.exp(log_t)
        return float((np.logaddexp(0, scaled) - truth * scaled).mean())

    fit = minimize_scalar(loss, bounds=LOG_TEMPERATURE, method="bounded", options={"xatol": 1e-8})
    return round(float(np.exp(fit.x)), 6)


def fit_threshold(
    probability: np.ndarray, live: np.ndarray, live_from: float, dead_to: float
) -> float:
    """The threshold with the highest balanced accuracy; among equals the one nearest to 0.5,
    rounded to 6 decimals.

    Candidates lie midway between neighbouring scores, and within the abstain band: a patch that the
    conformal call names live or dead is so called by the threshold too.
    """
    values = np.unique(np.r_[0.0, probability, 1.0])
    # Live is called from the threshold up, dead up to dead_to
    band = sorted((live_from, dead_to + 1e-6))
    candidates = np.unique(np.round(np.clip(np.r_[0.5, (values[1:] + values[:-1]) / 2], *band), 6))
    lives, deads = np.sort(probability[live]), np.sort(probability[~live])
    sensitivity = 1 - np.searchsorted(lives, candidates, side="left") / len(lives)
    specificity = np.searchsorted(deads, candidates, side="left") / len(deads)
    balanced = np.round((sensitivity + specificity) / 2, 12)
    best = np.flatnonzero(balanced == balanced.max())
    return float(candidates[best[np.argmin(np.abs(candidates[best] - 0.5))]])


def fit_conformal(
    probability: np.ndarray, live: np.ndarray, error: float, groups: np.ndarray | None = None
) -> tuple[float, float]:
    """(live_from, dead_to) of the class-conditional (Mondrian) split-conformal set at miscoverage
    `error`.

    A class belongs to the set of a patch unless its probability is lower than that of all but a
    share `error` of the class's validation patches: at least 1 - error of each class keep their own
    class in their set, if patches of validation and test are exchangeable (Vovk 2012). With groups
    (n,), it is the groups that are exchangeable and a new one that is promised it: groups weigh the
    same, and the new one's share 1 / (K + 1) counts as missed (hierarchical conformal prediction:
    Lee, Barber and Willett 2023). Too few patches or groups of a class put it into every set.
    """
    own_groups = np.arange(len(live)) if groups is None else np.asarray(groups)
    live_from = _lowest(probability[live], own_groups[live], error)
    dead_to = 1 - _lowest(1 - probability[~live], own_groups[~live], error)
    return live_from, round(dead_to, 6)


def _lowest(own: np.ndarray, groups: np.ndarray, error: float) -> float:
    """The highest own-class probability (of n) below which lies at most a share `error`."""
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(own, kind="stable")
    share = 1 / ((len(sizes) + 1) * sizes[place[order]])
    below = np.cumsum(share) - share + 1 / (len(sizes) + 1)
    allowed = own[order][below <= error + 1e-9]
    return round(float(allowed[-1]), 6) if len(allowed) else 0.0


def conformal_summary(call: np.ndarray, live: np.ndarray, covered: np.ndarray) -> dict:
    """Coverage (share of patches whose set holds the truth), abstention rate, and error among those
    called.
    """
    called = call != "abstain"
    wrong = called & ((call == "live") != live)
    return {
        "coverage": _share(covered),
        "coverage_live": _share(covered[live]),
        "coverage_dead": _share(covered[~live]),
        "abstention": _share(~called),
        "n_called": int(called.sum()),
        "error_among_called": _share(wrong[called]),
    }


def _share(part: np.ndarray) -> float:
    """Share of (n,) bool that is true; NaN of none."""
    return float(part.mean()) if len(part) else np.nan


def expected_error(
    probability: np.ndarray, live: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """ECE of the live probability: mean |observed - predicted live fraction| over equal bins,
    weighted by patches.
    """
    weights = np.ones(len(live)) if weights is None else weights
    gaps = np.bincount(_bins(probability), weights * (probability - live))
    return float(np.abs(gaps).sum() / weights.sum())


def brier(probability: np.ndarray, live: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean squared difference of live probability and truth."""
    return float(brier_score_loss(live, probability, sample_weight=weights))


def equal_classes(live: np.ndarray) -> np.ndarray:
    """Weights (n,) under which both classes count the same, as in training; ones where a class
    lacks.
    """
    if live.all() or not live.any():
        return np.ones(len(live))
    return len(live) * np.where(live, 0.5 / live.sum(), 0.5 / (~live).sum())


def reliability(probability: np.ndarray, live: np.ndarray) -> list[dict]:
    """Rows (lower, upper, n, probability, live_fraction) of the filled bins of equal width."""
    which = _bins(probability)
    return [
        {
            "lower": b / BINS,
            "upper": (b + 1) / BINS,
            "n": int((which == b).sum()),
            "probability": float(probability[which == b].mean()),
            "live_fraction": float(live[which == b].mean()),
        }
        for b in np.unique(which).tolist()
    ]


def _bins(probability: np.ndarray) -> np.ndarray:
    return np.minimum((probability * BINS).astype(int), BINS - 1)
