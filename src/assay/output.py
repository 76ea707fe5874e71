"""The folder that `unstained score` and `unstained validate` write: whose it is, and files whole or
not at all.

The windows of an image are kept in OUT/parts as soon as they are scored, under a key of model,
pixels and pixel size, so that an interrupted or repeated run computes nothing twice.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from ..common.workspace.errors import UserError

MODEL = "model.json"  # in OUT: which model and command it belongs to


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


def claim(out: Path, facts: dict, command: str) -> None:
    """Takes OUT for a model and a command: writes model.json, unless it is there. Raises
    OutputError if another's.
    """
    try:
        path = out / MODEL
        before = json.loads(path.read_text()) if path.exists() else None
        if before is not None:
            _same(out, before, facts, command)
        elif out.exists() and any(out.iterdir()):
            raise OutputError(
                f"{out} is not empty and holds no earlier output: give a new folder as --out"
            )
        (out / "parts").mkdir(parents=True, exist_ok=True)
        kept = facts | {"command": command, "created": (before or facts).get("created")}
        whole(path, lambda temporary: temporary.write_text(json.dumps(kept, indent=2) + "\n"))
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"--out {out} cannot be written ({reason}): name a folder that you may write to"
        ) from None


def _same(out: Path, before: dict, facts: dict, command: str) -> None:
    made_by = before.get("command", "score")
    if made_by != command:
        raise OutputError(
            f"{out} holds the output of `unstained {made_by}`: give `{command}` another --out"
        )
    if before.get("digest") != facts["digest"]:
        raise OutputError(
            f"{out} holds the output of another model ({before.get('uri')}, version {before.get('version')}, digest "
            f"{str(before.get('digest'))[:12]}), and this is version {facts['version']}, digest "
            f"{facts['digest'][:12]}: give another --out, or remove that folder first"
        )


def part_key(model_digest: str, pixels_digest: str, pixel_size_um: float | None) -> str:
    """The name of an image's part: the same model, pixels and pixel size give the same windows."""
    return hashlib.sha256(f"{model_digest} {pixels_digest} {pixel_size_um}".encode()).hexdigest()[
        :32
    ]


def part(out: Path, key: str, predict: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The windows of an image: from its part if there is one, else by `predict`, which are then
    kept.
    """
    path = out / "parts" / f"{key}.parquet"
    if path.exists():
        return pd.read_parquet(path)
    windows = predict()
    whole(path, windows.to_parquet)
    return windows


def write(out: Path, name: str, found: pd.DataFrame) -> None:
    """Writes a table as OUT/NAME.parquet and .csv, whole or not at all."""
    found = found.reset_index(drop=True)
    whole(out / f"{name}.parquet", found.to_parquet)
    whole(out / f"{name}.csv", lambda path: found.to_csv(path, index=False))


def whole(path: Path, put: Callable) -> None:
    """Writes a file by `put(path)` under another name first, so that a killed run leaves no half of
    it.
    """
    temporary = path.with_name(f".{path.name}.part")
    put(temporary)
    temporary.replace(path)
