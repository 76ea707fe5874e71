"""Records as JSON files, read and written in one way: the same content is the same bytes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .errors import UserError
from .paths import existing

DECIMALS = 6  # of the floats of metrics and reports


def read_json(path: Path) -> dict:
    """The content of a JSON file. Raises MissingInput if it does not exist, UserError if it is cut
    off or was merged by hand.
    """
    text = existing(path).read_text(errors="replace")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is no JSON ({error}): `git checkout` or `dvc repro` it") from None


def write_json(path: Path, record: dict) -> None:
    """Writes a record; its folder is made if it lacks. NaN is refused: see `clean`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")


def clean(
    value: object, rounded: Callable[[float], float] = lambda number: round(number, DECIMALS)
) -> object:
    """A value as JSON can hold it: floats rounded, NaN and infinities as None, numpy's scalars as
    Python's, keys as text.
    """
    if isinstance(value, dict):
        return {str(key): clean(part, rounded) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [clean(part, rounded) for part in value]
    if isinstance(value, float | np.floating):
        return rounded(float(value)) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
