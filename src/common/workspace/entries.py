"""The entries of `.cache` (see cache.py): bounded, whole or not there, and never a pickle.

diskcache holds them, any number of processes at a time; MessagePack, numpy and Parquet are what
they are made of. Whatever is wrong with the folder, work goes on without it.
"""

import io
import os
import shutil
import sys
import warnings
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import diskcache
import msgpack
import numpy as np
import pandas as pd

from .csv_table import number_of
from .errors import UserError
from .paths import REPO

FOLDER = REPO / ".cache"
BOUND = "UNSTAINED_CACHE_GB"
DEFAULT_GB = 20  # 2,500 fields of 1344 x 1024 px, at 8 MB each


class _Bytes(diskcache.Disk):
    """Bytes as they are, and nothing else: diskcache would unpickle what a row calls a pickle."""

    def fetch(self, mode: int, filename: str, value: Any, read: bool) -> Any:
        if mode == diskcache.core.MODE_PICKLE:
            raise ValueError("it holds a pickle")
        return super().fetch(mode, filename, value, read)


class Entries:
    """What `.cache` holds, by key; after a fault nothing, of which a line is said."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self._held: diskcache.Cache | None = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._held = diskcache.Cache(
                folder, disk=_Bytes, size_limit=limit, eviction_policy="least-recently-used"
            )
            self._held.cull()
        except Exception as error:  # of the file system or SQLite: anything may be damaged
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._held = None
        why = " ".join(str(error).split())[:200] or type(error).__name__
        said = f"note: goes on without {self.folder} ({why}); `unstained cache --clear` mends it"
        print(said, file=sys.stderr)

    def _try(self, work: Callable[[diskcache.Cache], Any]) -> Any:
        """What the work gives, None if it fails or the cache did before."""
        try:
            return None if self._held is None else work(self._held)
        except Exception as error:  # as above
            return self._give_up(error)

    def __contains__(self, key: str) -> bool:
        return bool(self._try(lambda held: key in held))

    def get(self, key: str) -> Any:
        """The value of a key; None where there is none, or a damaged one."""
        return self._try(lambda held: _read(held, key))

    def put(self, key: str, value: Any) -> None:
        """Keeps a value of plain Python, arrays and tables; older ones go where the bound asks."""
        content = msgpack.packb(value, default=_to_bytes)
        self._try(lambda held: held.set(key, content, tag=zlib.crc32(content)))

    def size(self) -> tuple[int, int]:
        """How many entries there are, and their bytes, after what killed runs left is mended."""
        with warnings.catch_warnings(action="ignore"):  # it tells of each file that it mends
            self._try(lambda held: held.check(fix=True))
        return self._try(lambda held: (len(held), held.volume())) or (0, 0)


def _read(held: diskcache.Cache, key: str) -> Any:
    content, check = held.get(key, tag=True)
    if content is None or zlib.crc32(content) != check:
        return None
    return msgpack.unpackb(content, object_hook=_from_bytes, use_list=False)


def limit() -> int:
    """The bound in bytes that UNSTAINED_CACHE_GB sets, 0 for no cache. Raises UserError."""
    text = os.environ.get(BOUND, str(DEFAULT_GB))
    size = number_of(text)
    if size is None or not 0 <= size < 1e6:
        raise UserError(f"{BOUND} is the most GB that .cache may hold, 0 for none, not {text!r}")
    return int(size * 1e9)


def opened() -> Entries | None:
    """The entries of this repository, None where the bound is 0. Raises UserError."""
    return _opened(FOLDER, limit()) if limit() else None


_opened = lru_cache(maxsize=1)(Entries)  # once in a process, and so its note


def clear() -> None:
    """Takes the folder away, whatever its state; a link stays one. Raises OSError."""
    _opened.cache_clear()
    if FOLDER.is_dir():
        shutil.rmtree(FOLDER.resolve())
    elif FOLDER.is_file():
        FOLDER.unlink()
    if FOLDER.is_symlink():
        FOLDER.resolve().mkdir(mode=0o700)


def _to_bytes(value: Any) -> dict[str, bytes]:
    if isinstance(value, pd.DataFrame):
        return {"parquet": value.to_parquet()}
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"{type(value)} cannot be kept")
    held = io.BytesIO()
    np.save(held, value, allow_pickle=False)
    return {"npy": held.getvalue()}


def _from_bytes(value: dict) -> Any:
    if value.keys() == {"parquet"}:
        return pd.read_parquet(io.BytesIO(value["parquet"]))
    if value.keys() == {"npy"}:
        array = np.load(io.BytesIO(value["npy"]), allow_pickle=False)
        return array if array.ndim else array[()]
    return value
