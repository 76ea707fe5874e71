"""Windows as training batches: weighted sampling with replacement, right-angle rotations, flips and
intensity jitter.

What an epoch shows is drawn beforehand from (seed, epoch): which windows, turned how, brightened by
how much. So an interrupted epoch goes on at the very next batch, and several devices share one plan
without overlap.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..patches.store import PatchStore
from ..scoring.networks.backbones import CLASSES, Backbone
from ..scoring.networks.net import prepare
from ..workspace.errors import UserError

Draw = tuple[int, int, float, float]  # row, orientation 0..7, gain, offset


class TrainingError(UserError):
    """Training cannot start as asked; the message says what to change."""


def refuse_one_class(labels: pd.Series) -> None:
    """Raises TrainingError unless both classes are there to learn."""
    if labels.nunique() < len(CLASSES):
        raise TrainingError(
            f"training needs windows of both classes, and has {set(labels) or 'none'}"
        )


def targets(table: pd.DataFrame) -> np.ndarray:
    """Class indices (N,) int64 of a table's `label` column, in the order of CLASSES."""
    return table["label"].map(CLASSES.index).to_numpy(np.int64)


def oriented(window: np.ndarray, orientation: int) -> np.ndarray:
    """A window (h, w) turned by right angles and, from orientation 4 of 0..7 on, mirrored: a
    contiguous copy.
    """
    turned = np.rot90(window, orientation % 4)
    return np.ascontiguousarray(turned[:, ::-1] if orientation >= 4 else turned)


class Windows(Dataset):
    """Windows of a table (image_id, y, x, size, label): image (3, S, S) float32, class index."""

    def __init__(self, store: PatchStore, table: pd.DataFrame, backbone: Backbone):
        self.store, self.backbone = store, backbone
        self.rows = list(table[["image_id", "y", "x", "size"]].itertuples(index=False, name=None))
        self.targets = targets(table)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: int | Draw) -> tuple[torch.Tensor, int]:
        row, orientation, gain, offset = draw if isinstance(draw, tuple) else (draw, 0, 1.0, 0.0)
        image = prepare(
            self.backbone, oriented(self.store.window(*self.rows[row]), orientation)[None]
        )[0]
        return image * gain + offset, int(self.targets[row])


class EpochPlan(Sampler):
    """Draws of one epoch after another: each class equally likely, with replacement (paper, step
    5).

    `count` windows an epoch (0: as many as there are), rounded up to a multiple of `ranks`, so that
    each of these has as many. `jitter` is the half-width of contrast and brightness changes.
    Lightning calls `set_epoch` before each epoch; `skip` leaves out the first draws of an
    interrupted epoch, once.
    """

    def __init__(
        self,
        labels: np.ndarray,
        count: int,
        jitter: float,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
    ):
        classes, counts = np.unique(labels, return_counts=True)
        weights = (1 / counts)[np.searchsorted(classes, labels)]
        self.probability = weights / weights.sum()
        self.count = -(-(count or len(labels)) // ranks) * ranks
        self.jitter, self.seed, self.rank, self.ranks = jitter, seed, rank, ranks
        self.epoch = self.skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.ranks

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng([self.seed, self.epoch])
        rows = rng.choice(len(self.probability), self.count, p=self.probability)
        orientations = rng.integers(0, 8, self.count)
        gains, offsets = rng.uniform(-self.jitter, self.jitter, (2, self.count))
        draws = list(
            zip(rows.tolist(), orientations.tolist(), (1 + gains).tolist(), offsets.tolist())
        )
        skip, self.skip = self.skip, 0
        yield from draws[self.rank :: self.ranks][skip:]


class ResumableLoader(DataLoader):
    """A DataLoader over an EpochPlan that can go on inside an epoch: Lightning saves and restores
    its state.
    """

    def __init__(self, dataset: Windows, plan: EpochPlan, batch_size: int, workers: int = 0):
        super().__init__(
            dataset, batch_size, sampler=plan, num_workers=workers, persistent_workers=workers > 0
        )
        self._batch = 0

    def __iter__(self) -> Iterator:
        self._batch = self.sampler.skip // self.batch_size
        for batch in super().__iter__():
            self._batch += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Epoch and number of its batches already given out (not those that workers hold ready)."""
        return {"epoch": self.sampler.epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on after the batches of `state` in the next iteration."""
        self.sampler.epoch, self.sampler.skip = state["epoch"], state["batch"] * self.batch_size


def in_order(
    dataset: Windows, batch_size: int, workers: int = 0, rank: int = 0, ranks: int = 1
) -> DataLoader:
    """Every window once, unaltered, shared among ranks without overlap, each with as many batches
    as the others.
    """
    count = -(-len(dataset) // (batch_size * ranks)) * ranks
    batches = np.array_split(np.arange(len(dataset)), min(count, len(dataset) // ranks * ranks))
    return DataLoader(
        dataset, batch_sampler=[b.tolist() for b in batches[rank::ranks]], num_workers=workers
    )
