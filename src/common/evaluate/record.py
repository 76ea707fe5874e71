"""Sections of the evaluation record, from one table of scored test patches.

The table has, per patch: live (bool), logit, score (the calibrated logit, for ranking), probability
(the calibrated live probability), called (bool, live at the operating threshold), call (live, dead
or abstain), covered (bool, the conformal set holds the truth), group, experiment, mean_pi and
intensity.
"""

from functools import partial

import numpy as np
import pandas as pd

from ..metrics.confounding import (
    live_share,
    live_share_of_others,
    within_experiments,
    within_statistic,
)
from ..metrics.intervals import (
    Resamples,
    binomial,
    bootstrap,
    draw,
    draw_patches,
    percentile,
    wilson,
)
from ..metrics.point import (
    THRESHOLDED,
    correlations,
    point_metrics,
    weighted_correlations,
    weighted_metrics,
)
from ..scoring.operating import Operating, calibrate
from ..workspace.params import Evaluate
from . import calibration
from .baselines import BASELINE_WINDOWS

MAIN = ["auc", "average_precision", "balanced_accuracy"]
UNITS = {"image": "image_id", "group": "group", "experiment": "experiment"}


def resamples(test: pd.DataFrame, settings: Evaluate) -> Resamples:
    """The bootstrap draws of a test table's groups, the same for everything that is compared on it."""
    return draw(
        test["group"].to_numpy(), test["live"].to_numpy(), settings.bootstrap, settings.seed
    )


def overall(test: pd.DataFrame, draws: Resamples, settings: Evaluate) -> dict[str, dict]:
    """Every metric with its value, the interval over patches and the one over groups.

    Over patches: the paper's formula for balanced accuracy, Wilson's for the other proportions,
    else a bootstrap of single patches. Over groups None where every resample gives the same: that
    says nothing of the error.
    """
    live, score, called = (test[name].to_numpy() for name in ("live", "score", "called"))
    statistic = partial(weighted_metrics, live, score, called)
    patch = bootstrap(statistic, draw_patches(live, settings.bootstrap, settings.seed))
    group = bootstrap(statistic, draws)
    n, n_live = len(live), int(live.sum())
    proportions = {"accuracy": n, "sensitivity": n_live, "specificity": n - n_live}
    found = {}
    for name, value in point_metrics(live, score, called).items():
        if name == "balanced_accuracy":
            independent = binomial(value, n, settings.confidence)
        elif name in proportions:
            independent = wilson(value, proportions[name], settings.confidence)
        else:
            independent = _spread(patch.get(name), settings)
        found[name] = {"value": value, "patch_interval": independent}
        found[name]["group_interval"] = _spread(group.get(name), settings)
    return found


def _spread(values: np.ndarray | None, settings: Evaluate) -> list[float] | None:
    """The percentile interval; None if all resamples agree, as they do where nothing was called
    wrong.
    """
    found = percentile(values, settings.confidence)
    return found if found and found[0] < found[1] else None


def correlation(test: pd.DataFrame, draws: Resamples, settings: Evaluate) -> dict[str, dict]:
    """Pearson and Spearman of mean PI, and of the intensity that set the labels, with the live
    probability.
    """
    probability = test["probability"].to_numpy()
    single = draw_patches(test["live"].to_numpy(), settings.bootstrap, settings.seed)
    found: dict[str, dict] = {}
    for column in ("mean_pi", "intensity"):
        values = test[column].to_numpy(float)
        statistic = partial(weighted_correlations, values, probability)
        patch, group = bootstrap(statistic, single), bootstrap(statistic, draws)
        found[column] = {"n": len(test)} | {
            name: {
                "value": value,
                "patch_interval": percentile(patch.get(name), settings.confidence),
                "group_interval": percentile(group.get(name), settings.confidence),
            }
            for name, value in correlations(values, probability).items()
        }
    return found


def within(
    test: pd.DataFrame, score: np.ndarray, draws: Resamples, settings: Evaluate
) -> dict | None:
    """AUC within experiments with intervals over groups; None where the experiment of a patch is
    not known.
    """
    if test["experiment"].eq("").any():
        return None
    live, experiment = test["live"].to_numpy(), test["experiment"].to_numpy()
    found = within_experiments(live, score, experiment)
    values = bootstrap(
        within_statistic(live, score, experiment, draws.codes), draws, by_patch=False
    )
    result: dict = {"n_experiments": found["experiments"], "n_pairs": found["pairs"]}
    for name in ("pair_weighted", "mean"):
        result[name] = {"value": found[name], "group_interval": _spread(values.get(name), settings)}
    return result


def baseline(test: pd.DataFrame, other: pd.DataFrame, draws: Resamples, settings: Evaluate) -> dict:
    """A baseline's metrics on the model's own test patches, and by how much the model exceeds it.

    other: the same rows with the baseline's score and called. See `difference` for the intervals.
    """
    live, score, called = (other[name].to_numpy() for name in ("live", "score", "called"))
    own = bootstrap(partial(weighted_metrics, live, score, called), draws)
    points = point_metrics(live, score, called)
    result: dict = {
        n: {"value": points[n], "group_interval": _spread(own.get(n), settings)} for n in MAIN
    }
    result |= {
        f"model_minus_{name}": gain
        for name, gain in difference(test, other, draws, settings).items()
    }
    return result | {"within_experiment": within(test, score, draws, settings)}


def difference(
    test: pd.DataFrame, other: pd.DataFrame, draws: Resamples, settings: Evaluate
) -> dict[str, dict]:
    """By how much one table of scored test patches exceeds another of the same rows, in the main
    metrics.

    The intervals are from the same resamples of groups for both, so what both find hard cancels
    out.
    """
    columns = [
        [table[name].to_numpy() for name in ("live", "score", "called")] for table in (test, other)
    ]
    points = [point_metrics(*each) for each in columns]
    draw_by_draw = [bootstrap(partial(weighted_metrics, *each), draws) for each in columns]
    found = {}
    for name in MAIN:
        gains = draw_by_draw[0][name] - draw_by_draw[1][name] if draw_by_draw[0] else None
        found[name] = {
            "value": points[0][name] - points[1][name],
            "group_interval": percentile(gains, settings.confidence),
        }
    return found


def experiment_only(test: pd.DataFrame, draws: Resamples, settings: Evaluate) -> dict | None:
    """AUC of the experiment's own live share as the score, with and without the patch itself; None
    if not known.
    """
    if test["experiment"].eq("").any():
        return None
    live, experiment = test["live"].to_numpy(), test["experiment"].to_numpy()
    scores = {
        "in_sample": live_share(live, experiment),
        "leave_one_out": live_share_of_others(live, experiment),
    }
    result: dict = {"n_experiments": int(test["experiment"].nunique())}
    for name, score in scores.items():
        group = bootstrap(partial(weighted_metrics, live, score, score >= 0.5), draws)
        value = point_metrics(live, score, score >= 0.5)["auc"]
        result[name] = {
            "auc": {
                "value": value,
                "group_interval": percentile(group.get("auc"), settings.confidence),
            }
        }
    return result


def calibration_record(test: pd.DataFrame) -> dict:
    """ECE and Brier score before (temperature 1) and after, and the mean probability beside the
    live fraction.

    `equal_classes`: the same after, under weights that make both classes count the same, as
    training does.
    """
    live = test["live"].to_numpy()
    weights = calibration.equal_classes(live)
    before, after = calibrate(test["logit"].to_numpy(), 1.0), test["probability"].to_numpy()
    return {
        "ece": {
            "before": calibration.expected_error(before, live),
            "after": calibration.expected_error(after, live),
        },
        "brier": {
            "before": calibration.brier(before, live),
            "after": calibration.brier(after, live),
        },
        "mean_probability": {"before": float(before.mean()), "after": float(after.mean())},
        "live_fraction": float(live.mean()),
        "equal_classes": {
            "ece": calibration.expected_error(after, live, weights),
            "brier": calibration.brier(after, live, weights),
        },
        "bins": calibration.BINS,
    }


def counts(test: pd.DataFrame) -> dict[str, int]:
    """Sizes of a test table: patches, classes, images, groups and experiments."""
    live = int(test["live"].sum())
    sizes = {f"n_{name}s": int(test[column].nunique()) for name, column in UNITS.items()}
    return {"n_patches": len(test), "n_live": live, "n_dead": len(test) - live} | sizes


def threshold_record(test: pd.DataFrame, at: Operating) -> dict:
    """The operating threshold, and the thresholded metrics had it been 0.5."""
    live, score, half = (
        test["live"].to_numpy(),
        test["score"].to_numpy(),
        test["probability"].to_numpy() >= 0.5,
    )
    found = point_metrics(live, score, half)
    return {"value": at.threshold, "at_half": {name: found[name] for name in THRESHOLDED}}


def conformal_record(test: pd.DataFrame, at: Operating, error: float) -> dict:
    """The abstain band, and coverage, abstention and error on the test patches."""
    columns = [test[name].to_numpy() for name in ("call", "live", "covered")]
    return {
        "error": error,
        "live_from": at.live_from,
        "dead_to": at.dead_to,
    } | calibration.conformal_summary(*columns)


def notes(settings: Evaluate, scheme: str, groups: int) -> list[str]:
    """What a reader must know of how the numbers came about."""
    percent = f"{settings.confidence:.0%}"
    found = [
        "live is the positive class: sensitivity is the recall of live, specificity the recall of dead",
        "operating threshold: the highest balanced accuracy on validation within the abstain band, the one nearest to "
        "0.5 among equals; confusion matrix and balanced accuracy are of the forced call at it, no patch left out",
        "validation chooses epoch, temperature, threshold and band; test patches none of them",
        f"patch_interval: {percent}, patches taken as independent; value +- z sqrt(value (1 - value) / n) as in the "
        "paper for balanced accuracy, Wilson's for sensitivity, specificity and accuracy, else a percentile bootstrap",
        f"group_interval: {percent}, percentile bootstrap of {groups} whole groups, {settings.bootstrap} resamples; "
        "n/a where all resamples agree; how training and the choice of a threshold vary is not in it",
        "probability: of a patch where live and dead are equally frequent, as training draws them, since a plate's own "
        "frequencies are what is asked; where they are unequal, mean probability and live fraction differ (ECE), and "
        "equal_classes has ECE and Brier score with both classes weighted the same",
        "temperature: minimises the cross entropy on validation, truth smoothed as by Platt; ECE: of the live "
        "probability, equal bins; AUC and average precision rank by logit / temperature, which probability rounds",
        f"conformal: class-conditional split-conformal sets at error {settings.abstain_error}, from validation; a set "
        "of none or both classes abstains; the guarantee wants exchangeable patches, and those of few groups are not",
        "experiment_only: in_sample scores a patch by its experiment's live share, the patch included, and errs high; "
        "leave_one_out without the patch, which puts an experiment's live patches below its dead ones, and errs low",
        f"linear baselines: logistic regression on at most {BASELINE_WINDOWS} training windows, regularised, "
        "calibrated and called by validation, as the model is",
        "cross_partition: without groups that the model trained or validated on",
        "cell density: by the share of the window that is textured beyond its noise, a stand-in: no cells are counted",
    ]
    if groups < 10:
        found.append(
            f"{groups} groups are few: a percentile bootstrap of fewer than about ten is still too narrow"
        )
    if scheme == "kfold":
        found.append(
            "kfold: each round's model scores its own test fold at the operating point of its own validation fold (see "
            "`rounds`), and the scores are pooled; threshold, temperature, live_from and dead_to in the record are the "
            "final model's, fitted on the pooled scores; that model trains on every fold, for the median of the epochs "
            "that the folds kept, and is scored on nothing but other partitions"
        )
    return found


def summary(record: dict) -> list[str]:
    """The record in a few lines for the terminal."""
    data, name = record["data"], record["partition"]
    kind = "synthetic" if record["synthetic"] else "real"
    lines = [
        f"evaluate: {name}: {data['n_patches']} test patches ({kind} data), {data['n_groups']} groups"
    ]
    for metric in ("balanced_accuracy", "auc"):
        found = record["overall"][metric]
        lines.append(
            f"  {metric}: {number(found['value'])}, {span(found['group_interval'])} over groups"
        )
    probe = (record["baselines"]["linear_probe"] or {}).get("auc", {}).get("value")
    within_auc = (record["within_experiment"] or {}).get("pair_weighted", {}).get("value")
    lines.append(
        f"  auc within experiments: {number(within_auc)}; pooled auc of a linear probe: {number(probe)}"
    )
    return lines


def number(value: float | None) -> str:
    """A metric for people: three decimals, or n/a."""
    return "n/a" if value is None else f"{value:.3f}"


def span(interval: list[float] | None) -> str:
    """An interval for people."""
    return "n/a" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def clean(value):
    """A value as JSON can hold it: floats at 6 decimals, NaN and infinities as None, numpy's
    scalars as Python's.
    """
    if isinstance(value, dict):
        return {str(key): clean(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [clean(part) for part in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 6) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
