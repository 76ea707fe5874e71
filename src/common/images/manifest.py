"""A manifest (`images.csv`): one row a field.

Columns brightfield and pi (paths relative to the folder; the same one for a multi-channel file),
optionally image_id, partition, experiment, well (or row and column), position, time, day, compound,
concentration, control, pixel_size_um, brightfield_channel, pi_channel, nuclei (an instance mask).
"""

import re
from collections.abc import Sequence
from pathlib import Path

from ..workspace.csv_table import Row, TableError
from ..workspace.csv_table import read_rows as read_table
from .field import Found, SourceError
from .files import FileField
from .layout import BOTH, KNOWN_COLUMNS, MASK, Layout, as_number, make_field

MANIFEST = "images.csv"
MEASURED = ("height", "width", "brightfield_bits", "pi_bits", "brightfield_sha256", "pi_sha256")


def by_manifest(folder: Path, path: Path, layout: Layout, roles: Sequence[str]) -> Found:
    """The fields of a manifest, in its order; its paths are relative to the folder. Raises
    SourceError.
    """
    rows = read_rows(path, roles)
    known = {*KNOWN_COLUMNS, *MEASURED, *BOTH, MASK}  # those of data/raw are measured anew
    unknown = sorted(rows[0].cells.keys() - known)
    notes = [f"{path.name}: columns that are not used: {', '.join(unknown)}"] if unknown else []
    meant = {name: known & {_snake(name), _snake(name.split("(")[0])} for name in unknown}
    notes += [
        f"rename the column {name!r} to {to.pop()} to have it used"
        for name, to in meant.items()
        if to
    ]
    fields = [_field(folder, row, f"{path}, line {row.line}", layout, roles) for row in rows]
    return Found(fields, tuple(notes))


def _snake(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_")


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
        name = row.cells[role].replace("\\", "/")
        channel = as_number(row.cells.get(f"{role}_channel") or getattr(layout, role))
        planes[role] = layout.plane(folder, name, channel) if name else None
    if mask := row.cells.get(MASK, "").replace("\\", "/"):
        planes[MASK] = layout.plane(folder, mask, None)
    return make_field(planes, row.cells, layout, where)
