"""OME-Zarr plates and images: what their metadata say, what is read, what is refused."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from src.assay.images import find as find_to_score
from src.common.acquire import digests
from src.common.images import omezarr
from src.common.images.field import Refused, SourceError
from src.common.images.folder import find
from src.common.images.layout import Layout
from src.common.images.listing import image_files, unread
from src.common.images.planes import Plane, header, read_plane
from tests.omezarr_plates import write_image, write_plate

RNG = np.random.default_rng(3)
PATHS = ("A/1/0", "A/1/1", "B/12/0", "B/12/1")
FIELDS = {path: RNG.integers(100, 4000, (2, 70, 90), dtype=np.uint16) for path in PATHS}
BOTH = Layout(partitions=["arm"], brightfield="bf", pi=1)


def plane(store: Path, path: str, **settings) -> Plane:
    return Plane(store / path, f"{store.name}/{path}", **settings)


@pytest.fixture
def plate(tmp_path) -> Path:
    return write_plate(tmp_path / "lab" / "p7.ome.zarr", FIELDS)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("dtype", ["<u2", ">u2", "u1"])
def test_fields_of_a_plate_are_read_by_its_metadata(tmp_path, version, dtype):
    fields = {path: (pixels // 16).astype(dtype) for path, pixels in FIELDS.items()}
    store = write_plate(tmp_path / "lab" / "p7.ome.zarr", fields, version)
    for folder in (store, store.parent):  # the plate itself, or the folder that holds it
        found = find(folder, BOTH)
        assert [one.image_id for one in found.fields] == ["A1_0", "A1_1", "B12_0", "B12_1"]
        assert found.notes == ()
        for one, pixels in zip(found.fields, fields.values()):
            frame = one.read()
            np.testing.assert_array_equal(frame.brightfield, pixels[0])
            np.testing.assert_array_equal(frame.pi, pixels[1])
            assert frame.brightfield.dtype in (np.uint8, np.uint16)
            assert frame.pixel_size_um == 0.5
    last = found.fields[-1]
    assert (last.experiment, last.well, last.position) == ("screen7", "B12", "1")


@pytest.mark.parametrize(("version", "form"), [("0.4", 2), ("0.5", 3)])
def test_the_series_that_bioformats2raw_writes_are_fields(tmp_path, version, form):
    root = zarr.open_group(tmp_path / "run3.zarr", mode="w", zarr_format=form)
    stated = {"bioformats2raw.layout": 3}
    root.attrs.update(stated if form == 2 else {"ome": stated | {"version": version}})
    root.create_group("OME")
    for number, pixels in enumerate(FIELDS.values()):
        write_image(root.create_group(str(number)), pixels, "cyx", version)
    found = find(tmp_path, BOTH).fields
    assert [(one.experiment, one.position) for one in found] == [("run3", n) for n in "0123"]
    for one, pixels in zip(found, FIELDS.values()):
        np.testing.assert_array_equal(one.read().pi, pixels[1])


def test_a_table_may_name_fields_of_a_plate(plate):
    rows = [
        "brightfield,pi,well,compound",
        *(f"p7.ome.zarr/{p},p7.ome.zarr/{p},C3,d" for p in PATHS),
    ]
    (plate.parent / "images.csv").write_text("\n".join(rows))
    fields = find(plate.parent, BOTH).fields
    assert [one.image_id for one in fields] == ["A_1_0", "A_1_1", "B_12_0", "B_12_1"]
    assert {one.well for one in fields} == {"C3"}
    np.testing.assert_array_equal(fields[2].read().pi, FIELDS["B/12/0"][1])


def test_chunks_of_one_plane_are_read_and_no_others(tmp_path):
    """Of a movie in several channels, what is not asked for may even be damaged."""
    movie = RNG.integers(1, 4000, (3, 2, 70, 90), dtype=np.uint16)
    store = write_plate(tmp_path / "m.zarr", {"A/1/0": movie}, axes="tcyx")
    for chunk in (store / "A/1/0/0/c").rglob("*"):
        if chunk.is_file() and chunk.relative_to(store / "A/1/0/0/c").parts[:2] != ("2", "1"):
            chunk.write_bytes(b"")
    field = plane(store, "A/1/0", channel="PI", time=2)
    assert header(field).length("T") == 3
    np.testing.assert_array_equal(read_plane(field)[0], movie[2, 1])
    with pytest.raises(Refused, match="damaged or truncated OME-Zarr"):
        read_plane(plane(store, "A/1/0", channel="PI", time=0))


def test_time_points_of_a_plate_become_fields_of_one_position(tmp_path):
    movie = RNG.integers(1, 4000, (3, 2, 70, 90), dtype=np.uint16)
    store = write_plate(tmp_path / "m.zarr", {"A/1/0": movie}, axes="tcyx")
    fields = find(store, BOTH).fields[0].expand()
    assert [one.image_id for one in fields] == ["A1_0_t000", "A1_0_t001", "A1_0_t002"]
    assert {one.position for one in fields} == {"0"}
    np.testing.assert_array_equal(fields[1].read().pi, movie[1, 1])


def test_acquisitions_of_a_well_share_their_positions(plate):
    images = [{"path": p, "acquisition": a} for p, a in (("0", 0), ("1", 5))]
    zarr.open_group(plate / "A/1").attrs["ome"] = {"version": "0.5", "well": {"images": images}}
    assert [facts["position"] for facts in omezarr.fields(plate).values()] == ["0", "0", "0", "1"]
    (told,) = find(plate, BOTH).notes
    assert told.startswith("2 images are said to be of one position at one time, such as")


def test_one_image_without_a_plate(tmp_path):
    store = tmp_path / "lone.ome.zarr"
    write_image(zarr.open_group(store, mode="w"), FIELDS["A/1/0"], "cyx", "0.5")
    for inputs in ([store], [tmp_path]):
        images, _ = find_to_score(inputs, Layout(brightfield=0))
        assert [image.image_id for image in images] == ["lone"]
        np.testing.assert_array_equal(images[0].pixels()[0], FIELDS["A/1/0"][0])


def test_single_fields_of_a_plate_are_scored_as_they_are_named(plate):
    images, _ = find_to_score([plate / "B/12/1", plate / "A/1/0"], Layout(brightfield=0))
    assert [(image.image_id, image.well) for image in images] == [("B12_1", "B12"), ("A1_0", "A1")]


def test_channels_are_chosen_as_in_other_files(plate):
    with pytest.raises(Refused, match=r"the file holds 2 channels \(BF, PI\): say which"):
        read_plane(plane(plate, "A/1/0"))
    with pytest.raises(Refused, match="no single channel is named 'GFP'"):
        read_plane(plane(plate, "A/1/0", channel="GFP"))


def test_plates_among_files_do_not_do_without_a_table(plate):
    (plate.parent / "more.tif").touch()
    assert len(image_files(plate.parent)) == 5 and unread(plate.parent) == []
    with pytest.raises(SourceError, match=r"has no images.csv.*1 \.tif|4 OME-Zarr"):
        find(plate.parent, BOTH)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("asked", ["lab", "lab/plate7"])
def test_a_store_without_its_suffix_is_told_from_a_folder_of_images(tmp_path, version, asked):
    write_plate(tmp_path / "lab" / "plate7", FIELDS, version)
    with pytest.raises(SourceError, match=r"plate7 is a Zarr store: rename it to plate7\.zarr"):
        find_to_score([tmp_path / asked], Layout(brightfield=0))


def _edit(path: Path, change) -> None:
    metadata = json.loads(path.read_text())
    change(metadata["attributes"]["ome"])
    path.write_text(json.dumps(metadata))


def _scales(store: Path, change) -> None:
    _edit(store / "A/1/0/zarr.json", lambda ome: change(ome["multiscales"][0]))


def _unequal(scales: dict) -> None:
    scales["datasets"][0]["coordinateTransformations"][0]["scale"][2] *= 2
    scales["datasets"][1]["coordinateTransformations"][0]["scale"][2] *= 2


FAULTS = {
    "missing file: no OME-Zarr group": lambda store: shutil.rmtree(store / "A/1/0"),
    "unreadable: 1 of 8 chunks are not there": lambda s: (s / "A/1/0/0/c/0/0/0").unlink(),
    "unreadable: damaged or truncated": lambda s: (s / "A/1/0/zarr.json").write_text("{"),
    "unreadable: damaged or truncated OME-Zarr (": lambda s: _scales(s, dict.clear),
    "missing file": lambda s: (s / "A/1/0/zarr.json").unlink(),
    "format: it is OME-Zarr 0.6, and 0.4 and 0.5 are read: convert it": (
        lambda s: _edit(s / "A/1/0/zarr.json", lambda ome: ome.update(version="0.6"))
    ),
    "format: it is no OME-Zarr image": lambda s: _edit(s / "A/1/0/zarr.json", dict.clear),
    "pixel size: pixels are not square: 1 x 0.5 um": lambda s: _scales(s, _unequal),
    "unreadable": lambda s: shutil.rmtree(s / "A/1/0/0"),
}


@pytest.mark.parametrize("said", FAULTS)
def test_a_damaged_field_is_refused_in_one_line_and_the_others_are_read(plate, said):
    FAULTS[said](plate)
    first, *others = find(plate, BOTH).fields
    with pytest.raises(Refused) as refused:
        first.expand()
        first.read()
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)
    assert refused.value.file == "A/1/0"
    for one, path in zip(others, PATHS[1:]):
        np.testing.assert_array_equal(one.read().pi, FIELDS[path][1])


def test_a_cut_chunk_is_refused(plate):
    chunk = plate / "A/1/0/0/c/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-40])
    with pytest.raises(Refused, match="damaged or truncated OME-Zarr"):
        read_plane(plane(plate, "A/1/0", channel=0))


@pytest.mark.parametrize("place", ["zarr.json", "A/1/0/0/zarr.json", "A/1/0/0/c/0/0/0"])
def test_a_pipe_in_a_store_is_refused_and_not_waited_for(plate, place):
    (plate / place).unlink()
    os.mkfifo(plate / place)
    image, *_ = find_to_score([plate], Layout(brightfield=0))[0]
    with pytest.raises(Refused, match=f"{Path(place).name} in it is a named pipe"):
        image.pixels()


def test_a_missing_well_and_a_broken_plate_are_refused_by_name(plate):
    shutil.rmtree(plate / "A")
    first, *others = find(plate, BOTH).fields
    assert (first.image_id, first.well, len(others)) == ("A1", "A1", 2)
    with pytest.raises(Refused, match="no OME-Zarr group is there"):
        first.read()
    (plate / "zarr.json").unlink()
    [image], _ = find_to_score([plate], Layout(brightfield=0))
    assert image.problem[0] == "missing file" and image.name == plate.as_posix()
    [image], _ = find_to_score([plate / "B"], Layout(brightfield=0))
    assert image.problem == ("format", "it is no OME-Zarr image: name a plate, or one image of it")


def test_a_changed_pixel_name_or_well_changes_the_digest_of_its_field_alone(plate):
    before = digests.measure(plate.parent)
    assert sorted(before) == [f"p7.ome.zarr/{path}" for path in PATHS]
    with (plate / "A/1/1/0/c/1/0/0").open("r+b") as stream:
        stream.write(b"\x01\x02")
    assert digests.differences(before, digests.measure(plate.parent)) == [
        "changed: p7.ome.zarr/A/1/1"
    ]
    _edit(plate / "zarr.json", lambda ome: ome["plate"].update(name="screen8"))
    assert len(digests.differences(before, digests.measure(plate.parent))) == 4
