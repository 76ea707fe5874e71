"""What `unstained score` takes a frame, raw files to tables, against networks over its windows.

`python bench/score.py MODEL FOLDER [--images 12 36]`, in a clone whose registry has the model: the
first images of a folder are scored from nothing, so many and so many more, and what the further
ones take is divided by their number; so neither imports nor compiling count. Against it, in the
same run, the usual way of one such frame: eager PyTorch in float32 over its overlapping windows of
224 px, by a classifier and by the filter's network beside it, and nothing else. Prints seconds a
frame without and with pictures, and the ratios.
"""

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.scoring import FILTER, SIZE, STRIDE, seconds
from src.assay.score import Options, score
from src.common.images.layout import Layout
from src.common.scoring.frames.windows import windows
from src.common.scoring.networks.inference import apply_to_windows
from src.common.scoring.networks.net import build
from src.common.scoring.networks.overview import cut, features_of, filter_net


def taken(model: str, images: list[Path], pictures: bool) -> float:
    """Seconds to score images into a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        options = Options(Layout(), overlays=pictures)
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            score(images, model, Path(folder) / "out", options, allow_synthetic=True)
        return time.perf_counter() - start


def usual(shape: tuple[int, int], arch: str) -> float:
    """Seconds that two eager networks take over the windows of a frame of noise."""
    torch.manual_seed(0)
    frame = np.random.default_rng(0).integers(1, 255, shape).astype(np.uint8)
    corners = np.array([(w.y, w.x, w.size) for w in windows(*shape, SIZE, STRIDE, "anchor")])
    classifier, filters = build(arch), filter_net(FILTER, None, "windows")

    def both(seen: np.ndarray) -> None:
        apply_to_windows(classifier, classifier.forward, cut(seen, corners))
        features_of(filters, seen, corners)

    return seconds(both, [frame] * 3)


def main() -> None:
    """Prints seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, nargs=2, default=[12, 36])
    parser.add_argument("--arch", default="tf_efficientnet_lite0")
    asked = parser.parse_args()
    os.environ["UNSTAINED_CACHE_GB"] = "0"
    few, many = asked.images
    images = sorted(asked.folder.glob("*.tif"))[:many]

    limit = usual(tifffile.imread(images[0]).shape, asked.arch)
    print(f"the usual way: {limit:.2f} s a frame")
    for pictures in (False, True):
        first, all_ = (taken(asked.model, images[:n], pictures) for n in (few, len(images)))
        each = (all_ - first) / (len(images) - few)
        what = "tables and pictures" if pictures else "tables"
        print(f"{asked.model}, {what}: {each:.2f} s a frame; usual / ours {limit / each:.1f}")
    print(f"{torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
