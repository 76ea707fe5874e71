"""Fine-tuning under Lightning: cross entropy, the paper's optimiser or a modern schedule, resume at
the exact step.

Everything that a training needs to go on is in one file, SCRATCH/last.ckpt, written between steps
about once a minute and after each epoch: weights, optimiser, schedule, place in the epoch, metrics
so far and the best weights. Random draws depend on (seed, epoch) or (seed, step) alone, so a
resumed training ends with the same weights as one that was never interrupted. Checkpoints are read
with `weights_only=True`: nothing is unpickled.
"""

import logging
import warnings
from pathlib import Path

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import TQDMProgressBar

from ..patches.store import PatchStore
from ..scoring.networks.backbones import CLASSES
from ..scoring.networks.net import Net
from ..workspace.sections import Train
from .checkpoint import Report, ResumableCheckpoint
from .classifier import Classifier
from .devices import precision
from .gradients import QuickGradients
from .loading import (
    EpochPlan,
    ResumableLoader,
    TrainingError,
    Windows,
    in_order,
    refuse_one_class,
    targets,
)
from .processes import is_beside_others

VALID_BATCH = 32
# What Lightning says of the loaders that train.workers 0 asks for and of a frozen body, and torch
# of Lightning
EXPECTED = ".*(does not have many workers|in eval mode at the start|LeafSpec).*"


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
    last = scratch / "last.ckpt"
    progress = ResumableCheckpoint(last, train.patience if has_valid else 0, report)
    trainer = lightning_trainer(train, [progress], epochs)
    ranks = trainer.global_rank, train.devices * train.nodes
    loader = _loader(net, store, train_table, train, *ranks)
    valid = Windows(store, valid_table, net.backbone)
    valid_loader = in_order(valid, VALID_BATCH, train.workers, *ranks) if has_valid else None
    steps = len(loader) * train.epochs
    module = Classifier(net.to(memory_format=torch.channels_last), train, steps)
    try:
        with QuickGradients(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", EXPECTED)
            start = last if last.exists() else None
            trainer.fit(module, loader, valid_loader, ckpt_path=start, weights_only=True)
    except SystemExit:  # what Lightning makes of Ctrl-C and SIGTERM
        message = f"training was interrupted: the same command goes on from {last}"
        raise SystemExit(message) from None
    return progress.best["state"], progress.rows, progress.best["epoch"]


def _loader(
    net: Net, store: PatchStore, table: pd.DataFrame, train: Train, rank: int, ranks: int
) -> ResumableLoader:
    count, jitter = train.samples_per_epoch, train.intensity_augmentation
    plan = EpochPlan(targets(table), count, jitter, train.seed, rank, ranks)
    windows = Windows(store, table, net.backbone)
    return ResumableLoader(windows, plan, train.batch_size, train.workers)


def lightning_trainer(
    train: Train, callbacks: list[pl.Callback], epochs: int | None = None, clip: float | None = None
) -> pl.Trainer:
    """Lightning's trainer under the parameters. Raises TrainingError for what is not to be had."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # `deterministic` would else fill all memory with NaN first, for a third of a step's time
    torch.utils.deterministic.fill_uninitialized_memory = False
    bar = [] if is_beside_others() else [TQDMProgressBar(refresh_rate=5, leave=True)]
    strategy = train.strategy
    if train.devices * train.nodes > 1 and strategy in ("auto", "ddp"):
        # Else ddp waits for gradients that never come: of a frozen body, or of the layers behind
        # the last stage that a stain network reads
        strategy = "ddp_find_unused_parameters_true"
    try:
        return pl.Trainer(
            max_epochs=epochs or train.epochs, accelerator="auto", devices=train.devices,
            num_nodes=train.nodes, strategy=strategy, precision=precision(train.precision),
            logger=False, deterministic="warn", gradient_clip_val=clip,
            enable_checkpointing=bool(callbacks),
            callbacks=[*callbacks, *bar], enable_progress_bar=bool(bar),
            use_distributed_sampler=False, num_sanity_val_steps=0, enable_model_summary=False,
        )  # fmt: skip
    except (MisconfigurationException, ValueError) as error:
        raise TrainingError(
            f"train.devices, nodes, strategy or precision cannot be had here: {error}"
        ) from error
