"""Real MCF-7 fields with a PI channel from the public history of celldetective (Torro et al.;
repository GPL-3.0).

sources/mcf7.csv names each field's file, commit and channels, and the digests of its pixels. Only
those files are fetched, into a cache, from GitHub or any clone of it.
"""

import csv
import os
import shutil
import subprocess
from pathlib import Path

from tqdm import tqdm

from ..images.field import Found, SourceError, metadata
from ..images.files import FileField
from ..images.planes import Plane

REPOSITORY = "https://github.com/celldetective/celldetective.git"
NEGOTIATE = ("-c", "fetch.negotiationAlgorithm=noop")
# Allows what GitHub's server does
UPLOAD_PACK = "git -c uploadpack.allowFilter=true -c uploadpack.allowAnySHA1InWant=true upload-pack"
# Variables that are set inside git hooks
HOOKS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
AXES = "CYX"  # of every file in the list; most do not state it


def find(manifest: Path, cache: Path, repository: str = "") -> Found:
    """The listed fields, fetched into `cache` unless they lie there already. Raises SourceError."""
    with manifest.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    wanted = {
        (row["commit"], row["file"]): cache / row["commit"][:12] / row["file"] for row in rows
    }
    missing = {key: path for key, path in wanted.items() if not path.is_file()}
    if missing:
        fetch(repository or REPOSITORY, cache / "repository.git", missing)
    return Found([_field(row, wanted[row["commit"], row["file"]]) for row in rows])


def _field(row: dict[str, str], path: Path) -> FileField:
    planes = {
        role: Plane(path, row["file"], int(row[f"{role}_channel"]), AXES)
        for role in ("brightfield", "pi")
    }
    digests = (row["brightfield_sha256"], row["pi_sha256"])
    values = metadata(row, row["image_id"])
    return FileField(image_id=row["image_id"], name=row["file"], sha256=digests, **values, **planes)


def fetch(repository: str, clone: Path, wanted: dict[tuple[str, str], Path]) -> None:
    """Write files of a repository's history, named by commit and path, to where `wanted` says.
    Raises SourceError.

    A partial clone: the commits' trees come first, then the contents of the wanted files alone, in
    one request.
    """
    clone.mkdir(parents=True, exist_ok=True)
    git(clone, "init", "--quiet", "--bare")
    partial = {"url": repository, "promisor": "true", "partialCloneFilter": "blob:none"}
    for key, value in partial.items():
        git(clone, "config", f"remote.origin.{key}", value)
    commits = sorted({commit for commit, _ in wanted})
    print(f"fetching {len(wanted)} files from {repository}")
    options = ("--no-tags", "--no-write-fetch-head", "--filter=blob:none", "origin")
    _fetch(clone, repository, "--depth=1", *options, *commits)
    contents = {key: _content(clone, *key) for key in wanted}
    _fetch(clone, repository, *options, *sorted(set(contents.values())))
    for key, path in tqdm(wanted.items(), "extract", unit="file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_bytes(git(clone, "cat-file", "blob", contents[key]))
        part.replace(path)
    shutil.rmtree(clone)


def _content(clone: Path, commit: str, file: str) -> str:
    try:
        return git(clone, "rev-parse", "--verify", "--quiet", f"{commit}:{file}").decode().strip()
    except subprocess.CalledProcessError:
        raise SourceError(f"commit {commit[:12]} of the repository has no file {file}") from None


def _fetch(clone: Path, repository: str, *arguments: str) -> None:
    local = [f"--upload-pack={UPLOAD_PACK}"] if Path(repository).is_dir() else []
    try:
        git(clone, *NEGOTIATE, "fetch", "--progress", *local, *arguments)
    except subprocess.CalledProcessError:
        raise SourceError(
            f"git could not fetch the pinned commits from {repository} (its message stands above). "
            "Without internet set dataset.repository to a local clone, or use dataset.source=folder"
        ) from None


def git(clone: Path, *arguments: str) -> bytes:
    """Run git on a bare repository and return its output; messages go to stderr. Raises
    CalledProcessError.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(HOOKS)}
    environment["GIT_TERMINAL_PROMPT"] = "0"
    command = ["git", f"--git-dir={clone}", *arguments]
    try:
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    except FileNotFoundError:
        raise SourceError("git is not installed, and dataset.source=mcf7 fetches with it") from None
