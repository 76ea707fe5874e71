"""Records as JSON files, read and written in one way: the same content is the same bytes."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from .errors import UserError
from .paths import existing

ANEW = "`git checkout` or `dvc repro` it"
DECIMALS = 6  # of the floats of metrics and reports


class Record(dict):
    """An object of a JSON text. Asking for a key that it lacks raises UserError with the text's
    name and what to do: records of other versions lack some, and people edit them.
    """

    def __init__(self, name: str, cure: str, content: dict) -> None:
        super().__init__(content)
        self._name, self._cure = name, cure

    def __missing__(self, key: str) -> NoReturn:
        raise UserError(
            f"{self._name} lacks {key!r}, as of another version or changed by hand: {self._cure}"
        )


def read_json(path: Path) -> Record:
    """The content of a JSON file. Raises MissingInput if it does not exist, UserError as `parse`
    does.
    """
    return parse(existing(path).read_text(errors="replace"), str(path))


def parse(text: str, name: str, cure: str = ANEW) -> Record:
    """The object that a JSON text holds; messages say its name and what to do. Raises UserError if
    it holds none: it was cut off, or merged by hand.
    """
    try:
        found = json.loads(text, object_hook=partial(Record, name, cure))
    except json.JSONDecodeError as error:
        raise UserError(f"{name} is no JSON ({error}): {cure}") from None
    if not isinstance(found, Record):
        raise UserError(f"{name} is no JSON of a record, but {text[:20]!r}: {cure}")
    return found


def dig(record: dict | None, *keys: str) -> Any:
    """What lies deep inside a record; None where any of it lacks."""
    found: Any = record
    for key in keys:
        found = (found or {}).get(key)
    return found


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
