"""The stain network: a bright-field frame in, PI over background out, pixel by pixel.

A U-Net (Ronneberger et al. 2015; the decoder of segmentation-models-pytorch) on a pretrained
backbone yields two maps: the logarithm of the excess of PI over background (so that means over
windows and nuclei are unbiased under a Poisson loss) and the logit of "PI above STAINED times
background". Predicting fluorescence from transmitted light: Christiansen et al. 2018, Ounkomol et
al. 2018; the paper names it as its next step. This file ships inside registered models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn.functional import pad

from ..frames.imaging import black_border
from .backbones import UnknownBackbone, facts
from .net import Body, body_of, normalised, stage_maps

STAINED = 1.5  # times background: what the second map is the probability of
# Excess that is told from none; keeps the logarithm of an unstained window finite
EXCESS_FLOOR = 0.02
WIDTHS = (128, 64, 32, 16)  # channels of the decoder, coarse to fine
COARSEST = 32  # stride of the last stage: sides are padded to its multiples
SMALLEST = 4 * COARSEST  # side of an input that every stage still sees something of
TILE, OVERLAP = 2048, 512  # reduced pixels: a larger frame is predicted in tiles that overlap


@dataclass(frozen=True)
class StainFacts:
    """What a stain network needs to read a frame.

    reduction: frame pixels a side of one input pixel. orientations: right-angle turns and flips
    that are averaged. networks: how many take these in turn.
    """

    reduction: int
    orientations: int
    networks: int


class UNet(nn.Module):
    """(N, 1, h, w) scaled bright-field to (N, 2, h', w'): log excess of PI and logit of STAINED.

    h' and w' are half the input's for backbones whose first stage has a stride of 4. Raises
    UnknownBackbone for a backbone that names too few stages.
    """

    def __init__(self, arch: str, body: Body, pretrained: bool = False):
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        super().__init__()
        self.backbone, self.body, self.pretrained = facts(arch), body.eval(), pretrained
        names = self.backbone.levels
        if len(names) < len(WIDTHS):
            needed = f"{len(WIDTHS)} stages: model.target stain needs them"
            raise UnknownBackbone(f"{arch} names no {needed}")
        self.stages = [body.layers.get_submodule(name) for name in names]
        with torch.no_grad():
            maps = self._encode(torch.zeros(1, 1, SMALLEST, SMALLEST))
        # the decoder leaves out a first map, which would be the image itself
        self.decoder = UnetDecoder((1, *[m.shape[1] for m in maps]), WIDTHS, len(WIDTHS))
        self.out = nn.Conv2d(WIDTHS[-1], 2, 3, padding=1)
        nn.init.constant_(self.out.bias, -2.0)  # most pixels are unstained

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.out(self.features(images))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """What the two maps are read from: (N, WIDTHS[-1], h', w')."""
        maps = self._encode(images)
        finest = maps[0]
        size = [2 * n for n in finest.shape[-2:]]
        return self.decoder([finest.new_empty(len(images), 0, *size), *maps])

    def _encode(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The stages' maps of images (N, 1, h, w) in -1..1, fine to coarse."""
        scaled = normalised(self.backbone, (images + 1) / 2)
        scaled = scaled.contiguous(memory_format=torch.channels_last)
        return stage_maps(self.body, self.stages, scaled)

    def train(self, mode: bool = True) -> "UNet":
        """A pretrained body keeps its normalisation statistics: few sessions would spoil them."""
        super().train(mode)
        self.body.train(mode and not self.pretrained)
        return self


class StainNet(nn.Module):
    """Networks that see a frame in different orientations, in turn; their mean is the prediction.

    So a second network costs training, and nothing in scoring (docs/accuracy.md).
    """

    def __init__(self, networks: Sequence[UNet], stain: StainFacts):
        super().__init__()
        self.networks, self.stain = nn.ModuleList(networks), stain


def build_stain(arch: str, stain: StainFacts, weights: Path | None = None) -> StainNet:
    """A stain network; its bodies from a safetensors file of the library's names, else random."""
    pretrained = weights is not None
    return StainNet(
        [UNet(arch, body_of(arch, weights), pretrained) for _ in range(stain.networks)], stain
    )


def reduced(frame8: np.ndarray, reduction: int) -> np.ndarray:
    """A frame (H, W) uint8 as the network sees it: means of blocks, in -1..1, (h, w) float32."""
    height, width = (n // reduction for n in frame8.shape)
    return resized(frame8, height, width)


def resized(frame8: np.ndarray, height: int, width: int) -> np.ndarray:
    """A frame (H, W) uint8 at another size, in -1..1, (height, width) float32; smaller by means.

    Black borders, as registration leaves them, take the grey of the frame's middle.
    """
    grey = frame8.astype(np.float32)
    border = black_border(frame8)
    if border.any() and not border.all():
        grey[border] = np.median(frame8[~border])
    how = cv2.INTER_AREA if height <= len(grey) else cv2.INTER_LINEAR
    return cv2.resize(grey, (width, height), interpolation=how) / 127.5 - 1


def predict_stain(net: StainNet, frame8: np.ndarray) -> np.ndarray:
    """Predicted stain of a frame (H, W) uint8: (2, H, W) float32.

    The first map is the excess of PI over background, in units of the background; the second the
    probability of PI above STAINED times background.
    """
    maps = _tiled(net, reduced(frame8, net.stain.reduction))
    height, width = frame8.shape
    return np.stack([cv2.resize(m, (width, height), interpolation=cv2.INTER_LINEAR) for m in maps])


def _tiled(net: StainNet, image: np.ndarray) -> np.ndarray:
    """Maps (2, h', w') of an image (h, w), in tiles if it is large."""
    height, width = image.shape
    if max(height, width) <= TILE:
        return _averaged(net, image)
    whole, edge = np.empty((2, 0, 0), np.float32), OVERLAP // 2
    for y in range(0, max(1, height - OVERLAP), TILE - OVERLAP):
        for x in range(0, max(1, width - OVERLAP), TILE - OVERLAP):
            tile = image[y : y + TILE, x : x + TILE]
            part = _averaged(net, tile)
            stride = -(-tile.shape[0] // part.shape[1])
            if not whole.size:
                whole = np.empty((2, -(-height // stride), -(-width // stride)), np.float32)
            # a tile's outer half overlap belongs to its neighbour, which sees more around it
            top, left = (edge // stride if start else 0 for start in (y, x))
            rows, cols = y // stride + top, x // stride + left
            kept = part[:, top:, left:]
            whole[:, rows : rows + kept.shape[1], cols : cols + kept.shape[2]] = kept
    return whole


def _averaged(net: StainNet, image: np.ndarray) -> np.ndarray:
    """Both maps (2, h', w') of an image (h, w), the mean over orientations."""
    height, width = image.shape
    missing = [0, -width % COARSEST, 0, -height % COARSEST]
    whole = pad(torch.from_numpy(np.ascontiguousarray(image))[None, None], missing)
    with torch.inference_mode():
        views = [_view(net, whole, number) for number in range(net.stain.orientations)]
    mean = torch.stack(views).mean(0)[0]
    stride = whole.shape[-1] / mean.shape[-1]
    return mean[:, : int(np.ceil(height / stride)), : int(np.ceil(width / stride))].numpy()


def _view(net: StainNet, image: torch.Tensor, number: int) -> torch.Tensor:
    """What a network says of an image in one of eight orientations, turned back."""
    network = net.networks[number % len(net.networks)]
    device = next(network.parameters()).device
    out = network(oriented(image, number).to(device)).float().cpu()
    maps = torch.cat([out[:, :1].clamp(-8, 4).exp(), out[:, 1:].sigmoid()], 1)
    return oriented(maps, number, back=True)


def oriented(image: torch.Tensor, number: int, back: bool = False) -> torch.Tensor:
    """(..., h, w) in one of eight orientations (right-angle turns, then a flip), or back."""
    turns, flip = number // 2, number % 2
    if back:
        return torch.rot90(image.flip(-1) if flip else image, -turns, (-2, -1))
    turned = torch.rot90(image, turns, (-2, -1))
    return turned.flip(-1) if flip else turned


def window_logits(maps: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Live evidence (n,) of windows (y, x, size) of predicted maps (2, H, W); higher is more live.

    Minus the logarithm of the mean excess of PI inside; calibration turns it into a probability.
    """
    whole = np.rint(maps[0] * 1e4)  # so that sums are exact, whatever the order
    sums = [whole[y : y + n, x : x + n].sum(dtype=np.float64) for y, x, n in corners]
    return stain_logits(np.array(sums) / corners[:, 2] ** 2 / 1e4)


def stain_logits(excess: np.ndarray) -> np.ndarray:
    """Live evidence (n,) of areas from their mean excess of PI (n,), in units of the background."""
    return -np.log(np.maximum(excess, 0) + EXCESS_FLOOR)
