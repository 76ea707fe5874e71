"""Random patches a second: windows of the memory-mapped frames against one PNG file per patch
(torchvision).

`python bench/patch_reading.py [N]`, after `dvc repro tile`: takes N windows of data/patches
(default 2000), writes them as PNG files as torchvision's ImageFolder wants them, reads both in the
same random order, thrice, from a warm page cache, and prints the ratio of the best times and of the
bytes on disk.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from torchvision.datasets import ImageFolder

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from src.common.patches.store import PatchStore  # noqa: E402


def best(read: Callable[[int], object], order: np.ndarray) -> float:
    """Seconds of the fastest of three passes."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for number in order:
            read(number)
        times.append(time.perf_counter() - start)
    return min(times)


def main(count: int) -> None:
    """Prints patches a second of both, and the ratios."""
    store = PatchStore(ROOT / "data" / "patches")
    patches = store.patches(sorted(store.frames["partition"].unique()))
    rows = patches.sample(count, random_state=1)[["image_id", "y", "x", "size"]]
    windows = list(rows.itertuples(index=False, name=None))
    order = np.random.default_rng(1).permutation(count)
    with tempfile.TemporaryDirectory() as folder:
        for number, window in enumerate(windows):
            path = Path(folder) / f"class{number % 2}" / f"{number:06d}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), store.window(*window))
        files = ImageFolder(folder, loader=lambda path: cv2.imread(path, cv2.IMREAD_GRAYSCALE))
        png = count / best(lambda number: files[number], order)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.png"))
    mapped = count / best(lambda number: np.array(store.window(*windows[number])), order)
    frames = len({window[0] for window in windows})
    share = (
        size / count * len(patches) / float((store.frames["height"] * store.frames["width"]).sum())
    )
    print(f"{count} patches of {frames} frames, read at random, warm cache, one process")
    print(
        f"PNG files (ImageFolder): {png:,.0f} patches/s; "
        f"memory-mapped windows: {mapped:,.0f} patches/s"
    )
    print(f"ratio: {mapped / png:.0f} times as fast")
    print(
        "bytes on disk for all windows: "
        f"PNG files would take {share:.1f} times the memory-mapped frames"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
