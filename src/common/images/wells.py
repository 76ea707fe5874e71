"""Names of wells: as plates have them, as row and column, and as an index."""

import re
from collections.abc import Mapping

FORMATS = {96: (8, 12), 384: (16, 24), 1536: (32, 48)}  # wells: rows, columns
_NAME = re.compile(r"([A-Za-z]{1,2})0?([1-9][0-9]?)")  # one zero of padding: W00013 is no well
_QUARTER = re.compile(r"([A-H])([a-d])0?([1-9][0-9]?)")  # Hd48: plate makers' names of 1536 wells
_ROW_COLUMN = re.compile(r"r([0-9]{1,2})c([0-9]{1,2})", re.IGNORECASE)


def canonical(well: str) -> str:
    """A well's name without padding: a01 -> A1, r02c03 -> B3, Ab01 -> Ab1; other text as it is."""
    well = well.strip()
    if match := _QUARTER.fullmatch(well):
        return f"{match[1]}{match[2]}{match[3]}"
    if match := _ROW_COLUMN.fullmatch(well):
        return f"{row_name(int(match[1]) - 1)}{int(match[2])}" if int(match[1]) else well
    match = _NAME.fullmatch(well)
    return f"{match[1].upper()}{match[2]}" if match else well


def place(well: str) -> tuple[int, int] | None:
    """Row and column of a well from 0 (A1: 0, 0; AF48: 31, 47; Ab1: 1, 0), or None if no plate has
    it.
    """
    if match := _QUARTER.fullmatch(well):
        row = 4 * (ord(match[1]) - ord("A")) + ord(match[2]) - ord("a") + 1
    elif match := _NAME.fullmatch(well):
        row = 0
        for letter in match[1].upper():
            row = 26 * row + ord(letter) - ord("A") + 1
    else:
        return None
    column = int(match[match.lastindex])
    rows, columns = FORMATS[1536]
    return (row - 1, column - 1) if row <= rows and column <= columns else None


def row_name(row: int) -> str:
    """The letter(s) of a row from 0."""
    return chr(ord("A") + row) if row < 26 else f"A{chr(ord('A') + row - 26)}"


def stated(values: Mapping[str, str]) -> str:
    """The well that texts of a manifest or a file name state: `well`, or `row` and `column`, or an
    index such as `well96`; '' where none does.

    Raises ValueError for an index beyond the plate.
    """
    if well := (values.get("well") or "").strip():
        return canonical(well)
    row, column = (_whole(values.get(name)) for name in ("row", "column"))
    if row and column:
        return canonical(f"r{row}c{column}" if row.isdecimal() else f"{row}{column}")
    for wells, (_, columns) in FORMATS.items():
        index = _whole(values.get(f"well{wells}"))
        if index and not (re.fullmatch("[0-9]+", index) and 1 <= int(index) <= wells):
            raise ValueError(f"well{wells} is {index!r}: wells of that plate are 1 to {wells}")
        if index:
            return f"{row_name((int(index) - 1) // columns)}{(int(index) - 1) % columns + 1}"
    return ""


def _whole(text: str | None) -> str:
    """A row, column or index, of which pandas makes 1.0 where one is missing."""
    return re.sub(r"\.0+$", "", (text or "").strip())
