"""A manifest (`images.csv`): one row a field.

Columns brightfield and pi (paths relative to the folder; the same one for a multi-channel file),
optionally image_id, partition, experiment, well (or row and column), position, time, day, compound,
concentration, control, pixel_size_um, brightfield_channel, pi_channel, nuclei (an instance mask).
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..workspace.csv_table import Row, TableError
from ..workspace.csv_table import read_rows as read_table
from .field import NUMBERS, TEXTS, Found, SourceError
from .files import FileField
from .layout import BOTH, MASK, Layout, as_number, make_field

MANIFEST = "images.csv"
ERROR = re.compile("#(N/?[ADV]|[A-Z/0]+[!?]|#+)|Err:[0-9]+")  # #N/A, #REF!, ####: too wide a date
ALSO = {  # what labs call columns
    "conc": "concentration", "dose": "concentration", "drug": "compound", "treatment": "compound",
    "col": "column", "well_id": "well", "field": "position", "fov": "position", "site": "position",
    "batch": "experiment", "plate": "experiment", "session": "experiment", "hours": "time",
    "mask": MASK,
}  # fmt: skip
# Of a table of data/raw; they are measured anew
MEASURED = ("height", "width", "brightfield_bits", "pi_bits", "brightfield_sha256", "pi_sha256")
KNOWN = {"image_id", *BOTH, "brightfield_channel", "pi_channel", MASK, "row", "column",
         *TEXTS, *NUMBERS, *MEASURED}  # fmt: skip


def by_manifest(folder: Path, path: Path, layout: Layout, roles: Sequence[str]) -> Found:
    """The fields of a manifest, in its order; its paths are relative to the folder. Raises
    SourceError.
    """
    rows = read_rows(path, roles)
    _check_errors(path, rows)
    _check_points(path, rows)
    unknown = sorted(rows[0].cells.keys() - KNOWN)
    notes = [f"{path.name}: columns that are not used: {', '.join(unknown)}"] if unknown else []
    free = KNOWN - rows[0].cells.keys()
    meant = [(name, to) for name in unknown for to in sorted(free & _meant(name))]
    notes += [f"rename the column {name!r} to {to} to have it used" for name, to in meant]
    if layout.partitions:  # those of the graph; the assay has none
        _check_partitions(path, [row for row in rows if any(row.cells[role] for role in roles)])
    fields = [_field(folder, row, f"{path}, line {row.line}", layout, roles) for row in rows]
    return Found(fields, (*notes, *_gaps(fields, path.name)))


def _check_partitions(path: Path, rows: Sequence[Row]) -> None:
    """Raises SourceError where some images have a partition and others none."""
    without = [row.line for row in rows if not row.cells.get("partition")]
    if 0 < len(without) < len(rows):
        raise SourceError(
            f"{path}, line {without[0]}: no partition is given, and other rows have one: of merged "
            "cells the first alone holds the text"
        )


def _check_errors(path: Path, rows: Sequence[Row]) -> None:
    """Raises SourceError where a formula gave no result: #N/A is no compound's name."""
    for row in rows:
        for name, cell in row.cells.items():
            if name in KNOWN and ERROR.fullmatch(cell):
                raise SourceError(
                    f"{path}, line {row.line}: {name} is {cell}, a spreadsheet's error: mend its "
                    "formula, or leave the cell empty"
                )


def _check_points(path: Path, rows: Sequence[Row]) -> None:
    """Raises SourceError where a column of numbers may hold points of thousands: beside a decimal
    comma, or all like 1.000 beside numbers without one.
    """
    for key in NUMBERS:
        stated = [(row.line, row.cells.get(key, "")) for row in rows]
        pointed = [(line, text) for line, text in stated if "." in text]
        others = [text for _, text in stated if text.strip("0") and "." not in text]
        thousands = all(re.fullmatch(r"[1-9]\d{0,2}(\.\d{3})+", text) for _, text in pointed)
        if pointed and others and (thousands or any("," in text for text in others)):
            line, text = pointed[0]
            raise SourceError(
                f"{path}, line {line}: {key} is {text!r}, and {others[0]!r} in another row: is the "
                "point decimal or of thousands? Write the whole column with decimal points"
            )


def _gaps(fields: Sequence[FileField], name: str) -> list[str]:
    """Notes on cells that may have been merged in a spreadsheet: the first alone holds the text."""
    used = [field for field in fields if field.brightfield]
    empty = {
        key: sum(getattr(field, key) in ("", None) for field in used)
        for key in ("experiment", "well", "position", "time", "day")
    }
    told = [f"{count} without {key}" for key, count in empty.items() if 0 < count < len(used)]
    if count := sum(bool(field.concentration and not field.compound) for field in used):
        told.append(f"{count} with a concentration and no compound")
    merged = "of merged cells the first alone holds the text"
    return [f"{name}: of {len(used)} images {', '.join(told)}: {merged}"] if told else []


def _meant(name: str) -> set[str]:
    """The columns that a name may mean, without what follows it in brackets."""
    forms = [re.sub(r"\W+", "_", own).strip("_") for own in (name, re.split(r"[^\w ]", name)[0])]
    return {ALSO.get(form, form) for form in forms}


def read_rows(path: Path, needed: Sequence[str] = BOTH) -> list[Row]:
    """The rows of a manifest, as text. Raises SourceError."""
    try:
        rows = read_table(path, needed)
    except TableError as error:
        raise SourceError(str(error)) from None
    if not rows:
        raise SourceError(f"{path} has no rows")
    return rows


def _field(folder: Path, row: Row, where: str, layout: Layout, roles: Sequence[str]) -> FileField:
    planes = {}
    for role in roles:
        name = _relative(folder, row.cells[role])
        channel = as_number(row.cells.get(f"{role}_channel") or getattr(layout, role))
        planes[role] = layout.plane(folder, name, channel) if name else None
    if mask := _relative(folder, row.cells.get(MASK, "")):
        planes[MASK] = layout.plane(folder, mask, None)
    return make_field(planes, row.cells, layout, where)


def _relative(folder: Path, text: str) -> str:
    """A path as it lies in the folder, also of an absolute one that leads there."""
    path, top = PurePosixPath(text.replace("\\", "/")), folder.absolute()
    return str(path.relative_to(top) if path.is_relative_to(top) else path) if text else ""
