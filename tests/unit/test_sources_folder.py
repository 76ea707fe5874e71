"""Finding fields in a folder, by manifest and by pattern; and the checks on what was read."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile

from src.common.acquire.intake import Limits, take
from src.common.acquire.sources import of_partitions
from src.common.images import listing
from src.common.images.entries import expand, pixel_digest, refuse_same_ids, size_note
from src.common.images.field import Frame, Refused, SourceError, clean_id, valid_id
from src.common.images.files import FileField, bits, check_frame
from src.common.images.folder import find
from src.common.images.layout import Layout
from src.common.images.manifest import read_rows
from src.common.images.planes import Plane

RNG = np.random.default_rng(9)
ONE = Layout(partitions=["arm"])


def frame(seed: int = 0, dtype: str = "uint16", shape: tuple[int, int] = (60, 70)) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 200, shape).astype(dtype)


def touch(root, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def manifest(root, text: str, encoding: str = "utf-8") -> None:
    (root / "images.csv").write_text(text, encoding=encoding)


# --- manifest


def test_manifest_with_all_columns(tmp_path):
    manifest(
        tmp_path,
        "image_id,partition,experiment,well,position,time,day,compound,concentration,pixel_size_um,brightfield,pi\n"
        "f1,arm,e1,A1,3,2,4,dox,0.5,0.3225,bf/1.tif,pi/1.tif\n"
        "f2,other,,,,,,,,,bf/2.tif,pi/2.tif\n",
    )
    first, second = find(tmp_path, Layout()).fields
    assert (first.image_id, first.partition, first.experiment, first.well, first.position) == (
        "f1",
        "arm",
        "e1",
        "A1",
        "3",
    )
    assert (first.time, first.day, first.compound, first.concentration, first.pixel_size_um) == (
        2,
        4,
        "dox",
        0.5,
        0.3225,
    )
    assert first.brightfield.file == tmp_path / "bf/1.tif" and first.pi.name == "pi/1.tif"
    assert (second.partition, second.well, second.time, second.pixel_size_um) == (
        "other",
        "",
        None,
        None,
    )


def test_text_stays_text(tmp_path):
    manifest(tmp_path, "image_id,well,position,brightfield,pi\n007,1,NA,a.tif,b.tif\n")
    (found,) = find(tmp_path, ONE).fields
    assert (found.image_id, found.well, found.position) == ("007", "1", "NA")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(
    "text", ["brightfield,pi\na b.tif,c.tif\n", "brightfield; pi\na b.tif; c.tif\n"]
)
def test_manifest_as_spreadsheets_save_it(tmp_path, text, encoding):
    manifest(tmp_path, text, encoding)
    (found,) = find(tmp_path, ONE).fields
    assert (found.image_id, found.partition, found.pi.name) == ("a_b", "arm", "c.tif")


def test_channels_of_one_file_from_the_manifest_or_from_params(tmp_path):
    manifest(
        tmp_path,
        (
            "image_id,brightfield,pi,brightfield_channel,pi_channel\n"
            "a,x.tif,x.tif,2.0,PI\n"
            "b,y.tif,y.tif,,\n"
        ),
    )
    first, second = find(tmp_path, Layout(["arm"], brightfield=0, pi=1)).fields
    assert (first.brightfield.channel, first.pi.channel, first.name) == (2, "PI", "x.tif")
    assert (second.brightfield.channel, second.pi.channel) == (0, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,brightfield\na,b.tif\n", r"lacks the column\(s\) pi"),
        ("brightfield,pi\n", "has no rows"),
        ("", r"lacks the column\(s\) brightfield, pi"),
        ("brightfield,pi,pi\na,b,c\n", "pi twice"),
        ("brightfield,pi,day\na.tif,b.tif,third\n", "line 2: day must be a number, not 'third'"),
        ("brightfield,pi,pixel_size_um\na.tif,b.tif,0\n", "pixel_size_um cannot be 0"),
        ("brightfield,pi,pixel_size_um\na.tif,b.tif,325\n", r"cannot be 325 \(um: 0.005 to 10\)"),
    ],
)
def test_a_manifest_that_cannot_be_used_stops(tmp_path, text, message):
    manifest(tmp_path, text)
    with pytest.raises(SourceError, match=message):
        find(tmp_path, ONE)


def test_a_manifest_that_is_not_text_stops(tmp_path):
    (tmp_path / "images.csv").write_bytes(b"brightfield,pi\n\xe9\xff.tif,b.tif\n")
    with pytest.raises(SourceError, match=r"CSV UTF-8"):
        find(tmp_path, ONE)


def test_no_partition_among_several_stops(tmp_path):
    manifest(tmp_path, "brightfield,pi\na.tif,b.tif\n")
    with pytest.raises(SourceError, match=r"line 2: no partition is given.*one, two"):
        find(tmp_path, Layout(["one", "two"]))


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("a,bf.tif,", "missing partner"),
        ("a,,pi.tif", "missing partner"),
        ("a,../bf.tif,pi.tif", "outside"),
        ("a,/tmp/bf.tif,pi.tif", "outside"),
        ("a,C:\\bf.tif,pi.tif", "outside"),
        ("a:b,bf.tif,pi.tif", "image_id"),
        ("a/b,bf.tif,pi.tif", "image_id"),
        ("..,bf.tif,pi.tif", "image_id"),
    ],
)
def test_rows_refused_before_reading(tmp_path, row, kind):
    manifest(tmp_path, f"image_id,brightfield,pi\n{row}\n")
    (found,) = find(tmp_path, ONE).fields
    assert found.problem[0] == kind
    assert take(found, tmp_path, Limits(10, "px")).rejected["reason"].startswith(f"{kind}: ")


def test_a_colon_in_a_name_is_no_drive(tmp_path):
    touch(tmp_path, "10:30/A1_BF.tif", "10:30/A1_PI.tif")
    pattern = Layout(["arm"], r"(?P<well>[A-H]\d)_(?P<channel>BF|PI)\.tif", "BF", "PI")
    assert [one.problem for one in find(tmp_path, pattern).fields] == [None]


def test_absolute_paths_into_the_folder_are_those_of_its_files(tmp_path):
    folder = tmp_path / "lab"
    touch(folder, "bf/1.tif", "pi/1.tif")
    outside = f"{folder}/../x.tif"
    manifest(folder, f"brightfield,pi\n{folder}/bf/1.tif,pi\\1.tif\n{outside},{outside}\n")
    one, other = find(folder, ONE).fields
    assert (one.name, one.problem) == ("bf/1.tif + pi/1.tif", None)
    assert one.brightfield.file == folder / "bf/1.tif" and other.problem[0] == "outside"


def test_columns_without_use_are_named_and_those_of_data_raw_are_not(tmp_path):
    manifest(tmp_path, "brightfield,pi,height,width,operator\na.tif,b.tif,1,1,kim\n")
    assert find(tmp_path, ONE).notes == ("images.csv: columns that are not used: operator",)
    manifest(tmp_path, "brightfield,pi,pixel size (um),concentration (uM)\na.tif,b.tif,1,1\n")
    assert [note.removesuffix(" to have it used") for note in find(tmp_path, ONE).notes[1:]] == [
        "rename the column 'concentration (um)' to concentration",
        "rename the column 'pixel size (um)' to pixel_size_um",
    ]
    manifest(
        tmp_path, "brightfield,pi,Dose [nM],Well ID,Drug,compound,row,col\na.tif,b.tif,1,2,,,,\n"
    )
    assert [note.removesuffix(" to have it used") for note in find(tmp_path, ONE).notes[1:]] == [
        "rename the column 'col' to column",
        "rename the column 'dose [nm]' to concentration",  # and not drug: there is a compound
        "rename the column 'well id' to well",
    ]


# --- pattern

SCANR = (
    r"(?P<well>[A-Z]\d+)--W\d+--P(?P<position>\d+)--Z00000--T(?P<time>\d+)--(?P<channel>\w+)\.tif"
)
MICRO_MANAGER = (
    r"(?P<experiment>[^/]+)/Pos(?P<position>\d+)/"
    r"img_channel(?P<channel>\d+)_.*_time(?P<time>\d+)_z000\.tif"
)


def test_scanr_names(tmp_path):
    names = [f"{w}--W00001--P0000{p}--Z00000--T00002--{c}.tif" for w in ("A1", "B2") for p in (1, 2)
             for c in ("BF", "PI", "FITC")]  # fmt: skip
    touch(tmp_path, *names)
    touch(tmp_path, "overview.png")
    found = find(tmp_path, Layout(["arm"], SCANR, "BF", "PI"))
    assert [f.image_id for f in found.fields] == [
        "A1_00001_00002",
        "A1_00002_00002",
        "B2_00001_00002",
        "B2_00002_00002",
    ]
    first = found.fields[0]
    assert (first.well, first.position, first.time, first.problem) == ("A1", "00001", 2, None)
    assert first.brightfield.name.endswith("BF.tif") and first.pi.name.endswith("PI.tif")
    assert first.brightfield.channel is None, (
        "the name chose the channel, so the file must hold one"
    )
    assert set(found.notes) == {
        "1 of 13 files do not match dataset.pattern",
        "channels that are not used: FITC",
    }


def test_micro_manager_names_over_folders(tmp_path):
    names = [f"run{e}/Pos{p}/img_channel00{c}_position000_time00000000{t}_z000.tif"
             for e in (1, 2) for p in (0, 1) for t in (0, 1) for c in (0, 1)]  # fmt: skip
    touch(tmp_path, *names)
    found = find(tmp_path, Layout(["arm"], MICRO_MANAGER, 0, 1)).fields
    assert len(found) == 8 and not any(f.problem for f in found)
    expected = {(e, p, t) for e in ("run1", "run2") for p in "01" for t in (0, 1)}
    assert {(f.experiment, f.position, f.time) for f in found} == expected
    assert all(f.brightfield.name.replace("channel000", "channel001") == f.pi.name for f in found)


def test_multi_channel_files_by_pattern(tmp_path):
    touch(tmp_path, "ctrl/A1_f01.ome.tif", "drug/A1_f01.ome.tif")
    layout = Layout(
        ["ctrl", "drug"],
        r"(?P<partition>\w+)/(?P<well>\w\d)_f(?P<position>\d+)\.ome\.tif",
        "BF",
        "PI",
    )
    found = find(tmp_path, layout).fields
    assert [(f.image_id, f.partition, f.brightfield.channel, f.pi.channel) for f in found] == [
        ("ctrl_A1_01", "ctrl", "BF", "PI"),
        ("drug_A1_01", "drug", "BF", "PI"),
    ]


def test_a_missing_partner_and_a_second_claimant_are_refused(tmp_path):
    touch(tmp_path, "x/1_BF.tif", "x/1_PI.tif", "y/1_BF.tif", "x/2_BF.tif")
    found = find(
        tmp_path, Layout(["arm"], r"(?P<position>\d)_(?P<channel>BF|PI)\.tif", "BF", "PI")
    ).fields
    assert [(f.name, f.problem and f.problem[0]) for f in found] == [
        ("x/1_BF.tif + x/1_PI.tif", None),
        ("y/1_BF.tif", "same id twice"),
        ("x/2_BF.tif", "missing partner"),
    ]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "not a regular expression"),
        (r"(?P<site>\d+)_(?P<channel>\w+)\.tif", "unknown groups site; known: image_id, channel"),
        (
            r"no_such_(?P<channel>\w+)\.tif",
            r"matches no file of (.|\n)*holds 2 \.tif:\n  \./ 2 files: 1_BF\.tif",
        ),
        (
            r"(?P<position>\d)_(?P<channel>\w+)\.tif",
            "the files have BF, PI; now brightfield is 'bright' and pi is 'PI'",
        ),
    ],
)
def test_a_pattern_that_cannot_be_used_stops(tmp_path, pattern, message):
    touch(tmp_path, "1_BF.tif", "1_PI.tif")
    with pytest.raises(SourceError, match=message):
        find(tmp_path, Layout(["arm"], pattern, "bright", "PI"))


def test_neither_manifest_nor_pattern_shows_what_there_is(tmp_path):
    touch(tmp_path, "a/1.nd2", "a/2.nd2", "b/notes.txt")
    with pytest.raises(
        SourceError, match=r"no images\.csv and dataset\.pattern is empty(.|\n)*2 \.nd2, 1 \.txt"
    ):
        find(tmp_path, ONE)
    with pytest.raises(SourceError, match=r"does not exist: set dataset.path"):
        find(tmp_path / "nowhere", ONE)


def test_makers_formats_match_a_pattern_and_are_refused_with_the_conversion(tmp_path):
    touch(tmp_path, "A1.nd2")
    (found,) = find(tmp_path, Layout(["arm"], r"(?P<well>\w\d)\.nd2", 0, 1)).fields
    assert expand(found)[0].problem[0] == "format"


def test_hidden_files_and_those_put_aside_are_no_images(tmp_path):
    touch(tmp_path, "a.tif", "._a.tif", ".cache/b.tif", "c/d.PNG", "e.jpg")
    touch(tmp_path, "@eaDir/a.tif/THUMB_M.png", "#recycle/f.tif", "c/$RECYCLE.BIN/$R1.tif")
    assert listing.image_files(tmp_path) == ["a.tif", "c/d.PNG"]


@pytest.mark.parametrize(
    ("on_disk", "named"),
    [
        ("BF/A1.TIF", "bf/a1.tif"),
        ("Tag 1/Zelle_\u00fc.tif", "tag 1/zelle_u\u0308.tif"),
        ("bf /a1.tif", "bf/a1.tif"),
        ("bf/a1.tif ", "bf/a1.tif"),
        ("bf\u200b/a1.tif", "BF/a1.tif"),
    ],
)
def test_names_that_another_system_takes_for_one_are_found(tmp_path, on_disk, named):
    (tmp_path / on_disk).parent.mkdir()
    pixels = frame()
    tifffile.imwrite(tmp_path / on_disk, pixels)
    touch(tmp_path, "two/a1.TIF", "two/A1.tif")  # which one is meant is not known
    manifest(tmp_path, f"brightfield,pi\n{named},{named}\ntwo/a1.tif,two/a1.tif\n")
    one, other = find(tmp_path, ONE).fields
    assert np.array_equal(one.read().pi, pixels)
    with pytest.raises(Refused, match="missing file"):
        other.read()


def test_linked_folders_are_entered_once(tmp_path):
    touch(tmp_path, "store/1.tif", "lab/2.tif")
    (tmp_path / "lab/run").symlink_to(tmp_path / "store")
    (tmp_path / "store/loop").symlink_to(tmp_path / "lab")
    assert listing.image_files(tmp_path / "lab") == ["2.tif", "run/1.tif"]


# --- fields


@pytest.mark.parametrize(("stated", "first"), [("", 0), ("24", 24)])
def test_time_stack_becomes_fields_of_one_position(tmp_path, stated, first):
    movie = RNG.integers(1, 5000, (3, 2, 60, 70), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "m.tif", movie, imagej=True, metadata={"axes": "TCYX"})
    manifest(tmp_path, f"image_id,brightfield,pi,time\nm,m.tif,m.tif,{stated}\n")
    (entry,) = find(tmp_path, Layout(["arm"], brightfield=0, pi=1)).fields
    fields = expand(entry)
    assert [(f.image_id, f.position, f.time) for f in fields] == [
        ("m_t000", "m", first),
        ("m_t001", "m", first + 1),
        ("m_t002", "m", first + 2),
    ]
    read = fields[2].read()
    assert np.array_equal(read.brightfield, movie[2, 0]) and np.array_equal(read.pi, movie[2, 1])


def test_the_later_field_of_two_with_one_id_is_refused():
    fields = [
        FileField(image_id=i, partition="p", name=n, brightfield=None, pi=None)
        for i, n in ("ax", "by", "az")
    ]
    assert [f.problem for f in refuse_same_ids(fields)] == [
        None,
        None,
        ("same id twice", "it is already the id of x"),
    ]


def test_pixel_size_from_manifest_then_file_then_params(tmp_path):
    options = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    for seed, (name, more) in enumerate((("bf.tif", options), ("pi.tif", {}), ("plain.tif", {}))):
        tifffile.imwrite(tmp_path / name, frame(seed), **more)
    manifest(
        tmp_path,
        (
            "image_id,brightfield,pi,pixel_size_um\n"
            "a,bf.tif,pi.tif,0.3\n"
            "b,bf.tif,pi.tif,\n"
            "c,plain.tif,pi.tif,\n"
        ),
    )
    for role in ("brightfield", "pi"):
        (tmp_path / "out" / role).mkdir(parents=True)
    fields = find(tmp_path, ONE).fields
    sizes = [
        take(f, tmp_path / "out", Limits(10, "px", 0.7)).accepted["pixel_size_um"] for f in fields
    ]
    assert sizes == [0.3, 0.5, 0.7]
    refused = take(fields[2], tmp_path / "out", Limits(10, "um", None)).rejected
    assert refused["reason"].startswith("pixel size: the pixel size is not known")


FIELD = FileField(
    image_id="a", partition="p", name="a", brightfield=Plane("bf", "bf"), pi=Plane("pi", "pi")
)


@pytest.mark.parametrize(
    ("brightfield", "pi", "kind"),
    [
        (frame(0, "float32"), frame(1), "pixel type: bright-field is float32: save the raw counts"),
        (frame(0), frame(1, "int32"), "pixel type: PI is int32"),
        (frame(0), frame(1, "int16"), "pixel type"),
        (frame(0), frame(1, "bool"), "pixel type"),
        (frame(0), frame(1, shape=(60, 71)), "shapes: bright-field is 60 x 70 px, PI 60 x 71"),
        (np.minimum(frame(0), 150), frame(1), "saturated: 26% of the bright-field pixels"),
        (np.full((60, 70), 7, np.uint16), frame(1), "constant: every bright-field pixel is 7"),
        (frame(0), np.zeros((60, 70), np.uint16), "constant: every PI pixel is 0"),
        (
            frame(0),
            np.where(frame(1) < 110, 65535, frame(1)).astype(np.uint16),
            "saturated: 55% of the PI pixels",
        ),
        (frame(0), np.where(frame(1) < 110, 65520, frame(1)).astype(np.uint16), "saturated"),
        (frame(0), np.where(frame(1) < 110, 4095, frame(1)).astype(np.uint16), "saturated"),
        (
            frame(0, shape=(49, 90)),
            frame(1, shape=(49, 90)),
            "too small: 49 x 90 px holds no patch of 50 px",
        ),
        (frame(0), frame(0), "same channel"),
    ],
)
def test_checks(brightfield, pi, kind):
    with pytest.raises(Refused) as refused:
        check_frame(Frame(brightfield, pi), FIELD, 50)
    assert str(refused.value).startswith(kind)


NUCLEI = np.zeros((60, 70), np.int32)
NUCLEI[10:30, 5:40], NUCLEI[40:50, 50:60] = 1, 70_000
CONFLUENT = np.kron(np.arange(1, 13).reshape(3, 4), np.ones((20, 20), np.int32))[:, :70]
CONFLUENT[19] = 0  # whole cells with less background than the largest of them


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (NUCLEI, ""),
        (NUCLEI.astype(np.float32), ""),  # labels as some programs of Fiji save them
        (0 * NUCLEI, ""),
        (CONFLUENT, ""),
        ((1 + (NUCLEI > 0)).astype(np.uint8), "most pixels are 1: 0 must be the background"),
        (np.where(NUCLEI > 0, 0, 255).astype(np.uint8), "most pixels are 255"),
        (np.full((60, 70), 83, np.uint16) + frame(0) // 100, "most pixels are 8"),
        ((NUCLEI > 0) * np.float32(0.7), "an instance mask holds whole numbers"),
    ],
    ids=["labels", "float", "none", "confluent", "ilastik", "inverted", "dye", "probabilities"],
)
def test_a_mask_that_is_no_instance_mask_is_refused(tmp_path, mask, said):
    tifffile.imwrite(tmp_path / "mask.tif", mask, metadata=None)
    field = replace(FIELD, nuclei=Plane(tmp_path / "mask.tif", "mask.tif"))
    if not said:
        assert np.array_equal(field.mask(mask.shape), mask)
        return
    with pytest.raises(Refused, match=f"nuclei mask: mask.tif: .*{said}"):
        field.mask(mask.shape)


def test_counts_are_kept_when_widened():
    eight, sixteen = frame(0, "uint8"), frame(1) * 300
    brightfield, pi = check_frame(Frame(eight, eight.T.reshape(60, 70)), FIELD, 50)
    assert brightfield.dtype == pi.dtype == np.uint16 and np.array_equal(brightfield, eight)
    check_frame(Frame(eight, sixteen), FIELD, 50)
    assert (bits(eight), bits(sixteen)) == (8, 16)


def test_black_borders_and_half_saturation_of_pi_pass():
    black = np.where(np.arange(70) < 50, 0, frame(0)).astype(np.uint16)
    bright = np.where(frame(1) < 80, 65535, frame(1)).astype(np.uint16)
    check_frame(Frame(black, bright), FIELD, 50)


def test_pixel_digest_tells_shape_and_pixels_but_not_memory_layout():
    image = frame(3)
    assert (
        pixel_digest(image)
        == pixel_digest(np.asfortranarray(image))
        == pixel_digest(image.astype(">u2"))
    )
    assert (
        len(
            {
                pixel_digest(x)
                for x in (image, image.T, image.reshape(70, 60), image + 1, image.astype("u1"))
            }
        )
        == 5
    )


def test_other_partitions_are_told_apart(tmp_path):
    manifest(
        tmp_path,
        (
            "image_id,partition,brightfield,pi\n"
            "a,one,a.tif,b.tif\n"
            "b,two,c.tif,d.tif\n"
            "c,three,e.tif,f.tif\n"
        ),
    )
    found = find(tmp_path, Layout())
    fields, others = of_partitions(found, ["two"])
    assert [f.image_id for f in fields] == ["b"] and others == ["one", "three"]
    with pytest.raises(SourceError, match=r"no partition four; it has one, three, two"):
        of_partitions(found, ["one", "four"])


def test_ids():
    assert clean_id("a b:c/é.1") == "a_b_c_é.1" and valid_id("a_b-1.2+x=3@")
    assert not any(map(valid_id, ("", "a:b", "a/b", "a b", ".a", "-a", "x" * 201, "é" * 101)))
    assert clean_id("日" * 80) == "日" * 66 and valid_id("日" * 66)  # bytes, as file systems count


@pytest.mark.parametrize("column", ["concentration", "time", "day"])
def test_negative_numbers_stop_with_their_line(tmp_path, column):
    (tmp_path / "images.csv").write_text(
        f"brightfield,pi,{column}\na.tif,b.tif,2\nc.tif,d.tif,-1\n"
    )
    with pytest.raises(
        SourceError, match=rf"images\.csv, line 3: {column} cannot be negative, and is -1"
    ):
        find(tmp_path, Layout(["p"]))


def test_a_manifest_that_may_not_be_read_or_is_a_folder_is_said(tmp_path):
    (tmp_path / "images.csv").mkdir()
    with pytest.raises(SourceError, match=r"images\.csv cannot be read \(Is a directory\)"):
        read_rows(tmp_path / "images.csv")


def test_a_folder_that_may_not_be_listed_does_not_look_empty(tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(listing.os, "scandir", forbidden)
    with pytest.raises(SourceError, match=r"cannot be read \(Permission denied\)"):
        listing.image_files(tmp_path)


def test_which_pixel_size_wins_is_said_only_where_they_differ():
    assert size_note([0.598, 0.598, 0.65], 0.65, "--pixel-size-um") == [
        "the manifest or the files state their own um per pixel, which is taken: 0.598 instead of "
        "--pixel-size-um 0.65"
    ]
    assert size_note([0.65, None], 0.65, "x") == size_note([0.5], None, "x") == []
