"""Gates on data/splits: nothing on both sides of a split, groups that are what they are called, and
classes balanced as the scheme allows.
"""

from collections.abc import Mapping
from pathlib import Path

import great_expectations.expectations as gxe
import pandas as pd

from ..exposure.session import alike, mixed
from ..workspace.records import read_json
from ..workspace.sections import Check
from ..workspace.tables import CLASS_NAMES, EXPOSURE
from . import leakage
from .expectations import Suite, Tables, said
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
    names = leakage.part_names(record)
    listed = said("images_described", "every image in frames.parquet", REDO)
    noted = said("patches_as_recorded", "as many patches as split.json counts", REDO)
    same_group = said("image_in_one_group", "all patches of an image in one group", LEAK)
    suite = {
        "splits": [
            _unique("patch_id"),
            _among("part", names, "split_names"),
            _among("label", list(CLASS_NAMES), "class_names"),
            gxe.ExpectColumnValuesToBeInSet(column="image_id", value_set=described, **listed),
        ],
        "counts": [
            gxe.ExpectColumnPairValuesToBeEqual(column_A="patches", column_B="recorded", **noted)
        ],
        "groups": [_one_part("group_in_one_split", "all patches of a group in one split", LEAK)],
        "images": [
            _one_part("image_in_one_split", "all patches of an image in one split", LEAK),
            gxe.ExpectColumnPairValuesToBeEqual(
                column_A="group", column_B="first_group", **same_group
            ),
        ],
        "pixels": [
            _one_part(
                "pixels_in_one_split", "the same pixels, under whatever id, in one split", LEAK
            )
        ],
    }  # fmt: skip
    return suite | _looks(check) | _sessions(check) | _balance(check, record["scheme"])


def _unique(column: str):
    words = said("patch_in_one_split", "every labelled patch once", REDO)
    return gxe.ExpectColumnValuesToBeUnique(column=column, **words)


def _among(column: str, values: list[str], name: str):
    words = said(name, f"every {column} one of {', '.join(values)}", REDO)
    return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=values, **words)


def _one_part(name: str, text: str, remedy: str):
    return gxe.ExpectColumnPairValuesToBeEqual(
        column_A="part", column_B="first_part", **said(name, text, remedy)
    )


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
    copies = said("no_copy_across_splits", copy, f"{twin}shared_corners")
    alike_ = said("no_field_again_across_splits", again, f"{twin}near_duplicate_sigmas")
    return {
        "copies": [
            gxe.ExpectColumnValuesToBeBetween(column="corners", max_value=corners, **copies)
        ],
        "again": [gxe.ExpectColumnValuesToBeBetween(column="sigmas", max_value=sigmas, **alike_)],
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
        suite["alike"] = [_none(said("experiments_differ", one, SESSIONS))]
        suite["mixed"] = [_none(said("experiment_is_one_session", several, SESSIONS))]
    limit = check.max_group_auc
    text = f"AUC of the group alone at most {limit:g} (check.max_group_auc)"
    remedy = (
        "the classes hardly meet within groups, so that a model may learn the group instead of the "
        "cells: add groups with both classes, "
        "or raise the limit and judge by the AUC within groups alone"
    )
    words = said("group_does_not_tell_the_class", text, remedy)
    suite["group_alone"] = [
        gxe.ExpectColumnValuesToBeBetween(column="auc", max_value=limit, **words)
    ]
    return suite


def _none(words: dict):
    """No row at all: each names two fields that should not both be there."""
    return gxe.ExpectColumnValuesToBeNull(column="experiment", **words)


def _balance(check: Check, scheme: str) -> Suite:
    """Class balance; under K-fold only of what is trained on, since a fold of few groups may hold
    one class.
    """
    help_ = (
        "more images, another split.seed or split.fractions, a finer split.group_by, "
        "or a lower check."
    )
    least = {"column": "smallest", "min_value": check.min_class}
    if scheme == "kfold":
        text = (
            f"at least {check.min_class} live and dead patches to train on in every round "
            "(check.min_class)"
        )
        words = said("round_trains_on_both", text, f"{help_}min_class")
        return {"training": [gxe.ExpectColumnValuesToBeBetween(**least, **words)]}
    near = f"a live fraction within {check.tolerance:g} of the partition's (check.tolerance)"
    text = f"at least {check.min_class} live and dead patches in every split (check.min_class)"
    fraction = said("live_fraction_of_split", near, f"{help_}tolerance")
    count = said("class_count_of_split", text, f"{help_}min_class")
    return {
        "balance": [
            gxe.ExpectColumnValuesToBeBetween(
                column="distance", max_value=check.tolerance, **fraction
            ),
            gxe.ExpectColumnValuesToBeBetween(**least, **count),
        ]
    }


def _recorded(table: pd.DataFrame, record: Mapping, partitions: list[str]) -> pd.DataFrame:
    """Patches per partition, and those that split.json counts."""
    rows = []
    for partition in partitions:
        parts = record["counts"].get(partition, {}).values()
        noted = sum(count["live"] + count["dead"] for count in parts)
        rows.append((partition, int((table["partition"] == partition).sum()), noted))
    return pd.DataFrame(rows, columns=["partition", "patches", "recorded"])
