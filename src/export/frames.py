"""What both kinds of packages do with a frame before their network sees it, as TorchScript."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..common.workspace.errors import UserError


class ExportError(UserError):
    """A model that cannot be exported."""


@dataclass(frozen=True)
class Exported:
    """A model for other programs, with what its package says.

    module: counts (B, 1, H, W) float32 to (B, C, h, w). native: the same of one frame (H, W) by the
    model itself, (C, h, w). name, channels: of the output. least, step: a frame's sides in px are
    least + n * step. scale, offset: an output's side is that of the frame / scale + offset.
    tolerance: how far module and native may differ. what: the output in a line. out, left: what
    comes out, and what does not.
    """

    module: torch.jit.ScriptModule
    native: Callable[[np.ndarray], np.ndarray]
    name: str
    channels: tuple[str, ...]
    least: int
    step: int
    scale: int
    offset: int
    tolerance: float
    what: str
    out: str
    left: str


class EightBit(nn.Module):
    """Counts (H, W) float64 to whole numbers 0..255, (H, W) float32: imaging.percentile_range and
    imaging.to_uint8, under a contract's scaling.
    """

    def __init__(self, scaling: dict):
        super().__init__()
        self.by_percentile: bool = scaling["method"] == "percentile"
        self.low: float = float(scaling["low"])
        self.high: float = float(scaling["high"])

    def forward(self, counts: torch.Tensor) -> torch.Tensor:
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


def traced(net: nn.Module, example: torch.Tensor) -> torch.jit.ScriptModule:
    """A network as TorchScript."""
    # TorchScript is old, and what the format takes
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        return torch.jit.trace(net, example, check_trace=False)


def scripted(module: nn.Module) -> torch.jit.ScriptModule:
    """A module with a traced network inside, as TorchScript."""
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        return torch.jit.script(module.eval())
