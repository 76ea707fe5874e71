"""`unstained score`: from bright-field images and a registered model to tables, overlay pictures
and the report.

Every image is checked against the model's contract before the first is scored. The tables are made
from OUT/parts (see output.py), and so are the same however often a run stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pandas as pd

from ..common.images.entries import size_note, summary
from ..common.images.field import Refused
from ..common.images.files import FileField
from ..common.images.layout import Layout
from ..common.workspace.errors import UserError
from ..common.workspace.parallel import each
from . import images, output, report
from .cells import CELL_COLUMNS
from .checked import Checked, check
from .controls import by_controls
from .fractions import COUNTS, FRACTIONS, of_image
from .model import Model, load
from .pictures import draw, place_files
from .predicted import predicted
from .report import NUCLEI, TRAINED_ON
from .scored import Scored, flags

IMAGE_FACTS = [
    "experiment", "well", "position", "time", "day", "compound", "concentration", "control",
]  # fmt: skip
IMAGE_COLUMNS = ["image_id", "file", *IMAGE_FACTS, "pixel_size_um", "status", "reason", *COUNTS,
                 *FRACTIONS, NUCLEI]  # fmt: skip
PATCH_COLUMNS = ["image_id", "y", "x", "size", "verdict", "live_probability", "novelty", "call"]
TABLES = ["cells", "well_cells"]  # that only some runs make


class ScoreError(UserError):
    """Nothing can be scored as asked; the message says why and what to do."""


@dataclass(frozen=True)
class Options:
    """How images are read and drawn: pixel size (um) where neither manifest nor file says, overlays
    or not, predicted stain as OME-TIFF or not, and whether control wells set the operating point.
    """

    layout: Layout
    manifest: Path | None = None
    pixel_size_um: float | None = None
    overlays: bool = True
    stain: bool = False
    controls: bool = False


def score(
    inputs: Sequence[Path], uri: str, out: Path, options: Options, allow_synthetic: bool = False
) -> pd.DataFrame:
    """Scores images into the folder OUT and returns the table of images (see docs/assay.md).

    Raises ValueError for what the user can mend: the model, the manifest, a folder OUT of another
    model, or no image that the contract allows. A refused image is a row with its reason and stops
    none of the others.
    """
    output.refuse(inputs, out)
    model = load(uri, allow_synthetic)
    entries, notes = images.find(inputs, options.layout, options.manifest)
    for note in [*notes, *remarks(entries, model, options)]:
        print(f"score: {note}")
    with output.claimed(out, model.facts, "score") as facts:
        model = model.for_images(len(entries))
        checked = check(entries, model, options.pixel_size_um)
        sizes = [one.pixel_size_um for one in checked]
        for note in size_note(sizes, options.pixel_size_um, "--pixel-size-um"):
            print(f"score: {note}")
        jobs = [(one, model, out.absolute(), options) for one in checked]
        scored = list(each(part, jobs, 1, "score", "image", len(jobs)))
        scored, told = by_controls(scored, model) if options.controls else (scored, [])
        if options.overlays:
            draw(scored, model, out)
        result = table(scored, model)
        old = [*report.FILES, "overlays", "stain", *(f"{name}.*" for name in TABLES)]
        with output.together(out, report.PAGE, old) as new:
            output.write(new, "patches", collected(scored, "windows", PATCH_COLUMNS))
            output.write(new, "images", result)
            place_files(out, new, scored, options.overlays, options.stain)
            masked = any(one.cells is not None for one in scored)
            of_cells = collected(scored, "cells", CELL_COLUMNS) if masked else None
            report.make(result, facts, new, cells=of_cells, told=told)
    if all(one.checked.reason for one in scored):
        refused = [{"reason": one.checked.reason, "file": one.checked.image.name} for one in scored]
        raise ScoreError(f"every image is refused:\n{summary(refused)}\nsee {out / 'images.csv'}")
    return result


def remarks(entries: Sequence[FileField], model: Model, options: Options) -> list[str]:
    """What this model cannot do of what is asked."""
    told = []
    if not model.facts["novelty"]:
        told.append(
            "this model was packaged before novelty was: "
            "images unlike its training data are NOT flagged"
        )
    if not model.predicts_stain and (options.stain or any(one.nuclei for one in entries)):
        told.append(
            "this model calls windows and predicts no stain: cells and the stain are left out"
        )
    return told


def part(one: Checked, model: Model, out: Path, options: Options) -> Scored:
    """An image with its windows and stain: from its parts if they are there, else scored; of a
    refused one, or one that is no longer what was checked, nothing.
    """
    if one.reason:
        return Scored(one)
    try:
        return _parts(one, model, out, options)
    except Refused as refused:
        return Scored(replace(one, reason=str(refused)))


def _parts(one: Checked, model: Model, out: Path, options: Options) -> Scored:
    pixels = cache(one.pixels)  # read only where something is to be made
    windows = output.part(
        out, one.key, lambda: model.predict(pixels(), one.pixel_size_um)[PATCH_COLUMNS[1:]]
    )
    if not model.predicts_stain:
        return Scored(one, windows)
    stain = predicted(one, model, out, pixels, options.overlays, options.stain)
    return Scored(one, windows, stain)


def table(scored: Sequence[Scored], model: Model) -> pd.DataFrame:
    """The table of images: a row for each, scored or refused."""
    rows = pd.DataFrame([_row(one, model) for one in scored], columns=IMAGE_COLUMNS)
    whole = [*COUNTS, NUCLEI]
    rows[whole] = rows[whole].astype("Int64")
    numbers = ["time", "day", "concentration", "pixel_size_um", *FRACTIONS]
    rows[numbers] = rows[numbers].astype("float64")
    return rows


def _row(scored: Scored, model: Model) -> dict:
    one, image, windows = scored.checked, scored.checked.image, scored.windows
    row = {"image_id": image.image_id, "file": image.name}
    row |= {"status": "refused", "reason": one.reason}
    row |= {name: getattr(image, name) for name in IMAGE_FACTS}
    row |= {"pixel_size_um": one.pixel_size_um or image.pixel_size_um}
    if windows is None:
        return row
    reasons = flags(one, windows, model.contract)
    told = [*reasons, TRAINED_ON] if one.trained_on else reasons
    row |= {"status": "flagged" if reasons else "scored", "reason": "; ".join(told)}
    row |= of_image(windows, model.stride(one.pixel_size_um))
    if "novelty" not in model.contract:
        row["unlike"] = None  # not known, which is not none
    if scored.stain is not None and scored.stain.nuclei is not None:
        row[NUCLEI] = len(scored.stain.nuclei)
    return row


def collected(scored: Sequence[Scored], of: str, columns: list[str]) -> pd.DataFrame:
    """The windows or cells of all images that were scored, with their image's id."""
    tables = [
        getattr(one, of).assign(image_id=one.checked.image.image_id)
        for one in scored
        if getattr(one, of) is not None
    ]
    return pd.concat(tables)[columns] if tables else pd.DataFrame(columns=columns)
