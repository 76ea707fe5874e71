"""Baselines beside every model: linear models on the frame's exposure, on texture and on the frozen
pretrained backbone, and the experiment alone.

The linear ones are scikit-learn's logistic regression on standardised features, classes weighted
equally, fitted on the model's own training part, and regularised and called by its validation part,
as the model is.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from ..metrics.confounding import live_share, live_share_of_others
from ..metrics.paired import MAIN, difference
from ..metrics.point import point_metrics, weighted_metrics
from ..patches.rounds import Round
from .record import within
from .rounds import operate_rounds, test_rows
from .testset import TestSet, of_width

BASELINE_WINDOWS = 4000  # training windows that the linear models are fitted on, at most
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of their regularisation, chosen by the validation AUC
SOLVER = "newton-cholesky"  # ends at the optimum; lbfgs ends where rounding errors let it
WITHOUT_VALIDATION = 1e-2  # C where validation has one class only
BRIGHTFIELD = ("brightfield_bits", "brightfield_median", "brightfield_contrast")
Features = Callable[[pd.DataFrame], np.ndarray]


def baselines(
    features: dict[str, Features], splits: pd.DataFrame, held_out: Sequence[Round],
    scored: pd.DataFrame, test: TestSet,
) -> dict:  # fmt: skip
    """The experiment's live share as the only score, and a linear model on each kind of features,
    operated as the model is.

    features: name to what makes (N, F) of a table of windows; scored: of the model's rounds. None
    where a baseline cannot be had.
    """
    record: dict = {"experiment_only": experiment_only(test)}
    for name, compute in features.items():
        logits = round_logits(splits, held_out, compute, test.settings.seed)
        if logits is None:
            record[name] = None
            continue
        operated, _ = operate_rounds(scored.assign(logit=logits), test.settings)
        record[name] = beside_model(test, test_rows(operated))
    return record


def acquisition(frames: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    """What the camera and the lamp say of windows (image_id), and no cell: (N, 3), logarithms of
    the bits, median count and contrast of the bright-field frame. All windows of a frame have
    the same. frames: by image_id.
    """
    own = frames.loc[table["image_id"], list(BRIGHTFIELD)].to_numpy(np.float64)
    return np.log(own.clip(min=1e-3))


def experiment_only(test: TestSet) -> dict | None:
    """AUC of the experiment's own live share as the score, with and without the patch itself; None
    if not known.
    """
    if not test.knows_experiments:
        return None
    live, experiment = test.column("live"), test.column("experiment")
    scores = {
        "in_sample": live_share(live, experiment),
        "leave_one_out": live_share_of_others(live, experiment),
    }
    record: dict = {"n_experiments": int(test.rows["experiment"].nunique())}
    for name, score in scores.items():
        drawn = test.over_groups(partial(weighted_metrics, live, score, score >= 0.5))
        value = point_metrics(live, score, score >= 0.5)["auc"]
        record[name] = {
            "auc": {"value": value, "group_interval": test.group_interval(drawn.get("auc"))}
        }
    return record


def beside_model(test: TestSet, other: pd.DataFrame) -> dict:
    """A baseline's metrics on the model's own test patches, and by how much the model exceeds it.

    other: the same rows with the baseline's score and called.
    """
    live, score, called = (other[name].to_numpy() for name in ("live", "score", "called"))
    drawn = test.over_groups(partial(weighted_metrics, live, score, called))
    points = point_metrics(live, score, called)
    record: dict = {}
    for name in MAIN:
        interval = of_width(test.group_interval(drawn.get(name)))
        record[name] = {"value": points[name], "group_interval": interval}
    gains = difference(test.rows, other, test.draws, test.settings.confidence)
    record |= {f"model_minus_{name}": gain for name, gain in gains.items()}
    return record | {"within_experiment": within(test, score)}


def round_logits(
    splits: pd.DataFrame, held_out: Sequence[Round], features: Features, seed: int
) -> np.ndarray | None:
    """Logits of a linear model for the rows of `score_rounds`; None if a round's training part has
    one class.

    Each window's features are computed once, however many rounds use it.
    """
    random = np.random.default_rng(seed)
    live = splits["live"].to_numpy()
    drawn = [_sample(np.flatnonzero(part.train), random) for part in held_out]
    scored = [np.flatnonzero(part.valid | part.test) for part in held_out]
    if any(live[rows].all() or not live[rows].any() for rows in drawn):
        return None
    used = np.unique(np.concatenate(drawn + scored))
    values = features(splits.iloc[used])
    logits = []
    for part, train, rows in zip(held_out, drawn, scored):
        fitted_on = values[np.searchsorted(used, train)]
        applied_to = values[np.searchsorted(used, rows)]
        logits.append(
            linear_logits(fitted_on, live[train], applied_to, part.valid[rows], live[part.valid])
        )
    return np.round(np.concatenate(logits), 6)


def _sample(rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """At most BASELINE_WINDOWS of the rows, sorted."""
    count = min(BASELINE_WINDOWS, len(rows))
    return np.sort(random.choice(rows, count, replace=False))


def linear_logits(
    train: np.ndarray,
    live: np.ndarray,
    others: np.ndarray,
    valid: np.ndarray,
    valid_live: np.ndarray,
) -> np.ndarray:
    """Logits (M,) for features `others` (M, F) of a logistic regression fitted on `train` (N, F)
    and `live` (N,) bool.

    valid: (M,) bool, the validation rows of `others`, by whose AUC the regularisation is chosen;
    valid_live: their truth. Of equal ones the strongest.
    """
    scaler = StandardScaler().fit(train.astype(np.float64))  # in single no solver gets there
    train = scaler.transform(train.astype(np.float64))
    others = scaler.transform(others.astype(np.float64))
    both = valid_live.any() and not valid_live.all()
    candidates = []
    # each from where the one before ended, which is near
    model = LogisticRegression(class_weight="balanced", solver=SOLVER, tol=1e-8, warm_start=True)
    for c in STRENGTHS if both else [WITHOUT_VALIDATION]:
        logits = model.set_params(C=c).fit(train, live).decision_function(others)
        auc = round(roc_auc_score(valid_live, logits[valid]), 9) if both else 0
        candidates.append((auc, logits))
    return max(candidates, key=lambda candidate: candidate[0])[1]
