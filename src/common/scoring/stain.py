"""The stain network: a bright-field frame in, PI over background out, for every block of pixels.

A backbone's four stages feed a feature pyramid (Lin et al. 2017), whose sum is read out as two maps: the logarithm of
the excess of PI over background (so that means over windows and nuclei are unbiased under a Poisson loss) and the
logit of "PI above STAINED times background". Predicting fluorescence from transmitted light: Christiansen et al. 2018,
Ounkomol et al. 2018; the paper names it as its next step. This file ships inside registered models.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate, pad
from torchvision.ops import FeaturePyramidNetwork

from .backbones import Body, UnknownBackbone, body_of, facts, stage_maps
from .imaging import window_sums

STRIDE = 4  # reduced pixels a side of one predicted block: the stride of a backbone's first stage
COARSEST = 32  # stride of the last one: sides are padded to its multiples
STAINED = 1.5  # times background: what the second map is the probability of
FLOOR = 0.02  # excess that is told from none; keeps the logarithm of an unstained window finite
WIDTH = 64  # channels of the pyramid
TILE, OVERLAP = 2048, 256  # reduced pixels: a larger frame is predicted in tiles that overlap


@dataclass(frozen=True)
class StainFacts:
    """What a stain network needs to read a frame.

    reduction: frame pixels a side of one input pixel. band: sigma, in frame pixels, of the
    illumination that is taken out. orientations: right-angle turns and flips that are averaged.
    """

    reduction: int
    band: float
    orientations: int


class StainNet(nn.Module):
    """(N, 1, h, w) normalised bright-field to (N, 2, h / 4, w / 4): log excess and logit of STAINED.

    Raises UnknownBackbone for a backbone that names no four stages from stride 4 on.
    """

    def __init__(self, arch: str, body: Body, stain: StainFacts, dropout: float = 0.2):
        super().__init__()
        self.backbone, self.body, self.stain = facts(arch), body, stain
        self.stages = [body.layers.get_submodule(name) for name in self.backbone.levels]
        if len(self.stages) < 4:
            raise UnknownBackbone(f"{arch} names no four stages: model.target stain needs them")
        widths = [m.shape[1] for m in self._probe()]
        self.pyramid = FeaturePyramidNetwork(widths, WIDTH)
        self.head = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH // 2, 3, padding=1),
            nn.GroupNorm(8, WIDTH // 2),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(WIDTH // 2, 2, 1),
        )
        nn.init.constant_(self.head[-1].bias, -2.0)  # most pixels are unstained

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        size = [n // STRIDE for n in images.shape[-2:]]
        maps = stage_maps(self.body, self.stages, images.expand(-1, 3, -1, -1))
        levels = self.pyramid(OrderedDict((str(i), m) for i, m in enumerate(maps)))
        same = [interpolate(m, size, mode="bilinear", align_corners=False) for m in levels.values()]
        return self.head(torch.stack(same).sum(0))

    def train(self, mode: bool = True) -> "StainNet":
        """The body stays in evaluation mode: few sessions would spoil its normalisation statistics."""
        super().train(mode)
        self.body.eval()
        return self

    def _probe(self) -> list[torch.Tensor]:
        """The stages' maps of a small blank image. Raises UnknownBackbone where the first is coarse."""
        side = 4 * COARSEST
        self.body.eval()
        with torch.inference_mode():
            maps = stage_maps(self.body, self.stages, torch.zeros(1, 3, side, side))
        if maps[0].shape[-1] < side // 16 or any(m.dim() != 4 for m in maps):
            raise UnknownBackbone(
                f"{self.backbone.name}: its first stage is too coarse for model.target stain"
            )
        return maps


def build_stain(arch: str, stain: StainFacts, weights: Path | None = None) -> StainNet:
    """A stain network; its body from a safetensors file of the library's names, else random."""
    return StainNet(arch, body_of(arch, weights), stain)


def normalise(frame8: np.ndarray, stain: StainFacts) -> tuple[np.ndarray, np.ndarray]:
    """A frame (H, W) uint8 as the network sees it: (image (h, w) float32, present (h, w) bool).

    Reduced by means of blocks, without its slow illumination, in units of 2.5 standard deviations
    of what is left: exposure, contrast and vignetting of a session do not reach the network.
    present is False in black borders, as registration leaves them, where the image is 0.
    """
    present = ~black_border(frame8)
    size = [n // stain.reduction for n in frame8.shape]
    small = cv2.resize(frame8.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
    inside = cv2.resize(present.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) > 0.99
    if not inside.any():
        return np.zeros(size, np.float32), inside
    small[~inside] = np.median(small[inside])
    detail = small - _slow(small, stain.band / stain.reduction)
    limits = np.percentile(detail[inside], (1, 99))
    deviation = np.sqrt(np.mean(np.clip(detail[inside], *limits) ** 2)) + 1e-6
    image = np.clip(detail / (2.5 * deviation), -3, 3) * inside
    return image.astype(np.float32), inside


def black_border(frame8: np.ndarray) -> np.ndarray:
    """Pixels (H, W) bool of areas without any count that hold a square of 9 px."""
    zero = (frame8 == 0).astype(np.uint8)
    return cv2.morphologyEx(zero, cv2.MORPH_OPEN, np.ones((9, 9), np.uint8)).astype(bool)


def _slow(image: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur by a wide sigma, computed on an eighth of the resolution."""
    height, width = image.shape
    small = cv2.resize(
        image, (max(1, width // 8), max(1, height // 8)), interpolation=cv2.INTER_AREA
    )
    blurred = cv2.GaussianBlur(small, (0, 0), max(sigma / 8, 0.5), borderType=cv2.BORDER_REFLECT)
    return cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR)


def predict_stain(net: StainNet, frame8: np.ndarray) -> np.ndarray:
    """Predicted stain of a frame (H, W) uint8: (2, H, W) float32.

    The first map is the excess of PI over background, in units of the background; the second the
    probability of PI above STAINED times background.
    """
    image, _ = normalise(frame8, net.stain)
    maps = _tiled(net, image, net.stain.orientations)
    height, width = frame8.shape
    # cv2.resize keeps centres aligned, so the trimmed last pixels of a frame are stretched by < 1 block
    return np.stack([cv2.resize(m, (width, height), interpolation=cv2.INTER_LINEAR) for m in maps])


def _tiled(net: StainNet, image: np.ndarray, orientations: int) -> np.ndarray:
    """Maps (2, ceil(h / 4), ceil(w / 4)) of an image (h, w), in tiles if it is large."""
    height, width = image.shape
    if max(height, width) <= TILE:
        return _averaged(net, image, orientations)
    found = np.empty((2, -(-height // STRIDE), -(-width // STRIDE)), np.float32)
    step = TILE - OVERLAP
    for y in range(0, max(1, height - OVERLAP), step):
        for x in range(0, max(1, width - OVERLAP), step):
            part = _averaged(net, image[y : y + TILE, x : x + TILE], orientations)
            # a tile's outer half overlap belongs to its neighbour, which sees more around it
            top, left = (OVERLAP // 2 // STRIDE if at else 0 for at in (y, x))
            rows, cols = y // STRIDE + top, x // STRIDE + left
            kept = part[:, top:, left:]
            found[:, rows : rows + kept.shape[1], cols : cols + kept.shape[2]] = kept
    return found


def _averaged(net: StainNet, image: np.ndarray, orientations: int) -> np.ndarray:
    """Excess and probability (2, ceil(h / 4), ceil(w / 4)), the mean over orientations."""
    height, width = image.shape
    missing = [0, -width % COARSEST, 0, -height % COARSEST]
    whole = pad(torch.from_numpy(np.ascontiguousarray(image))[None, None], missing)
    with torch.inference_mode():
        views = [_view(net, whole, number) for number in range(orientations)]
    mean = torch.stack(views).mean(0)[0]
    return mean[:, : -(-height // STRIDE), : -(-width // STRIDE)].numpy()


def _view(net: StainNet, image: torch.Tensor, number: int) -> torch.Tensor:
    """What the network says of an image in one of eight orientations, turned back."""
    turns, flip = number // 2, number % 2
    turned = torch.rot90(image, turns, (2, 3))
    turned = turned.flip(3) if flip else turned
    device = next(net.parameters()).device
    out = net(turned.to(device).contiguous(memory_format=torch.channels_last)).float().cpu()
    out = torch.cat([out[:, :1].clamp(-8, 4).exp(), out[:, 1:].sigmoid()], 1)
    out = out.flip(3) if flip else out
    return torch.rot90(out, -turns, (2, 3))


def window_logits(maps: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Live evidence (n,) of windows (y, x, size) of predicted maps (2, H, W); higher is more live.

    Minus the logarithm of the mean excess of PI inside; calibration turns it into a probability.
    """
    area = corners[:, 2].astype(np.float64) ** 2
    excess = window_sums(np.rint(maps[0] * 1e4), corners) / area / 1e4
    return -np.log(excess + FLOOR)
