"""The network in training under Lightning: cross entropy, the paper's Adam or AdamW, a constant
rate or a cosine.
"""

import math

import lightning.pytorch as pl
import numpy as np
import torch
from torch import nn
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAUROC, MulticlassRecall

from ..scoring.networks.backbones import CLASSES
from ..scoring.networks.net import Net
from ..workspace.sections import Train
from .freezing import freeze


class Classifier(pl.LightningModule):
    """A network in training; logs losses, balanced accuracy and AUC per epoch.

    In the first `frozen_epochs` the head learns alone. The body then is in evaluation mode, so that
    its batch normalisation keeps the pretrained statistics and the head learns on the very features
    that inference sees. The first `frozen_stages` never learn.
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
        # Also when going on inside an epoch, where on_train_epoch_start is not called
        self._freeze_or_thaw()

    def on_train_epoch_start(self) -> None:
        self._freeze_or_thaw()
        self.losses.zero_()

    def _freeze_or_thaw(self) -> None:
        frozen = self.current_epoch < self.params.frozen_epochs
        self.net.train()
        self.net.body.requires_grad_(not frozen).train(not frozen)
        freeze(self.net, self.params.frozen_stages)

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
        metrics = {
            "valid_loss": self.valid_loss,
            "valid_auc": self.auc,
            "valid_balanced_accuracy": self.recall,
        }
        for name, metric in metrics.items():
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
