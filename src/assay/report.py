"""The second half of scoring: from the tables of patches and images to wells, plate, figures and
the summary page.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..common.workspace import records
from ..common.workspace.errors import UserError
from . import dose, figures, output, page, plate
from .cells import remarks as remarks_on
from .cells import well_cells
from .fractions import CALLS, VERDICTS
from .wells import KEYS, Resemblance, prepare, well_table

TRAINED_ON = "a training image of this model"
NUCLEI = "predicted_dead_nuclei"  # local maxima of predicted PI, not cells that were counted
PAGE, RECORD = "summary.html", "plate.json"
FILES = ("plate.png", "dose-*.png", "time-*.png")  # of earlier runs: gone unless made anew
STATUS = ("scored", "flagged", "refused")


class ReportError(UserError):
    """The folder does not hold what a report is made from."""


def report(out: Path) -> dict:
    """Makes the report of a folder that `unstained score` wrote anew, from its images.parquet and,
    where there is one, cells.parquet.

    Returns the content of plate.json. Raises ReportError naming a file that lacks. Running it again
    gives the same files.
    """
    out = Path(out)
    for name in ("images.parquet", output.MODEL):
        if not (out / name).is_file():
            raise ReportError(
                f"{out / name} does not exist: {out} is not the output of `unstained score`"
            )
    model, images = records.read_json(out / output.MODEL), pd.read_parquet(out / "images.parquet")
    cells, told = output.kept(out / "cells.parquet"), []
    if (out / RECORD).is_file():
        told = records.read_json(out / RECORD).get("told", [])
    with output.together(out, PAGE, FILES) as new:
        return make(images, model, new, out / "overlays", cells, told)


def make(
    images: pd.DataFrame,
    model: dict,
    new: Path,
    overlays: Path | None = None,
    cells: pd.DataFrame | None = None,
    told: Sequence[str] = (),
) -> dict:
    """Writes wells.{parquet,csv}, plate.json, plate.png, dose-*.png, time-*.png and summary.html
    into the folder NEW, and of cells, where there are any, cells and well_cells.{parquet,csv};
    overlays: the folder of pictures, NEW/overlays by default; told: what the page is to say beside,
    which the record keeps.

    Returns the content of plate.json.
    """
    images, column = prepare(images)
    wells, alike, remarks = well_table(images)
    wells = plate.normalise(wells)
    of_cells = None if cells is None else well_cells(images, cells)
    of_outlines = [] if cells is None else remarks_on(cells, model)
    record = clean({
        "model": model, "totals": totals(images, wells), "time_column": column,
        "interval": interval(wells, alike), "plates": plate.describe(wells),
        "doses": dose.responses(wells), "left_out": left_out(images),
        "cells": None if of_cells is None else of_cells.to_dict("records"),
        "told": list(told),
        "notes": [*told, *of_outlines, *remarks, *notes(images, wells)],
    })  # fmt: skip
    wells = with_nuclei(wells, images)
    output.write(new, "wells", wells)
    if cells is not None:
        output.write(new, "cells", cells)
        output.write(new, "well_cells", of_cells)
    records.write_json(new / RECORD, record)
    drawn = figures.draw(new, wells, record)
    page.summary(new, images, wells, record, drawn, overlays or new / "overlays")
    return record


def with_nuclei(wells: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """The wells with the number of dead nuclei in the predicted stain of their scored images."""
    if NUCLEI not in images:
        return wells.assign(**{NUCLEI: pd.array([pd.NA] * len(wells), "Int64")})
    scored = images[images["status"] == "scored"]
    counts = scored.groupby(KEYS, dropna=False)[NUCLEI].sum(min_count=1).astype("Int64")
    return wells.merge(counts.reset_index(), on=KEYS, how="left")


def totals(images: pd.DataFrame, wells: pd.DataFrame) -> dict:
    """Numbers of images by status, of wells, and of windows and calls in the images that count
    (status scored).
    """
    counted = images[images["status"] == "scored"]
    sums = {"images": len(images)} | {
        name: int((images["status"] == name).sum()) for name in STATUS
    }
    sums |= {"wells": len(wells[["experiment", "well"]].drop_duplicates())}
    sums |= {name: int(counted[name].sum()) for name in ["windows", *VERDICTS, *CALLS]}
    called = counted["called"].sum()
    live = (counted["called"] * counted["live_patch_fraction"].astype(float)).sum()
    nuclei = counted[NUCLEI].dropna() if NUCLEI in counted else []
    sums |= {NUCLEI: int(nuclei.sum()) if len(nuclei) else None}
    # Images that count and yield nothing
    sums |= {"uncalled": int((counted["live"] + counted["dead"] == 0).sum())}
    sums |= {"abstained": sums["abstain"] / sums["cells"] if sums["cells"] else None}
    return sums | {"live_patch_fraction": live / called if called else None}


def interval(wells: pd.DataFrame, alike: Resemblance) -> dict:
    """How the wells' intervals came about, and how many wells have none."""
    none = int((wells["fields"] < 2).sum())
    return {
        "confidence": 0.95, "method": "Wilson, beta-binomial: the field is the unit",
        "correlation": alike.correlation, "freedom": alike.freedom, "wells_without": none,
    }  # fmt: skip


def left_out(images: pd.DataFrame) -> list[dict]:
    """Why images were flagged or refused: status, reason up to its first colon, count, and the
    first images.
    """
    out = images[images["status"] != "scored"]
    reasons = out["reason"].fillna("").str.split(":", n=1).str[0].replace("", "no reason given")
    rows = []
    for (status, reason), part in out.groupby(["status", reasons], sort=True):
        rows.append({
            "status": status, "reason": reason, "count": len(part),
            "example": part.iloc[0]["reason"] or reason,
            "images": part["image_id"].head(5).tolist(),
        })  # fmt: skip
    return rows


def notes(images: pd.DataFrame, wells: pd.DataFrame) -> list[str]:
    """What a reader of the plate must know beyond the numbers."""
    lines = []
    if seen := int(images["reason"].str.contains(TRAINED_ON, regex=False).sum()):
        lines.append(
            f"{seen} of the images trained this model: "
            "their calls do not tell how good it is on new ones"
        )
    for name in ("experiment", "time"):
        blank = int((images[name].isna() | (images[name] == "")).sum())
        if 0 < blank < len(images):
            lines.append(f"{blank} images have no {name}: they count as one of their own")
    if without := int((images["well"] == "").sum()):
        lines.append(f"{without} images have no well: they stand in images.csv only")
    if len(wells) and (single := int((wells["fields"] == 1).sum())):
        lines.append(
            f"{single} of {len(wells)} wells rest on one field: no interval, "
            "as its spread is not known"
        )
    if empty := int((wells["fields"] == 0).sum()):
        lines.append(
            f"{empty} wells have no live-patch fraction: every image left out, or nothing called"
        )
    return [*lines, *dose.doses_alike(wells)]


def clean(value):
    """A value as JSON can hold it (see `records.clean`), its floats with 6 significant digits."""
    return records.clean(value, lambda number: float(f"{number:.6g}"))
