"""Damaged image files, thousands of them: an image or an ImageError comes out, in time, and never a
crash.
"""

import io
import os
import signal
from contextlib import suppress

import imagecodecs
import numpy as np
import pytest
import tifffile

from src.common.scoring.reading.reader import single_plane
from src.common.scoring.reading.stacks import ImageError
from tests.kill import in_child
from tests.unit.test_reader import by_hand

IMAGE = np.random.default_rng(3).integers(1, 4000, (40, 48), dtype=np.uint16)
COUNT = 150  # damaged copies of each file
SECONDS = 10  # that one may take


def tiff(image: np.ndarray = IMAGE, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, image, **options)
    return file.getvalue()


FILES = {
    "plain": tiff(metadata=None),
    "big-endian strips": tiff(byteorder=">", rowsperstrip=7, metadata=None),
    "BigTIFF": tiff(bigtiff=True, metadata=None),
    "LZW tiles": tiff((IMAGE // 16).astype(np.uint8), compression="lzw", tile=(16, 16)),
    "deflate with a predictor": tiff(compression="zlib", predictor=True, metadata=None),
    "zstd": tiff(compression="zstd", metadata=None),
    "JPEG": tiff((IMAGE // 16).astype(np.uint8), compression="jpeg"),
    "packed 12 bit": by_hand(bytes(range(256)) * 3, 32, 16, 12),
    "OME": tiff(ome=True, metadata={"axes": "YX", "PhysicalSizeX": 0.5}),
    "ImageJ stack": tiff(np.stack([IMAGE, IMAGE]), imagej=True),
    "PNG": imagecodecs.png_encode(IMAGE),
}


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """A copy with bytes changed, mostly in its head or directory, or with a part lost, twice there
    or full of ones.
    """
    data, size = bytearray(whole), len(whole)
    start = int(rng.choice([0, rng.integers(size), max(0, size - 300)]))
    kind = rng.integers(5)
    if kind == 0:
        return bytes(data[: rng.integers(size)])
    if kind == 1:
        end = start + int(rng.integers(1, 40))
        return bytes(data[:start] + data[end:])
    if kind == 2:
        return bytes(data[:start] + data[start : start + 200] + data[start:])
    if kind == 3:
        data[start : start + 4] = b"\xff" * len(data[start : start + 4])
        return bytes(data)
    for _ in range(rng.integers(1, 9)):
        place = min(size - 1, start + int(rng.integers(300)))
        data[place] = rng.choice([0, 1, 255, rng.integers(256)])
    return bytes(data)


def read(name: str, seed: int) -> None:
    with suppress(ImageError):
        image, _ = single_plane(damaged(FILES[name], np.random.default_rng(seed)))
        assert image.ndim == 2 and image.size, f"{name}, seed {seed}: shape {image.shape}"


@pytest.mark.parametrize("name", [name for name in FILES if name != "ImageJ stack"])
def test_undamaged_they_are_read(name):
    assert single_plane(FILES[name])[0].size


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_give_an_image_or_an_image_error(name):
    def all_of_them():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process: code that hangs in C too
        for seed in range(COUNT):
            signal.alarm(SECONDS)
            read(name, seed)

    status = in_child(all_of_them)
    assert not os.WIFSIGNALED(status), f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    assert status == 0
