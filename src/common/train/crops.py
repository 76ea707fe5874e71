"""Crops of whole fields for the stain network: turned, scaled, altered as by other optics.

What a step shows depends on (seed, network, rank, step) alone: a repeated training sees the same.
"""

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from ..patches.store import PI_REDUCTION, PatchStore
from ..scoring.networks.stain import STAINED, oriented, resized
from ..workspace.sections import Stain, Train

CAP = 5.0  # excess of PI over background beyond which brighter says no more about death
SHRUNK = 2  # pixels of a crop to one of its target, as the network's output
# What varies between sessions, in the image's range of -1..1: chosen by trial (docs/accuracy.md)
SCALE = (0.8, 1.25)  # pixel size and size of cells
MAGNIFIED = 2.0  # of a share of the crops: detail that the reduction leaves out
CONTRAST, GAMMA, BRIGHTNESS, TILT = (0.6, 1.5), 0.25, 0.15, 0.2
BLUR, NOISE = 1.2, 0.1  # most: sigma in reduced pixels, in half of the crops; standard deviation


class Crops(Dataset):
    """Batches of crops by step: images (B, 1, n, n), targets (B, 5, n / 2, n / 2), float32.

    Target: excess of PI over background (0 to CAP), share above STAINED, and weight: 1 where the
    stain is known, 0 in borders, negative where PI is clipped, so that it is a lower bound. Then
    the share of nuclei, and 1 where a mask tells it, else 0.
    """

    def __init__(
        self, store: PatchStore, images: list[str], train: Train, stain: Stain,
        network: int = 0, rank: int = 0,
    ):  # fmt: skip
        self.store, self.images, self.stain = store, images, stain
        self.magnified = stain.magnified[network]
        self.batch_size, self.key = train.batch_size, (train.seed, network, rank)

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([*self.key, step])
        names = [self.images[i] for i in self.drawn(rng)]
        pairs = [draw(self.store, name, self.stain, self.magnified, rng) for name in names]
        images, targets = zip(*pairs)
        return torch.stack(images), torch.stack(targets)

    def drawn(self, rng: np.random.Generator) -> np.ndarray:
        """Numbers of a batch's fields: evenly spaced in a shuffled order, so that none comes twice
        unless the batch is larger than their number.
        """
        order = rng.permutation(len(self.images))
        steps = (np.arange(self.batch_size) + rng.random()) / self.batch_size
        return order[(steps * len(order)).astype(int)]


class Steps(Sampler):
    """The numbers of an epoch's steps, counted on from epoch to epoch."""

    def __init__(self, each: int):
        self.each, self.epoch = each, 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.each

    def __iter__(self):
        yield from range(self.epoch * self.each, (self.epoch + 1) * self.each)


def draw(
    store: PatchStore, image_id: str, stain: Stain, magnified: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A field's crop, (1, n, n), and its target, (5, n / 2, n / 2), under stain.augmentation.

    magnified: probability of a quarter of the area at twice the size.
    """
    frame, strength, side = store.brightfield(image_id), stain.augmentation, stain.crop
    factor = float(np.exp(rng.uniform(*np.log(SCALE)) * strength))
    if rng.random() < magnified:
        factor *= MAGNIFIED
    size = round(side * stain.reduction / factor / PI_REDUCTION) * PI_REDUCTION
    y, x = (int(rng.integers(max(n - size, 0) // PI_REDUCTION + 1)) for n in frame.shape)
    piece = _piece(frame, y * PI_REDUCTION, x * PI_REDUCTION, size, 0)
    image = resized(piece, side, side)
    target = target_of(store, image_id, (y, x, size // PI_REDUCTION), side // SHRUNK)
    number = int(rng.integers(8)) if strength else 0
    turned = oriented(torch.from_numpy(image), number).numpy()
    seen = optics(turned, strength, rng) if strength else turned
    return torch.from_numpy(seen.copy())[None], oriented(target, number).contiguous()


def target_of(
    store: PatchStore, image_id: str, place: tuple[int, int, int], side: int
) -> torch.Tensor:
    """Excess, share above STAINED, weight, nuclei and whether these are known (5, side, side) of a
    square (y, x, size) of a field, in pixels of the store's PI ratio.
    """
    ratio = _piece(store.pi_ratio(image_id), *place, np.nan)
    clipped = _piece(store.pi_clipped(image_id), *place, False)
    known = np.isfinite(ratio)
    ratio = np.where(known, ratio, 1.0)
    weight = np.where(known, np.where(clipped, -1.0, 1.0), 0.0)
    nuclei = store.nuclei(image_id)
    masked = np.full(ratio.shape, float(nuclei is not None))
    share = np.zeros(ratio.shape) if nuclei is None else _piece(nuclei, *place, 0)
    parts = [np.clip(ratio - 1, 0, CAP), ratio > STAINED, weight, share, masked * (weight != 0)]
    scaled = [cv2.resize(p.astype(np.float32), (side, side)) for p in parts]
    return torch.from_numpy(np.stack(scaled))


def _piece(values: np.ndarray, y: int, x: int, size: int, outside: float) -> np.ndarray:
    """A square of an image; what lies beyond the image is `outside`."""
    piece = values[y : y + size, x : x + size]
    missing = [(0, size - n) for n in piece.shape]
    return np.pad(piece, missing, constant_values=outside)


def optics(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """An image (h, w) with another gamma, contrast, brightness, tilt of light, focus and noise."""
    gamma = float(np.exp(rng.normal(0, GAMMA * strength)))
    contrast = float(np.exp(rng.uniform(*np.log(CONTRAST)) * strength))
    image = np.clip((image + 1) / 2, 0, 1) ** gamma * 2 - 1
    image = image * contrast + float(rng.normal(0, BRIGHTNESS * strength))
    down, right = (np.linspace(-1, 1, n, dtype=np.float32) for n in image.shape)
    tilt = rng.normal(0, TILT * strength, 2).astype(np.float32)
    image = image + tilt[0] * down[:, None] + tilt[1] * right
    sigma = rng.uniform(0, BLUR * strength)
    if rng.random() < 0.5 and sigma > 0.3:
        image = cv2.GaussianBlur(image, (9, 9), sigma, borderType=cv2.BORDER_REFLECT)
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    noisy = image + float(rng.uniform(0, NOISE * strength)) * grain
    return np.clip(noisy, -1.5, 1.5).astype(np.float32)
