"""Fine-tuning under Lightning: cross entropy, the paper's optimiser or a modern schedule, resume at
the exact step.

Everything that a training needs to go on is in one file, SCRATCH/last.ckpt, written between steps
about once a minute and after each epoch: weights, optimiser, schedule, place in the epoch, metrics
so far and the best weights. Random draws depend on (seed, epoch) or (seed, step) alone, so a
resumed training ends with the same weights as one that was never interrupted. Checkpoints are read
with `weights_only=True`: nothing is unpickled.
"""

import logging
import math
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, TQDMProgressBar
from torch import nn
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAUROC, MulticlassRecall

from ..patches.store import PatchStore
from ..scoring.backbones import CLASSES, Net
from ..workspace.errors import UserError
from ..workspace.params import Train
from .loading import EpochPlan, ResumableLoader, Windows, in_order, targets

CHECKPOINT_SECONDS = 60.0  # between two checkpoints inside an epoch; 0 writes one after every step
VALID_BATCH = 32
Report = Callable[[dict[str, float], int], None]


class TrainingError(UserError):
    """Training cannot start as asked; the message says what to change."""


def refuse_one_class(labels: pd.Series) -> None:
    """Raises TrainingError unless both classes are there to learn."""
    if labels.nunique() < len(CLASSES):
        raise TrainingError(
            f"training needs windows of both classes, and has {set(labels) or 'none'}"
        )


def is_rank_zero() -> bool:
    """Whether this process leads: the only one that may track, write models or remove files.

    On several devices Lightning starts the same command again, with LOCAL_RANK set; nodes are told
    apart by NODE_RANK.
    """
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return all(int(os.environ.get(name) or 0) == 0 for name in names)


class Classifier(pl.LightningModule):
    """A network in training; logs losses, balanced accuracy and AUC per epoch.

    In the first `frozen_epochs` the head learns alone. The body then is in evaluation mode, so that
    its batch normalisation keeps the pretrained statistics and the head learns on the very features
    that inference sees.
    """

    def __init__(self, net: Net, train: Train, steps: int):
        super().__init__()
        self.net, self.params, self.steps = net, train, steps
        self.auc, self.recall = BinaryAUROC(), MulticlassRecall(len(CLASSES), average="macro")
        self.valid_loss = MeanMetric()
        # Sum and number of the epoch's losses: a buffer, so in the checkpoint, and a resumed
        # epoch's mean is whole
        self.register_buffer("losses", torch.zeros(2))

    def on_train_start(self) -> None:
        self._freeze_or_thaw()  # also when going on inside an epoch, where on_train_epoch_start is not called

    def on_train_epoch_start(self) -> None:
        self._freeze_or_thaw()
        self.losses.zero_()

    def _freeze_or_thaw(self) -> None:
        frozen = self.current_epoch < self.params.frozen_epochs
        self.net.train()
        self.net.body.requires_grad_(not frozen).train(not frozen)

    def on_train_batch_start(self, batch, batch_idx: int) -> None:
        # Dropout draws from the global generator: seeded per step, a resumed run repeats the
        # uninterrupted one.
        sequence = np.random.SeedSequence([self.params.seed, self.global_step, self.global_rank])
        torch.manual_seed(int(sequence.generate_state(1)[0]))

    def training_step(self, batch, batch_idx: int) -> torch.Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self._logits(images), labels)
        self.losses += torch.stack(
            [self.trainer.strategy.reduce(loss.detach(), reduce_op="mean"), loss.new_ones(())]
        )
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx: int) -> None:
        images, labels = batch
        logits = self._logits(images)
        self.auc.update(logits[:, 1] - logits[:, 0], labels)
        self.recall.update(logits, labels)
        self.valid_loss.update(nn.functional.cross_entropy(logits, labels), len(labels))

    def on_validation_epoch_end(self) -> None:
        found = {
            "valid_loss": self.valid_loss,
            "valid_auc": self.auc,
            "valid_balanced_accuracy": self.recall,
        }
        for name, metric in found.items():
            self.log(name, metric.compute(), prog_bar=name == "valid_auc", sync_dist=True)
            metric.reset()

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, 2) float32: the head never computes in 16 bit, whose rounding would tie
        scores.
        """
        features = self.net.dropout(
            self.net.features(images.contiguous(memory_format=torch.channels_last))
        )
        with torch.autocast(features.device.type, enabled=False):
            return self.net.head(features.float())

    def configure_optimizers(self):
        p = self.params
        kind = torch.optim.AdamW if p.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(
            self.parameters(), lr=p.lr, betas=tuple(p.betas), weight_decay=p.weight_decay
        )
        if p.schedule == "constant":
            return optimizer
        warmup = round(self.steps * p.warmup_fraction)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: cosine(step, warmup, self.steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def cosine(step: int, warmup: int, steps: int) -> float:
    """Factor of the learning rate at a step (from 0) of `steps`: a linear rise over `warmup`, then
    half a cosine.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class Keeper(Checkpoint):
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


def precision(asked: str) -> str:
    """Lightning's name of the precision; `auto` is bf16 where the processor or device computes in
    it natively.
    """
    cuda = torch.cuda.is_available()
    if asked == "auto":
        native = (
            torch.cuda.is_bf16_supported(False) if cuda else torch.cpu._is_avx512_bf16_supported()
        )
        asked = "bf16" if native else "32"
    if asked == "16" and not cuda:
        raise TrainingError("train.precision 16 needs a CUDA device: use auto, bf16 or 32")
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[asked]


def fit(
    net: Net,
    store: PatchStore,
    train_table: pd.DataFrame,
    valid_table: pd.DataFrame,
    train: Train,
    scratch: Path,
    report: Report,
    epochs: int | None = None,
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]], int]:
    """Trains a network on the windows of `train_table`; the epoch with the best validation AUC is
    kept.

    Tables hold image_id, y, x, size, label; without validation windows of both classes the last
    epoch is kept. An interrupted training goes on from SCRATCH/last.ckpt, which the caller removes
    when it has saved the result. With several devices every process calls this, and each holds
    batch_size windows a step; `report` is called by the first alone. epochs: stop after so many of
    the schedule's. Returns (state dict of the network, one row of metrics per epoch, number of the
    kept epoch). Raises TrainingError; SystemExit when interrupted.
    """
    refuse_one_class(train_table["label"])
    has_valid = valid_table["label"].nunique() == len(CLASSES)
    if len(valid_table) and not has_valid:
        print("WARNING: validation holds one class only: no AUC, and the last epoch is kept")
    pl.seed_everything(train.seed, verbose=False)
    keeper = Keeper(scratch / "last.ckpt", train.patience if has_valid else 0, report)
    trainer = _trainer(train, keeper, epochs or train.epochs)
    rank, ranks = trainer.global_rank, train.devices * train.nodes
    plan = EpochPlan(
        targets(train_table),
        train.samples_per_epoch,
        train.intensity_augmentation,
        train.seed,
        rank,
        ranks,
    )
    loader = ResumableLoader(
        Windows(store, train_table, net.backbone), plan, train.batch_size, train.workers
    )
    valid = Windows(store, valid_table, net.backbone)
    valid_loader = in_order(valid, VALID_BATCH, train.workers, rank, ranks) if has_valid else None
    module = Classifier(
        net.to(memory_format=torch.channels_last), train, len(loader) * train.epochs
    )
    _run(trainer, module, loader, valid_loader, keeper.path)
    return keeper.best["state"], keeper.rows, keeper.best["epoch"]


def _run(trainer: pl.Trainer, module: Classifier, loader, valid_loader, last: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", ".*(does not have many workers|in eval mode at the start).*"
        )
        try:
            trainer.fit(
                module,
                loader,
                valid_loader,
                ckpt_path=last if last.exists() else None,
                weights_only=True,
            )
        except SystemExit:  # what Lightning makes of Ctrl-C and SIGTERM
            raise SystemExit(
                f"training was interrupted: the same command goes on from {last}"
            ) from None


def _trainer(train: Train, keeper: Keeper, epochs: int) -> pl.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    strategy = train.strategy
    if train.frozen_epochs and train.devices * train.nodes > 1 and strategy in ("auto", "ddp"):
        strategy = (
            "ddp_find_unused_parameters_true"  # else ddp waits for the gradients of the frozen body
        )
    try:
        return pl.Trainer(
            max_epochs=epochs, accelerator="auto", devices=train.devices, num_nodes=train.nodes,
            strategy=strategy, precision=precision(train.precision), logger=False, deterministic="warn",
            callbacks=[keeper, TQDMProgressBar(refresh_rate=5, leave=True)],
            use_distributed_sampler=False, num_sanity_val_steps=0, enable_model_summary=False,
        )  # fmt: skip
    except (MisconfigurationException, ValueError) as error:
        raise TrainingError(
            f"train.devices, nodes, strategy or precision cannot be had here: {error}"
        ) from error
