"""Shared fixtures: a tiny patch store whose live and dead windows anybody can tell apart, and a
tree for stages.
"""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # threads of several test processes would wait for each other

os.environ["UNSTAINED_CACHE_GB"] = "0"  # tests are to compute; those of the cache turn it on

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import settings

from src.common.exposure.session import exposure
from src.common.patches.store import PatchStore, ShardWriter, plan_shards
from src.common.tile.measures import ratio, reduce_mean, reduced_size

# No deadline, since a busy machine is not a fault; the same examples each time, since a test is not
# a lottery.
settings.register_profile("unstained", deadline=None, derandomize=True)
settings.load_profile("unstained")

REPO = Path(__file__).resolve().parents[1]
# What presets and `make real` change in params.yaml, which may be that of an experiment while tests
# run
DEFAULTS = {
    "dataset": {"source": "synthetic", "path": "",
                "partitions": ["no_treatment", "doxo_paclitaxel"], "pattern": ""},
    "filter": {"annotations": "annotations/synthetic.csv"},
    "label": {"intensity": "counts", "log": False, "fit_on": ["no_treatment"]},
    "split": {"scheme": "holdout", "group_by": []},
    "model": {
        "target": "label", "arch": "tf_efficientnet_lite0", "weights": "auto", "pooling": "last",
    },
    "train": {
        "layers": "all", "C": 1e-3, "epochs": 3, "samples_per_epoch": 384, "batch_size": 16,
        "optimizer": "adamw", "lr": 1e-3, "weight_decay": 1e-2, "betas": [0.9, 0.999],
        "schedule": "cosine", "warmup_fraction": 0.1, "intensity_augmentation": 0.2,
        "frozen_epochs": 0, "frozen_stages": 1, "patience": 0, "precision": "auto",
    },
}  # fmt: skip
WINDOW = 64
# 0.4 million parameters, 160 px, batch normalisation: training in seconds
ARCH = "timm:test_efficientnet"


@pytest.fixture(autouse=True)
def signals_as_they_were():
    """PyTorch's handler of SIGCHLD, which a loader with workers sets for good, does not look at the
    children of other tests.
    """
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.fixture(scope="session", autouse=True)
def no_stray_store() -> Iterator[None]:
    """Fails the run if a test used MLflow without saying where: its default is ./mlflow.db."""
    stray = REPO / "mlflow.db"
    before = stray.exists()
    yield
    assert stray.exists() == before, f"a test made {stray}: see mlflow_at"


@contextmanager
def mlflow_at(uri: str | None) -> Iterator[None]:
    """MLflow works with a store (None: none is named), and then with what it did before.

    In a new process that is none, for which get_tracking_uri() has the name of its default,
    ./mlflow.db: set_tracking_uri of that would make every later test use, and make, that file.
    """
    import mlflow  # slow

    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def default_params(**changes: dict) -> dict:
    """params.yaml with the default data and recipe, and with further changes by section."""
    found = yaml.safe_load((REPO / "params.yaml").read_text())
    for section, values in [*DEFAULTS.items(), *changes.items()]:
        found[section] |= values
    return found


def write_store(
    directory: Path, frames: dict[str, np.ndarray], limit: int = 2**20, **columns
) -> PatchStore:
    """A patch store of 8-bit frames (H, W) through ShardWriter; PI is the bright-field, reduced,
    over a background of 50.
    """
    directory.mkdir(parents=True, exist_ok=True)
    areas = [frame.size for frame in frames.values()]
    shard, offset, sizes = plan_shards(areas, limit)
    pi_sizes, pi_offset = [0] * len(sizes), []
    for number, frame in zip(shard, frames.values()):
        pi_offset.append(pi_sizes[number])
        pi_sizes[number] += reduced_size(*frame.shape)
    writers = [
        ShardWriter(directory, "brightfield", sizes),
        ShardWriter(directory, "pi", pi_sizes),
        ShardWriter(directory, "pi_ratio", pi_sizes, np.float16),
    ]
    for i, frame in enumerate(frames.values()):
        writers[0].put(shard[i], offset[i], frame)
        writers[1].put(shard[i], pi_offset[i], reduce_mean(frame).astype(np.uint8))
        writers[2].put(shard[i], pi_offset[i], ratio(frame.astype(np.uint16), 50.0, 8))
    for writer in writers:
        writer.close()
    table = pd.DataFrame(
        {"image_id": list(frames), "shard": shard, "offset": offset, "pi_offset": pi_offset}
    )
    table["height"], table["width"] = ([f.shape[axis] for f in frames.values()] for axis in (0, 1))
    looks = pd.DataFrame([exposure(frame) for frame in frames.values()])
    table = table.join(looks.assign(brightfield_bits=8, pi_background=50.0, nuclei=False))
    table.assign(**columns).to_parquet(directory / "frames.parquet")
    return PatchStore(directory)


def live_dead_frame(rng: np.random.Generator, side: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A frame of side x side windows, and which of them are live: fine bright grain; dead ones are
    dark and smooth.
    """
    live = rng.random((side, side)) < 0.5
    live.flat[:2] = [True, False]  # both classes in every frame
    grain = rng.integers(60, 200, (side * WINDOW, side * WINDOW))
    smooth = (
        rng.integers(60, 120, (side * WINDOW, 1)).cumsum(0)
        // np.arange(1, side * WINDOW + 1)[:, None]
    )
    pixels = np.where(np.kron(live, np.ones((WINDOW, WINDOW), bool)), grain, smooth)
    return pixels.astype(np.uint8), live


def write_live_dead(directory: Path, frames: int = 8) -> pd.DataFrame:
    """A store of live_dead_frames in DIRECTORY; returns the table of its windows as data/splits has
    it (half train).
    """
    rng = np.random.default_rng(7)
    made = {f"img{i}": live_dead_frame(rng) for i in range(frames)}
    write_store(directory, {name: frame for name, (frame, _) in made.items()}, partition="p",
                scale_low=1000.0, scale_high=4000.0)  # fmt: skip
    rows = []
    for i, (name, (_, live)) in enumerate(made.items()):
        split = "train" if i < frames // 2 else ("valid" if i % 2 else "test")
        for (row, col), is_live in np.ndenumerate(live):
            y, x = row * WINDOW, col * WINDOW
            rows.append({
                "patch_id": f"{name}:{y}:{x}:{WINDOW}", "image_id": name, "partition": "p",
                "experiment": "", "group": name, "y": y, "x": x, "size": WINDOW,
                "label": "live" if is_live else "dead", "mean_pi": 200.0 if is_live else 500.0,
                "intensity": 200.0 if is_live else 500.0, "split": split, "fold": -1,
            })  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def live_dead(tmp_path_factory) -> tuple[PatchStore, pd.DataFrame]:
    """(store, table of windows with split and label) of 8 synthetic frames."""
    directory = tmp_path_factory.mktemp("store")
    table = write_live_dead(directory)
    return PatchStore(directory), table


@pytest.fixture
def stage_tree(tmp_path) -> Path:
    """A tree in which `python -m src.stages train p` runs: code, params.yaml and small synthetic
    inputs, gates passed.

    Nothing here is shared with the repository, so a stage may write wherever it likes.
    """
    root = tmp_path / "tree"
    shutil.copytree(REPO / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "params.yaml").write_text(yaml.safe_dump(default_params()))
    table = write_live_dead(root / "data" / "patches")
    (root / "data" / "splits").mkdir()
    table.to_parquet(root / "data" / "splits" / "splits.parquet")
    frames = table.drop_duplicates("image_id")[["image_id", "partition", "group", "split", "fold"]]
    frames = frames.assign(brightfield_sha256="digest of " + frames["image_id"])
    frames.to_parquet(root / "data" / "splits" / "frames.parquet")
    (root / "data" / "splits" / "split.json").write_text('{"scheme": "holdout", "folds": 0}')
    (root / "data" / "raw").mkdir()
    (root / "data" / "raw" / "source.json").write_text('{"source": "synthetic", "synthetic": true}')
    for name in ("raw", "patches", "labels", "splits"):
        (root / "reports" / "checks" / name).mkdir(parents=True)
        (root / "reports" / "checks" / name / "verdict.json").write_text(
            json.dumps({"success": True})
        )
    return root
