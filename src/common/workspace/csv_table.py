"""CSV files that people write: manifests and annotations, as spreadsheets of any country save them.

Comma, semicolon or tab; with or without a byte order mark; a line `sep=;` before the header; blank
rows and columns; characters that are not seen, as pages and mails bring along; text kept from
becoming a number as ="007". A row of another length than the header is an error with its line,
never a shift.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError

DELIMITERS = ",;\t"
BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # Excel: Unicode text
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_CONTROLS = re.compile(r"[^\t\r\n\x20-\x7e\xa0-\U0010ffff]")  # none belongs into a table
# Byte order marks, soft hyphens, spaces of no width, marks of direction: nobody writes them
_UNSEEN = re.compile("[\ufeff\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069]")
_TEXT = re.compile(r'\A="(.*)"\Z', re.DOTALL)
_CONTROL_NAMES = {"\0": "NUL", "\t": "tab", "\n": "line feed", "\r": "carriage return"}


class TableError(UserError):
    """A CSV file cannot be read as it stands; the message names the line."""


@dataclass(frozen=True)
class Row:
    """One row: its cells by column, stripped, and its line in the file (from 1)."""

    line: int
    cells: dict[str, str]


def read_rows(path: Path, needed: Sequence[str], comments: bool = False) -> list[Row]:
    """The rows of a CSV file, blank ones left out; names of columns in lower case.

    comments: what follows a # is none of a row's. Raises TableError.
    """
    text = _text(path)
    rows, delimiter = _split(path, text, comments)
    if not rows:
        raise TableError(f"{path} lacks the column(s) {', '.join(needed)}; it is empty")
    header = _names(rows[0][1])
    _check_header(path, header, needed)
    return [_row(path, line, cells, header, delimiter) for line, cells in rows[1:]]


def read_header(path: Path, comments: bool = False) -> tuple[list[str], str]:
    """The columns of a CSV file, in lower case, and its delimiter, for who adds rows to it.

    Raises TableError, also for a file without a header and one that is not UTF-8.
    """
    if path.read_bytes()[:2] in BOMS:
        raise TableError(f"{path} is UTF-16 text, to which no row is added: save it as 'CSV UTF-8'")
    rows, delimiter = _split(path, _text(path), comments)
    if not rows:
        raise TableError(f"{path} is empty: it lacks its header")
    return _names(rows[0][1]), delimiter


def number_of(text: str) -> float | None:
    """The number that a text is, None for any other text. Digits are 0 to 9, as people and
    spreadsheets write them: float() would also take 1_0 (for 10), digits of other scripts, nan.
    """
    return float(text) if NUMBER.fullmatch(text) else None


def control_in(text: str) -> str:
    """The first control character of a text by its name, such as NUL (U+0000); '' without one."""
    for character in text:
        if unicodedata.category(character) == "Cc":
            name = _CONTROL_NAMES.get(character, "character")
            return f"{name} (U+{ord(character):04X})"
    return ""


def seen(text: str) -> str:
    """A text without the characters that nobody sees or writes."""
    return _UNSEEN.sub("", text)


def _text(path: Path) -> str:
    """The file's text, without a control character but tabs and line feeds, and without what is
    not seen. Raises TableError.
    """
    text = seen(_decoded(path)).replace("\r\n", "\n").replace("\r", "\n")
    if odd := _CONTROLS.search(text):
        line = text[: odd.start()].count("\n") + 1
        raise TableError(
            f"{path}, line {line}: holds the control {control_in(odd[0])}: take it out, or save "
            "the table anew as 'CSV UTF-8'"
        )
    return text


def _decoded(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:  # not there, a folder, or not readable for this user
        raise TableError(
            f"{path} cannot be read ({error.strerror}): give a CSV file that you may read"
        ) from None
    try:
        return data.decode(BOMS.get(data[:2], "utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        book = data.startswith((b"PK", b"\xd0\xcf"))  # .xlsx and .ods, .xls
        what = " is a workbook" if book else f", line {line}: is not UTF-8 text"
        raise TableError(f"{path}{what}: save it as 'CSV UTF-8'") from None


def _uncommented(line: str) -> str:
    """A line up to its first # outside quotes."""
    head, *parts = line.split("#")
    for part in parts:
        if head.count('"') % 2 == 0:
            break
        head += f"#{part}"
    return head


def _delimiter(text: str) -> str:
    """The most frequent of the delimiters in the first line with anything on it."""
    head = next((line for line in text.splitlines() if line.strip()), "")
    return max(DELIMITERS, key=head.count)


def _names(cells: list[str]) -> list[str]:
    return [" ".join(name.lower().split()) for name in cells]


def _split(path: Path, text: str, comments: bool) -> tuple[list[tuple[int, list[str]]], str]:
    """The rows that are not blank, each with its line, and the delimiter."""
    if comments:
        text = "\n".join(map(_uncommented, text.splitlines()))
    head, _, rest = text.partition("\n")
    told = head.strip().strip('"')
    skipped = told.lower().startswith("sep=")
    delimiter = told[4:5] or "\t" if skipped else _delimiter(text)
    stream = io.StringIO(rest if skipped else text, newline="")
    reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=True, strict=True)
    rows, first = [], 1 + skipped
    line = first
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((line, cells))
            line = first + reader.line_num
    except csv.Error as error:
        raise TableError(f"{path}, line {line}: {error}; check the quotes") from None
    return rows, delimiter


def _check_header(path: Path, header: list[str], needed: Sequence[str]) -> None:
    named = [name for name in header if name]
    if missing := [name for name in needed if name not in named]:
        raise TableError(
            f"{path} lacks the column(s) {', '.join(missing)}; its first line has "
            f"{', '.join(named) or 'none'}"
        )
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise TableError(f"{path} has the column(s) {', '.join(twice)} twice")


def _row(path: Path, line: int, cells: list[str], header: list[str], delimiter: str) -> Row:
    cells = [_TEXT.sub(r"\1", cell.strip()).strip() for cell in cells]
    while len(cells) > len(header) and not cells[-1]:
        cells.pop()
    if len(cells) != len(header):
        more = delimiter == "," and len(cells) > len(header)
        hint = "; a decimal comma wants quotes, or another separator" if more else ""
        raise TableError(
            f"{path}, line {line}: {len(cells)} cells, and the header has {len(header)}{hint}"
        )
    if stray := [cell for cell, name in zip(cells, header) if cell and not name]:
        raise TableError(
            f"{path}, line {line}: {stray[0]!r} stands in a column without a name: name the "
            "column, or take it out"
        )
    return Row(line, {name: cell for name, cell in zip(header, cells) if name})
