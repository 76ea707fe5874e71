"""Where a well lies: names of wells, plate formats, outer and inner wells."""

import re

import pandas as pd

FORMATS = {96: (8, 12), 384: (16, 24), 1536: (32, 48)}
_NAME = re.compile(r"([A-Za-z]{1,2})0*([1-9]\d?)")


def canonical(well: str) -> str:
    """A well's name without padding, in capitals: a01 -> A1; other text as it is."""
    match = _NAME.fullmatch(well.strip())
    return f"{match[1].upper()}{match[2]}" if match else well.strip()


def place(well: str) -> tuple[int, int] | None:
    """Row and column of a well from 0 (A1: 0, 0; AF48: 31, 47), or None if the name is not a
    plate's.
    """
    match = _NAME.fullmatch(well)
    if not match:
        return None
    row = 0
    for letter in match[1].upper():
        row = 26 * row + ord(letter) - ord("A") + 1
    return row - 1, int(match[2]) - 1


def order(well: str) -> tuple[int, int, str]:
    """What sorts wells as a plate is read: A1, A2, ... A12, B1; other names come last."""
    return (*(place(well) or (99, 99)), well)


def row_name(row: int) -> str:
    """The letter(s) of a row from 0."""
    return chr(ord("A") + row) if row < 26 else f"A{chr(ord('A') + row - 26)}"


def plate_format(wells: pd.Series) -> int | None:
    """The smallest of the 96, 384 and 1536-well plates that holds these wells; None if one is no
    plate's well.

    A plate with fewer wells (6 to 48) looks like part of a 96-well plate: names alone do not tell.
    """
    places = [place(well) for well in wells]
    if not places or any(found is None for found in places):
        return None
    rows, columns = (max(axis) + 1 for axis in zip(*places))
    return next(
        (n for n, (height, width) in FORMATS.items() if rows <= height and columns <= width), None
    )


def is_outer(well: str, wells: int) -> bool:
    """Whether a well lies on the rim of a plate of that many wells."""
    (row, column), (height, width) = place(well), FORMATS[wells]
    return row in (0, height - 1) or column in (0, width - 1)
