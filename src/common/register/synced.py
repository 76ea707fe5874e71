"""Whether a sync has anything to do: told by names, sizes and times of files, as make does, since
MLflow alone takes seconds to import.
"""

import json
import os
import sysconfig
from hashlib import sha256
from pathlib import Path

from ..tracking.origin import git
from ..workspace.paths import METRICS, MLRUNS, MODELS, REPORTS, WORKSPACE

STORE, LAST = (MLRUNS / "mlflow.db", MLRUNS / "artifacts"), MLRUNS / "synced.json"
FOLDERS = (METRICS, MODELS, REPORTS, WORKSPACE / "src")
# A package names the versions of libraries, whose folder changes with each that is installed
SINGLE = WORKSPACE / "params.yaml", WORKSPACE / "dvc.lock", Path(sysconfig.get_path("purelib"))


def sync() -> None:
    """Rebuilds in MLflow what it lacks (`sync_all`), unless nothing has changed since that was last
    found whole. A server, which others change, is always asked.
    """
    own, now = not os.environ.get("MLFLOW_TRACKING_URI"), outputs()
    if own and LAST.exists() and LAST.read_text() == state(now):
        print("sync: nothing has changed since the last one")
        return
    from .sync import sync_all  # slow: brings MLflow

    if sync_all() and own:
        LAST.write_text(state(now))


def state(now: str) -> str:
    """What a sync that found all outputs leaves: their digest, and how the store lies there now."""
    return json.dumps([now, *map(_stat, STORE)])


def outputs() -> str:
    """Digest of what a sync reads: places, sizes and times of files, and experiments in git."""
    files = [path for folder in FOLDERS for path in sorted(folder.rglob("*")) if path.is_file()]
    told = [_stat(path) for path in (*files, *SINGLE) if path.suffix != ".pyc"]
    told += [git("for-each-ref", "refs/exps"), os.environ.get("DVC_EXP_NAME", "")]
    return sha256(json.dumps(told).encode()).hexdigest()


def _stat(path: Path) -> list[str | int]:
    """A file's place, number, size and time of change; its place alone if it is not there."""
    if not path.exists():
        return [str(path)]
    seen = path.stat()
    return [str(path), seen.st_ino, seen.st_size, seen.st_mtime_ns]
