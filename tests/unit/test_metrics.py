"""Metrics: hand-computed answers, and the weighted versions against scikit-learn with weights."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from src.common.metrics import point as metrics

LIVE = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], bool)
SCORE = np.array([0.9, 0.8, 0.7, 0.2, 0.8, 0.6, 0.3, 0.2, 0.1, 0.1])
CALL = SCORE >= 0.65  # 3 of 4 live called live, 5 of 6 dead called dead


def random_case(n: int = 60, resamples: int = 25, seed: int = 3):
    random = np.random.default_rng(seed)
    live = random.random(n) < 0.4
    score = np.round(random.normal(size=n) + live, 1)  # rounded: many ties
    weights = random.multinomial(n, np.full(n, 1 / n), resamples).astype(float)
    return live, score, score > 0.5, weights


def test_point_metrics_by_hand():
    found = metrics.point_metrics(LIVE, SCORE, CALL)
    # of 24 pairs, dead 0.8 beats 0.7 and 0.2 and ties 0.8; 0.6 and 0.3 beat 0.2, and dead 0.2 ties
    # it
    assert found["auc"] == pytest.approx((24 - 4 - 2 * 0.5) / 24)
    assert found["sensitivity"] == 3 / 4
    assert found["specificity"] == pytest.approx(5 / 6)
    assert found["balanced_accuracy"] == pytest.approx((3 / 4 + 5 / 6) / 2)
    assert found["f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert found["mcc"] == pytest.approx((3 * 5 - 1 * 1) / np.sqrt(4 * 4 * 6 * 6))
    assert found["accuracy"] == 0.8
    # precision at each new recall: 1/1, 2/3 (tie of 0.8), 3/4, 4/8 (tie of 0.2)
    assert found["average_precision"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 4 + 4 / 8) / 4)


def test_confusion_names_truth_first():
    found = metrics.confusion(LIVE, CALL)
    assert found == {"dead_as_dead": 5, "dead_as_live": 1, "live_as_dead": 1, "live_as_live": 3}


def test_one_class_leaves_only_its_recall_and_accuracy():
    found = metrics.point_metrics(LIVE[:4], SCORE[:4], CALL[:4])
    assert found["sensitivity"] == found["accuracy"] == 0.75
    assert all(
        np.isnan(found[name])
        for name in ("auc", "average_precision", "balanced_accuracy", "specificity", "mcc")
    )


def test_weighted_metrics_equal_scikit_learn_with_sample_weight():
    live, score, call, weights = random_case()
    found = metrics.weighted_metrics(live, score, call, weights)
    for b, w in enumerate(weights):
        expected = {
            "auc": sk.roc_auc_score(live, score, sample_weight=w),
            "average_precision": sk.average_precision_score(live, score, sample_weight=w),
            "balanced_accuracy": sk.balanced_accuracy_score(live, call, sample_weight=w),
            "f1": sk.f1_score(live, call, sample_weight=w),
            "mcc": sk.matthews_corrcoef(live, call, sample_weight=w),
            "accuracy": sk.accuracy_score(live, call, sample_weight=w),
            "sensitivity": sk.recall_score(live, call, sample_weight=w),
            "specificity": sk.recall_score(~live, ~call, sample_weight=w),
        }
        assert {name: values[b] for name, values in found.items()} == pytest.approx(
            expected, abs=1e-12
        )


def test_weights_of_one_give_the_point_values():
    live, score, call, _ = random_case()
    found = metrics.weighted_metrics(live, score, call, np.ones((1, len(live))))
    assert {k: v[0] for k, v in found.items()} == pytest.approx(
        metrics.point_metrics(live, score, call)
    )


def test_a_resample_without_a_class_is_not_a_number():
    weights = np.array([LIVE.astype(float), (~LIVE).astype(float)])
    found = metrics.weighted_metrics(LIVE, SCORE, CALL, weights)
    assert all(
        np.isnan(found[name]).all() for name in ("auc", "average_precision", "balanced_accuracy")
    )


def test_weighted_correlations_equal_scipy_on_repeated_patches():
    live, score, _, weights = random_case()
    other = np.round(score * 2 + np.random.default_rng(1).normal(size=len(live)), 1)
    found = metrics.weighted_correlations(score, other, weights)
    for b, w in enumerate(weights.astype(int)):
        x, y = np.repeat(score, w), np.repeat(other, w)
        assert found["pearson"][b] == pytest.approx(stats.pearsonr(x, y)[0])
        assert found["spearman"][b] == pytest.approx(stats.spearmanr(x, y)[0])


def test_correlation_of_a_constant_is_not_a_number():
    assert np.isnan(metrics.correlations(np.ones(5), np.arange(5))["pearson"])
    assert metrics.correlations(np.arange(5), -np.arange(5)) == pytest.approx(
        {"pearson": -1, "spearman": -1}
    )
