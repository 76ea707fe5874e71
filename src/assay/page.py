"""Self-contained HTML pages: summary of a scored plate, and validation on stained controls."""

import base64
from pathlib import Path

import cv2
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from .look import evenly
from .overlay import DPI, EDGE, FOOT, HEAD
from .words import FEWEST_CALLS, FILTERS

OVERLAYS, PLOTS, ROWS = 12, 40, 4000  # shown on the page; the rest is in the folder
THUMBNAIL = 560  # px of an overlay on the page


def summary(
    out: Path,
    images: pd.DataFrame,
    wells: pd.DataFrame,
    plate: dict,
    figures: dict[str, list[str]],
    pictures: Path,
) -> Path:
    """Writes OUT/summary.html from the tables, the plate's record, the names of its figures in OUT
    and the folder of overlay pictures.
    """
    drawn = {
        kind: [(name, inline(out / name)) for name in names[:PLOTS]]
        for kind, names in figures.items()
    }
    dropped = sum(max(0, len(names) - PLOTS) for names in figures.values())
    shown = images.drop_duplicates("image_id").to_dict("records")
    several = images["experiment"].unique().size > 1
    context = {
        "plate": plate, "model": plate["model"], "figures": drawn, "dropped": dropped,
        "overlays": overlays(pictures, images), "several": several,
        "wells": wells.head(ROWS).to_dict("records"), "rows": ROWS,
        "more_wells": max(0, len(wells) - ROWS), "per_image": [] if len(wells) else shown[:ROWS],
    }  # fmt: skip
    return write(out / "summary.html", "summary.html.j2", context)


def write(path: Path, template: str, context: dict) -> Path:
    """Renders a template of this package to a file."""
    loader = PackageLoader(__package__, "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= FILTERS
    environment.globals["fewest_calls"] = FEWEST_CALLS
    path.write_text(environment.get_template(template).render(**context), encoding="utf-8")
    return path


def inline(path: Path) -> str:
    """A PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def overlays(folder: Path, images: pd.DataFrame) -> list[dict]:
    """At most OVERLAYS of the pictures in a folder: some flagged ones, then a row from most
    dead to most live.
    """
    have = images[[(folder / f"{name}.jpg").is_file() for name in images["image_id"]]]
    flagged = have[have["status"] == "flagged"].head(OVERLAYS // 4)
    scored = have[have["status"] == "scored"].sort_values(["live_patch_fraction", "image_id"])
    chosen = scored.iloc[evenly(len(scored), OVERLAYS - len(flagged))]
    rows = pd.concat([chosen, flagged]).to_dict("records")
    return [row | {"picture": thumbnail(folder / f"{row['image_id']}.jpg")} for row in rows]


def thumbnail(path: Path) -> str:
    """The image of an overlay at most THUMBNAIL px wide, as a data URI: without title and legend,
    which the page has.
    """
    picture = cv2.imread(str(path))
    head, foot, side = (round(DPI * inches) for inches in (HEAD, FOOT, EDGE))
    if picture.shape[0] > 2 * (head + foot):
        picture = picture[head : picture.shape[0] - foot, side : picture.shape[1] - side]
    factor = min(1.0, THUMBNAIL / picture.shape[1])
    small = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    coded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 78])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(coded.tobytes()).decode()}"
