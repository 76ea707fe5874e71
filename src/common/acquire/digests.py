"""The git-tracked list of a source folder's files, with their digests: `sources/folder.csv`.

It stands for images that neither git nor DVC holds: it is acquire's dependency, so `dvc repro`
notices added, changed and removed images once `unstained digest` has refreshed it. acquire never
goes on with a list that does not match.
"""

import csv
from pathlib import Path

from joblib import Parallel, delayed
from tqdm import tqdm

from ..images.entries import measured
from ..images.field import SourceError
from ..images.listing import image_files, printable
from ..images.manifest import MANIFEST
from ..workspace.paths import WORKSPACE
from ..workspace.sections import Dataset
from . import sources

DIGEST_COLUMNS = ("file", "bytes", "sha256")
SHOWN = 20
REFRESH = "`unstained digest` writes sources/folder.csv anew; commit it with git"
Digests = dict[str, tuple[int, str]]  # file, relative to its folder -> size in bytes, sha256


def refresh(dataset: Dataset) -> Path:
    """Write the list of the files that dataset.path holds now, and return where. Raises
    SourceError.

    Only the source `folder` has files of its own; the other sources' lists are part of the project.
    """
    path = sources.list_of(dataset)
    if dataset.source == "folder":
        folder = sources.folder_of(dataset)
        if not (files := measure(folder)):
            raise SourceError(
                f"{folder} holds no images (TIFF, PNG or OME-Zarr): "
                f"the list {path.name} was left as it is"
            )
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerows([DIGEST_COLUMNS, *((name, *files[name]) for name in sorted(files))])
    return path


def check_list(dataset: Dataset) -> str:
    """Hold the list against the folder; returns what is worth saying. Raises SourceError when they
    differ.

    A list with its header alone is passed: a lab may start without one.
    """
    if dataset.source != "folder":
        return ""
    listed = read(sources.list_of(dataset))
    if not listed:
        return (
            "sources/folder.csv lists no files, "
            f"so `dvc repro` will not notice changed images: {REFRESH}"
        )
    changes = differences(listed, measure(sources.folder_of(dataset)))
    if changes:
        more = [f"and {len(changes) - SHOWN} more"] if len(changes) > SHOWN else []
        lines = "\n  ".join([*changes[:SHOWN], *more])
        raise SourceError(
            f"{dataset.path} is not as sources/folder.csv lists it:\n  {lines}\n{REFRESH}"
        )
    return ""


def measure(folder: Path) -> Digests:
    """Size and SHA-256 of every image of a folder and of its manifest, read on all cores: of a file
    that did not change since, as it was.
    """
    names = image_files(folder) + [MANIFEST] * (folder / MANIFEST).is_file()
    jobs = (delayed(measured)(folder / name) for name in names)
    results = Parallel(n_jobs=-1, prefer="threads", return_as="generator")(jobs)
    bar = tqdm(results, "digests", total=len(names), unit="file")
    return dict(zip(map(printable, names), bar))


def read(path: Path) -> Digests:
    """A digest list; empty when it holds its header alone. Raises SourceError for anything else
    than a list.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            return {row["file"]: (int(row["bytes"]), row["sha256"]) for row in rows}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{path.relative_to(WORKSPACE)} is not a digest list ({error!r}): {REFRESH}"
        ) from None


def differences(listed: Digests, present: Digests) -> list[str]:
    """One line for each file that was added, removed or changed since the list was made."""
    both = listed.keys() & present.keys()
    kinds = {
        "added": present.keys() - both,
        "removed": listed.keys() - both,
        "changed": {name for name in both if listed[name] != present[name]},
    }
    return [f"{kind}: {name}" for kind, names in kinds.items() for name in sorted(names)]
