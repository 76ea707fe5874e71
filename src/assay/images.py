"""What is to be scored: a folder, a manifest, a pattern of file names, or single files;
bright-field only.

The manifest has one row an image: column brightfield (a path relative to the folder), optionally
image_id, experiment, well, position, time, day, compound, concentration, control (negative:
untreated, positive: all dead), pixel_size_um, brightfield_channel. Other columns are named and not
used.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from ..common.acquire.intake import expand, refuse_same_ids
from ..common.images import folder
from ..common.images.field import Field, Refused, SourceError, clean_id, metadata, valid_id
from ..common.images.files import check_channel
from ..common.images.folder import MANIFEST, Layout
from ..common.images.planes import READABLE, Plane, read_plane, time_points
from .layout import canonical, place

CONTROLS = ("", "negative", "positive")
LARGEST = (32, 48)  # rows and columns of a 1536-well plate
SUFFIX = re.compile(r"(\.ome)?\.(tiff?|png)$", re.IGNORECASE)
# How the readers' messages name the settings of the graph, and what they are called here
OPTIONS = {
    "dataset.channels": "--brightfield",
    "dataset.pattern": "--pattern",
    "dataset.axes": "--axes",
}
OPTIONS |= {"dataset.z": "--z", "dataset.path": "IMAGES"}


@dataclass(frozen=True, kw_only=True)
class Image(Field):
    """One bright-field image, and what is known of where it was taken."""

    brightfield: Plane | None
    control: str = ""

    def expand(self) -> list["Image"]:
        """Itself, or one image for each time point of a stack. Raises Refused."""
        if self.problem:
            raise Refused(*self.problem, self.name)
        count = time_points(self.brightfield)
        return [self] if count == 1 else [self._at(step) for step in range(count)]

    def _at(self, step: int) -> "Image":
        plane, position = replace(self.brightfield, time=step), self.position or self.image_id
        name = f"{self.image_id}_t{step:03d}"
        return replace(self, image_id=name, position=position, time=float(step), brightfield=plane)

    def pixels(self) -> tuple[np.ndarray, float | None]:
        """Counts (H, W) uint8 or uint16, and um per pixel: the manifest's, else the file's. Raises
        Refused.
        """
        if self.problem:
            raise Refused(*self.problem, self.name)
        image, size = read_plane(self.brightfield)
        check_channel(image, "bright-field", self.name)
        return image, self.pixel_size_um or size


def find(
    inputs: Sequence[Path], layout: Layout, manifest: Path | None = None
) -> tuple[list[Image], list[str]]:
    """The images that the user named, in order, and what is worth saying. Raises SourceError.

    An image that cannot be used but stands in the list has its `problem` set; nothing is read but
    time axes.
    """
    try:
        found, notes = _find([Path(path) for path in inputs], layout, manifest)
    except SourceError as error:
        raise SourceError(in_options(str(error))) from None
    return refuse_same_ids([one for entry in found for one in expand(entry)]), notes


def in_options(text: str) -> str:
    """A reader's message with settings of the graph named as options of this command."""
    for setting, option in OPTIONS.items():
        text = text.replace(setting, option)
    return text


def _find(
    inputs: list[Path], layout: Layout, manifest: Path | None
) -> tuple[list[Image], list[str]]:
    if missing := [path for path in [*inputs, *filter(None, [manifest])] if not path.exists()]:
        raise SourceError(f"{missing[0]} does not exist")
    first = inputs[0]
    if len(inputs) == 1 and first.is_dir():
        if layout.pattern:
            return _by_pattern(first, layout)
        if manifest or (first / MANIFEST).is_file():
            return _by_manifest(first, manifest or first / MANIFEST, layout)
        return _files(first, folder.image_files(first), layout), _unread(first)
    if manifest or layout.pattern:
        raise SourceError("--manifest and --pattern go with one folder of images")
    if len(inputs) == 1 and first.suffix.lower() == ".csv":
        return _by_manifest(first.parent, first, layout)
    if below := [path for path in inputs if path.is_dir()]:
        raise SourceError(f"{below[0]} is a folder: name one folder, or files, not both")
    return _files(Path(), [path.as_posix() for path in inputs], layout), []


def _unread(root: Path) -> list[str]:
    """Notes on what a folder holds beside the images that are taken; a table may have been meant as
    the manifest.
    """
    tables = [
        path.name
        for path in sorted(root.glob("*"))
        if path.suffix.lower() in (".csv", ".xlsx", ".xls")
    ]
    meant = (
        [f"{tables[0]} is not used: the manifest is {MANIFEST}, or what --manifest names (a CSV)"]
        if tables
        else []
    )
    return [*folder.unread(root), *meant]


def _by_manifest(root: Path, path: Path, layout: Layout) -> tuple[list[Image], list[str]]:
    rows = folder.read_rows(path, needed=["brightfield"])
    unknown = sorted(rows[0].keys() - {*folder.COLUMNS, *folder.IGNORED, "control"})
    notes = [f"{path.name}: columns that are not used: {', '.join(unknown)}"] if unknown else []
    return [
        _from_row(root, row, f"{path}, line {line}", layout)
        for line, row in enumerate(rows, start=2)
    ], notes


def _from_row(root: Path, row: dict[str, str], where: str, layout: Layout) -> Image:
    name = row["brightfield"].replace("\\", "/")
    channel = folder.as_number(row.get("brightfield_channel") or layout.brightfield)
    image_id = row.get("image_id") or clean_id(SUFFIX.sub("", PurePosixPath(name).name))
    plane = layout.plane(root, name, channel) if name else None
    problem = None if name else ("missing image", "the column brightfield is empty")
    return _image(image_id, plane, row, where, problem)


def _by_pattern(root: Path, layout: Layout) -> tuple[list[Image], list[str]]:
    pattern, names, found, tokens = (
        folder.compile_pattern(layout.pattern),
        folder.image_files(root),
        [],
        set(),
    )
    for name in names:
        if not (
            match := pattern.fullmatch(name if "/" in layout.pattern else PurePosixPath(name).name)
        ):
            continue
        groups = {key: text or "" for key, text in match.groupdict().items()}
        token = groups.pop("channel", None)
        tokens |= {token} - {None}
        if token is None or token == str(layout.brightfield):
            image_id = groups.get("image_id") or "_".join(
                groups[key] for key in folder.NAMING if groups.get(key)
            )
            plane = layout.plane(root, name, layout.brightfield if token is None else None)
            image_id = clean_id(image_id) or clean_id(SUFFIX.sub("", PurePosixPath(name).name))
            found.append(_image(image_id, plane, groups, f"{root}, {name}", None))
    if tokens and not found:
        seen = ", ".join(sorted(tokens))
        raise SourceError(
            f"--brightfield must say which text of the group `channel` is bright-field: {seen}"
        )
    if not found:
        raise SourceError(
            f"--pattern {layout.pattern} matches no file of {root}.\n{folder.describe(root)}"
        )
    left = len(names) - len(found)
    notes = [f"{left} of {len(names)} files are not matched, or of another channel"] if left else []
    return found, notes + folder.unread(root, [MANIFEST])


def _files(root: Path, names: list[str], layout: Layout) -> list[Image]:
    if not names:
        raise SourceError(f"no image to score.\n{folder.describe(root)}")
    short = [clean_id(SUFFIX.sub("", PurePosixPath(name).name)) for name in names]
    twice = {name for name, count in Counter(short).items() if count > 1}
    ids = [
        clean_id(SUFFIX.sub("", name)) if brief in twice else brief
        for name, brief in zip(names, short)
    ]
    planes = [layout.plane(root, name, layout.brightfield) for name in names]
    return [_image(image_id, plane, {}, plane.name, None) for image_id, plane in zip(ids, planes)]


def _image(
    image_id: str, plane: Plane | None, values: dict, where: str, problem: tuple[str, str] | None
) -> Image:
    """An image from texts as a manifest or file name gives them.

    Raises SourceError for what must be mended there.
    """
    facts = {"partition": "", **metadata(values, where)}
    control = values.get("control", "").strip().lower()
    if control not in CONTROLS:
        raise SourceError(
            f"{where}: control is {control!r}; it is negative (untreated), positive (all dead) or empty"
        )
    if well := facts.get("well", ""):
        facts["well"] = canonical(well)
        spot = place(facts["well"])
        if spot is None or spot[0] >= LARGEST[0] or spot[1] >= LARGEST[1]:
            raise SourceError(
                f"{where}: {well!r} is no well of a plate: a letter and a number, such as B7 or B07"
            )
    if not problem and not valid_id(image_id):
        problem = ("image_id", f"{image_id!r} must be made of letters, digits and _ . + - = @")
    name = plane.name if plane else image_id
    if not problem and Path(name).suffix.lower() not in READABLE and not plane.file.exists():
        problem = ("missing file", "the file is not there")
    return Image(
        image_id=image_id, name=name, brightfield=plane, control=control, problem=problem, **facts
    )
