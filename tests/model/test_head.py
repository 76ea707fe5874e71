"""Training the head alone: an exact regression on frozen features, the same in the stage, in folds
and when loaded.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from src.common.scoring.networks.inference import embed, predict
from src.common.scoring.networks.net import build
from src.common.train import head
from src.common.train.loading import oriented, targets
from tests.conftest import ARCH


@pytest.fixture(scope="module", params=["last", "levels"])
def fitted(request, live_dead):
    """The network, its table and what fit_head returned, trained on the training split."""
    store, table = live_dead
    table = table.reset_index(drop=True)
    torch.manual_seed(0)
    net = build(ARCH, pooling=request.param).eval()
    before = embed(net, store, table, desc=None)
    seen = head.views(net, store, table)
    train, valid = ((table["split"] == name).to_numpy() for name in ("train", "valid"))
    result = head.fit_head(net, seen, targets(table), train, valid, 0.01)
    return net, store, table, seen, before, valid, result


def test_the_eight_orientations_are_the_eight_symmetries_of_a_square():
    window = np.arange(9, dtype=np.uint8).reshape(3, 3)
    turned = {oriented(window, k).tobytes() for k in range(8)}
    assert len(turned) == 8 and np.array_equal(oriented(window, 0), window)


def test_the_first_view_is_the_window_as_it_is_and_the_body_stays(fitted):
    net, store, table, seen, before, *_ = fitted
    assert seen.shape == (8, len(table), net.feature_dim)
    np.testing.assert_array_equal(seen[0], before)
    np.testing.assert_array_equal(embed(net, store, table, desc=None), before)  # frozen


def test_the_network_gives_the_scores_that_were_measured(fitted):
    net, store, table, _, _, valid, (state, rows, epoch) = fitted
    net.load_state_dict(state)
    logits = predict(net, store, table, desc=None)
    [row] = rows
    assert epoch == 0 and row["epoch"] == 0
    score = logits[:, 1] - logits[:, 0]
    assert roc_auc_score(targets(table)[valid], score[valid]) == pytest.approx(
        row["valid_auc"], abs=1e-6
    )
    live = 1 / (1 + np.exp(-score[valid].astype(float)))
    truth = targets(table)[valid]
    assert -np.mean(np.log(np.where(truth == 1, live, 1 - live))) == pytest.approx(
        row["valid_loss"], abs=1e-3
    )
    assert row["valid_auc"] > 0.9  # the planted classes differ plainly


def test_large_data_are_seen_in_fewer_orientations(monkeypatch, live_dead):
    store, table = live_dead
    monkeypatch.setattr(head, "ROWS_KEPT", 2 * len(table) + 1)
    net = build(ARCH).eval()
    assert head.views(net, store, table).shape[0] == 2
    monkeypatch.setattr(head, "ROWS_KEPT", 1)
    assert head.views(net, store, pd.DataFrame(table)).shape[0] == 1
