"""Groups before patches: which windows may never meet across splits.

Overlapping windows of one image, and images of one field at several times, share pixels; so a group
goes into one part as a whole (the paper splits by raw image for the same reason).
"""

import numpy as np
import pandas as pd

from ..workspace.errors import UserError

GROUP_COLUMNS = (
    "partition",
    "experiment",
    "well",
    "position",
    "time",
    "day",
    "compound",
    "concentration",
)
GROUPING = ("image_id", *GROUP_COLUMNS)


class SplitError(UserError):
    """The patches cannot be grouped or split as asked; the message says what would help."""


def groups(table: pd.DataFrame, group_by: list[str]) -> pd.Series:
    """Name of the group of each row, from the columns `group_by` joined by '/', each of which must
    be filled.

    Without columns: the position where given (with partition, experiment and well, since positions
    are numbered anew in each), so that one field seen at several times is one group; else the
    image. Raises SplitError.
    """
    if not group_by:
        position = _text(table["position"])
        named = [_text(table[column]) for column in ("partition", "experiment", "well")]
        joined = [
            "/".join(part for part in parts if part) for parts in zip(*named, position, strict=True)
        ]
        return pd.Series(
            np.where(position != "", joined, table["image_id"]), index=table.index, dtype="str"
        )
    columns = [_filled(table, column) for column in group_by]
    return pd.Series(
        ["/".join(parts) for parts in zip(*columns, strict=True)], index=table.index, dtype="str"
    )


def _filled(table: pd.DataFrame, column: str) -> pd.Series:
    present = [name for name in GROUPING if name in table and (_text(table[name]) != "").all()]
    available = f"columns filled for every image: {', '.join(present)}"
    if column not in GROUPING or column not in table:
        raise SplitError(f"split.group_by: there is no column '{column}'; {available}")
    text = _text(table[column])
    empty = sorted(table.loc[text == "", "image_id"].unique())
    if empty:
        listed = ", ".join(empty[:5]) + (" ..." if len(empty) > 5 else "")
        raise SplitError(
            f"split.group_by: '{column}' is empty for {len(empty)} images ({listed}); fill it, "
            f"or use {available}"
        )
    return text


def _text(column: pd.Series) -> pd.Series:
    """A column as text: numbers in their shortest form, unknown values as ''."""
    known = column.notna()
    if pd.api.types.is_numeric_dtype(column):
        column = column.map("{:.15g}".format, na_action="ignore")
    return column.astype("object").where(known, "").astype("str").str.strip()
