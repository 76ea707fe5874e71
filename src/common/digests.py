"""Digests of pixels and of files, and the git-tracked list of a source's files.

A list `sources/SOURCE.csv` (file, bytes, sha256) stands for a folder that git and DVC do not hold: it is acquire's
dependency, so `dvc repro` notices added, changed and removed images once `unstained digest` has refreshed it.
"""

import csv
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from tqdm import tqdm

COLUMNS = ("file", "bytes", "sha256")
Digests = dict[str, tuple[int, str]]  # file, relative to its folder -> size in bytes, sha256


def pixel_digest(image: np.ndarray) -> str:
    """SHA-256 of an image's dtype, shape and little-endian pixels: the same whatever file format held them."""
    pixels = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("<"))
    head = f"{pixels.dtype.name} {'x'.join(map(str, pixels.shape))} ".encode()
    return hashlib.sha256(head + pixels.tobytes()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_files(folder: Path, names: Iterable[str], desc: str = "digests") -> Digests:
    """Size and digest of each named file of a folder, read on all cores."""
    names = sorted(names)
    jobs = (delayed(_measure)(folder / name) for name in names)
    results = Parallel(n_jobs=-1, prefer="threads", return_as="generator")(jobs)
    return dict(zip(names, tqdm(results, desc, total=len(names), unit="file")))


def _measure(path: Path) -> tuple[int, str]:
    return path.stat().st_size, file_digest(path)


def read_list(path: Path) -> Digests:
    """A digest list; empty when the file holds its header alone or does not exist."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        return {row["file"]: (int(row["bytes"]), row["sha256"]) for row in csv.DictReader(stream)}


def write_list(path: Path, digests: Digests) -> None:
    """Write a digest list, sorted by file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((name, *digests[name]) for name in sorted(digests))


def differences(listed: Digests, present: Digests) -> list[str]:
    """One line for each file that was added, removed or changed since the list was made."""
    return [
        *(f"added: {name}" for name in sorted(present.keys() - listed.keys())),
        *(f"removed: {name}" for name in sorted(listed.keys() - present.keys())),
        *(f"changed: {name}" for name in sorted(listed.keys() & present.keys()) if listed[name] != present[name]),
    ]
