"""The pictures of `unstained score`: drawn into OUT/parts, named by image where the user looks."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from ..common.images.field import Refused
from ..common.scoring.frames.imaging import to_uint8
from ..common.workspace.parallel import each
from . import output, overlay
from .cells import outlines
from .model import Model
from .predicted import part_name, write_jpeg
from .scored import Scored, flags


def draw(scored: Sequence[Scored], model: Model, out: Path) -> None:
    """Draws the overlays the parts lack: calls of windows, and of the cells of a mask.

    An image that is gone or changed since it was scored keeps its row and lacks its picture, which
    is said.
    """
    jobs = [(one, model.contract, out.absolute()) for one in scored if one.windows is not None]
    for lacks, (one, *_) in zip(each(_try_draw, jobs, 1, "draw", "image", len(jobs)), jobs):
        if lacks:
            print(f"score: no overlay of {one.checked.image.image_id}: {lacks}")


def _try_draw(scored: Scored, contract: dict, out: Path) -> str:
    """Draws an image; why it cannot be drawn, else ''."""
    try:
        _draw(scored, contract, out)
    except Refused as refused:
        return str(refused)
    return ""


def _draw(scored: Scored, contract: dict, out: Path) -> None:
    one, kinds = scored.checked, ["jpg"] if scored.cells is None else ["jpg", "cells.jpg"]
    lacking = [kind for kind in kinds if not _picture(out, scored, kind).exists()]
    if not lacking:
        return
    frame8 = to_uint8(one.pixels(), one.low, one.high)
    if "jpg" in lacking:
        reasons = flags(one, scored.windows, contract)
        drawn = overlay.draw(frame8, scored.windows, contract, one.pixel_size_um, reasons)
        output.whole(_picture(out, scored, "jpg"), lambda path: path.write_bytes(drawn))
    if "cells.jpg" in lacking:
        picture = outlines(frame8, one.image.mask(), scored.cells)
        output.whole(_picture(out, scored, "cells.jpg"), lambda path: write_jpeg(path, picture))


def _picture(out: Path, scored: Scored, kind: str) -> Path:
    """Where a picture of calls lies; it changes with the operating point."""
    moved = f"{scored.shift:+.4f}." if scored.shift else ""
    return out / "parts" / part_name(scored.checked, kind.replace("jpg", f"{moved}jpg"))


def place_files(
    out: Path, new: Path, scored: Sequence[Scored], overlays: bool, stain: bool
) -> None:
    """Names the parts' files by image, of these images only: NEW/overlays/IMAGE_ID.jpg,
    .stain.jpg and .cells.jpg, and NEW/stain/IMAGE_ID.ome.tif.
    """
    parts = out / "parts"
    for image in scored:
        one, name = image.checked, image.checked.image.image_id
        if overlays and image.windows is not None:
            _link(_picture(out, image, "jpg"), new / "overlays" / f"{name}.jpg")
            _link(parts / part_name(one, "stain.jpg"), new / "overlays" / f"{name}.stain.jpg")
        if overlays and image.cells is not None:
            _link(_picture(out, image, "cells.jpg"), new / "overlays" / f"{name}.cells.jpg")
        if stain and image.stain is not None:
            _link(parts / part_name(one, "ome.tif"), new / "stain" / f"{name}.ome.tif")


def _link(source: Path, target: Path) -> None:
    if not source.exists():
        return
    target.parent.mkdir(exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
