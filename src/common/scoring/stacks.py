"""The one reader of image files, for the stages, `unstained score` and the served model alike.

TIFF, OME-TIFF and PNG, from a path or from bytes, told apart by their content. Axes are letters: Y,
X, C channel, Z focus plane, T time. What a file states (axes, orientation, compression) is
followed; what nothing states is refused, never guessed. Ships inside registered models.
"""

import io
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from .pixel_size import channel_names, pixel_size

MOST_PIXELS = 100_000_000  # of one plane: a camera has 65 million at most; more is a stitched slide
MOST_PAGES = 10_000
PNG = b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
OTHERS = {b"\xff\xd8\xff": "a JPEG image", b"GIF8": "a GIF image", b"BM": "a BMP image",
          b"PK\x03\x04": "a ZIP archive", b"%PDF": "a PDF document", b"\x1f\x8b": "a gzip archive",
          b"\x89HDF": "an HDF5 file", b"<": "an XML or HTML text"}  # fmt: skip
SHADES = {  # photometric interpretations whose pixels are no counts
    0: "says that 0 is white (WhiteIsZero), so whether its counts are inverted cannot be told: "
    "save it again with 0 as black (Fiji: Image > Lookup Tables > Grays, and Edit > Invert "
    "if bright cells look dark)",
    3: "holds colours of a palette, not counts: save the raw counts",
}


class ImageError(ValueError):
    """A file that cannot be used as an image of counts: the kind of reason, and what is wrong."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


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


def single_plane(data: bytes) -> tuple[np.ndarray, float | None]:
    """The only plane (H, W) of an image file's bytes in the file's dtype, and um per pixel where it
    says.

    Raises ImageError, also for a file with more than one plane: which is bright-field is not known.
    """
    with opened(data) as stack:
        planes = int(np.prod([stack.length(axis) for axis in stack.axes if axis not in "YX"]))
        if planes > 1:
            held = f"the file holds {planes} planes (axes {stack.axes}, shape {stack.shape})"
            raise ImageError("axes", f"{held}: give the one bright-field plane alone")
        image = stack.take((0,) * (len(stack.axes) - 2))
        return image, stack.pixel_size_um


@contextmanager
def opened(source: Path | bytes, axes: str = "", setting: str = "") -> Iterator[Stack]:
    """Open an image file, or its bytes; every way in which it cannot be read becomes ImageError.

    axes: the order of its axes, where the file does not state it or is wrong; setting: what the
    user calls this, for messages.
    """
    heard: list[str] = []
    listener = logging.Handler(logging.ERROR)
    listener.emit = lambda record: heard.append(record.getMessage())
    logger = logging.getLogger("tifffile")
    logger.addHandler(listener)
    try:
        with _kind(source)(source, axes, setting) as stack:
            if heard:  # tifffile reports a broken chain of pages and goes on with those it found
                raise ImageError("unreadable", "")
            yield stack
    except Exception as error:  # decoders raise anything on damaged bytes
        raise _named(error, heard) from None
    finally:
        logger.removeHandler(listener)


def _named(error: Exception, heard: list[str]) -> ImageError:
    """The error under the name of its cause."""
    if isinstance(error, ImageError) and not heard:
        return error
    if isinstance(error, FileNotFoundError):
        return ImageError("missing file", "the file is not there")
    if isinstance(error, PermissionError):
        return ImageError("not allowed", "this user may not read the file: mend its permissions")
    if isinstance(error, IsADirectoryError):
        return ImageError("unreadable", "it is a folder, not an image file")
    if isinstance(error, MemoryError):
        return ImageError("too large", "it does not fit into memory: cut it into fields")
    if "not supported" in str(error) or "imagecodecs" in str(error):
        detail = "compressed in a way that is not read: save it uncompressed, or with deflate (zip)"
        return ImageError("unreadable", f"{detail} ({error})")
    return ImageError("unreadable", f"damaged or truncated ({heard[0] if heard else error})")


def _kind(source: Path | bytes) -> Callable:
    """What opens a file, by its first bytes. Raises ImageError for another kind of file."""
    if isinstance(source, Path):
        with source.open("rb") as stream:
            head = stream.read(8)
    else:
        head = bytes(source[:8])
    if head.startswith(TIFF):
        return _tiff
    if head == PNG:
        return _png
    if not head:
        raise ImageError("unreadable", "damaged or truncated: it is empty (0 bytes)")
    for first, kind in OTHERS.items():
        if head.startswith(first):
            raise ImageError("format", f"it is {kind}, whatever its name: use TIFF or PNG")
    raise ImageError("unreadable", "damaged or truncated: it does not begin as a TIFF or PNG does")


@contextmanager
def _png(source: Path | bytes, axes: str, setting: str) -> Iterator[Stack]:
    data = source.read_bytes() if isinstance(source, Path) else bytes(source)
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    depth, colour = data[24], data[25]
    _refuse_large(height, width)
    if depth < 8:
        raise ImageError("pixel type", f"{depth}-bit PNG: save the raw counts as 8 or 16 bit")
    if colour == 3:
        raise ImageError("look-up table", f"the PNG {SHADES[3]}")
    image = imagecodecs.png_decode(data)
    order = _order(axes, "YX" if image.ndim == 2 else "YXS", image.shape, setting)
    yield Stack(order, image.shape, lambda index: _slice(image, order, index))


@contextmanager
def _tiff(source: Path | bytes, axes: str, setting: str) -> Iterator[Stack]:
    inside = isinstance(source, Path)  # bytes must not lead to files of this machine
    stream = source if inside else io.BytesIO(source)
    with tifffile.TiffFile(stream, _multifile=inside) as tif:
        _refuse_pages(tif)
        series = _series(tif)
        _refuse_large(*series.keyframe.shape[:2])
        if shade := SHADES.get(int(series.keyframe.photometric)):
            raise ImageError("look-up table", f"the file {shade}")
        order = _order(axes, series.axes, series.shape, setting)
        try:
            size = pixel_size(tif)
        except ValueError as error:
            raise ImageError("pixel size", str(error)) from None
        turn = int(series.keyframe.tags.valueof("Orientation", 1))
        yield Stack(
            order,
            series.shape,
            lambda index: _upright(_take(series, order, index), turn),
            channel_names(tif),
            size,
        )


def _refuse_pages(tif: tifffile.TiffFile) -> None:
    """Raises ImageError for more pages than a stack has, and for a series that lies in other
    folders.
    """
    try:
        tif.pages[MOST_PAGES]
    except IndexError:
        pass
    else:
        raise ImageError("too large", f"it holds more than {MOST_PAGES} pages: save fewer a file")
    for name in re.findall(r'FileName="([^"]*)"', tif.ome_metadata or "" if tif.is_ome else ""):
        if re.search(r"[/\\]|^\.\.", name):
            raise ImageError("outside", f"its OME metadata names a file of another folder: {name}")


def _refuse_large(height: int, width: int) -> None:
    if height * width > MOST_PIXELS:
        most = f"more than {MOST_PIXELS // 10**6} million pixels are no field"
        raise ImageError("too large", f"{height} x {width} px: {most}; cut it into fields")


def _series(tif: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """The one image of a file; OME metadata may name further ones, or parts of it, that lie in
    other files.
    """
    if tif.is_ome and len(tif.pages) == 1:
        return tifffile.TiffPageSeries([tif.pages.first], kind="page")
    here = [
        s for s in tif.series if any(page is not None and page.parent is tif for page in s.pages)
    ]
    if not here:
        raise ImageError("unreadable", "damaged or truncated: no image is found in it")
    if len(here) != 1:
        raise ImageError("axes", f"holds {len(here)} separate images: save one field a file")
    return here[0]


def _order(axes: str, stated: str, shape: tuple[int, ...], setting: str) -> str:
    """The axis order to read by.

    Raises ImageError when none is stated, or the given one does not fit.
    """
    if len(shape) == 2:
        return stated if set(stated) == {"Y", "X"} else "YX"
    if axes and len(axes) != len(shape):
        found = f"the file has shape {shape} ({stated})"
        raise ImageError("axes", f"{setting} {axes} names {len(axes)} axes, {found}")
    if axes:
        return axes
    if set(stated) <= set("TZCYX"):
        return stated
    colours = stated.endswith("S")
    example = "YXC" if colours else "CYX" if len(shape) == 3 else "TCZYX"[-len(shape) :]
    mend = f"set {setting}, for example {example}" if setting else "give one plane a file"
    raise ImageError("axes", f"shape {shape} without a stated axis order: {mend}")


def _take(series: tifffile.TiffPageSeries, axes: str, index: tuple[int, ...]) -> np.ndarray:
    """One plane of a series, reading no more of the file than needed where planes are pages."""
    lead = series.shape[:-2]
    if not (set(axes[-2:]) == {"Y", "X"} and len(series.pages) == int(np.prod(lead, dtype=int))):
        return _slice(series.asarray(), axes, index)
    page = series.pages[int(np.ravel_multi_index(index, lead)) if lead else 0]
    if page is None:
        raise ImageError("missing file", "a page that the metadata names is not there")
    end = max((a + b for a, b in zip(page.dataoffsets, page.databytecounts)), default=0)
    if end > page.parent.filehandle.size:
        raise ImageError("unreadable", "truncated: the file ends before its pixels do")
    handle = page.parent.filehandle
    if not handle.closed:
        return page.asarray()
    handle.open()  # another file of the series, which tifffile closed after its metadata
    try:
        return page.asarray()
    finally:
        handle.close()


def _slice(image: np.ndarray, axes: str, index: tuple[int, ...]) -> np.ndarray:
    steps = iter(index)
    return image[tuple(slice(None) if axis in "YX" else next(steps) for axis in axes)]


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """A stored plane as it is to be seen (TIFF 6.0, Orientation: 1 is upright, from 5 on rows and
    columns are exchanged).
    """
    if orientation >= 5:
        image = image.T
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image[:, ::-1] if orientation in (2, 3, 6, 7) else image
