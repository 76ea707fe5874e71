"""One channel of one field: where it lies in which file, and reading it.

How files are read is scoring/reading, as in registered models, and omezarr.py for stores, which
they do not read; here a plane of a stack is chosen.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..scoring.reading.reader import opened
from ..scoring.reading.stacks import ImageError, Stack
from . import omezarr
from .field import Refused

CONVERT = {
    ".nd2": "Nikon", ".czi": "Zeiss", ".lif": "Leica", ".oib": "Olympus", ".oif": "Olympus",
    ".vsi": "Olympus", ".ims": "Imaris", ".lsm": "Zeiss", ".dv": "DeltaVision", ".zvi": "Zeiss",
    ".nrrd": "NRRD", ".h5": "HDF5", ".hdf5": "HDF5", ".stk": "MetaMorph", ".flex": "Opera",
    ".c01": "Cellomics", ".lof": "Leica", ".sld": "SlideBook",
}  # fmt: skip
READABLE = (".tif", ".tiff", ".png")


@dataclass(frozen=True)
class Settings:
    """What the user calls the settings that messages name: keys of params.yaml, or options."""

    pattern: str = "dataset.pattern"
    channels: str = "dataset.channels"
    axes: str = "dataset.axes"
    z: str = "dataset.z"
    path: str = "dataset.path"


GRAPH = Settings()


@dataclass(frozen=True)
class Plane:
    """Where one channel of one field lies.

    `name` is the file as the source names it; indices count from 0.
    """

    file: Path
    name: str
    channel: int | str | None = None
    axes: str = ""
    z: int | None = None
    time: int | None = None
    settings: Settings = GRAPH


def header(plane: Plane) -> Stack:
    """The file's axes, shape and metadata; it is closed, so no plane can be taken. Raises
    Refused.
    """
    with _open(plane) as stack:
        return stack


def read_plane(plane: Plane) -> tuple[np.ndarray, float | None]:
    """One 2-D channel in the file's own dtype, and its pixel size in um where the file says.

    Raises Refused.
    """
    with _open(plane) as stack:
        steps = {"C": _channel(plane, stack), "Z": _focus(plane, stack), "T": plane.time or 0}
        image = stack.take(tuple(steps.get(axis, 0) for axis in stack.axes if axis not in "YX"))
        transposed = stack.axes.index("Y") > stack.axes.index("X")
        return image.T if transposed else image, stack.pixel_size_um


@contextmanager
def _open(plane: Plane) -> Iterator[Stack]:
    """A plane's file. Every way in which it cannot be read becomes Refused."""
    in_store = omezarr.store_of(plane.file) is not None
    if not in_store:
        refuse_suffix(plane.name)
    reader = omezarr.opened if in_store else opened
    try:
        with reader(plane.file, plane.axes, plane.settings.axes) as stack:
            yield stack
    except ImageError as error:
        raise Refused(error.kind, error.detail, plane.name) from None


def refuse_suffix(name: str) -> None:
    """Raise Refused for a file format that is not read, saying how to convert it."""
    suffix = Path(name).suffix.lower()
    if maker := CONVERT.get(suffix):
        convert = f'bfconvert "{Path(name).name}" "{Path(name).stem}_%s.ome.tiff"'
        detail = (
            f"{maker} {suffix} is not read: convert it to OME-TIFF with {convert} or in Fiji "
            "(File > Save As > OME-TIFF; %s numbers the fields of a file)"
        )
        raise Refused("format", detail, name)
    if suffix not in READABLE:
        kind = suffix or "a file without suffix"
        raise Refused("format", f"{kind} is not read: use TIFF, OME-TIFF, PNG or OME-Zarr", name)


def _channel(plane: Plane, stack: Stack) -> int:
    count, wanted = stack.length("C"), plane.channel
    names = stack.names if len(stack.names) == count else ()  # else of a series of files
    held = f"the file holds {count} channel{'s' * (count > 1)}"
    held += f" ({', '.join(names)})" if any(names) else ""
    setting = plane.settings.channels
    if isinstance(wanted, str) and wanted:
        same = [i for i, name in enumerate(names) if name.casefold() == wanted.casefold()]
        if len(same) == 1:
            return same[0]
        raise ImageError("channel", f"no single channel is named {wanted!r}: {held}")
    if wanted is None and count > 1:
        which = f"say which with {setting}, by number from 0 or by name"
        raise ImageError("channel", f"{held}: {which}")
    if wanted and not 0 <= wanted < count:
        leave = f"for one file a channel leave {setting} empty"
        raise ImageError("channel", f"no channel {wanted} (from 0): {held}; {leave}")
    return wanted or 0


def _focus(plane: Plane, stack: Stack) -> int:
    count, setting = stack.length("Z"), plane.settings.z
    if count == 1:  # as of a mask, or of PI, beside a stack of bright-field
        return 0
    if plane.z is None:
        choose = f"choose one with {setting}, from 0"
        raise ImageError("axes", f"the file holds {count} focus planes: {choose}")
    if plane.z >= count:
        held = f"the file holds {count}, from 0"
        raise ImageError("axes", f"no focus plane {plane.z}: {held}")
    return plane.z
