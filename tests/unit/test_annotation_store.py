"""The annotation file loses nothing, whoever else writes in it and whatever stops the program in
the middle.
"""

import os
import subprocess
import sys
import threading

import pytest

from src.annotation import store as storing
from src.annotation.store import AnnotationFile, Refused
from src.common.filter.annotations import WINDOW_KEY, AnnotationError
from src.common.workspace.errors import UserError
from tests.conftest import REPO

HEADER = "image_id,y,x,size,verdict,annotator,date\n"
A, B = ("a", 0, 0, 64), ("b", 64, 0, 64)


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("# by hand\n" + HEADER + 'c,0,0,64,empty,"Ana, B.",2026-01-02\n')
    return AnnotationFile(path, "me")


def test_rows_are_added_and_taken_back_and_the_rest_stays_byte_for_byte(notes):
    before = notes.path.read_bytes()
    first, second = notes.append(A, "cells"), notes.append(B, "unusable")
    assert notes.path.read_bytes() == before + first + second
    assert notes.rows()[[*WINDOW_KEY, "verdict", "annotator"]].values.tolist()[1:] == [
        [*A, "cells", "me"], [*B, "unusable", "me"],
    ]  # fmt: skip
    notes.remove(first)
    assert notes.path.read_bytes() == before + second
    assert [path.name for path in notes.path.parent.iterdir()] == ["notes.csv"]


def test_other_columns_line_ends_and_marks_are_kept(tmp_path):
    path = tmp_path / "notes.csv"
    before = b"\xef\xbb\xbfverdict,image_id,note,y,x,size,annotator,date\r\n"
    before += b'empty,c,"dark, ""odd""",0,0,64,,\r\nempty,d,,1,2,64,,'
    path.write_bytes(before)
    file = AnnotationFile(path, 'Ana "#1"')
    file.append(A, "cells")
    written = path.read_bytes()
    assert (
        written.startswith(before + b"\r\n")
        and written.endswith(b"\r\n")
        and written.count(b"\n") == 4
    )
    row = file.rows().iloc[-1]
    assert (row["verdict"], row["image_id"], row["note"], row["annotator"]) == (
        "cells",
        "a",
        "",
        'Ana "#1"',
    )


@pytest.mark.parametrize(
    "head",
    [
        "image_id;y;x;size;verdict",
        "image_id\ty\tx\tsize\tverdict",
        "sep=;\ny;x;size;verdict;image_id",
        "Image_ID,Y,x,Size,Verdict",
        "# by hand\nimage_id, y, x, size, verdict",
    ],
)
def test_a_row_is_written_as_the_file_is_read(tmp_path, head):
    path = tmp_path / "notes.csv"
    path.write_text(f"{head}\n")
    file = AnnotationFile(path, "me")
    file.append(("field;1,a", 0, 0, 64), "cells")
    assert path.read_text().startswith(f"{head}\n")
    assert file.rows()[[*WINDOW_KEY, "verdict"]].values.tolist() == [
        ["field;1,a", 0, 0, 64, "cells"]
    ]


def test_no_row_is_added_to_utf_16(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("image_id\ty\tx\tsize\tverdict\n", encoding="utf-16")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"UTF-16.*save it as 'CSV UTF-8'"):
        AnnotationFile(path, "me")
    assert path.read_bytes() == before


def test_what_others_wrote_meanwhile_stays(notes):
    line = notes.append(A, "cells")
    text = notes.path.read_text().replace("empty", "unusable") + "d,0,0,64,cells,other,2026-01-03\n"
    notes.path.write_text(text)
    notes.append(B, "empty")
    assert notes.path.read_text().startswith(text) and len(notes.rows()) == 4
    notes.remove(line)
    assert notes.rows()["image_id"].tolist() == ["c", "d", "b"]


def test_a_change_between_reading_and_replacing_is_not_lost(notes, monkeypatch):
    copymode, calls = storing.shutil.copymode, []

    def meanwhile(*args):
        if not calls:
            with notes.path.open("a") as stream:
                stream.write("d,0,0,64,cells,other,2026-01-03\n")
        calls.append(args)
        copymode(*args)

    monkeypatch.setattr(storing.shutil, "copymode", meanwhile)
    notes.append(A, "cells")
    assert len(calls) == 2 and notes.rows()["image_id"].tolist() == ["c", "d", "a"]


def test_a_window_that_somebody_annotated_meanwhile_is_refused(notes):
    before = notes.path.read_bytes()
    with pytest.raises(Refused, match="already calls this window 'empty'"):
        notes.append(("c", 0, 0, 64), "cells")
    assert notes.path.read_bytes() == before


def test_a_row_changed_by_hand_is_not_undone(notes):
    line = notes.append(A, "cells")
    notes.path.write_text(notes.path.read_text().replace("cells", "empty"))
    before = notes.path.read_bytes()
    with pytest.raises(Refused, match="was edited"):
        notes.remove(line)
    assert notes.path.read_bytes() == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_or_a_crash_leaves_the_file_whole(notes, monkeypatch, call):
    before = notes.path.read_bytes()

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="no space"):
        notes.append(A, "cells")
    assert notes.path.read_bytes() == before and len(list(notes.path.parent.iterdir())) == 1


def test_a_kill_in_the_middle_leaves_the_file_whole_and_unlocked(notes):
    before = notes.path.read_bytes()
    code = (
        "import os; from src.annotation.store import AnnotationFile; os.replace = lambda *_: "
        f"os.kill(os.getpid(), 9); AnnotationFile({str(notes.path)!r}, 'me').append(('a', 0, "
        "0, 64), 'cells')"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO, check=False).returncode == -9
    assert notes.path.read_bytes() == before
    notes.append(A, "cells")
    assert len(notes.rows()) == 2


def test_many_writers_at_once_lose_nothing(notes):
    def write(who: str) -> None:
        file = AnnotationFile(notes.path, who)
        for number in range(10):
            file.append((f"{who}{number}", 0, 0, 64), "cells")

    threads = [threading.Thread(target=write, args=(who,)) for who in "xyz"]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(notes.rows()["image_id"]) == sorted(
        ["c", *(f"{who}{n}" for who in "xyz" for n in range(10))]
    )


def test_unusable_files_are_refused_with_what_is_wrong(tmp_path):
    broken = tmp_path / "broken.csv"
    broken.write_text(HEADER + "a,0,0,64,perhaps,,\n")
    with pytest.raises(AnnotationError, match="line 2: verdict is 'perhaps'"):
        AnnotationFile(broken, "me")
    with pytest.raises(Refused, match="does not exist"):
        AnnotationFile(tmp_path / "none" / "notes.csv", "me")
    with pytest.raises(Refused, match="--annotator"):
        AnnotationFile(broken, "two\nlines")
    AnnotationFile(tmp_path / "new.csv", "me")
    assert (tmp_path / "new.csv").read_text() == HEADER


def test_a_read_only_file_is_left_alone(notes, monkeypatch):
    before = notes.path.read_bytes()
    monkeypatch.setattr(storing.os, "access", lambda path, mode: str(path) != str(notes.path))
    with pytest.raises(Refused, match="is read-only for you: `chmod u"):
        AnnotationFile(notes.path, "me")
    monkeypatch.setattr(storing.os, "access", lambda path, mode: str(path) == str(notes.path))
    with pytest.raises(Refused, match="you may not write into"):
        AnnotationFile(notes.path, "me")
    assert notes.path.read_bytes() == before
