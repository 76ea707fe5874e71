"""What is kept of single images: when a file is read again, its bound, and that it is no pickle."""

import hashlib
import os
from pathlib import Path

import diskcache
import pytest

from src.common.workspace import cache, entries
from src.common.workspace.errors import UserError


@pytest.fixture
def kept(tmp_path, monkeypatch) -> Path:
    """A cache of this test's own, turned on."""
    monkeypatch.setenv(entries.BOUND, "1")
    monkeypatch.setattr(entries, "FOLDER", tmp_path / "cache")
    return tmp_path / "cache"


def test_a_file_is_read_again_where_anything_of_it_changed(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SETTLED", 0)
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = cache.file_digest(path)
    read, digest = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: read.append(1) or digest(*args))
    assert cache.file_digest(path) == first == hashlib.sha256(b"one").hexdigest() and not read
    times = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert cache.file_digest(path) == hashlib.sha256(b"two").hexdigest() and read


def test_a_bound_that_is_no_number_is_said(monkeypatch):
    for text in ("much", "-1", "nan"):
        monkeypatch.setenv(entries.BOUND, text)
        with pytest.raises(UserError, match="UNSTAINED_CACHE_GB is the most GB"):
            entries.opened()


def test_a_pickle_is_not_opened(kept, capfd):
    Evil.ran = False
    with diskcache.Cache(kept) as held:
        held.set("key", Evil())
    assert entries.opened().get("key") is None and not Evil.ran
    assert "it holds a pickle" in capfd.readouterr().err


class Evil:
    """Says that it was unpickled."""

    ran = False

    def __setstate__(self, state: dict) -> None:
        Evil.ran = True

    def __getstate__(self) -> dict:
        return {"some": "state"}


@pytest.mark.parametrize("how", ["file", "link"])
def test_what_stands_in_its_place_is_cleared(kept, tmp_path, how):
    if how == "file":
        kept.write_text("no folder")
    else:
        (tmp_path / "large disk").mkdir()
        kept.symlink_to(tmp_path / "large disk")
        (kept / "entry").touch()
    entries.clear()
    assert kept.is_symlink() == (how == "link") and not kept.is_file()
    assert not kept.exists() or list(kept.iterdir()) == []
