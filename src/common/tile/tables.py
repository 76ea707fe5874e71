"""frames.parquet and patches.parquet, written while fields come, so that memory does not grow with
their number.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow.parquet import ParquetWriter

from ..patches.groups import GROUP_COLUMNS

FIELDS = 256  # of a row group: 9 MB of fingerprints


class FieldTables:
    """The tables of the fields of `images` (rows of images.csv, numbered from 0), which come in
    their order.
    """

    def __init__(self, folder: Path, images: pd.DataFrame) -> None:
        self._images = images.drop(columns=["brightfield", "pi", "nuclei"])
        owners = images[["image_id", *GROUP_COLUMNS]]
        # A column that no field fills is one of numbers
        self._owners = owners.astype(dict.fromkeys(owners.columns[owners.isna().all()], float))
        self._frames, self._patches = (
            _Rows(folder / f"{n}.parquet") for n in ("frames", "patches")
        )
        self._records: list[dict] = []
        self._windows: list[pd.DataFrame] = []
        self._written = 0

    def put(self, record: dict, windows: pd.DataFrame) -> None:
        """The next field: what was found of it, and its windows (y, x, size and their measures)."""
        self._records.append(record)
        self._windows.append(windows)
        if len(self._records) == FIELDS:
            self._write()

    def close(self) -> None:
        """Writes what is left; only then do the files have their names."""
        if self._records:
            self._write()
        self._frames.close()
        self._patches.close()

    def _write(self) -> None:
        numbers = range(self._written, self._written + len(self._records))
        found = pd.DataFrame(self._records, index=numbers)
        self._frames.add(pd.concat([self._images.loc[numbers], found], axis=1))
        windows = pd.concat(self._windows, ignore_index=True)
        owner = np.repeat(numbers, [len(own) for own in self._windows])
        owners = self._owners.loc[owner].reset_index(drop=True)
        corners = zip(owners["image_id"], windows["y"], windows["x"], windows["size"])
        owners.insert(0, "patch_id", [":".join(map(str, place)) for place in corners])
        self._patches.add(pd.concat([owners, windows], axis=1))
        self._written = numbers.stop
        self._records.clear()
        self._windows.clear()


class _Rows:
    """A parquet file that is written in row groups."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_suffix(".part")
        self._writer: ParquetWriter | None = None

    def add(self, rows: pd.DataFrame) -> None:
        """Rows of the same columns and types as those before."""
        table = pa.Table.from_pandas(rows)
        if self._writer is None:
            self._writer = ParquetWriter(self._part, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._part.replace(self._path)
