"""How well calls agree with the stain: by patch, by field and well, and beside the model's own
test.

Patches of a field, and fields of an experiment, resemble each other. Intervals resample whole
experiments where there are SEVERAL, else whole fields; their level is widened for few of them
(paired.expanded).
"""

from functools import partial

import numpy as np
import pandas as pd

from ..common.evaluate import record as assessment
from ..common.evaluate.baselines import experiment_only
from ..common.evaluate.calibration import reliability
from ..common.evaluate.slices import slice_table
from ..common.evaluate.testset import TestSet
from ..common.metrics.confounding import within_experiments, within_statistic
from ..common.metrics.intervals import bootstrap, draw, percentile, resample
from ..common.metrics.paired import expanded
from ..common.metrics.point import confusion, point_metrics, weighted_ranked
from ..common.patches.groups import groups
from ..common.scoring.operating import called_live
from ..common.workspace.params import Evaluate

SETTINGS = Evaluate(confidence=0.95, bootstrap=1000, abstain_error=0.1, band="patch", seed=1)
SEVERAL = 3  # experiments from which on they are what is resampled: two make no interval
LEAST_CLASS, LEAST_SHARE = (
    20,
    0.02,
)  # patches of a class, and their share, below which the PI thresholds are suspect
LEAST_PATCHES, LEAST_UNITS = 10, 5  # of a field or well, and of these, for agreement of fractions


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
    p = test["probability"].clip(1e-6, 1 - 1e-6)
    logit = np.log(p / (1 - p))  # calibrated; temperature one
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
    else pooled over all. own: the own test's patches (own_test.patches); without them `known`, its
    pooled AUC, which has no interval.
    """
    stated = test["experiment"].ne("")
    same = (stated.all() or not stated.any()) and own is not None and own["experiment"].ne("").all()
    here, drawn, groups_here = _auc(test, same, SETTINGS.seed)
    found = {
        "what": "AUC within experiments" if same else "AUC",
        "here": here,
        "groups": groups_here,
    }
    found |= {
        "here_interval": _interval(drawn, groups_here),
        "interval": None,
        "own_interval": None,
        "own_groups": None,
    }
    if own is None:
        if known is None:
            return found | {
                "value": None,
                "own": None,
                "reason": "the model's own test is not in the MLflow store",
            }
        return found | {
            "value": here - known,
            "own": known,
            "interval": _interval(drawn - known, groups_here),
        }
    there, other, groups_there = _auc(resampled(own), same, SETTINGS.seed + 1)
    size = min(len(drawn), len(other))
    gap = _interval(drawn[:size] - other[:size], min(groups_here, groups_there))
    return found | {
        "value": here - there, "interval": gap, "own": there, "own_interval": _interval(other, groups_there),
        "own_groups": groups_there, "reason": "live and dead patches are never of one experiment" if same else "",
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
    }
    parts["called"] = (made, np.ones(len(made), bool))
    draws = draw(test["group"].to_numpy(), live, SETTINGS.bootstrap, SETTINGS.seed)
    found = {}
    for name, (of, among) in parts.items():
        n = int(among.sum())
        value = float(of.sum() / n) if n else None
        interval = _interval(
            bootstrap(partial(_share, of, among), draws).get("share"), draws.groups
        )
        if interval is not None and interval[0] == interval[1]:
            other = of ^ (np.arange(len(of)) == np.argmax(among))
            spread = _interval(
                bootstrap(partial(_share, other, among), draws).get("share"), draws.groups
            )
            interval = sorted((value, spread[0] if value > 0.5 else spread[1]))
        reason = "" if n else f"no {'live' if name == 'sensitivity' else 'dead'} patch is called"
        found[name] = {"value": value, "interval": interval, "n": n, "reason": reason}
    return found


def _share(of: np.ndarray, among: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"share": (weights @ of) / (weights @ among)}


def _interval(drawn: np.ndarray | None, groups: int) -> list[float] | None:
    return percentile(drawn, expanded(SETTINGS.confidence, groups))


def conformal(test: pd.DataFrame, operating: dict) -> dict:
    """Abstention and error among the called patches."""
    called = test["call"] != "abstain"
    wrong = called & ((test["call"] == "live") != test["live"])
    error = float(wrong.sum() / called.sum()) if called.any() else np.nan
    band = {name: operating[name] for name in ("live_from", "dead_to")}
    return band | {
        "abstention": float(1 - called.mean()),
        "error_among_called": error,
        "coverage": test["covered"].mean(),
    }


def units(cells: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The live-patch fraction by the stain and by the model for each unit (well, or field) with
    enough patches.

    by: the unit's columns. model: live / (live + dead) of its calls; stain: the same of its PI
    labels. Each on all the patches it decides, as each would be used.
    """
    votes = pd.DataFrame({
        **{name: cells[name] for name in by},
        "model_live": cells["call"] == "live", "model_dead": cells["call"] == "dead",
        "stain_live": cells["label"] == "live", "stain_dead": cells["label"] == "dead",
    })  # fmt: skip
    table = votes.groupby(by, dropna=False).sum().reset_index()
    for who in ("model", "stain"):
        total = table[f"{who}_live"] + table[f"{who}_dead"]
        table[f"{who}_patches"], table[who] = (
            total,
            (table[f"{who}_live"] / total.where(total > 0)).round(6),
        )
    enough = table[["model_patches", "stain_patches"]].min(axis=1) >= LEAST_PATCHES
    return table[enough].drop(
        columns=[f"{w}_{c}" for w in ("model", "stain") for c in ("live", "dead")]
    )


def bland_altman(table: pd.DataFrame, by: str = "fields") -> dict:
    """Mean difference model - stain and the 95% limits of agreement (Bland and Altman 1986), with
    intervals.

    spread: the limit that is farther from zero. by: resample the experiments of the table's rows,
    or the rows.
    """
    difference = (table["model"] - table["stain"]).to_numpy(float)
    n = len(difference)
    if n < LEAST_UNITS:
        reason = f"{n} with at least {LEAST_PATCHES} patches decided by both; agreement needs {LEAST_UNITS}"
        return {"units": n, "bias": None, "reason": reason}
    of = table["experiment"].to_numpy() if by == "experiments" else np.arange(n)
    names, codes = np.unique(of, return_inverse=True)
    random = np.random.default_rng(SETTINGS.seed)
    counts = resample(len(names), SETTINGS.bootstrap, random)
    (bias,), (spread,), (sd,) = _difference(difference, np.ones((1, n)))
    drawn_bias, drawn_spread, _ = _difference(difference, counts[:, codes].astype(float))
    return {
        "units": n, "bias": bias, "bias_interval": _interval(drawn_bias, len(names)),
        "limits": [bias - 1.96 * sd, bias + 1.96 * sd],
        "spread": spread, "spread_interval": _interval(drawn_spread, len(names)), "reason": "",
    }  # fmt: skip


def _difference(
    difference: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, farther limit of agreement, and standard deviation of differences (n,) under (b, n)
    weights.
    """
    total = weights.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = weights @ difference / total
        sd = np.sqrt((weights * (difference - mean[:, None]) ** 2).sum(1) / (total - 1))
    return mean, np.abs(mean) + 1.96 * sd, sd


def misfit(cells: pd.DataFrame, rule: dict) -> str:
    """Why the PI thresholds do not seem to fit these images, and what to do; '' where they do
    (cells: not empty).
    """
    counts = cells["label"].value_counts()
    few = [
        f"{counts.get(name, 0)} {name}" for name in ("live", "dead")
        if counts.get(name, 0) < max(LEAST_CLASS, LEAST_SHARE * len(cells))
    ]  # fmt: skip
    if not few:
        return ""
    counted = rule["intensity"] == "counts"
    unit = "counts" if counted else "times the field's background"
    return (
        f"of {len(cells)} patches with cells the stain calls {' and '.join(few)} (live below {rule['live_below']:.4g} "
        f"{unit}, dead above {rule['dead_above']:.4g}; median PI here {cells['intensity'].median():.4g}). If these "
        "controls hold both live and dead cells, the thresholds do not fit this microscope: run again with "
        "--thresholds own, which fits them to these images"
        + (", or train with label.intensity background_ratio" if counted else "")
    )
