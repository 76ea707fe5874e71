"""What acquire, tile and the filter's features cost beside the least that they could.

`python bench/reading.py [--frames 11] [--arch tf_efficientnet_lite0] [--times 3]`: SYNTHETIC 16-bit
frames of 1344 x 1024 px in two channels, in one process of one worker, a warm page cache, in turn.
The stages acquire and tile after their imports, against reading the same TIFFs with tifffile and
doing nothing. The filter's features of the frames' 99 windows each (224 px), as the stage computes
them, against the same compiled network over tensors that are already in memory. Weights are random:
they do not change the time. Prints the best times and ratios, in processor time, which other
work on the machine disturbs less than the clock.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # in the second process the tree that the first lays out
sys.path.insert(0, str(ROOT))
SHAPE, BATCH = (1024, 1344), 32


def lay_out(root: Path, frames: int, arch: str) -> None:
    """A tree of `frames` fields as bench/growth.py has it, with the default windows."""
    import torch
    import yaml
    from safetensors.torch import save_file

    from bench import growth
    from src.common.scoring.networks.backbones import facts
    from src.common.scoring.networks.net import library_model

    growth.lay_out(root, frames, SHAPE)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["tile"] |= {"window": 224, "stride": 112}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    torch.manual_seed(0)
    save_file(library_model(facts(arch)).state_dict(), root / "filter.safetensors")
    (root / "bench").mkdir()
    shutil.copy(__file__, root / "bench")


def best(ways: dict[str, Callable[[], object]], times: int) -> dict[str, float]:
    """Seconds of processor time of the fastest of so many calls of each, in turn."""
    taken = {name: [] for name in ways}
    for _ in range(times):
        for name, call in ways.items():
            start = time.process_time()
            call()
            taken[name].append(time.process_time() - start)
    return {name: min(each) for name, each in taken.items()}


def stages(frames: int, times: int) -> None:
    """Times acquire and tile against reading what they read."""
    import tifffile

    from src.stages import acquire, tile

    def read(folder: Path) -> None:
        for path in sorted(folder.rglob("*.tif")):
            tifffile.imread(path)

    acquire.main()
    ways = {
        "read": lambda: read(ROOT / "images"), "acquire": acquire.main,
        "read again": lambda: read(ROOT / "data" / "raw"), "tile": tile.main,
    }  # fmt: skip
    each = best(ways, times)
    for name, seconds in each.items():
        print(f"{name}: {1e3 * seconds / frames:.1f} ms a frame of two channels")
    print(f"acquire / read: {each['acquire'] / each['read']:.1f}")
    print(f"tile / read: {each['tile'] / each['read again']:.1f}")


def features(arch: str, times: int) -> None:
    """Times the filter's features against the forward pass alone."""
    import numpy as np
    import pandas as pd
    import torch

    from src.common.filter.features import features as features_of
    from src.common.patches.store import PatchStore
    from src.common.scoring.networks.net import prepare
    from src.common.scoring.networks.overview import compiled_filter, filter_net

    folder, weights = ROOT / "data" / "patches", ROOT / "filter.safetensors"
    windows = pd.read_parquet(folder / "patches.parquet")[["image_id", "y", "x", "size"]]
    store, net = PatchStore(folder), compiled_filter(filter_net(arch, weights, "windows"))
    rows = windows.itertuples(index=False, name=None)
    pixels = np.stack([store.window(*row) for row in rows])
    batches = [
        prepare(net.backbone, pixels[start : start + BATCH]).contiguous(
            memory_format=torch.channels_last
        )
        for start in range(0, len(pixels), BATCH)
    ]

    def bare() -> None:
        for batch in batches:
            net.features(batch)

    def stage() -> None:
        features_of(arch, weights, "windows", folder, windows)

    stage()  # compiles, once
    each = best({"bare": bare, "stage": stage}, times)
    for name, seconds in each.items():
        print(f"features, {name}: {len(windows) / seconds:.0f} windows/s of processor time")
    print(f"bare forward pass / features of the stage: {each['bare'] / each['stage']:.2f}")


def main() -> None:
    """Lays out a tree and measures in a process of its own, whose stages work there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=11)
    parser.add_argument("--arch", default="tf_efficientnet_lite0")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        stages(asked.frames, asked.times)
        features(asked.arch, asked.times)
        return
    with tempfile.TemporaryDirectory() as name:
        lay_out(Path(name), asked.frames, asked.arch)
        script = str(Path(name) / "bench" / "reading.py")
        subprocess.run([sys.executable, script, "--here", *sys.argv[1:]], cwd=name, check=True)


if __name__ == "__main__":
    main()
