"""How the files of a folder are read, and what a table or a file name makes of a field."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ..workspace.csv_table import control_in
from . import omezarr
from .field import ID_BYTES, TITLES, SourceError, clean_id, metadata, valid_id
from .files import FileField
from .listing import on_disk, printable
from .planes import GRAPH, Plane, Settings

BOTH = tuple(TITLES)
MASK = "nuclei"  # an instance mask, which no field must have
IMAGE_SUFFIX = re.compile(r"(\.ome)?\.(tiff?|png|zarr)$", re.IGNORECASE)
NAMING = ("partition", "experiment", "well", "row", "column", "well96", "well384", "well1536",
          "position", "time", "day", "compound", "concentration")  # fmt: skip
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
    settings: Settings = GRAPH

    def plane(self, folder: Path, name: str, channel: Channel) -> Plane:
        """One channel of a file of the folder."""
        chosen = None if channel == "" else channel
        place = on_disk(folder, name).absolute()  # workers of a cluster stand elsewhere
        return Plane(place, printable(name), chosen, self.axes, self.z, settings=self.settings)

    def partition(self, stated: str, where: str) -> str:
        """The partition of a field. Raises SourceError where it is open."""
        if stated or not self.partitions:
            return stated
        if len(self.partitions) == 1:
            return self.partitions[0]
        several = ", ".join(self.partitions)
        raise SourceError(
            f"{where}: no partition is given, and dataset.partitions names several: {several}"
        )


def make_field(
    planes: Mapping[str, Plane | None],
    values: Mapping[str, str],
    layout: Layout,
    where: str,
    problem: tuple[str, str] | None = None,
) -> FileField:
    """The field that planes of one or both channels make up, with what texts say of it.

    Raises SourceError, naming `where`, for a text that must be mended there.
    """
    named = [plane for role, plane in planes.items() if plane and role != MASK]
    names = list(dict.fromkeys(plane.name for plane in named))
    image_id = _id(values, names)
    facts = metadata(values, where)
    facts["partition"] = layout.partition(values.get("partition", ""), where)
    return FileField(
        image_id=image_id,
        name=" + ".join(names) or image_id,
        where=where,
        problem=problem or _problem(image_id, planes),
        **facts,
        **planes,
    )


def _id(values: Mapping[str, str], names: Sequence[str]) -> str:
    """What the manifest states, or what the file's name says, else the file's name itself."""
    stated = printable(values.get("image_id", ""))
    if "brightfield" not in values:  # of a file name: its characters are not the user's choice
        stated = stated or "_".join(values[key] for key in NAMING if values.get(key))
        stated = clean_id(stated)
    return stated or (brief(names[0]) if names else "")


def brief(name: str) -> str:
    """An id from a file's name alone, or from a place in an OME-Zarr store, such as A_1_0."""
    path = PurePosixPath(name)
    store = omezarr.store_of(path)
    inside = store and path != store
    return clean_id(str(path.relative_to(store)) if inside else IMAGE_SUFFIX.sub("", path.name))


def _problem(image_id: str, planes: Mapping[str, Plane | None]) -> tuple[str, str] | None:
    """Why a field is refused before any file is opened: kind and detail."""
    for role, plane in planes.items():
        if plane is None:
            what = "partner" if len(planes) > 1 else "image"
            return f"missing {what}", f"no {TITLES[role]} image"
        if odd := control_in(plane.name):
            return "file name", f"{plane.name!r} holds the control {odd}: rename the file"
        path = PurePosixPath(plane.name)
        drive = ":" in path.parts[0] and not plane.file.exists()  # C:, or a folder named 10:30
        if path.is_absolute() or ".." in path.parts or drive:
            return "outside", f"{path} is not inside the folder: give a path relative to it"
    if not valid_id(image_id):
        return "image_id", (
            f"{image_id!r} must be made of letters, digits and _ . + - = @, begin with neither . "
            f"nor -, and have {ID_BYTES} bytes at most"
        )
    return None


def as_number(channel: Channel) -> Channel:
    """A channel number in a manifest, where spreadsheets and pandas also write 1.0; any other text
    is a name.
    """
    whole = re.fullmatch(r"([0-9]+)(\.0+)?", channel) if isinstance(channel, str) else None
    return int(whole[1]) if whole else channel


def unify_spelling(fields: Sequence[FileField], column: str) -> tuple[list[FileField], list[str]]:
    """The fields with one spelling for texts of a column that differ in case, width, kind of dash,
    or zeros before or after a whole number alone, the first one met; and a note on each.
    """
    texts = [getattr(field, column) for field in fields]
    spelled: dict[str, list[str]] = {}
    for text in dict.fromkeys(texts):
        spelled.setdefault(_sound(text), []).append(text)
    several = [known for known in spelled.values() if len(known) > 1]
    notes = [f"{column} {', '.join(known[1:])} is read as {known[0]}" for known in several]
    first = [spelled[_sound(text)][0] for text in texts]
    return [replace(own, **{column: text}) for own, text in zip(fields, first)], notes


def _sound(text: str) -> str:
    plain = re.sub("[\u2010-\u2015\u2212]", "-", unicodedata.normalize("NFKC", text).casefold())
    return re.sub(r"\A0*([0-9]+)(\.0+)?\Z", r"\1", plain)
