"""What `unstained score` takes as images: folders, manifests, patterns, files; and what it says of
those it cannot.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from src.assay.images import find
from src.common.acquire.intake import write_tiff
from src.common.images.field import Refused, SourceError
from src.common.images.files import FileField
from src.common.images.layout import Layout

PIXELS = np.random.default_rng(0).integers(500, 4000, (70, 80)).astype(np.uint16)


def layout(**changes) -> Layout:
    return Layout((), **changes)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two images at the top and one of the same name below."""
    root = tmp_path / "plate"
    (root / "late").mkdir(parents=True)
    for name in ("B02_p1.tif", "B03_p1.ome.tif", "late/B02_p1.tif"):
        tifffile.imwrite(root / name, PIXELS)
    return root


def manifest(root: Path, *lines: str, name: str = "images.csv") -> Path:
    (root / name).write_text("\n".join(lines) + "\n")
    return root / name


def ids(images: list[FileField]) -> list[str]:
    return [image.image_id for image in images]


def test_every_image_of_a_folder_without_a_manifest_is_taken(folder):
    images, notes = find([folder], layout())
    assert sorted(ids(images)) == ["B02_p1", "B03_p1", "late_B02_p1"]  # told apart by their folder
    assert notes == []
    np.testing.assert_array_equal(images[0].pixels()[0], PIXELS)


def test_files_are_taken_as_they_are_named(folder):
    images, _ = find([folder / "B02_p1.tif", folder / "B03_p1.ome.tif"], layout())
    assert ids(images) == ["B02_p1", "B03_p1"]
    assert images[1].name == str(folder / "B03_p1.ome.tif")


def test_a_manifest_needs_nothing_but_the_image(folder):
    manifest(folder, "brightfield,note", "late/B02_p1.tif,x")
    images, notes = find([folder], layout())
    assert (ids(images), notes) == (["B02_p1"], ["images.csv: columns that are not used: note"])


def test_a_manifest_says_what_is_known(folder):
    path = manifest(
        folder,
        "image_id;brightfield;experiment;well;position;time;compound;concentration;control;pixel_size_um",
        "one;B02_p1.tif;e;b02;p1;24;drug;0.5;;0.3",
        "two;late/B02_p1.tif;e;C07;;;;;Negative;",
        name="layout.csv",
    )
    for inputs, given in (([folder], path), ([path], None)):
        one, two = find(inputs, layout(), given)[0]
        assert (one.well, one.experiment, one.time, one.compound, one.concentration) == (
            "B2",
            "e",
            24.0,
            "drug",
            0.5,
        )
        assert (two.well, two.control, one.control) == ("C7", "negative", "")
        assert (one.pixels()[1], two.pixels()[1]) == (0.3, None)


def test_a_pattern_reads_file_names_and_picks_the_channel(folder):
    for name in ("A01_p1_BF.tif", "A01_p1_PI.tif", "A02_p1_BF.tif"):
        tifffile.imwrite(folder / name, PIXELS)
    pattern = r"(?P<well>[A-H]\d+)_(?P<position>p\d)_(?P<channel>BF|PI)\.tif"
    images, notes = find([folder], layout(pattern=pattern, brightfield="BF"))
    assert [(image.image_id, image.well, image.position) for image in images] == [
        ("A01_p1", "A1", "p1"), ("A02_p1", "A2", "p1"),
    ]  # fmt: skip
    assert notes == ["3 of 6 files do not match --pattern", "channels that are not used: PI"]
    with pytest.raises(SourceError, match=r"--brightfield must say which .* the files have BF, PI"):
        find([folder], layout(pattern=pattern))


def test_a_time_stack_is_one_image_for_each_time(tmp_path):
    stack = np.stack([PIXELS, PIXELS + 1])
    tifffile.imwrite(tmp_path / "movie.tif", stack, imagej=True, metadata={"axes": "TYX"})
    images, _ = find([tmp_path / "movie.tif"], layout())
    assert [(i.image_id, i.time, i.position) for i in images] == [
        ("movie_t000", 0, "movie"),
        ("movie_t001", 1, "movie"),
    ]
    np.testing.assert_array_equal(images[1].pixels()[0], PIXELS + 1)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["image,well", "a.tif,A1"], "lacks the column.* brightfield"),
        (["brightfield,well", "B02_p1.tif,Z99"], "line 2: 'Z99' is no well"),
        (["brightfield,well", "B02_p1.tif,A0"], "line 2: 'A0' is no well"),
        (["brightfield,control", "B02_p1.tif,dmso"], "line 2: control is 'dmso'; it is negative"),
        (
            ["brightfield,concentration", "B02_p1.tif,1 uM"],
            "line 2: concentration must be a number",
        ),
        *(
            (["brightfield,concentration", f"B02_p1.tif,{text}"], f"must be a number, not '{text}'")
            for text in ("1_0", "\uff11\uff10", "nan", "infinity", "0x10", "\u22125")
        ),
        (["brightfield,time", "B02_p1.tif,\uff10\uff11d00h00m"], "line 2: time must be a number"),
        (["brightfield,well", "B02_p1.tif,B\uff11"], "line 2: 'B\uff11' is no well"),
        (["brightfield,row,column", "B02_p1.tif,B,\uff11"], "is no well"),
    ],
)
def test_what_is_wrong_in_a_manifest_is_said_before_anything_is_scored(folder, lines, message):
    manifest(folder, *lines)
    with pytest.raises(SourceError, match=message):
        find([folder], layout())


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (["nowhere"], {}, "nowhere does not exist"),
        (["plate", "plate/B02_p1.tif"], {}, "is a folder: name one folder, or files"),
        (["plate/B02_p1.tif"], {"pattern": "x"}, "go with one folder"),
        (["plate"], {"pattern": "x"}, "--pattern x matches no file"),
        (["plate"], {"pattern": "("}, "--pattern is not a regular expression"),
    ],
)
def test_inputs_that_name_no_images_are_refused(folder, inputs, options, message):
    with pytest.raises(SourceError, match=message):
        find([folder.parent / name for name in inputs], layout(**options))


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(SourceError, match=r"no image to score \(TIFF, PNG or .*\n.*1 \.txt"):
        find([tmp_path], layout())


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("gone.tif,g", "missing file"),
        (",e", "missing image"),
        ("B02_p1.tif,a:b", "image_id"),
        ("B03_p1.ome.tif,GOOD", "same id twice"),
        ('"B02\tp1.tif",t', "file name"),
    ],
)
def test_one_bad_image_is_marked_and_the_others_are_kept(folder, line, kind):
    manifest(folder, "brightfield,image_id", "B02_p1.tif,good", line)
    good, bad = find([folder], layout())[0]
    assert good.problem is None
    with pytest.raises(Refused) as refused:
        bad.pixels()
    assert refused.value.kind == kind


def test_ids_that_some_file_systems_take_for_one_are_told_apart_or_refused(tmp_path):
    """Overlays are named after ids: one would replace the other where A and a are one letter."""
    (tmp_path / "sub").mkdir()
    for name in ("sub/A1.tif", "a1.tif", "\u00fc.tif", "u\u0308.tif"):
        tifffile.imwrite(tmp_path / name, PIXELS)
    images, _ = find([tmp_path], layout())
    assert sorted(one.image_id for one in images if not one.problem) == ["a1", "sub_A1", "\u00fc"]
    manifest(tmp_path, "brightfield,image_id", "a1.tif,x", "sub/A1.tif,X")
    first, second = find([tmp_path], layout())[0]
    assert first.problem is None and second.problem[0] == "same id twice"
    assert "X differs from x, the id of a1.tif, only in case" in second.problem[1]


def test_a_compound_is_one_however_its_accents_are_composed(folder):
    rows = ["B02_p1.tif,\u00fc", "B03_p1.ome.tif,u\u0308"]
    manifest(folder, "brightfield,compound", *rows)
    assert {image.compound for image in find([folder], layout())[0]} == {"\u00fc"}


@pytest.mark.parametrize("pattern", ["", r"(?P<position>\w+)\.tif"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, pattern):
    tifffile.imwrite(tmp_path / "good.tif", PIXELS)
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "device.tif").symlink_to("/dev/zero")
    images, _ = find([tmp_path], layout(pattern=pattern))
    said = {one.image_id: one.problem and one.problem[1] for one in images}
    assert said["good"] is None
    assert "it is a named pipe, not an image file" in said["pipe"]
    assert "it is a device, not an image file" in said["device"]


def test_the_same_id_twice_is_refused_once(folder):
    manifest(folder, "brightfield,image_id", "B02_p1.tif,a", "B03_p1.ome.tif,a")
    first, second = find([folder], layout())[0]
    assert first.problem is None
    assert second.problem[0] == "same id twice"


def test_several_channels_are_refused_with_the_options_of_this_command(tmp_path):
    tifffile.imwrite(
        tmp_path / "two.tif", np.stack([PIXELS, PIXELS]), imagej=True, metadata={"axes": "CYX"}
    )
    (image,) = find([tmp_path / "two.tif"], layout())[0]
    with pytest.raises(Refused, match="2 channels"):
        image.pixels()
    (image,) = find([tmp_path / "two.tif"], layout(brightfield=1))[0]
    assert image.pixels()[0].shape == PIXELS.shape


@pytest.mark.parametrize(
    ("compression", "lossy"),
    [("jpeg", "JPEG"), ("jpeg2000", "JPEG2000"), ("jpegxr", "JPEGXR"), ("zstd", ""), ("lzw", "")],
)
def test_a_compression_that_may_lose_texture_is_said_once(folder, compression, lossy):
    for name in ("x.tif", "y.tif"):
        tifffile.imwrite(folder / name, (PIXELS // 16).astype(np.uint8), compression=compression)
    images, notes = find([folder], layout())
    assert [one.lossy for one in images if one.name in ("x.tif", "y.tif")] == [lossy] * 2
    said = f"WARNING: 2 of 5 images (x.tif, ...) are compressed as {lossy}, which may have lost"
    assert [note[: len(said)] for note in notes] == [said] * bool(lossy)


def test_a_pixel_size_that_the_files_deny_is_said(folder):
    for name, size in (("x.tif", 0.325), ("y.tif", 0.65), ("z.tif", None)):
        write_tiff(folder / name, PIXELS, size)
    manifest(folder, "brightfield,pixel_size_um", "x.tif,0.65", "y.tif,0.65", "z.tif,0.65")
    images, notes = find([folder], layout())
    assert [one.pixels()[1] for one in images] == [0.65] * 3
    (told,) = notes
    assert told.startswith("WARNING: 1 of 3 images (x.tif, ...) state another pixel size than")
    assert told.endswith("taken: 0.65 um instead of 0.325")


def test_files_that_are_not_read_are_said(folder):
    for name in ("photo.jpg", "photo2.JPG", "images.xlsx"):
        (folder / name).write_bytes(b"")
    (folder / "images.csv").unlink(missing_ok=True)
    _, notes = find([folder], Layout(()))
    assert notes[0].startswith(
        "3 files are not read: 2 .jpg, 1 .xlsx "
        "(images are read from TIFF, OME-TIFF, PNG and OME-Zarr"
    )
    assert notes[1].startswith(
        "images.xlsx is not used: the manifest is images.csv, or what --manifest names"
    )
