"""Thresholds from the stain: the paper's are found again, and what does not separate is not forced
apart.
"""

import os

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy.stats import norm
from sklearn.mixture import GaussianMixture

from src.common.label import mixture as mixtures
from src.common.label.mixture import Mixture, MixtureError
from src.common.label.thresholds import hidden_dead
from src.common.scoring.frames.windows import windows
from src.common.tile.measures import window_measures

PAPER = Mixture((224.51, 550.44), (34.46, 153.55), (0.48, 0.52), log=False, bic_gain=1.0)


def paper_values(count: int = 20000, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    dead = random.random(count) < PAPER.weight[1]
    return np.where(dead, random.normal(550.44, 153.55, count), random.normal(224.51, 34.46, count))


def test_thresholds_of_the_paper():
    assert PAPER.live_below == pytest.approx(258.97) and PAPER.dead_above == pytest.approx(396.89)
    assert mixtures.problems(PAPER) == []


def test_components_are_found_again():
    found = mixtures.fit(paper_values(), log=False, seed=1)
    assert found.live_below == pytest.approx(
        258.97, rel=0.01
    ) and found.dead_above == pytest.approx(396.89, rel=0.02)
    assert found.weight[0] == pytest.approx(0.48, abs=0.02) and mixtures.problems(found) == []


def test_logarithmic_fit_gives_thresholds_in_the_intensitys_own_unit():
    random = np.random.default_rng(3)
    values = np.exp(
        np.concatenate([random.normal(0.01, 0.02, 3000), random.normal(0.47, 0.15, 3000)])
    )
    found = mixtures.fit(values, log=True, seed=1)
    assert found.mean == pytest.approx((0.01, 0.47), abs=0.01)
    assert found.live_below == pytest.approx(np.exp(0.03), abs=0.005)
    assert found.dead_above == pytest.approx(np.exp(0.32), abs=0.03)


def test_result_depends_neither_on_order_nor_on_unit():
    values = paper_values(3000)
    found, turned = (mixtures.fit(v, log=False, seed=1) for v in (values, values[::-1]))
    assert turned.live_below == pytest.approx(found.live_below, abs=0.05)
    assert mixtures.fit(values * 1e-4, log=False, seed=1).live_below == pytest.approx(
        found.live_below * 1e-4, rel=1e-3
    )


@pytest.mark.parametrize("apart", [1.0, 2.56, 5.0])
def test_overlap_of_equal_components_is_the_known_tail(apart):
    found = Mixture((0.0, apart), (1.0, 1.0), (0.5, 0.5), log=False, bic_gain=1.0)
    assert found.overlap == pytest.approx(norm.cdf(-apart / 2), abs=1e-4)


def test_stain_without_signal_is_not_split():
    found = mixtures.fit(np.random.default_rng(0).normal(200, 30, 3000), log=False, seed=1)
    said = "; ".join(mixtures.problems(found))
    assert "thresholds cross" in said and "overlap" in said and "one component describes" in said


@pytest.mark.parametrize("log, part", [(True, "label.log: 2 of 40"), (False, None)])
def test_zeros_are_refused_by_the_logarithm_alone(log, part):
    values = np.concatenate([[0, 0], paper_values(38).clip(1)])
    if part is None:
        mixtures.fit(values, log=log, seed=1)
    else:
        with pytest.raises(MixtureError, match=part):
            mixtures.fit(values, log=log, seed=1)


@pytest.mark.parametrize(
    "values, said",
    [
        (np.full(50, 7.0), "no signal"),
        (np.ones(5), "at least 20"),
        (np.full(50, np.nan), "not finite"),
    ],
)
def test_values_without_a_mixture_are_refused(values, said):
    with pytest.raises(MixtureError, match=said):
        mixtures.fit(values, log=False, seed=1)


def test_a_bound_itself_is_discarded():
    found = mixtures.classify(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), live_below=2.0, dead_above=4.0)
    assert found.tolist() == ["live", "discarded", "discarded", "discarded", "dead"]


def test_background_ratio_divides_by_the_field_and_refuses_a_dark_one():
    patches = pd.DataFrame(
        {"image_id": ["a", "b"], "mean_pi": [300.0, 50.0], "pi_background": [200.0, 50.0]}
    )
    assert mixtures.intensities(patches, "background_ratio").tolist() == [1.5, 1.0]
    assert mixtures.intensities(patches, "counts").tolist() == [300.0, 50.0]
    with pytest.raises(MixtureError, match=r"1 images have no .*\(b\)"):
        mixtures.intensities(patches.assign(pi_background=[200.0, 0.0]), "background_ratio")


def test_interval_covers_the_truth_and_widens_when_fields_differ():
    values, fields = paper_values(6000), np.arange(6000) // 60
    found = mixtures.fit(values, log=False, seed=1)
    alike = mixtures.interval(values, fields, found, seed=1)
    assert alike["live_below"][0] < found.live_below < alike["live_below"][1]
    assert alike["dead_above"][0] < found.dead_above < alike["dead_above"][1]
    sorted_fields = (
        np.argsort(np.argsort(values)) // 60
    )  # each field holds one narrow range of intensities
    differing = mixtures.interval(values, sorted_fields, found, seed=1)
    assert np.ptp(differing["dead_above"]) > 3 * np.ptp(alike["dead_above"])
    assert mixtures.interval(values, fields, found, seed=1) == alike


def test_binned_refit_agrees_with_scikit_learn():
    values = np.sort(paper_values(4000))
    found = mixtures.fit(values, log=False, seed=1)
    centres, counts = values.reshape(500, 8).mean(1), np.full((1, 500), 8.0)
    mean, sd = mixtures._refit(centres, counts, found)
    exact = GaussianMixture(2, means_init=[[200.0], [500.0]], tol=1e-8, max_iter=2000).fit(
        values[:, None]
    )
    order = np.argsort(exact.means_[:, 0])
    assert mean[:, 0] == pytest.approx(exact.means_[order, 0], rel=0.002)
    assert sd[:, 0] == pytest.approx(np.sqrt(exact.covariances_[order, 0, 0]), rel=0.01)


@pytest.mark.real
def test_real_fields_have_two_components_on_the_background_ratio():
    folder = os.environ.get("UNSTAINED_MCF7")
    if not folder:
        pytest.skip("UNSTAINED_MCF7 does not name the folder of the real MCF-7 fields")
    values = []
    for name in pd.read_csv(f"{folder}/images.csv")["pi"]:
        pi = tifffile.imread(f"{folder}/{name}")
        corners = np.array([[w.y, w.x, w.size] for w in windows(*pi.shape, 224, 112)])
        whole = np.array([pi[y : y + size, x : x + size].all() for y, x, size in corners])
        measured = pd.DataFrame(window_measures(pi, corners[whole], 16, 5)).assign(image_id=name)
        values.append(mixtures.intensities(measured, "background_ratio"))
    found = mixtures.fit(np.concatenate(values), log=True, seed=1)
    assert (
        np.exp(found.mean) == pytest.approx([1.06, 2.0], rel=0.03)
        and mixtures.problems(found) == []
    )
    assert 1.1 < found.live_below < 1.14 < 1.22 < found.dead_above < 1.32
    assert mixtures.problems(mixtures.fit(np.concatenate(values), log=False, seed=1)) == []


@pytest.mark.parametrize("brighter", [(20000, 5000, 40), (2000, 200, 300)])  # debris, a stain twice
def test_dead_patches_that_something_brighter_hides_are_said(brighter):
    random = np.random.default_rng(3)
    centre, sd, count = brighter
    values = [random.normal(225, 20, 600), random.normal(500, 50, 300)]
    values = np.concatenate([*values, random.normal(centre, sd, count)])
    found = mixtures.fit(values, log=False, seed=1)
    assert mixtures.problems(found) == []  # so it would have passed
    assert "is two populations, at 22" in hidden_dead(values, found, 1)


@pytest.mark.parametrize(
    "values", [paper_values(3000), np.where(paper_values(300) < 330, 0.0, 500)]
)
def test_two_populations_hide_none(values):
    assert hidden_dead(values, mixtures.fit(values, log=False, seed=1), 1) == ""
