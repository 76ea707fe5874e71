"""Training of the stain network's decoders under Lightning, on what the frozen backbone sees of views.

Poisson loss on the excess of PI, cross entropy on the mask. The backbone stays as pretrained: with a
dozen sessions, what it would learn is the session (docs/accuracy.md).
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Dataset, Sampler

from ..scoring.stain import Decoder, StainFacts, StainNet
from ..workspace.params import Stain, Train
from .fine_tuning import lightning_trainer
from .views import View, read_view

CLIP = 1.0  # norm of the gradient: a few very bright fields would otherwise set the pace
Report = Callable[[dict[str, float], int], None]


def stain_facts(stain: Stain) -> StainFacts:
    """What travels with the network, from the parameters."""
    return StainFacts(stain.reduction, stain.members, stain.orientations)


class Draws(Dataset):
    """Batches of views by step, drawn from (seed, step, rank): a repeated training sees the same.

    fields: (group, file of views) of each field, with `count` views. balance: fields weigh as their
    group's number of fields to the power -balance: 0 counts every field the same, 1 every group.
    """

    def __init__(
        self, fields: list[tuple[str, Path]], count: int, batch_size: int, balance: float,
        seed: int, rank: int = 0,
    ):  # fmt: skip
        self.files = [file for _, file in fields]
        self.count, self.batch_size, self.key = count, batch_size, (seed, rank)
        names, counts = np.unique([group for group, _ in fields], return_counts=True)
        sizes = dict(zip(names, counts))
        weight = np.array([sizes[group] ** -balance for group, _ in fields])
        self.share = weight / weight.sum()

    def __getitem__(self, step: int) -> list[View]:
        rng = np.random.default_rng([*self.key, step])
        return [read_view(self.files[i], rng.integers(self.count)) for i in self.draw(rng)]

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Numbers of a batch's fields, drawn systematically: a batch spreads over the groups."""
        order = rng.permutation(len(self.share))
        steps = (np.arange(self.batch_size) + rng.random()) / self.batch_size
        places = np.searchsorted(np.cumsum(self.share[order]), steps)
        return order[np.minimum(places, len(order) - 1)]


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


def stain_loss(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean loss over known blocks: Poisson negative log likelihood of the excess, mask cross entropy.

    out: (2, h, w), log excess and logit; target: (3, h, w) (see `View`). A clipped block, of
    negative weight, is a lower bound: it counts only while less than it is predicted.
    """
    log_excess, logit = out[0].clamp(-8, 4), out[1]
    excess, above, weight = target
    too_low = log_excess.exp() < excess
    counts = ((weight > 0.9) | ((weight < -0.1) & too_low)).float()
    poisson = log_excess.exp() - excess * log_excess
    mask = binary_cross_entropy_with_logits(logit, above, reduction="none")
    return ((poisson + mask) * counts).sum() / counts.sum().clamp(min=1)


class StainModule(pl.LightningModule):
    """A decoder in training; keeps the mean loss of every epoch in `rows`."""

    def __init__(self, decoder: Decoder, train: Train, seed: int, steps: int, report: Report):
        super().__init__()
        self.decoder, self.params, self.seed, self.steps = decoder, train, seed, steps
        self.rows: list[dict[str, float]] = []
        self._report, self._losses = report, []

    def on_train_batch_start(self, batch, batch_idx: int) -> None:
        torch.manual_seed(self.seed * 1_000_003 + self.global_step)  # of dropout

    def training_step(self, batch: list[View], batch_idx: int) -> torch.Tensor:
        losses = [
            stain_loss(self.decoder([m[None].float() for m in view.maps])[0], view.target)
            for view in batch
        ]
        loss = torch.stack(losses).mean()
        self._losses.append(loss.detach())
        self.log("loss", loss, prog_bar=True, batch_size=len(batch))
        return loss

    def on_train_epoch_end(self) -> None:
        loss = self.trainer.strategy.reduce(torch.stack(self._losses).mean(), reduce_op="mean")
        self._losses.clear()
        row = {"train_loss": round(float(loss), 6)}
        self.rows.append({"epoch": self.current_epoch} | row)
        if self.trainer.is_global_zero:
            self._report(row, self.current_epoch)

    def configure_optimizers(self):
        p = self.params
        optimizer = torch.optim.AdamW(
            self.decoder.parameters(), lr=p.lr, betas=tuple(p.betas), weight_decay=p.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, p.lr, total_steps=self.steps + 1, pct_start=max(p.warmup_fraction, 0.01)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit_stain(
    net: StainNet, fields: list[tuple[str, Path]], train: Train, stain: Stain, report: Report
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]], int]:
    """Trains every decoder of a network on views of whole fields, for all of train.epochs.

    fields: (group, file of views) of each. Returns (state dict of the network, one row of metrics per epoch
    of the first decoder, number of the last epoch). No epoch is chosen by validation: of a few
    sessions, what holds for one does not for the next (docs/accuracy.md).
    """
    rows: list[dict[str, float]] = []
    for member, decoder in enumerate(net.decoders):
        seed = train.seed + member
        pl.seed_everything(seed, verbose=False)
        decoder.reset()
        standardise(decoder, fields, stain.balance)
        trainer = lightning_trainer(train, [], clip=CLIP)
        draws = Draws(
            fields, stain.views, train.batch_size, stain.balance, seed, trainer.global_rank
        )
        seen = train.samples_per_epoch or len(fields)
        steps = max(1, seen // (train.batch_size * train.devices * train.nodes))
        told = report if member == 0 else lambda row, epoch: None
        module = StainModule(decoder, train, seed, steps * train.epochs, told)
        loader = DataLoader(draws, batch_size=None, sampler=Steps(steps), collate_fn=list)
        trainer.fit(module, loader)
        rows = rows or module.rows
    state = {
        k: v.cpu().clone(memory_format=torch.contiguous_format) for k, v in net.state_dict().items()
    }
    return state, rows, train.epochs - 1


def standardise(decoder: Decoder, fields: list[tuple[str, Path]], balance: float) -> None:
    """Sets the decoder's means and deviations per channel from the fields' plain views."""
    share = torch.from_numpy(Draws(fields, 1, 1, balance, 0).share).float()
    for stage in range(len(decoder.lateral)):
        maps = [read_view(file, 0).maps[stage].float() for _, file in fields]
        mean = sum(w * m.mean((1, 2)) for w, m in zip(share, maps))
        square = sum(w * (m**2).mean((1, 2)) for w, m in zip(share, maps))
        deviation = (square - mean**2).clamp(min=1e-6).sqrt()
        getattr(decoder, f"mean{stage}").copy_(mean[:, None, None])
        getattr(decoder, f"deviation{stage}").copy_(deviation[:, None, None])


def views_folder(scratch: Path) -> Path:
    """Where a training keeps what the backbone sees of views, beside its checkpoints."""
    return scratch / "views"
