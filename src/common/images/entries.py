"""What is done with a list of fields before and after they are read: time points, ids, digests, and
why some were refused.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..scoring.reading.stacks import no_file
from ..workspace.cache import file_digest
from . import omezarr
from .field import Field, Refused, same_file
from .files import FileField
from .planes import Plane


def expand(entry: Field) -> list[Field]:
    """The fields an entry holds: itself, the time points of a stack, or itself marked with why it
    is refused.
    """
    try:
        return entry.expand()
    except Refused as refused:
        return [
            replace(entry, problem=(refused.kind, refused.detail), name=refused.file or entry.name)
        ]


def refuse_repeated(fields: Iterable[Field]) -> list[Field]:
    """The fields, where every later one with the id or the mask of another is marked as refused."""
    return refuse_same_masks(refuse_same_ids(fields))


def refuse_same_ids(fields: Iterable[Field]) -> list[Field]:
    """The fields, where every later one with an id already taken is marked as refused; ids name
    files, and to some file systems capital and small letters are one.
    """
    taken: dict[str, Field] = {}
    result = []
    for entry in fields:
        if not entry.problem:
            first = taken.setdefault(same_file(entry.image_id), entry)
            if first is not entry:
                entry = replace(entry, problem=("same id twice", _taken(entry, first)))
        result.append(entry)
    return result


def refuse_same_masks(fields: Iterable[Field]) -> list[Field]:
    """The fields, where every later one with the nuclei mask of another is marked as refused."""
    taken: dict[Plane, Field] = {}
    result = []
    for entry in fields:
        mask = getattr(entry, "nuclei", None)
        if mask and (first := taken.setdefault(mask, entry)) is not entry and not entry.problem:
            detail = f"{mask.name} is already that of {first.image_id}"
            entry = replace(entry, problem=("nuclei mask", detail))
        result.append(entry)
    return result


def file_notes(fields: Sequence[Field]) -> list[str]:
    """Notes on fields, once expanded: files that are compressed in a way that may lose texture, and
    files of another pixel size than the manifest's.
    """
    notes = []
    if lossy := [one for one in fields if one.lossy]:
        how = ", ".join(sorted({one.lossy for one in lossy}))
        notes.append(
            f"WARNING: {len(lossy)} of {len(fields)} images ({lossy[0].name}, ...) are compressed "
            f"as {how}, which may have lost the fine texture that calls rest on: export them "
            "uncompressed or without loss (LZW, deflate)"
        )
    known = [one for one in fields if one.pixel_size_um and one.file_um]
    if other := [one for one in known if abs(one.pixel_size_um / one.file_um - 1) > 0.01]:
        first = other[0]
        notes.append(
            f"WARNING: {len(other)} of {len(fields)} images ({first.name}, ...) state another "
            f"pixel size than the manifest, which is taken: {first.pixel_size_um:g} um instead of "
            f"{first.file_um:g}"
        )
    return notes


def _taken(entry: Field, first: Field) -> str:
    if entry.image_id == first.image_id:
        return f"it is already the id of {first.name}"
    return (
        f"{entry.image_id} differs from {first.image_id}, the id of {first.name}, only in case or "
        "accents: files named after them would replace each other on some systems"
    )


def pixel_digest(image: np.ndarray) -> str:
    """SHA-256 of an image's dtype, shape and little-endian pixels: the same whatever file format
    held them.
    """
    pixels = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("<"))
    head = f"{pixels.dtype.name} {'x'.join(map(str, pixels.shape))} ".encode()
    return hashlib.sha256(head + pixels.tobytes()).hexdigest()


def measured(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file; of an image in an OME-Zarr store its files' sizes together, and
    the digest of their digests with their names. Raises OSError.
    """
    if not path.is_dir():
        if path.is_symlink() and not path.exists():
            raise OSError(f"{path} is a link that leads nowhere: mend it, or take it out")
        if other := no_file(path):
            raise OSError(f"{path} is {other}, not a file: take it out of the folder")
        return path.stat().st_size, file_digest(path)
    size, digest, store = 0, hashlib.sha256(), omezarr.store_of(path) or path
    for file in omezarr.files_of(path):
        size += file.stat().st_size
        name = file.relative_to(store).as_posix()
        digest.update(f"{name} {file_digest(file)}\n".encode())
    return size, digest.hexdigest()


def by_digest(entry: FileField) -> FileField:
    """The field with its files' digests instead of their places, and without its line in the
    manifest: what reading it gives rests on nothing else. Raises OSError.
    """
    planes = {role: getattr(entry, role) for role in ("brightfield", "pi", "nuclei")}
    known = {role: plane for role, plane in planes.items() if plane}
    seen = {role: replace(one, file=Path(measured(one.file)[1])) for role, one in known.items()}
    return replace(entry, where="", **seen)


def summary(rejected: Iterable[dict]) -> str:
    """How many fields were refused for which kind of reason, with the first of each kind."""
    kinds: dict[str, list[dict]] = {}
    for row in rejected:
        kinds.setdefault(row["reason"].partition(":")[0], []).append(row)
    most_first = sorted(kinds.values(), key=len, reverse=True)
    lines = (f"{len(own)} x {own[0]['reason']} ({own[0]['file']})" for own in most_first)
    return "\n".join(f"  {line}" for line in lines)


def size_note(sizes: Iterable[float | None], given: float | None, setting: str) -> list[str]:
    """A note where fields or their files state another pixel size (um) than a setting gives: theirs
    are taken.
    """
    if not given:
        return []
    others = sorted({size for size in sizes if size and abs(size - given) > 0.01 * given})
    told = ", ".join(f"{size:g}" for size in others)
    words = "the manifest or the files state their own um per pixel, which is taken"
    return [f"{words}: {told} instead of {setting} {given:g}"] if others else []
