"""Where a well lies: names of wells, plate formats, outer and inner wells."""

import pandas as pd

from ..common.images.wells import FORMATS, place


def order(well: str) -> tuple[int, int, str]:
    """What sorts wells as a plate is read: A1, A2, ... A12, B1; other names come last."""
    return (*(place(well) or (99, 99)), well)


def plate_format(wells: pd.Series) -> int | None:
    """The smallest of the 96, 384 and 1536-well plates that holds these wells; None if one is no
    plate's well.

    A plate with fewer wells (6 to 48) looks like part of a 96-well plate: names alone do not tell.
    """
    places = [place(well) for well in wells]
    if not places or any(one is None for one in places):
        return None
    rows, columns = (max(axis) + 1 for axis in zip(*places))
    return next(
        (n for n, (height, width) in FORMATS.items() if rows <= height and columns <= width), None
    )


def is_outer(well: str, wells: int) -> bool:
    """Whether a well lies on the rim of a plate of that many wells."""
    (row, column), (height, width) = place(well), FORMATS[wells]
    return row in (0, height - 1) or column in (0, width - 1)
