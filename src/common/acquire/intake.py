"""One field on its way into data/raw: read, checked, written as two 16-bit TIFFs, and an 8-bit one
of where nuclei are if a mask says so, described as a row of images.csv.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from ..exposure.session import exposures
from ..images.entries import by_digest, pixel_digest
from ..images.field import TITLES, Field, Frame, Refused
from ..images.files import FileField, bits, check_frame
from ..images.registration import Pair, compare
from ..scoring.frames.windows import in_pixels

MANIFEST_COLUMNS = [
    "image_id", "partition", "experiment", "well", "position", "time", "day", "compound",
    "concentration", "brightfield", "pi", "pixel_size_um", "height", "width", "brightfield_bits",
    "pi_bits", "brightfield_sha256", "pi_sha256", "nuclei",
]  # fmt: skip
REJECTED = ["image_id", "file", "reason", "duplicate_of"]


@dataclass(frozen=True)
class Limits:
    """The window every field must hold, in px or um, and the pixel size where neither manifest nor
    file says.
    """

    window: float
    unit: str
    pixel_size_um: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a field: a row of images.csv if accepted, of rejected.csv if not."""

    image_id: str
    name: str
    accepted: dict | None = None
    rejected: dict | None = None
    truth: dict[str, pd.DataFrame] = field(default_factory=dict)
    pair: Pair | None = None  # its channels held against each other, of fields from files
    # Of accepted ones, by exposure/session.py
    exposure: dict[str, float] = field(default_factory=dict)


def take(entry: Field, raw: Path, limits: Limits) -> Outcome:
    """Read, check and write one field below the folder `raw`; of a refused one, nothing."""
    try:
        if entry.problem:
            raise Refused(*entry.problem)
        frame = entry.read()
        size = frame.pixel_size_um or entry.pixel_size_um or limits.pixel_size_um
        brightfield, pi = check_frame(frame, entry, _smallest(limits, size))
        mask = entry.mask(brightfield.shape)
        digests = pixel_digest(brightfield), pixel_digest(pi)
        if isinstance(entry, FileField) and entry.sha256 not in (None, digests):
            raise Refused("changed", "the pixels are not those that the source's list states")
    except Refused as refused:
        row = dict(zip(REJECTED, (entry.image_id, refused.file or entry.name, str(refused), "")))
        return Outcome(entry.image_id, entry.name, rejected=row)
    row = {name: getattr(entry, name) for name in MANIFEST_COLUMNS[:9]} | {
        "pixel_size_um": size,
        "brightfield_bits": bits(frame.brightfield),
        "pi_bits": bits(frame.pi),
    }
    row |= {"height": brightfield.shape[0], "width": brightfield.shape[1]}
    for role, image, digest in zip(("brightfield", "pi"), (brightfield, pi), digests):
        row |= {role: f"{role}/{entry.image_id}.tif", f"{role}_sha256": digest}
        write_tiff(raw / row[role], image, size)
    row["nuclei"] = "" if mask is None else f"nuclei/{entry.image_id}.tif"
    if mask is not None:
        kind = np.uint16 if mask.max() < 2**16 else np.uint32
        write_tiff(raw / row["nuclei"], mask.astype(kind), size)
    pair = compare(brightfield, pi) if isinstance(entry, FileField) else None
    truth = _truth(frame, entry.image_id)
    found = {"truth": truth, "pair": pair, "exposure": exposures(brightfield, pi)}
    return Outcome(entry.image_id, entry.name, accepted=row, **found)


def rests_on(entry: Field, raw: Path, limits: Limits) -> tuple | None:
    """What `take` makes of a field rests on, its files by their digests; None of a simulated one.
    Raises OSError.
    """
    if not isinstance(entry, FileField) or entry.problem:
        return None
    return by_digest(entry), limits


def write_tiff(path: Path, image: np.ndarray, pixel_size_um: float | None) -> None:
    """Write a (H, W) image of unsigned integers as a single uncompressed page; the same pixels and
    pixel size give the same bytes.
    """
    known = {}
    if pixel_size_um:
        known = {"resolution": (1e4 / pixel_size_um,) * 2, "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(
        path, image, byteorder="<", photometric="minisblack", metadata=None, software=False, **known
    )


def refuse_same_pixels(outcomes: Iterable[Outcome], raw: Path) -> Iterator[Outcome]:
    """The outcomes, where a field is refused and removed if an earlier one holds the pixels of
    either channel.

    `duplicate_of` names the earlier id: the gate after this stage fails on it, as the source is
    wrong about one.
    """
    seen: dict[tuple[str, str], str] = {}
    for outcome in outcomes:
        yield _once(outcome, raw, seen) if outcome.accepted else outcome


def written(row: dict, raw: Path) -> list[Path]:
    """The files of a row of images.csv."""
    return [raw / row[role] for role in ("brightfield", "pi", "nuclei") if row[role]]


def _once(outcome: Outcome, raw: Path, seen: dict[tuple[str, str], str]) -> Outcome:
    row = outcome.accepted
    keys = {title: (role, row[f"{role}_sha256"]) for role, title in TITLES.items()}
    for title, key in keys.items():
        if first := seen.get(key):
            for path in written(row, raw):
                path.unlink()
            reason = f"same pixels: its {title} image is that of {first}"
            rejected = dict(zip(REJECTED, (outcome.image_id, outcome.name, reason, first)))
            return replace(outcome, accepted=None, rejected=rejected, truth={})
    seen.update(dict.fromkeys(keys.values(), outcome.image_id))
    return outcome


def _smallest(limits: Limits, pixel_size_um: float | None) -> int:
    """The window in pixels of a field.

    Raises Refused when micrometres are asked of a field of unknown pixel size.
    """
    try:
        return in_pixels(limits.window, limits.unit, pixel_size_um)
    except ValueError as error:
        raise Refused("pixel size", str(error)) from None


def _truth(frame: Frame, image_id: str) -> dict[str, pd.DataFrame]:
    return {name: table.round(6).assign(image_id=image_id) for name, table in frame.truth.items()}
