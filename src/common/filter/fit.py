"""Fits the empty-patch filter to annotated windows: support vector machines, and how well they do.

The paper (step 2) leaves open whether its SVM saw one class or two, the kernel, and which class its
F1 = 0.833 is for. Here: two classes (cells against empty and unusable together) and a linear kernel
by default (features outnumber rows), weighted so that both classes count alike, both as parameters;
F1 is given for both classes, cross-validated by image.
"""

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, OneClassSVM

from ..metrics.intervals import percentile, resample
from ..scoring.emptiness import VERDICTS, EmptyFilter, Svm, decide, detail
from ..workspace.sections import Filter

LEAST_ROWS = 20  # annotated windows of each class below which rules replace the SVM
OUTLIER_SDS = 2.0  # robust standard deviations below the usual from which a rule rejects
# Texture over contrast of white noise: (1/25 - 1/441) ** 0.5, for means over 5 and 21 px
NOISE_TEXTURE = 0.194
ONE_CLASS_NU = 0.1  # share of annotated cells windows that a one-class SVM may leave outside
RESAMPLES = 1000
PAPER_F1 = 0.833  # Pattarone et al. 2021; of which class is not stated


def fit_filter(
    table: pd.DataFrame, features: np.ndarray, reference: pd.DataFrame, params: Filter, source: dict
) -> EmptyFilter:
    """The filter of annotated windows (verdict, measures) and their features (N, D): an SVM, or
    rules with too few.
    """
    cells = (table["verdict"] == "cells").to_numpy()
    facts = {
        "arch": params.arch,
        "sees": params.sees,
        "classes": list(VERDICTS),
        "weights": source,
        "annotations": tally(table["verdict"]),
    }
    if min(cells.sum(), (~cells).sum()) < LEAST_ROWS:
        facts["limits"] = limits(reference, params.max_border)
        return EmptyFilter({"method": "rules", **facts})
    facts |= {"kernel": params.kernel, "svm": params.svm, "C": params.C}
    facts["limits"] = limits(table[cells], params.max_border)
    options = {"kernel": params.kernel, "C": params.C}
    machine = fit_svm(features, cells, one_class=params.svm == "one_class", **options)
    empty = (table["verdict"] == "empty").to_numpy()
    second = min(empty.sum(), (~cells & ~empty).sum()) >= LEAST_ROWS
    rejects = fit_svm(features[~cells], empty[~cells], **options) if second else None
    facts["rejects"] = "svm" if second else "sharpness"
    return EmptyFilter({"method": "svm", **facts}, machine, rejects)


def quality(table: pd.DataFrame, features: np.ndarray, chosen: EmptyFilter, params: Filter) -> dict:
    """F1 of both classes with intervals over images: cross-validated for an SVM, of the rules as
    they stand else.
    """
    cells = (table["verdict"] == "cells").to_numpy()
    images = table["image_id"].to_numpy()
    if chosen.cells is None:
        scores = decide(features, table, chosen)[1]
    else:
        options = {"kernel": params.kernel, "C": params.C, "one_class": params.svm == "one_class"}
        scores = cross_validate(features, cells, images, params.folds, params.seed, **options)
    scored = np.isfinite(scores)
    facts = {
        "scored_windows": int(scored.sum()),
        "scored_images": len(set(images[scored])),
        "paper_f1": PAPER_F1,
    }
    if cells[scored].all() or not cells[scored].any():
        return facts | {"f1_cells": None, "f1_not_cells": None}
    return f1_scores(cells[scored], scores[scored] > 0, images[scored], params.seed) | facts


def tally(verdicts: pd.Series) -> dict[str, int]:
    """How often each verdict occurs."""
    return {name: int((verdicts == name).sum()) for name in VERDICTS}


def fit_svm(
    features: np.ndarray, positive: np.ndarray, kernel: str, C: float, one_class: bool = False
) -> Svm:
    """SVM on standardised features (N, D): above zero is `positive` (N,) bool. One-class: fitted on
    these alone.
    """
    kept = features[positive] if one_class else features
    scaler = StandardScaler().fit(kept.astype(np.float64))
    x = scaler.transform(kept.astype(np.float64))
    if one_class:
        model = OneClassSVM(kernel=kernel, nu=ONE_CLASS_NU).fit(x)
    else:
        model = SVC(kernel=kernel, C=C, class_weight="balanced").fit(x, positive)
    gamma = np.asarray([model._gamma if kernel == "rbf" else 0.0])
    learnt = model.support_vectors_, model.dual_coef_[0], model.intercept_
    return Svm(kernel, scaler.mean_, scaler.scale_, *learnt, gamma)


def cross_validate(
    features: np.ndarray, positive: np.ndarray, images: np.ndarray, folds: int, seed: int, **options
) -> np.ndarray:
    """Out-of-fold decision values (N,); all windows of an image are in one fold. NaN where a fold
    had nothing to learn.

    Fewer folds than asked if fewer images hold a class.
    """
    scores = np.full(len(features), np.nan)
    folds = min(folds, *(len(set(images[positive == side])) for side in (True, False)))
    if folds < 2:
        return scores
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(features, positive, images):
        if len(set(positive[train])) == 2:
            machine = fit_svm(features[train], positive[train], **options)
            scores[test] = machine.decision(features[test])
    return np.round(scores, 6)


def f1_scores(
    truth: np.ndarray, kept: np.ndarray, images: np.ndarray, seed: int
) -> dict[str, float | list[float]]:
    """F1 of cells and of not cells from (N,) bool, each with a 95% interval by bootstrap over
    images.
    """
    outcomes = [truth & kept, truth & ~kept, ~truth & kept, ~truth & ~kept]
    _, codes = np.unique(images, return_inverse=True)
    # (images, 4)
    counts = np.stack([np.bincount(codes, weights=outcome) for outcome in outcomes], axis=1)
    random = np.random.default_rng(seed)
    draws = resample(len(counts), RESAMPLES, random)
    result = {}
    for name, hit in (("cells", 0), ("not_cells", 3)):
        both = np.vstack([counts.sum(axis=0), draws @ counts])
        with np.errstate(invalid="ignore"):  # of a draw in which nothing is or is called so: none
            values = 2 * both[:, hit] / (2 * both[:, hit] + both[:, 1] + both[:, 2])
        bounds = percentile(values[1:], 0.95, len(counts))
        result[f"f1_{name}"] = round(float(values[0]), 6)
        result[f"f1_{name}_interval_95"] = [round(bound, 6) for bound in bounds]
    return result


def limits(windows: pd.DataFrame, max_border: float) -> dict[str, float]:
    """Least detail and sharpness of windows (N rows of measures), and the most border.

    Detail: two robust standard deviations below the median logarithm; among windows that are all
    alike few fall below. Blurred means a smaller share of texture than white noise would leave.
    """
    logs = np.log(np.maximum(detail(windows), 1e-9))
    middle = np.median(logs)
    spread = 1.4826 * np.median(np.abs(logs - middle))
    least = round(float(np.exp(middle - OUTLIER_SDS * spread)), 9)
    return {"border": max_border, "detail": least, "sharpness": NOISE_TEXTURE}
