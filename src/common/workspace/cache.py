"""What was made of single images, so that a plate that grows costs what is new in it.

Beside DVC's cache, which knows whole stages, `.cache` of the repository keeps results by digests of
what they rest on: pixels or files, parameters, code, versions of libraries. It is bounded
(UNSTAINED_CACHE_GB; what was used least recently goes first), and a fault in it never stops a run.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from time import time_ns

import yaml

from . import parallel
from .entries import Entries, opened
from .paths import WORKSPACE

LIBRARIES = (
    "numpy", "scipy", "pandas", "opencv-python-headless", "scikit-image", "tifffile", "imagecodecs",
    "zarr", "torch", "timm", "openvino",
)  # fmt: skip
SETTLED = 2_000_000_000  # ns: a file changed since may change again within its time stamp's step


class Kept:
    """What the code below some paths makes of single images, as long as it stays as it is."""

    def __init__(self, code: Sequence[str]) -> None:
        versions = [version(name) for name in LIBRARIES]
        self._context = _code_digest(code), versions

    @classmethod
    def of_stage(cls, stage: str) -> "Kept":
        """Of the code on which dvc.yaml says that a stage rests; in a tree without it, of all."""
        graph = WORKSPACE / "dvc.yaml"
        if not graph.exists():
            return cls(["src"])
        deps = yaml.safe_load(graph.read_text())["stages"][stage]["deps"]
        return cls([dep for dep in deps if dep.startswith("src/")])

    def each(
        self, function: Callable, items: Sequence[tuple], key: Callable, workers: int, name: str,
        unit: str, files: Callable = lambda _: [],
    ) -> Iterator:  # fmt: skip
        """The results of `function(*item)` in order, as `parallel.each` gives them; what is kept is
        not computed again.

        function: gives what `entries.pack` takes. key(*item): what a result rests on, said in full
        by its repr, or None for what is not to be kept. files(result): the files that it wrote,
        which come back with it, or None for a result that is not to be kept.
        """
        kept = opened()
        if kept is None:
            yield from parallel.each(function, items, workers, name, unit, len(items))
            return
        keys = [self._key(function, key, item) for item in items]
        there = [one in kept for one in keys]
        new = [item for item, held in zip(items, there) if not held]
        if any(there):
            print(f"{name}: {sum(there)} of {len(items)} {unit}s as they were, from the cache")
        fresh = parallel.each(function, new, workers, name, unit, len(new)) if new else iter(())
        for item, one, held in zip(items, keys, there):
            result = _back(kept, one, files) if held else None
            if result is None:  # also of an entry that is damaged, or went in the meantime
                result = function(*item) if held else next(fresh)
                if one and one == self._key(function, key, item):  # nobody wrote in between
                    _keep(kept, one, result, files(result))
            yield result
        next(fresh, None)  # ends its bar and its workers

    def _key(self, function: Callable, key: Callable, item: tuple) -> str:
        """'' for what is not kept, as are results of files that cannot be read."""
        try:
            rests_on = key(*item)
        except OSError:
            return ""
        said = repr((function.__module__, function.__qualname__, self._context, rests_on))
        return hashlib.sha256(said.encode()).hexdigest() if rests_on is not None else ""


def _back(kept: Entries, key: str, files: Callable) -> object | None:
    """A kept result, whose files are written again, or None."""
    held = kept.get(key)
    if held is None:
        return None
    result, contents = held
    for path, content in zip(files(result), contents):
        path.write_bytes(content)
    return result


def _keep(kept: Entries, key: str, result: object, files: Sequence[Path] | None) -> None:
    if files is not None:
        kept.put(key, (result, [path.read_bytes() for path in files]))


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, which is read again only where its place, size or times are others."""
    seen, kept = path.stat(), opened()
    times = seen.st_mtime_ns, seen.st_ctime_ns
    mark = f"{path.absolute()} {seen.st_ino} {seen.st_size} {times}"
    if kept and (remembered := kept.get(mark)):
        return remembered
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if kept and time_ns() - max(times) > SETTLED:
        kept.put(mark, digest)
    return digest


def _code_digest(code: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for top in code:
        path = WORKSPACE / top
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(WORKSPACE)}\0".encode() + file.read_bytes())
    return digest.hexdigest()
