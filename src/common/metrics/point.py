"""Numbers of a two-class test: one value each from scikit-learn, and whole bootstraps at once from
weights.

`live` is always a boolean array (n,), the positive class; `score` ranks patches (any increasing
function of the live probability); `call` is a boolean array, called live. A weight row says how
often each patch stands in one resample: the weighted functions take (B, n) of them and equal
scikit-learn's with `sample_weight`, without B calls.
"""

import numpy as np
from scipy import stats
from sklearn import metrics as sk

THRESHOLDED = ["balanced_accuracy", "sensitivity", "specificity", "f1", "mcc", "accuracy"]


def point_metrics(live: np.ndarray, score: np.ndarray, call: np.ndarray) -> dict[str, float]:
    """All metrics of one set of patches; NaN for those that need both classes where one lacks.

    Sensitivity is the recall of the live class, specificity the recall of the dead class; F1 and
    average precision are of the live class.
    """
    tn, fp, fn, tp = sk.confusion_matrix(live, call, labels=[False, True]).ravel()
    both = bool(live.any() and not live.all())
    return {
        "balanced_accuracy": float(sk.balanced_accuracy_score(live, call)) if both else np.nan,
        "auc": float(sk.roc_auc_score(live, score)) if both else np.nan,
        "average_precision": float(sk.average_precision_score(live, score)) if both else np.nan,
        "f1": float(sk.f1_score(live, call, zero_division=0)) if both else np.nan,
        "mcc": float(sk.matthews_corrcoef(live, call)) if both else np.nan,
        "sensitivity": tp / (tp + fn) if tp + fn else np.nan,
        "specificity": tn / (tn + fp) if tn + fp else np.nan,
        "accuracy": (tp + tn) / len(live) if len(live) else np.nan,
    }


def confusion(live: np.ndarray, call: np.ndarray) -> dict[str, int]:
    """Counts of the four cells, named actual_as_called."""
    cells = sk.confusion_matrix(live, call, labels=[False, True]).ravel().tolist()
    return dict(zip(["dead_as_dead", "dead_as_live", "live_as_dead", "live_as_live"], cells))


def weighted_thresholded(
    live: np.ndarray, call: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """The metrics of THRESHOLDED under (B, n) weights: arrays (B,), NaN where a class lacks."""
    cells = np.stack([live & call, live & ~call, ~live & call, ~live & ~call], axis=1)
    tp, fn, fp, tn = (weights @ cells.astype(weights.dtype)).astype(float).T
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
        spread = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        return {
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "sensitivity": sensitivity,
            "specificity": specificity,
            "f1": 2 * tp / (2 * tp + fp + fn),
            "mcc": np.where(spread > 0, (tp * tn - fp * fn) / np.where(spread > 0, spread, 1), 0.0),
            "accuracy": (tp + tn) / (tp + fn + fp + tn),
        }


def weighted_ranked(
    live: np.ndarray, score: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """AUC (ties count one half) and average precision under (B, n) weights: arrays (B,), NaN where
    a class lacks.

    One sort serves every resample: patches of equal score are summed, and cumulative sums give
    every operating point.
    """
    order = np.argsort(-score, kind="stable")
    firsts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    sorted_weights, is_live = weights[:, order], live[order]
    tp = np.add.reduceat(sorted_weights * is_live, firsts, axis=1)  # per tie, then cumulated
    fp = np.add.reduceat(sorted_weights * ~is_live, firsts, axis=1)
    tps, fps = tp.cumsum(1), fp.cumsum(1)
    lives, deads = tps[:, -1], fps[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        above = deads[:, None] - fps + fp / 2
        precision = np.where(tps > 0, tps / np.where(tps + fps > 0, tps + fps, 1), 0)
        auc = (tp * above).sum(1) / (lives * deads)
        return {
            "auc": auc,
            "average_precision": np.where(deads > 0, (tp * precision).sum(1) / lives, np.nan),
        }


def weighted_metrics(
    live: np.ndarray, score: np.ndarray, call: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Everything of `point_metrics` under (B, n) weights."""
    return weighted_thresholded(live, call, weights) | weighted_ranked(live, score, weights)


def correlations(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Pearson's and Spearman's coefficient of two (n,) arrays; NaN below 3 patches or where one
    does not vary.
    """
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return {"pearson": np.nan, "spearman": np.nan}
    return {"pearson": float(stats.pearsonr(x, y)[0]), "spearman": float(stats.spearmanr(x, y)[0])}


def weighted_correlations(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Pearson and Spearman under (B, n) whole-number weights (copies of a patch); ranks are those
    of each resample.
    """
    x, y = (v - v.mean() for v in (x, y))
    ranks = weighted_ranks(x, weights), weighted_ranks(y, weights)
    return {"pearson": _pearson(x[None], y[None], weights), "spearman": _pearson(*ranks, weights)}


def weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mid-ranks (B, n) of values (n,) each standing weights (B, n) times; those of absent values
    mean nothing.
    """
    order = np.argsort(values, kind="stable")
    firsts = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0])
    ties = np.add.reduceat(weights[:, order], firsts, axis=1)
    middle = ties.cumsum(1) - (ties - 1) / 2
    ranks = np.empty(weights.shape)
    ranks[:, order] = np.repeat(middle, np.diff(np.r_[firsts, len(values)]), axis=1)
    return ranks


def _pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights.sum(1, keepdims=True)
    x = x - (weights * x).sum(1, keepdims=True) / total
    y = y - (weights * y).sum(1, keepdims=True) / total
    with np.errstate(divide="ignore", invalid="ignore"):
        return (weights * x * y).sum(1) / np.sqrt(
            (weights * x * x).sum(1) * (weights * y * y).sum(1)
        )
