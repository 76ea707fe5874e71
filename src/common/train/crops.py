"""Crops of whole fields for the stain network: turned, scaled, and altered as other sessions' optics would.

What a step shows is drawn from (seed, step, rank) alone: a training that is repeated sees the same.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad
from torch.utils.data import Dataset

from ..patches.store import PatchStore
from ..scoring.stain import STAINED, STRIDE, StainFacts, normalise

MOST = 5.0  # excess of PI over background beyond which brighter says no more about death
# Half-widths or standard deviations of what varies between sessions: chosen by trial (docs/accuracy.md)
SCALE = (0.8, 1.25)  # pixel size and size of cells
SPECTRUM = 0.3  # smooth gain over log frequency: optics and focus
CONTRAST, SKEW, SHADE, NOISE = 0.3, 0.15, 0.15, 0.08
BLUR = (0.6, 2.0)  # sigma in reduced pixels; added or, as sharpening, taken away


@dataclass(frozen=True)
class StainField:
    """A field to learn from: image (1, h, w) at reduced size, target (3, h', w'), its group.

    target: excess of PI over background (0 to MOST), share above STAINED, and weight: 1 where the
    stain is known, 0 in borders; negative where PI is saturated, so that it is a lower bound.
    """

    image: torch.Tensor
    target: torch.Tensor
    group: str


def read_field(store: PatchStore, image_id: str, group: str, stain: StainFacts) -> StainField:
    """A field of the store as tensors (float32)."""
    image, _ = normalise(np.asarray(store.brightfield(image_id)), stain)
    ratio, clipped = store.pi_ratio(image_id), store.pi_clipped(image_id)
    known = np.isfinite(ratio)
    ratio = np.where(known, ratio, 1.0)
    weight = np.where(known, np.where(clipped, -1.0, 1.0), 0.0)
    target = np.stack([np.clip(ratio - 1, 0, MOST), ratio > STAINED, weight])
    return StainField(
        torch.from_numpy(image[None]), torch.from_numpy(target.astype(np.float32)), group
    )


class CropPlan(Dataset):
    """Batches of crops by step: (images (B, 1, n, n), targets (B, 3, n / 4, n / 4)).

    balance: fields are drawn with weights of their group's number of fields to the power -balance:
    0 counts every field the same, 1 every group. augmentation scales all that alters a crop.
    """

    def __init__(
        self, fields: list[StainField], steps: int, batch_size: int, crop: int, balance: float,
        augmentation: float, seed: int, rank: int = 0,
    ):  # fmt: skip
        self.fields, self.steps, self.batch_size = fields, steps, batch_size
        self.crop, self.augmentation = crop, augmentation
        self.key = (seed, rank)
        names, counts = np.unique([f.group for f in fields], return_counts=True)
        size = dict(zip(names, counts))
        weight = np.array([size[f.group] ** -balance for f in fields])
        self.share = weight / weight.sum()

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([*self.key, step])
        pairs = [cut(self.fields[i], self.crop, rng) for i in self.draw(rng)]
        images, targets = (torch.cat(parts) for parts in zip(*pairs))
        return alter(images, self.augmentation, rng), targets

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Numbers of a batch's fields, drawn systematically: a batch spreads over the groups."""
        order = rng.permutation(len(self.fields))
        steps = (np.arange(self.batch_size) + rng.random()) / self.batch_size
        at = np.searchsorted(np.cumsum(self.share[order]), steps)
        return order[np.minimum(at, len(order) - 1)]


def cut(
    field: StainField, crop: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A crop of `crop` reduced pixels a side, freely turned, flipped and scaled, and its target."""
    height, width = field.image.shape[1:]
    half = crop * np.exp(rng.uniform(*np.log(SCALE))) / 2
    angle, flip = rng.uniform(0, 2 * np.pi), rng.choice([-1, 1])
    middle = [
        rng.uniform(min(0.9 * half, n / 2), max(n - 0.9 * half, n / 2)) for n in (width, height)
    ]
    turn = half * np.array(
        [[np.cos(angle) * flip, -np.sin(angle)], [np.sin(angle) * flip, np.cos(angle)]]
    )
    sides = np.array([[width], [height]]) / 2
    place = np.array(middle)[:, None] / sides - 1
    theta = torch.from_numpy(np.hstack([turn / sides, place]).astype(np.float32))[None]
    image = _sample(field.image, theta, crop)
    # outside the field there is nothing to learn: samples there get weight 0
    return image, _sample(field.target, theta, crop // STRIDE)


def _sample(values: torch.Tensor, theta: torch.Tensor, side: int) -> torch.Tensor:
    grid = affine_grid(theta, [1, len(values), side, side], align_corners=False)
    return grid_sample(values[None], grid, mode="bilinear", align_corners=False)


def alter(images: torch.Tensor, strength: float, rng: np.random.Generator) -> torch.Tensor:
    """Crops (B, 1, n, n) as other optics, exposures and cameras might show them."""
    if not strength:
        return images
    count, side = len(images), images.shape[-1]

    def draws(sd: float) -> torch.Tensor:
        return torch.from_numpy(rng.normal(0, sd * strength, (count, 1, 1, 1)).astype(np.float32))

    images = _spectrum(images, strength, rng)
    sigma = torch.from_numpy(rng.uniform(*BLUR, count).astype(np.float32))
    amount = torch.from_numpy(rng.uniform(-strength, strength, (count, 1, 1, 1)).astype(np.float32))
    images = images + amount * (_blur(images, sigma) - images)
    images = images * torch.exp(draws(CONTRAST))
    images = images + draws(SKEW) * (images**2 - (images**2).mean((2, 3), keepdim=True))
    ramp = torch.linspace(-1, 1, side)
    images = images + draws(SHADE) * ramp[:, None] + draws(SHADE) * ramp + draws(SHADE)
    grain = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))
    level = torch.from_numpy(rng.uniform(0, NOISE * strength, (count, 1, 1, 1)).astype(np.float32))
    return (images + level * grain).clamp(-4, 4)


def _spectrum(images: torch.Tensor, strength: float, rng: np.random.Generator) -> torch.Tensor:
    """A smooth random gain over log frequency: three cosines of random phase and amplitude."""
    side = images.shape[-1]
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    place = np.log2(np.maximum(radius, 1 / side) * side) / np.log2(side / 2)  # 0 to about 1
    phase = rng.uniform(0, 2 * np.pi, (len(images), 3, 1, 1))
    height = rng.normal(0, SPECTRUM * strength, (len(images), 3, 1, 1))
    order = np.arange(1, 4)[:, None, None]
    gain = (height * np.cos(np.pi * order * place + phase)).sum(1, keepdims=True)
    changed = torch.fft.rfft2(images) * torch.from_numpy(np.exp(gain).astype(np.float32))
    return torch.fft.irfft2(changed, s=(side, side))


def _blur(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """A Gaussian blur of each image by its own sigma."""
    reach = 5
    offset = torch.arange(-reach, reach + 1).float()
    kernel = torch.exp(-(offset**2) / (2 * sigma[:, None] ** 2))
    kernel = kernel / kernel.sum(1, keepdim=True)
    rows = pad(images.transpose(0, 1), [reach, reach, 0, 0], mode="reflect")
    rows = conv2d(rows, kernel[:, None, None, :], groups=len(sigma))
    both = pad(rows, [0, 0, reach, reach], mode="reflect")
    return conv2d(both, kernel[:, None, :, None], groups=len(sigma)).transpose(0, 1)
