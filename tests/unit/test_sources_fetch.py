"""Sources that fetch: single files of a git repository's history, and a split archive over HTTP."""

import http.server
import shutil
import stat
import subprocess
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from src.common.acquire import jimt1, mcf7, split_zip
from src.common.acquire.intake import Limits, take
from src.common.images.entries import pixel_digest
from src.common.images.field import SourceError
from src.common.images.layout import Layout

RNG = np.random.default_rng(3)
STACK = RNG.integers(1, 60000, (4, 50, 60), dtype=np.uint16)


# --- mcf7: files of a git history


def git(repository: Path, *arguments: str) -> str:
    identity = (
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "-c",
        "init.defaultBranch=main",
    )
    done = subprocess.run(
        ["git", "-C", repository, *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def history(tmp_path) -> tuple[Path, str]:
    """A repository whose first commit holds a wanted and an unwanted image; later commits delete
    both.
    """
    repository = tmp_path / "upstream"
    (repository / "images").mkdir(parents=True)
    git(repository, "init", "-q")
    tifffile.imwrite(
        repository / "images/wanted.tif", STACK, metadata=None, photometric="minisblack"
    )
    tifffile.imwrite(
        repository / "images/other.tif", STACK[::-1], metadata=None, photometric="minisblack"
    )
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "images")
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "rm", "-qr", "images")
    git(repository, "commit", "-qm", "no images", "--allow-empty")
    return repository, commit


def listing(
    folder: Path, commit: str, file: str = "images/wanted.tif", pi: int = 3, digest: str = ""
) -> Path:
    digests = f"{pixel_digest(STACK[0])},{digest or pixel_digest(STACK[3])}"
    path = folder / "mcf7.csv"
    path.write_text(
        "image_id,partition,experiment,commit,file,brightfield_channel,pi_channel,pixel_size_um,brightfield_sha256,pi_sha256\n"
        f"w,mcf7,e1,{commit},{file},0,{pi},0.3112,{digests}\n"
    )
    return path


def test_only_the_listed_file_of_an_old_commit_is_fetched(tmp_path, history, monkeypatch):
    repository, commit = history
    contents = {
        name: git(repository, "rev-parse", f"{commit}:images/{name}.tif")
        for name in ("wanted", "other")
    }
    monkeypatch.setattr(mcf7.shutil, "rmtree", lambda path: None)
    (entry,) = mcf7.find(listing(tmp_path, commit), tmp_path / "cache", str(repository)).fields
    clone = tmp_path / "cache/repository.git"
    held = subprocess.run(
        ["git", f"--git-dir={clone}", "cat-file", "--batch-all-objects",
         "--batch-check=%(objectname)"],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    assert contents["wanted"] in held and contents["other"] not in held
    assert (entry.image_id, entry.experiment, entry.pixel_size_um) == ("w", "e1", 0.3112)
    read = entry.read()
    assert np.array_equal(read.brightfield, STACK[0]) and np.array_equal(read.pi, STACK[3])


def test_a_second_run_needs_no_repository(tmp_path, history):
    repository, commit = history
    mcf7.find(listing(tmp_path, commit), tmp_path / "cache", str(repository))
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [commit[:12]], (
        "the clone is gone, the files are kept"
    )
    shutil.rmtree(repository)
    (entry,) = mcf7.find(listing(tmp_path, commit), tmp_path / "cache", str(repository)).fields
    assert np.array_equal(entry.read().pi, STACK[3])


def test_git_variables_of_a_hook_do_not_lead_astray(tmp_path, history, monkeypatch):
    repository, commit = history
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere/index"))
    assert (
        len(mcf7.find(listing(tmp_path, commit), tmp_path / "cache", str(repository)).fields) == 1
    )


def test_pixels_other_than_listed_are_refused(tmp_path, history):
    repository, commit = history
    found = mcf7.find(
        listing(tmp_path, commit, digest="0" * 64), tmp_path / "cache", str(repository)
    )
    assert (
        take(found.fields[0], tmp_path, Limits(10, "px")).rejected["reason"].startswith("changed: ")
    )


def test_fetching_from_nowhere_stops(tmp_path, history):
    repository, commit = history
    with pytest.raises(SourceError, match=r"could not fetch the pinned commits from .*nowhere"):
        mcf7.find(listing(tmp_path, commit), tmp_path / "c", str(tmp_path / "nowhere"))
    with pytest.raises(SourceError, match=r"has no file images/none.tif"):
        mcf7.find(listing(tmp_path, commit, "images/none.tif"), tmp_path / "c", str(repository))


def test_the_committed_list_names_the_75_fields():
    path = Path(__file__).parents[2] / "sources" / "mcf7.csv"
    lines = path.read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","))) for line in lines[1:]]
    assert len(rows) == len({row["image_id"] for row in rows}) == 75
    assert len({row["experiment"] for row in rows}) == 18 and {
        row["partition"] for row in rows
    } == {"mcf7"}
    for row in rows:
        assert row["file"].endswith(f"/{row['image_id']}.tif") and row["brightfield_channel"] == "0"
        assert row["pi_channel"] == ("3" if row["image_id"].startswith("NKratio_Exp") else "1")


# --- jimt1: a split archive


def split(archive: Path, folder: Path, size: int, stem: str = "set") -> list[Path]:
    """Cut a plain zip into parts as `zip -s` does: a marker in front, and offsets that count from
    each part's start.
    """
    data = bytearray(b"PK\x07\x08" + archive.read_bytes())
    end = list(split_zip.END.unpack_from(data, data.rfind(b"PK\x05\x06")))
    at, begin = end[6] + 4, end[6] + 4
    while data[at : at + 4] == b"PK\x01\x02":
        offset = int.from_bytes(data[at + 42 : at + 46], "little") + 4
        data[at + 34 : at + 36] = (offset // size).to_bytes(2, "little")
        data[at + 42 : at + 46] = (offset % size).to_bytes(4, "little")
        at += 46 + sum(int.from_bytes(data[at + k : at + k + 2], "little") for k in (28, 30, 32))
    last = (len(data) - 1) // size
    end[1:4] = (last, begin // size, end[4])
    end[6] = begin % size
    data[at:] = split_zip.END.pack(*end)
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    names = [f"{stem}.z{n:02d}" for n in range(1, len(pieces))] + [f"{stem}.zip"]
    for name, piece in zip(names, pieces, strict=True):
        (folder / name).write_bytes(piece)
    return [folder / name for name in names]


MEMBERS = {
    f"{arm}/{role}/{n}.tif": (n, role)
    for arm in ("ctrl", "dox")
    for role in ("BF", "PI")
    for n in (1, 2)
}
LAYOUT = Layout(
    ["ctrl", "dox"], r"set/(?P<partition>\w+)/(?P<channel>BF|PI)/(?P<position>\d+)\.tif", "BF", "PI"
)


@pytest.fixture
def archive(tmp_path) -> Path:
    """A plain zip of eight images in folders."""
    for seed, name in enumerate(MEMBERS):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(seed).integers(0, 4000, (30, 40), dtype=np.uint16)
        tifffile.imwrite(path, image, metadata=None)
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as out:
        for name in MEMBERS:
            out.write(tmp_path / "set" / name, f"set/{name}")
    return whole


def same_files(extracted: Path, original: Path) -> bool:
    names = {p.relative_to(extracted).as_posix() for p in extracted.rglob("*") if p.is_file()}
    return names == set(MEMBERS) and all(
        (extracted / n).read_bytes() == (original / n).read_bytes() for n in MEMBERS
    )


@pytest.mark.parametrize("size", [1000, 3001, 1 << 20], ids=["many", "few", "one"])
def test_parts_are_joined_and_extracted(tmp_path, archive, size):
    parts = split(archive, tmp_path / "parts", size)
    split_zip.join(parts, tmp_path / "joined.zip")
    split_zip.extract(tmp_path / "joined.zip", tmp_path / "out")
    assert same_files(tmp_path / "out/set", tmp_path / "set")


@pytest.mark.skipif(shutil.which("zip") is None, reason="needs the zip program")
def test_parts_that_zip_itself_split(tmp_path, archive):
    for seed in range(30):  # zip splits into parts of 64 kB at least
        (tmp_path / "set" / f"noise{seed}.bin").write_bytes(np.random.default_rng(seed).bytes(9000))
    (tmp_path / "parts").mkdir()
    subprocess.run(
        ["zip", "-qr", "-s", "64k", tmp_path / "parts/set.zip", "set"], cwd=tmp_path, check=True
    )
    names = jimt1.archive_parts(tmp_path / "parts")
    assert len(names) >= 4 and names[-1] == "set.zip"
    split_zip.join([tmp_path / "parts" / name for name in names], tmp_path / "joined.zip")
    split_zip.extract(tmp_path / "joined.zip", tmp_path / "out")
    for path in (p for p in (tmp_path / "set").rglob("*") if p.is_file()):
        assert (tmp_path / "out" / path.relative_to(tmp_path)).read_bytes() == path.read_bytes()


def digests(parts: list[Path]) -> dict[str, str]:
    return {path.name: jimt1.git_blob(path) for path in parts}


def write_list(folder: Path, entries: dict[str, str]) -> Path:
    path = folder / "jimt1.csv"
    path.write_text(
        "file,git_blob\n" + "".join(f"{name},{digest}\n" for name, digest in entries.items())
    )
    return path


def test_git_blob_is_what_git_says(tmp_path, history):
    repository, commit = history
    tifffile.imwrite(tmp_path / "w.tif", STACK, metadata=None, photometric="minisblack")
    assert jimt1.git_blob(tmp_path / "w.tif") == git(
        repository, "rev-parse", f"{commit}:images/wanted.tif"
    )


def test_fields_of_an_archive_in_a_folder(tmp_path, archive):
    parts = split(archive, tmp_path / "parts", 3001)
    listed = write_list(tmp_path, digests(parts))
    found = jimt1.find(listed, tmp_path / "cache", tmp_path / "parts", "", LAYOUT)
    assert [(f.image_id, f.problem) for f in found.fields] == [
        (i, None) for i in ("ctrl_1", "ctrl_2", "dox_1", "dox_2")
    ]
    assert [p.name[:7] for p in (tmp_path / "cache").iterdir()] == ["images-"], (
        "the joined zip and leftovers are removed"
    )
    for part in parts:
        part.unlink()
    assert (
        len(jimt1.find(listed, tmp_path / "cache", None, "http://127.0.0.1:9", LAYOUT).fields) == 4
    ), "already extracted"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda parts: parts[1].unlink(), r"lacks parts of the archive: set\.z02"),
        (lambda parts: parts[-1].unlink(), "must hold one .zip .* found: none"),
        (
            lambda parts: parts[-2].unlink(),
            r"set\.zip ends an archive of 19 parts, but 18 are there",
        ),
        (
            lambda parts: parts[0].write_bytes(parts[0].read_bytes()[:-1] + b"?"),
            r"damaged: .*set\.z01",
        ),
    ],
    ids=["gap", "no zip", "last part", "changed"],
)
def test_missing_and_damaged_parts_stop(tmp_path, archive, spoil, message):
    parts = split(archive, tmp_path / "parts", 1000)
    listed = write_list(tmp_path, digests(parts))
    spoil(parts)
    with pytest.raises(SourceError, match=message):
        jimt1.find(listed, tmp_path / "cache", tmp_path / "parts", "", LAYOUT)


def test_damage_that_no_list_knows_of_is_found_by_checksum(tmp_path, archive):
    parts = split(archive, tmp_path / "parts", 3001)
    data = bytearray(parts[1].read_bytes())
    data[1500:1510] = bytes(10)
    parts[1].write_bytes(data)
    with pytest.raises(SourceError, match=r"the archive is damaged: "):
        jimt1.find(write_list(tmp_path, {}), tmp_path / "cache", tmp_path / "parts", "", LAYOUT)
    assert not any(p.name.startswith("images") for p in (tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    "layout",
    [
        Layout(["a"]),
        Layout(["a"], r"(?P<channel>\d)\.png", 1, 2),
        Layout(["a"], r"(?P<channel>BF|PI)\.tif"),
    ],
)
def test_what_the_archive_holds_is_shown_when_nothing_is_paired(tmp_path, archive, layout):
    split(archive, tmp_path / "parts", 3001)
    with pytest.raises(SourceError) as error:
        jimt1.find(write_list(tmp_path, {}), tmp_path / "cache", tmp_path / "parts", "", layout)
    for words in (
        "holds 8 .tif",
        "set/ctrl/BF/ 2 files: 1.tif, 2.tif",
        "Set dataset.pattern",
        "dataset.channels",
    ):
        assert words in str(error.value)


def test_a_pattern_without_pairs_shows_it_too(tmp_path, archive):
    split(archive, tmp_path / "parts", 3001)
    layout = Layout(["a"], r"(?P<image_id>.*)/(?P<channel>1|2)\.tif", 1, 3)
    with pytest.raises(SourceError, match=r"dataset.channels must say"):
        jimt1.find(write_list(tmp_path, {}), tmp_path / "cache", tmp_path / "parts", "", layout)
    layout = Layout(["a"], r"set/(?P<image_id>\w+/(?P<channel>BF|PI)/\d)\.tif", "BF", "PI")
    with pytest.raises(
        SourceError, match=r"no bright-field image has a PI partner; the first: set/ctrl/BF/1.tif"
    ):
        jimt1.find(write_list(tmp_path, {}), tmp_path / "cache", tmp_path / "parts", "", layout)


@pytest.mark.parametrize(
    ("name", "mode", "why"),
    [
        ("../evil.tif", 0, "outside"),
        ("/evil.tif", 0, "outside"),
        ("a/../../evil.tif", 0, "outside"),
        ("..\\evil.tif", 0, "outside"),
        ("C:evil.tif", 0, "outside"),
        ("link.tif", stat.S_IFLNK | 0o777, "is a link"),
    ],
)
def test_unsafe_members_are_refused_and_nothing_is_written(tmp_path, name, mode, why):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr("good.tif", b"x")
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        out.writestr(member, b"/etc/passwd")
    with pytest.raises(SourceError, match=why):
        split_zip.extract(tmp_path / "a.zip", tmp_path / "out")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["a.zip"]


def test_archives_too_large_are_refused(tmp_path, archive, monkeypatch):
    monkeypatch.setattr(split_zip, "MAX_MEMBER", 1000)
    with pytest.raises(SourceError, match=r"refused: set/ctrl/BF/1.tif would be"):
        split_zip.extract(archive, tmp_path / "out")
    monkeypatch.undo()
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(split_zip.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SourceError, match=r"and 10 are free"):
        split_zip.extract(archive, tmp_path / "out")


class Server(http.server.BaseHTTPRequestHandler):
    """Serves a folder with Range requests; `cut` breaks each first, whole answer after so many
    bytes.
    """

    folder: Path
    cut = 0
    ranges = True

    def do_GET(self):
        path = self.folder / self.path.lstrip("/")
        if not path.is_file():
            return self.send_error(404)
        data, header = path.read_bytes(), self.headers.get("Range")
        start = int(header[6:-1]) if header and self.ranges else 0
        self.requests.append((path.name, start))
        if start >= len(data):
            return self.send_error(416)
        self.send_response(206 if header and self.ranges else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : self.cut or None] if not header else data[start:])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, archive, monkeypatch):
    parts = split(archive, tmp_path / "served", 3001)
    handler = type("Handler", (Server,), {"folder": tmp_path / "served", "requests": []})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    monkeypatch.setattr(jimt1, "WAIT", 0)
    yield f"http://127.0.0.1:{running.server_port}", handler, write_list(tmp_path, digests(parts))
    running.shutdown()


def test_parts_are_downloaded_joined_and_paired(tmp_path, server):
    address, handler, listed = server
    assert len(jimt1.find(listed, tmp_path / "cache", None, address, LAYOUT).fields) == 4
    asked = len(handler.requests)
    assert (
        len(jimt1.find(listed, tmp_path / "cache", None, address, LAYOUT).fields) == 4
        and len(handler.requests) == asked
    )


def test_a_broken_download_goes_on_where_it_stopped(tmp_path, server):
    address, handler, listed = server
    handler.cut = 1200
    assert len(jimt1.find(listed, tmp_path / "cache", None, address, LAYOUT).fields) == 4
    assert ("set.z01", 0) in handler.requests and ("set.z01", 1200) in handler.requests


def test_a_kept_partial_download_is_resumed_or_started_over(tmp_path, server):
    address, handler, listed = server
    parts = tmp_path / "cache/parts"
    parts.mkdir(parents=True)
    data = (tmp_path / "served/set.z01").read_bytes()
    (parts / "set.z01.partial").write_bytes(data[:700])
    (parts / "set.z02.partial").write_bytes((tmp_path / "served/set.z02").read_bytes())
    jimt1.find(listed, tmp_path / "cache", None, address, LAYOUT)
    assert handler.requests[0] == ("set.z01", 700) and ("set.z02", 3001) in handler.requests


def test_a_server_without_ranges_starts_over(tmp_path, server):
    address, handler, listed = server
    handler.ranges = False
    (tmp_path / "cache/parts").mkdir(parents=True)
    (tmp_path / "cache/parts/set.z01.partial").write_bytes(b"old")
    assert len(jimt1.find(listed, tmp_path / "cache", None, address, LAYOUT).fields) == 4


def test_wrong_content_and_missing_parts_stop(tmp_path, server):
    address, _, listed = server
    (tmp_path / "served/set.z01").write_bytes(b"not this")
    with pytest.raises(SourceError, match=r"set\.z01 is not the file that is listed"):
        jimt1.find(listed, tmp_path / "cache", None, address, LAYOUT)
    (tmp_path / "served/set.z01").unlink()
    with pytest.raises(SourceError, match=r"cannot download .*set\.z01: 404"):
        jimt1.find(listed, tmp_path / "cache", None, address, LAYOUT)
    with pytest.raises(SourceError, match=r"set dataset.path to a folder with the parts"):
        jimt1.find(listed, tmp_path / "cache", None, "http://127.0.0.1:9", LAYOUT)
