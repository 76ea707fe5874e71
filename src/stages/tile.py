"""Cuts raw fields into overlapping windows: 8-bit frames in shards, windows and their measures in a
table.

Reads data/raw; writes data/patches. Paper, step 1 (windows) and the mean PI of step 3, from the
16-bit counts.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from pyarrow.parquet import read_metadata

from ..common.exposure.background import FLOOR, backgrounds
from ..common.exposure.session import exposure
from ..common.patches.store import ShardWriter, plan_shards
from ..common.scoring.frames import imaging
from ..common.scoring.frames.windows import in_pixels, remainder, windows
from ..common.tile import measures as stain
from ..common.tile.fingerprint import GRID, fingerprint
from ..common.tile.tables import FieldTables
from ..common.workspace.cache import Kept, file_digest
from ..common.workspace.errors import UserError
from ..common.workspace.params import load
from ..common.workspace.paths import PATCHES, RAW
from ..common.workspace.sections import Tile
from ..common.workspace.tables import read_images

REMAINDER = ["remainder_right", "remainder_bottom"]


def cut(
    brightfield_file: Path, pi_file: Path, nuclei_file: Path | None, pixel_size_um: float,
    bits: int, tile: Tile,
) -> tuple[dict[str, np.ndarray], dict, pd.DataFrame]:  # fmt: skip
    """One field of view: its arrays by shard (8-bit bright-field (H, W), reduced PI in 8 bit and
    over its background, the share of nuclei where a mask tells it), its frame record and its
    windows.
    """
    raw, pi = tifffile.imread(brightfield_file), tifffile.imread(pi_file)
    low, high = imaging.scaling_range(raw, **tile.scaling.model_dump())
    frame8 = imaging.to_uint8(raw, low, high)
    reduced = stain.reduce_mean(pi)
    pi_low, pi_high = imaging.percentile_range(reduced, 0.5, 99.8)
    size, stride = (in_pixels(e, tile.unit, pixel_size_um) for e in (tile.window, tile.stride))
    table = pd.DataFrame(windows(*raw.shape, size, stride, tile.edge))
    corners = table[["y", "x", "size"]].to_numpy(np.int64)
    measures = imaging.bright_field_measures(frame8, raw == 0, corners)
    measures |= stain.window_measures(pi, corners, bits, tile.background)
    background, floor, median = backgrounds(pi, [tile.background, FLOOR, 50])
    record = {
        "scale_low": low, "scale_high": high, "pi_low": pi_low, "pi_high": pi_high,
        "pi_background": background, "pi_floor": floor, "pi_median": median,
        "remainder_right": remainder(raw.shape[1], size, stride, tile.edge),
        "remainder_bottom": remainder(raw.shape[0], size, stride, tile.edge),
        "nuclei": nuclei_file is not None, **exposure(raw), **fingerprint(frame8),
    }  # fmt: skip
    arrays = {
        "brightfield": frame8,
        "pi": imaging.to_uint8(reduced, pi_low, pi_high),
        "pi_ratio": stain.ratio(pi, background, bits),
    }
    if nuclei_file:
        nuclei = np.where(tifffile.imread(nuclei_file) > 0, 255, 0).astype(np.uint8)
        arrays["nuclei"] = stain.reduce_mean(nuclei).astype(np.uint8)
    measured = pd.DataFrame(measures).round(6)
    return arrays, record, pd.concat([table.astype("int32"), measured], axis=1)


def rests_on(
    brightfield_file: Path, pi_file: Path, nuclei_file: Path | None, pixel_size_um: float,
    bits: int, tile: Tile,
) -> tuple:  # fmt: skip
    """What `cut` makes of a field rests on. Raises OSError."""
    files = [path and file_digest(path) for path in (brightfield_file, pi_file, nuclei_file)]
    return *files, pixel_size_um, bits, tile.model_dump(exclude={"workers"})


def main() -> dict[str, int]:
    """Runs the stage; returns the numbers of frames and windows."""
    dataset, tile = load("dataset", "tile")
    images = read_images(RAW, dataset.partitions).fillna({"nuclei": ""})
    require_sides(images)
    places, shards = _plan(images)
    shutil.rmtree(PATCHES, ignore_errors=True)
    PATCHES.mkdir(parents=True)
    writers = {name: ShardWriter(PATCHES, name, *planned) for name, planned in shards.items()}
    tables = FieldTables(PATCHES, images)
    made = Kept.of_stage("tile").each(
        cut, _items(images, tile), rests_on, tile.workers, "tile", "field"
    )
    for (arrays, record, table), place in zip(made, places):  # made to its end
        for name, pixels in arrays.items():
            start = place["offset" if name == "brightfield" else "pi_offset"]
            writers[name].put(place["shard"], start, pixels)
        tables.put(place | record, table)
    for writer in [*writers.values(), tables]:
        writer.close()
    frames = pd.read_parquet(PATCHES / "frames.parquet", columns=REMAINDER)
    patches = read_metadata(PATCHES / "patches.parquet").num_rows
    print(
        f"tile: {patches} windows of {len(frames)} fields, "
        f"{len(shards['pi'][0])} shard(s), {_uncovered(frames)}"
    )
    return {"frames": len(frames), "patches": patches}


def require_sides(images: pd.DataFrame) -> None:
    """Raises UserError for a field too small for copies of it to be found."""
    small = images[images[["height", "width"]].min(axis=1) < GRID]
    if len(small):
        row = small.iloc[0]
        raise UserError(
            f"field {row.image_id} has {row.height} x {row.width} px ({len(small)} such): in less "
            f"than {GRID} px a side no copy of it would be found; leave it out of dataset.path"
        )


def _plan(images: pd.DataFrame) -> tuple[list[dict], dict[str, tuple[list[int], type]]]:
    """Where each field's arrays are put, and by name the sizes of shards and their type. A reduced
    frame lies in the shard of the same number as its bright-field.
    """
    shard, offset, sizes = plan_shards(images["height"] * images["width"])
    reduced = stain.reduced_size(images["height"], images["width"])
    by_shard = reduced.groupby(shard)
    pi_offset, pi_sizes = by_shard.cumsum() - reduced, by_shard.sum().tolist()
    shards = {"brightfield": (sizes, np.uint8), "pi": (pi_sizes, np.uint8)}
    shards["pi_ratio"] = pi_sizes, np.float16
    if images["nuclei"].any():
        shards["nuclei"] = pi_sizes, np.uint8
    names = ("shard", "offset", "pi_offset")
    return [dict(zip(names, place)) for place in zip(shard, offset, pi_offset)], shards


def _items(images: pd.DataFrame, tile: Tile) -> list[tuple]:
    """What `cut` is given of each field."""
    items = []
    for row in images.itertuples():
        nuclei = RAW / row.nuclei if row.nuclei else None
        known = float(row.pixel_size_um), int(row.pi_bits)
        items.append((RAW / row.brightfield, RAW / row.pi, nuclei, *known, tile))
    return items


def _uncovered(frames: pd.DataFrame) -> str:
    right, bottom = frames[REMAINDER].max()
    if not right and not bottom:
        return "every pixel covered"
    return (
        f"at most {right} px at the right and {bottom} px at the bottom edge in no window "
        "(tile.edge: drop)"
    )


if __name__ == "__main__":
    main()
