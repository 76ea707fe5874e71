"""What a training step in bf16 costs with PyTorch's gradients of depth-wise convolutions, and ours.

`python bench/gradients.py [--steps 9]`: the stain network's loss (8 crops of 224 px) and the
classifier's (16 windows), default backbone, first stage frozen, random weights and pixels, with
and without `QuickGradients`, in turn. Prints median seconds of a step, ratios, and whether both end
with the same weights.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.common.scoring.networks.net import build
from src.common.scoring.networks.stain import StainFacts, build_stain
from src.common.train.freezing import freeze
from src.common.train.gradients import QuickGradients
from src.common.train.stain import stain_loss

ARCH = "tf_efficientnet_lite0"


def stain() -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    """A stain network and its loss."""
    net = build_stain(ARCH, StainFacts(2, 1, 1)).networks[0]
    images, targets = torch.rand(8, 1, 224, 224) * 2 - 1, torch.rand(8, 5, 112, 112)
    return net, lambda: stain_loss(net(images).float(), targets)


def classifier() -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    """A classifier and its loss."""
    net = build(ARCH).to(memory_format=torch.channels_last)
    images = torch.rand(16, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    live = torch.randint(2, (16,))
    return net, lambda: nn.functional.cross_entropy(net(images).float(), live)


def run(make: Callable, quick: bool, steps: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Median seconds of a step after the first, and the weights at the end."""
    torch.manual_seed(0)
    net, loss_of = make()
    net.train()
    freeze(net, 1)
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-3)
    taken = []
    for step in range(steps + 1):
        torch.manual_seed(step)  # of dropout
        start = time.perf_counter()
        with QuickGradients() if quick else nullcontext(), torch.autocast("cpu", torch.bfloat16):
            loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:]), net.state_dict()


def main() -> None:
    """Prints both, in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=9)
    asked = parser.parse_args()
    for make in (stain, classifier):
        (usual, one), (ours, other) = (run(make, quick, asked.steps) for quick in (False, True))
        same = all(torch.equal(value, other[name]) for name, value in one.items())
        print(
            f"{make.__name__}: {usual:.3f} s with PyTorch's, {ours:.3f} s with ours, "
            f"{usual / ours:.2f} x; same weights: {same}"
        )
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
