"""A lab's own folder of images, described by a manifest (`images.csv`) or by a pattern of file
names.

Manifest: one row a field, columns brightfield and pi (paths relative to the folder; the same one
for a multi-channel file), optionally image_id, partition, experiment, well, position, time, day,
compound, concentration, pixel_size_um, brightfield_channel, pi_channel. Pattern: a regular
expression whose named groups are these names, and `channel`.
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .field import NUMBERS, TEXT, Found, SourceError, clean_id, known, metadata, valid_id
from .files import FileField
from .planes import CONVERT, READABLE, Plane

MANIFEST = "images.csv"
IGNORED = ("height", "width", "bits", "brightfield_sha256", "pi_sha256")  # measured anew
COLUMNS = ("image_id", "brightfield", "pi", "brightfield_channel", "pi_channel", *TEXT, *NUMBERS)
GROUPS = ("image_id", "channel", *TEXT, *NUMBERS)
NAMING = ("partition", "experiment", "well", "position", "time", "day", "compound", "concentration")
Channel = int | str | None


@dataclass(frozen=True)
class Layout:
    """How to read the folder's files: see the section `dataset` of params.yaml."""

    partitions: Sequence[str] = ()
    pattern: str = ""
    brightfield: Channel = None
    pi: Channel = None
    axes: str = ""
    z: int | None = None

    def plane(self, folder: Path, name: str, channel: Channel) -> Plane:
        """One channel of a file of the folder."""
        return Plane(folder / name, name, None if channel == "" else channel, self.axes, self.z)


def find(folder: Path, layout: Layout, manifest: Path | None = None) -> Found:
    """Every field of the folder, in the manifest's order or sorted by file name. Raises
    SourceError.

    manifest: instead of the folder's images.csv; its paths are relative to the folder all the same.
    """
    known(folder, "the folder")
    if layout.pattern:
        return _by_pattern(folder, layout)
    if manifest or (folder / MANIFEST).is_file():
        return _by_manifest(folder, manifest or folder / MANIFEST, layout)
    raise SourceError(
        f"{folder} has no {MANIFEST} and dataset.pattern is empty. Write a manifest with columns brightfield and pi "
        "(and image_id, partition, experiment, ... where known), or set dataset.pattern to a regular expression of "
        r"the file names, for example (?P<well>[A-H]\d+)_(?P<position>\d+)_(?P<channel>BF|PI)\.tif"
        f"\n{describe(folder)}"
    )


def image_files(folder: Path) -> list[str]:
    """Every image of the folder and below, readable or not, as sorted relative paths; hidden ones
    are left out.
    """
    return [
        path.as_posix() for path in _files(folder) if path.suffix.lower() in {*READABLE, *CONVERT}
    ]


def _files(folder: Path) -> list[Path]:
    """All files of a folder but hidden ones, relative to it; linked folders are entered too, each
    once.
    """
    found, entered = [], set()
    for root, below, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        below[:] = [name for name in below if not name.startswith(".")]
        if (real := os.path.realpath(root)) in entered:
            below.clear()
            continue
        entered.add(real)
        found += [
            Path(root, name).relative_to(folder) for name in names if not name.startswith(".")
        ]
    return sorted(found)


def _unreadable(error: OSError) -> None:
    """What may not be listed must not look empty. Raises SourceError."""
    if isinstance(error, PermissionError):
        raise SourceError(
            f"{error.filename} cannot be read ({error.strerror}): ask for the right to read the folder"
        )


def unread(folder: Path, tables: Sequence[str] = ()) -> list[str]:
    """A note on the files of a folder that are no images and no tables in use, or nothing."""
    kinds = Counter(
        path.suffix.lower() or "no suffix" for path in _files(folder)
        if path.suffix.lower() not in {*READABLE, *CONVERT} and path.name not in tables
    )  # fmt: skip
    if not kinds:
        return []
    count = sum(kinds.values())
    files = "file is" if count == 1 else "files are"
    names = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common(8))
    return [
        f"{count} {files} not read: {names} (images are read from TIFF, OME-TIFF and PNG, tables from CSV)"
    ]


def describe(folder: Path) -> str:
    """What lies in a folder: how many files of each kind, and for some subfolders how many and
    their first names.
    """
    paths = _files(folder)
    if not paths:
        return f"{folder} holds no files"
    kinds = Counter(path.suffix.lower() or "no suffix" for path in paths)
    places: dict[str, list[str]] = {}
    for path in paths:
        places.setdefault(f"{path.parent.as_posix()}/", []).append(path.name)
    lines = [
        f"{folder} holds {', '.join(f'{count} {kind}' for kind, count in kinds.most_common(8))}:"
    ]
    lines += [
        f"  {place} {len(names)} files: {', '.join(names[:4])}"
        for place, names in list(places.items())[:12]
    ]
    return "\n".join(
        [*lines, f"  and {len(places) - 12} more folders"] if len(places) > 12 else lines
    )


# --- manifest


def _by_manifest(folder: Path, path: Path, layout: Layout) -> Found:
    rows = read_rows(path)
    unknown = sorted(rows[0].keys() - {*COLUMNS, *IGNORED}) if rows else []
    notes = (f"{path.name}: columns that are not used: {', '.join(unknown)}",) if unknown else ()
    fields = [
        _from_row(folder, row, f"{path}, line {line}", layout)
        for line, row in enumerate(rows, start=2)
    ]
    return Found(fields, notes)


def read_rows(path: Path, needed: Sequence[str] = ("brightfield", "pi")) -> list[dict[str, str]]:
    """The rows of a manifest, as text; comma or semicolon, with or without a byte order mark.
    Raises SourceError.
    """
    try:
        text = known(path, "the manifest").read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"{path} is not UTF-8 text: save it as 'CSV UTF-8'") from None
    except OSError as error:  # a folder, or not readable for this user
        raise SourceError(
            f"{path} cannot be read ({error.strerror}): give a CSV file that you may read"
        ) from None
    head = text.partition("\n")[0]
    reader = csv.DictReader(
        io.StringIO(text), delimiter=";" if ";" in head and "," not in head else ","
    )
    names = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = names
    if missing := [name for name in needed if name not in names]:
        raise SourceError(
            f"{path} lacks the column(s) {', '.join(missing)}; it has {', '.join(names) or 'none'}"
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SourceError(f"{path} has the column(s) {', '.join(twice)} twice")
    rows = [{k: (v or "").strip() for k, v in row.items() if isinstance(k, str)} for row in reader]
    if not rows:
        raise SourceError(f"{path} has no rows")
    return rows


def _from_row(folder: Path, row: dict[str, str], where: str, layout: Layout) -> FileField:
    planes = {}
    for role in ("brightfield", "pi"):
        channel = row.get(f"{role}_channel") or getattr(layout, role)
        planes[role] = (
            layout.plane(folder, row[role].replace("\\", "/"), as_number(channel))
            if row[role]
            else None
        )
    same = row["brightfield"] == row["pi"]
    name = row["brightfield"] if same else " + ".join(filter(None, (row["brightfield"], row["pi"])))
    image_id = row.get("image_id") or clean_id(
        PurePosixPath(name.partition(" + ")[0]).name.partition(".")[0]
    )
    values = {
        **metadata(row, where),
        "partition": _partition(row.get("partition", ""), layout, where),
    }
    problem = _problem(image_id, planes)
    return FileField(image_id=image_id, name=name, problem=problem, **values, **planes)


def as_number(channel: Channel) -> Channel:
    """A channel number in a manifest, where spreadsheets and pandas also write 1.0; any other text
    is a name.
    """
    whole = re.fullmatch(r"(\d+)(\.0+)?", channel) if isinstance(channel, str) else None
    return int(whole[1]) if whole else channel


def _partition(stated: str, layout: Layout, where: str) -> str:
    if stated:
        return stated
    if len(layout.partitions) == 1:
        return layout.partitions[0]
    several = ", ".join(layout.partitions)
    raise SourceError(
        f"{where}: no partition is given, and dataset.partitions names several: {several}"
    )


def _problem(image_id: str, planes: dict[str, Plane | None]) -> tuple[str, str] | None:
    """Why a field is refused before any file is opened: kind and detail."""
    for role, title in (("brightfield", "bright-field"), ("pi", "PI")):
        if planes[role] is None:
            return "missing partner", f"no {title} image"
        path = PurePosixPath(planes[role].name)
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            return "outside", f"{path} is not inside the folder, so its changes would go unnoticed"
    if not valid_id(image_id):
        return "image_id", f"{image_id!r} must be made of letters, digits and _ . + - = @"
    return None


# --- pattern


def _by_pattern(folder: Path, layout: Layout) -> Found:
    pattern = compile_pattern(layout.pattern)
    names, found = image_files(folder), {}
    for name in names:
        if match := pattern.fullmatch(name if "/" in layout.pattern else PurePosixPath(name).name):
            groups = {key: text or "" for key, text in match.groupdict().items()}
            channel = groups.pop("channel", None)
            found.setdefault(tuple(groups.items()), []).append((name, channel))
    matched = sum(map(len, found.values()))
    if not matched:
        raise SourceError(
            f"dataset.pattern {layout.pattern} matches no file of {folder}.\n{describe(folder)}"
        )
    left = len(names) - matched
    notes = [f"{left} of {len(names)} files do not match dataset.pattern"] if left else []
    notes += unread(folder, [MANIFEST])
    tokens = sorted(
        {channel for files in found.values() for _, channel in files if channel is not None}
    )
    chosen = {_role(token, layout) for token in tokens}
    if tokens and not {"brightfield", "pi"} <= chosen:
        raise SourceError(
            "dataset.channels must say which text of the group `channel` is brightfield and which is pi; "
            f"the files have {', '.join(tokens)}; now brightfield is {layout.brightfield!r} and pi {layout.pi!r}"
        )
    if others := [token for token in tokens if _role(token, layout) is None]:
        notes.append(f"channels that are not used: {', '.join(others)}")
    fields = [
        f
        for groups, files in sorted(found.items())
        for f in _from_files(folder, dict(groups), files, layout)
    ]
    return Found(fields, tuple(notes))


def compile_pattern(text: str) -> re.Pattern:
    """The pattern of file names.

    Raises SourceError when it is no regular expression or has unknown groups.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise SourceError(
            f"dataset.pattern is not a regular expression ({error}): {text}"
        ) from None
    if unknown := sorted(pattern.groupindex.keys() - set(GROUPS)):
        raise SourceError(
            f"dataset.pattern has unknown groups {', '.join(unknown)}; known: {', '.join(GROUPS)}"
        )
    return pattern


def _role(token: str, layout: Layout) -> str | None:
    """Which channel a file name's text stands for; a number in params also stands for its
    zero-padded forms.
    """
    for role in ("brightfield", "pi"):
        wanted = getattr(layout, role)
        if token == wanted or (
            isinstance(wanted, int) and token.isdecimal() and int(token) == wanted
        ):
            return role
    return None


def _from_files(
    folder: Path, groups: dict[str, str], files: list, layout: Layout
) -> Iterator[FileField]:
    """The field that files of one name but for the channel make up; one of each further file that
    claims its place.
    """
    sides: dict[str, list[Plane]] = {"brightfield": [], "pi": []}
    for name, token in files:
        roles = ["brightfield", "pi"] if token is None else [_role(token, layout)]
        for role in filter(None, roles):
            sides[role].append(
                layout.plane(folder, name, None if token is not None else getattr(layout, role))
            )
    for place in range(max(map(len, sides.values()))):
        planes = {
            role: found[place] if place < len(found) else None for role, found in sides.items()
        }
        names = list(dict.fromkeys(plane.name for plane in planes.values() if plane))
        where = f"{folder}, {names[0]}"
        image_id = groups.get("image_id") or "_".join(
            groups[key] for key in NAMING if groups.get(key)
        )
        image_id = clean_id(image_id) or clean_id(PurePosixPath(names[0]).name.partition(".")[0])
        values = {
            **metadata(groups, where),
            "partition": _partition(groups.get("partition", ""), layout, where),
        }
        again = (
            ("same id twice", f"dataset.pattern does not tell it from {files[0][0]}")
            if place
            else None
        )
        problem = again or _problem(image_id, planes)
        yield FileField(
            image_id=image_id, name=" + ".join(names), problem=problem, **values, **planes
        )
