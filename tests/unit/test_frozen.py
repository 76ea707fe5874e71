"""Features that the filter keeps for the stages after it."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from src.common.filter import features
from src.common.filter.features import WORTH_PROCESSES
from src.common.patches import frozen
from src.common.patches.frozen import FrozenFeatures, UnknownWindows, save_features
from src.common.scoring.networks.backbones import facts
from src.common.scoring.networks.net import library_model
from tests.conftest import ARCH, write_store

NAMES = pd.Series(["a:0:0:32", "b:0:32:32", "a:0:32:32", "b:0:0:32"])
FEATURES = np.arange(16, dtype=np.float32).reshape(4, 4)
KEPT = np.array([True, False, True, True])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(frozen, "BLOCK", 2)
    source = {"arch": "resnet18", "sha256": "one", "sees": "windows"}
    save_features(tmp_path / "features", NAMES, FEATURES, KEPT, source)
    return tmp_path / "features"


def test_windows_are_found_by_name_in_the_order_asked(folder):
    asked = pd.DataFrame({"patch_id": NAMES[[3, 0, 3]]})
    np.testing.assert_array_equal(FrozenFeatures(folder).of(asked), FEATURES[[3, 0, 3]])


def test_a_window_without_cells_is_named(folder):
    with pytest.raises(UnknownWindows, match=r"b:0:32:32.*dvc repro filter"):
        FrozenFeatures(folder).of(pd.DataFrame({"patch_id": [NAMES[0], "b:0:32:32"]}))


def test_features_serve_for_the_same_weights_over_single_windows_alone(folder):
    kept = FrozenFeatures(folder)
    assert kept.by_itself({"sha256": "one"}) and not kept.by_itself({"sha256": "other"})
    save_features(folder, NAMES, FEATURES, KEPT, {"sha256": "one", "sees": "frame"})
    assert not FrozenFeatures(folder).by_itself({"sha256": "one"})


def test_features_are_the_same_bytes_with_any_processes_and_threads(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSTAINED_CACHE_GB", "0")
    rng = np.random.default_rng(0)
    frames = {f"f{i}": rng.integers(0, 256, (96, 96), np.uint8) for i in range(WORTH_PROCESSES)}
    write_store(tmp_path / "patches", frames)
    corners = np.array([(y, x) for y in (0, 32) for x in (0, 32)] * len(frames))
    windows = pd.DataFrame({"image_id": np.repeat(list(frames), 4), "size": 64})
    windows["y"], windows["x"] = corners.T
    weights = tmp_path / "net.safetensors"
    save_file(library_model(facts(ARCH)).state_dict(), weights)

    def made(workers: int, threads: int) -> np.ndarray:
        own = torch.get_num_threads()
        torch.set_num_threads(threads)
        features._opened.cache_clear()
        found = features.features(ARCH, weights, "windows", tmp_path / "patches", windows, workers)
        assert torch.get_num_threads() == threads
        torch.set_num_threads(own)
        return np.array(found)

    alone = made(1, 1)
    assert alone.shape[0] == len(windows) and np.isfinite(alone).all() and alone.std() > 0
    np.testing.assert_array_equal(made(2, 2), alone)
