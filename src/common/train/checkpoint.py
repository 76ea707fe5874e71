"""The one file from which a training goes on, the best epoch's weights, and when to stop early."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint

from ..scoring.networks.net import Net
from .classifier import Classifier
from .loading import TrainingError

CHECKPOINT_SECONDS = 60.0  # between two checkpoints inside an epoch; 0 writes one after every step
Report = Callable[[dict[str, float], int], None]


class ResumableCheckpoint(Checkpoint):
    """Keeps one row of metrics per epoch and the best weights, stops early, and writes the
    checkpoint.

    The best epoch is that of the highest validation AUC; of equal ones, that of the lowest loss;
    without validation, the last. `patience` epochs without a better one end the training (0:
    never).
    """

    def __init__(self, path: Path, patience: int, report: Report):
        self.path, self.patience = path, patience
        self.rows: list[dict[str, float]] = []
        self.best: dict = {}  # epoch, score and state
        self._report, self._written = report, time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._stop_if_enough(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module, outputs, batch, batch_idx: int
    ) -> None:
        # Not after the last step of an epoch: Lightning would go on with the next epoch, without
        # validating this one.
        due = time.monotonic() - self._written >= CHECKPOINT_SECONDS and not trainer.is_last_batch
        if trainer.strategy.reduce_boolean_decision(due, all=False):
            self._write(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Classifier) -> None:
        """Raises TrainingError if the training diverged."""
        row = {"train_loss": float(module.losses[0] / module.losses[1])}
        row |= {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("valid_")}
        if wrong := [k for k, v in row.items() if not math.isfinite(v)]:
            raise TrainingError(
                f"epoch {trainer.current_epoch}: {wrong[0]} is not a number: train.lr is too high"
            )
        row = {k: round(v, 6) for k, v in row.items()} | {
            "lr": round(trainer.optimizers[0].param_groups[0]["lr"], 10)
        }
        self.rows.append({"epoch": trainer.current_epoch} | row)
        score = (
            [row["valid_auc"], -row["valid_loss"]]
            if "valid_auc" in row
            else [trainer.current_epoch]
        )
        if not self.best or score > self.best["score"]:
            self.best = {"epoch": trainer.current_epoch, "score": score, "state": _copy(module.net)}
        if trainer.is_global_zero:
            self._report(row, trainer.current_epoch)
        self._write(trainer)
        self._stop_if_enough(trainer)

    def _stop_if_enough(self, trainer: pl.Trainer) -> None:
        if (
            self.patience
            and self.rows
            and self.rows[-1]["epoch"] - self.best["epoch"] >= self.patience
        ):
            trainer.should_stop = True

    def _write(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._written = time.monotonic()

    def state_dict(self) -> dict:
        return {"rows": self.rows, "best": self.best}

    def load_state_dict(self, state: dict) -> None:
        self.rows, self.best = list(state["rows"]), state["best"]


def _copy(net: Net) -> dict[str, torch.Tensor]:
    return {
        k: v.cpu().clone(memory_format=torch.contiguous_format) for k, v in net.state_dict().items()
    }
