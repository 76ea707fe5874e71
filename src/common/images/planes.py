"""Reading one channel of one field from a TIFF, OME-TIFF or PNG file, by explicit axes only.

Axes are letters: Y, X, C channel, Z focus plane, T time. They come from dataset.axes, else from
OME, ImageJ or other metadata that names them; an order that nothing names is refused, never
guessed.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile

from .field import Refused
from .pixel_size import channel_names, pixel_size

CONVERT = {
    ".nd2": "Nikon", ".czi": "Zeiss", ".lif": "Leica", ".oib": "Olympus", ".oif": "Olympus", ".vsi": "Olympus",
    ".ims": "Imaris", ".lsm": "Zeiss", ".dv": "DeltaVision", ".zvi": "Zeiss", ".nrrd": "NRRD", ".h5": "HDF5",
}  # fmt: skip
COMPRESSED = "compressed in a way that is not read: save it uncompressed, or with deflate (zip)"
READABLE = (".tif", ".tiff", ".png")


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


@dataclass(frozen=True)
class Stack:
    """An open file: the axes and shape of what it holds, and how to take one 2-D plane of it by
    index.
    """

    axes: str
    shape: tuple[int, ...]
    take: Callable[[tuple[int, ...]], np.ndarray]
    names: tuple[str, ...] = ()
    pixel_size_um: float | None = None

    def length(self, axis: str) -> int:
        """How many steps the file has along an axis; 1 for an axis it does not have."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1


def time_points(plane: Plane) -> int:
    """How many time points the file holds. Raises Refused."""
    with opened(plane) as stack:
        return stack.length("T")


def read_plane(plane: Plane) -> tuple[np.ndarray, float | None]:
    """One 2-D channel in the file's own dtype, and its pixel size in um where the file says.

    Raises Refused.
    """
    with opened(plane) as stack:
        steps = {"C": _channel(plane, stack), "Z": _focus(plane, stack), "T": plane.time or 0}
        image = stack.take(tuple(steps[axis] for axis in stack.axes if axis not in "YX"))
        return image.T if stack.axes.index("Y") > stack.axes.index(
            "X"
        ) else image, stack.pixel_size_um


@contextmanager
def opened(plane: Plane) -> Iterator[Stack]:
    """Open a plane's file. Every way in which it cannot be read becomes Refused."""
    refuse_suffix(plane.name)
    heard: list[str] = []
    listener = logging.Handler(logging.ERROR)
    listener.emit = lambda record: heard.append(record.getMessage())
    logger = logging.getLogger("tifffile")
    logger.addHandler(listener)
    try:
        with _png(plane) if plane.name.lower().endswith(".png") else _tiff(plane) as stack:
            if heard:  # tifffile reports a broken chain of pages and goes on with those it found
                raise Refused("unreadable", "", plane.name)
            yield stack
    except FileNotFoundError:
        raise Refused("missing file", "the file is not there", plane.name) from None
    except PermissionError:
        raise Refused(
            "not allowed", "this user may not read the file: mend its permissions", plane.name
        ) from None
    except IsADirectoryError:
        raise Refused("unreadable", "it is a folder, not an image file", plane.name) from None
    except Exception as error:  # decoders raise anything on damaged bytes
        if isinstance(error, Refused) and not heard:
            raise
        if "imagecodecs" in str(error):
            raise Refused("unreadable", COMPRESSED, plane.name) from None
        detail = f"damaged or truncated ({heard[0] if heard else error})"
        raise Refused("unreadable", detail, plane.name) from None
    finally:
        logger.removeHandler(listener)


def refuse_suffix(name: str) -> None:
    """Raise Refused for a file format that is not read, saying how to convert it."""
    suffix = Path(name).suffix.lower()
    if maker := CONVERT.get(suffix):
        convert = f'bfconvert "{Path(name).name}" "{Path(name).stem}_%s.ome.tiff"'
        raise Refused("format", f"{maker} {suffix} is not read: convert it to OME-TIFF with {convert} or in Fiji "
                      "(File > Save As > OME-TIFF; %s numbers the fields of a file)", name)  # fmt: skip
    if suffix not in READABLE:
        raise Refused(
            "format",
            f"{suffix or 'a file without suffix'} is not read: use TIFF, OME-TIFF or PNG",
            name,
        )


@contextmanager
def _png(plane: Plane) -> Iterator[Stack]:
    image = cv2.imdecode(np.frombuffer(plane.file.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise Refused("unreadable", "damaged or truncated PNG", plane.name)
    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]  # OpenCV's order is blue, green, red
    axes = _axes(plane, "YX" if image.ndim == 2 else "YXS", image.shape)
    yield Stack(axes, image.shape, lambda index: _slice(image, axes, index))


@contextmanager
def _tiff(plane: Plane) -> Iterator[Stack]:
    with tifffile.TiffFile(plane.file) as tif:
        series = _series(tif, plane)
        axes = _axes(plane, series.axes, series.shape)
        names, size = channel_names(tif), pixel_size(tif, plane.name)
        yield Stack(
            axes, series.shape, lambda index: _take(series, axes, index, plane), names, size
        )


def _series(tif: tifffile.TiffFile, plane: Plane) -> tifffile.TiffPageSeries:
    """The one image of a file; OME metadata may name further ones, or parts of it, that lie in
    other files.
    """
    if tif.is_ome and len(tif.pages) == 1:
        return tifffile.TiffPageSeries([tif.pages.first], kind="page")
    here = [
        s for s in tif.series if any(page is not None and page.parent is tif for page in s.pages)
    ]
    if len(here) != 1:
        raise Refused(
            "axes", f"holds {len(here)} separate images: save one field a file", plane.name
        )
    return here[0]


def _axes(plane: Plane, stated: str, shape: tuple[int, ...]) -> str:
    """The axis order to read by.

    Raises Refused when none is stated, or the one in dataset.axes does not fit.
    """
    if len(shape) == 2:
        return stated if set(stated) == {"Y", "X"} else "YX"
    if plane.axes and len(plane.axes) != len(shape):
        found = f"the file has shape {shape} ({stated})"
        raise Refused(
            "axes", f"dataset.axes {plane.axes} names {len(plane.axes)} axes, {found}", plane.name
        )
    if plane.axes:
        return plane.axes
    if set(stated) <= set("TZCYX"):
        return stated
    example = (
        "YXC" if stated.endswith("S") else "CYX" if len(shape) == 3 else "TCZYX"[-len(shape) :]
    )
    detail = f"shape {shape} without a stated axis order: set dataset.axes, for example {example}"
    raise Refused("axes", detail, plane.name)


def _take(
    series: tifffile.TiffPageSeries, axes: str, index: tuple[int, ...], plane: Plane
) -> np.ndarray:
    """One plane of a series, reading no more of the file than needed where planes are pages."""
    lead = series.shape[:-2]
    if not (set(axes[-2:]) == {"Y", "X"} and len(series.pages) == int(np.prod(lead, dtype=int))):
        return _slice(series.asarray(), axes, index)
    page = series.pages[int(np.ravel_multi_index(index, lead)) if lead else 0]
    if page is None:
        raise Refused("unreadable", "a page that the metadata names is missing", plane.name)
    end = max((a + b for a, b in zip(page.dataoffsets, page.databytecounts)), default=0)
    if end > page.parent.filehandle.size:
        raise Refused("unreadable", "truncated: the file ends before its pixels do", plane.name)
    try:
        return page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        return _by_opencv(plane, page.index)


def _by_opencv(plane: Plane, page: int) -> np.ndarray:
    """A page in a compression (such as LZW) that tifffile reads with a further package only."""
    done, images = cv2.imreadmulti(str(plane.file), page, 1, flags=cv2.IMREAD_UNCHANGED)
    if not done or images[0].ndim != 2:
        raise Refused("unreadable", COMPRESSED, plane.name)
    return images[0]


def _slice(image: np.ndarray, axes: str, index: tuple[int, ...]) -> np.ndarray:
    steps = iter(index)
    return image[tuple(slice(None) if axis in "YX" else next(steps) for axis in axes)]


def _channel(plane: Plane, stack: Stack) -> int:
    count, wanted, names = stack.length("C"), plane.channel, stack.names
    held = f"the file holds {count} channel{'s' * (count > 1)}" + (
        f" ({', '.join(names)})" if names else ""
    )
    if isinstance(wanted, str) and wanted:
        same = [i for i, name in enumerate(names) if name.casefold() == wanted.casefold()]
        if len(same) == 1 and same[0] < count:
            return same[0]
        raise Refused("channel", f"no single channel is named {wanted!r}: {held}", plane.name)
    if wanted is None and count > 1:
        raise Refused(
            "channel",
            f"{held}: say which with dataset.channels, by number from 0 or by name",
            plane.name,
        )
    if wanted and wanted >= count:
        raise Refused("channel", f"no channel {wanted} (from 0): {held}; for one file a channel leave dataset.channels "
                      "empty", plane.name)  # fmt: skip
    return wanted or 0


def _focus(plane: Plane, stack: Stack) -> int:
    count = stack.length("Z")
    if plane.z is None and count > 1:
        raise Refused(
            "axes",
            f"the file holds {count} focus planes: choose one with dataset.z, from 0",
            plane.name,
        )
    if (plane.z or 0) >= count:
        raise Refused(
            "axes", f"no focus plane {plane.z}: the file holds {count}, from 0", plane.name
        )
    return plane.z or 0
