"""`unstained score` with a model of the stain: dead nuclei, cells of a mask, OME-TIFF."""

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile

from src.assay import cells, nuclei, score
from src.assay.model import Model
from src.assay.report import report
from src.assay.words import DASH
from src.common.explain.nuclei import dead_nuclei
from src.common.images.layout import Layout

SIZE_UM = 0.5
CONTRACT = {
    "partition": "p", "arch": "a", "synthetic": False, "pixel_size_um": SIZE_UM, "target": "stain",
    "bits": [16], "tile": {"window": 64, "stride": 32, "unit": "px", "edge": "anchor"},
    "scaling": {"method": "percentile", "low": 0.5, "high": 99.5}, "unlike_share": 1.0,
    "operating": {"temperature": 1.0, "threshold": 0.5, "live_from": 0.6, "dead_to": 0.4},
}  # fmt: skip
FACTS = {"digest": "a" * 64, "novelty": True, "uri": "u", "name": None, "version": None,
         "synthetic": False, "alias": None, "arch": "a", "partition": "p", "scheme": "holdout",
         "pixel_size_um": SIZE_UM, "balanced_accuracy": None, "heldout": None,
         "created": "now"}  # fmt: skip
DISKS = [(40, 40, 4.0), (40, 110, 1.0), (90, 60, 1.0), (90, 130, 3.0)]  # y, x, PI over background
RADIUS = 11


class Glow:
    """Stands for a trained network: its predicted PI over background is the count over 1000."""

    contract = CONTRACT

    def stain(self, frame, pixel_size_um):
        pi = frame.astype(np.float32) / 1000
        return np.stack([pi, (pi > 1.5).astype(np.float32)])

    def probability_of(self, pi):
        return np.round(1 / (1 + np.exp(4 * (np.asarray(pi) - 2))), 6)


class Loaded:
    def unwrap_python_model(self):
        return type("Python", (), {"scorer": Glow()})

    def predict(self, table):
        corners = [(y, x) for y in (0, 32, 64) for x in (0, 32, 64, 96)]
        rows = pd.DataFrame(corners, columns=["y", "x"]).assign(
            size=64, verdict="cells", novelty=0.5
        )
        return rows.assign(live_probability=0.9, call="live", image_id="0")


def field(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame whose disks glow as DISKS says, and the mask of its disks."""
    frame = np.random.default_rng(seed).normal(1000, 5, (128, 160))
    mask = np.zeros(frame.shape, np.uint16)
    for label, (y, x, pi) in enumerate(DISKS, start=1):
        disk = cv2.circle(np.zeros(frame.shape, np.uint8), (x, y), RADIUS, 1, -1) > 0
        frame[disk] *= pi
        mask[disk] = label
    return frame.round().astype(np.uint16), mask


@pytest.fixture
def plate(tmp_path, monkeypatch):
    """Two wells of two fields with masks, and an image without one."""
    root = tmp_path / "plate"
    root.mkdir()
    rows = []
    for number, well in enumerate(["B2", "B2", "B3", "B3", "B4"]):
        frame, mask = field(number)
        tifffile.imwrite(root / f"x{number}.tif", frame)
        tifffile.imwrite(root / f"m{number}.tif", mask)
        nuclei = f"m{number}.tif" if number < 4 else ""
        rows.append({"brightfield": f"x{number}.tif", "well": well, "nuclei": nuclei})
    pd.DataFrame(rows).assign(pixel_size_um=SIZE_UM).to_csv(root / "images.csv", index=False)
    monkeypatch.setattr(score, "load", lambda *_: Model(Loaded(), CONTRACT, FACTS))
    return root


def run(root, out, **options):
    return score.score([root], "models:/x/1", out, score.Options(Layout(()), **options))


def test_cells_of_a_mask_are_called_with_their_place_and_stain(plate, tmp_path):
    run(plate, tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / "cells.parquet")
    assert list(table) == cells.CELL_COLUMNS and len(table) == 4 * len(DISKS)
    assert list(pd.read_csv(tmp_path / "out" / "cells.csv")) == cells.CELL_COLUMNS
    first = table[table["image_id"] == "x0"].reset_index(drop=True)
    assert first["label"].tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(first[["y", "x"]], [disk[:2] for disk in DISKS], atol=0.01)
    np.testing.assert_allclose(first["predicted_pi"], [disk[2] for disk in DISKS], rtol=0.01)
    assert first["call"].tolist() == ["dead", "live", "live", "dead"]
    np.testing.assert_allclose(first["area_um2"], first["area_px"] * SIZE_UM**2, atol=0.01)


NUCLEI = {"weights": [1.0] * 4, "live_from": 0.7, "dead_to": 0.3, "area_um2": [60.0, 130.0],
          "speck_um2": 12.0, "wrong": 0.186, "of": 1794}  # fmt: skip


class Sized(Glow):
    """A model that learnt from masks: live from 80 um2 on, whatever glows."""

    contract = CONTRACT | {"nuclei": NUCLEI}

    def nuclei_probability(self, pi, shape):
        return np.round(1 / (1 + np.exp(-np.log(shape[:, 0] / 80) * 20)), 6)


@pytest.mark.parametrize(("size_um", "told"), [(SIZE_UM, False), (3 * SIZE_UM, True)])
def test_a_model_that_learnt_from_masks_calls_by_size_within_what_it_knows(
    plate, tmp_path, monkeypatch, size_um, told
):
    mask = field(1)[1]
    mask[mask == 2] = 0
    cv2.circle(mask, (110, 40), 6, 2, -1)  # 28 um2 at 0.5 um
    tifffile.imwrite(plate / "m1.tif", mask)
    images = pd.read_csv(plate / "images.csv").assign(pixel_size_um=size_um)
    images.to_csv(plate / "images.csv", index=False)
    monkeypatch.setattr(score, "load", lambda *_: sized(CONTRACT | {"pixel_size_um": None}))
    run(plate, tmp_path / "out", overlays=False)
    table = pd.read_parquet(tmp_path / "out" / "cells.parquet").query("image_id == 'x1'")
    assert table["call"].tolist() == (["live"] * 4 if told else ["live", "dead", "live", "live"])
    page = (tmp_path / "out" / "summary.html").read_text()
    assert ("those of training 60 to 130" in page) == told
    assert "own test 19% of the 1794 nuclei that it called were called wrongly" in page


def sized(contract: dict) -> Model:
    """A model that learnt from masks."""
    loaded = Loaded()
    loaded.unwrap_python_model = lambda: type("Python", (), {"scorer": Sized()})()
    return Model(loaded, contract | {"nuclei": NUCLEI}, FACTS | {"nuclei": NUCLEI})


def test_specks_of_a_mask_are_not_called_by_their_size(plate, tmp_path, monkeypatch):
    mask = field(1)[1]
    mask[5:7, 5], mask[60, 10:13] = 8, 9  # 0.5 and 0.75 um2
    tifffile.imwrite(plate / "m1.tif", mask)
    monkeypatch.setattr(score, "load", lambda *_: sized(CONTRACT))
    run(plate, tmp_path / "out", overlays=False)
    table = pd.read_parquet(tmp_path / "out" / "cells.parquet").query("image_id == 'x1'")
    assert table["call"].tolist() == ["live"] * 4 + ["abstain"] * 2
    assert table["live_probability"].notna().all()  # a number to rank by, as of others
    page = (tmp_path / "out" / "summary.html").read_text()
    assert "2 of 18 cells are smaller than 12 µm² and not called" in page
    frame = field(1)[0]  # stained, they teach nothing of the others either
    own = nuclei.of_field(mask, frame, np.full(frame.shape, 9.0), 1.0, sized(CONTRACT), SIZE_UM)
    assert own["label"].tolist() == ["dead"] * 4 + ["open"] * 2


def test_cells_that_an_older_version_kept_are_made_anew(plate, tmp_path):
    out = tmp_path / "out"
    run(plate, out)
    wanted = pd.read_parquet(out / "cells.parquet")
    kept = next((out / "parts").glob("*.cells.parquet"))
    pd.read_parquet(kept).drop(columns="eccentricity").to_parquet(kept)
    run(plate, out)
    pd.testing.assert_frame_equal(pd.read_parquet(out / "cells.parquet"), wanted)


def test_wells_get_a_dead_cell_fraction_and_a_count_of_dead_nuclei(plate, tmp_path):
    table = run(plate, tmp_path / "out").set_index("image_id")
    assert table["predicted_dead_nuclei"].tolist() == [2] * 5
    wells = pd.read_parquet(tmp_path / "out" / "wells.parquet").set_index("well")
    assert wells["predicted_dead_nuclei"].to_dict() == {"B2": 4, "B3": 4, "B4": 2}
    by_cells = pd.read_parquet(tmp_path / "out" / "well_cells.parquet").set_index("well")
    assert sorted(by_cells.index) == ["B2", "B3"]
    row = by_cells.loc["B2"]
    assert (row["live"], row["dead"], row["fields"], row["dead_cell_fraction"]) == (4, 4, 2, 0.5)
    assert row["low"] < 0.5 < row["high"]


def test_a_report_made_anew_keeps_the_cells_and_what_was_told(plate, tmp_path, monkeypatch):
    monkeypatch.setattr(score, "load", lambda *_: sized(CONTRACT | {"pixel_size_um": None}))
    images = pd.read_csv(plate / "images.csv").assign(pixel_size_um=3 * SIZE_UM, control="negative")
    images.to_csv(plate / "images.csv", index=False)
    moved = "the plate: operating point moved by +1.00 (logit)"
    monkeypatch.setattr(score, "by_controls", lambda scored, _: (scored, [moved]))
    run(plate, tmp_path / "out", controls=True)
    before = (tmp_path / "out" / "summary.html").read_text()
    assert moved in before and "of another kind" in before and "<h2>Cells</h2>" in before
    report(tmp_path / "out")
    assert (tmp_path / "out" / "summary.html").read_text() == before


def test_of_fewer_than_five_cells_the_page_gives_no_percentage(plate, tmp_path):
    table = pd.read_csv(plate / "images.csv")
    table.assign(nuclei=["m0.tif", "m1.tif", "m2.tif", None, None]).to_csv(
        plate / "images.csv", index=False
    )
    run(plate, tmp_path / "out", overlays=False)
    page = (tmp_path / "out" / "summary.html").read_text().split("<h2>Cells</h2>")[1]
    shown = {well: page.split(f"<td>{well}</td>")[1].split("</td>")[0] for well in ("B2", "B3")}
    assert shown["B2"].endswith(">50.0%") and shown["B3"].endswith(f">{DASH}")


def test_pictures_show_stain_and_outlines_and_the_stain_is_written_on_demand(plate, tmp_path):
    out = tmp_path / "out"
    run(plate, out)
    names = {path.name for path in (out / "overlays").iterdir()}
    assert {"x0.jpg", "x0.stain.jpg", "x0.cells.jpg", "x4.stain.jpg"} <= names
    assert "x4.cells.jpg" not in names and not (out / "stain").exists()
    run(plate, out, stain=True)
    with tifffile.TiffFile(out / "stain" / "x0.ome.tif") as file:
        image, pixels = (
            file.asarray(),
            tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"],
        )
        of_tags = file.pages[0].get_resolution("MICROMETER")
    assert image.dtype == np.float32 and image.max() > 3
    assert pixels["PhysicalSizeX"] == pixels["PhysicalSizeY"] == SIZE_UM
    assert pixels["PhysicalSizeXUnit"] == "µm" and of_tags == pytest.approx((1 / SIZE_UM,) * 2)
    run(plate, out, overlays=False)
    assert not (out / "stain").exists() and not (out / "overlays").exists()


def test_a_mask_of_another_shape_refuses_its_image(plate, tmp_path):
    tifffile.imwrite(plate / "m1.tif", np.ones((64, 64), np.uint16))
    table = run(plate, tmp_path / "out").set_index("image_id")
    assert table.loc["x1", "status"] == "refused" and "nuclei mask" in table.loc["x1", "reason"]
    assert "x1" not in set(pd.read_parquet(tmp_path / "out" / "cells.parquet")["image_id"])


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (lambda image, mask: image, "background"),  # 30 GB as the places of its numbers
        (lambda image, mask: np.where(image > np.median(image), image, 0), "an image: its"),
        (lambda image, mask: mask * 0.5, "pixel type"),
        (lambda image, mask: np.where(mask > 0, mask, np.nan), "pixel type"),
        (lambda image, mask: np.where(mask > 0, mask, -1).astype(np.int16), "pixel type"),
        (lambda image, mask: np.stack([mask] * 5), "axes: it holds colours, channels or planes"),
        (lambda image, mask: np.dstack([mask * 40, mask, mask]).astype(np.uint8), "axes: it"),
    ],
)
def test_what_is_no_instance_mask_refuses_its_image_by_the_masks_name(plate, tmp_path, mask, told):
    tifffile.imwrite(plate / "m1.tif", mask(*field(1)))
    table = run(plate, tmp_path / "out", overlays=False).set_index("image_id")
    assert table["status"].tolist() == ["scored", "refused", "scored", "scored", "scored"]
    assert f"nuclei mask: m1.tif: {told}" in table.loc["x1", "reason"]


@pytest.mark.parametrize(
    "same",
    [
        lambda mask: mask.astype(np.float32),
        lambda mask: np.where(mask > 0, 255, 0).astype(np.uint8),
        lambda mask: mask.astype(np.uint32) + 70_000 * (mask > 0),
    ],
)
def test_masks_of_other_types_give_the_same_cells_and_outlines(plate, tmp_path, same):
    def made(out):
        run(plate, tmp_path / out)
        tables = pd.read_parquet(tmp_path / out / "cells.parquet").drop(columns="label")
        return tables, cv2.imread(str(tmp_path / out / "overlays" / "x1.cells.jpg"))

    wanted, outlined = made("labels")
    tifffile.imwrite(plate / "m1.tif", same(field(1)[1]))
    table, picture = made("other")
    pd.testing.assert_frame_equal(table, wanted)
    np.testing.assert_array_equal(picture, outlined)


def test_a_mask_is_that_of_one_image_alone(plate, tmp_path):
    images = pd.read_csv(plate / "images.csv").replace({"nuclei": {"m1.tif": "m0.tif"}})
    images.to_csv(plate / "images.csv", index=False)  # as where a spreadsheet filled down
    table = run(plate, tmp_path / "out", overlays=False)
    assert table["reason"][1] == "nuclei mask: m0.tif is already that of x0"
    assert (table["reason"].drop(1) == "").all()


@pytest.mark.parametrize(("times", "images"), [(1, 0), (2, 2), (3, 0)])
def test_masks_of_a_time_stack_are_as_many_as_its_images(plate, tmp_path, times, images):
    frames, masks = zip(*(field(number) for number in range(3)))
    stack = {"imagej": True, "metadata": {"axes": "TYX"}}
    tifffile.imwrite(plate / "x1.tif", np.stack(frames[:2]), **stack)
    tifffile.imwrite(plate / "m1.tif", np.stack(masks[:times]), **stack)
    table = run(plate, tmp_path / "out", overlays=False).set_index("image_id")
    assert table.index.str.startswith("x1_t").sum() == images
    told = f"different numbers of time points: [{min(times, 2)}, "
    assert images or told in table.loc["x1", "reason"]


def test_a_model_of_windows_leaves_cells_out_and_says_so(plate, tmp_path, monkeypatch, capsys):
    contract = CONTRACT | {"target": "label"}
    monkeypatch.setattr(score, "load", lambda *_: Model(Loaded(), contract, FACTS))
    table = run(plate, tmp_path / "out", stain=True)
    assert "predicts no stain" in capsys.readouterr().out
    assert table["predicted_dead_nuclei"].isna().all()
    assert (
        not (tmp_path / "out" / "cells.csv").exists() and not (tmp_path / "out" / "stain").exists()
    )


def test_dead_nuclei_are_found_by_their_size_and_brightness_at_any_pixel_size():
    frame, _ = field(0)
    pi = frame / 1000
    assert sorted(map(tuple, np.round(dead_nuclei(pi, SIZE_UM) / 10))) == [(4, 4), (9, 13)]
    double = cv2.resize(pi, None, fx=2, fy=2)
    assert len(dead_nuclei(double, SIZE_UM / 2)) == 2
    assert len(dead_nuclei(np.full((60, 60), np.nan), SIZE_UM)) == 0
