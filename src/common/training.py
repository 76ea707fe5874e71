"""Fine-tuning under Lightning: cross entropy, the paper's optimiser or a modern schedule, resume at the exact step."""

import shutil
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics.classification import BinaryAUROC, MulticlassRecall

from .backbones import CLASSES, Net
from .loading import EpochPlan, ResumableLoader, Windows, targets
from .params import Train
from .patches import PatchStore

CHECKPOINT_STEPS = 25  # how often a resumable checkpoint is written: a few seconds to a minute of work


class Classifier(pl.LightningModule):
    """A network in training; logs losses, balanced accuracy and AUC per epoch."""

    def __init__(self, net: Net, train: Train, steps: int):
        super().__init__()
        self.net, self.params, self.steps = net, train, steps
        self.auc, self.recall = BinaryAUROC(), MulticlassRecall(len(CLASSES), average="macro")

    def on_train_epoch_start(self) -> None:
        frozen = self.current_epoch < self.params.frozen_epochs
        self.net.body.requires_grad_(not frozen)

    def on_train_batch_start(self, batch, batch_idx: int) -> None:
        # Dropout draws from the global generator: seeded per step, a resumed run repeats the uninterrupted one.
        torch.manual_seed(self.params.seed * 1_000_003 + self.global_step)

    def training_step(self, batch, batch_idx: int) -> torch.Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self.net(_fast(images)), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(labels), sync_dist=True)
        return loss

    def validation_step(self, batch, batch_idx: int) -> None:
        images, labels = batch
        logits = self.net(_fast(images)).float()
        loss = nn.functional.cross_entropy(logits, labels)
        self.auc(logits[:, 1] - logits[:, 0], labels)
        self.recall(logits, labels)
        self.log("valid_loss", loss, batch_size=len(labels), sync_dist=True)
        self.log("valid_auc", self.auc, on_epoch=True, prog_bar=True)
        self.log("valid_balanced_accuracy", self.recall, on_epoch=True)

    def configure_optimizers(self):
        p = self.params
        kind = torch.optim.AdamW if p.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(self.parameters(), lr=p.lr, betas=tuple(p.betas), weight_decay=p.weight_decay)
        if p.schedule == "constant":
            return optimizer
        warmup = max(1, round(self.steps * p.warmup_fraction))
        rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, total_iters=warmup)
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, self.steps - warmup))
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [warmup])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class History(pl.Callback):
    """Collects one row of metrics per epoch, and hands it on while training runs; survives a resume."""

    def __init__(self, report: Callable[[dict[str, float], int], None]):
        self.rows: list[dict[str, float]] = []
        self._report = report

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        row = {k: round(float(v), 6) for k, v in trainer.callback_metrics.items()}
        row |= {"lr": round(trainer.optimizers[0].param_groups[0]["lr"], 10)}
        self.rows.append({"epoch": trainer.current_epoch} | row)
        if trainer.is_global_zero:
            self._report(row, trainer.current_epoch)

    def state_dict(self) -> dict:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        self.rows = list(state["rows"])


class PlanEpoch(pl.Callback):
    """Tells the plan which epoch to draw."""

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        trainer.train_dataloader.sampler.epoch = trainer.current_epoch


def precision(asked: str) -> str:
    """Lightning's name of the precision; `auto` is bf16 where the processor or device computes in it natively."""
    if asked == "auto":
        cuda = torch.cuda.is_available()
        native = torch.cuda.is_bf16_supported() if cuda else torch.cpu._is_avx512_bf16_supported()
        asked = "bf16" if native else "32"
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[asked]


def fit(
    net: Net,
    store: PatchStore,
    train_table: pd.DataFrame,
    valid_table: pd.DataFrame,
    train: Train,
    scratch: Path,
    report: Callable[[dict[str, float], int], None],
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]], int]:
    """Trains a network on the windows of `train_table`; the epoch with the best validation AUC is kept.

    Tables hold image_id, y, x, size, label; without validation windows the last epoch is kept. Checkpoints lie in
    `scratch`, from where an interrupted training goes on, and which is removed at the end. Returns (state dict of the
    network, one row of metrics per epoch, number of the kept epoch).
    """
    pl.seed_everything(train.seed, verbose=False)
    has_valid = valid_table["label"].nunique() == len(CLASSES)
    ranks = train.devices * train.nodes
    history = History(report)
    trainer = _trainer(train, scratch, has_valid, history)
    plan = EpochPlan(
        targets(train_table), train.samples_per_epoch, train.intensity_augmentation, train.seed,
        trainer.global_rank, ranks,
    )  # fmt: skip
    loader = ResumableLoader(Windows(store, train_table, net.backbone), plan, train.batch_size, train.workers)
    valid = Windows(store, valid_table, net.backbone)
    valid_loader = DataLoader(valid, 32, num_workers=train.workers) if has_valid else None
    module = Classifier(net.to(memory_format=torch.channels_last), train, len(loader) * train.epochs)
    last = scratch / "last.ckpt"
    trainer.fit(module, loader, valid_loader, ckpt_path=last if last.exists() else None, weights_only=True)
    best = trainer.checkpoint_callbacks[0].best_model_path if has_valid else ""
    state, epoch = _state(Path(best)) if best else (net.state_dict(), len(history.rows) - 1)
    trainer.strategy.barrier()
    if trainer.is_global_zero:
        shutil.rmtree(scratch, ignore_errors=True)
    return {k: v.detach().cpu().contiguous() for k, v in state.items()}, history.rows, epoch


def _trainer(train: Train, scratch: Path, has_valid: bool, history: History) -> pl.Trainer:
    callbacks = [history, PlanEpoch(), TQDMProgressBar(refresh_rate=5, leave=True)]
    if has_valid:
        callbacks.append(ModelCheckpoint(scratch, "best", monitor="valid_auc", mode="max", enable_version_counter=False))
        if train.patience:
            callbacks.append(EarlyStopping("valid_auc", mode="max", patience=train.patience))
    callbacks.append(
        ModelCheckpoint(scratch, "last", every_n_train_steps=CHECKPOINT_STEPS, enable_version_counter=False)
    )
    return pl.Trainer(
        max_epochs=train.epochs, accelerator="auto", devices=train.devices, num_nodes=train.nodes,
        strategy=train.strategy, precision=precision(train.precision), callbacks=callbacks, logger=False,
        use_distributed_sampler=False, num_sanity_val_steps=0, enable_model_summary=False, deterministic="warn",
    )  # fmt: skip


def _state(path: Path) -> tuple[dict[str, torch.Tensor], int]:
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    state = {k.removeprefix("net."): v for k, v in checkpoint["state_dict"].items() if k.startswith("net.")}
    return state, checkpoint["epoch"]


def _fast(images: torch.Tensor) -> torch.Tensor:
    return images.contiguous(memory_format=torch.channels_last)

