"""Gates on data/patches: windows lie in their frames and cover them, measures are possible ones."""

from pathlib import Path

import great_expectations.expectations as gxe

from ..tile.fingerprint import LENGTH
from ..workspace.sections import Check
from .coverage import coverage
from .expectations import Suite, Tables, said
from .form import EDITED, read_sizes, read_tables

WHAT = "Overlapping windows of the fields, as rows, and the fields' pixels in 8 bit."
REDO = f"{EDITED}tile`"
COLUMNS = {
    "patches": (
        ["patch_id", "image_id", "partition", "row", "col", "y", "x", "size", "mean_pi",
         "pi_background", "pi_saturated", "focus", "contrast", "border"],
        ["experiment", "well", "position", "time", "day", "compound", "concentration"],
    ),
    "frames": (
        ["image_id", "partition", "shard", "offset", "height", "width", "phash_layout",
         "phash_corners", "brightfield_sha256", "pi_sha256", "remainder_right", "remainder_bottom",
         "pi_background", "pi_floor"],
        ["experiment", "pixel_size_um"],
    ),
}  # fmt: skip
RANGES = {
    "mean_pi": (0, 65535), "pi_background": (0, 65535), "pi_saturated": (0, 1), "focus": (0, None),
    "contrast": (0, 127.5), "border": (0, 1),
}  # fmt: skip


def read(folder: Path, partitions: list[str]) -> Tables:
    """patches.parquet, and frames.parquet with the sizes of its fingerprints."""
    frames = read_sizes(folder / "frames.parquet", partitions)
    return read_tables(folder, ["patches"], partitions) | {"frames": frames}


def detail(tables: Tables, folder: Path, partitions: list[str]) -> Tables:
    """patches with what their frames say; coverage: per frame; found: the counts."""
    windows, frames = tables["patches"], tables["frames"]
    sides = frames.drop_duplicates("image_id")[["image_id", "height", "width"]]
    placed = windows.merge(sides, on="image_id", how="left")
    placed = placed.assign(bottom=placed["y"] + placed["size"], right=placed["x"] + placed["size"])
    by = frames.groupby("partition", sort=False)
    edges = by[["remainder_right", "remainder_bottom"]].max().add_suffix("_px")
    counts = by.agg(fields=("image_id", "size"))
    counts = counts.join(windows.groupby("partition").agg(windows=("patch_id", "size"))).join(edges)
    covered = coverage(windows, frames, folder)
    return {
        "patches": placed, "coverage": covered, "found": counts.reset_index(), "frames": frames,
    }  # fmt: skip


def suite(check: Check, tables: Tables) -> Suite:
    """The suite on what the tables hold."""
    once, every = "every patch_id once", "every image_id once"
    layout = said("layout_form", f"a layout of {LENGTH} bytes", REDO)
    patches = [
        gxe.ExpectColumnValuesToBeUnique(column="patch_id", **said("patch_id_unique", once, REDO)),
        *_inside(),
        *(_range(name, *bounds) for name, bounds in RANGES.items()),
    ]
    frames = [
        gxe.ExpectColumnValuesToBeUnique(column="image_id", **said("frame_unique", every, REDO)),
        gxe.ExpectColumnValuesToBeInSet(
            column="phash_layout", value_set=[f"{LENGTH} bytes"], **layout
        ),
    ]
    return {"patches": patches, "frames": frames, "coverage": _covered()}


def _inside() -> list:
    """Every window lies in its frame."""
    frame = said("windows_have_frames", "every window's image in frames.parquet", REDO)
    expectations = [gxe.ExpectColumnValuesToNotBeNull(column="height", **frame)]
    for start, end, side in (("y", "bottom", "height"), ("x", "right", "width")):
        first = said(f"windows_{start}_inside", f"no window before the frame's first {start}", REDO)
        last = said(f"windows_{end}_inside", f"no window beyond the frame's {side}", REDO)
        expectations += [
            gxe.ExpectColumnValuesToBeBetween(column=start, min_value=0, **first),
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A=side, column_B=end, or_equal=True, ignore_row_if="either_value_is_missing",
                **last
            ),
        ]  # fmt: skip
    return expectations


def _covered() -> list:
    """Every pixel lies in a window, but for a reported remainder, and every frame in its shard."""
    some = said("frames_have_windows", "at least one window in every frame", REDO)
    inner = said("frames_covered", "every pixel in some window, but at the far edges", REDO)
    whole = said("shards_hold_frames", "every frame's pixels inside its shard", REDO)
    expectations = [
        gxe.ExpectColumnValuesToBeBetween(column="windows", min_value=1, **some),
        gxe.ExpectColumnValuesToBeBetween(column="uncovered_px", max_value=0, **inner),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="shard_px", column_B="frame_end", or_equal=True, **whole
        ),
    ]
    for edge in ("right", "bottom"):
        narrow = said(f"remainder_{edge}_narrow", "a remainder narrower than the stride", REDO)
        noted = said(f"remainder_{edge}_noted", "the remainder that frames.parquet has", REDO)
        expectations += [
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A="stride", column_B=f"{edge}_px", **narrow
            ),
            gxe.ExpectColumnPairValuesToBeEqual(
                column_A=f"{edge}_px", column_B=f"remainder_{edge}", **noted
            ),
        ]
    return expectations


def _range(name: str, low: float, high: float | None):
    words = said(f"{name}_range", f"{name} from {low} to {high or 'any'}", REDO)
    return gxe.ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high, **words)
