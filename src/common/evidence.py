"""Evidence for the gates from the folders of data/: tables with `what` (the row in words) and `images` (ids).

Each function reads one folder, or judges one table of it; none opens pixels.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from . import leakage
from .tables import TEXT, existing

Tables = dict[str, pd.DataFrame]


def raw(folder: Path, partitions: Sequence[str]) -> Tables:
    """images, rejected, pixels (per digest), files (per image), partitions (fields of each)."""
    kinds = dict.fromkeys(TEXT, "str")
    images = _named(_chosen(pd.read_csv(existing(folder / "images.csv"), dtype=kinds), partitions))
    rejected = pd.read_csv(existing(folder / "rejected.csv"), dtype="str")
    same = rejected["image_id"] + " has the pixels of " + rejected["duplicate_of"]
    both = rejected["image_id"] + ", " + rejected["duplicate_of"].fillna("")
    rejected = rejected.assign(what=same.fillna("refused"), images=both)
    return {"images": images, "rejected": rejected, "partitions": _counted(images, partitions, "fields")}


def raw_details(tables: Tables, folder: Path) -> Tables:
    """What needs the columns of images.csv to be there."""
    images = tables["images"]
    shared = [_shared(images, f"{channel}_sha256", f"{name} pixels") for channel, name in (("brightfield", "bright-field"), ("pi", "PI"))]
    return {"pixels": pd.concat(shared, ignore_index=True), "files": _files(images, folder)}


def patches(folder: Path, partitions: Sequence[str]) -> Tables:
    """patches, frames, partitions (windows of each)."""
    frames = _named(_chosen(pd.read_parquet(existing(folder / "frames.parquet")), partitions))
    windows = _named(_chosen(pd.read_parquet(existing(folder / "patches.parquet")), partitions), "patch_id")
    return {"patches": windows, "frames": frames, "partitions": _counted(windows, partitions, "windows")}


def patches_details(tables: Tables, folder: Path) -> Tables:
    """coverage: per frame the pixels in no window, outside frames, and what the shards hold."""
    windows, frames = tables["patches"], tables["frames"]
    by_image = dict(list(windows.groupby("image_id", sort=False)))
    stray = windows[~windows["image_id"].isin(frames["image_id"])]
    rows = [_coverage(frame, by_image.get(frame["image_id"], windows.iloc[:0])) for frame in frames.to_dict("records")]
    lengths = {path.name: np.load(path, mmap_mode="r").size for path in sorted(folder.glob("brightfield-*.npy"))}
    held = [lengths.get(f"brightfield-{f.shard:03d}.npy", 0) - f.offset - f.height * f.width for f in frames.itertuples()]
    return {"coverage": pd.DataFrame(rows).assign(pixels_left=held), "stray": _totals("windows of no frame", stray)}


def labels(folder: Path, partitions: Sequence[str]) -> Tables:
    """labels, and thresholds as one row."""
    table = _named(_chosen(pd.read_parquet(existing(folder / "labels.parquet")), partitions), "patch_id")
    record = json.loads(existing(folder / "thresholds.json").read_text())
    return {"labels": table, "thresholds": _thresholds(record), "partitions": _counted(table, partitions, "labels"), "record": record}


def labels_details(tables: Tables, partitions: Sequence[str]) -> Tables:
    """consistent: labels against thresholds; classes and verdicts: counts and fractions per partition."""
    table, record = tables["labels"], tables["record"]
    low, high = record["live_below"], record["dead_above"]
    due = np.select([table["intensity"] < low, table["intensity"] > high], ["live", "dead"], "discarded")
    what = table["patch_id"] + " is " + table["label"] + " at " + table["intensity"].map("{:g}".format)
    agrees = (table["label"] == due).astype(int)
    return {
        "labels": table.assign(what=what, agrees=agrees),
        "classes": _classes(table, record, partitions),
        "verdicts": _verdicts(table, record, partitions),
    }


def splits(folder: Path, partitions: Sequence[str]) -> Tables:
    """splits (with `part`), frames, and the record split.json."""
    record = json.loads(existing(folder / "split.json").read_text())
    table = _named(_chosen(pd.read_parquet(existing(folder / "splits.parquet")), partitions), "patch_id")
    frames = _named(_chosen(pd.read_parquet(existing(folder / "frames.parquet")), partitions))
    return {"splits": table, "frames": frames, "partitions": _counted(table, partitions, "patches"), "record": record}


def splits_details(tables: Tables, partitions: Sequence[str]) -> Tables:
    """Everything about leaks and balance (`leakage`)."""
    table = tables["splits"].assign(part=leakage.parts(tables["splits"]))
    frames, record = tables["frames"], tables["record"]
    table["what"] = table["patch_id"] + " in '" + table["part"] + "'"
    images = leakage.by_image(table)
    return {
        "splits": table,
        "groups": leakage.by_group(table),
        "images": images.assign(described=images["image_id"].isin(frames["image_id"]).astype(int)),
        "pixels": leakage.by_pixels(table, frames),
        "twins": leakage.twins(table, frames),
        "balance": leakage.balance(table, record, partitions),
        "training": leakage.training(table, record, partitions),
        "partitions": _recorded(table, record, partitions),
    }


def gaps(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """One row per column: how many of its values are missing."""
    rows = []
    for column in columns:
        lost = table[table[column].isna()] if column in table else table
        rows.append({"what": f"{column}: {len(lost)} missing", "images": _joined(lost), "missing": len(lost)})
    return pd.DataFrame(rows)


def _chosen(table: pd.DataFrame, partitions: Sequence[str]) -> pd.DataFrame:
    """The rows of the partitions asked for; without a column `partition` (the gate will say so), all."""
    return table[table["partition"].isin(list(partitions))].reset_index(drop=True) if "partition" in table else table


def _named(table: pd.DataFrame, column: str = "image_id") -> pd.DataFrame:
    blank = pd.Series("", index=table.index)
    return table.assign(what=table.get(column, blank).astype("str"), images=table.get("image_id", blank).astype("str"))


def _joined(table: pd.DataFrame) -> str:
    return ", ".join(dict.fromkeys(table["image_id"].astype("str"))) if "image_id" in table else ""


def _totals(name: str, table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame([{"what": f"{len(table)} {name}", "images": _joined(table), "count": len(table)}])


def _counted(table: pd.DataFrame, partitions: Sequence[str], unit: str) -> pd.DataFrame:
    counts = table["partition"].value_counts() if "partition" in table else {}
    rows = [{"partition": p, "what": f"{p}: {counts.get(p, 0)} {unit}", "images": "", "count": int(counts.get(p, 0))} for p in partitions]
    return pd.DataFrame(rows)


def _shared(images: pd.DataFrame, column: str, name: str) -> pd.DataFrame:
    rows = []
    for digest, same in images.groupby(column, sort=False):
        rows.append({"what": f"{name} {digest[:12]} under {len(same)} ids", "images": _joined(same), "ids": len(same)})
    return pd.DataFrame(rows, columns=["what", "images", "ids"])


def _files(images: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Per image: how many of its two files are missing, and how many have another shape than images.csv says."""
    rows = []
    for image in images.to_dict("records"):
        found = {name: _shape(folder / str(image[name])) for name in ("brightfield", "pi")}
        missing = [str(image[name]) for name, shape in found.items() if shape is None]
        other = [f"{image[n]} {s}" for n, s in found.items() if s and s != (image["height"], image["width"])]
        what = f"{image['image_id']}: " + ("; ".join([*(f"no {m}" for m in missing), *other]) or "both channels")
        rows.append({"what": what, "images": image["image_id"], "missing": len(missing), "misshapen": len(other)})
    return pd.DataFrame(rows, columns=["what", "images", "missing", "misshapen"])


def _shape(path: Path) -> tuple[int, ...] | None:
    """Shape of a TIFF's first page, from its header; None if there is none to read."""
    try:
        with tifffile.TiffFile(path) as file:
            return tuple(file.pages[0].shape)
    except (OSError, tifffile.TiffFileError, IndexError):
        return None


def _coverage(frame: Mapping, windows: pd.DataFrame) -> dict:
    """Pixels of one frame in no window: at its right and bottom edge, elsewhere, and what of it was not reported."""
    height, width = int(frame["height"]), int(frame["width"])
    y, x, size = (windows[name].to_numpy(np.int64) for name in ("y", "x", "size"))
    outside = int(np.count_nonzero((y < 0) | (x < 0) | (y + size > height) | (x + size > width)))
    right, bottom = width - int((x + size).max(initial=0)), height - int((y + size).max(initial=0))
    inner = _uncovered(y, x, size, height - bottom, width - right) if len(windows) else height * width
    strides = [int(step.min()) for step in (np.diff(np.unique(y)), np.diff(np.unique(x))) if step.size]
    limit = min(strides, default=int(size.min(initial=height)))
    reported = abs(right - int(frame["remainder_right"])) + abs(bottom - int(frame["remainder_bottom"]))
    what = f"{frame['image_id']}: {len(windows)} windows, {inner} px in none, {right} px left at the right, {bottom} at the bottom"
    return {
        "what": what, "images": frame["image_id"], "outside": outside, "inner": inner,
        "excess": max(right, bottom) - limit, "unreported": reported, "windows": len(windows),
    }  # fmt: skip


def _uncovered(y: np.ndarray, x: np.ndarray, size: np.ndarray, height: int, width: int) -> int:
    """Pixels of a (height, width) area in no window; counted on the grid that the windows' edges make."""
    rows, cols = np.unique([0, height, *y, *(y + size)]), np.unique([0, width, *x, *(x + size)])
    seen = np.zeros((len(rows), len(cols)), bool)
    for top, left, extent in zip(y, x, size, strict=True):
        ends = np.searchsorted(rows, [top, top + extent]), np.searchsorted(cols, [left, left + extent])
        seen[slice(*ends[0]), slice(*ends[1])] = True
    heights, widths = np.diff(np.append(rows, height)), np.diff(np.append(cols, width))
    return int((~seen * np.outer(np.maximum(heights, 0), np.maximum(widths, 0))).sum())


def _thresholds(record: Mapping) -> pd.DataFrame:
    """Thresholds and component means on one scale, in their proper order, as distances that should be above zero."""
    parts = {part.get("name"): part for part in record.get("components", [])}
    centre = {name: parts.get(name, {}).get("median", parts.get(name, {}).get("mean", np.nan)) for name in ("live", "dead")}
    low, high = (float(record.get(key, np.nan)) for key in ("live_below", "dead_above"))
    steps = [("live mean", centre["live"], "live_below", low), ("live_below", low, "dead_above", high), ("dead_above", high, "dead mean", centre["dead"])]
    rows = [{"what": f"{a} {u:g}, {b} {v:g}", "images": "", "rise": float(v - u) if np.isfinite([u, v]).all() else -1.0} for a, u, b, v in steps]
    return pd.DataFrame(rows)


def _classes(table: pd.DataFrame, record: Mapping, partitions: Sequence[str]) -> pd.DataFrame:
    rows = []
    for partition in partitions:
        found = table.loc[table["partition"] == partition, "label"].value_counts()
        live, dead, rest = (int(found.get(name, 0)) for name in ("live", "dead", "discarded"))
        noted = record.get("counts", {}).get(partition, {})
        differ = sum(noted.get(name, 0) != n for name, n in (("live", live), ("dead", dead), ("discarded", rest)))
        rows.append({
            "what": f"{partition}: {live} live, {dead} dead, {rest} discarded", "images": "", "smallest": min(live, dead),
            "minority": min(live, dead) / max(live + dead, 1), "discarded": rest / max(live + dead + rest, 1), "differ": differ,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _verdicts(table: pd.DataFrame, record: Mapping, partitions: Sequence[str]) -> pd.DataFrame:
    rows = []
    for partition in partitions:
        counts = record.get("verdicts", {}).get(partition, {})
        cells, total = counts.get("cells", 0), sum(counts.values())
        what = f"{partition}: " + (", ".join(f"{n} {name}" for name, n in counts.items()) or "no verdicts")
        kept = int((table["partition"] == partition).sum())
        rows.append({"what": what, "images": "", "cells": cells / max(total, 1), "differ": abs(cells - kept)})
    return pd.DataFrame(rows)


def _recorded(table: pd.DataFrame, record: Mapping, partitions: Sequence[str]) -> pd.DataFrame:
    """Rows of each partition against the counts in split.json."""
    rows = []
    for partition in partitions:
        noted = sum(c["live"] + c["dead"] for c in record.get("counts", {}).get(partition, {}).values())
        held = int((table["partition"] == partition).sum())
        what = f"{partition}: {held} patches, {noted} by split.json"
        rows.append({"partition": partition, "what": what, "images": "", "count": held, "differ": abs(held - noted)})
    return pd.DataFrame(rows)
