"""Views of whole fields for the stain network: turned, scaled, and altered as other sessions' optics would.

The backbone is frozen, so what it sees of every view is computed once and kept in files for all
rounds and members of a training. Every draw depends on (seed, image) alone.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import avg_pool2d, interpolate, pad
from tqdm import tqdm

from ..patches.store import PatchStore
from ..scoring.stain import COARSEST, STAINED, StainNet, oriented, reduced

MOST = 5.0  # excess of PI over background beyond which brighter says no more about death
# What varies between sessions, in the image's range of -1..1: chosen by trial (docs/accuracy.md)
SCALE = (0.8, 1.25)  # pixel size and size of cells
CONTRAST, GAMMA, BRIGHTNESS = (0.6, 1.5), 0.25, 0.15
BLUR, NOISE = 1.2, 0.1  # most: sigma in reduced pixels, in half of the views; standard deviation


class View(NamedTuple):
    """What the backbone sees of a view, and the stain there.

    maps: of the stages, fine to coarse, (D, h, w) float16; target: (3, h', w') float32 at the finest
    stage: excess of PI over background (0 to MOST), share above STAINED, and weight: 1 where the
    stain is known, 0 in borders, negative where PI is clipped, so that it is a lower bound.
    """

    maps: list[torch.Tensor]
    target: torch.Tensor


def write_views(
    net: StainNet, store: PatchStore, images: pd.Index, count: int, strength: float, seed: int,
    folder: Path,
) -> None:  # fmt: skip
    """Writes `count` views of each image into FOLDER, one file an image; present ones are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for image_id in tqdm(images, "views", unit="field"):
        path = view_file(folder, image_id)
        if path.exists():
            continue
        key = int(hashlib.sha256(image_id.encode()).hexdigest()[:12], 16)
        rng = np.random.default_rng([seed, key])
        image = torch.from_numpy(
            reduced(np.asarray(store.brightfield(image_id)), net.stain.reduction)
        )
        target = target_of(store, image_id, image.shape)
        tensors = {}
        for number in range(count):
            # the first view is the plain one: what prediction sees
            view = altered(image[None, None], target[None], strength if number else 0.0, rng)
            maps = [m[0].half().contiguous() for m in net.encode(view[0])]
            tensors |= {f"{number}.{stage}": m for stage, m in enumerate(maps)}
            tensors[f"{number}.target"] = at_stride(view[1], maps[0].shape[-2:])
        unfinished = path.with_suffix(".part")
        save_file(tensors, unfinished)
        unfinished.replace(path)


def view_file(folder: Path, image_id: str) -> Path:
    """The file of an image's views; ids may hold what file names may not."""
    return folder / f"{hashlib.sha256(image_id.encode()).hexdigest()[:24]}.safetensors"


def read_view(file: Path, number: int) -> View:
    """One of an image's views, as `write_views` wrote them."""
    with safe_open(file, "pt") as tensors:
        stages = sum(name.startswith(f"{number}.") for name in tensors.keys()) - 1  # noqa: SIM118
        maps = [tensors.get_tensor(f"{number}.{stage}") for stage in range(stages)]
        return View(maps, tensors.get_tensor(f"{number}.target"))


def target_of(store: PatchStore, image_id: str, size: torch.Size) -> torch.Tensor:
    """Excess, share above STAINED and weight (3, h, w) of a field, in the network's reduced pixels."""
    ratio, clipped = store.pi_ratio(image_id), store.pi_clipped(image_id)
    known = np.isfinite(ratio)
    ratio = np.where(known, ratio, 1.0)
    weight = np.where(known, np.where(clipped, -1.0, 1.0), 0.0)
    parts = [np.clip(ratio - 1, 0, MOST), ratio > STAINED, weight]
    shape = tuple(size[::-1])
    resized = [
        cv2.resize(p.astype(np.float32), shape, interpolation=cv2.INTER_LINEAR) for p in parts
    ]
    return torch.from_numpy(np.stack(resized))


def altered(
    image: torch.Tensor, target: torch.Tensor, strength: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """An image (1, 1, h, w) and its target (1, 3, h, w), turned, scaled and as other optics would
    show it; sides are padded to multiples of COARSEST, where the target has no weight.
    """
    if strength:
        factor = float(np.exp(rng.uniform(*np.log(SCALE)) * strength))
        size = [max(COARSEST, round(n * factor)) for n in image.shape[-2:]]
        image = interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)
        target = interpolate(target, size, mode="bilinear", align_corners=False)
        number = int(rng.integers(8))
        image, target = oriented(image, number), oriented(target, number)
        image = optics(image, strength, rng)
    missing = [0, -image.shape[-1] % COARSEST, 0, -image.shape[-2] % COARSEST]
    return pad(image, missing), pad(target, missing)


def optics(image: torch.Tensor, strength: float, rng: np.random.Generator) -> torch.Tensor:
    """Another gamma, contrast, brightness, focus and noise."""
    gamma = float(np.exp(rng.normal(0, GAMMA * strength)))
    contrast = float(np.exp(rng.uniform(*np.log(CONTRAST)) * strength))
    image = ((image + 1) / 2).clamp(0, 1) ** gamma * 2 - 1
    image = image * contrast + float(rng.normal(0, BRIGHTNESS * strength))
    sigma = rng.uniform(0, BLUR * strength)
    if rng.random() < 0.5 and sigma > 0.3:
        blurred = cv2.GaussianBlur(
            image[0, 0].numpy(), (9, 9), sigma, borderType=cv2.BORDER_REFLECT
        )
        image = torch.from_numpy(blurred)[None, None]
    grain = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32))
    return (image + float(rng.uniform(0, NOISE * strength)) * grain).clamp(-1.5, 1.5)


def at_stride(target: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """A target (1, 3, h, w) as means over the blocks of a stage's map of `size`: (3, h', w')."""
    factor = max(1, round(target.shape[-1] / size[-1]))
    means = avg_pool2d(target, factor)
    if means.shape[-2:] != size:  # a backbone without padding
        means = interpolate(means, size, mode="bilinear", align_corners=False)
    return means[0].contiguous()
