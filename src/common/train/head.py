"""Training the head alone: a logistic regression on the frozen body's features, every window seen
in all orientations.

For few groups: nothing is fine-tuned that could learn to tell one experiment from another, the
optimum is exact, and a training is minutes on a processor. Features are standardised, which is
folded into the linear layer afterwards.
"""

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..patches.store import PatchStore
from ..scoring.networks.backbones import CLASSES
from ..scoring.networks.inference import embed
from ..scoring.networks.net import Net
from .loading import oriented

ORIENTATIONS = 8  # rotations by right angles, each also mirrored
# Rows of features kept in memory: of more windows than an eighth, fewer orientations are seen
ROWS_KEPT = 20000


class Turned:
    """A patch store whose windows are seen in one of the eight orientations."""

    def __init__(self, store: PatchStore, orientation: int):
        self._store, self._orientation = store, orientation

    def window(self, image_id: str, y: int, x: int, size: int) -> np.ndarray:
        """The window (size, size) uint8, turned."""
        return oriented(self._store.window(image_id, y, x, size), self._orientation)


def views(net: Net, store: PatchStore, table: pd.DataFrame) -> np.ndarray:
    """Features (V, N, D) float32 of a table's N windows in V orientations, unturned first."""
    turns = range(max(1, min(ORIENTATIONS, ROWS_KEPT // len(table))))
    return np.stack(
        [embed(net, Turned(store, k), table, desc=f"features {k + 1}/{len(turns)}") for k in turns]
    )


def fit_head(
    net: Net, seen: np.ndarray, labels: np.ndarray, train: np.ndarray, valid: np.ndarray, c: float
):
    """Fits the head to windows `train` (N,) bool in all orientations; measures it on `train` and
    `valid` as they are.

    seen: features (V, N, D); labels: class indices (N,); c: inverse strength of the regularisation.
    Returns what `training.fit` does: (state dict of the network, one row of metrics, 0 for the kept
    epoch).
    """
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=c, class_weight="balanced", max_iter=5000)
    )
    model.fit(seen[:, train].reshape(-1, seen.shape[2]), np.tile(labels[train], len(seen)))
    scaler, linear = model[0], model[1]
    weight = linear.coef_[0] / scaler.scale_
    bias = linear.intercept_[0] - weight @ scaler.mean_
    with torch.no_grad():  # half for each class: only the difference of the two logits counts
        net.head.weight.copy_(torch.as_tensor(np.stack([-weight, weight]) / 2))
        net.head.bias.copy_(torch.as_tensor(np.array([-bias, bias]) / 2))
    live = model.predict_proba(seen[0])[:, 1]
    row = {"train_loss": log_loss(labels[train], live[train])}
    if len(set(labels[valid])) == len(CLASSES):
        row |= {
            "valid_loss": log_loss(labels[valid], live[valid]),
            "valid_auc": roc_auc_score(labels[valid], live[valid]),
            "valid_balanced_accuracy": balanced_accuracy_score(labels[valid], live[valid] >= 0.5),
        }
    state = {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in net.state_dict().items()
    }
    return state, [{"epoch": 0} | {name: round(float(value), 6) for name, value in row.items()}], 0
