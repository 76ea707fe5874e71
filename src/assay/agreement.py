"""How well calls agree with the stain: by patch, by field and well, and beside the model's own
test.

Patches of a field, and fields of an experiment, resemble each other. Intervals resample whole
experiments where there are SEVERAL, else whole fields; their level is widened for few of them
(intervals.expanded).
"""

from functools import partial

import numpy as np
import pandas as pd

from ..common.evaluate import record as assessment
from ..common.evaluate.baselines import experiment_only
from ..common.evaluate.calibration import conformal_summary, reliability
from ..common.evaluate.slices import slice_table
from ..common.evaluate.testset import TestSet
from ..common.metrics.confounding import within_experiments, within_statistic
from ..common.metrics.intervals import bootstrap, draw, percentile
from ..common.metrics.point import confusion, point_metrics, weighted_ranked
from ..common.patches.groups import groups
from ..common.scoring.operating import called_live
from ..common.workspace.sections import Evaluate
from .heldout import evidence

SETTINGS = Evaluate(confidence=0.95, bootstrap=1000, abstain_error=0.1, band="patch", seed=1)
SEVERAL = 3  # experiments from which on they are what is resampled: two make no interval
LEAST_CLASS = 20  # patches of a class, below which the PI thresholds are suspect
LEAST_CLASS_SHARE = 0.02  # of all patches, likewise


def scored_table(cells: pd.DataFrame, operating: dict) -> pd.DataFrame:
    """The live and dead patches as `assessment` reads them: live, score, probability, called,
    covered, field, ...

    group: what is resampled, see `resampled`.
    """
    test = cells[cells["label"].isin(["live", "dead"])].reset_index(drop=True)
    text = {name: test[name].fillna("").astype(str) for name in ("experiment", "well", "position")}
    test = test.assign(
        **text, partition="", live=test["label"] == "live", probability=test["live_probability"]
    )
    logit = evidence(test["probability"])  # calibrated; temperature one
    low, high = operating["live_from"], operating["dead_to"]
    return resampled(test.assign(field=groups(test, []))).assign(
        logit=logit * operating["temperature"], score=logit,
        called=called_live(test["probability"], operating["threshold"]),
        covered=np.where(test["live"], test["probability"] >= low, test["probability"] <= high),
    )  # fmt: skip


def unit(test: pd.DataFrame) -> str:
    """What is resampled: experiments where all are known and there are SEVERAL, else fields."""
    known = test["experiment"].ne("").all() and test["experiment"].nunique() >= SEVERAL
    return "experiments" if known else "fields"


def resampled(test: pd.DataFrame) -> pd.DataFrame:
    """The table with `group`: each patch's experiment or field, whichever `unit` says."""
    return test.assign(group=test["experiment"] if unit(test) == "experiments" else test["field"])


def assess(test: pd.DataFrame, contract: dict) -> dict:
    """Metrics with intervals, within experiments, calibration, abstention, and by experiment and
    well.

    `overall` and `confusion` are of the forced call at the threshold, which scoring never makes.
    """
    patches = TestSet.of(test, SETTINGS)
    sizes = {"n_fields": int(test["field"].nunique()), "resampled": unit(test)}
    return {
        "data": patches.counts() | sizes,
        "overall": assessment.overall(patches),
        "confusion": confusion(test["live"], test["called"]),
        "within_experiment": assessment.within(patches, patches.column("score")),
        "experiment_only": experiment_only(patches),
        "threshold": {"value": contract["operating"]["threshold"]},
        "calibration": assessment.calibration_record(patches),
        "reliability": reliability(test["probability"].to_numpy(), test["live"].to_numpy()),
        "conformal": conformal(test, contract["operating"]),
        "correlation": assessment.correlation(patches),
        "slices": slice_table(
            test, {name: test[name].mask(test[name] == "") for name in ("experiment", "well")}
        ),
    }


def ranking(test: pd.DataFrame, own: pd.DataFrame | None, known: float | None) -> dict:
    """The AUC here and on the model's own test, like for like, and their difference (value) with
    its interval.

    Within experiments where both sides know them (images here without any experiment count as one),
    else pooled over all. own: the own test's patches (heldout.patches); without them `known`, its
    pooled AUC, which has no interval.
    """
    stated = test["experiment"].ne("")
    same = (stated.all() or not stated.any()) and own is not None and own["experiment"].ne("").all()
    here, drawn, groups_here = _auc(test, same, SETTINGS.seed)
    measure = {
        "what": "AUC within experiments" if same else "AUC", "here": here, "groups": groups_here,
        "here_interval": interval(drawn, groups_here), "interval": None, "own_interval": None,
        "own_groups": None,
    }  # fmt: skip
    if own is None and known is None:
        reason = "the model's own test is not in the MLflow store"
        return measure | {"value": None, "own": None, "reason": reason}
    if own is None:
        gap = interval(drawn - known, groups_here)
        return measure | {"value": here - known, "own": known, "interval": gap}
    there, other, groups_there = _auc(resampled(own), same, SETTINGS.seed + 1)
    size = min(len(drawn), len(other))
    gap = interval(drawn[:size] - other[:size], min(groups_here, groups_there))
    return measure | {
        "value": here - there, "interval": gap, "own": there,
        "own_interval": interval(other, groups_there), "own_groups": groups_there,
        "reason": "live and dead patches are never of one experiment" if same else "",
    }  # fmt: skip


def _auc(test: pd.DataFrame, within: bool, seed: int) -> tuple[float, np.ndarray, int]:
    """The AUC, its bootstrap values (b,) and how many groups these were drawn from."""
    live, score, experiment = (test[name].to_numpy() for name in ("live", "score", "experiment"))
    draws = draw(test["group"].to_numpy(), live, SETTINGS.bootstrap, seed)
    if within:
        value = within_experiments(live, score, experiment)["pair_weighted"]
        statistic = within_statistic(live, score, experiment, draws.codes)
        drawn = bootstrap(statistic, draws, by_patch=False).get("pair_weighted")
    else:
        value = point_metrics(live, score, test["call"].to_numpy() == "live")["auc"]
        drawn = bootstrap(partial(weighted_ranked, live, score), draws).get("auc")
    return value, np.empty(0) if drawn is None else drawn, draws.groups


def calls(test: pd.DataFrame) -> dict[str, dict]:
    """Of the calls that scoring makes: sensitivity and specificity, abstained left out, and the
    share called.

    Each value with its interval. Where all are right (or wrong) resampling has no width: the
    interval is then that of one call more the other way.
    """
    live, call = test["live"].to_numpy(), test["call"].to_numpy()
    made = call != "abstain"
    right = made & ((call == "live") == live)
    parts = {
        "sensitivity": (live & right, live & made),
        "specificity": (~live & right, ~live & made),
        "called": (made, np.ones(len(made), bool)),
    }
    draws = draw(test["group"].to_numpy(), live, SETTINGS.bootstrap, SETTINGS.seed)

    def resample(of: np.ndarray, among: np.ndarray) -> list[float] | None:
        drawn = bootstrap(partial(_share, of, among), draws).get("share")
        return interval(drawn, draws.groups)

    rates = {}
    for name, (of, among) in parts.items():
        n = int(among.sum())
        value = float(of.sum() / n) if n else None
        between = resample(of, among)
        if between is not None and between[0] == between[1]:
            spread = resample(of ^ (np.arange(len(of)) == np.argmax(among)), among)
            between = sorted((value, spread[0] if value > 0.5 else spread[1]))
        reason = "" if n else f"no {'live' if name == 'sensitivity' else 'dead'} patch is called"
        rates[name] = {"value": value, "interval": between, "n": n, "reason": reason}
    return rates


def _share(of: np.ndarray, among: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"share": (weights @ of) / (weights @ among)}


def interval(drawn: np.ndarray | None, groups: int) -> list[float] | None:
    """The interval of bootstrap values drawn from so many groups."""
    return percentile(drawn, SETTINGS.confidence, groups)


def conformal(test: pd.DataFrame, operating: dict) -> dict:
    """The band, and abstention, error among the called patches and coverage."""
    columns = (test[name].to_numpy() for name in ("call", "live", "covered"))
    found = conformal_summary(*columns)
    band = {name: operating[name] for name in ("live_from", "dead_to")}
    return band | {k: found[k] for k in ("abstention", "error_among_called", "coverage")}


def misfit(cells: pd.DataFrame, rule: dict) -> str:
    """Why the PI thresholds do not seem to fit these images, and what to do; '' where they do
    (cells: not empty).
    """
    counts = cells["label"].value_counts()
    few = [
        f"{counts.get(name, 0)} {name}" for name in ("live", "dead")
        if counts.get(name, 0) < max(LEAST_CLASS, LEAST_CLASS_SHARE * len(cells))
    ]  # fmt: skip
    if not few:
        return ""
    counted = rule["intensity"] == "counts"
    unit = "counts" if counted else "times the field's background"
    return (
        f"of {len(cells)} patches with cells the stain calls {' and '.join(few)} (live below "
        f"{rule['live_below']:.4g} {unit}, dead above {rule['dead_above']:.4g}; median PI here "
        f"{cells['intensity'].median():.4g}). If these controls hold both live and dead cells, the "
        "thresholds do not fit this microscope: run again with --thresholds own, which fits them "
        "to these images" + (", or train with label.intensity background_ratio" if counted else "")
    )
