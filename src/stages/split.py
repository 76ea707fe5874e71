"""Splits labelled patches into train, valid and test (or folds) by whole groups, each partition on
its own (step 4).

Reads data/labels and data/patches; writes data/splits.
"""

import pandas as pd

from ..common.patches.groups import groups
from ..common.split.divide import divide, require_classes, tally
from ..common.workspace.params import load
from ..common.workspace.paths import LABELS, PATCHES, SPLITS
from ..common.workspace.records import write_json
from ..common.workspace.tables import CLASS_NAMES, EXPOSURE, read_table

SPLIT_COLUMNS = [
    "patch_id", "image_id", "partition", "experiment", "group", "y", "x", "size", "label",
    "mean_pi", "intensity", "split", "fold",
]  # fmt: skip


def labelled(partitions: list[str], group_by: list[str]) -> pd.DataFrame:
    """Live and dead patches with their group, in the order of the labels."""
    labels = read_table(LABELS / "labels.parquet", partitions)
    patches = read_table(PATCHES / "patches.parquet", partitions)
    patches["group"] = groups(patches, group_by)
    columns = ["patch_id", "experiment", "position", "time", "group", "y", "x", "size", "mean_pi"]
    kept = labels[labels["label"].isin(CLASS_NAMES)]
    return kept.merge(patches[columns], on="patch_id", how="left", validate="1:1")


def frames(table: pd.DataFrame) -> pd.DataFrame:
    """One row per image with labelled patches: where it went, and what tells it from (or gives it
    away as) another.
    """
    known = pd.read_parquet(PATCHES / "frames.parquet")
    prints = [c for c in known.columns if c.startswith("phash") or c.endswith("_sha256")]
    columns = ["image_id", "partition", "experiment", "group", "split", "fold", "position", "time"]
    images = table[columns].drop_duplicates("image_id")
    merged = images.merge(
        known[["image_id", *prints, "height", "width", *EXPOSURE]], on="image_id", validate="1:1"
    )
    return merged.reset_index(drop=True)


def main() -> dict[str, dict]:
    """Runs the stage; returns the counts per partition and split."""
    dataset, split = load("dataset", "split")
    table = labelled(dataset.partitions, split.group_by)
    parts = {
        name: divide(table[table["partition"] == name], name, split) for name in dataset.partitions
    }
    record = {
        "scheme": split.scheme,
        "folds": split.folds if split.scheme == "kfold" else 0,
        "group_by": split.group_by,
        "seed": split.seed,
        "counts": {name: tally(part) for name, part in parts.items()},
    }
    for name, part in parts.items():
        if bare := require_classes(part, name, record):
            only = "hold one class only: no AUC of their own, pooled scores stand"
            print(f"split: {name}: {', '.join(bare)} {only}")
    whole = pd.concat(parts.values(), ignore_index=True)
    SPLITS.mkdir(parents=True, exist_ok=True)
    whole[SPLIT_COLUMNS].to_parquet(SPLITS / "splits.parquet")
    frames(whole).to_parquet(SPLITS / "frames.parquet")
    write_json(SPLITS / "split.json", record)
    for name, counts in record["counts"].items():
        for part, c in counts.items():
            print(
                f"split: {name} {part}: {c['groups']} groups, {c['images']} images, "
                f"{c['live']} live, {c['dead']} dead"
            )
    return record["counts"]
