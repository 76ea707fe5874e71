"""Gates on data/splits: nothing on both sides of a split, groups that are what they are called, and
classes balanced as the scheme allows.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ..exposure.session import alike, mixed
from ..workspace.records import read_json
from ..workspace.sections import Check
from ..workspace.tables import CLASS_NAMES, EXPOSURE
from . import leakage
from .expectations import Suite, Tables, among, between, equal, lacking, unique
from .form import EDITED, read_tables

WHAT = "Labelled patches in train, valid and test, or in folds, by whole groups."
REDO = f"{EDITED}split`"
COLUMNS = {
    "splits": (
        ["patch_id", "image_id", "partition", "group", "y", "x", "size", "label", "mean_pi",
         "intensity", "split", "fold"],
        ["experiment"],
    ),
    "frames": (
        ["image_id", "partition", "group", "phash_layout", "phash_corners", "brightfield_sha256",
         "pi_sha256", "height", "width"],
        ["experiment", "position", "time", *EXPOSURE],
    ),
}  # fmt: skip
LEAK = (
    f"{REDO}; if the leak comes from the source, correct its image ids, wells and positions there"
)
SESSIONS = (
    "an experiment is what was imaged together under one set-up: correct the column `experiment` "
    "of the manifest; if it is right, set check.any_experiments to true"
)


def read(folder: Path, partitions: list[str]) -> Tables:
    """splits.parquet, frames.parquet, and split.json as `record`."""
    record = read_json(folder / "split.json")
    return {"record": record} | read_tables(folder, COLUMNS, partitions)


def detail(tables: Tables, folder: Path, partitions: list[str]) -> Tables:
    """Patches beside the first of their group and image, fields beside those of the same pixels or
    of the same looks, experiments, balance; found: the counts.
    """
    frames, record = tables["frames"], tables["record"]
    table = tables["splits"].assign(part=leakage.parts(tables["splits"]))
    copies, again = leakage.twins(table, frames)
    balance = leakage.balance(table, record, partitions)
    by_experiment = "experiment" in record["group_by"]
    sessions = frames if by_experiment else frames.iloc[:0]
    known = table[table["experiment"].fillna("") != ""]
    return {
        "splits": table, "copies": copies, "again": again, "balance": balance,
        "groups": leakage.beside_first(table, ["partition", "group"]),
        "images": leakage.beside_first(table, ["image_id"]),
        "pixels": leakage.by_pixels(table, frames),
        "experiments": leakage.beside_first(known, ["partition", "experiment"]),
        "alike": alike(sessions), "mixed": mixed(sessions),
        "group_alone": leakage.by_group_alone(table, partitions),
        "training": leakage.training(table, record, partitions),
        "counts": _recorded(table, record, partitions),
        "found": balance[
            ["partition", "part", "groups", "fields", "live", "dead", "live_fraction"]
        ],
    }  # fmt: skip


def suite(check: Check, tables: Tables) -> Suite:
    """The suite on what the tables hold."""
    record, described = tables["record"], tables["frames"]["image_id"].tolist()
    names, labels = leakage.part_names(record), list(CLASS_NAMES)
    listed, noted = "every image in frames.parquet", "as many patches as split.json counts"
    same_group = "all patches of an image in one group"
    pixels = "the same pixels, under whatever id, in one split"
    suite = {
        "splits": [
            unique("patch_id", "patch_in_one_split", "every labelled patch once", REDO),
            among("part", names, "split_names", f"every part one of {', '.join(names)}", REDO),
            among("label", labels, "class_names", f"every label one of {', '.join(labels)}", REDO),
            among("image_id", described, "images_described", listed, REDO),
        ],
        "counts": [equal("patches", "recorded", "patches_as_recorded", noted, REDO)],
        "groups": [_one_part("group_in_one_split", "all patches of a group in one split", LEAK)],
        "images": [
            _one_part("image_in_one_split", "all patches of an image in one split", LEAK),
            equal("group", "first_group", "image_in_one_group", same_group, LEAK),
        ],
        "pixels": [_one_part("pixels_in_one_split", pixels, LEAK)],
    }
    return suite | _looks(check) | _sessions(check) | _balance(check, record["scheme"])


def _one_part(*words: str):
    return equal("part", "first_part", *words)


def _looks(check: Check) -> Suite:
    """No field in two splits under two ids, in whatever orientation and place, or at two times."""
    twin = (
        "these look like one field under two ids: remove one, give both the same position, or name "
        "in split.group_by a column they share; if they are different fields, change check."
    )
    corners, sigmas = check.shared_corners, check.near_duplicate_sigmas
    copy = (
        f"at most {corners} corners in common with a field in another split (check.shared_corners)"
    )
    again = f"no field alike one in another split by {sigmas:g} sd (check.near_duplicate_sigmas)"
    copies, alikes = f"{twin}shared_corners", f"{twin}near_duplicate_sigmas"
    return {
        "copies": [between("corners", "no_copy_across_splits", copy, copies, high=corners)],
        "again": [between("sigmas", "no_field_again_across_splits", again, alikes, high=sigmas)],
    }


def _sessions(check: Check) -> Suite:
    """Groups by experiment are sessions, experiments are not torn, and a group does not tell the
    class.
    """
    suite: Suite = {}
    if not check.experiment_in_two_splits:
        remedy = (
            "name `experiment` in split.group_by (scheme kfold if there are few), or, if splits by "
            "field are wanted, set check.experiment_in_two_splits to true: "
            "the test then says nothing of a new session"
        )
        text = "all fields of an experiment in one split (check.experiment_in_two_splits)"
        suite["experiments"] = [_one_part("experiment_in_one_split", text, remedy)]
    if not check.any_experiments:
        one = "no two experiments that look as if imaged together (check.any_experiments)"
        several = "no experiment of several exposures (check.any_experiments)"
        # no row at all: each names two fields that should not both be there
        suite["alike"] = [lacking("experiment", "experiments_differ", one, SESSIONS)]
        suite["mixed"] = [lacking("experiment", "experiment_is_one_session", several, SESSIONS)]
    limit = check.max_group_auc
    text = f"AUC of the group alone at most {limit:g} (check.max_group_auc)"
    remedy = (
        "the classes hardly meet within groups, so that a model may learn the group instead of the "
        "cells: add groups with both classes, "
        "or raise the limit and judge by the AUC within groups alone"
    )
    suite["group_alone"] = [
        between("auc", "group_does_not_tell_the_class", text, remedy, high=limit)
    ]
    return suite


def _balance(check: Check, scheme: str) -> Suite:
    """Class balance; under K-fold only of what is trained on, since a fold of few groups may hold
    one class.
    """
    sizes = "folds" if scheme == "kfold" else "fractions"
    help_ = (
        f"more images, another split.seed or split.{sizes}, a finer split.group_by, "
        "or a lower check."
    )
    least = f"at least {check.min_class} live and dead patches"
    if scheme == "kfold":
        words = (f"{least} to train on in every round (check.min_class)", f"{help_}min_class")
        return {
            "training": [between("smallest", "round_trains_on_both", *words, low=check.min_class)]
        }
    near = f"a live fraction within {check.tolerance:g} of the partition's (check.tolerance)"
    words = (f"{least} in every split (check.min_class)", f"{help_}min_class")
    return {
        "balance": [
            between(
                "distance", "live_fraction_of_split", near, f"{help_}tolerance",
                high=check.tolerance,
            ),
            between("smallest", "class_count_of_split", *words, low=check.min_class),
        ]
    }  # fmt: skip


def _recorded(table: pd.DataFrame, record: Mapping, partitions: list[str]) -> pd.DataFrame:
    """Patches per partition, and those that split.json counts."""
    rows = []
    for partition in partitions:
        parts = record["counts"].get(partition, {}).values()
        noted = sum(count["live"] + count["dead"] for count in parts)
        rows.append((partition, int((table["partition"] == partition).sum()), noted))
    return pd.DataFrame(rows, columns=["partition", "patches", "recorded"])
