"""What is to be scored: a folder, a manifest, a pattern of file names, or single files;
bright-field only.

How they are read is src/common/images, as for training; here what an assay wants of them is
checked: wells of a plate, and controls (negative: untreated, positive: all dead).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..common.images import folder, omezarr
from ..common.images.entries import expand, file_notes, refuse_repeated
from ..common.images.field import Found, SourceError
from ..common.images.files import FileField
from ..common.images.layout import Layout
from ..common.images.listing import image_files
from ..common.images.manifest import MANIFEST
from ..common.images.planes import Settings
from ..common.images.wells import place

ROLES = ("brightfield",)
CONTROLS = ("", "negative", "positive")
OPTIONS = Settings("--pattern", "--brightfield", "--axes", "--z", "IMAGES")


def find(
    inputs: Sequence[Path], layout: Layout, manifest: Path | None = None
) -> tuple[list[FileField], list[str]]:
    """The images that the user named, in order, and what is worth saying. Raises SourceError.

    An image that cannot be used but stands in the list has its `problem` set; nothing is read but
    time axes.
    """
    options = replace(layout, settings=OPTIONS)
    source = _find([Path(path) for path in inputs], options, manifest)
    images = [_checked(image) for image in source.fields]
    every = refuse_repeated(one for image in images for one in expand(image))
    return every, [*source.notes, *file_notes(every)]


def _find(inputs: list[Path], layout: Layout, manifest: Path | None) -> Found:
    if missing := [path for path in [*inputs, *filter(None, [manifest])] if not path.exists()]:
        raise SourceError(f"{missing[0]} does not exist")
    first = inputs[0]
    if len(inputs) == 1 and _is_folder(first):
        return folder.find(first, layout, manifest, ROLES)
    if manifest or layout.pattern:
        raise SourceError("--manifest and --pattern go with one folder of images")
    if len(inputs) == 1 and first.suffix.lower() == ".csv":
        return folder.find(first.parent, layout, first, ROLES)
    if below := [path for path in inputs if _is_folder(path)]:
        raise SourceError(f"{below[0]} is a folder: name one folder, or files, not both")
    return folder.each_file(Path(), [path.as_posix() for path in inputs], layout)


def _is_folder(path: Path) -> bool:
    """Whether it is a folder of images; an image in an OME-Zarr store is none."""
    return path.is_dir() and not (omezarr.store_of(path) and path in omezarr.fields(path))


def _checked(image: FileField) -> FileField:
    """The image, its control in small letters. Raises SourceError for what must be mended."""
    control = image.control.lower()
    if control not in CONTROLS:
        raise SourceError(
            f"{image.where}: control is {image.control!r}; it is negative (untreated), positive "
            "(all dead) or empty"
        )
    if image.well and place(image.well) is None:
        raise SourceError(
            f"{image.where}: {image.well!r} is no well of a plate: a letter and a number, such as "
            "B7 or B07; an index of wells is the group well96, well384 or well1536 of --pattern"
        )
    return replace(image, control=control)


def named_by_manifest(images: Path, manifest: Path | None, layout: Layout) -> bool:
    """Whether a table or a pattern says which files are which channel, or OME-Zarr plates do."""
    told = bool(manifest or layout.pattern or (images / MANIFEST).is_file())
    return told or omezarr.all_in_stores(images / name for name in image_files(images))
