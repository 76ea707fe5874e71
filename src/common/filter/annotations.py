"""Windows that people called cells, empty or unusable: read from a CSV, matched to frames."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..patches.store import PatchStore
from ..scoring.emptiness import VERDICTS
from ..scoring.frames.imaging import black_border, bright_field_measures
from ..workspace.csv_table import TableError, read_rows
from ..workspace.errors import UserError

ANNOTATION_COLUMNS = ["image_id", "y", "x", "size", "verdict", "annotator", "date"]
WINDOW_KEY = ["image_id", "y", "x", "size"]
# As programs write whole numbers, of at most nine digits; 1.024 may be a thousand
PIXELS = r"\A([0-9]{1,9})(?:[.,]0)?\Z"
MEASURES = ["focus", "texture", "contrast", "border"]


class AnnotationError(UserError):
    """The annotation file cannot be used as it stands; the message names the line."""


@dataclass(frozen=True)
class Annotations:
    """Usable rows (image_id, y, x, size, verdict), and how many were left out, by reason."""

    rows: pd.DataFrame
    left_out: dict[str, int]


def read_annotations(path: Path) -> pd.DataFrame:
    """The rows of an annotation file.

    Raises AnnotationError for a missing file, column, or an unreadable line.
    """
    if not path.exists():
        raise AnnotationError(
            f"filter.annotations: {path} does not exist; a file with the header "
            f"{','.join(ANNOTATION_COLUMNS)} alone will do"
        )
    try:
        rows = read_rows(path, ANNOTATION_COLUMNS[:5], comments=True)
    except TableError as error:
        raise AnnotationError(f"{error}; the header is {','.join(ANNOTATION_COLUMNS)}") from None
    table = pd.DataFrame(
        [row.cells for row in rows], columns=None if rows else ANNOTATION_COLUMNS, dtype="str"
    )
    lines = [row.line for row in rows]
    for column in ("y", "x", "size"):
        whole = table[column].str.extract(PIXELS, expand=False)
        _refuse(path, lines, table[column], whole.isna(), "a whole number of pixels")
        table[column] = whole.astype("int64")
    table["verdict"] = table["verdict"].str.lower()
    unknown = ~table["verdict"].isin(VERDICTS)
    _refuse(path, lines, table["verdict"], unknown, f"one of {', '.join(VERDICTS)}")
    return table


def match(table: pd.DataFrame, frames: pd.DataFrame) -> Annotations:
    """Annotated windows that lie within the frames (image_id, height, width), each once.

    A window need not be in the current grid. Left out and counted: rows of unknown images, windows
    beyond their frame, windows annotated twice with different verdicts.
    """
    sizes = frames.set_index("image_id")[["height", "width"]]
    known = table["image_id"].isin(sizes.index)
    inside = table[known].join(sizes, on="image_id")
    fits = (
        (inside["y"] + inside["size"] <= inside["height"])
        & (inside["x"] + inside["size"] <= inside["width"])
        & (inside["size"] > 0)
    )
    rows = inside.loc[fits, [*WINDOW_KEY, "verdict"]].drop_duplicates()
    disputed = rows.duplicated(WINDOW_KEY, keep=False)
    left_out = {
        "of_no_image": int((~known).sum()),
        "beyond_frame": int((~fits).sum()),
        "disputed": int(disputed.sum()),
    }
    return Annotations(rows[~disputed].reset_index(drop=True), left_out)


def annotated_windows(store: PatchStore, patches: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The annotated rows with their measures and `place`: the row of `patches`, or, of windows
    outside the grid, numbers from len(patches) on, in their order.
    """
    place = patches[WINDOW_KEY].assign(place=np.arange(len(patches)))
    merged = rows.merge(place, on=WINDOW_KEY, how="left")
    outside = merged["place"].isna()
    measured = patches[MEASURES].reindex(merged["place"].fillna(-1)).set_axis(merged.index)
    for image_id, part in merged[outside].groupby("image_id"):
        frame = np.asarray(store.brightfield(image_id))
        measures = bright_field_measures(
            frame, black_border(frame), part[["y", "x", "size"]].to_numpy(np.int64)
        )
        measured.loc[part.index, MEASURES] = np.column_stack([measures[n] for n in MEASURES])
    merged.loc[outside, "place"] = len(patches) + np.arange(outside.sum())
    return merged.astype({"place": "int64"}).join(measured)


def all_windows(patches: pd.DataFrame, annotated: pd.DataFrame) -> pd.DataFrame:
    """WINDOW_KEY of the patches and, after them, of the annotated windows outside the grid: a
    window's row is its place.
    """
    outside = annotated[annotated["place"] >= len(patches)]
    return pd.concat([patches[WINDOW_KEY], outside[WINDOW_KEY]], ignore_index=True)


def _refuse(path: Path, lines: list[int], cells: pd.Series, wrong: pd.Series, wanted: str) -> None:
    """Raises AnnotationError with the first line of the file whose cell is wrong."""
    if not wrong.any():
        return
    first, count = int(np.flatnonzero(wrong)[0]), int(wrong.sum())
    more = f" (and {count - 1} more rows)" if count > 1 else ""
    fault = f"{cells.name} is '{cells.iloc[first]}', not {wanted}"
    raise AnnotationError(f"{path.name}, line {lines[first]}: {fault}{more}")
