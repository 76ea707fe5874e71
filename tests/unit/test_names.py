"""Names of wells and of files, as makers of plates and microscopes write them."""

import os
import unicodedata

import numpy as np
import pytest
import tifffile

from src.assay.images import find as find_images
from src.common.images.field import SourceError
from src.common.images.folder import find
from src.common.images.layout import Layout
from src.common.images.wells import canonical, place


@pytest.mark.parametrize(
    ("written", "name", "where"),
    [
        ("a01", "A1", (0, 0)),
        ("H12", "H12", (7, 11)),
        ("AF48", "AF48", (31, 47)),
        ("Aa1", "Aa1", (0, 0)),
        ("Ab01", "Ab1", (1, 0)),
        ("Hd48", "Hd48", (31, 47)),
        ("ab1", "AB1", (27, 0)),
        ("r02c03", "B3", (1, 2)),
        ("W00013", "W00013", None),
        ("C007", "C007", None),
        ("AG1", "AG1", None),
        ("A49", "A49", None),
        ("A0", "A0", None),
        ("dish 3", "dish 3", None),
    ],
)
def test_wells(written, name, where):
    assert canonical(written) == name
    assert place(name) == where


NAMES = [
    ("imagexpress", "HTS_A02_s3_w1GUID.TIF", 1, ("A2", "3", None)),
    ("imagexpress", "run/TimePoint_2/HTS_A02_s3_w1GUID.TIF", 1, ("A2", "3", 2.0)),
    ("imagexpress", "TimePoint_2/ZStep_1/A02_s3_w16F-89C5.tif", 1, ("A2", "3", 2.0)),
    ("imagexpress", "HTS_A02_s3.TIF", None, ("A2", "3", None)),
    ("imagexpress", "TimePoint_2/A02_s12.tif", None, ("A2", "12", 2.0)),
    ("imagexpress", "A02_s36F09B3C1-89C5-4D2A-9F00-0123456789AB.tif", None, ("A2", "3", None)),
    ("opera", "Images/r02c11f03p01-ch1sk2fk1fl1.tiff", 1, ("B11", "03", 2.0)),
    ("Operetta", "r02c11f03p01-ch1.tiff", 1, ("B11", "03", None)),
    ("scanr", "B1--W00013--P00002--Z00000--T00004--BF.tif", "BF", ("B1", "00002", 4.0)),
    ("scanr-96", "TL--W00013--P00002--Z00000--T00004--BF.tif", "BF", ("B1", "00002", 4.0)),
    ("scanr-384", "--W00025--P00002--Z00000--T00004--BF.tif", "BF", ("B1", "00002", 4.0)),
    ("cq1-96", "W0013F0001T0003Z001C1.tif", 1, ("B1", "0001", 3.0)),
    ("cq1-1536", "W0049F0001T0003Z001C1.tif", 1, ("B1", "0001", 3.0)),
    ("micro-manager-1", "day/Pos0/img_000000002_BF_000.tif", "BF", ("", "Pos0", 2.0)),
    ("micro-manager-1", "B7-Site_1/img_000000000_BF-10x_000.tif", "BF-10x", ("B7", "1", 0.0)),
    ("cellvoyager", "Plate_#65_C02_T0002F001L01A03Z01C02.tif", 2, ("C2", "001", 2.0)),
    ("gen5", "A1_-1_2_3_Bright Field_001.tif", "Bright Field", ("A1", "3", 1.0)),
    ("gen5", "run/B10_02_1_1Z0_Tsf[GFP]_012.tif", "Tsf[GFP]", ("B10", "1", 12.0)),
    ("evos", "scan_Plate_R_p03_0_A01f00d4.TIF", 4, ("A1", "00", 3.0)),
    ("cellomics", "MFGTMP_140206180002_A01f12d0.TIF", 0, ("A1", "12", None)),
    ("incell", "B - 11(fld 2 wv TL - Cy3).tif", "TL - Cy3", ("B11", "2", None)),
    ("incell", "B - 1(fld 2 wv TL - Cy3 z 1).tif", "TL - Cy3", ("B1", "2", None)),
    ("micro-manager-2", "run_1/run_1_MMStack_Pos0.ome.tif", 0, ("", "Pos0", None)),
    ("micro-manager-2", "run_1_MMStack_B7-Site_2.ome.tif", 0, ("B7", "2", None)),
    ("incucyte", "B7_1_00d06h00m.tif", None, ("B7", "1", 6.0)),
    ("incucyte", "VID123_B7_1_01d06h30m.tif", None, ("B7", "1", 30.5)),
    (
        "micro-manager",
        "Pos0/img_channel000_position007_time000000002_z000.tif",
        0,
        ("", "007", 2.0),
    ),
]


@pytest.mark.parametrize(("preset", "name", "channel", "known"), NAMES)
def test_presets_read_the_names_of_their_microscopes(tmp_path, preset, name, channel, known):
    place = tmp_path / name
    place.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(place, np.arange(100, dtype=np.uint16).reshape(10, 10))
    (image,) = find_images([tmp_path], Layout((), preset, channel))[0]
    assert (image.well, image.position, image.time) == known and image.problem is None


def test_thumbnails_and_further_focus_planes_are_left_out(tmp_path):
    further = [f"ZStep_{z}/HTS_A01_s1_w{w}AB.TIF" for z in (0, 2) for w in (1, 2)]
    thumb = "HTS_A01_s1_w1_thumbAB.TIF"
    alone = "HTS_A01_s1_thumb6F09B3C1-89C5-4D2A-9F00-0123456789AB.TIF"
    for name in ("HTS_A01_s1_w1AB.TIF", thumb, alone, "HTS_A01_s1_w2AB.TIF", *further):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find(tmp_path, Layout(["arm"], "imagexpress", 1, 2))
    assert [field.name for field in found.fields] == ["HTS_A01_s1_w1AB.TIF + HTS_A01_s1_w2AB.TIF"]


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        ("cellvoyager", "P_C02_T0002F001L01A03Z0{}C01.tif"),
        ("gen5", "A1_01_1_3Z{}_1_001.tif"),
        ("incell", "A - 1(fld 2 wv 1 z {}).tif"),
    ],
)
def test_of_several_focus_planes_presets_take_the_first(tmp_path, preset, name):
    names = [name.format(z) for z in (0, 1, 2)[preset != "gen5" :]]
    for one in names:
        tifffile.imwrite(tmp_path / one, np.arange(100, dtype=np.uint16).reshape(10, 10))
    images, _ = find_images([tmp_path], Layout((), preset, 1))
    assert [image.name for image in images] == names[:1]


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        ("opera", "p{}__2023-04-01/Images/r01c01f01p01-ch1sk1fk1fl1.tiff"),
        ("scanr", "day/p{}/data/A1--W00001--P00001--Z00000--T00000--1.tif"),
        ("scanr-96", "p{}/data/Pl--W00001--P00001--Z00000--T00000--1.tif"),
        ("cq1-96", "p{}/Image/W0001F0001T0001Z001C1.tif"),
        ("cellvoyager", "p{}/AssayPlate_X/AssayPlate_X_A01_T0001F001L01A01Z01C01.tif"),
        ("gen5", "p{}/A1_01_1_1_1_001.tif"),
        ("evos", "d{0}/p{0}_p00_0_A01f00d1.TIF"),
        ("incell", "p{}/A - 01(fld 1 wv 1).tif"),
        ("micro-manager-1", "p{}/2-Pos_000_001/img_000000000_1_000.tif"),
        ("micro-manager-2", "p{0}/p{0}_MMStack_Default.ome.tif"),
        ("micro-manager", "p{}/1-Pos_000_000/img_channel001_position000_time000000000_z000.tif"),
    ],
)
def test_measurements_in_folders_are_told_apart_and_are_the_experiments(tmp_path, preset, name):
    for number in (1, 2):
        path = tmp_path / name.format(number)
        path.parent.mkdir(parents=True)
        tifffile.imwrite(path, np.arange(100, dtype=np.uint16).reshape(10, 10))
    first, second = find_images([tmp_path], Layout((), preset, 1))[0]
    assert not first.problem and not second.problem and first.image_id != second.image_id
    assert [one.experiment[:2] for one in (first, second)] == ["p1", "p2"]


def test_a_name_that_is_no_preset_shows_those_there_are(tmp_path):
    (tmp_path / "W0001F0001T0001Z001C1.tif").touch()
    with pytest.raises(SourceError, match=r"cq1 matches no file of .* \(presets: .*, cq1-1536, cq"):
        find_images([tmp_path], Layout((), "cq1", 1))


def test_a_zero_padded_channel_is_meant_as_it_is_written(tmp_path):
    for channel in (0, 1):
        name = f"img_channel00{channel}_position000_time000000000_z000.tif"
        tifffile.imwrite(tmp_path / name, np.arange(100, dtype=np.uint16).reshape(10, 10))
    for wanted in (0, "000"):
        (image,) = find_images([tmp_path], Layout((), "micro-manager", wanted))[0]
        assert image.brightfield.name == "img_channel000_position000_time000000000_z000.tif"


def test_calendar_times_are_hours_since_the_first_of_their_experiment(tmp_path):
    names = [
        "VID1_A1_1_2023y02m28d_23h30m.tif",
        "VID1_A1_1_2023y03m01d_02h00m.tif",
        "VID2_A1_1_2023y03m01d_02h00m.tif",
    ]
    for name in names:
        tifffile.imwrite(tmp_path / name, np.arange(100, dtype=np.uint16).reshape(10, 10))
    found = find_images([tmp_path], Layout((), "incucyte"))[0]
    times = {one.name: (one.experiment, one.time) for one in found}
    assert times == dict(zip(names, [("VID1", 0.0), ("VID1", 2.5), ("VID2", 0.0)]))
    assert len({one.image_id for one in found}) == 3 and not any(one.problem for one in found)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"--(?P<well>W\d+)--.*\.tif", "'W00013' is no well of a plate: .*well96"),
        (r"--W(?P<well96>\d+)--.*\.tif", None),
        (r"--W(?P<well96>0+)0013--.*\.tif", "well96 is '0': wells of that plate are 1 to 96"),
    ],
)
def test_an_index_is_no_well_unless_it_is_said_of_which_plate(tmp_path, pattern, message):
    path = tmp_path / "--W00013--P00001--Z00000--T00000--BF.tif"
    tifffile.imwrite(path, np.arange(100, dtype=np.uint16).reshape(10, 10))
    if message:
        with pytest.raises(SourceError, match=message):
            find_images([tmp_path], Layout((), pattern))
    else:
        assert find_images([tmp_path], Layout((), pattern))[0][0].well == "B1"


@pytest.mark.parametrize("table", ["NFC", "NFD"])
@pytest.mark.parametrize("disk", ["NFC", "NFD"])
def test_accents_composed_or_not_name_the_same_file(tmp_path, table, disk):
    name = "kontrolle_ü.tif"
    tifffile.imwrite(tmp_path / unicodedata.normalize(disk, name), np.ones((4, 4), np.uint16))
    rows = f"brightfield,pi\n{unicodedata.normalize(table, name)},p.tif\n"
    (tmp_path / "images.csv").write_text(rows, encoding="utf-8")
    (field,) = find(tmp_path, Layout(["arm"])).fields
    assert field.brightfield.file.exists()
    assert field.image_id == unicodedata.normalize("NFC", "kontrolle_ü")


def test_a_name_in_latin_1_is_read_and_can_be_written(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.arange(100, dtype=np.uint16).reshape(10, 10))
    os.rename(tmp_path / "a.tif", os.path.join(os.fsencode(tmp_path), b"Zellen_\xb5m_1.tif"))
    (image,) = find_images([tmp_path], Layout(()))[0]
    assert image.name == "Zellen_µm_1.tif" and image.problem is None
    (tmp_path / "list.csv").write_text("brightfield\nZellen_µm_1.tif\n", encoding="utf-8")
    (image,) = find_images([tmp_path / "list.csv"], Layout(()))[0]
    assert image.pixels()[0].shape == (10, 10)
