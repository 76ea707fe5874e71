"""The folder that `unstained score` and `unstained validate` write: whose it is, and files whole or
not at all.

The windows of an image are kept in OUT/parts as soon as they are scored, under a key of model,
pixels and pixel size, so that an interrupted or repeated run computes nothing twice.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from ..common.workspace.errors import UserError

MODEL = "model.json"  # in OUT: which model and command it belongs to
NEW = ".new"  # in OUT: where a page and its tables are made before they replace the earlier ones
REMNANTS = {".lock", NEW, "parts"}  # what a run that was killed at its start may leave


class OutputError(UserError):
    """OUT cannot be written, or is another's; the message says why and what to do."""


def refuse(inputs: Sequence[Path], out: Path) -> None:
    """Raises OutputError for an OUT among the images or one that cannot be written; nothing is made
    yet.

    Among the images it would add to them, or replace their manifest.
    """
    place = Path(out).resolve()
    for path in inputs:
        root = Path(path).resolve()
        if root.is_dir() and (root == place or root in place.parents):
            raise OutputError(
                f"--out {out} lies in the folder of images {path}: name a folder outside it"
            )
    there = next(path for path in (place, *place.parents) if os.path.exists(path))
    if not there.is_dir():
        raise OutputError(f"--out {out}: {there} is a file: name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(
            f"--out {out}: you may not write into {there}: name a folder that you may write to"
        )


@contextmanager
def claimed(out: Path, facts: dict, command: str) -> Iterator[dict]:
    """Holds OUT for a model and a command: writes model.json, and keeps a second run out of it.
    Yields what it wrote.

    Raises OutputError if OUT is another's, is being written by another run, or cannot be written.
    """
    lock = FileLock(out / ".lock", timeout=0)
    try:
        before = _before(out, facts, command)
        (out / "parts").mkdir(parents=True, exist_ok=True)
        lock.acquire()
        kept = facts | {"command": command, "created": (before or facts).get("created")}
        whole(out / MODEL, lambda path: path.write_text(json.dumps(kept, indent=2) + "\n"))
    except Timeout:
        raise OutputError(
            f"another run is writing into {out}: wait for it, or give another --out"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"--out {out} cannot be written ({reason}): name a folder that you may write to"
        ) from None
    try:
        yield kept
    finally:
        lock.release()


def _before(out: Path, facts: dict, command: str) -> dict | None:
    """What model.json of an earlier run says, None in a new folder; raises OutputError if
    another's.
    """
    path = out / MODEL
    if path.exists():
        before = _read(path)
        _same(out, before, facts, command)
        return before
    if out.exists() and any(one.name not in REMNANTS for one in out.iterdir()):
        raise OutputError(
            f"{out} is not empty and holds no earlier output: give a new folder as --out"
        )
    return None


def _read(path: Path) -> dict:
    """Raises OutputError for a file that is damaged, as a power failure may leave it."""
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise OutputError(
            f"{path} is damaged: remove {path.parent}, or give another --out"
        ) from None


def _same(out: Path, before: dict, facts: dict, command: str) -> None:
    made_by = before.get("command", "score")
    if made_by != command:
        raise OutputError(
            f"{out} holds the output of `unstained {made_by}`: give `{command}` another --out"
        )
    if before.get("digest") != facts["digest"]:
        raise OutputError(
            f"{out} holds the output of another model ({before.get('uri')}, version "
            f"{before.get('version')}, digest {str(before.get('digest'))[:12]}), and this is "
            f"version {facts['version']}, digest {facts['digest'][:12]}: give another --out, "
            "or remove that folder first"
        )


def part_key(
    model_digest: str, pixels_digest: str, pixel_size_um: float | None, compiled: bool
) -> str:
    """The name of an image's part: the same model, pixels and pixel size give the same windows, but
    for the last digits where the networks are compiled.
    """
    rests_on = f"{model_digest} {pixels_digest} {pixel_size_um} {compiled}"
    return hashlib.sha256(rests_on.encode()).hexdigest()[:32]


def part(out: Path, key: str, predict: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The windows of an image: from its part if there is one, else by `predict`, which are then
    kept.
    """
    path = out / "parts" / f"{key}.parquet"
    if (windows := kept(path)) is None:
        windows = predict()
        whole(path, windows.to_parquet)
    return windows


def kept(path: Path) -> pd.DataFrame | None:
    """The table of an earlier run; None where there is none, or one that was damaged since."""
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError):
        return None


@contextmanager
def together(out: Path, page: str, old: Sequence[str]) -> Iterator[Path]:
    """A folder to make a page and its tables in; they replace those of OUT together, or not at all.

    page: its file, which is taken away first and put back last, so that a run that is killed in
    between leaves no page beside tables of another run. old: patterns of the files of earlier runs,
    which go unless they were made anew.
    """
    new = out / NEW
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        yield new
        (out / page).unlink(missing_ok=True)
        for gone in {path for pattern in old for path in out.glob(pattern)}:
            shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
        for path in sorted(new.iterdir(), key=lambda path: path.name == page):
            path.replace(out / path.name)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write(out: Path, name: str, table: pd.DataFrame) -> None:
    """Writes a table as OUT/NAME.parquet and, for spreadsheets, OUT/NAME.csv."""
    table = table.reset_index(drop=True)
    whole(out / f"{name}.parquet", table.to_parquet)
    whole(out / f"{name}.csv", lambda path: for_spreadsheet(table).to_csv(path, index=False))


def for_spreadsheet(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before every text that a spreadsheet would run as a formula.

    Such texts begin with = + - @, a tab or a line end (OWASP: CSV injection); plain numbers stay.
    """
    texts = table.select_dtypes(["object", "string"]).columns
    return table.assign(**{name: table[name].map(_harmless) for name in texts})


def _harmless(value):
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return value
    return value if re.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", value) else f"'{value}"


def whole(path: Path, put: Callable) -> None:
    """Writes a file by `put(path)` under another name first, so that a killed run leaves no half of
    it.
    """
    temporary = path.with_name(f".{path.name}.part")
    put(temporary)
    temporary.replace(path)
