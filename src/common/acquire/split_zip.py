"""Joining a zip that was split into parts (zip -s) and extracting it safely.

A split zip is one zip cut into pieces, but its directory counts offsets from the start of the part
(APPNOTE.TXT 4.4.13, 4.4.16, 4.4.24); joining is concatenation with those offsets rewritten.
"""

import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from ..images.field import SourceError

BUFFER = 1 << 20
LARGEST = 4 << 30  # bytes a joined zip without 64-bit offsets can hold
MAX_MEMBER = 4 << 30  # bytes of one extracted file: a microscope field is a few million
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, FileExistsError,
          NotADirectoryError)  # fmt: skip
# End of central directory: disks at 1 and 2, entries at 3 and 4, size, offset, comment
END = struct.Struct("<4s4H2LH")
ENTRY_SIZE, ENTRY_NAMES, ENTRY_DISK, ENTRY_OFFSET = 46, 28, 34, 42


def join(parts: list[Path], joined: Path) -> None:
    """Write the parts as one plain zip; the last part is the .zip. Raises SourceError."""
    sizes = [part.stat().st_size for part in parts]
    if sum(sizes) >= LARGEST:
        raise SourceError(f"the archive is larger than {LARGEST} bytes: join it with `zip -s 0`")
    with joined.open("wb") as out:
        for part in tqdm(parts, "join", unit="part"):
            with part.open("rb") as stream:
                shutil.copyfileobj(stream, out, BUFFER)
    starts = [sum(sizes[:n]) for n in range(len(sizes))]
    with joined.open("r+b") as stream:
        _rewrite(stream, starts, sum(sizes), parts[-1].name)


def _rewrite(stream, starts: list[int], size: int, name: str) -> None:
    """Make every offset of the directory count from the start of the joined file."""
    stream.seek(max(0, size - END.size - 0xFFFF))
    tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + END.size:
        raise SourceError(f"{name} does not end like a zip: it is damaged or not the last part")
    end = list(END.unpack_from(tail, at))
    if end[1] + 1 != len(starts):
        raise SourceError(
            f"{name} ends an archive of {end[1] + 1} parts, but {len(starts)} are there: "
            "fetch the others"
        )
    if 0xFFFF in end[1:5] or 0xFFFFFFFF in end[5:7] or end[2] >= len(starts):
        raise SourceError(
            f"{name} is a zip with 64-bit offsets: join the parts with `zip -s 0` first"
        )
    begin = starts[end[2]] + end[6]
    stream.seek(begin)
    directory = bytearray(stream.read(end[5]))
    at_entry = 0
    for _ in range(end[4]):
        at_entry = _move(directory, at_entry, starts, name)
    end[1:4], end[6] = (0, 0, end[4]), begin
    stream.seek(begin)
    stream.write(directory)
    stream.seek(size - len(tail) + at)
    stream.write(END.pack(*end))


def _move(directory: bytearray, at: int, starts: list[int], name: str) -> int:
    """Rewrite one entry of the directory; returns where the next begins."""
    if directory[at : at + 4] != b"PK\x01\x02" or at + ENTRY_SIZE > len(directory):
        raise SourceError(f"the directory of {name} is damaged: fetch the parts again")
    lengths = struct.unpack_from("<3H", directory, at + ENTRY_NAMES)
    (disk,) = struct.unpack_from("<H", directory, at + ENTRY_DISK)
    (offset,) = struct.unpack_from("<L", directory, at + ENTRY_OFFSET)
    if disk >= len(starts) or offset == 0xFFFFFFFF:
        raise SourceError(
            f"the directory of {name} points outside the parts: join them with `zip -s 0` first"
        )
    struct.pack_into("<H", directory, at + ENTRY_DISK, 0)
    struct.pack_into("<L", directory, at + ENTRY_OFFSET, starts[disk] + offset)
    return at + ENTRY_SIZE + sum(lengths)


def extract(archive: Path, folder: Path) -> None:
    """Extract every regular file below `folder`, its checksum verified.

    Raises SourceError; nothing is left outside.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            for member in members:
                _refuse_unsafe(member)
            _refuse_too_large(members, folder)
            for member in tqdm(members, "extract", unit="file"):
                target = folder / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as stream, target.open("xb") as out:
                    shutil.copyfileobj(stream, out, BUFFER)
    except DAMAGE as error:
        raise SourceError(f"the archive is damaged: {error}. Fetch its parts again") from None


def _refuse_unsafe(member: zipfile.ZipInfo) -> None:
    path = PurePosixPath(member.filename)
    odd = "\\" in member.filename or ":" in member.filename
    reasons = {
        "lies outside the archive's folder": path.is_absolute() or ".." in path.parts or odd,
        "is a link": stat.S_ISLNK(member.external_attr >> 16),
        "is encrypted": member.flag_bits & 1,
    }
    for why, holds in reasons.items():
        if holds:
            raise SourceError(f"the archive is refused: its member {member.filename!r} {why}")


def _refuse_too_large(members: list[zipfile.ZipInfo], folder: Path) -> None:
    total = sum(m.file_size for m in members)
    largest = max(members, key=lambda m: m.file_size, default=None)
    if largest and largest.file_size > MAX_MEMBER:
        raise SourceError(
            f"the archive is refused: {largest.filename} would be {largest.file_size} bytes"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if total > (free := shutil.disk_usage(folder).free):
        raise SourceError(
            f"the archive needs {total:,} bytes below {folder}, and {free:,} are free"
        )
