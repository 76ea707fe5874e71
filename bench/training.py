"""How long a training step takes, end to end, against the usual way and against the limit.

`python bench/training.py [--arch resnet18] [--steps 24] [--batch 16]`, after `dvc repro split`: in
one run, on windows of data/splits, thrice each, in turn. The usual way: torchvision's ImageFolder
of one PNG file per window, flips, normalisation and a DataLoader, plain PyTorch in float32 and
NCHW. Ours: `fit` of the train stage, Lightning, sampling, turns and all. The limit: one batch that
is already in memory, at the same precision and layout. Weights are random: they do not change the
time. Prints seconds a step (the best of three) and the ratios, all on the GPU where there is one.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import get_model
from torchvision.transforms import v2

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from src.common.patches.store import PatchStore  # noqa: E402
from src.common.scoring.networks.net import build  # noqa: E402
from src.common.train.devices import precision  # noqa: E402
from src.common.train.fine_tuning import fit  # noqa: E402
from src.common.workspace.params import load  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # as `fit` chooses


def loop(net: nn.Module, batches: Iterable, bf16: bool, layout: torch.memory_format) -> None:
    """Steps of AdamW on cross entropy over batches of images and labels."""
    net = net.train().to(DEVICE, memory_format=layout)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    for images, labels in batches:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=bf16):
            logits = net(images.to(DEVICE, memory_format=layout))
        loss = nn.functional.cross_entropy(logits.float(), labels.to(DEVICE))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    loss.item()  # waits for a GPU


def write_pngs(store: PatchStore, table: pd.DataFrame, folder: Path) -> None:
    """One PNG file per window, as ImageFolder wants them."""
    for number, row in enumerate(table.itertuples()):
        path = folder / row.label / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), store.window(row.image_id, row.y, row.x, row.size))


def seconds(call: Callable[[], None]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Times the three ways in turn and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch", type=int, default=16)
    asked = parser.parse_args()
    count = asked.steps * asked.batch
    store = PatchStore(ROOT / "data" / "patches")
    table = pd.read_parquet(ROOT / "data" / "splits" / "splits.parquet")
    table = table[table["label"].isin(["live", "dead"])].sample(count, random_state=1)
    changes = {"samples_per_epoch": count, "batch_size": asked.batch, "epochs": 1, "layers": "all"}
    train = load("train").model_copy(update=changes)
    bf16 = precision(train.precision).startswith("bf16")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pngs(store, table, folder / "png")
        flips = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
        scaled = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)]
        steps = [v2.ToImage(), *flips, *scaled]
        files = DataLoader(
            ImageFolder(folder / "png", v2.Compose(steps)), asked.batch, shuffle=True
        )
        side = build(asked.arch).backbone.input_size
        batch = torch.rand(asked.batch, 3, side, side), torch.randint(2, (asked.batch,))
        usual = get_model(asked.arch, num_classes=2)

        def ours() -> None:
            fit(build(asked.arch), store, table, table[:0], train, folder, lambda *_: None)
            (folder / "last.ckpt").unlink(missing_ok=True)

        ways = {
            "usual": lambda: loop(usual, files, False, torch.contiguous_format),
            "ours": ours,
            "limit": lambda: loop(
                build(asked.arch), [batch] * asked.steps, bf16, torch.channels_last
            ),
        }
        taken = {way: [] for way in ways}
        for _ in range(3):
            for way, call in ways.items():
                taken[way].append(seconds(call) / asked.steps)
    best = {way: min(times) for way, times in taken.items()}
    for way, value in best.items():
        print(f"{way}: {value:.3f} s a step of {asked.batch} windows")
    print(f"usual / ours: {best['usual'] / best['ours']:.2f}")
    print(f"limit / ours: {best['limit'] / best['ours']:.2f}")
    print(f"{DEVICE}, {torch.get_num_threads()} threads, bf16: {bf16}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
