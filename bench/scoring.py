"""How much faster the predicted stain scores a frame than a classifier over its windows.

`python bench/scoring.py [--frames 3] [--arch tf_efficientnet_lite0]`: in one run, on noise frames
of the paper's size (1344 x 1024), one after the other: eager PyTorch in float32 over the 99
overlapping 224 px windows, by a classifier and by the filter's network beside it; and one pass of
the stain network over the frame, with the windows read off the predicted map. Weights are random:
they do not change the time. Prints seconds a frame, and their ratio with and without the filter's
network, which scoring by either target runs.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.common.scoring.backbones import build
from src.common.scoring.inference import apply_to_windows
from src.common.scoring.stain import StainFacts, build_stain, predict_stain, window_logits
from src.common.scoring.windows import windows

HEIGHT, WIDTH, SIZE, STRIDE = 1024, 1344, 224, 112


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
    """Times both ways and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--arch", default="tf_efficientnet_lite0")
    parser.add_argument("--orientations", type=int, default=4)
    asked = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    frames = [rng.integers(1, 255, (HEIGHT, WIDTH)).astype(np.uint8) for _ in range(asked.frames)]
    places = [(w.y, w.x, w.size) for w in windows(HEIGHT, WIDTH, SIZE, STRIDE, "anchor")]
    corners = np.array(places)
    classifier, features = build(asked.arch), build("tf_efficientnet_lite0")
    stain = build_stain(asked.arch, StainFacts(2, asked.orientations)).eval()

    def crops(frame: np.ndarray) -> np.ndarray:
        return np.stack([frame[y : y + s, x : x + s] for y, x, s in places])

    each = {
        "classifier": seconds(lambda f: apply_to_windows(classifier, classifier, crops(f)), frames),
        "filter": seconds(
            lambda f: apply_to_windows(features, features.features, crops(f)), frames
        ),
        "stain": seconds(lambda f: window_logits(predict_stain(stain, f), corners), frames),
    }
    for name, value in each.items():
        print(f"{name}: {value:.2f} s a frame of {len(places)} windows")
    usual = each["classifier"] + each["filter"]
    print(f"classifier / stain: {each['classifier'] / each['stain']:.1f}")
    print(
        f"(classifier + filter) / (stain + filter): {usual / (each['stain'] + each['filter']):.1f}"
    )
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
