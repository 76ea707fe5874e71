"""Features that the filter keeps for the stages after it."""

import numpy as np
import pandas as pd
import pytest

from src.common.patches import frozen
from src.common.patches.frozen import FrozenFeatures, UnknownWindows, save_features

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


def test_features_serve_where_the_same_weights_made_them(folder):
    kept = FrozenFeatures(folder)
    assert kept.made_by({"sha256": "one"}) and not kept.made_by({"sha256": "other"})
