"""Fits the empty-patch filter: annotations matched to windows, support vector machines, and how
well they do.

The paper (step 2) leaves open whether its SVM saw one class or two, the kernel, and which class its
F1 = 0.833 is for. Here: two classes (cells against empty and unusable together) and a linear kernel
by default (features outnumber rows), weighted so that both classes count alike, both as parameters;
F1 is given for both classes, cross-validated by image.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, OneClassSVM

from ..metrics.intervals import resample
from ..patches.store import PatchStore
from ..scoring.emptiness import VERDICTS, EmptyFilter, Svm, decide, detail, sharpness
from ..scoring.imaging import bright_field_measures
from ..workspace.errors import UserError
from ..workspace.params import Filter

COLUMNS = ["image_id", "y", "x", "size", "verdict", "annotator", "date"]
KEY = ["image_id", "y", "x", "size"]
LEAST_ROWS = 20  # annotated windows of each class below which rules replace the SVM
OUTLIER_SDS = 2.0  # robust standard deviations below the usual from which a rule rejects
NOISE_TEXTURE = (
    0.194  # texture over contrast of white noise: (1/25 - 1/441) ** 0.5, for means over 5 and 21 px
)
ONE_CLASS_NU = 0.1  # share of annotated cells windows that a one-class SVM may leave outside
RESAMPLES = 1000
MEASURES = ["focus", "texture", "contrast", "border"]  # those that the table of patches has
PAPER_F1 = 0.833  # Pattarone et al. 2021; of which class is not stated


class AnnotationError(UserError):
    """The annotation file cannot be used as it stands; the message names the line."""


@dataclass(frozen=True)
class Annotations:
    """Usable rows (image_id, y, x, size, verdict), and how many were left out, by reason."""

    rows: pd.DataFrame
    left_out: dict[str, int]


def read_annotations(path: Path) -> pd.DataFrame:
    """The rows of an annotation file.

    Raises AnnotationError for a missing file, column, or an unreadable line.
    """
    if not path.exists():
        raise AnnotationError(
            f"filter.annotations: {path} does not exist; a file with the header {','.join(COLUMNS)} alone will do"
        )
    table = pd.read_csv(path, dtype="str", keep_default_na=False, comment="#")
    if missing := [column for column in COLUMNS[:5] if column not in table]:
        raise AnnotationError(
            f"{path.name} lacks the column {', '.join(missing)}; it needs {','.join(COLUMNS)}"
        )
    for column in ("y", "x", "size"):
        numbers = pd.to_numeric(table[column], errors="coerce")
        _refuse(
            path,
            table,
            numbers.isna() | (numbers % 1 != 0) | (numbers < 0),
            column,
            "a whole number of pixels",
        )
        table[column] = numbers.fillna(0).astype("int64")
    _refuse(
        path, table, ~table["verdict"].isin(VERDICTS), "verdict", f"one of {', '.join(VERDICTS)}"
    )
    return table


def match(table: pd.DataFrame, frames: pd.DataFrame) -> Annotations:
    """Annotated windows that lie within the frames (image_id, height, width), each once.

    A window need not be in the current grid. Left out and counted: rows of unknown images, windows
    beyond their frame, windows annotated twice with different verdicts.
    """
    sizes = frames.set_index("image_id")[["height", "width"]]
    known = table["image_id"].isin(sizes.index)
    inside = table[known].join(sizes, on="image_id")
    fits = (
        (inside["y"] + inside["size"] <= inside["height"])
        & (inside["x"] + inside["size"] <= inside["width"])
        & (inside["size"] > 0)
    )
    rows = inside.loc[fits, [*KEY, "verdict"]].drop_duplicates()
    disputed = rows.duplicated(KEY, keep=False)
    left_out = {
        "of_no_image": int((~known).sum()),
        "beyond_frame": int((~fits).sum()),
        "disputed": int(disputed.sum()),
    }
    return Annotations(rows[~disputed].reset_index(drop=True), left_out)


def annotated_windows(store: PatchStore, patches: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The annotated rows with their measures, and `place`: the row of `patches`, or -1 outside the
    grid.
    """
    place = patches[KEY].assign(place=np.arange(len(patches)))
    merged = rows.merge(place, on=KEY, how="left")
    merged["place"] = merged["place"].fillna(-1).astype("int64")
    names = [name for name in MEASURES if name in patches]
    measured = patches[names].reindex(merged["place"]).set_axis(merged.index)
    for image_id, part in merged[merged["place"] < 0].groupby("image_id"):
        frame = np.asarray(store.brightfield(image_id))
        found = bright_field_measures(
            frame, black_border(frame), part[["y", "x", "size"]].to_numpy(np.int64)
        )
        measured.loc[part.index, names] = np.column_stack([found[name] for name in names])
    return merged.join(measured)


def fit_filter(
    table: pd.DataFrame, features: np.ndarray, reference: pd.DataFrame, params: Filter, source: dict
) -> EmptyFilter:
    """The filter of annotated windows (verdict, measures) and their features (N, D): an SVM, or
    rules with too few.
    """
    cells = (table["verdict"] == "cells").to_numpy()
    facts = {
        "arch": params.arch,
        "classes": list(VERDICTS),
        "weights": source,
        "annotations": tally(table["verdict"]),
    }
    if min(cells.sum(), (~cells).sum()) < LEAST_ROWS:
        return EmptyFilter(
            {"method": "rules", **facts, "limits": limits(reference, params.max_border)}
        )
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
        scores = decide(None, table, chosen)[1]
    else:
        options = {"kernel": params.kernel, "C": params.C, "one_class": params.svm == "one_class"}
        scores = cross_validate(features, cells, images, params.folds, params.seed, **options)
    scored = np.isfinite(scores)
    found = {
        "scored_windows": int(scored.sum()),
        "scored_images": len(set(images[scored])),
        "paper_f1": PAPER_F1,
    }
    if cells[scored].all() or not cells[scored].any():
        return found | {"f1_cells": None, "f1_not_cells": None}
    return f1_scores(cells[scored], scores[scored] > 0, images[scored], params.seed) | found


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
    model = (
        OneClassSVM(kernel=kernel, nu=ONE_CLASS_NU)
        if one_class
        else SVC(kernel=kernel, C=C, class_weight="balanced")
    )
    model.fit(x) if one_class else model.fit(x, positive)
    gamma = np.asarray([model._gamma if kernel == "rbf" else 0.0])
    return Svm(
        kernel,
        scaler.mean_,
        scaler.scale_,
        model.support_vectors_,
        model.dual_coef_[0],
        model.intercept_,
        gamma,
    )


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
            scores[test] = fit_svm(features[train], positive[train], **options).decision(
                features[test]
            )
    return np.round(scores, 6)


def f1_scores(
    truth: np.ndarray, found: np.ndarray, images: np.ndarray, seed: int
) -> dict[str, float | list[float]]:
    """F1 of cells and of not cells from (N,) bool, each with a 95% interval by bootstrap over
    images.
    """
    outcomes = [truth & found, truth & ~found, ~truth & found, ~truth & ~found]
    _, codes = np.unique(images, return_inverse=True)
    counts = np.stack(
        [np.bincount(codes, weights=outcome) for outcome in outcomes], axis=1
    )  # (images, 4)
    random = np.random.default_rng(seed)
    draws = resample(len(counts), RESAMPLES, random)
    result = {}
    for name, hit in (("cells", 0), ("not_cells", 3)):
        both = np.vstack([counts.sum(axis=0), draws @ counts])
        values = 2 * both[:, hit] / np.maximum(2 * both[:, hit] + both[:, 1] + both[:, 2], 1)
        result[f"f1_{name}"] = round(float(values[0]), 6)
        result[f"f1_{name}_interval_95"] = [
            round(float(v), 6) for v in np.percentile(values[1:], [2.5, 97.5])
        ]
    return result


def limits(windows: pd.DataFrame, max_border: float) -> dict[str, float]:
    """Least detail and sharpness of windows (N rows of measures), and the most border.

    Two robust standard deviations below the median logarithm: among windows that are all alike few
    fall below. Where texture is measured, blurred means a smaller share of it than white noise
    would leave.
    """
    found = {"border": max_border}
    for name, values in (("detail", detail(windows)), ("sharpness", sharpness(windows))):
        logs = np.log(np.maximum(values, 1e-9))
        middle = np.median(logs)
        spread = 1.4826 * np.median(np.abs(logs - middle))
        found[name] = round(float(np.exp(middle - OUTLIER_SDS * spread)), 9)
    return found | ({"sharpness": NOISE_TEXTURE} if "texture" in windows else {})


def black_border(frame: np.ndarray) -> np.ndarray:
    """(H, W) bool: black areas that registration left in an 8-bit frame; dark spots inside cells
    are none.

    For annotated windows outside the grid, whose counts of zero are not in the table of patches.
    """
    black = cv2.copyMakeBorder((frame == 0).astype(np.uint8), 4, 4, 4, 4, cv2.BORDER_REPLICATE)
    return cv2.morphologyEx(black, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))[4:-4, 4:-4] > 0


def _refuse(path: Path, table: pd.DataFrame, wrong: pd.Series, column: str, wanted: str) -> None:
    if wrong.any():
        line = int(np.flatnonzero(wrong)[0])
        raise AnnotationError(
            f"{path.name}, row {line + 1} below the header: {column} is '{table[column].iloc[line]}', not {wanted}"
            + (f" (and {int(wrong.sum()) - 1} more rows)" if wrong.sum() > 1 else "")
        )
