"""Intervals over patches and groups, recomputed independently; the AUC within experiments."""

import itertools
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from src.common.evaluate.record import overall
from src.common.evaluate.testset import TestSet
from src.common.metrics import confounding, intervals
from src.common.metrics.point import weighted_metrics
from src.common.workspace.sections import Evaluate


def clustered(groups: int = 20, size: int = 30, seed: int = 0, spread: float = 1.0):
    """Scores whose groups share an offset: patches of one group are alike. Both classes in every
    group.
    """
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), size)
    live = random.random(len(group)) < 0.5
    score = live * 1.0 + random.normal(0, spread, groups)[group] + random.normal(0, 0.5, len(group))
    return live, score, group


def auc_interval(live, score, resamples):
    values = intervals.bootstrap(partial(weighted_metrics, live, score, score > 0.5), resamples)
    return intervals.percentile(values["auc"], 0.95)


def test_the_papers_interval_follows_from_its_own_numbers():
    assert intervals.binomial(0.866, 1872, 0.95) == pytest.approx([0.851, 0.881], abs=6e-4)


@pytest.mark.parametrize(("value", "n"), [(np.nan, 10), (0.5, 0)])
def test_no_binomial_interval_of_nothing(value, n):
    assert intervals.binomial(value, n, 0.95) is None


def test_binomial_interval_stays_within_0_and_1():
    assert intervals.binomial(0.99, 5, 0.95)[1] == 1.0


def test_wilsons_interval_has_a_width_where_nothing_is_wrong():
    low, high = intervals.wilson(1.0, 28, 0.95)
    z = stats.norm.ppf(0.975)
    assert (low, high) == pytest.approx((28 / (28 + z**2), 1.0))
    assert intervals.wilson(np.nan, 10, 0.95) is None and intervals.wilson(0.5, 0, 0.95) is None


def test_a_metric_on_which_all_resamples_agree_has_no_interval_over_groups():
    live = np.tile([True, False, False], 8)
    score = np.where(
        live, 2.0, np.tile([-1.0, -1.0, 1.0], 8)
    )  # no live patch is missed, half the dead are called live
    columns = {
        "live": live,
        "score": score,
        "called": score > 0,
        "group": np.repeat(list("abcdefgh"), 3),
    }
    settings = Evaluate(confidence=0.95, bootstrap=200, abstain_error=0.1, band="patch", seed=1)
    found = overall(TestSet.of(pd.DataFrame(columns), settings))
    assert found["sensitivity"]["value"] == 1 and found["sensitivity"]["group_interval"] is None
    assert found["sensitivity"]["patch_interval"][0] < 0.7


def test_group_bootstrap_equals_a_plain_loop_over_resampled_groups():
    live, score, group = clustered()
    draws = intervals.draw(group, live, 50, seed=7)
    values = intervals.bootstrap(partial(weighted_metrics, live, score, score > 0.5), draws)["auc"]
    for weights, value in zip(draws.weights.astype(int), values, strict=True):
        rows = np.concatenate(
            [np.flatnonzero(group == g) for g, w in enumerate(weights) for _ in range(w)]
        )
        assert value == pytest.approx(roc_auc_score(live[rows], score[rows]))


def test_interval_over_groups_is_wider_than_over_patches_when_patches_cluster():
    live, score, group = clustered(groups=12, size=150)
    patches = auc_interval(live, score, intervals.draw_patches(live, 400, seed=1))
    groups = auc_interval(live, score, intervals.draw(group, live, 400, seed=1))
    assert groups[1] - groups[0] > 2 * (patches[1] - patches[0])


def test_intervals_agree_when_patches_do_not_cluster():
    live, score, _ = clustered(spread=0.0)
    group = np.random.default_rng(5).permutation(len(live)) // 6
    patches = auc_interval(live, score, intervals.draw_patches(live, 800, seed=1))
    groups = auc_interval(live, score, intervals.draw(group, live, 800, seed=1))
    assert groups[1] - groups[0] == pytest.approx(patches[1] - patches[0], rel=0.35)


def test_interval_over_groups_holds_the_truth_about_as_often_as_it_says():
    truth = []
    for seed in range(100):
        live, score, group = clustered(groups=30, size=10, seed=seed)
        low, high = auc_interval(live, score, intervals.draw(group, live, 200, seed=seed))
        truth.append((low, high))
    live, score, _ = clustered(groups=4000, size=10, seed=1000)
    population = roc_auc_score(live, score)
    assert 0.85 <= np.mean([low <= population <= high for low, high in truth]) <= 1.0


def test_resamples_without_a_class_are_redrawn_and_counted():
    live = np.array([True, False, False, False])
    draws = intervals.draw(np.arange(4), live, 300, seed=0)
    assert draws.weights.shape == (300, 4)
    assert (draws.weights[:, 0] > 0).all() and (draws.weights[:, 1:].sum(1) > 0).all()
    share = draws.lacking / (draws.lacking + 300)
    assert share == pytest.approx(0.75**4 + 0.25**4, abs=0.06)


@pytest.mark.parametrize(
    ("groups", "live"),
    [(["a"] * 4, [True, True, False, False]), (["a", "b", "c", "d"], [True] * 4)],
    ids=["one group", "one class"],
)
def test_nothing_to_resample_gives_no_interval(groups, live):
    draws = intervals.draw(np.array(groups), np.array(live), 100, seed=0)
    values = intervals.bootstrap(
        partial(weighted_metrics, np.array(live), np.arange(4.0), np.array(live)), draws
    )
    assert len(draws.weights) == 0 and intervals.percentile(values.get("auc"), 0.95) is None


def test_draws_repeat_with_the_seed_only():
    live, _, group = clustered()
    first, again, other = (intervals.draw(group, live, 20, seed).weights for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_pieces_do_not_change_the_bootstrap(monkeypatch):
    live, score, group = clustered()
    draws = intervals.draw(group, live, 50, seed=1)
    whole = auc_interval(live, score, draws)
    monkeypatch.setattr(intervals, "CELLS", 3 * len(live))
    assert auc_interval(live, score, draws) == whole


def test_a_thousand_resamples_of_all_metrics_are_quick():
    live, score, group = clustered(groups=40, size=25)
    start = time.process_time()
    intervals.bootstrap(
        partial(weighted_metrics, live, score, score > 0.5),
        intervals.draw(group, live, 1000, seed=0),
    )
    assert time.process_time() - start < 15


def brute_force_within(live, score, experiment):
    concordant = pairs = 0.0
    own = []
    for name in np.unique(experiment):
        rows = np.flatnonzero(experiment == name)
        compared = [
            (score[i] > score[j]) + (score[i] == score[j]) / 2
            for i in rows[live[rows]]
            for j in rows[~live[rows]]
        ]
        concordant, pairs = concordant + sum(compared), pairs + len(compared)
        own += [np.mean(compared)] if compared else []
    return concordant / pairs, np.mean(own), pairs, len(own)


def test_auc_within_experiments_equals_brute_force():
    live, score, group = clustered(groups=8, size=15)
    score = np.round(score, 1)
    live[group == 0], live[group == 1] = True, False  # two experiments of one class
    found = confounding.within_experiments(live, score, group)
    assert tuple(found.values()) == pytest.approx(brute_force_within(live, score, group))


def test_no_experiment_with_both_classes():
    found = confounding.within_experiments(
        np.array([True, False]), np.array([1.0, 0.0]), np.array(["a", "b"])
    )
    assert np.isnan(found["pair_weighted"]) and found["pairs"] == 0


def test_bootstrap_within_keeps_copies_of_an_experiment_apart():
    live, score, group = clustered(groups=6, size=12)
    draws = intervals.draw(group, live, 30, seed=2)
    statistic = confounding.within_statistic(live, score, group, draws.codes)
    found = intervals.bootstrap(statistic, draws, by_patch=False)
    for b, weights in enumerate(draws.weights.astype(int)):
        copies = list(itertools.chain.from_iterable([g] * w for g, w in enumerate(weights)))
        rows = np.concatenate([np.flatnonzero(group == g) for g in copies])
        name = np.repeat(np.arange(len(copies)), [int((group == g).sum()) for g in copies])
        pair_weighted, mean, _, _ = brute_force_within(live[rows], score[rows], name)
        assert found["pair_weighted"][b] == pytest.approx(pair_weighted)
        assert found["mean"][b] == pytest.approx(mean)


def test_bootstrap_within_crosses_groups_of_one_experiment():
    live, score, group = clustered(groups=6, size=10)
    experiment = np.where(group < 3, "a", "b")
    statistic = confounding.within_statistic(live, score, experiment, group)
    found = statistic(np.ones((1, 6)))
    expected = confounding.within_experiments(live, score, experiment)
    assert found["pair_weighted"][0] == pytest.approx(expected["pair_weighted"])
    assert found["mean"][0] == pytest.approx(expected["mean"])
    twice = statistic(np.array([[2.0, 1, 0, 0, 0, 0]]))["pair_weighted"][0]
    a, b = (np.flatnonzero(group == g) for g in (0, 1))
    concordant = pairs = 0.0
    for lives, deads, weight in ((a, a, 2), (b, b, 1), (a, b, 2), (b, a, 2)):
        compared = [score[i] > score[j] for i in lives[live[lives]] for j in deads[~live[deads]]]
        concordant, pairs = concordant + weight * sum(compared), pairs + weight * len(compared)
    assert twice == pytest.approx(concordant / pairs)


def test_experiment_only_scores_know_the_batch_and_nothing_else():
    live = np.array([True, True, True, False, False, False, False, True])
    experiment = np.array(["a", "a", "a", "a", "b", "b", "b", "c"])
    assert confounding.live_share(live, experiment) == pytest.approx([0.75] * 4 + [0] * 3 + [1])
    others = confounding.live_share_of_others(live, experiment)
    assert others == pytest.approx([2 / 3] * 3 + [1] + [0] * 3 + [0.5])
    assert roc_auc_score(live, others) < roc_auc_score(
        live, confounding.live_share(live, experiment)
    )
