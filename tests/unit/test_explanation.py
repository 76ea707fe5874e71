"""What an explanation says in words: headings that account for every wrong call, and who explains
what.
"""

import pandas as pd

from src.common.explain import notes
from src.common.explain.notes import error_heading


def test_every_wrong_call_is_accounted_for():
    found = {"test": 266, "right": 239, "wrong": 13, "abstained": 14, "wrong_at_threshold": 16}
    lines = error_heading("p", found, apart=11, shown=11).splitlines()
    assert (
        lines[1] == "13 wrong of 252 called, 14 abstained; 11 shown, overlapping windows left out"
    )
    assert lines[2] == "Confusion matrix: all 266 called by the threshold, 16 of them wrong"
    assert "left out" not in error_heading("p", found, apart=13, shown=13)
    both = "12 shown, overlapping windows and 5 less confident ones left out"
    assert both in error_heading("p", found | {"wrong": 30}, apart=17, shown=12)
    assert "12 shown, 1 less confident ones left out" in error_heading(
        "p", found, apart=13, shown=12
    )


def test_counts_of_both_kinds_of_calls():
    rows = pd.DataFrame(
        {
            "label": ["live", "dead", "dead", "live"],
            "outcome": ["right", "wrong", "abstained", "abstained"],
            "forced": ["live", "live", "live", "live"],
        }
    )
    expected = {"test": 4, "right": 1, "wrong": 1, "abstained": 2, "wrong_at_threshold": 2}
    assert notes.counts(rows) == expected


def test_notes_name_the_models_and_what_keeps_empty_windows_out():
    assert "one network" in notes.models_used(["holdout"], "holdout")
    folds = notes.models_used(["fold-0", "fold-1"], "fold-1")
    assert "fold that tested it" in folds and "embedding: fold-1 alone" in folds
    found = {
        "scored": 50,
        "live_probability": 0.87,
        "share_live": 0.8,
        "share_dead": 0.06,
        "share_abstained": 0.14,
    }
    assert (
        "80% live, 6% dead, and abstain on 14% (mean live probability 0.87)"
        in notes.on_empty_windows(found)
    )
    assert "dropped no window" in notes.on_empty_windows({"dropped": 0, "scored": 0})
