"""Reading one channel of a file: formats, axes that must be stated, pixel sizes, and what is
refused.
"""

import struct

import cv2
import numpy as np
import pytest
import tifffile

from src.common.images.field import Refused
from src.common.images.planes import Plane, header, read_plane

RNG = np.random.default_rng(5)
STACK = RNG.integers(1, 60000, (3, 40, 50), dtype=np.uint16)  # channels first
MOVIE = RNG.integers(1, 60000, (4, 3, 40, 50), dtype=np.uint16)  # time, channel


def save(folder, name: str, image: np.ndarray, **options) -> Plane:
    path = folder / name
    tifffile.imwrite(path, image, **options)
    return Plane(path, name)


def at(plane: Plane, **settings) -> Plane:
    return Plane(plane.file, plane.name, **settings)


OME = {"ome": True, "metadata": {"axes": "CYX", "Channel": {"Name": ["BF", "PI ", "DAPI"]}}}
IMAGEJ = {"imagej": True, "metadata": {"axes": "CYX"}}


@pytest.mark.parametrize(
    "options", [OME, IMAGEJ, {"metadata": {"axes": "CYX"}}], ids=["ome", "imagej", "shaped"]
)
@pytest.mark.parametrize("channel", [0, 2])
def test_stated_axes_are_followed(tmp_path, options, channel):
    image, _ = read_plane(at(save(tmp_path, "a.tif", STACK, **options), channel=channel))
    assert np.array_equal(image, STACK[channel])


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": None, "photometric": "minisblack"},
        {},
        {"photometric": "rgb", "planarconfig": "separate"},
    ],
    ids=["pages", "unnamed", "samples"],
)
def test_unstated_axes_are_refused_and_explicit_ones_read(tmp_path, options):
    plane = save(tmp_path, "a.tif", STACK, **options)
    with pytest.raises(Refused, match=r"without a stated axis order: set dataset.axes"):
        read_plane(at(plane, channel=1))
    image, _ = read_plane(at(plane, channel=1, axes="CYX"))
    assert np.array_equal(image, STACK[1])


def test_explicit_axes_win_over_metadata_that_is_wrong(tmp_path):
    plane = save(tmp_path, "a.tif", STACK, imagej=True, metadata={"axes": "TYX"})
    assert header(plane).length("T") == 3
    assert np.array_equal(read_plane(at(plane, channel=2, axes="CYX"))[0], STACK[2])


def test_transposed_axes_and_samples_last(tmp_path):
    last = np.moveaxis(STACK, 0, 2)
    plane = save(tmp_path, "a.tif", last, photometric="rgb")
    assert np.array_equal(read_plane(at(plane, channel=1, axes="YXC"))[0], STACK[1])
    flat = save(tmp_path, "b.tif", STACK, metadata=None)
    assert np.array_equal(read_plane(at(flat, channel=1, axes="CXY"))[0], STACK[1].T)


def test_axes_of_the_wrong_number_are_refused(tmp_path):
    with pytest.raises(Refused, match=r"TCYX names 4 axes, the file has shape"):
        read_plane(at(save(tmp_path, "a.tif", STACK, metadata=None), channel=0, axes="TCYX"))


@pytest.mark.parametrize("options", [{"ome": True}, {"imagej": True}], ids=["ome", "imagej"])
def test_time_stack(tmp_path, options):
    plane = save(tmp_path, "a.tif", MOVIE, metadata={"axes": "TCYX"}, **options)
    assert header(plane).length("T") == 4
    assert np.array_equal(read_plane(at(plane, channel=1, time=3))[0], MOVIE[3, 1])


def test_focus_stack_needs_a_plane(tmp_path):
    plane = save(tmp_path, "a.tif", MOVIE, ome=True, metadata={"axes": "ZCYX"})
    with pytest.raises(Refused, match=r"4 focus planes: choose one with dataset\.z"):
        read_plane(at(plane, channel=0))
    with pytest.raises(Refused, match=r"no focus plane 4"):
        read_plane(at(plane, channel=0, z=4))
    assert np.array_equal(read_plane(at(plane, channel=2, z=3))[0], MOVIE[3, 2])
    flat = save(tmp_path, "mask.tif", MOVIE[0, 0])  # a mask, or PI, beside that stack
    assert np.array_equal(read_plane(at(flat, z=3))[0], MOVIE[0, 0])


def test_channels_by_name_and_by_number(tmp_path):
    plane = save(tmp_path, "a.ome.tif", STACK, **OME)
    assert np.array_equal(read_plane(at(plane, channel="pi"))[0], STACK[1])
    with pytest.raises(
        Refused,
        match=r"no single channel is named 'GFP': the file holds 3 channels \(BF, PI, DAPI\)",
    ):
        read_plane(at(plane, channel="GFP"))
    with pytest.raises(Refused, match=r"no channel 3 \(from 0\)"):
        read_plane(at(plane, channel=3))
    with pytest.raises(Refused, match=r"say which with dataset\.channels"):
        read_plane(plane)


def test_one_channel_file_has_no_second_channel(tmp_path):
    plane = save(tmp_path, "a.tif", STACK[0])
    assert np.array_equal(read_plane(plane)[0], STACK[0])
    with pytest.raises(Refused, match=r"leave dataset.channels empty"):
        read_plane(at(plane, channel=1))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png(tmp_path, dtype):
    image = STACK[0].astype(dtype)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    found, size = read_plane(Plane(tmp_path / "a.png", "a.png"))
    assert found.dtype == dtype and np.array_equal(found, image) and size is None


def test_colour_png_needs_axes_and_counts_red_as_channel_0(tmp_path):
    colour = np.moveaxis(STACK, 0, 2).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), colour[..., ::-1])  # OpenCV writes blue first
    plane = Plane(tmp_path / "a.png", "a.png")
    with pytest.raises(Refused, match=r"for example YXC"):
        read_plane(at(plane, channel=0))
    assert np.array_equal(read_plane(at(plane, channel=0, axes="YXC"))[0], colour[..., 0])


@pytest.mark.parametrize("predictor", [False, True])
def test_lzw_is_read(tmp_path, predictor):
    parameters = [
        cv2.IMWRITE_TIFF_COMPRESSION,
        5,
        cv2.IMWRITE_TIFF_PREDICTOR,
        2 if predictor else 1,
    ]
    cv2.imwritemulti(str(tmp_path / "a.tif"), list(STACK[:, :32]), parameters)
    for channel in range(3):
        plane = Plane(tmp_path / "a.tif", "a.tif", channel, "CYX")
        assert np.array_equal(read_plane(plane)[0], STACK[channel, :32])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.tif", {}),
        ("a.tif", {"compression": "zlib", "rowsperstrip": 4}),
        ("a.tif", OME),
        ("a.tif", IMAGEJ),
        ("a.png", 0),
    ],
    ids=["plain", "zlib", "ome", "imagej", "png"],
)
def test_truncated_and_damaged_files_are_refused(tmp_path, name, options):
    path = tmp_path / name
    image = STACK if options in (OME, IMAGEJ) else STACK[0]
    cv2.imwrite(str(path), image) if options == 0 else tifffile.imwrite(path, image, **options)
    whole = path.read_bytes()
    channel = 2 if options in (OME, IMAGEJ) else None
    read_plane(Plane(path, name, channel))
    for kept in (len(whole) - 200, len(whole) // 2, 12, 0):
        path.write_bytes(whole[:kept])
        with pytest.raises(Refused) as refused:
            read_plane(Plane(path, name, channel))
        assert refused.value.kind == "unreadable" and refused.value.file == name


def test_a_broken_chain_of_pages_is_refused(tmp_path):
    plane = save(tmp_path, "a.tif", STACK, metadata=None, photometric="minisblack")
    with tifffile.TiffFile(plane.file) as tif:
        second = tif.pages[1].offset
        link = second + 2 + 12 * len(tif.pages[1].tags)
    with plane.file.open("r+b") as stream:
        stream.seek(link)
        stream.write(struct.pack("<I", 0x7FFFFFF0))
    with pytest.raises(Refused, match=r"damaged"):
        read_plane(at(plane, channel=0, axes="CYX"))


@pytest.mark.parametrize("name", ["x.nd2", "x.CZI", "deep/x.lif", "x.C01", "x.hdf5"])
def test_makers_formats_are_refused_with_the_conversion(tmp_path, name):
    with pytest.raises(Refused, match=r"convert it to OME-TIFF with bfconvert .* Fiji"):
        read_plane(Plane(tmp_path / name, name))


def test_other_files(tmp_path):
    with pytest.raises(Refused, match=r"use TIFF, OME-TIFF, PNG or OME-Zarr"):
        read_plane(Plane(tmp_path / "x.jpg", "x.jpg"))
    with pytest.raises(Refused, match=r"the file is not there"):
        read_plane(Plane(tmp_path / "x.tif", "x.tif"))
    (tmp_path / "y.tif").write_text("not an image")
    with pytest.raises(Refused, match=r"damaged or truncated"):
        read_plane(Plane(tmp_path / "y.tif", "y.tif"))


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.65, "PhysicalSizeY": 0.65}}, 0.65),
        ({"ome": True,
          "metadata": {"PhysicalSizeX": 325.0, "PhysicalSizeXUnit": "nm",
                       "PhysicalSizeY": 325.0, "PhysicalSizeYUnit": "nm"}}, 0.325),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "um"}}, 0.25),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "\\u00B5m"}}, 0.25),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "Micrometers"}}, 0.25),
        ({"imagej": True, "resolution": (4, 4)}, None),
        ({"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}, 0.5),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (1200, 1200), "resolutionunit": "INCH"}, None),  # of print, not of cells
        ({"ome": True, "metadata": {"PhysicalSizeX": "", "PhysicalSizeY": ""}}, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": "0.31 um"}}, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": "3.1e-1"}}, 0.31),
        ({"resolution": (4, 4), "resolutionunit": "NONE"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_pixel_size(tmp_path, options, size):
    assert read_plane(save(tmp_path, "a.tif", STACK[0], **options))[1] == size


def test_pixels_that_are_not_square_are_refused(tmp_path):
    with pytest.raises(Refused, match=r"not square"):
        read_plane(
            save(
                tmp_path, "a.tif", STACK[0], resolution=(20000, 10000), resolutionunit="CENTIMETER"
            )
        )


def test_a_single_plane_of_a_series_that_lies_in_several_files(tmp_path):
    """Micro-Manager writes one OME-TIFF a channel, each describing the whole series."""
    tiles = "".join(
        f'<TiffData FirstC="{c}" FirstT="0" FirstZ="0" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{n}.tif">urn:uuid:{n}</UUID></TiffData>'
        for c, n in enumerate(("bf", "pi"))
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" '
        'SizeX="50" SizeY="40" SizeC="2" SizeZ="1" SizeT="1" '
        'PhysicalSizeX="0.5" PhysicalSizeY="0.5">'
        '<Channel ID="Channel:0:0" Name="BF"/><Channel ID="Channel:0:1" Name="PI"/>'
        f"{tiles}</Pixels></Image></OME>"
    )
    for channel, name in enumerate(("bf", "pi")):
        plane = save(tmp_path, f"{name}.tif", STACK[channel], description=xml, metadata=None)
        image, size = read_plane(plane)
        assert np.array_equal(image, STACK[channel]) and size == 0.5
    assert np.array_equal(read_plane(at(plane, channel="PI"))[0], STACK[1])
    with pytest.raises(Refused, match=r"no single channel is named 'BF': .* 1 channel \(PI\)"):
        read_plane(at(plane, channel="BF"))
    renamed = Plane(plane.file.rename(tmp_path / "a.tif"), "a.tif", channel="BF")
    with pytest.raises(Refused, match=r"no single channel is named 'BF'"):
        read_plane(renamed)


@pytest.mark.parametrize("said", ["<Channel/><TiffData/>", '<Channel ID="C:0"/>', ""])
def test_metadata_that_say_little(tmp_path, said):
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="50" SizeY="40" '
        f'SizeC="1" SizeZ="1" SizeT="1" PhysicalSizeX="0.5">{said}</Pixels></Image></OME>'
    )
    image, size = read_plane(save(tmp_path, "a.tif", STACK[0], description=xml, metadata=None))
    assert np.array_equal(image, STACK[0]) and size == 0.5


def test_one_position_of_a_series_over_several_files(tmp_path):
    """Micro-Manager also writes one file a position, in which OME metadata names the other
    positions' files.
    """
    images = "".join(
        f'<Image ID="Image:{p}"><Pixels ID="Pixels:{p}" DimensionOrder="XYCZT" Type="uint16" '
        'SizeX="50" SizeY="40" SizeC="2" SizeZ="1" SizeT="1">'
        '<Channel ID="Channel:0:0" Name="BF"/><Channel ID="Channel:0:1" Name="PI"/>'
        + "".join(
            f'<TiffData FirstC="{c}" IFD="{c}" PlaneCount="1">'
            f'<UUID FileName="pos{p}.tif">urn:uuid:{p}</UUID></TiffData>'
            for c in (0, 1)
        )
        + "</Pixels></Image>"
        for p in (0, 1)
    )
    for position in (0, 1):
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{position}">{images}</OME>'
        )
        pages = MOVIE[position, :2]
        plane = save(
            tmp_path,
            f"pos{position}.tif",
            pages,
            description=xml,
            metadata=None,
            photometric="minisblack",
        )
        assert np.array_equal(read_plane(at(plane, channel="PI"))[0], MOVIE[position, 1])


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("axes", ["CYX", "YXC"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_byte_order_of_the_file_does_not_show(tmp_path, byteorder, axes, compression):
    image = np.ascontiguousarray(np.moveaxis(STACK, 0, 2)) if axes == "YXC" else STACK
    options = {
        "photometric": "rgb" if axes == "YXC" else "minisblack",
        "metadata": None,
        "compression": compression,
    }
    found, _ = read_plane(
        at(save(tmp_path, "a.tif", image, byteorder=byteorder, **options), channel=1, axes=axes)
    )
    assert found.dtype == np.uint16 and np.array_equal(found, STACK[1])


def test_separate_images_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "two.tif") as out:
        for shape in ((40, 50), (20, 30)):
            out.write(np.ones(shape, np.uint16), metadata=None)
    with pytest.raises(Refused, match="holds 2 separate images: save one field a file"):
        read_plane(Plane(tmp_path / "two.tif", "two.tif"))


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), np.uint16))

    def forbidden(*arguments, **more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tifffile, "TiffFile", forbidden)
    with pytest.raises(Refused, match="not allowed: this user may not read the file"):
        read_plane(Plane(tmp_path / "a.tif", "a.tif"))


@pytest.mark.parametrize(
    ("asked", "kind"),
    [({}, "channel"), ({"channel": 9}, "channel"), ({"channel": -1}, "channel"),
     ({"channel": "GFP"}, "channel"),
     ({"channel": 0}, "axes"), ({"channel": 0, "z": 9}, "axes")],
)  # fmt: skip
def test_a_choice_that_is_not_made_is_not_called_damage(tmp_path, asked, kind):
    image = np.zeros((2, 3, 40, 50), np.uint16)
    plane = save(tmp_path, "a.ome.tif", image, ome=True, metadata={"axes": "CZYX"})
    with pytest.raises(Refused) as refused:
        read_plane(at(plane, **asked))
    assert refused.value.kind == kind and refused.value.file == "a.ome.tif"
    assert "damaged" not in refused.value.detail
