"""A stain network as TorchScript: from a frame's counts to predicted PI over background, pixel by
pixel, without a line of this project's code.
"""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, pad

from ..common.scoring.frames.imaging import BORDER
from ..common.scoring.networks.stain import COARSEST, SMALLEST, StainNet
from ..common.scoring.scorer import Scorer
from .frames import EightBit, Exported, ExportError, scripted, traced

OUT = """for each pixel, first the predicted PI over background (1 is unstained), then the
probability that it is above 1.5 times background."""
LEFT = """the calibrated probabilities and calls of windows and cells are not made: the mean of the
predicted PI inside a window or a nucleus orders it from live to dead."""


class StainMap(nn.Module):
    """Frames (B, 1, H, W) of raw counts to (B, 2, H, W): predicted PI over background, and the
    probability of much. As scoring/networks/stain.py computes them, in one piece.
    """

    def __init__(self, networks: list[nn.Module], reduction: int, orientations: int, scaling: dict):
        super().__init__()
        self.networks, self.eight_bit = nn.ModuleList(networks), EightBit(scaling)
        self.reduction: int = reduction
        self.orientations: int = orientations
        self.border: int = BORDER

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        maps: list[torch.Tensor] = []
        for index in range(frames.shape[0]):
            image = self.reduced(self.eight_bit(frames[index, 0].double()))
            predicted = self.averaged(image)
            size = [frames.shape[-2], frames.shape[-1]]
            maps.append(interpolate(predicted, size, mode="bilinear", align_corners=False))
        return torch.cat(maps)

    def reduced(self, frame8: torch.Tensor) -> torch.Tensor:
        """The frame (H, W) as the network sees it, (1, 1, h, w), in -1..1."""
        around = self.border - 1
        zero = (frame8 == 0).float()[None, None]
        wide = pad(zero, [around, around, around, around], mode="replicate")
        kept = -max_pool2d(-wide, self.border, 1)  # an opening: eroded, then dilated
        border = max_pool2d(kept, self.border, 1)[0, 0] > 0
        if bool(border.any()) and not bool(border.all()):
            middle = torch.quantile(frame8[~border].double(), 0.5).float()
            frame8 = torch.where(border, middle, frame8)
        return avg_pool2d(frame8[None, None], self.reduction) / 127.5 - 1

    def averaged(self, image: torch.Tensor) -> torch.Tensor:
        """Both maps (1, 2, h', w') of an image (1, 1, h, w), the mean over orientations."""
        views: list[torch.Tensor] = []
        for first, network in enumerate(self.networks):
            for number in range(first, self.orientations, len(self.networks)):
                view = torch.rot90(image, number // 2, [-2, -1])
                if number % 2 == 1:
                    view = view.flip([-1])
                out = network(view.contiguous())
                maps = torch.cat([out[:, :1].clamp(-8, 4).exp() + 1, out[:, 1:].sigmoid()], 1)
                if number % 2 == 1:
                    maps = maps.flip([-1])
                views.append(torch.rot90(maps, -(number // 2), [-2, -1]))
        return torch.stack(views).mean(0)


def of_stain(scorer: Scorer) -> Exported:
    """A stain network for other programs. Raises ExportError for one whose maps do not divide the
    frame evenly, as of a backbone without padding.
    """
    net: StainNet = scorer.net.eval()
    facts, step = net.stain, COARSEST * net.stain.reduction
    example = torch.zeros(1, 1, SMALLEST, SMALLEST)
    with torch.inference_mode():
        side = net.networks[0](example).shape[-1]
    if SMALLEST % side:
        raise ExportError(f"{scorer.contract['arch']} pads nothing: its maps fit no whole frame")
    module = StainMap(
        [traced(network, example) for network in net.networks],
        facts.reduction, facts.orientations, scorer.contract["scaling"],
    )  # fmt: skip
    return Exported(
        scripted(module),
        lambda frame: native(scorer, frame),
        name="predicted_stain",
        channels=("pi_over_background", "stained"),
        least=SMALLEST * facts.reduction,
        step=step,
        scale=1,
        offset=0,
        tolerance=1e-3,
        what="PI over background, and the probability of more than 1.5 times",
        out=OUT,
        left=LEFT,
    )


def native(scorer: Scorer, frame: np.ndarray) -> np.ndarray:
    """Predicted stain (2, H, W) of a frame, as the model computes it."""
    stain = scorer.stain(frame, scorer.contract["pixel_size_um"])
    assert stain is not None  # of a model of target stain
    return stain
