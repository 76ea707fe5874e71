"""Gates on data/raw: fields whole, paired, plausible, and none twice."""

from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from ..workspace.sections import Check
from ..workspace.tables import read_csv
from .expectations import Suite, Tables, between, equal, known, lacking, unique
from .form import EDITED, MEND_SOURCE, of_partitions

WHAT = "Raw fields: bright-field and propidium iodide (PI), 16 bit, with their manifest."
REDO = f"{EDITED}acquire`"
COLUMNS = {
    "images": (
        ["image_id", "partition", "brightfield", "pi", "height", "width", "brightfield_bits",
         "pi_bits", "brightfield_sha256", "pi_sha256"],
        ["experiment", "well", "position", "time", "day", "compound", "concentration",
         "pixel_size_um"],
    ),
    "rejected": ([], ["image_id", "file", "reason", "duplicate_of"]),
}  # fmt: skip
RANGES = {
    "pixel_size_um": (0.02, 10),
    "brightfield_bits": (8, 16),
    "pi_bits": (8, 16),
    "height": (64, 65535),
    "width": (64, 65535),
}


def read(folder: Path, partitions: list[str]) -> Tables:
    """images.csv and rejected.csv."""
    images, rejected = read_csv(folder / "images.csv"), read_csv(folder / "rejected.csv")
    if "duplicate_of" in rejected:
        rejected["other_id"] = rejected["duplicate_of"]
    return {"images": of_partitions(images, partitions), "rejected": rejected}


def detail(tables: Tables, folder: Path, partitions: list[str]) -> Tables:
    """files: what is on disk of each channel; partitions: fields of each; found: the counts."""
    images = tables["images"]
    counts = images.groupby("partition", sort=False).agg(
        fields=("image_id", "size"), experiments=("experiment", "nunique"),
        wells=("well", "nunique"), smallest_px=("height", "min"), largest_px=("width", "max"),
    )  # fmt: skip
    files = pd.concat([_files(images, folder, channel) for channel in ("brightfield", "pi")])
    fields = counts["fields"].reindex(partitions).rename_axis("partition").reset_index()
    return {
        "files": files.reset_index(drop=True), "partitions": fields, "found": counts.reset_index(),
    }  # fmt: skip


def suite(check: Check, tables: Tables) -> Suite:
    """The suite on what the tables hold."""
    twice = (
        "one of the two ids is wrong: remove the extra file or manifest row; or, if the copy is "
        "harmless, set check.allow_duplicates to true (the first id is kept)"
    )
    fields = f"at least {check.min_fields} accepted fields in every partition (check.min_fields)"
    refused = "add images, or see in data/raw/rejected.csv why fields were refused"
    suite = {"images": _images(twice), "files": _paired()}
    suite["partitions"] = [
        between("fields", "fields_per_partition", fields, refused, low=check.min_fields)
    ]
    if not check.allow_duplicates:
        text = "no field refused for having the pixels of another image_id"
        suite["rejected"] = [lacking("duplicate_of", "no_field_under_two_ids", text, twice)]
    return suite


def _images(twice: str) -> list:
    """Every image and its pixels once, with possible measures. twice: what to do about copies."""
    expectations = [unique("image_id", "image_id_unique", "every image_id once", MEND_SOURCE)]
    for channel in ("brightfield", "pi"):
        text = f"the same {channel} pixels under one image_id only"
        expectations.append(unique(f"{channel}_sha256", f"{channel}_pixels_unique", text, twice))
    for name, (low, high) in RANGES.items():
        text = f"{name} from {low:g} to {high:g}, where known"
        expectations.append(between(name, f"{name}_sane", text, MEND_SOURCE, low=low, high=high))
    return expectations


def _paired() -> list:
    """Both files of every image are there, as high and wide as images.csv says."""
    there = "a bright-field and a PI file of every image"
    both = {"ignore_row_if": "either_value_is_missing"}
    expectations = [known("height_on_disk", "channels_paired", there, REDO)]
    for side in ("height", "width"):
        text = f"both files of the {side} that images.csv says"
        expectations.append(equal(side, f"{side}_on_disk", f"{side}_on_disk", text, REDO, **both))
    return expectations


def _files(images: pd.DataFrame, folder: Path, channel: str) -> pd.DataFrame:
    """What images.csv says of one channel's files, and what is on disk (missing if nothing)."""
    shapes = [_shape(folder / str(name)) for name in images[channel]]
    table = images[["image_id", "height", "width"]].assign(channel=channel)
    table[["height_on_disk", "width_on_disk"]] = np.array(shapes, float).reshape(-1, 2)
    return table.astype({"height": float, "width": float})


def _shape(path: Path) -> tuple[float, float]:
    """Height and width of a TIFF's first page, from its header; nan if there is none to read."""
    try:
        with tifffile.TiffFile(path) as file:
            height, width = file.pages[0].shape
            return height, width
    except (OSError, tifffile.TiffFileError, IndexError, ValueError):
        return float("nan"), float("nan")
