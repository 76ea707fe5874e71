"""A window classifier as TorchScript: from a frame's counts to live probabilities, without a line
of this project's code.
"""

import warnings

import torch
from torch import nn

from ..common.scoring.networks import Net, prepare
from ..common.scoring.scorer import Scorer
from ..common.scoring.windows import in_pixels
from ..common.workspace.errors import UserError

BATCH = 32


class ExportError(UserError):
    """A model that cannot be exported."""


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
        self.windows = windows
        self.size: int = size
        self.stride: int = stride
        self.batch: int = BATCH
        scaling, operating = contract["scaling"], contract["operating"]
        self.by_percentile: bool = scaling["method"] == "percentile"
        self.low: float = float(scaling["low"])
        self.high: float = float(scaling["high"])
        self.temperature: float = float(operating["temperature"])
        self.shift: float = float(operating.get("shift", 0.0))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        maps: list[torch.Tensor] = []
        for index in range(frames.shape[0]):
            maps.append(self.probabilities(self.to_uint8(frames[index, 0].double())))
        return torch.stack(maps).unsqueeze(1)

    def to_uint8(self, counts: torch.Tensor) -> torch.Tensor:
        """imaging.percentile_range and imaging.to_uint8 of counts (H, W), as whole numbers."""
        low, high = self.low, self.high
        if self.by_percentile:
            ordered = counts.flatten().sort()[0]
            ordered = ordered[ordered > 0]
            low, high = 0.0, 1.0
            if ordered.numel() > 0:
                low = max(self.at(ordered, self.low), 1.0)
                high = max(self.at(ordered, self.high), low + 1.0)
        return ((counts - low) * (255.0 / (high - low)) + 0.5).clamp(0, 255).floor().float()

    def at(self, ordered: torch.Tensor, percentile: float) -> float:
        """The value that a percentile of an ascending list (n,) reaches."""
        place = int(torch.ceil(torch.tensor(ordered.numel() * percentile / 100)).item()) - 1
        return float(ordered[max(place, 0)].item())

    def probabilities(self, frame8: torch.Tensor) -> torch.Tensor:
        cut = frame8.unfold(0, self.size, self.stride).unfold(1, self.size, self.stride)
        rows, columns = cut.shape[0], cut.shape[1]
        windows = cut.reshape(rows * columns, self.size, self.size)
        found: list[torch.Tensor] = []
        for start in range(0, rows * columns, self.batch):
            found.append(self.windows(windows[start : start + self.batch]))
        logit = (torch.cat(found) - self.shift) / self.temperature
        return torch.sigmoid(logit).reshape(rows, columns)


def frame_map(scorer: Scorer) -> torch.jit.ScriptModule:
    """A model's path from counts to live probabilities as TorchScript.

    Raises ExportError for a model of another kind than a window classifier, and for a stride that
    does not divide the window.
    """
    if not isinstance(scorer.net, Net):
        raise ExportError("only models with model.target=label can be exported so far")
    tile, size_um = scorer.contract["tile"], scorer.contract["pixel_size_um"]
    size, stride = (in_pixels(tile[name], tile["unit"], size_um) for name in ("window", "stride"))
    if size % stride:
        raise ExportError(
            f"windows of {size} px every {stride} px: "
            "the format wants a stride that divides the window"
        )
    windows = Windows(scorer.net.eval()).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is old, and what the format takes
        traced = torch.jit.trace(windows, torch.zeros(2, size, size), check_trace=False)
        return torch.jit.script(FrameMap(traced, size, stride, scorer.contract).eval())
