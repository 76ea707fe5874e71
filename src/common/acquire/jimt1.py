"""The paper's own archive of JIMT-1 fields: a zip split into 15 parts in a public repository.

The parts are downloaded into a cache (or taken from a folder), held against the digests in
sources/jimt1.csv, joined, checked and extracted; dataset.pattern then pairs bright-field with PI,
since the inner layout is not documented.
"""

import csv
import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from ..images import folder
from ..images.field import Found, SourceError, known
from ..images.layout import Layout
from ..images.listing import describe
from .split_zip import BUFFER, extract, join

ADDRESS = "https://raw.githubusercontent.com/emmanueliarussi/live-dead-JIMT-1/d379c6d32d4f7ec8484c7016fa73abd4b1f67d95"
ATTEMPTS = 5
WAIT = 2  # seconds, once more at each attempt


def find(listed: Path, cache: Path, parts: Path | None, address: str, layout: Layout) -> Found:
    """The archive's fields; `parts` is a folder that holds it, else it is downloaded. Raises
    SourceError.
    """
    with listed.open(newline="", encoding="utf-8") as stream:
        digests = {row["file"]: row["git_blob"] for row in csv.DictReader(stream)}
    images = cache / f"images-{_key(digests)}"
    if parts is not None:
        images = unpack(parts, cache, digests)
    elif not images.is_dir():
        download(address or ADDRESS, cache / "parts", digests)
        images = unpack(cache / "parts", cache, digests)
    return pair(images, layout)


def _key(digests: dict[str, str]) -> str:
    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()[:12]


def unpack(parts: Path, cache: Path, digests: dict[str, str]) -> Path:
    """The folder with the archive's files, extracted unless it was before. Raises SourceError."""
    names = archive_parts(known(parts, "the archive's folder"))
    blobs = {name: git_blob(parts / name) for name in tqdm(names, "verify parts", unit="part")}
    if wrong := [name for name in names if digests.get(name, blobs[name]) != blobs[name]]:
        raise SourceError(
            "these parts of the archive are damaged: "
            f"remove and fetch them again: {', '.join(wrong)}"
        )
    key = _key(blobs)
    images = cache / f"images-{key}"
    if not images.is_dir():
        partial, joined = cache / f"partial-{key}", cache / f"joined-{key}.zip"
        cache.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        join([parts / name for name in names], joined)
        extract(joined, partial)
        joined.unlink()
        partial.rename(images)
    return images


def archive_parts(parts: Path) -> list[str]:
    """The names of one archive's parts in order, the .zip last.

    Raises SourceError when parts are missing.
    """
    zips = sorted(path for path in parts.iterdir() if path.suffix.lower() == ".zip")
    if len(zips) != 1:
        there = ", ".join(path.name for path in zips) or "none"
        raise SourceError(
            f"{parts} must hold one .zip (the last part of the archive), found: {there}"
        )
    stem = zips[0].stem
    numbers = {
        int(path.suffix[2:]): path.name
        for path in parts.glob("*.[zZ][0-9]*")
        if path.stem == stem and path.suffix[2:].isdecimal()
    }
    if gaps := sorted(set(range(1, max(numbers, default=0) + 1)) - numbers.keys()):
        raise SourceError(
            f"{parts} lacks parts of the archive: {', '.join(f'{stem}.z{n:02d}' for n in gaps)}"
        )
    return [*(numbers[n] for n in sorted(numbers)), zips[0].name]


def git_blob(path: Path) -> str:
    """The name git gives a file's content: what the public repository lists for each part."""
    head = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: head).hexdigest()


def download(address: str, parts: Path, digests: dict[str, str]) -> None:
    """Fetch the listed parts that are not there yet; a broken download goes on where it stopped.
    Raises SourceError.
    """
    parts.mkdir(parents=True, exist_ok=True)
    for name, digest in digests.items():
        if (parts / name).is_file():
            continue
        partial = parts / f"{name}.partial"
        _fetch(f"{address.rstrip('/')}/{name}", partial)
        if git_blob(partial) != digest:
            partial.unlink()
            raise SourceError(
                f"{address}/{name} is not the file that is listed: try again, "
                "or check dataset.repository"
            )
        partial.rename(parts / name)


def _fetch(url: str, partial: Path) -> None:
    for attempt in range(ATTEMPTS):
        try:
            return _resume(url, partial)
        except urllib.error.HTTPError as error:
            reason = f"{error.code} {error.reason}"
            if error.code < 500:
                break
        except (OSError, http.client.HTTPException) as error:  # it failed, or ended early
            reason = str(error)
        print(f"{url}: {reason}; attempt {attempt + 1} of {ATTEMPTS}")
        time.sleep(WAIT * attempt)
    raise SourceError(
        f"cannot download {url}: {reason}. What arrived is kept, and the next run goes on from "
        "there. Without internet, set dataset.path to a folder with the parts"
    )


def _resume(url: str, partial: Path) -> None:
    """Append the rest of a file to what is there; start over where the server cannot resume."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: the file is complete, or not this one
            return
        raise
    with response:
        have = have if response.status == 206 else 0
        total = have + int(response.headers.get("Content-Length") or 0)
        bar = tqdm(desc=partial.stem, total=total or None, initial=have, unit="B", unit_scale=True)
        with partial.open("ab" if have else "wb") as stream, bar:
            while chunk := response.read(BUFFER):
                stream.write(chunk)
                bar.update(len(chunk))
    if partial.stat().st_size < total:
        raise urllib.error.ContentTooShortError(
            f"the connection ended after {partial.stat().st_size} bytes", b""
        )


def pair(images: Path, layout: Layout) -> Found:
    """The fields that dataset.pattern finds.

    Raises SourceError, showing what there is, when it pairs none.
    """
    problem = "dataset.pattern is empty"
    if layout.pattern:
        try:
            source = folder.find(images, layout)
        except SourceError as error:
            problem = str(error)
        else:
            if any(entry.problem is None for entry in source.fields):
                return source
            problem = f"no bright-field image has a PI partner; the first: {source.fields[0].name}"
    raise SourceError(
        f"the archive is extracted, but its fields are not paired: {problem}\n{describe(images)}\n"
        "Set dataset.pattern to a regular expression of these paths with named groups such as "
        "channel and partition (a pattern with a / is held against the whole path, else against "
        "the file name), and dataset.channels to what the group channel reads, for example "
        r"'(?P<partition>\w+)/(?P<channel>BF|PI)/(?P<position>\d+)\.tif'"
    )
