"""How much faster frames are scored than by eager networks over their overlapping windows.

`python bench/scoring.py [--frames 3] [--arch tf_efficientnet_lite0] [--orientations 4]`: in one
run, on noise frames of the paper's size (1344 x 1024). The usual way: eager PyTorch in float32 over
the 99 overlapping 224 px windows, by a classifier and by the filter's network beside it. Against
it, as `unstained score` does for ten images or more: both compiled; and the stain network in one
pass over the frame, its windows read off the predicted map, with the filter in one pass beside it
(filter.sees frame). Weights are random: they do not change the time. Prints seconds a frame, the
ratios, the largest difference that compiling makes, and what it takes once.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.common.scoring.frames.windows import windows
from src.common.scoring.networks.inference import apply_to_windows, compiled_net
from src.common.scoring.networks.net import build
from src.common.scoring.networks.overview import compiled_filter, cut, features_of, filter_net
from src.common.scoring.networks.stain import StainFacts, build_stain, predict_stain, window_logits

HEIGHT, WIDTH, SIZE, STRIDE = 1024, 1344, 224, 112
FILTER = "tf_efficientnet_lite0"


def seconds(call, frames: list[np.ndarray]) -> float:
    """Median seconds of a call on each frame, after one for warming up."""
    call(frames[0])
    taken = []
    for frame in frames:
        start = time.perf_counter()
        call(frame)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def main() -> None:
    """Times all ways and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--arch", default="tf_efficientnet_lite0")
    parser.add_argument("--orientations", type=int, default=4)
    asked = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    frames = [rng.integers(1, 255, (HEIGHT, WIDTH)).astype(np.uint8) for _ in range(asked.frames)]
    corners = np.array([(w.y, w.x, w.size) for w in windows(HEIGHT, WIDTH, SIZE, STRIDE, "anchor")])
    classifier, filters = build(asked.arch), filter_net(FILTER, None, "windows")
    overview = filter_net(FILTER, None, "frame")
    stain = build_stain(asked.arch, StainFacts(2, asked.orientations, 2)).eval()
    start = time.perf_counter()
    fast_classifier, fast_filter = compiled_net(classifier), compiled_filter(filters)
    fast_stain, fast_overview = compiled_net(stain), compiled_filter(overview)
    once = (time.perf_counter() - start) / 2

    def logits(net, frame: np.ndarray) -> np.ndarray:
        return apply_to_windows(net, net.forward, cut(frame, corners))

    def read_off(net, frame: np.ndarray) -> np.ndarray:
        return window_logits(predict_stain(net, frame), corners)

    ways = {
        "classifier": lambda f: logits(classifier, f),
        "filter": lambda f: features_of(filters, f, corners),
        "classifier, compiled": lambda f: logits(fast_classifier, f),
        "filter, compiled": lambda f: features_of(fast_filter, f, corners),
        "stain": lambda f: read_off(stain, f),
        "stain, compiled": lambda f: read_off(fast_stain, f),
        "filter in one pass, compiled": lambda f: features_of(fast_overview, f, corners),
    }
    each = {name: seconds(call, frames) for name, call in ways.items()}
    for name, value in each.items():
        print(f"{name}: {value:.3f} s a frame of {len(corners)} windows")
    usual = each["classifier"] + each["filter"]
    label = each["classifier, compiled"] + each["filter, compiled"]
    one_pass = each["stain, compiled"] + each["filter in one pass, compiled"]
    print(f"classifier with filter, the usual way / compiled: {usual / label:.1f}")
    print(f"the usual way / stain with filter in one pass, compiled: {usual / one_pass:.1f}")
    worst = np.abs(logits(classifier, frames[0]) - logits(fast_classifier, frames[0])).max()
    print(f"largest difference of a logit by compiling: {worst:.1e}; once: {once:.1f} s")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
