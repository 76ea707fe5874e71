"""TIFF and OME-TIFF files as stacks: pages, axes, orientation. Ships inside registered models."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile

from .pixel_size import channel_names, pixel_size
from .stacks import SHADES, ImageError, Stack, axis_order, no_file, one_grey, refuse_large, sliced

MOST_PAGES = 10_000
LOSSY = re.compile("JP|WEBP|LERC")  # JPEG and its successors, by tifffile's names


@contextmanager
def open_tiff(source: Path | bytes, axes: str, setting: str) -> Iterator[Stack]:
    """A TIFF file, or its bytes, as a stack; axes and setting as in reader.opened. Raises
    ImageError, and whatever tifffile raises on damaged bytes.
    """
    stream = source if isinstance(source, Path) else io.BytesIO(source)
    inside = isinstance(source, Path)  # bytes must not lead to files of this machine
    with tifffile.TiffFile(stream, _multifile=inside) as tif:
        _refuse_pages(tif)
        _refuse_names(tif)
        series = _series(tif)
        refuse_large(*series.keyframe.shape[:2])
        _refuse_no_counts(tif, series.keyframe)
        shape = series.shape if axes else _shape(series)
        order = axis_order(axes, series.axes, shape, setting)
        try:
            size = pixel_size(tif)
        except ValueError as error:
            raise ImageError("pixel size", str(error)) from None
        turn = int(series.keyframe.tags.valueof("Orientation", 1))
        yield Stack(
            order,
            shape,
            lambda index: _upright(_whole(_take(series, order, index)), turn),
            channel_names(tif),
            size,
            _lossy(series.keyframe),
        )


def _refuse_pages(tif: tifffile.TiffFile) -> None:
    """Raises ImageError for more pages than a stack has."""
    try:
        tif.pages[MOST_PAGES]
    except IndexError:
        pass
    else:
        raise ImageError("too large", f"it holds more than {MOST_PAGES} pages: save fewer a file")


def _refuse_no_counts(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> None:
    """Raises ImageError for pixels that are not counts, by what the file says of them."""
    if shade := SHADES.get(int(page.photometric)):
        raise ImageError("look-up table", f"the file {shade}")
    if (tif.imagej_metadata or {}).get("c0") == -32768:
        shifted = "ImageJ has raised its signed counts by 32768 to store them"
        mend = "save them as unsigned 16 bit (Image > Type > 32-bit, then 16-bit, unscaled)"
        raise ImageError("pixel type", f"{shifted}: {mend}")


def _refuse_names(tif: tifffile.TiffFile) -> None:
    """Raises ImageError for a series that lies in other folders, or in what is no file."""
    folder = tif.filehandle.dirname  # '' of bytes
    for name in re.findall(r'FileName="([^"]*)"', tif.ome_metadata or "" if tif.is_ome else ""):
        if re.search(r"[/\\]|^\.\.", name):
            raise ImageError("outside", f"its OME metadata names a file of another folder: {name}")
        if folder and Path(folder, name).exists() and (other := no_file(Path(folder, name))):
            raise ImageError("unreadable", f"its OME metadata names {name}, which is {other}")


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


def _lossy(page: tifffile.TiffPage) -> str:
    """The compression of a page, if it is one that may lose texture, else ''."""
    name = getattr(page.compression, "name", "")
    return name if LOSSY.search(name) else ""


def _shape(series: tifffile.TiffPageSeries) -> tuple[int, ...]:
    """Its shape, 1 along colours that are one grey."""
    colours = series.axes in ("YXS", "SYX")
    return one_grey(series.asarray(), series.axes) if colours else series.shape


def _take(series: tifffile.TiffPageSeries, axes: str, index: tuple[int, ...]) -> np.ndarray:
    """One plane of a series, reading no more of the file than needed where planes are pages."""
    lead = series.shape[:-2]
    if not (set(axes[-2:]) == {"Y", "X"} and len(series.pages) == int(np.prod(lead, dtype=int))):
        return sliced(series.asarray(), axes, index)
    page = series.pages[int(np.ravel_multi_index(index, lead)) if lead else 0]
    if page is None:
        raise ImageError("missing file", "a page that the metadata names is not there")
    if not all(page.databytecounts):
        raise ImageError("unreadable", "truncated: strips or tiles of it are not there")
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


def _whole(image: np.ndarray) -> np.ndarray:
    """The plane (H, W). Raises ImageError if there are no pixels, which tifffile reads as such."""
    if image.ndim != 2 or not image.size:
        raise ImageError("unreadable", "damaged or truncated: it states an image without pixels")
    return image


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """A stored plane as it is to be seen (TIFF 6.0, Orientation: 1 is upright, from 5 on rows and
    columns are exchanged).
    """
    if orientation >= 5:
        image = image.T
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image[:, ::-1] if orientation in (2, 3, 6, 7) else image
