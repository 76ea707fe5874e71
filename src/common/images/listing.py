"""What files a folder holds, by names that may be of another alphabet, system or century."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from ..workspace.csv_table import seen
from . import omezarr
from .field import SourceError, same_file
from .planes import CONVERT, READABLE

# Beginnings of folders of no images of the user's: hidden ones, thumbnails and bins of servers
ASIDE = (".", "@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "__MACOSX")


def image_files(folder: Path) -> list[str]:
    """Every image of the folder and below, readable or not, as sorted relative paths; hidden ones
    are left out. An image in an OME-Zarr store is a folder of that store.
    """
    return [path.as_posix() for path in _files(folder) if _is_image(folder / path)]


def printable(name: str) -> str:
    """A file's name as text: bytes that are not UTF-8 read as Latin-1, accents composed (NFC)."""
    try:
        name.encode()
    except UnicodeEncodeError:  # Python holds such bytes as lone surrogates, which no file takes
        name = os.fsencode(name).decode("latin-1")
    return unicodedata.normalize("NFC", name)


def on_disk(folder: Path, name: str) -> Path:
    """The file that a table names: as it stands, or the only one that reads alike (`_look`), as
    names do that were written on another system; its folders likewise.
    """
    if os.path.exists(folder / name):
        return folder / name
    place = folder
    for part in Path(name).parts:
        there = os.path.exists(place / part)
        place = place / part if there else _by_look(place).get(_look(part), place / part)
    return place


@lru_cache(maxsize=16)  # of manifests that name thousands of files which are not there
def _by_look(folder: Path) -> dict[str, Path]:
    """What a folder holds by the looks of its name, but what has them in common with another."""
    looks = [(_look(path.name), path) for path in folder.glob("*")]
    count = Counter(look for look, _ in looks)
    return {look: path for look, path in looks if count[look] == 1}


def _look(name: str) -> str:
    """A name without its case, how its accents are composed, what is not seen, blanks around it."""
    return same_file(seen(printable(name))).strip()


def unread(folder: Path, tables: Sequence[str] = ()) -> list[str]:
    """A note on the files of a folder that are no images and no tables in use, or nothing."""
    files = [path for path in _files(folder) if path.name not in tables]
    others = [path for path in files if not _is_image(folder / path)]
    if not others:
        return []
    count = "file is" if len(others) == 1 else "files are"
    read = "images are read from TIFF, OME-TIFF, PNG and OME-Zarr, tables from CSV"
    return [f"{len(others)} {count} not read: {_kinds(others)} ({read})"]


def describe(folder: Path) -> str:
    """What lies in a folder: how many files of each kind, and for some subfolders how many and
    their first names.
    """
    paths = _files(folder)
    if not paths:
        return f"{folder} holds no files"
    places: dict[str, list[str]] = {}
    for path in paths:
        place = printable(path.parent.as_posix())
        places.setdefault(f"{place}/", []).append(printable(path.name))
    lines = [f"{folder} holds {_kinds([folder / path for path in paths])}:"]
    for place, names in list(places.items())[:12]:
        lines.append(f"  {place} {len(names)} files: {', '.join(names[:4])}")
    if len(places) > 12:
        lines.append(f"  and {len(places) - 12} more folders")
    if unnamed := omezarr.unnamed(folder):
        lines.append(f"{unnamed} is a Zarr store: rename it to {unnamed.name}.zarr")
    return "\n".join(lines)


def _is_image(path: Path) -> bool:
    in_store = omezarr.store_of(path) is not None
    return in_store or path.suffix.lower() in {*READABLE, *CONVERT}


def _kinds(paths: Sequence[Path]) -> str:
    kinds = Counter(
        "OME-Zarr" if omezarr.store_of(path) else printable(path.suffix.lower()) or "no suffix"
        for path in paths
    )
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(8))


def _files(folder: Path) -> list[Path]:
    """All files of a folder but hidden ones, relative to it; linked folders are entered too, each
    once. Of an OME-Zarr store, not its files but its images.
    """
    return sorted(path.relative_to(folder) for path in _walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    if omezarr.store_of(folder):
        yield from omezarr.fields(folder)
        return
    entered = set()
    for root, below, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        below[:] = [name for name in below if not name.startswith(ASIDE)]
        real = os.path.realpath(root)
        if real in entered:
            below.clear()
            continue
        entered.add(real)
        for store in [name for name in below if omezarr.store_of(Path(name))]:
            below.remove(store)
            yield from omezarr.fields(Path(root, store))
        yield from (Path(root, name) for name in names if not name.startswith("."))


def _unreadable(error: OSError) -> None:
    """What may not be listed must not look empty. Raises SourceError."""
    if isinstance(error, PermissionError):
        raise SourceError(
            f"{error.filename} cannot be read ({error.strerror}): "
            "ask for the right to read the folder"
        )
