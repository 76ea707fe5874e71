"""Dividing a partition's labelled patches into train, valid and test, or folds, by groups."""

import json

import numpy as np
import pandas as pd

from ..patches.groups import SplitError
from ..patches.rounds import class_counts, rounds
from ..workspace.sections import Split
from ..workspace.tables import CLASS_NAMES, SPLIT_NAMES
from .assign import assign


def divide(table: pd.DataFrame, partition: str, split: Split) -> pd.DataFrame:
    """One partition's rows with the columns split and fold.

    Raises SplitError if it cannot be divided as asked.
    """
    counts = class_counts(table)
    kfold = split.scheme == "kfold"
    parts = split.folds if kfold else len(SPLIT_NAMES)
    if len(counts) < parts:
        wanted = "folds" if kfold else "splits"
        fewer = ["fewer split.folds"] if kfold and len(counts) >= len(SPLIT_NAMES) else []
        raise SplitError(
            f"{partition} has {len(counts)} groups for {parts} {wanted}. {_help(counts, *fewer)}"
        )
    fractions = np.full(parts, 1 / parts) if kfold else np.array(split.fractions)
    assigned = assign(counts.to_numpy(), fractions, split.seed)
    part = table["group"].map(dict(zip(counts.index, assigned, strict=True)))
    names = "" if kfold else part.map(dict(enumerate(SPLIT_NAMES)))
    return table.assign(split=names, fold=(part if kfold else -1))


def require_classes(table: pd.DataFrame, partition: str, record: dict) -> list[str]:
    """Folds that hold one class only, which have no AUC of their own.

    Raises SplitError if a part of a holdout split, or a K-fold round's training patches, lack a
    class.
    """
    kfold = record["scheme"] == "kfold"
    for part in rounds(table, record):
        for name in ("train",) if kfold else SPLIT_NAMES:
            present = set(table["label"][getattr(part, name)])
            if lacking := [label for label in CLASS_NAMES if label not in present]:
                where = f"{name} of {part.name}"
                raise SplitError(_lacks(table, partition, record, where, lacking))
    counts = record["counts"][partition]
    return [name for name, c in counts.items() if kfold and not (c["live"] and c["dead"])]


def _lacks(table: pd.DataFrame, partition: str, record: dict, part: str, lacking: list[str]) -> str:
    kfold = record["scheme"] == "kfold"
    other = "split.scheme kfold, which wants both classes to train on only"
    help_ = _help(class_counts(table), "more split.folds" if kfold else other)
    counts = json.dumps(record["counts"][partition])
    return f"{partition}: {part} has no {' and no '.join(lacking)} patches: {counts}. {help_}"


def tally(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Groups, images, live and dead patches of each split or fold of one partition."""
    key = table["split"].where(table["fold"] < 0, "fold-" + table["fold"].astype("str"))
    names = [n for n in SPLIT_NAMES if (key == n).any()] or sorted(
        key.unique(), key=lambda name: int(name[5:])
    )
    by_part = {}
    for name in names:
        part = table[key == name]
        classes = {label: int((part["label"] == label).sum()) for label in CLASS_NAMES}
        sizes = {"groups": part["group"].nunique(), "images": part["image_id"].nunique()}
        by_part[name] = sizes | classes
    return by_part


def _help(counts: pd.DataFrame, *others: str) -> str:
    live, dead = int((counts["live"] > 0).sum()), int((counts["dead"] > 0).sum())
    helps = ["more images", "a finer split.group_by", *others]
    holding = f"Of its {len(counts)} groups {live} hold live and {dead} hold dead patches."
    return f"{holding} What would help: {', '.join(helps[:-1])} or {helps[-1]}"
