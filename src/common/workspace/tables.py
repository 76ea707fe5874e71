"""Reading the tables of the graph, restricted to the partitions now in params; the others are named
as ignored.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .errors import MissingInput
from .paths import existing

# Columns of images.csv that are no numbers, even where they look like some
TEXT_COLUMNS = [
    "image_id", "partition", "experiment", "well", "position", "compound", "brightfield", "pi",
]  # fmt: skip
# Of a field: by these it is told which were imaged together
EXPOSURE = ["brightfield_bits", "brightfield_median", "brightfield_contrast", "pi_background"]
# What the columns split, label and verdict of the graph's tables hold
SPLIT_NAMES = ("train", "valid", "test")
CLASS_NAMES = ("live", "dead")
LABEL_NAMES = (*CLASS_NAMES, "discarded")
VERDICT_NAMES = ("cells", "empty", "unusable")


def read_images(raw: Path, partitions: Sequence[str]) -> pd.DataFrame:
    """The manifest data/raw/images.csv: one row per accepted field of view."""
    return select(read_csv(raw / "images.csv"), partitions, "images")


def read_csv(path: Path) -> pd.DataFrame:
    """A table of data/raw. A gap is an empty cell: NA, None or null may be a partition's name."""
    kinds = dict.fromkeys([*TEXT_COLUMNS, "file", "reason", "duplicate_of"], "str")
    return pd.read_csv(existing(path), dtype=kinds, keep_default_na=False, na_values=[""])


def read_table(path: Path, partitions: Sequence[str], aloud: bool = True) -> pd.DataFrame:
    """Any parquet table of the graph with a `partition` column."""
    return select(pd.read_parquet(existing(path)), partitions, path.name, aloud)


def select(
    table: pd.DataFrame, partitions: Sequence[str], name: str, aloud: bool = True
) -> pd.DataFrame:
    """The rows of the named partitions, in the order of the table; says which others it ignores, if
    `aloud`.

    Raises MissingInput if a partition has none.
    """
    held = set(table["partition"])
    if missing := [p for p in partitions if p not in held]:
        raise MissingInput(
            f"{name} has no rows of partition {', '.join(missing)}; it holds "
            f"{', '.join(sorted(held)) or 'nothing'}. "
            "Set dataset.partitions in params.yaml to what the source holds."
        )
    if aloud and (ignored := sorted(held - set(partitions))):
        print(f"{name}: ignoring partition {', '.join(ignored)}, not in dataset.partitions")
    return table[table["partition"].isin(list(partitions))].reset_index(drop=True)
