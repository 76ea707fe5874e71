"""Clean folders of data/ for the gates, small and synthetic; tests plant one fault in each."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from src.common.tile.fingerprint import fingerprint
from src.common.workspace.sections import Check

PARTITIONS = ["control", "treated"]
CHECK = Check(
    tolerance=0.25, min_class=2, min_fields=3, min_class_fraction=0.05, max_discarded_fraction=0.6,
    min_cells_fraction=0.1, allow_duplicates=False, max_background_lift=1.5,
    max_constant_fraction=0.9, max_group_auc=0.98, experiment_in_two_splits=True,
    any_experiments=False, shared_corners=10, near_duplicate_sigmas=5.2,
)  # fmt: skip
FIELDS, SIDE, SIZE, STRIDE = 6, 144, 64, 32  # per partition; 3 x 3 windows and a remainder of 16 px
LIVE_BELOW, DEAD_ABOVE = 260.0, 400.0
SPLITS = ["train", "train", "train", "train", "valid", "test"]


def frame(seed: int) -> np.ndarray:
    """A (144, 144) uint8 field of blobs, like no other seed's."""
    coarse = np.random.default_rng(seed).integers(40, 216, (36, 36)).astype(np.uint8)
    return np.kron(coarse, np.ones((4, 4), np.uint8))


def ids() -> pd.DataFrame:
    """image_id, partition, experiment and position of all fields."""
    rows = [(f"{p}_{n}", p, f"e{n % 2}", f"p{n}") for p in PARTITIONS for n in range(FIELDS)]
    return pd.DataFrame(rows, columns=["image_id", "partition", "experiment", "position"])


def frames() -> pd.DataFrame:
    """What patches and splits have in common in their frames.parquet."""
    table = ids().assign(well="", time=np.nan, height=SIDE, width=SIDE, pixel_size_um=0.3225)
    table["brightfield_sha256"] = [f"b{n:063d}" for n in range(len(table))]
    table["pi_sha256"] = [f"c{n:063d}" for n in range(len(table))]
    session = table["experiment"].map({"e0": 300.0, "e1": 900.0})
    table = table.assign(brightfield_bits=16, brightfield_median=session, brightfield_contrast=0.8)
    table = table.assign(pi_background=200.0, pi_floor=198.0)
    prints = pd.DataFrame([fingerprint(frame(n)) for n in range(len(table))])
    return pd.concat([table, prints], axis=1)


def windows() -> pd.DataFrame:
    """All windows of all fields with a live, discarded or dead intensity."""
    corners = [(row, col, row * STRIDE, col * STRIDE) for row in range(3) for col in range(3)]
    table = (
        ids()
        .merge(pd.DataFrame(corners, columns=["row", "col", "y", "x"]), how="cross")
        .assign(size=SIZE)
    )
    table["patch_id"] = [f"{r.image_id}:{r.y}:{r.x}:{r.size}" for r in table.itertuples()]
    table["mean_pi"] = np.resize([220.0, 500.0, 230.0, 520.0, 300.0, 210.0, 540.0], len(table))
    bright = [table["mean_pi"] < LIVE_BELOW, table["mean_pi"] > DEAD_ABOVE]
    return table.assign(label=np.select(bright, ["live", "dead"], "discarded"))


def write_raw(folder: Path) -> None:
    """data/raw: 16-bit files, images.csv, an empty rejected.csv."""
    table = (
        frames()
        .drop(columns=["phash_layout", "phash_corners"])
        .assign(pi_bits=16, day=4, compound="", concentration=np.nan)
    )
    for channel in ("brightfield", "pi"):
        (folder / channel).mkdir(parents=True)
        table[channel] = [f"{channel}/{image}.tif" for image in table["image_id"]]
        for seed, name in enumerate(table[channel]):
            tifffile.imwrite(folder / name, frame(seed).astype(np.uint16))
    table.to_csv(folder / "images.csv", index=False)
    pd.DataFrame(columns=["image_id", "file", "reason", "duplicate_of"]).to_csv(
        folder / "rejected.csv", index=False
    )


def write_patches(folder: Path) -> None:
    """data/patches, without PI pixels."""
    folder.mkdir(parents=True)
    np.save(
        folder / "brightfield-000.npy",
        np.concatenate([frame(n).ravel() for n in range(2 * FIELDS)]),
    )
    table = frames().assign(shard=0, remainder_right=16, remainder_bottom=16)
    table["offset"] = np.arange(len(table)) * SIDE * SIDE
    table.to_parquet(folder / "frames.parquet")
    unknown = dict.fromkeys(["time", "day", "concentration"], np.nan) | {"well": "", "compound": ""}
    measures = {"pi_background": 200.0, "pi_saturated": 0.0}
    measures |= {"focus": 9.0, "contrast": 20.0, "border": 0.0}
    windows().drop(columns="label").assign(**unknown, **measures).to_parquet(
        folder / "patches.parquet"
    )


def write_labels(folder: Path) -> None:
    """data/labels: every window has cells."""
    folder.mkdir(parents=True)
    table = windows().rename(columns={"mean_pi": "intensity"})
    table[["patch_id", "image_id", "partition", "intensity", "label"]].to_parquet(
        folder / "labels.parquet"
    )
    counts = pd.crosstab(table["image_id"], table["label"]).reset_index()
    facts = frames()[["image_id", "partition", "experiment", "pi_background", "pi_floor"]]
    facts.merge(counts, on="image_id").to_parquet(folder / "fields.parquet")
    found = table.groupby(["partition", "label"]).size()
    record = {
        "intensity": "counts", "fit_on": ["control"],
        "live_below": LIVE_BELOW, "dead_above": DEAD_ABOVE,
        "components": [{"name": "live", "mean": 225.0, "sd": 35.0},
                       {"name": "dead", "mean": 550.0, "sd": 150.0}],
        "counts": {p: {n: int(found[p, n]) for n in ("live", "dead",
                                                     "discarded")} for p in PARTITIONS},
        "verdicts": {p: {"cells": 9 * FIELDS, "empty": 4, "unusable": 1} for p in PARTITIONS},
    }  # fmt: skip
    (folder / "thresholds.json").write_text(json.dumps(record))


def write_splits(folder: Path, scheme: str = "holdout") -> None:
    """data/splits: a group for each field, 4 in train, 1 in valid, 1 in test, or 1 in each of 6
    folds.
    """
    folder.mkdir(parents=True)
    home = ids().assign(split=SPLITS * 2, fold=-1)
    if scheme == "kfold":
        home = home.assign(split="", fold=[*range(FIELDS)] * 2)
    home["group"] = home["image_id"]
    table = windows().merge(home[["image_id", "group", "split", "fold"]], on="image_id")
    table = table[table["label"] != "discarded"].assign(intensity=table["mean_pi"])
    table.drop(columns=["position", "row", "col"]).to_parquet(
        folder / "splits.parquet", index=False
    )
    frames().merge(home[["image_id", "group", "split", "fold"]], on="image_id").to_parquet(
        folder / "frames.parquet"
    )
    counts = {
        p: {"all": table.loc[table["partition"] == p, "label"].value_counts().to_dict()}
        for p in PARTITIONS
    }
    record = {
        "scheme": scheme,
        "folds": FIELDS if scheme == "kfold" else 0,
        "group_by": [],
        "counts": counts,
    }
    (folder / "split.json").write_text(json.dumps(record))


WRITE = {"raw": write_raw, "patches": write_patches, "labels": write_labels, "splits": write_splits}
