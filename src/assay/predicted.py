"""The predicted stain of an image: dead nuclei in it, pictures, and on demand the image itself.

For a model that predicts PI (contract: target stain). What is made of an image is kept in
OUT/parts, so that it is predicted once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import tifffile

from ..common.explain.nuclei import dead_nuclei
from ..common.images.entries import pixel_digest
from ..common.scoring.frames.imaging import to_uint8
from . import cells, output
from .checked import Checked
from .model import Model

NUCLEI_COLUMNS = ["y", "x"]
VIVID = 3.0  # times background: full colour
PI_COLOUR = (230, 0, 126)  # RGB
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 88]


@dataclass(frozen=True)
class Predicted:
    """What the predicted stain of an image gave: dead nuclei (NUCLEI_COLUMNS, None where the pixel
    size is not known) and, where it has a mask, its cells (cells.CELL_COLUMNS but image_id).
    """

    nuclei: pd.DataFrame | None
    cells: pd.DataFrame | None


def predicted(
    one: Checked,
    model: Model,
    out: Path,
    pixels: Callable[[], np.ndarray],
    pictures: bool,
    tiff: bool,
) -> Predicted:
    """The predicted stain of a checked image, from OUT/parts where it is there.

    pictures: KEY.stain.jpg; tiff: KEY.ome.tif.
    """
    place, mask = out / "parts", one.image.mask()
    wanted = {
        "nuclei.parquet": one.pixel_size_um is not None, "stain.jpg": pictures, "ome.tif": tiff,
        "cells.parquet": mask is not None,
    }  # fmt: skip
    files = {name: place / part_name(one, name) for name, asked in wanted.items() if asked}
    tables = _tables(files)
    missing = not all(path.exists() for path in files.values())
    if missing or any(table is None for table in tables.values()):
        _make(one, model, pixels(), mask, files)
        tables = _tables(files)
    return Predicted(tables.get("nuclei.parquet"), tables.get("cells.parquet"))


def _tables(files: dict[str, Path]) -> dict[str, pd.DataFrame | None]:
    """Those that are kept; None for one that is not there, damaged or of other columns."""
    tables = {name: output.kept(path) for name, path in files.items() if path.suffix == ".parquet"}
    made = tables.get("cells.parquet")
    if made is not None and list(made) != cells.CELL_COLUMNS[1:]:
        tables["cells.parquet"] = None
    return tables


def part_name(one: Checked, name: str) -> str:
    """The file of an image's parts; what rests on a mask changes with the mask."""
    of_mask = f"-{pixel_digest(one.image.mask())[:16]}" if name.startswith("cells") else ""
    return f"{one.key}{of_mask}.{name}"


def _make(
    one: Checked, model: Model, frame: np.ndarray, mask: np.ndarray | None, files: dict[str, Path]
) -> None:
    pi, size = model.stain(frame, one.pixel_size_um), one.pixel_size_um
    frame8 = to_uint8(frame, one.low, one.high)
    peaks = dead_nuclei(pi, size) if size else np.empty((0, 2), int)
    nuclei = pd.DataFrame(peaks, columns=NUCLEI_COLUMNS)
    table = None if mask is None else cells.of_image(mask, pi, model, size)
    makers = {
        "nuclei.parquet": lambda path: nuclei.to_parquet(path),
        "cells.parquet": lambda path: table.to_parquet(path),
        "stain.jpg": lambda path: write_jpeg(path, stained(frame8, pi, peaks)),
        "ome.tif": lambda path: write_ome(path, pi, size),
    }
    for name, path in files.items():
        output.whole(path, makers[name])


def stained(frame8: np.ndarray, pi: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """The frame (H, W) with predicted PI (H, W) in colour and a ring at each dead nucleus: RGB."""
    strength = np.clip((pi - 1) / (VIVID - 1), 0, 1).astype(np.float32)[..., None]
    picture = (1 - strength) * frame8[..., None] + strength * np.array(PI_COLOUR, np.float32)
    picture = np.ascontiguousarray(picture.astype(np.uint8))
    radius = max(6, frame8.shape[1] // 80)
    for y, x in peaks:
        cv2.circle(picture, (int(x), int(y)), radius, (255, 255, 255), 2, cv2.LINE_AA)
    return picture


def write_ome(path: Path, pi: np.ndarray, pixel_size_um: float | None) -> None:
    """Writes PI over background (H, W) float32 as OME-TIFF that programs open to scale: ImageJ, of
    itself, reads the tags of TIFF alone.
    """
    about: dict = {"axes": "YX", "Channel": {"Name": "predicted PI over background"}}
    tags: dict = {"ome": True, "compression": "zlib"}
    if pixel_size_um:
        about |= {"PhysicalSizeX": pixel_size_um, "PhysicalSizeXUnit": "µm"}
        about |= {"PhysicalSizeY": pixel_size_um, "PhysicalSizeYUnit": "µm"}
        tags |= {"resolution": (1e4 / pixel_size_um,) * 2, "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pi.astype(np.float32), metadata=about, **tags)


def write_jpeg(path: Path, rgb: np.ndarray) -> None:
    """Writes an RGB picture (H, W, 3) uint8."""
    coded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), QUALITY)[1]
    path.write_bytes(coded.tobytes())
