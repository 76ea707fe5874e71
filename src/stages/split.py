"""Splits labelled patches into train, valid and test (or folds) by whole groups, each partition on
its own (step 4).

Reads data/labels and data/patches; writes data/splits.
"""

import json

import numpy as np
import pandas as pd

from ..common.patches.groups import SplitError, groups
from ..common.split.assign import assign
from ..common.split.rounds import SPLITS as NAMES
from ..common.split.rounds import class_counts, rounds
from ..common.workspace.params import Split, load
from ..common.workspace.paths import LABELS, PATCHES, SPLITS
from ..common.workspace.records import write_json
from ..common.workspace.tables import read_table

CLASSES = ["live", "dead"]
PATCH_COLUMNS = ["y", "x", "size", "mean_pi"]


def labelled(partitions: list[str], group_by: list[str]) -> pd.DataFrame:
    """Live and dead patches with their group, in the order of the labels."""
    labels = read_table(LABELS / "labels.parquet", partitions)
    patches = read_table(PATCHES / "patches.parquet", partitions)
    patches["group"] = groups(patches, group_by)
    columns = ["patch_id", "experiment", "position", "time", "group", *PATCH_COLUMNS]
    kept = labels[labels["label"].isin(CLASSES)]
    return kept.merge(patches[columns], on="patch_id", how="left", validate="1:1")


def divide(table: pd.DataFrame, partition: str, split: Split) -> pd.DataFrame:
    """One partition's rows with the columns split and fold.

    Raises SplitError if it cannot be divided as asked.
    """
    counts = class_counts(table)
    kfold = split.scheme == "kfold"
    parts = split.folds if kfold else len(NAMES)
    if len(counts) < parts:
        wanted, fewer = ("folds", ["fewer split.folds"]) if kfold else ("splits", [])
        raise SplitError(
            f"{partition} has {len(counts)} groups for {parts} {wanted}. {_help(counts, *fewer)}"
        )
    fractions = np.full(parts, 1 / parts) if kfold else np.array(split.fractions)
    part = table["group"].map(
        dict(zip(counts.index, assign(counts.to_numpy(), fractions, split.seed), strict=True))
    )
    names = "" if kfold else part.map(dict(enumerate(NAMES)))
    return table.assign(split=names, fold=(part if kfold else -1))


def check(table: pd.DataFrame, partition: str, record: dict) -> None:
    """Raises SplitError if a holdout split, or a K-fold round's training patches, lack a class;
    names folds of one.
    """
    kfold = record["scheme"] == "kfold"
    for part in rounds(table, record):
        for name in ("train",) if kfold else NAMES:
            lacking = [
                label
                for label in CLASSES
                if not (table["label"][getattr(part, name)] == label).any()
            ]
            if lacking:
                other = (
                    "more split.folds"
                    if kfold
                    else "split.scheme kfold, which wants both classes to train on only"
                )
                raise SplitError(
                    f"{partition}: {name} of {part.name} has no {' and no '.join(lacking)} patches: "
                    f"{json.dumps(record['counts'][partition])}. {_help(class_counts(table), other)}"
                )
    if kfold and (
        bare := [
            k for k, c in record["counts"][partition].items() if not c["live"] or not c["dead"]
        ]
    ):
        print(
            f"split: {partition}: {', '.join(bare)} hold one class only: no AUC of their own, pooled scores stand"
        )


def tally(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Groups, images, live and dead patches of each split or fold of one partition."""
    key = table["split"].where(table["fold"] < 0, "fold-" + table["fold"].astype("str"))
    names = [n for n in NAMES if (key == n).any()] or sorted(
        key.unique(), key=lambda name: int(name[5:])
    )
    found = {}
    for name in names:
        part = table[key == name]
        classes = {label: int((part["label"] == label).sum()) for label in CLASSES}
        found[name] = {
            "groups": part["group"].nunique(),
            "images": part["image_id"].nunique(),
            **classes,
        }
    return found


def frames(table: pd.DataFrame) -> pd.DataFrame:
    """One row per image with labelled patches: where it went, and what tells it from (or gives it
    away as) another.
    """
    known = pd.read_parquet(PATCHES / "frames.parquet")
    prints = [c for c in known.columns if c.startswith("phash") or c.endswith("_sha256")]
    columns = ["image_id", "partition", "experiment", "group", "split", "fold", "position", "time"]
    images = table[columns].drop_duplicates("image_id")
    merged = images.merge(
        known[["image_id", *prints, "height", "width"]], on="image_id", validate="1:1"
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
        check(part, name, record)
    whole = pd.concat(parts.values(), ignore_index=True)
    columns = [
        "patch_id",
        "image_id",
        "partition",
        "experiment",
        "group",
        "y",
        "x",
        "size",
        "label",
        "mean_pi",
        "intensity",
    ]
    SPLITS.mkdir(parents=True, exist_ok=True)
    whole[[*columns, "split", "fold"]].to_parquet(SPLITS / "splits.parquet")
    frames(whole).to_parquet(SPLITS / "frames.parquet")
    write_json(SPLITS / "split.json", record)
    for name, counts in record["counts"].items():
        for part, c in counts.items():
            print(
                f"split: {name} {part}: {c['groups']} groups, {c['images']} images, {c['live']} live, {c['dead']} dead"
            )
    return record["counts"]


def _help(counts: pd.DataFrame, *others: str) -> str:
    live, dead = int((counts["live"] > 0).sum()), int((counts["dead"] > 0).sum())
    helps = ["more images", "a finer split.group_by", *others]
    found = f"Of its {len(counts)} groups {live} hold live and {dead} hold dead patches."
    return f"{found} What would help: {', '.join(helps[:-1])} or {helps[-1]}"
