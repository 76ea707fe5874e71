"""A window classifier as TorchScript: from a frame's counts to live probabilities, without a line
of this project's code.
"""

import numpy as np
import torch
from torch import nn

from ..common.scoring.frames.imaging import scaling_range, to_uint8
from ..common.scoring.frames.windows import in_pixels, windows
from ..common.scoring.networks.inference import apply_to_windows
from ..common.scoring.networks.net import Net, prepare
from ..common.scoring.networks.overview import cut
from ..common.scoring.operating import calibrate
from ..common.scoring.scorer import Scorer
from .frames import EightBit, Exported, ExportError, scripted, traced

BATCH = 32
OUT = """for each window of {size} x {size} px, every {stride} px from the upper left corner, the
calibrated probability that it is live. Element (row, column) is the window whose corner is at
({stride} x row, {stride} x column)."""
LEFT = """windows without cells, out of focus or at a border get a probability here, too; nothing
abstains. Windows flush with the right and bottom edge are left out."""


class Windows(nn.Module):
    """Windows (N, S, S) of 8-bit values to the difference of their logits, live - dead: (N,)."""

    def __init__(self, net: Net):
        super().__init__()
        self.net = net

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        logits = self.net(prepare(self.net.backbone, windows))
        return logits[:, 1] - logits[:, 0]


class FrameMap(nn.Module):
    """Frames (B, 1, H, W) of raw counts to live probabilities (B, 1, rows, columns) of windows.

    As scorer.py computes them, for the windows that lie on the grid from the upper left corner.
    """

    def __init__(self, windows: nn.Module, size: int, stride: int, contract: dict):
        super().__init__()
        self.windows, self.eight_bit = windows, EightBit(contract["scaling"])
        self.size: int = size
        self.stride: int = stride
        self.batch: int = BATCH
        operating = contract["operating"]
        self.temperature: float = float(operating["temperature"])
        self.shift: float = float(operating.get("shift", 0.0))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        maps: list[torch.Tensor] = []
        for index in range(frames.shape[0]):
            maps.append(self.probabilities(self.eight_bit(frames[index, 0].double())))
        return torch.stack(maps).unsqueeze(1)

    def probabilities(self, frame8: torch.Tensor) -> torch.Tensor:
        cut = frame8.unfold(0, self.size, self.stride).unfold(1, self.size, self.stride)
        rows, columns = cut.shape[0], cut.shape[1]
        windows = cut.reshape(rows * columns, self.size, self.size)
        batches: list[torch.Tensor] = []
        for start in range(0, rows * columns, self.batch):
            batches.append(self.windows(windows[start : start + self.batch]))
        logit = (torch.cat(batches) - self.shift) / self.temperature
        return torch.sigmoid(logit).reshape(rows, columns)


def of_windows(scorer: Scorer) -> Exported:
    """A window classifier for other programs. Raises ExportError for a stride that does not divide
    the window.
    """
    tile, size_um = scorer.contract["tile"], scorer.contract["pixel_size_um"]
    size, stride = (in_pixels(tile[name], tile["unit"], size_um) for name in ("window", "stride"))
    if size % stride:
        raise ExportError(
            f"windows of {size} px every {stride} px: "
            "the format wants a stride that divides the window"
        )
    one = traced(Windows(scorer.net.eval()).eval(), torch.zeros(2, size, size))
    return Exported(
        scripted(FrameMap(one, size, stride, scorer.contract)),
        lambda frame: native(scorer, frame, size, stride),
        name="live_probability",
        channels=("live",),
        least=size,
        step=stride,
        scale=stride,
        offset=1 - size // stride,
        tolerance=1e-4,
        what="calibrated probability that a window is live",
        out=OUT.format(size=size, stride=stride),
        left=LEFT,
    )


def native(scorer: Scorer, frame: np.ndarray, size: int, stride: int) -> np.ndarray:
    """Live probabilities (1, rows, columns) of a frame's windows, as the model computes them."""
    low, high = scaling_range(frame, **scorer.contract["scaling"])
    grid = windows(*frame.shape, size, stride, "drop")
    corners = np.array([(w.y, w.x, size) for w in grid])
    crops = cut(to_uint8(frame, low, high), corners)
    logits = apply_to_windows(scorer.net, scorer.net.forward, crops).astype(float)
    at = scorer.contract["operating"]
    live = calibrate(logits[:, 1] - logits[:, 0], at["temperature"], at.get("shift", 0.0))
    return live.reshape(1, -1, len({w.x for w in grid}))
