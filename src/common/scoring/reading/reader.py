"""The one reader of image files, for the stages, `unstained score` and the served model alike.

TIFF, OME-TIFF and PNG, from a path or from bytes, told apart by their content. Ships inside
registered models.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np

from .stacks import SHADES, ImageError, Stack, axis_order, no_file, one_grey, refuse_large, sliced
from .tiff import open_tiff

PNG = b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
FOREIGN = {b"\xff\xd8\xff": "a JPEG image", b"GIF8": "a GIF image", b"BM": "a BMP image",
          b"PK\x03\x04": "a ZIP archive", b"%PDF": "a PDF document", b"\x1f\x8b": "a gzip archive",
          b"\x89HDF": "an HDF5 file", b"RIFF": "a WebP image", b"ZISRAW": "a Zeiss CZI file",
          b"\xda\xce\xbe\x0a": "a Nikon ND2 file", b"\0\0\0\x0cjP": "a JPEG 2000 image",
          b"<": "an XML or HTML text",
          b"version ": "a Git LFS pointer (git lfs pull brings the image)"}  # fmt: skip


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
    listener.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
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
    if isinstance(error, MemoryError):
        return ImageError("too large", "it does not fit into memory: cut it into fields")
    if "not supported" in str(error) or "imagecodecs" in str(error):
        detail = "compressed in a way that is not read: save it uncompressed, or with deflate (zip)"
        return ImageError("unreadable", f"{detail} ({error})")
    return ImageError("unreadable", f"damaged or truncated ({heard[0] if heard else error})")


def _kind(source: Path | bytes) -> Callable:
    """What opens a file, by its first bytes. Raises ImageError for another kind of file."""
    if isinstance(source, Path):
        if other := no_file(source):
            raise ImageError("unreadable", f"it is {other}, not an image file")
        with source.open("rb") as stream:
            head = stream.read(8)
    else:
        head = bytes(source[:8])
    if head.startswith(TIFF):
        return open_tiff
    if head == PNG:
        return _png
    if not head:
        raise ImageError("unreadable", "damaged or truncated: it is empty (0 bytes)")
    for first, kind in FOREIGN.items():
        if head.startswith(first):
            raise ImageError("format", f"it is {kind}, whatever its name: use TIFF or PNG")
    raise ImageError("unreadable", "damaged or truncated: it does not begin as a TIFF or PNG does")


@contextmanager
def _png(source: Path | bytes, axes: str, setting: str) -> Iterator[Stack]:
    data = source.read_bytes() if isinstance(source, Path) else bytes(source)
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    depth, colour = data[24], data[25]
    refuse_large(height, width)
    if depth < 8:
        raise ImageError("pixel type", f"{depth}-bit PNG: save the raw counts as 8 or 16 bit")
    if colour == 3:
        raise ImageError("look-up table", f"the PNG {SHADES[3]}")
    image = imagecodecs.png_decode(data)
    shape = image.shape if axes or image.ndim == 2 else one_grey(image, "YXS")
    order = axis_order(axes, "YXS"[: image.ndim], shape, setting)
    yield Stack(order, shape, lambda index: sliced(image, order, index))
