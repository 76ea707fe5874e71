"""Does the model hold here? Separate checks, each a number with its interval and a stated limit,
and one answer.

A check holds where its whole interval lies within the limit, fails where it lies wholly beyond, and
is open between. The limits are choices, not laws of nature: they stand here, on the page and in
docs/assay.md with their reasons.
"""

from itertools import pairwise

import numpy as np

# AUC that may be lost against the model's own test: one live-dead pair in ten more in wrong order
SLACK = 0.10
# Of the called live, and dead, patches: with 0.8 and 0.8 a live-patch fraction spans 60 of the 100
# points between all dead and all live, the least that still orders treatments
LEAST_RECALL = 0.80
# Of patches: a model that leaves more than half open does not stand in for a stain
LEAST_SHARE_CALLED = 0.50
# Mean difference of live-patch fractions, model minus stain: two plates may differ so unnoticed
MOST_BIAS = 0.10
# How far the fraction of a single field or well may lie from the stain's (95% limits of agreement)
MOST_SPREAD = 0.30
# Below, an interval from resampling them is too narrow to decide by
LEAST_UNITS = {"experiments": 5, "fields": 10}

HOLDS, FAILS, OPEN, UNJUDGED = "holds", "fails", "open", "not judged"
# Checks that are told together, by the words for each
CALLS = {"sensitivity": "sensitivity", "specificity": "specificity", "called": "share called"}
FRACTIONS = {"bias": "mean difference", "spread": "limits of agreement"}
MORE = {  # what would settle an open check, by what is resampled
    "experiments": "more experiments (other days or plates), each with live and dead cells; "
    "more fields of the same experiments would narrow the intervals little",
    "fields": "more fields with live and dead cells, which settles it for these plates only: how "
    "it does on another day takes images of 3 experiments or more, named in the column experiment",
}


def check(key: str, measure: dict, limits: tuple[float, float], limit: str, few: str) -> dict:
    """A check's record: measure (value, interval, and more that is shown), its limit in words,
    outcome and reason.

    limits: the range that is allowed; few: why nothing is decided although there is an interval, or
    ''.
    """
    interval, reason = measure.get("interval"), ""
    if measure.get("value") is None or not np.isfinite(measure["value"]):
        outcome, reason = UNJUDGED, measure.get("reason") or "there is nothing to judge by"
    elif few or interval is None:
        outcome, reason = UNJUDGED, few or measure.get("reason") or "no interval can be given"
    else:
        (low, high), (least, most) = interval, limits
        inside, outside = least <= low and high <= most, high < least or low > most
        outcome = HOLDS if inside else FAILS if outside else OPEN
    return {"key": key} | measure | {"limit": limit, "outcome": outcome, "reason": reason}


def judge(
    ranking: dict, calls: dict[str, dict], fractions: dict, unit: str, number: int
) -> list[dict]:
    """The checks in order: ranking, sensitivity, specificity and share of the calls, bias and
    spread of fractions.

    unit, number: what was resampled and how many there are. fractions: of fields or wells
    (agreement.bland_altman).
    """
    least = LEAST_UNITS[unit]
    few = "" if number >= least else f"{number} {unit} are too few to decide by; it takes {least}"
    bias, spread = (
        {"value": fractions.get(name), "interval": fractions.get(f"{name}_interval"),
         "reason": fractions["reason"]} for name in ("bias", "spread")
    )  # fmt: skip
    recall, called = (LEAST_RECALL, np.inf), (LEAST_SHARE_CALLED, np.inf)
    asked = [
        ("ranking", ranking, (-SLACK, np.inf), f"at most {SLACK:.2f} lower"),
        ("sensitivity", calls["sensitivity"], recall, f"at least {LEAST_RECALL:.2f}"),
        ("specificity", calls["specificity"], recall, f"at least {LEAST_RECALL:.2f}"),
        ("called", calls["called"], called, f"at least {LEAST_SHARE_CALLED:.2f}"),
        ("bias", bias, (-MOST_BIAS, MOST_BIAS), f"within ±{MOST_BIAS:.2f}"),
        ("spread", spread, (-np.inf, MOST_SPREAD), f"at most {MOST_SPREAD:.2f}"),
    ]
    return [check(*one, few) for one in asked]


def verdict(checks: list[dict], unit: str, number: int, training_known: bool, problem: str) -> dict:
    """agrees | disagrees | undecided | not judged, the reason in words, and what would settle it (a
    list).

    agrees: everything that can be judged holds, the calls among it. disagrees: something fails.
    """
    by = {one["key"]: one for one in checks}
    said = [
        _ranking(by["ranking"]), _group(by, CALLS, "the calls"),
        _group(by, FRACTIONS, "the live-patch fractions"),
    ]  # fmt: skip
    text = said[0][1]
    for (before, _), (outcome, words) in pairwise(said):
        text += (", but " if before == HOLDS and outcome in (FAILS, OPEN) else "; ") + words
    if problem:
        return _verdict("not judged", "the PI thresholds do not seem to fit these images", [])
    if not training_known:
        doubt = "some of these images may have been in training; for what it is worth, "
        return _verdict("not judged", doubt + text, [])
    outcomes = {one["outcome"] for one in checks}
    if FAILS in outcomes:
        return _verdict("disagrees", text, [])
    if UNJUDGED in {by[key]["outcome"] for key in CALLS}:
        return _verdict("not judged", text, settle(by, unit))
    return _verdict("undecided" if OPEN in outcomes else "agrees", text, settle(by, unit))


def settle(by: dict[str, dict], unit: str) -> list[str]:
    """What would close the open checks."""
    if not any(one["outcome"] in (OPEN, UNJUDGED) for one in by.values()):
        return []
    needs = [MORE[unit]]
    own = by["ranking"].get("own_interval")
    if by["ranking"]["outcome"] == OPEN and own and own[1] - own[0] > 2 * SLACK:
        needs.append(
            "for the ranking, a model tested on more experiments: its own test leaves the AUC "
            f"between {own[0]:.2f} and {own[1]:.2f}, and no number of images here narrows that"
        )
    return needs


def _verdict(outcome: str, text: str, wanted: list[str]) -> dict:
    return {"outcome": outcome, "text": text, "settle": wanted}


def _ranking(one: dict) -> tuple[str, str]:
    if one["outcome"] == UNJUDGED:
        return UNJUDGED, f"the ranking is not judged: {one['reason']}"
    told = f"{one['what']} {one['here']:.3f} here, {one['own']:.3f} there"
    if one["outcome"] == HOLDS:
        if one["interval"][0] > 0:
            told += "; so much better that these images may be too like the training images"
        return HOLDS, f"it ranks live above dead as well as on its own test ({told})"
    told += f", difference {span(one, '+')}"
    if one["outcome"] == FAILS:
        return FAILS, f"it ranks live above dead worse than on its own test ({told})"
    return OPEN, f"whether it ranks live above dead as well as on its own test is open ({told})"


def _group(by: dict[str, dict], titles: dict[str, str], what: str) -> tuple[str, str]:
    """The outcome of several checks together, in words: the worst of them, which are named."""
    outcomes = {by[key]["outcome"] for key in titles}
    worst = next(one for one in (FAILS, UNJUDGED, OPEN, HOLDS) if one in outcomes)
    named = [(title, by[key]) for key, title in titles.items() if by[key]["outcome"] == worst]
    if worst == FAILS:
        words = "do not hold here"
        told = [f"{title} {span(one)}, wanted {one['limit']}" for title, one in named]
    elif worst == UNJUDGED:
        words, told = "are not judged", [named[0][1]["reason"]]
    elif worst == OPEN:
        words, told = "are open", [f"{title} {span(one)}" for title, one in named]
    else:
        words, told = "hold", [f"{title} {one['value']:.2f}" for title, one in named]
    return worst, f"{what} {words}: {', '.join(told)}"


def span(one: dict, sign: str = "") -> str:
    """A value with its interval for people."""
    if one["interval"] is None:
        return f"{one['value']:{sign}.2f}"
    low, high = one["interval"]
    return f"{one['value']:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"
