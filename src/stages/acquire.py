"""Brings the fields of a source into data/raw: read, checked and written as 16-bit TIFFs, with
their digests.

Reads the source that dataset.source names and its git-tracked list sources/SOURCE.csv; writes
data/raw. Fields that cannot be used are listed in rejected.csv with the reason, and the rest goes
on.
"""

import json
import shutil
import sys
from collections.abc import Iterable, Sequence

import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from ..common.acquire import digests, intake, sources
from ..common.images.field import Field, SourceError
from ..common.workspace.params import load
from ..common.workspace.paths import RAW


def read_fields(
    fields: Sequence[Field], limits: intake.Limits, workers: int
) -> list[intake.Outcome]:
    """Reads, checks and writes the fields on `workers` processes; the result does not depend on
    their number.
    """
    parallel = Parallel(n_jobs=workers, return_as="generator")
    several = parallel(delayed(intake.expand)(entry) for entry in fields)
    entries = [
        entry
        for held in tqdm(several, "open", total=len(fields), unit="file", leave=False)
        for entry in held
    ]
    jobs = [delayed(intake.take)(entry, RAW, limits) for entry in intake.refuse_same_ids(entries)]
    outcomes = list(tqdm(parallel(jobs), "acquire", total=len(jobs), unit="field"))
    return intake.refuse_same_pixels(outcomes, RAW)


def write_tables(outcomes: Sequence[intake.Outcome]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Writes images.csv, rejected.csv and, of simulated fields, the truth; returns the first two."""
    images = pd.DataFrame([o.accepted for o in outcomes if o.accepted], columns=intake.COLUMNS)
    rejected = pd.DataFrame([o.rejected for o in outcomes if o.rejected], columns=intake.REJECTED)
    images.map(_tidy).to_csv(RAW / "images.csv", index=False, lineterminator="\n")
    rejected.to_csv(RAW / "rejected.csv", index=False, lineterminator="\n")
    for name in ("cells", "windows"):
        if tables := [o.truth[name] for o in outcomes if o.accepted and name in o.truth]:
            (RAW / "truth").mkdir(exist_ok=True)
            table = pd.concat(tables, ignore_index=True)
            table = table[["image_id", *table.columns.drop("image_id")]]
            table.to_parquet(RAW / "truth" / f"{name}.parquet", index=False)
    return images, rejected


def _tidy(value: object) -> object:
    """A number as text, whole ones without a decimal point, others to 6 decimals, in columns with
    gaps too.
    """
    if not isinstance(value, float):
        return value
    return "" if pd.isna(value) else str(int(value)) if value.is_integer() else str(round(value, 6))


def judge(
    images: pd.DataFrame, rejected: pd.DataFrame, partitions: Iterable[str], limit: float
) -> None:
    """Stops when too many fields were refused or a partition has none.

    The gate judges same pixels under two ids.
    """
    refused = int((rejected["duplicate_of"] == "").sum())
    total = len(images) + len(rejected)
    if len(rejected):
        print(f"refused {len(rejected)} of {total} fields (data/raw/rejected.csv):")
        print(intake.summary(rejected.to_dict("records")))
    if lost := [name for name in partitions if name not in set(images["partition"])]:
        sys.exit(
            f"error: no field of partition {', '.join(lost)} can be used; the reasons stand above"
        )
    if refused > limit * total:
        sys.exit(
            f"error: {refused} of {total} fields were refused, more than acquire.max_rejected_fraction {limit:g} "
            "allows; mend the source, or raise it if the rest is enough"
        )


def main() -> dict[str, int]:
    """Runs the stage; returns the numbers of accepted and rejected fields."""
    dataset, plate, acquire, tile = load("dataset", "synthetic", "acquire", "tile")
    try:
        warning = digests.check(dataset)
        found = sources.find(dataset, plate)
        fields, others = sources.of_partitions(found, dataset.partitions)
    except SourceError as error:
        sys.exit(f"error: {error}")
    notes = [
        *filter(None, [warning]),
        *found.notes,
        *(f"ignoring partition {name}, not in dataset.partitions" for name in others),
    ]
    print("\n".join(f"note: {note}" for note in notes), end="\n" * bool(notes))
    shutil.rmtree(RAW, ignore_errors=True)
    for role in ("brightfield", "pi"):
        (RAW / role).mkdir(parents=True)
    limits = intake.Limits(tile.window, tile.unit, dataset.pixel_size_um)
    images, rejected = write_tables(read_fields(fields, limits, acquire.workers))
    judge(images, rejected, dataset.partitions, acquire.max_rejected_fraction)
    counts = {"fields": len(images), "rejected": len(rejected)}
    facts = {
        "source": dataset.source,
        "synthetic": dataset.source == "synthetic",
        **counts,
        "other_partitions": others,
    }
    (RAW / "source.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(f"acquired {len(images)} fields from {dataset.source}")
    return counts


if __name__ == "__main__":
    main()
