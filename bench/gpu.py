"""What a GPU would do for the networks of scoring: seconds a frame beside this machine's processor.

`python bench/gpu.py [--frames 10] [--arch tf_efficientnet_lite0]`: SYNTHETIC frames of noise of the
paper's size (1344 x 1024), random weights. The classifier over the 99 overlapping windows of a
frame, and the stain network in one pass, on the processor as `unstained score` has them (compiled
by OpenVINO), and on the GPU in float32, in bfloat16 and compiled, from pixels in main memory to
results there. `unstained score` itself works on the processor. Training takes a GPU by itself:
bench/training.py prints its ratios on the device that it finds.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.scoring import seconds
from src.common.scoring.frames.windows import windows
from src.common.scoring.networks.inference import compiled_net
from src.common.scoring.networks.net import build, prepare
from src.common.scoring.networks.overview import cut
from src.common.scoring.networks.stain import StainFacts, build_stain, reduced

SHAPE, SIZE, STRIDE = (1024, 1344), 224, 112


def on_gpu(net: torch.nn.Module, bf16: bool, compiled: bool) -> Callable:
    """Results in main memory of images there, by a network on the GPU."""
    net = net.to("cuda", memory_format=torch.channels_last)
    call = torch.compile(net) if compiled else net

    def apply(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            return call(images.to("cuda")).float().cpu()

    return apply


def compare(
    name: str, net: torch.nn.Module, fast: torch.nn.Module, seen: Callable, frames: list[np.ndarray]
) -> None:
    """Prints the seconds of a network's ways and the ratios; fast: it compiled for the processor;
    seen: a frame as it takes it.
    """
    usual = seconds(lambda frame: fast(seen(frame)), frames)
    print(f"{name}, processor: {usual:.3f} s a frame")
    for way, settings in {
        "float32": (False, False), "bfloat16": (True, False), "bfloat16, compiled": (True, True),
    }.items():  # fmt: skip
        call = on_gpu(net, *settings)
        value = seconds(lambda frame, call=call: call(seen(frame)), frames)
        print(f"{name}, GPU, {way}: {value:.4f} s a frame, processor / GPU: {usual / value:.1f}")


def main() -> None:
    """Measures where there is a GPU, and else says that there is none."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--arch", default="tf_efficientnet_lite0")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no GPU here that PyTorch can use: nothing was measured")
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    frames = [rng.integers(1, 255, SHAPE).astype(np.uint8) for _ in range(asked.frames)]
    corners = np.array([(w.y, w.x, w.size) for w in windows(*SHAPE, SIZE, STRIDE, "anchor")])
    classifier = build(asked.arch).eval()
    stain = build_stain(asked.arch, StainFacts(2, 1, 1)).eval()
    [one], [fast] = stain.networks, compiled_net(stain).networks
    compare(
        "label", classifier, compiled_net(classifier),
        lambda f: prepare(classifier.backbone, cut(f, corners)), frames,
    )  # fmt: skip
    compare("stain", one, fast, lambda f: torch.from_numpy(reduced(f, 2))[None, None], frames)


if __name__ == "__main__":
    main()
