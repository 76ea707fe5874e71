"""Evidence for the gates: tables read from a folder of data/, or counted from them; no pixels are
opened.

Every table has the columns `what` (the row in words) and `images` (ids joined by ", "). READ gives
the tables as they lie in the folder, DETAIL what can be counted once their columns are known to be
there, `found` among it: the counts that a report shows beside the expectations.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from ..workspace.tables import TEXT, existing
from . import leakage
from .coverage import coverage

Tables = dict[str, pd.DataFrame]
Names = Sequence[str]


def gaps(table: pd.DataFrame, columns: Names) -> pd.DataFrame:
    """One row per column: how many of its values are missing."""
    rows = []
    for column in columns:
        lost = table[table[column].isna()] if column in table else table
        rows.append(
            {
                "what": f"{column}: {len(lost)} missing",
                "images": _joined(lost),
                "missing": len(lost),
            }
        )
    return pd.DataFrame(rows, columns=["what", "images", "missing"])


def read_raw(folder: Path, partitions: Names) -> Tables:
    """images.csv and rejected.csv."""
    images = _own(
        pd.read_csv(existing(folder / "images.csv"), dtype=dict.fromkeys(TEXT, "str")), partitions
    )
    rejected = _named(pd.read_csv(existing(folder / "rejected.csv"), dtype="str"))
    if {"image_id", "duplicate_of"} <= set(rejected):
        first = rejected["duplicate_of"].fillna("")
        rejected["what"] = rejected["image_id"] + " has the pixels of " + first
        rejected["images"] = rejected["image_id"] + ", " + first
    return {
        "images": images,
        "rejected": rejected,
        "partitions": _counted(images, partitions, "fields"),
    }


def raw(tables: Tables, folder: Path, partitions: Names) -> Tables:
    """pixels: ids per digest; files: missing or misshapen ones per image."""
    images = tables["images"]
    channels = {"brightfield_sha256": "bright-field", "pi_sha256": "PI"}
    pixels = [_shared(images, column, name) for column, name in channels.items()]
    found = images.groupby("partition", sort=False).agg(
        fields=("image_id", "size"), experiments=("experiment", "nunique"), wells=("well", "nunique"),
        smallest_px=("height", "min"), largest_px=("width", "max"),
    )  # fmt: skip
    pixels = pd.concat(pixels, ignore_index=True)
    return {"pixels": pixels, "files": _files(images, folder), "found": found.reset_index()}


def read_patches(folder: Path, partitions: Names) -> Tables:
    """patches.parquet and frames.parquet."""
    windows = _own(pd.read_parquet(existing(folder / "patches.parquet")), partitions, "patch_id")
    frames = _own(pd.read_parquet(existing(folder / "frames.parquet")), partitions)
    return {
        "patches": windows,
        "frames": frames,
        "partitions": _counted(windows, partitions, "windows"),
    }


def patches(tables: Tables, folder: Path, partitions: Names) -> Tables:
    """coverage: per frame; stray: windows of no frame."""
    windows, frames = tables["patches"], tables["frames"]
    lost = windows[~windows["image_id"].isin(frames["image_id"])]
    stray = {
        "what": f"{len(lost)} windows of no frame",
        "images": _joined(lost),
        "count": len(lost),
    }
    found = windows.groupby("partition", sort=False).agg(windows=("patch_id", "size"))
    edges = (
        frames.groupby("partition", sort=False)[["remainder_right", "remainder_bottom"]]
        .max()
        .add_suffix("_px")
    )
    found = (
        frames.groupby("partition", sort=False)
        .agg(fields=("image_id", "size"))
        .join(found)
        .join(edges)
    )
    return {
        "coverage": coverage(windows, frames, folder),
        "stray": pd.DataFrame([stray]),
        "found": found.reset_index(),
    }


def read_labels(folder: Path, partitions: Names) -> Tables:
    """labels.parquet and thresholds.json (as `record`)."""
    table = _own(pd.read_parquet(existing(folder / "labels.parquet")), partitions, "patch_id")
    record = json.loads(existing(folder / "thresholds.json").read_text())
    return {"labels": table, "record": record, "partitions": _counted(table, partitions, "labels")}


def labels(tables: Tables, folder: Path, partitions: Names) -> Tables:
    """labels with `agrees`; thresholds in order; classes and verdicts: counts and fractions per
    partition.
    """
    table, record = tables["labels"], tables["record"]
    low, high = record["live_below"], record["dead_above"]
    due = np.select(
        [table["intensity"] < low, table["intensity"] > high], ["live", "dead"], "discarded"
    )
    what = (
        table["patch_id"] + " is " + table["label"] + " at " + table["intensity"].map("{:g}".format)
    )
    table = table.assign(what=what, agrees=(table["label"] == due).astype(int))
    classes = _records(_classes(table, record, partition) for partition in partitions)
    verdicts = _records(_verdicts(table, record, partition) for partition in partitions)
    shown = ["partition", "live", "dead", "discarded_patches", "live_fraction"]
    found = classes[shown].merge(verdicts[["partition", "cells_fraction"]], on="partition")
    thresholds = _thresholds(record)
    return {
        "labels": table,
        "thresholds": thresholds,
        "classes": classes,
        "verdicts": verdicts,
        "found": found,
    }


def read_splits(folder: Path, partitions: Names) -> Tables:
    """splits.parquet, frames.parquet and split.json (as `record`)."""
    table = _own(pd.read_parquet(existing(folder / "splits.parquet")), partitions, "patch_id")
    frames = _own(pd.read_parquet(existing(folder / "frames.parquet")), partitions)
    record = json.loads(existing(folder / "split.json").read_text())
    return {
        "splits": table,
        "frames": frames,
        "record": record,
        "partitions": _counted(table, partitions, "patches"),
    }


def splits(tables: Tables, folder: Path, partitions: Names) -> Tables:
    """Everything about leaks and balance (`leakage`), and the patches beside those that split.json
    counts.
    """
    frames, record = tables["frames"], tables["record"]
    table = tables["splits"].assign(part=leakage.parts(tables["splits"]))
    table["what"] = table["patch_id"] + " in '" + table["part"] + "'"
    images = leakage.by_image(table)
    copies, again = leakage.twins(table, frames)
    balance = leakage.balance(table, record, partitions)
    return {
        "splits": table,
        "groups": leakage.by_group(table),
        "images": images.assign(described=images["image_id"].isin(frames["image_id"]).astype(int)),
        "pixels": leakage.by_pixels(table, frames),
        "copies": copies,
        "again": again,
        "balance": balance,
        "training": leakage.training(table, record, partitions),
        "partitions": _records(_recorded(table, record, partition) for partition in partitions),
        "found": balance[
            ["partition", "part", "groups", "fields", "live", "dead", "live_fraction"]
        ],
    }


READ = {"raw": read_raw, "patches": read_patches, "labels": read_labels, "splits": read_splits}
DETAIL = {"raw": raw, "patches": patches, "labels": labels, "splits": splits}


def _own(table: pd.DataFrame, partitions: Names, name: str = "image_id") -> pd.DataFrame:
    """The rows of the partitions asked for (all, if the column is lacking: a gate says so), named."""
    chosen = table["partition"].isin(list(partitions)) if "partition" in table else slice(None)
    return _named(table[chosen].reset_index(drop=True), name)


def _named(table: pd.DataFrame, column: str = "image_id") -> pd.DataFrame:
    blank = pd.Series("", index=table.index)
    return table.assign(
        what=table.get(column, blank).astype("str"),
        images=table.get("image_id", blank).astype("str"),
    )


def _joined(table: pd.DataFrame) -> str:
    return ", ".join(dict.fromkeys(table["image_id"].astype("str"))) if "image_id" in table else ""


def _records(rows) -> pd.DataFrame:
    return pd.DataFrame(list(rows)).assign(images="")


def _counted(table: pd.DataFrame, partitions: Names, unit: str) -> pd.DataFrame:
    counts = table["partition"].value_counts() if "partition" in table else {}
    rows = ((name, int(counts.get(name, 0))) for name in partitions)
    return _records(
        {"partition": name, "what": f"{name}: {count} {unit}", "count": count}
        for name, count in rows
    )


def _shared(images: pd.DataFrame, column: str, name: str) -> pd.DataFrame:
    rows = []
    for digest, same in images.groupby(column, sort=False):
        what = f"{name} pixels {str(digest)[:12]} of {_joined(same)}"
        rows.append({"what": what, "images": _joined(same), "ids": len(same)})
    return pd.DataFrame(rows, columns=["what", "images", "ids"])


def _files(images: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Per image: how many of its two files are missing, and how many have another shape than
    images.csv says.
    """
    rows = []
    for image in images.to_dict("records"):
        shapes = {image[name]: _shape(folder / str(image[name])) for name in ("brightfield", "pi")}
        missing = [f"no {file}" for file, shape in shapes.items() if shape is None]
        due = (image["height"], image["width"])
        other = [
            f"{file} is {shape}, not {due}"
            for file, shape in shapes.items()
            if shape and shape != due
        ]
        what = f"{image['image_id']}: {'; '.join(missing + other) or 'both channels'}"
        rows.append(
            {
                "what": what,
                "images": image["image_id"],
                "missing": len(missing),
                "misshapen": len(other),
            }
        )
    return pd.DataFrame(rows, columns=["what", "images", "missing", "misshapen"])


def _shape(path: Path) -> tuple[int, ...] | None:
    """Shape of a TIFF's first page, from its header; None if there is none to read."""
    try:
        with tifffile.TiffFile(path) as file:
            return tuple(file.pages[0].shape)
    except (OSError, tifffile.TiffFileError, IndexError):
        return None


def _thresholds(record: Mapping) -> pd.DataFrame:
    """The step between each two of live mean, live_below, dead_above and dead mean, in the
    intensity's own unit.
    """
    parts = {part["name"]: part for part in record["components"]}
    live, dead = (parts[name].get("median", parts[name]["mean"]) for name in ("live", "dead"))
    names = "live mean", "live_below", "dead_above", "dead mean"
    steps = pairwise(
        zip(names, (live, record["live_below"], record["dead_above"], dead), strict=True)
    )
    return _records(
        {"what": f"{a} {u:g}, {b} {v:g}", "rise": float(v - u)} for (a, u), (b, v) in steps
    )


def _classes(table: pd.DataFrame, record: Mapping, partition: str) -> dict:
    found = table.loc[table["partition"] == partition, "label"].value_counts()
    live, dead, rest = counts = [int(found.get(name, 0)) for name in ("live", "dead", "discarded")]
    noted = [
        record["counts"].get(partition, {}).get(name, 0) for name in ("live", "dead", "discarded")
    ]
    return {
        "partition": partition, "what": f"{partition}: {live} live, {dead} dead, {rest} discarded",
        "live": live, "dead": dead, "discarded_patches": rest, "live_fraction": live / max(live + dead, 1),
        "smallest": min(live, dead), "minority": min(live, dead) / max(live + dead, 1),
        "discarded": rest / max(sum(counts), 1), "differ": int(counts != noted),
    }  # fmt: skip


def _verdicts(table: pd.DataFrame, record: Mapping, partition: str) -> dict:
    counts = record["verdicts"].get(partition, {})
    cells, held = counts.get("cells", 0), int((table["partition"] == partition).sum())
    what = f"{partition}: {', '.join(f'{n} {name}' for name, n in counts.items()) or 'no verdicts'}; {held} labels"
    rate = round(cells / max(sum(counts.values()), 1), 6)
    return {
        "partition": partition,
        "what": what,
        "cells_fraction": rate,
        "differ": abs(cells - held),
    }


def _recorded(table: pd.DataFrame, record: Mapping, partition: str) -> dict:
    noted = sum(
        count["live"] + count["dead"] for count in record["counts"].get(partition, {}).values()
    )
    held = int((table["partition"] == partition).sum())
    what = f"{partition}: {held} patches, {noted} by split.json"
    return {"partition": partition, "what": what, "differ": abs(held - noted)}
