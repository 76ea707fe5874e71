"""Brings the fields of a source into data/raw: read, checked and written as 16-bit TIFFs, with
their digests.

Reads the source that dataset.source names and its git-tracked list sources/SOURCE.csv; writes
data/raw. Fields that cannot be used are listed in rejected.csv with the reason, and the rest goes
on.
"""

import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ..common.acquire import digests, sources
from ..common.acquire.intake import Limits, Outcome, refuse_same_pixels, rests_on, take, written
from ..common.acquire.tables import judge, refuse_magnifications, session_notes, write_tables
from ..common.images import registration
from ..common.images.entries import expand, file_notes, refuse_repeated, size_note
from ..common.images.field import Field
from ..common.workspace.cache import Kept
from ..common.workspace.parallel import each
from ..common.workspace.params import load
from ..common.workspace.paths import RAW
from ..common.workspace.records import write_json


def read_fields(
    fields: Sequence[Field], limits: Limits, workers: int
) -> tuple[list[Outcome], dict[str, registration.Session]]:
    """Reads, checks and writes the fields on `workers` processes or a cluster; the result does not
    depend on either. What the channels of accepted ones say of each other is added up by session.
    """
    opened = each(expand, [(entry,) for entry in fields], workers, "open", "file", len(fields))
    entries = refuse_repeated(one for held in opened for one in held)
    say(file_notes(entries))
    jobs = [(entry, RAW, limits) for entry in entries]
    kept = Kept.of_stage("acquire")
    taken = kept.each(_take, jobs, rests_on, workers, "acquire", "field", _files)
    outcomes, sessions = [], defaultdict(registration.Session)
    for outcome in refuse_same_pixels((Outcome(**one) for one in taken), RAW):
        if outcome.accepted and outcome.pair:
            sessions[outcome.accepted["experiment"]].add(outcome.pair, outcome.image_id)
        outcomes.append(replace(outcome, pair=None))
    return outcomes, sessions


def _take(entry: Field, raw: Path, limits: Limits) -> dict:
    return asdict(take(entry, raw, limits))


def _files(taken: dict) -> list[Path] | None:
    """What `take` wrote; a field that is refused, perhaps for a passing fault, is read again."""
    return taken["accepted"] and written(taken["accepted"], RAW)


def say(notes: Sequence[str]) -> None:
    """Prints what is worth saying, a line each."""
    for note in filter(None, notes):
        print(f"note: {note}")


def main() -> dict[str, int]:
    """Runs the stage; returns the numbers of accepted and rejected fields. Raises UserError."""
    dataset, plate, acquire, tile = load("dataset", "synthetic", "acquire", "tile")
    warning = digests.check_list(dataset)
    source = sources.find(dataset, plate)
    fields, others = sources.of_partitions(source, dataset.partitions)
    ignored = [f"ignoring partition {name}, not in dataset.partitions" for name in others]
    say([warning, *source.notes, *ignored])
    shutil.rmtree(RAW, ignore_errors=True)
    for role in ("brightfield", "pi", "nuclei"):
        (RAW / role).mkdir(parents=True)
    limits = Limits(tile.window, tile.unit, dataset.pixel_size_um)
    outcomes, sessions = read_fields(fields, limits, acquire.workers)
    images, rejected = write_tables(outcomes, RAW)
    say(size_note(images["pixel_size_um"], dataset.pixel_size_um, "dataset.pixel_size_um"))
    say(registration.notes(sessions) if sessions else [])
    say(session_notes(outcomes))
    judge(images, rejected, dataset.partitions, acquire.max_rejected_fraction)
    refuse_magnifications(images, tile.unit)
    counts = {"fields": len(images), "rejected": len(rejected)}
    facts = {
        "source": dataset.source,
        "synthetic": dataset.source == "synthetic",
        **counts,
        "other_partitions": others,
    }
    write_json(RAW / "source.json", facts)
    print(f"acquired {len(images)} fields from {dataset.source}")
    return counts
