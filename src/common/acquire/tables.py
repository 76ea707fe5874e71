"""What became of the fields, as the tables of data/raw; and whether enough were accepted."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from ..exposure import session
from ..images.entries import summary
from ..images.field import SourceError
from ..scoring.reading.pixel_size import PIXEL_SIZE_TOLERANCE
from ..workspace.tables import EXPOSURE
from .intake import MANIFEST_COLUMNS, REJECTED, Outcome


def write_tables(outcomes: Sequence[Outcome], raw: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Writes images.csv, rejected.csv and, of simulated fields, the truth below `raw`; returns the
    first two.
    """
    images = pd.DataFrame([o.accepted for o in outcomes if o.accepted], columns=MANIFEST_COLUMNS)
    rejected = pd.DataFrame([o.rejected for o in outcomes if o.rejected], columns=REJECTED)
    images.map(_tidy).to_csv(raw / "images.csv", index=False, lineterminator="\n")
    rejected.to_csv(raw / "rejected.csv", index=False, lineterminator="\n")
    for name in ("cells", "windows"):
        if tables := [o.truth[name] for o in outcomes if o.accepted and name in o.truth]:
            (raw / "truth").mkdir(exist_ok=True)
            table = pd.concat(tables, ignore_index=True)
            table = table[["image_id", *table.columns.drop("image_id")]]
            table.to_parquet(raw / "truth" / f"{name}.parquet", index=False)
    return images, rejected


def _tidy(value: object) -> object:
    """A number as text, whole ones without a decimal point, others to 6 decimals, in columns with
    gaps too.
    """
    if not isinstance(value, float):
        return value
    if pd.isna(value):
        return ""
    return str(int(value)) if value.is_integer() else str(round(value, 6))


def judge(
    images: pd.DataFrame, rejected: pd.DataFrame, partitions: Iterable[str], limit: float
) -> None:
    """Raises SourceError when too many fields were refused or a partition has none.

    The gate judges same pixels under two ids.
    """
    refused = int((rejected["duplicate_of"] == "").sum())
    total = len(images) + len(rejected)
    if len(rejected):
        print(f"refused {len(rejected)} of {total} fields (data/raw/rejected.csv):")
        print(summary(rejected.to_dict("records")))
    if lost := [name for name in partitions if name not in set(images["partition"])]:
        raise SourceError(
            f"no field of partition {', '.join(lost)} can be used; the reasons stand above"
        )
    if refused > limit * total:
        raise SourceError(
            f"{refused} of {total} fields were refused, more than acquire.max_rejected_fraction "
            f"{limit:g} allows; mend the source, or raise it if the rest is enough"
        )


def refuse_magnifications(images: pd.DataFrame, unit: str) -> None:
    """Raises SourceError for a partition whose known pixel sizes no one model could have, where
    windows are cut in pixels.
    """
    if unit == "um":
        return
    for partition, own in images.dropna(subset="pixel_size_um").groupby("partition"):
        sizes = own.sort_values("pixel_size_um")[["image_id", "pixel_size_um"]].to_numpy()
        (first, least), (last, most) = sizes[[0, -1]]
        if most / least - 1 > PIXEL_SIZE_TOLERANCE:
            raise SourceError(
                f"partition {partition} has several magnifications: {least:g} um per pixel in "
                f"{first}, {most:g} in {last}: give each a partition, or set tile.unit to um, and "
                "tile.window and tile.stride in um"
            )


def session_notes(outcomes: Sequence[Outcome]) -> list[str]:
    """Which experiments of the accepted fields may be one session, or hold several."""
    columns = ["image_id", "experiment", *EXPOSURE]
    rows = [o.accepted | o.exposure for o in outcomes if o.accepted]
    return session.notes(pd.DataFrame(rows, columns=columns))
