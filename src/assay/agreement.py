"""How well calls agree with the stain: by patch, by field and well, and a verdict by a stated rule."""

import numpy as np
import pandas as pd
from scipy import stats

from ..common.evaluation import assessment
from ..common.evaluation.calibration import reliability
from ..common.evaluation.metrics import confusion
from ..common.evaluation.slices import slice_table
from ..common.params import Evaluate
from ..common.scoring.operating import called_live
from ..common.splitting import groups

SETTINGS = Evaluate(confidence=0.95, bootstrap=1000, abstain_error=0.1, seed=1)
MARGIN = 0.05  # AUC that may be lost against the model's own test before it counts as worse
LEAST_GROUPS = 10  # fields below which a bootstrap over them is too narrow to decide by
LEAST_CLASS, LEAST_SHARE = 20, 0.02  # patches of a class, and their share, below which the PI thresholds are suspect
LEAST_PATCHES, LEAST_UNITS = 10, 5  # of a field or well, and of these, for agreement of fractions


def scored_table(cells: pd.DataFrame, operating: dict) -> pd.DataFrame:
    """The live and dead patches as `assessment` reads them: live, score, probability, called, covered, group, ..."""
    test = cells[cells["label"].isin(["live", "dead"])].reset_index(drop=True)
    text = {name: test[name].fillna("").astype(str) for name in ("experiment", "well", "position")}
    test = test.assign(**text, partition="", live=test["label"] == "live", probability=test["live_probability"])
    p = test["probability"].clip(1e-6, 1 - 1e-6)
    logit = np.log(p / (1 - p))  # calibrated; temperature one
    low, high = operating["live_from"], operating["dead_to"]
    return test.assign(
        logit=logit * operating["temperature"], score=logit, group=groups(test, []),
        called=called_live(test["probability"], operating["threshold"]),
        covered=np.where(test["live"], test["probability"] >= low, test["probability"] <= high),
    )  # fmt: skip


def assess(test: pd.DataFrame, contract: dict) -> dict:
    """Metrics with intervals over fields, within experiments, calibration, abstention, and by experiment and well."""
    draws = assessment.resamples(test, SETTINGS)
    return {
        "data": assessment.counts(test),
        "overall": assessment.overall(test, draws, SETTINGS),
        "confusion": confusion(test["live"], test["called"]),
        "within_experiment": assessment.within(test, test["score"].to_numpy(), draws, SETTINGS),
        "experiment_only": assessment.experiment_only(test, draws, SETTINGS),
        "threshold": {"value": contract["operating"]["threshold"]},
        "calibration": assessment.calibration_record(test),
        "reliability": reliability(test["probability"].to_numpy(), test["live"].to_numpy()),
        "conformal": conformal(test, contract["operating"]),
        "correlation": assessment.correlation(test, draws, SETTINGS),
        "slices": slice_table(test, {name: test[name].mask(test[name] == "") for name in ("experiment", "well")}),
    }


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
    """The live-patch fraction by the stain and by the model for each unit (well, or field) with enough patches.

    by: the unit's columns. model: live / (live + dead) of its calls; stain: the same of its PI labels. Each on all the
    patches it decides, as each would be used.
    """
    votes = pd.DataFrame({
        **{name: cells[name] for name in by},
        "model_live": cells["call"] == "live", "model_dead": cells["call"] == "dead",
        "stain_live": cells["label"] == "live", "stain_dead": cells["label"] == "dead",
    })  # fmt: skip
    table = votes.groupby(by, dropna=False).sum().reset_index()
    for who in ("model", "stain"):
        total = table[f"{who}_live"] + table[f"{who}_dead"]
        table[f"{who}_patches"], table[who] = total, (table[f"{who}_live"] / total.where(total > 0)).round(6)
    enough = table[["model_patches", "stain_patches"]].min(axis=1) >= LEAST_PATCHES
    return table[enough].drop(columns=[f"{w}_{c}" for w in ("model", "stain") for c in ("live", "dead")])


def bland_altman(table: pd.DataFrame) -> dict:
    """Mean difference model - stain with its t interval, and the 95% limits of agreement (Bland and Altman 1986)."""
    difference = (table["model"] - table["stain"]).to_numpy(float)
    n = len(difference)
    if n < LEAST_UNITS:
        reason = f"{n} with at least {LEAST_PATCHES} patches decided by both; agreement needs {LEAST_UNITS}"
        return {"units": n, "bias": None, "reason": reason}
    mean, sd = difference.mean(), difference.std(ddof=1)
    half = stats.t.ppf(0.975, n - 1) * sd / np.sqrt(n)
    return {
        "units": n, "bias": mean, "bias_interval": [mean - half, mean + half],
        "limits": [mean - 1.96 * sd, mean + 1.96 * sd], "reason": "",
    }  # fmt: skip


def misfit(cells: pd.DataFrame, rule: dict) -> str:
    """Why the PI thresholds do not seem to fit these images, and what to do; '' where they do."""
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


def verdict(record: dict, reference: float | None, training_known: bool, problem: str) -> dict:
    """The plain answer, and the rule: is the AUC here at most MARGIN below that of the model's own test?

    agrees: the lower end of its interval over fields is above reference - MARGIN. worse: the upper end is below.
    """
    rule = (
        f"the model agrees if the 95% interval (over fields) of the AUC lies above its own test AUC less {MARGIN:g}, "
        f"and is worse here if it lies below; it takes {LEAST_GROUPS} fields to decide"
    )
    auc, fields = record["overall"]["auc"], record["data"]["n_groups"]
    if problem:
        return _verdict("not judged", "the PI thresholds do not seem to fit these images", rule)
    if auc["group_interval"] is None or fields < LEAST_GROUPS:
        return _verdict("not judged", f"{fields} fields with both classes among them are too few to decide", rule)
    low, high = auc["group_interval"]
    here = f"AUC {auc['value']:.3f} ({low:.3f} to {high:.3f}) here"
    if reference is None:
        return _verdict("not judged", f"{here}, but the model's own test AUC is not known: compare it yourself", rule)
    here += f", {reference:.3f} on its own test"
    if not training_known:
        return _verdict("not judged", f"{here}, but some of these images may have been in training", rule)
    if low >= reference - MARGIN:
        better = "; so much better that these images may be too like the training images" if low > reference else ""
        return _verdict("agrees", here + better, rule)
    if high < reference - MARGIN:
        return _verdict("worse", here, rule)
    return _verdict("undecided", f"{here}: the interval spans the limit of {reference - MARGIN:.3f}; add fields", rule)


def _verdict(outcome: str, text: str, rule: str) -> dict:
    return {"outcome": outcome, "text": text, "rule": rule}
