"""Slices and baselines: what a slice holds, and features that know texture from none."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from src.common.evaluate import baselines, slices, texture


class Windows:
    """A store whose image ids are indices of an array of windows."""

    def __init__(self, windows: np.ndarray):
        self.windows = windows

    def window(self, image_id: int, y: int, x: int, size: int) -> np.ndarray:
        return self.windows[image_id, y : y + size, x : x + size]

    def brightfield(self, image_id: int) -> np.ndarray:
        return self.windows[image_id]

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(
            {"image_id": range(len(self.windows)), "y": 0, "x": 0, "size": self.windows.shape[1]}
        )


def grain(sd: float, count: int = 20, scale: int = 8, seed: int = 0) -> np.ndarray:
    """Windows of 64 px: blocks of `scale` px of random grey, and a little noise."""
    random = np.random.default_rng(seed)
    blocks = (
        random.normal(0, sd, (count, 64 // scale, 64 // scale)).repeat(scale, 1).repeat(scale, 2)
    )
    return np.clip(128 + blocks + random.normal(0, 2, blocks.shape), 0, 255).astype(np.uint8)


def test_slices_count_every_patch_once_and_leave_out_the_nameless():
    live = np.array([True, False, True, False, True])
    test = pd.DataFrame(
        {"live": live, "score": [3.0, 1, 2, 0, 5], "called": [True, True, True, False, False]}
    )
    rows = slices.slice_table(test, {"day": pd.Series(["3", "3", "4", None, "4"])})
    assert [(r["value"], r["n"], r["n_live"], r["n_dead"]) for r in rows] == [
        ("3", 2, 1, 1),
        ("4", 2, 2, 0),
    ]
    assert rows[0]["auc"] == 1.0 and rows[0]["balanced_accuracy"] == 0.5
    assert np.isnan(rows[1]["auc"]) and rows[1]["sensitivity"] == 0.5


def test_distance_thirds_hold_both_classes_and_the_nearest_are_the_lower():
    live = np.repeat([True, False], 30)
    intensity = np.concatenate([250 - np.arange(30.0), 400 + np.arange(30) * 10.0])
    test = pd.DataFrame({"live": live, "intensity": intensity}).sample(frac=1, random_state=0)
    found = slices.distance_thirds(test, 250, 400)
    for third, low, high in zip(slices.THIRDS, (0, 10, 20), (10, 20, 30), strict=True):
        rows = test[found == third]
        assert sorted(rows.loc[rows["live"], "intensity"]) == sorted(250 - np.arange(low, high))
        assert sorted(rows.loc[~rows["live"], "intensity"]) == sorted(
            400.0 + np.arange(low, high) * 10
        )


def test_a_window_half_a_window_from_the_border_is_in_the_centre():
    test = pd.DataFrame(
        {
            "y": [0, 112, 112, 111],
            "x": [112, 112, 289, 112],
            "size": 224,
            "height": 512,
            "width": 624,
        }
    )
    assert slices.frame_position(test).tolist() == ["edge", "centre", "edge", "edge"]
    assert slices.frame_position(test.assign(width=625)).tolist()[2] == "centre"


def test_textured_share_sees_cells_and_not_noise():
    noise, cells = Windows(grain(0.0)), Windows(grain(30.0))
    half = Windows(np.concatenate([noise.windows[:, :32], cells.windows[:, 32:]], axis=1))
    shares = [slices.textured(store, store.table()).mean() for store in (noise, half, cells)]
    assert shares[0] < 0.02 and 0.4 < shares[1] < 0.9 and shares[2] > 0.98
    assert slices.density(pd.Series([0.1, 0.9, 0.99, 1.0])).str[0].tolist() == ["1", "2", "3", "3"]


def test_texture_features_by_hand_of_a_flat_window():
    found = texture.texture_features(np.full((64, 64), 100, np.uint8), np.array([[0, 0, 64]]))
    assert found.shape == (1, texture.FEATURES) and np.isfinite(found).all()
    assert found[0, :11] == pytest.approx([100, 0, 0, 0] + [100] * 7)


def test_texture_features_are_of_the_window_wherever_it_lies():
    frame = np.tile(grain(30.0, count=1)[0], (3, 4))
    corners = np.array([[64, 64, 64], [64, 128, 64], [50, 90, 60]])
    first, second, other = texture.texture_features(frame, corners)
    assert first == pytest.approx(second) and np.abs(first - other).max() > 0.1
    alone = texture.texture_features(frame[18:, 58:], np.array([[32, 32, 60]]))
    assert other == pytest.approx(alone[0])


def test_intensity_features_equal_numpy_and_scipy():
    from scipy import stats

    window = grain(30.0, count=1)[0]
    expected = [
        window.mean(),
        window.std(),
        stats.skew(window.ravel()),
        stats.kurtosis(window.ravel(), fisher=False),
    ]
    percentiles = np.percentile(window, texture.PERCENTILES, method="inverted_cdf")
    found = texture.texture_features(window, np.array([[0, 0, 64]]))
    assert found[0, :11] == pytest.approx([*expected, *percentiles])


def test_linear_model_on_texture_tells_fine_from_coarse_grain():
    windows = Windows(np.concatenate([grain(20.0, scale=4), grain(20.0, scale=16, seed=1)]))
    live, features = np.repeat([True, False], 20), texture.textures(windows, windows.table())
    train, rest = np.arange(40) % 2 == 0, np.arange(40) % 2 == 1
    valid = np.arange(20) % 2 == 0
    logits = baselines.linear_logits(
        features[train], live[train], features[rest], valid, live[rest][valid]
    )
    assert roc_auc_score(live[rest][~valid], logits[~valid]) > 0.95


def test_the_regularisation_of_a_linear_model_is_chosen_by_validation():
    random = np.random.default_rng(2)
    live = random.random(120) < 0.5
    features = random.normal(size=(120, 60))
    features[:, 0] += 2 * live
    valid, found = np.arange(80) < 40, []
    for c in baselines.STRENGTHS:
        logistic = LogisticRegression(
            C=c, class_weight="balanced", tol=1e-9, max_iter=9999
        )  # another solver
        model = make_pipeline(StandardScaler(), logistic)
        logits = model.fit(features[:40], live[:40]).decision_function(features[40:])
        found.append((roc_auc_score(live[40:80], logits[:40]), logits))
    logits = baselines.linear_logits(features[:40], live[:40], features[40:], valid, live[40:80])
    assert logits == pytest.approx(max(found, key=lambda each: round(each[0], 9))[1], abs=1e-4)
    assert len({round(auc, 6) for auc, _ in found}) > 1


def test_the_acquisition_baseline_knows_the_exposure_and_nothing_of_the_window():
    frames = pd.DataFrame(
        {"brightfield_bits": 16, "brightfield_median": [300.0, 320.0, 9000.0, 9500.0]},
        index=["a", "b", "c", "d"],
    ).assign(brightfield_contrast=[0.5, 0.6, 0.5, 0.6])
    table = pd.DataFrame({"image_id": np.repeat(frames.index, 5), "y": np.arange(20)})
    features = baselines.acquisition(frames, table)
    assert features.shape == (20, 3) and len(np.unique(features, axis=0)) == 4
    live = table["image_id"].isin(["c", "d"]).to_numpy()
    valid = np.arange(20) % 2 == 0
    logits = baselines.linear_logits(features, live, features, valid, live[valid])
    assert logits[live].min() > logits[~live].max()
