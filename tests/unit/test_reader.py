"""The one reader: the same result by path and by bytes, whatever compression; what is refused, and
by which name.
"""

import os
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile

from src.common.images.planes import Plane, read_plane
from src.common.scoring.pyfunc import decode
from src.common.scoring.reading import reader, tiff
from src.common.scoring.reading.reader import opened, single_plane
from src.common.scoring.reading.stacks import ImageError
from src.common.scoring.scorer import RefusedFrame

RNG = np.random.default_rng(3)
IMAGE = RNG.integers(1, 4000, (40, 50), dtype=np.uint16)
UPRIGHT = {  # TIFF 6.0, Orientation: where the first stored row and column are to be seen
    1: IMAGE, 2: IMAGE[:, ::-1], 3: IMAGE[::-1, ::-1], 4: IMAGE[::-1],
    5: IMAGE.T, 6: np.rot90(IMAGE, -1), 7: IMAGE[::-1, ::-1].T, 8: np.rot90(IMAGE),
}  # fmt: skip
COMPRESSIONS = [None, "lzw", "zlib", "zstd"]


def write(path, image=IMAGE, **options):
    tifffile.imwrite(path, image, metadata=None, **options)
    return path


def read(path) -> np.ndarray:
    with opened(path) as stack:
        return stack.take(())


def by_hand(pixels: bytes, width: int, height: int, bits: int) -> bytes:
    """A TIFF of one strip whose directory follows its pixels and says what it is told."""
    entries = {256: (3, width), 257: (3, height), 258: (3, bits), 259: (3, 1), 262: (3, 1),
               273: (4, 8), 277: (3, 1), 278: (3, height), 279: (4, len(pixels))}  # fmt: skip
    table = b"".join(struct.pack("<HHII", c, kind, 1, v) for c, (kind, v) in entries.items())
    head = struct.pack("<2sHI", b"II", 42, 8 + len(pixels))
    return head + pixels + struct.pack("<H", len(entries)) + table + bytes(4)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_path_and_bytes_give_the_same_counts(tmp_path, compression):
    path = write(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(read(path), IMAGE)
    np.testing.assert_array_equal(decode(path.read_bytes())[0], IMAGE)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_followed_whatever_the_compression(tmp_path, orientation, compression):
    extra = [(274, "H", 1, orientation, True)]
    path = write(tmp_path / "a.tif", compression=compression, extratags=extra)
    np.testing.assert_array_equal(read(path), UPRIGHT[orientation])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_white_is_zero_is_refused_by_path_and_bytes(tmp_path, compression):
    path = write(tmp_path / "a.tif", compression=compression, photometric="miniswhite")
    with pytest.raises(ImageError, match="look-up table: the file says that 0 is white"):
        read(path)
    with pytest.raises(RefusedFrame, match="look-up table"):
        decode(path.read_bytes())


def test_signed_counts_as_imagej_stores_them_are_refused(tmp_path):
    """Its 16 bits hold 32768 more than the counts, which would hide how much brighter PI is."""
    said = "ImageJ=1.54f\ncf=0\nc0={}\nc1=1.0\nvunit=gray value\n"
    path = write(tmp_path / "a.tif", description=said.format(-32768.0))
    with pytest.raises(ImageError, match="pixel type: ImageJ has raised its signed counts"):
        read(path)
    np.testing.assert_array_equal(read(write(path, description=said.format(0.0))), IMAGE)


def test_packed_12_bit_counts_are_read(tmp_path):
    """Two pixels in three bytes, as some cameras write them (TIFF 6.0: BitsPerSample 12)."""
    packed = bytes(imagecodecs.packints_encode(IMAGE, 12))
    (tmp_path / "a.tif").write_bytes(by_hand(packed, 50, 40, 12))
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), IMAGE)


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_each_file_of_a_series_gives_the_channel_that_is_asked_for(tmp_path, compression):
    """One OME-TIFF a channel, each with focus planes and the metadata of the whole series."""
    planes = RNG.integers(1, 4000, (2, 3, 40, 50), dtype=np.uint16)
    data = "".join(
        f'<TiffData IFD="{z}" PlaneCount="1" FirstC="{c}" FirstZ="{z}" FirstT="0">'
        f'<UUID FileName="C{c}.ome.tif">urn:uuid:{c}</UUID></TiffData>'
        for c in range(2)
        for z in range(3)
    )
    for c in range(2):
        xml = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{c}"><Image ID="Image:0"><Pixels ID="Pixels:0" Type="uint16" '
            'DimensionOrder="XYZCT" SizeX="50" SizeY="40" SizeZ="3" SizeC="2" SizeT="1">'
            f'<Channel ID="Channel:0:0"/><Channel ID="Channel:0:1"/>{data}</Pixels></Image></OME>'
        )
        options = {"photometric": "minisblack", "compression": compression}
        write(tmp_path / f"C{c}.ome.tif", planes[c], description=xml, **options)
    for name in ("C0.ome.tif", "C1.ome.tif"):
        with opened(tmp_path / name) as stack:
            for c, z in np.ndindex(2, 3):
                index = tuple({"C": c, "Z": z}[axis] for axis in stack.axes[:-2])
                np.testing.assert_array_equal(stack.take(index), planes[c, z])


OPAQUE = np.full_like(IMAGE, 65535)
GREY = {
    "rgb": (np.stack([IMAGE] * 3, -1), {"photometric": "rgb"}),
    "separate": (np.stack([IMAGE] * 3), {"photometric": "rgb", "planarconfig": "separate"}),
    "alpha": (np.stack([IMAGE] * 3 + [OPAQUE], -1), {"photometric": "rgb", "extrasamples": [2]}),
    "grey and alpha": (np.stack([IMAGE, OPAQUE], -1), {"extrasamples": [2]}),
    "one step": (IMAGE[None, None], {}),
    "last": (IMAGE[..., None], {}),
}


@pytest.mark.parametrize("kind", GREY)
def test_colours_that_are_one_grey_and_axes_of_one_step_are_a_plane(tmp_path, kind):
    pixels, options = GREY[kind]
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    plane = read_plane(Plane(tmp_path / "a.tif", "a.tif"))[0]
    np.testing.assert_array_equal(plane, IMAGE)
    np.testing.assert_array_equal(decode((tmp_path / "a.tif").read_bytes())[0], IMAGE)
    if options:
        pixels.flat[-1] -= 1
        with pytest.raises(ImageError, match="without a stated axis order"):
            read(write(tmp_path / "b.tif", pixels, **options))


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_a_png_of_one_grey_is_a_plane(samples):
    pixels = np.stack([IMAGE] * 3, -1)[..., : samples - (samples % 2 == 0)]
    pixels = pixels if samples == 3 else np.concatenate([pixels, OPAQUE[..., None]], -1)
    np.testing.assert_array_equal(single_plane(imagecodecs.png_encode(pixels))[0], IMAGE)


def test_a_jpeg_of_one_grey_is_a_plane(tmp_path):
    """JPEG holds lightness and two shades in place of red, green and blue."""
    grey = np.stack([(IMAGE >> 4).astype(np.uint8)] * 3, -1)
    path = write(tmp_path / "a.tif", grey, compression="jpeg", photometric="rgb")
    plane = single_plane(path.read_bytes())[0]
    assert np.corrcoef(plane.ravel(), IMAGE.ravel())[0, 1] > 0.9


def test_bytes_of_more_than_one_plane_are_refused(tmp_path):
    for name, options in (("imagej.tif", {"imagej": True}), ("pages.tif", {"metadata": None})):
        tifffile.imwrite(tmp_path / name, np.stack([IMAGE, IMAGE + 1]), **options)
        with pytest.raises(RefusedFrame, match="axes"):
            decode((tmp_path / name).read_bytes())


def test_bytes_never_lead_to_files_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "other.tif", IMAGE + 7)
    tile = '<TiffData IFD="0" FirstC="{}"><UUID FileName="other.tif">urn:uuid:9</UUID></TiffData>'
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="50" '
        'SizeY="40" SizeC="2" SizeZ="1" SizeT="1"><Channel ID="C:0"/><Channel ID="C:1"/>'
        f"{tile.format(0)}{tile.format(1)}</Pixels></Image></OME>"
    )
    pages = np.stack([IMAGE, IMAGE + 1])
    write(tmp_path / "a.tif", pages, description=xml, photometric="minisblack")
    with pytest.raises(RefusedFrame):
        decode((tmp_path / "a.tif").read_bytes())


def test_metadata_that_names_a_file_of_another_folder_is_refused(tmp_path):
    tile = '<TiffData IFD="0"><UUID FileName="../x.tif">urn:uuid:9</UUID></TiffData>'
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="50" SizeY="40" '
        f'SizeC="1" SizeZ="1" SizeT="1"><Channel ID="C:0"/>{tile}</Pixels></Image></OME>'
    )
    with pytest.raises(ImageError, match=r"outside: .*another folder: \.\./x\.tif"):
        read(write(tmp_path / "a.ome.tif", description=xml))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "unreadable: damaged or truncated: it is empty"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "format: it is a JPEG image, whatever its name"),
        (b"PK\x03\x04" + bytes(40), "format: it is a ZIP archive"),
        (b"\xda\xce\xbe\x0a" + bytes(40), "format: it is a Nikon ND2 file"),
        (b"\0\0\0\x0cjP  \r\n" + bytes(40), "format: it is a JPEG 2000 image"),
        (b"version https://git-lfs.github.com", r"format: it is a Git LFS pointer"),
        (b"II*\0", "unreadable: damaged or truncated"),
        (b"II*\0" + bytes(4), "unreadable: damaged or truncated"),
        (b"not an image", "unreadable: damaged or truncated: it does not begin as a TIFF"),
        (reader.PNG, "unreadable: damaged or truncated"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(tmp_path, content, message):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ImageError, match=message):
        read(tmp_path / "a.tif")
    with pytest.raises((ImageError, RefusedFrame)):
        decode(content)


def test_a_file_of_a_series_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "b.tif")
    tile = '<TiffData FirstC="1"><UUID FileName="b.tif">urn:uuid:0</UUID></TiffData>'
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="50" SizeY="40" '
        f'SizeC="2" SizeZ="1" SizeT="1"><Channel ID="C:0"/>{tile}</Pixels></Image></OME>'
    )
    with pytest.raises(ImageError, match=r"names b\.tif, which is a named pipe"):
        read(write(tmp_path / "a.ome.tif", np.stack([IMAGE] * 2), description=xml))


def test_a_file_cut_before_its_directory_is_called_truncated(tmp_path):
    """Fiji and others write the directory after the pixels, so a cut file has none."""
    path, whole = tmp_path / "a.tif", by_hand(IMAGE.tobytes(), 50, 40, 16)
    path.write_bytes(whole)
    np.testing.assert_array_equal(read(path), IMAGE)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="damaged or truncated"):
        read(path)


def test_a_tile_that_is_not_there_is_no_black(tmp_path):
    """Zeros in place of bytes: what a copy that was broken off, or a sparse file, leaves."""
    path = write(tmp_path / "a.tif", tile=(16, 16))
    with tifffile.TiffFile(path, mode="r+") as tif:
        counts = tif.pages.first.tags["TileByteCounts"]
        counts.overwrite((0, *counts.value[1:]))
    with pytest.raises(ImageError, match="truncated: strips or tiles of it are not there"):
        read(path)


def _png(width: int, height: int, depth: int, colour: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunk = b"IHDR" + head
    return reader.PNG + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_png(40_000, 40_000, 16, 0), "too large: 40000 x 40000 px"),
        (_png(8, 8, 1, 0), "pixel type: 1-bit PNG"),
        (_png(8, 8, 8, 3), "look-up table: the PNG holds colours of a palette"),
    ],
)
def test_a_png_is_judged_before_it_is_unpacked(content, message):
    with pytest.raises(ImageError, match=message):
        single_plane(content)


def test_a_tiff_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(by_hand(bytes(100), 60_000, 60_000, 16))
    with pytest.raises(ImageError, match="too large: 60000 x 60000 px"):
        read(path)


def test_too_many_pages_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "MOST_PAGES", 3)
    path = write(tmp_path / "a.tif", np.stack([IMAGE] * 4), photometric="minisblack")
    with pytest.raises(ImageError, match="too large: it holds more than 3 pages"):
        read(path)


def test_a_decimal_comma_in_the_metadata_is_read(tmp_path):
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="50" SizeY="40" '
        'SizeC="1" SizeZ="1" SizeT="1" PhysicalSizeX="0,3112" PhysicalSizeY="0,3112">'
        '<Channel ID="C:0"/><TiffData IFD="0"/></Pixels></Image></OME>'
    )
    path = write(tmp_path / "a.ome.tif", description=xml)
    assert single_plane(path.read_bytes())[1] == 0.3112


@pytest.mark.parametrize(("width", "height"), [(0, 16), (32, 0)])
def test_a_tiff_that_states_no_pixels_is_refused(tmp_path, width, height):
    path = tmp_path / "a.tif"
    path.write_bytes(by_hand(bytes(100), width, height, 16))
    for source in (path, path.read_bytes()):
        with pytest.raises(ImageError, match="unreadable"), opened(source) as stack:
            stack.take(())
