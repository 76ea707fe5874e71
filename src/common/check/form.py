"""What every suite asks first: columns, no gaps where none may be, rows of every partition."""

from collections.abc import Iterable
from pathlib import Path

import great_expectations.expectations as gxe
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetFile

from ..workspace.paths import existing
from .expectations import Tables, known, said

EDITED = "the folder was edited, or is of another version of the code: run `dvc repro "
MEND_SOURCE = "correct the source or its manifest, then `dvc repro acquire`"
ROWS = 256  # of a table that are held with their bytes at a time


def form(
    name: str,
    required: list[str],
    others: list[str],
    redo: str,
    partitions: list[str] | None = None,
) -> list:
    """Expectations on a table's columns: all there, the `required` ones without gaps; with
    `partitions`, rows of each of them.
    """
    wanted = [*required, *others]
    text = f"columns {', '.join(wanted)}"
    expectations = [
        gxe.ExpectTableColumnsToMatchSet(
            column_set=wanted, exact_match=False, **said(f"{name}_columns", text, redo)
        )
    ]
    expectations += [
        known(column, f"{name}_{column}_known", f"no gap in {column}", redo) for column in required
    ]
    if partitions is not None:
        more = "add images of that partition, or take it out of dataset.partitions"
        words = said(f"{name}_of_every_partition", f"rows of {', '.join(partitions)}", more)
        expectations.append(
            gxe.ExpectColumnDistinctValuesToContainSet(
                column="partition", value_set=list(partitions), **words
            )
        )
    return expectations


def read_tables(folder: Path, names: Iterable[str], partitions: list[str]) -> Tables:
    """The rows of the partitions asked for of each NAME.parquet in a folder."""
    tables = {name: pd.read_parquet(existing(folder / f"{name}.parquet")) for name in names}
    return {name: of_partitions(table, partitions) for name, table in tables.items()}


def read_sizes(path: Path, partitions: list[str]) -> pd.DataFrame:
    """The same of one table, where a column of bytes holds how many they are, as "5120 bytes": read
    some rows at a time, in memory that does not grow with the bytes.
    """
    with ParquetFile(existing(path)) as file:
        parts = [_sizes(batch) for batch in file.iter_batches(ROWS)]
        empty = _sizes(file.schema_arrow.empty_table())
    return of_partitions(pa.concat_tables(parts or [empty]).to_pandas(), partitions)


def _sizes(rows: pa.RecordBatch | pa.Table) -> pa.Table:
    """In words, which are no numbers to judge a range of."""
    columns = dict(zip(rows.schema.names, rows.columns))
    for name in columns:
        if pa.types.is_binary(rows.schema.field(name).type):
            sizes = pc.cast(pc.binary_length(columns[name]), pa.string())
            columns[name] = pc.binary_join_element_wise(sizes, " bytes", "")
    return pa.table(columns)


def of_partitions(table: pd.DataFrame, partitions: list[str]) -> pd.DataFrame:
    """The rows of the partitions asked for; all, if the column is lacking, which a gate says."""
    chosen = table["partition"].isin(partitions) if "partition" in table else slice(None)
    return table[chosen].reset_index(drop=True)
