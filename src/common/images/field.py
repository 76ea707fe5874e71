"""What a source yields: fields of view, each with where its two channels lie, as plain picklable
records.

A source finds fields without reading pixels; the acquire stage reads, checks and writes them on any
number of workers.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ..scoring.reading.pixel_size import PLAUSIBLE
from ..workspace.csv_table import number_of
from ..workspace.errors import UserError
from . import wells

TITLES = {"brightfield": "bright-field", "pi": "PI"}  # of the two channels
TEXTS = ("partition", "experiment", "well", "position", "compound", "control")
NUMBERS = ("time", "day", "concentration", "pixel_size_um")
_CLOCK = re.compile(r"(\d+)d(\d+)h(\d+)m", re.ASCII)  # Incucyte
_ID = re.compile(r"[\w.+=@-]+")
ID_BYTES = 200  # of 255 that file systems allow a name: endings and temporary names come on top


class SourceError(UserError):
    """The source as a whole cannot be used; the message says what is wrong, where, what to do."""


class Refused(UserError):
    """One field cannot be used: the kind of reason, what is wrong and what to do, and the file in
    the source.
    """

    def __init__(self, kind: str, detail: str, file: str = "") -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail, self.file = kind, detail, file


@dataclass(frozen=True)
class Frame:
    """The two registered channels of one field as read: 2-D arrays of the file's dtype."""

    brightfield: np.ndarray
    pi: np.ndarray
    pixel_size_um: float | None = None
    truth: dict[str, pd.DataFrame] = field(default_factory=dict)  # simulated fields only


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of view; unknown text is '', an unknown number None."""

    image_id: str
    partition: str
    experiment: str = ""
    well: str = ""
    position: str = ""
    compound: str = ""
    control: str = ""  # negative (untreated) or positive (all dead), for the assay
    time: float | None = None
    day: float | None = None
    concentration: float | None = None
    pixel_size_um: float | None = None
    name: str = ""  # the file(s), as the source names them
    where: str = ""  # the line or file name that states it
    # What its files say, once they were opened: um per pixel, a compression that may lose texture
    file_um: float | None = None
    lossy: str = ""
    # Kind and detail, when it is refused before any file is opened
    problem: tuple[str, str] | None = None

    def expand(self) -> list["Field"]:
        """The fields of view this entry holds: itself, or one for each time point of a stack.
        Raises Refused.
        """
        return [self]

    def read(self) -> Frame:
        """Read both channels. Raises Refused."""
        raise NotImplementedError

    def mask(self, shape: tuple[int, int] | None = None) -> np.ndarray | None:
        """An instance mask of nuclei or cells (H, W), or None where there is none."""
        return None


@dataclass(frozen=True)
class Found:
    """Everything a source holds, and what is worth saying about it."""

    fields: Sequence[Field]
    notes: tuple[str, ...] = ()


def valid_id(text: str) -> bool:
    """Whether a text can name a field: it becomes a file name and part of every patch_id, which
    uses colons.
    """
    short = len(text.encode(errors="surrogateescape")) <= ID_BYTES
    return short and bool(_ID.fullmatch(text)) and not text.startswith((".", "-"))


def clean_id(text: str) -> str:
    """An image_id made from a file name: every other character becomes an underscore."""
    clean = re.sub(r"[^\w.+=@-]", "_", text).lstrip(".-")
    return clean.encode()[:ID_BYTES].decode(errors="ignore")


def same_file(name: str) -> str:
    """A name without what some file systems make no difference of: case, and how accents are
    composed. Two names that give one text would be one file there.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def metadata(values: Mapping[str, str], where: str) -> dict[str, str | float | None]:
    """Texts as a manifest or a file name gives them, as Field's arguments.

    Raises SourceError for no number, and no well.
    """
    facts: dict[str, str | float | None] = {
        key: " ".join(unicodedata.normalize("NFC", values[key]).split())
        for key in TEXTS
        if values.get(key)
    }
    try:
        if well := wells.stated(values):
            facts["well"] = well
        for key in NUMBERS:
            if text := (values.get(key) or "").strip():
                facts[key] = _number(key, text)
    except ValueError as error:
        raise SourceError(f"{where}: {error}") from None
    return facts


def _number(key: str, text: str) -> float:
    """What a column of numbers holds. Raises ValueError for what it cannot be."""
    number = _read_number(key, text)
    least, most = PLAUSIBLE
    if not np.isfinite(number) or (key == "pixel_size_um" and not least <= number <= most):
        unit = f" (um: {least:g} to {most:g})" * (key == "pixel_size_um")
        raise ValueError(f"{key} cannot be {text}{unit}; leave it empty if not known")
    if number < 0:
        timed = key in ("time", "day")
        unit = "count it from the start" if timed else "an untreated well has 0, or nothing"
        raise ValueError(f"{key} cannot be negative, and is {text}: {unit}")
    return float(f"{number:.9g}")  # 10.000000000000002 is a spreadsheet's 10


def _read_number(key: str, text: str) -> float:
    """A number with a point or a decimal comma, or a time such as 00d06h00m in hours. Raises
    ValueError.
    """
    if key == "time" and (clock := _CLOCK.fullmatch(text)):
        days, hours, minutes = map(int, clock.groups())
        return 24 * days + hours + minutes / 60
    if re.fullmatch(r"[1-9]\d{0,2},\d{3}", text):
        which = "which may be thousands or a decimal comma: write a point"
        raise ValueError(f"{key} is {text!r}, {which}")
    number = number_of(text.replace(",", ".") if text.count(",") == 1 else text)
    if number is None:
        raise ValueError(f"{key} must be a number, not {text!r}; leave it empty if it is not known")
    return number


def known(path: Path, what: str, setting: str = "dataset.path") -> Path:
    """The path, if it exists. Raises SourceError."""
    if not path.exists():
        raise SourceError(
            f"{what} {path} does not exist: set {setting} (relative to the repository, or absolute)"
        )
    return path
