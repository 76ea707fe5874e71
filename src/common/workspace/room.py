"""What a disk refused, in one line: no room, not for this user, or a path that leads nowhere."""

import errno
import shutil
from collections.abc import Iterable
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (*FULL, errno.EROFS, errno.EACCES, errno.EPERM)
SAID = ("No space left on device", "disk is full", "Disk quota exceeded")  # SQLite says the second
# What is no OSError, of SQLite under MLflow's store and of pathlib, and what to do
STORE = {
    "database is locked": "is locked by another process: wait until it has ended, or end it, and "
    "repeat (`fuser` names who holds the file)",
    "readonly database": "may not be written by this user: make it and its folder writable",
}
PATHS = {
    "symlink loop from": "name the folder or file itself",
    "could not determine": "set HOME, or name the folder or file itself",
}
LEAST = 2**16  # bytes


def of_the_disk(error: BaseException, places: Iterable[Path]) -> str:
    """What a disk refused to hold, where and why; '' of another error. places: folders written to.

    Some libraries raise errors of their own on a full disk, so what they say and its room are
    looked at.
    """
    if isinstance(error, OSError) and error.errno in REFUSED and error.filename:
        return str(error)
    for said, cure in PATHS.items():
        if isinstance(error, RuntimeError) and str(error).lower().startswith(said):
            return f"{str(error).rstrip('.')}: {cure}"
    for said, cure in STORE.items():
        if said in str(error):
            return f"the MLflow store {cure}"
    full = [place for place in places if place.exists() and free(place) < LEAST]
    lines = str(error).splitlines() or [""]
    told = next((line for line in lines if any(said in line for said in SAID)), "")
    if not full and not told:
        return str(error) if isinstance(error, OSError) and error.errno in REFUSED else ""
    where = f" of {full[0]}" if full else ""
    return f"No space left on the disk{where}: make room and repeat ({told or lines[0]})"


def free(place: Path) -> int:
    """Bytes that a place's disk has left."""
    return shutil.disk_usage(place).free
