"""Training of the stain network under Lightning: Poisson loss on the excess of PI, cross entropy on
the mask, on where in a crop the stain is, and on nuclei where masks name them.

The recipe is that of docs/accuracy.md: AdamW, one cycle, the body at a lower rate.
"""

import warnings

import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, logsigmoid
from torch.utils.data import DataLoader

from ..patches.store import PatchStore
from ..scoring.networks.stain import WIDTHS, StainFacts, StainNet, UNet
from ..workspace.sections import Stain, Train
from .checkpoint import Report
from .crops import Crops, Steps
from .fine_tuning import EXPECTED, lightning_trainer
from .freezing import freeze
from .gradients import QuickGradients

CLIP = 1.0  # norm of the gradient: a few very bright fields would otherwise set the pace
BODY_RATE = 0.3  # of train.lr: the body is pretrained
FAINT = 0.05  # mean of a crop's target below which where it is counts less than half


def stain_facts(stain: Stain) -> StainFacts:
    """What travels with the network, from the parameters."""
    return StainFacts(stain.reduction, stain.orientations, len(stain.magnified))


def stain_loss(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean loss over known pixels: Poisson negative log likelihood of excess, mask cross entropy.

    out: (B, 2, h, w), log excess and logit; target: (B, 5, h, w) (see `Crops`), of which the first
    three count. A clipped pixel, of negative weight, is a lower bound: it counts only while less
    than it is predicted.
    """
    log_excess, logit = out[:, 0].clamp(-8, 4), out[:, 1]
    excess, above, weight = target[:, :3].unbind(1)
    too_low = log_excess.exp() < excess
    counts = ((weight > 0.9) | ((weight < -0.1) & too_low)).float()
    poisson = log_excess.exp() - excess * log_excess
    mask = binary_cross_entropy_with_logits(logit, above, reduction="none")
    return ((poisson + mask) * counts).sum() / counts.sum().clamp(min=1)


def place_loss(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy, over crops and both maps, of where in a crop the stain is.

    Shapes as of `stain_loss`. It is the Poisson likelihood given a crop's total, against stain
    spread evenly: how much a field glows drops out of it, and so does what tells a mostly dead
    session from a live one, as a stratum does from a conditional logistic regression (Breslow et
    al. 1978). Unlike there, crops of much and of little stain count alike, faint ones less.
    """
    known = (target[:, 2] > 0.9).flatten(1)
    pixels = known.sum(1).clamp(min=1)
    logs, losses = (out[:, 0].clamp(-8, 4), logsigmoid(out[:, 1])), []
    for log, value in zip(logs, target[:, :2].unbind(1)):
        place = log.flatten(1).masked_fill(~known, -1e4).log_softmax(1) + pixels[:, None].log()
        stain = value.flatten(1) * known
        mean = stain.sum(1) / pixels
        loss = -(stain * place).sum(1) / stain.sum(1).clamp(min=1e-3)
        losses.append((loss * mean / (mean + FAINT)).mean())
    return torch.stack(losses).mean()


def nuclei_loss(logit: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of nuclei over the pixels of fields that have a mask.

    logit: (B, 1, h, w); target: (B, 5, h, w) (see `Crops`).
    """
    share, known = target[:, 3:].unbind(1)
    loss = binary_cross_entropy_with_logits(logit[:, 0], share, reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)


class StainModule(pl.LightningModule):
    """One network in training; keeps the mean loss of every epoch in `rows`.

    Nuclei are a second task, which is dropped after training: what tells a nucleus from the rest is
    the same in every session, unlike what tells its live share. steps: of all epochs; first: number
    of the first epoch.
    """

    def __init__(
        self, net: UNet, train: Train, stain: Stain, steps: int, first: int, report: Report
    ):
        super().__init__()
        self.net, self.params, self.stain = net, train, stain
        self.steps, self.first = steps, first
        self.nuclei = nn.Conv2d(WIDTHS[-1], 1, 3, padding=1)
        self.rows: list[dict[str, float]] = []
        self._report, self._losses = report, []

    def training_step(self, batch, batch_idx: int) -> torch.Tensor:
        images, targets = batch
        features = self.net.features(images)
        out = self.net.out(features).float()
        if targets.shape[-2:] != out.shape[-2:]:  # a backbone without padding
            targets = interpolate(targets, out.shape[-2:], mode="bilinear", align_corners=False)
        loss = stain_loss(out, targets)
        if self.stain.place:
            loss = loss + self.stain.place * place_loss(out, targets)
        if self.stain.nuclei:
            loss = loss + self.stain.nuclei * nuclei_loss(self.nuclei(features).float(), targets)
        self._losses.append(loss.detach())
        self.log("loss", loss, prog_bar=True, batch_size=len(images))
        return loss

    def on_train_epoch_end(self) -> None:
        loss = self.trainer.strategy.reduce(torch.stack(self._losses).mean(), reduce_op="mean")
        self._losses.clear()
        row = {"train_loss": round(float(loss), 6)}
        epoch = self.first + self.current_epoch
        self.rows.append({"epoch": epoch} | row)
        if self.trainer.is_global_zero:
            self._report(row, epoch)

    def configure_optimizers(self):
        p = self.params
        body = [q for q in self.net.body.parameters() if q.requires_grad]
        rest = [*self.net.decoder.parameters(), *self.net.out.parameters()]
        rest += self.nuclei.parameters()
        rates = [p.lr * BODY_RATE, p.lr]
        groups = [{"params": part, "lr": rate} for part, rate in zip((body, rest), rates)]
        # not `fused`: Lightning clips no gradient of a fused optimizer in mixed precision
        optimizer = torch.optim.AdamW(groups, betas=tuple(p.betas), weight_decay=p.weight_decay)
        total = self.steps + 1
        warm_up = max(p.warmup_fraction, 0.01, 2 / total)  # of one step PyTorch divides by zero
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rates, total_steps=total, pct_start=warm_up
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit_stain(
    net: StainNet, store: PatchStore, images: list[str], train: Train, stain: Stain,
    report: Report,
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]], int]:  # fmt: skip
    """Trains a stain network's networks in turn, on crops of whole fields, for all of train.epochs.

    images: ids of the fields. Returns (state dict of the network, one row of metrics per
    epoch, number of the last epoch, counted on from network to network). No epoch is chosen by
    validation: of a few sessions, what holds for one does not for the next (docs/accuracy.md).
    """
    seen = train.samples_per_epoch or len(images)
    steps = max(1, seen // (train.batch_size * train.devices * train.nodes))
    rows = []
    for number, network in enumerate(net.networks):
        freeze(network, train.frozen_stages)
        trainer = lightning_trainer(train, [], clip=CLIP)
        crops = Crops(store, images, train, stain, number, trainer.global_rank)
        first = number * train.epochs
        module = StainModule(network, train, stain, steps * train.epochs, first, report)
        loader = DataLoader(crops, batch_size=None, sampler=Steps(steps), num_workers=train.workers)
        with QuickGradients(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", EXPECTED)
            trainer.fit(module, loader)
        rows += module.rows
    state = {
        k: v.cpu().clone(memory_format=torch.contiguous_format) for k, v in net.state_dict().items()
    }
    return state, rows, rows[-1]["epoch"]
