"""What an image costs, and how much memory it takes, from 10 images to thousands.

`python bench/growth.py [--images 10 100 1000 3000] [--size 128] [--skip twins ...]`: SYNTHETIC
frames of blurred noise of SIZE x SIZE px, each of its own; for each number of them, and each in a
process of its own: the stages acquire, tile and filter, the gate check@patches, the search for near
duplicates of check@splits (`twins`), `unstained score`, both networks small and random, and its
report on a table of as many images. Prints a table of
processor time (which other work on the machine disturbs less than the clock) and peak memory, and
writes the plot bench/growth.png. `--size 1024 --images 4` gives rates of whole frames.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import tifffile
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests import plates
from tests.conftest import ARCH, default_params

ROOT = Path(__file__).resolve().parents[1]
PIXEL_SIZE_UM = 0.5
PROGRAM = """
import json, sys, time
from pathlib import Path
import numpy as np, pandas as pd
{imports}
start, begun = time.process_time(), time.perf_counter()
{work}
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
spent = time.process_time() - start, time.perf_counter() - begun
print(json.dumps([*spent, int(peak) / 1024]))
"""
WORK = {  # what is imported first, and what is measured with it
    "acquire": ("from src.stages import acquire", "acquire.main()"),
    "tile": ("from src.stages import tile", "tile.main()"),
    "check": (
        "from src.stages import check; from src.common.check import report, suites",
        "check.main('patches')",
    ),
    "filter": ("from src.stages import filter as stage", "stage.run()"),
    "twins": (
        "from src.common.check import leakage",
        """
frames = pd.read_parquet("data/patches/frames.parquet")
parts = np.where(np.arange(len(frames)) % 5, "train", "test")
splits = frames[["image_id", "partition"]].assign(part=parts, group=frames["image_id"])
print(*(len(found) for found in leakage.twins(splits, frames)))""",
    ),
    "score": (
        "from src.assay import score; from src.common.images.layout import Layout",
        """
options = score.Options(Layout(), overlays=False)
score.score([Path("images")], sys.argv[1], Path("scored"), options)""",
    ),
    "report": ("from src.assay import report", "report.report(Path('table'))"),
}


def lay_out(root: Path, images: int, shape: tuple[int, int]) -> None:
    """A tree for the stages: code, params, `images` fields in a folder, and a table of as many."""
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "sources").mkdir()
    (root / "sources" / "folder.csv").write_text("file,bytes,sha256\n")
    dataset = {"source": "folder", "path": "images", "partitions": ["arm"]}
    alone = {"workers": 1}
    tile = alone | {"window": 64, "stride": 32, "edge": "anchor"}
    filters = {"arch": ARCH, "annotations": "annotations.csv"}
    changes = default_params(dataset=dataset, acquire=alone, tile=tile, filter=filters)
    (root / "params.yaml").write_text(yaml.safe_dump(changes))
    (root / "annotations.csv").write_text(annotations(min(images, 100)))
    (root / "images").mkdir()
    rows = [write_field(root / "images", number, shape) for number in range(images)]
    pd.DataFrame(rows).to_csv(root / "images" / "images.csv", index=False)
    wells = plates.layout_96()
    table = plates.images(wells, fields=-(-images // len(wells))).head(images)
    plates.write(root / "table", table)


def annotations(images: int) -> str:
    """Verdicts on two windows of each of so many images, as many of cells as of empty ones."""
    rows = ["image_id,y,x,size,verdict,annotator,date"]
    for number in range(images):
        for y, verdict in ((0, "cells"), (64, "empty")):
            rows.append(f"f{number:05d},{y},0,64,{verdict},simulator,2026-11-01")
    return "\n".join(rows) + "\n"


def random_weights(root: Path, model: str) -> None:
    """Those of the package's filter, as the stage `weights` lays them out."""
    folder = root / "models" / "weights" / "filter"
    folder.mkdir(parents=True)
    shutil.copy(Path(model).parent / "files" / "scorer" / "filter" / "model.safetensors", folder)
    about = {"arch": ARCH, "weights": "random", "origin": "seed 0"}
    (folder / "source.json").write_text(json.dumps(about))


def random_model(folder: Path) -> str:
    """A package of a small random network, as `register` makes them."""
    from tests.pipeline.test_assay_score import save_model  # slow to import

    return save_model(folder, "a" * 64)


def write_field(folder: Path, number: int, shape: tuple[int, int]) -> dict:
    """Blurred noise as bright-field, and with bright spots as PI; its row of the manifest."""
    rng, row = np.random.default_rng(number), {"image_id": f"f{number:05d}", "experiment": "one"}
    for channel, width in (("brightfield", 2), ("pi", 3)):
        noise = cv2.GaussianBlur(rng.normal(size=shape), (0, 0), width)
        counts = 2000 + 400 * noise / noise.std()
        row[channel] = f"{row['image_id']}_{channel}.tif"
        tifffile.imwrite(folder / row[channel], counts.clip(1, 65535).astype(np.uint16))
    well = f"{'ABCDEFGH'[number % 8]}{number // 8 % 12 + 1}"
    return row | {"well": well, "position": str(number), "pixel_size_um": PIXEL_SIZE_UM}


def measure(work: tuple[str, str], root: Path, model: str, **env: str) -> list[float]:
    """Seconds of processor time and of the clock after its imports, and peak memory in MB."""
    code = PROGRAM.format(imports=work[0], work=work[1])
    env = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"} | env
    command = [sys.executable, "-c", code, model]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{work} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Cost an image and peak memory against the number of images."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, part in rows.groupby("what", sort=False):
        axes[0].loglog(part["images"], part["ms_per_image"], "o-", label=name)
        axes[1].loglog(part["images"], part["peak_mb"], "o-", label=name)
    axes[0].set(xlabel="images (SYNTHETIC)", ylabel="processor time, ms an image")
    axes[1].set(xlabel="images (SYNTHETIC)", ylabel="peak memory, MB")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measures, prints a row as soon as it is known, and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[10, 100, 1000, 3000])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--skip", nargs="*", default=[], choices=WORK)
    parser.add_argument("--plot", type=Path, default=ROOT / "bench" / "growth.png")
    asked = parser.parse_args()
    rows = []
    print("| what | images | ms an image | peak MB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        networks = {"filter", "score"} - set(asked.skip)
        model = random_model(Path(place) / "package") if networks else ""
        for images in asked.images:
            root = Path(place) / f"n{images}"
            lay_out(root, images, (asked.size, asked.size))
            if networks:
                random_weights(root, model)
            for name in (name for name in WORK if name not in asked.skip):
                seconds, _, peak = measure(WORK[name], root, model)
                row = {"what": name, "images": images, "ms_per_image": 1e3 * seconds / images}
                rows.append(row | {"peak_mb": peak})
                print(f"| {name} | {images} | {row['ms_per_image']:.1f} | {peak:.0f} |", flush=True)
            shutil.rmtree(root)
            draw(pd.DataFrame(rows), asked.plot)


if __name__ == "__main__":
    main()
