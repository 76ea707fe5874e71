"""The annotation file as text: rows are added at its end or taken back; all else stays as it is,
byte for byte.

Other people and programs may edit the file meanwhile: it is read again before each change, and
replaced as a whole.
"""

import csv
import datetime
import fcntl
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from ..common.filter.annotations import ANNOTATION_COLUMNS, WINDOW_KEY, read_annotations
from ..common.workspace.csv_table import read_header
from ..common.workspace.errors import UserError

# A file that changes this often between reading and replacing is not being edited by hand
TRIES = 20


class Refused(UserError):
    """An answer was not written, or a row not taken back; the message says why, and the file is as
    it was.
    """


class AnnotationFile:
    """A CSV of annotations to which one annotator adds rows.

    Made with its header alone if it does not exist.
    """

    def __init__(self, path: Path, annotator: str):
        if not annotator.strip() or not annotator.isprintable():
            raise Refused(
                f"--annotator {annotator!r} is no name: use printable characters on one line"
            )
        self.path = Path(path).resolve()  # a link stays one, what it points to is replaced
        self.annotator = annotator
        if not self.path.parent.is_dir():
            raise Refused(f"--annotations: the folder {self.path.parent} does not exist")
        self._check_rights()
        if not self.path.exists():
            self._change(lambda _: (",".join(ANNOTATION_COLUMNS) + "\n").encode())
        self.rows()
        read_header(self.path, comments=True)  # what cannot be added to is refused before any work

    def _check_rights(self) -> None:
        """A read-only file is meant so, though replacing it needs rights on its folder alone."""
        folder, path = self.path.parent, self.path
        if path.is_dir():
            raise Refused(f"--annotations: {path} is a folder: name a CSV file")
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            raise Refused(
                f"--annotations: {path} is read-only for you: `chmod u+w` it, or name another file"
            )
        if not os.access(folder, os.W_OK | os.X_OK):
            raise Refused(
                f"--annotations: you may not write into {folder}: "
                "name a file in a folder of your own"
            )

    def rows(self) -> pd.DataFrame:
        """What the file holds now. Raises AnnotationError naming the line that cannot be read."""
        return read_annotations(self.path)

    def append(self, window: tuple[str, int, int, int], verdict: str) -> bytes:
        """Adds one row for (image_id, y, x, size) dated today and returns its line.

        Refused if it is annotated.
        """
        place, today = dict(zip(WINDOW_KEY, window)), datetime.date.today().isoformat()
        values = place | {"verdict": verdict, "annotator": self.annotator, "date": today}
        added = b""

        def change(before: bytes) -> bytes:
            nonlocal added
            rows = self.rows()
            same = rows[(rows[WINDOW_KEY] == pd.Series(place)).all(axis=1)]
            if len(same):
                raise Refused(
                    f"{self.path.name} already calls this window '{same['verdict'].iloc[0]}': "
                    "left so"
                )
            added = _line(self.path, values, _newline(before).decode())
            return before + (b"" if before.endswith(b"\n") else _newline(before)) + added

        self._change(change)
        return added

    def remove(self, line: bytes) -> None:
        """Takes back a line that `append` returned.

        Refused if it is no longer there as it was written.
        """

        def change(before: bytes) -> bytes:
            lines, written = before.splitlines(keepends=True), line.rstrip(b"\r\n")
            same = [n for n, other in enumerate(lines) if other.rstrip(b"\r\n") == written]
            if not same:
                raise Refused(
                    f"{self.path.name} was edited: "
                    "the row to undo is not there as written; nothing undone"
                )
            del lines[same[-1]]
            return b"".join(lines)

        self._change(change)

    def _change(self, change: Callable[[bytes], bytes]) -> None:
        """Replaces the file by `change` of its bytes, once it did not change while that was being
        worked out.
        """
        with _locked(self.path.parent):
            for _ in range(TRIES):
                before = self._bytes()
                after = change(before)
                if self._replace(before, after):
                    return
        raise Refused(
            f"{self.path} keeps changing while it is being written; the answer was not saved"
        )

    def _bytes(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""

    def _replace(self, before: bytes, after: bytes) -> bool:
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(after)
                stream.flush()
                os.fsync(stream.fileno())
            if self.path.exists():
                shutil.copymode(self.path, name)
            else:
                os.chmod(name, 0o644)
            if unchanged := self._bytes() == before:
                os.replace(name, self.path)
            return unchanged
        finally:
            Path(name).unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One program at a time writes into a folder; the lock is on the folder itself and ends with
    the program.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _newline(text: bytes) -> bytes:
    return b"\r\n" if b"\r\n" in text else b"\n"


def _line(path: Path, values: dict, newline: str) -> bytes:
    """A row in the columns of the file's header, in its order; columns unknown here stay empty."""
    header, delimiter = read_header(path, comments=True)
    cells = [str(values.get(name, "")) for name in header]
    # '#' would start a comment
    quoting = csv.QUOTE_ALL if any("#" in cell for cell in cells) else csv.QUOTE_MINIMAL
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator=newline, quoting=quoting).writerow(cells)
    return stream.getvalue().encode()
