"""Where things lie: every path of the graph in one place.

`WORKSPACE` is the tree this code runs in (the repository, or DVC's temporary copy of it); all stage
inputs and outputs are below it. `REPO` is the repository itself, also from a temporary copy: the
MLflow store, checkpoints and relative source folders belong there, since the copy is thrown away.
"""

import os
from pathlib import Path

from .errors import MissingInput

WORKSPACE = Path(__file__).resolve().parents[3]
REPO = Path(os.environ.get("DVC_ROOT") or WORKSPACE)

DATA = WORKSPACE / "data"
RAW = DATA / "raw"
PATCHES = DATA / "patches"
FILTERED = DATA / "filtered"
FEATURES = DATA / "features"
LABELS = DATA / "labels"
SPLITS = DATA / "splits"
MODELS = WORKSPACE / "models"
METRICS = WORKSPACE / "metrics"
REPORTS = WORKSPACE / "reports"
MLRUNS = REPO / "mlruns"
CHECKPOINTS = MLRUNS / "checkpoints"


def from_repo(path: str | Path) -> Path:
    """A user's path: absolute as it is, `~` expanded, relative to the repository root (also in a
    temporary copy).
    """
    return REPO / Path(path).expanduser()


def existing(path: Path) -> Path:
    """The path, if it exists. Raises MissingInput naming it and the command that makes it."""
    if not path.exists():
        raise MissingInput(
            f"{path} does not exist: run `dvc repro`, or `dvc pull` if it was pushed"
        )
    return path
