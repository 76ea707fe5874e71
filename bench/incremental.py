"""What it costs to add images to a plate: from nothing, and with what is kept of the others.

`python bench/incremental.py [--images 1000] [--new 10] [--size 128]`: SYNTHETIC frames of blurred
noise as in growth.py. The stages acquire and tile, the filter's features (a small random network)
and `unstained score` run on IMAGES of them with a cache of their own, then, with NEW more, again
into the same folders; and on all of them from nothing, without a cache. Prints a table of processor
time and of the clock, each after imports, the size of the cache, and whether the files are the
same bytes.
"""

import argparse
import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import growth
from tests.conftest import ARCH

EMBED = (
    "from src.common.filter.features import features",
    f"""
windows = pd.read_parquet("data/patches/patches.parquet")
place = Path("data/patches").absolute()
found = features({ARCH!r}, Path("net.safetensors").absolute(), "windows", place, windows)
np.save("data/features.npy", found)""",
)
WORK = {
    "acquire": growth.WORK["acquire"],
    "tile": growth.WORK["tile"],
    "filter's features": EMBED,
    "score": growth.WORK["score"],
}


def make(root: Path, model: str, images: int, cache_gb: str) -> pd.DataFrame:
    """Runs all of it on the first of the images; seconds of the processor and of the clock."""
    table = pd.read_csv(root / "images" / "all.csv", dtype=str).head(images)
    table.to_csv(root / "images" / "images.csv", index=False)
    spent = {}
    for name, work in WORK.items():
        spent[name] = growth.measure(work, root, model, UNSTAINED_CACHE_GB=cache_gb)[:2]
        print(f"{name}, {images} images: {spent[name][0]:.1f} s", file=sys.stderr, flush=True)
    return pd.DataFrame(spent, index=["processor", "clock"]).T


def written(root: Path) -> dict[str, str]:
    """The digests of what was made, but for the pages and records that hold a time."""
    timed = ("model.json", "plate.json", "summary.html", ".lock")
    files = [path for top in ("data", "scored") for path in (root / top).rglob("*")]
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and path.name not in timed
    }


def lay_out(root: Path, images: int, size: int) -> None:
    """growth's tree, with the graph, and weights for the filter."""
    from safetensors.torch import save_file

    from src.common.scoring.networks.backbones import facts
    from src.common.scoring.networks.net import library_model

    growth.lay_out(root, images, (size, size))
    shutil.copyfile(growth.ROOT / "dvc.yaml", root / "dvc.yaml")
    save_file(library_model(facts(ARCH)).state_dict(), root / "net.safetensors")
    (root / "images" / "images.csv").rename(root / "images" / "all.csv")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--new", type=int, default=10)
    parser.add_argument("--size", type=int, default=128)
    asked = parser.parse_args()
    every = asked.images + asked.new
    with tempfile.TemporaryDirectory() as place:
        root, model = Path(place) / "tree", growth.random_model(Path(place) / "package")
        lay_out(root, every, asked.size)
        make(root, model, asked.images, "20")
        added = make(root, model, every, "20")
        size = sum(path.stat().st_size for path in (root / ".cache").rglob("*.*"))
        grown = written(root)
        for name in ("data", "scored", ".cache"):
            shutil.rmtree(root / name)
        nothing = make(root, model, every, "0")
        same = written(root) == grown
    print(f"{asked.images} + {asked.new} images of {asked.size} px (SYNTHETIC), seconds\n")
    print("| what | from nothing: processor, clock | with the cache | times |\n|---|---|---|---|")
    added.loc["together"], nothing.loc["together"] = added.sum(), nothing.sum()
    for name, (seconds, clock) in nothing.iterrows():
        least = added.loc[name]
        times = seconds / least["processor"]
        print(f"| {name} | {seconds:.1f}, {clock:.1f} | {least['processor']:.1f}, "
              f"{least['clock']:.1f} | {times:.1f} |")  # fmt: skip
    print(f"\ncache: {size / 1e6:.0f} MB; files the same bytes as from nothing: {same}")


if __name__ == "__main__":
    main()
