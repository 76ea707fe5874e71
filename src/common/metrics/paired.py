"""Two models on the very same test patches: by how much one is better, and the error that pairing
leaves.

Both models meet the same patches in every resample of whole groups, so what both find hard cancels
out. The interval is expanded for few groups (`intervals.expanded`).
"""

from functools import partial

import numpy as np
import pandas as pd

from ..workspace.errors import UserError
from ..workspace.sections import Register
from .intervals import Resamples, bootstrap, draw, percentile
from .point import point_metrics, weighted_metrics, weighted_thresholded

MAIN = ["auc", "average_precision", "balanced_accuracy"]
PAIRED = ["patch_id", "group", "live", "probability", "called"]


class Incomparable(UserError):
    """Two models were not judged, and cannot be judged fairly, on the same patches; the message
    says why.
    """


def side(predictions: pd.DataFrame, record: dict) -> pd.DataFrame:
    """A model's test patches (columns PAIRED) from its saved predictions and evaluation record.

    Under kfold every round has its own threshold, which the record lists.
    """
    test = predictions[predictions["split"] == "test"]
    threshold = test["round"].map({at["round"]: at["threshold"] for at in record["rounds"]})
    called = test["probability"] >= threshold
    return test.assign(live=test["label"] == "live", called=called)[PAIRED]


def pair(candidate: pd.DataFrame, champion: pd.DataFrame) -> pd.DataFrame:
    """Both models' rows of PAIRED beside each other (`probability`, `called`, and with suffix
    `_champion`).

    Raises Incomparable unless they hold the same patches under the same labels.
    """
    both = candidate.merge(champion[["patch_id", "live", "probability", "called"]], "outer",
                           "patch_id", suffixes=("", "_champion"), validate="1:1",
                           indicator=True)  # fmt: skip
    if (lacking := int((both["_merge"] != "both").sum())) or (
        both["live"] != both["live_champion"]
    ).any():
        raise Incomparable(
            f"their saved predictions are of other patches or labels ({lacking} patches have no "
            "counterpart)"
        )
    return both.astype({"live": bool, "called": bool, "called_champion": bool})


def compare(both: pd.DataFrame, rule: Register) -> dict:
    """Balanced accuracy and Brier score of both models and their difference (candidate - champion)
    with its interval.

    The interval is None where resampling gives none (one group, or a class that lacks).
    """
    live, groups = both["live"].to_numpy(), both["group"].to_numpy()
    draws = draw(groups, live, rule.bootstrap, rule.seed)
    comparison: dict = {"patches": len(both), "groups": draws.groups, "confidence": rule.confidence}
    scores = [partial(_scores, both, suffix) for suffix in ("", "_champion")]
    points = [each(np.ones((1, len(both)))) for each in scores]
    drawn, drawn_champion = (bootstrap(each, draws) for each in scores)
    for name in ("balanced_accuracy", "brier"):
        ours, theirs = (float(point[name][0]) for point in points)
        values = drawn[name] - drawn_champion[name] if drawn else None
        span = percentile(values, rule.confidence, draws.groups)
        comparison[name] = {
            "candidate": round(ours, 6),
            "champion": round(theirs, 6),
            "difference": round(ours - theirs, 6),
            "interval": span and [round(bound, 6) for bound in span],
        }
    return comparison


def difference(
    first: pd.DataFrame, second: pd.DataFrame, draws: Resamples, confidence: float
) -> dict[str, dict]:
    """By how much one table of scored test patches exceeds another of the same rows, in the MAIN
    metrics: value and group_interval (None without resamples).

    Both have the columns live, score and called. The intervals are from the same resamples of
    groups for both, so what both find hard cancels out.
    """
    columns = [
        [table[name].to_numpy() for name in ("live", "score", "called")]
        for table in (first, second)
    ]
    ours, theirs = (point_metrics(*each) for each in columns)
    drawn, drawn_theirs = (bootstrap(partial(weighted_metrics, *each), draws) for each in columns)
    gains = {}
    for name in MAIN:
        values = drawn[name] - drawn_theirs[name] if drawn else None
        interval = percentile(values, confidence, draws.groups)
        gains[name] = {"value": ours[name] - theirs[name], "group_interval": interval}
    return gains


def judge(numbers: dict, rule: Register) -> tuple[bool | None, str]:
    """Whether the candidate is better by the rule, and the reason with its numbers; None where
    nothing can be told.

    The reason's first part, up to a semicolon, is enough to understand it.
    """
    accuracy, brier = numbers["balanced_accuracy"], numbers["brier"]
    told = (
        f"{in_words(numbers)}; on {numbers['patches']} test patches of {numbers['groups']} groups"
    )
    if numbers["groups"] < rule.min_groups or accuracy["interval"] is None:
        return (
            None,
            f"{numbers['groups']} test groups carry no interval to decide by: {told}; promote it "
            "by hand",
        )
    if brier["interval"][0] > 0:
        return False, f"its probabilities are worse beyond the paired error: {told}"
    if accuracy["interval"][0] > rule.margin:
        return True, f"better by more than the paired error: {told}"
    beyond = f" and the margin of {rule.margin:g}" if rule.margin else ""
    return False, f"not better by more than the paired error{beyond}: {told}"


def in_words(numbers: dict) -> str:
    """The difference of both scores with its interval, for people."""
    parts = []
    for name, title in (("balanced_accuracy", "balanced accuracy"), ("brier", "Brier score")):
        measure = numbers[name]
        span = measure["interval"]
        shown = f" ({span[0]:+.3f} to {span[1]:+.3f})" if span else " (no interval)"
        both = f"{measure['candidate']:.3f} against {measure['champion']:.3f}"
        parts.append(f"{title} {both}, {measure['difference']:+.3f}{shown}")
    return "; ".join(parts)


def _scores(both: pd.DataFrame, suffix: str, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Balanced accuracy and Brier score of one model under (b, n) weights: (b,) each."""
    live, called = both["live"].to_numpy(), both[f"called{suffix}"].to_numpy()
    squares = (both[f"probability{suffix}"].to_numpy() - live) ** 2
    return {
        "balanced_accuracy": weighted_thresholded(live, called, weights)["balanced_accuracy"],
        "brier": (weights @ squares) / weights.sum(1),
    }
