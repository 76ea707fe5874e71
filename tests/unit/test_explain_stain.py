"""Agreement of predicted with measured PI: known answers on planted maps."""

import numpy as np
import pandas as pd
import pytest

from src.common.explain.stain import agreement_of_field, stain_numbers, summary

PIXEL = 1.2
WINDOWS = np.array([(y, x, 40) for y in (0, 40, 80) for x in (0, 40, 80)])


def field(rng: np.random.Generator) -> np.ndarray:
    """PI over background (120, 120) with a stained nucleus in some of its windows."""
    y, x = np.mgrid[:120, :120]
    ratio = np.ones((120, 120)) + rng.normal(0, 0.02, (120, 120))
    for cy in (20, 60, 100):
        for cx in (20, 60):
            height = rng.uniform(2, 4)
            ratio += height * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 3.5**2))
    return ratio.astype(np.float32)


def test_a_perfect_prediction_agrees_in_everything():
    measured = field(np.random.default_rng(0))
    found = agreement_of_field(measured, measured, WINDOWS, PIXEL)
    assert found["pearson"] == pytest.approx(1) and found["spearman"] == pytest.approx(1)
    assert (found["nuclei"], found["predicted_nuclei"], found["matched"]) == (6, 6, 6)


def test_a_prediction_of_nothing_finds_nothing():
    rng = np.random.default_rng(1)
    blank = np.ones((120, 120), np.float32) + rng.normal(0, 0.01, (120, 120)).astype(np.float32)
    found = agreement_of_field(blank, field(rng), WINDOWS, PIXEL)
    assert abs(found["pearson"]) < 0.1 and found["predicted_nuclei"] == found["matched"] == 0


def test_what_was_not_measured_counts_nothing():
    measured = field(np.random.default_rng(2))
    measured[:, 60:] = np.nan
    predicted = np.nan_to_num(measured, nan=9.0)  # nonsense where nothing is known
    found = agreement_of_field(predicted, measured, WINDOWS[:1], PIXEL)
    assert found["pearson"] == pytest.approx(1) and np.isnan(found["spearman"])
    assert found["predicted_nuclei"] == found["nuclei"] == found["matched"]


def test_the_summary_weighs_groups_alike_and_states_intervals_over_them():
    rows = [("a", 0.9, 10, 8, 8), ("a", 0.9, 10, 8, 8), ("a", 0.9, 10, 8, 8), ("b", 0.1, 0, 6, 0)]
    names = ["group", "pearson", "nuclei", "predicted_nuclei", "matched"]
    table = pd.DataFrame(rows, columns=names).assign(spearman=np.nan, image_id="x")
    record = summary(table, seed=1)
    assert record["pearson"]["value"] == pytest.approx(0.5)
    assert record["pearson"]["interval"] == [pytest.approx(0.1), pytest.approx(0.9)]
    assert record["spearman"] == {"value": None, "interval": None}
    assert record["nuclei_recall"]["value"] == pytest.approx(24 / 30)
    assert record["nuclei_precision"]["value"] == pytest.approx(24 / 30)
    facts = {"partition": "p", "target": "stain", "arch": "a", "synthetic": True, "stain": record}
    assert stain_numbers(facts)["spearman"] == {"value": None, "low": None, "high": None}
