"""Sections of the evaluation record, from a test set of scored patches."""

from functools import partial

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from ..metrics.confounding import within_experiments, within_statistic
from ..metrics.intervals import binomial, wilson
from ..metrics.point import (
    THRESHOLDED,
    confusion,
    correlations,
    point_metrics,
    weighted_correlations,
    weighted_metrics,
)
from ..scoring.operating import Operating, calibrate
from . import calibration
from .testset import TestSet, of_width

ENOUGH = 5  # patches of each class from which on an experiment's own AUC says something


def sections(test: TestSet, at: Operating) -> dict[str, dict]:
    """The sections that rest on the test set and the operating point alone."""
    calibrated = {"temperature": at.temperature, "shift": at.shift}
    return {
        "overall": overall(test),
        "confusion": confusion(test.rows["live"], test.rows["called"]),
        "threshold": threshold_record(test, at),
        "calibration": calibrated | calibration_record(test),
        "conformal": conformal_record(test, at),
        "correlation": correlation(test),
        "within_experiment": within(test, test.column("score")),
    }


def overall(test: TestSet) -> dict[str, dict]:
    """Every metric with its value, the interval over patches and the one over groups.

    Over patches: the paper's formula for balanced accuracy, Wilson's for the other proportions,
    else a bootstrap of single patches.
    """
    live, score, called = (test.column(name) for name in ("live", "score", "called"))
    statistic = partial(weighted_metrics, live, score, called)
    patch, group = test.over_patches(statistic), test.over_groups(statistic)
    n, n_live, confidence = len(live), int(live.sum()), test.settings.confidence
    proportions = {"accuracy": n, "sensitivity": n_live, "specificity": n - n_live}
    record = {}
    for name, value in point_metrics(live, score, called).items():
        if name == "balanced_accuracy":
            independent = binomial(value, n, confidence)
        elif name in proportions:
            independent = wilson(value, proportions[name], confidence)
        else:
            independent = of_width(test.patch_interval(patch.get(name)))
        record[name] = {"value": value, "patch_interval": independent}
        record[name]["group_interval"] = of_width(test.group_interval(group.get(name)))
    return record


def correlation(test: TestSet) -> dict[str, dict]:
    """Pearson and Spearman of mean PI, and of the intensity that set the labels, with the live
    probability.
    """
    probability = test.column("probability")
    record: dict[str, dict] = {}
    for column in ("mean_pi", "intensity"):
        values = test.rows[column].to_numpy(float)
        statistic = partial(weighted_correlations, values, probability)
        patch, group = test.over_patches(statistic), test.over_groups(statistic)
        record[column] = {"n": len(values)} | {
            name: {
                "value": value,
                "patch_interval": test.patch_interval(patch.get(name)),
                "group_interval": test.group_interval(group.get(name)),
            }
            for name, value in correlations(values, probability).items()
        }
    return record


def within(test: TestSet, score: np.ndarray) -> dict | None:
    """AUC of a score (n,) within experiments with intervals over groups; None where the experiment
    of a patch is not known.

    mean: over the experiments with at least ENOUGH patches of each class, `n_mean` of them (over
    all with both classes if there is none such); pair_weighted: over all pairs of one experiment,
    of which the largest experiment has the share `largest_share`; pooled_two_class: the pooled AUC
    without experiments of one class.
    """
    if not test.knows_experiments:
        return None
    live, experiment = test.column("live"), test.column("experiment")
    counts = pd.crosstab(experiment, live).reindex(columns=[False, True], fill_value=0)
    pairs, least = counts.prod(axis=1), counts.min(axis=1)
    both = np.isin(experiment, counts.index[least > 0])
    enough = np.isin(experiment, counts.index[least >= ENOUGH])
    every = _within(test, score, np.ones(len(live), bool))
    large = _within(test, score, enough if enough.any() else both)
    known = both.any()
    return {
        "n_experiments": every["experiments"],
        "n_pairs": every["pairs"],
        "pair_weighted": every["pair_weighted"],
        "mean": large["mean"],
        "n_mean": large["experiments"],
        "largest_share": float(pairs.max() / pairs.sum()) if known else None,
        "pooled_two_class": float(roc_auc_score(live[both], score[both])) if known else None,
    }


def _within(test: TestSet, score: np.ndarray, rows: np.ndarray) -> dict:
    """AUC within experiments of some rows (n,) bool, both ways, with intervals over groups."""
    own = test.column("live")[rows], score[rows], test.column("experiment")[rows]
    value = within_experiments(*own)
    drawn = test.over_groups(within_statistic(*own, test.draws.codes[rows]), by_patch=False)
    aucs = {
        name: {
            "value": value[name],
            "group_interval": of_width(test.group_interval(drawn.get(name))),
        }
        for name in ("pair_weighted", "mean")
    }
    return {"experiments": value["experiments"], "pairs": value["pairs"]} | aucs


def calibration_record(test: TestSet) -> dict:
    """ECE and Brier score before (temperature 1) and after, and the mean probability beside the
    live fraction.

    `equal_classes`: the same after, under weights that make both classes count the same, as
    training does.
    """
    live, after = test.column("live"), test.column("probability")
    before, weights = calibrate(test.column("logit"), 1.0), calibration.equal_classes(live)
    both = {"before": before, "after": after}
    error, brier = calibration.expected_error, calibration.brier
    return {
        "ece": {when: error(probability, live) for when, probability in both.items()},
        "brier": {when: brier(probability, live) for when, probability in both.items()},
        "mean_probability": {when: float(values.mean()) for when, values in both.items()},
        "live_fraction": float(live.mean()),
        "equal_classes": {"ece": error(after, live, weights), "brier": brier(after, live, weights)},
        "bins": calibration.BINS,
    }


def threshold_record(test: TestSet, at: Operating) -> dict:
    """The operating threshold, and the thresholded metrics had it been 0.5."""
    half = test.column("probability") >= 0.5
    points = point_metrics(test.column("live"), test.column("score"), half)
    return {"value": at.threshold, "at_half": {name: points[name] for name in THRESHOLDED}}


def conformal_record(test: TestSet, at: Operating) -> dict:
    """The abstain band, and coverage, abstention and error on the test patches."""
    error = test.settings.abstain_error
    band = {"error": error, "live_from": at.live_from, "dead_to": at.dead_to}
    columns = [test.column(name) for name in ("call", "live", "covered")]
    summary = calibration.conformal_summary(*columns)
    return band | {"unit": test.settings.band} | summary | {"groups": by_group(test)}


def by_group(test: TestSet) -> dict:
    """How the band's promise held in each group: called, wrong among them, coverage."""
    named = test.rows["call"] != "abstain"
    wrong = named & (test.rows["call"] != test.rows["label"])
    each = test.rows.assign(named=named, wrong=wrong).groupby("group").agg(
        patches=("live", "size"), called=("named", "sum"), wrong=("wrong", "sum"),
        coverage=("covered", "mean"),
    )  # fmt: skip
    wrong = each["wrong"] / each["called"].where(each["called"] > 0)
    return {
        "n": len(each),
        "wrong_above_error": int((wrong > test.settings.abstain_error).sum()),
        "mean_wrong": float(wrong.mean()),
        "mean_coverage": float(each["coverage"].mean()),
        "each": each.reset_index().to_dict("records"),
    }
