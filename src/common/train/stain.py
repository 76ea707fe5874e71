"""Training of the stain network under Lightning: Poisson loss on the excess, cross entropy on the mask.

The body's early layers and its normalisation statistics stay as pretrained: with a dozen sessions,
what they learn is the session.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Sampler

from ..scoring.stain import StainFacts, StainNet, build_stain
from ..workspace.params import Stain, Train
from .crops import CropPlan, StainField
from .fine_tuning import lightning_trainer

CLIP = 1.0  # norm of the gradient: a few very bright fields would otherwise set the pace
Report = Callable[[dict[str, float], int], None]


def stain_facts(stain: Stain) -> StainFacts:
    """What travels with the network, from the parameters."""
    return StainFacts(stain.reduction, stain.band, stain.orientations)


def stain_loss(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean loss over known blocks: Poisson negative log likelihood of the excess, and mask cross entropy.

    out: (B, 2, h, w), target: (B, 3, h, w) (see StainField). A saturated block, of negative weight,
    is a lower bound: it counts only while less than it is predicted.
    """
    log_excess, logit = out[:, 0].clamp(-8, 4), out[:, 1]
    excess, above, weight = target.unbind(1)
    too_low = log_excess.exp() < excess
    counts = ((weight > 0.5) | ((weight < -0.5) & too_low)).float()
    poisson = log_excess.exp() - excess * log_excess
    mask = binary_cross_entropy_with_logits(logit, above, reduction="none")
    per_crop = ((poisson + mask) * counts).sum((1, 2)) / counts.sum((1, 2)).clamp(min=1)
    return per_crop.mean()


def freeze_early(net: StainNet) -> None:
    """Stops learning in the body up to and including its first stage."""
    inside, first = False, net.backbone.levels[0] + "."
    for name, parameter in net.body.layers.named_parameters():
        if inside and not name.startswith(first):
            return
        inside = inside or name.startswith(first)
        parameter.requires_grad_(False)


class Steps(Sampler):
    """The numbers of an epoch's steps, counted on from epoch to epoch."""

    def __init__(self, each: int):
        self.each, self.epoch = each, 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.each

    def __iter__(self) -> Iterator[int]:
        yield from range(self.epoch * self.each, (self.epoch + 1) * self.each)


class StainModule(pl.LightningModule):
    """A stain network in training; keeps the mean loss of every epoch in `rows`."""

    def __init__(self, net: StainNet, train: Train, stain: Stain, steps: int, report: Report):
        super().__init__()
        self.net, self.params, self.stain, self.steps = net, train, stain, steps
        self.rows: list[dict[str, float]] = []
        self._report, self._losses = report, []

    def on_train_batch_start(self, batch, batch_idx: int) -> None:
        torch.manual_seed(self.params.seed * 1_000_003 + self.global_step)  # of dropout

    def training_step(self, batch, batch_idx: int) -> torch.Tensor:
        images, targets = batch
        images = images.contiguous(memory_format=torch.channels_last)
        loss = stain_loss(self.net(images).float(), targets)
        self._losses.append(loss.detach())
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_train_epoch_end(self) -> None:
        loss = self.trainer.strategy.reduce(torch.stack(self._losses).mean(), reduce_op="mean")
        row = {"train_loss": round(float(loss), 6)}
        self._losses.clear()
        self.rows.append({"epoch": self.current_epoch} | row)
        if self.trainer.is_global_zero:
            self._report(row, self.current_epoch)

    def configure_optimizers(self):
        p = self.params
        body = [q for q in self.net.body.parameters() if q.requires_grad]
        rest = [*self.net.pyramid.parameters(), *self.net.head.parameters()]
        lr = [p.lr * self.stain.encoder_lr, p.lr]
        groups = [{"params": part, "lr": rate} for part, rate in zip((body, rest), lr)]
        optimizer = torch.optim.AdamW(groups, betas=tuple(p.betas), weight_decay=p.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, lr, total_steps=self.steps + 1, pct_start=p.warmup_fraction
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit_stain(
    arch: str,
    weights: Path | None,
    fields: list[StainField],
    train: Train,
    stain: Stain,
    report: Report,
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]], int]:
    """Trains a stain network on whole fields for all of train.epochs.

    Returns (state dict, one row of metrics per epoch, number of the last). No epoch is chosen by
    validation: of a few sessions, what holds for one does not for the next (docs/accuracy.md).
    """
    pl.seed_everything(train.seed, verbose=False)
    net = build_stain(arch, stain_facts(stain), weights).to(memory_format=torch.channels_last)
    freeze_early(net)
    trainer = lightning_trainer(train, [], clip=CLIP)
    count = train.samples_per_epoch or len(fields)
    steps = max(1, count // (train.batch_size * train.devices * train.nodes))
    plan = CropPlan(
        fields, steps * train.epochs, train.batch_size, stain.crop // stain.reduction,
        stain.balance, stain.augmentation, train.seed, trainer.global_rank,
    )  # fmt: skip
    module = StainModule(net, train, stain, steps * train.epochs, report)
    loader = DataLoader(plan, batch_size=None, sampler=Steps(steps), num_workers=train.workers)
    trainer.fit(module, loader)
    state = {
        k: v.cpu().clone(memory_format=torch.contiguous_format) for k, v in net.state_dict().items()
    }
    return state, module.rows, train.epochs - 1
