"""Gates on data/patches: windows lie in their frames and cover them, measures are possible ones."""

from pathlib import Path

from ..tile.fingerprint import LENGTH
from ..workspace.sections import Check
from .coverage import coverage
from .expectations import Suite, Tables, among, between, beyond, equal, known, unique
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
    layout = f"a layout of {LENGTH} bytes"
    return {
        "patches": [
            unique("patch_id", "patch_id_unique", "every patch_id once", REDO),
            *_inside(),
            *_possible(),
        ],
        "frames": [
            unique("image_id", "frame_unique", "every image_id once", REDO),
            among("phash_layout", [f"{LENGTH} bytes"], "layout_form", layout, REDO),
        ],
        "coverage": _covered(),
    }


def _inside() -> list:
    """Every window lies in its frame."""
    frame = "every window's image in frames.parquet"
    within = {"or_equal": True, "ignore_row_if": "either_value_is_missing"}
    expectations = [known("height", "windows_have_frames", frame, REDO)]
    for start, end, side in (("y", "bottom", "height"), ("x", "right", "width")):
        first = f"no window before the frame's first {start}"
        last = f"no window beyond the frame's {side}"
        expectations += [
            between(start, f"windows_{start}_inside", first, REDO, low=0),
            beyond(side, end, f"windows_{end}_inside", last, REDO, **within),
        ]
    return expectations


def _possible() -> list:
    """Every measure in its range."""
    return [
        between(
            name, f"{name}_range", f"{name} from {low} to {high or 'any'}", REDO, low=low, high=high
        )
        for name, (low, high) in RANGES.items()
    ]


def _covered() -> list:
    """Every pixel lies in a window, but for a reported remainder, and every frame in its shard."""
    some = "at least one window in every frame"
    inner = "every pixel in some window, but at the far edges"
    whole = "every frame's pixels inside its shard"
    narrow, noted = "a remainder narrower than the stride", "the remainder that frames.parquet has"
    expectations = [
        between("windows", "frames_have_windows", some, REDO, low=1),
        between("uncovered_px", "frames_covered", inner, REDO, high=0),
        beyond("shard_px", "frame_end", "shards_hold_frames", whole, REDO, or_equal=True),
    ]
    for edge in ("right", "bottom"):
        left, kept = f"{edge}_px", f"remainder_{edge}"
        expectations += [
            beyond("stride", left, f"{kept}_narrow", narrow, REDO),
            equal(left, kept, f"{kept}_noted", noted, REDO),
        ]
    return expectations
