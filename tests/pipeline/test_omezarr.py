"""A plate as OME-Zarr, acquired and scored, gives what the same pixels give as OME-TIFFs."""

import numpy as np
import pandas as pd
import pytest

from src.assay import score
from src.common.images.layout import Layout
from tests.omezarr_plates import write_plate, write_tiffs
from tests.pipeline.test_acquire import Plant, tree
from tests.pipeline.test_assay_score import contents, frame, save_model

PATHS = ("A/1/0", "A/1/1", "B/12/0", "B/12/1")
FIELDS = {path: np.stack([frame(n), frame(n + 20)]) for n, path in enumerate(PATHS)}


@pytest.fixture
def folders(tmp_path):
    """The same four fields as a plate and as files."""
    (tmp_path / "zarr").mkdir()
    write_plate(tmp_path / "zarr" / "p7.ome.zarr", FIELDS)
    return tmp_path / "zarr", write_tiffs(tmp_path / "tiff", FIELDS)


def test_acquired_as_the_same_pixels_in_files(folders, tmp_path, monkeypatch):
    made = []
    for folder in folders:
        plant = Plant(tmp_path / f"plant-{folder.name}", monkeypatch)
        plant.set("dataset", path=str(folder), channels={"brightfield": "BF", "pi": "PI"})
        images, rejected = plant.run()
        assert len(images) == 4 and rejected.empty
        made.append(tree(plant.raw))
    assert made[0] == made[1]


def test_scored_as_the_same_pixels_in_files(folders, tmp_path):
    model, tables = save_model(tmp_path / "package", "a" * 64), []
    for folder in folders:
        out = tmp_path / f"scored-{folder.name}"
        table = score.score([folder], model, out, score.Options(Layout(brightfield="BF")))
        assert (table["status"] == "scored").all()
        tables.append(table.drop(columns="file"))
    pd.testing.assert_frame_equal(*tables)
    zarr, tiff = (contents(tmp_path / f"scored-{folder.name}") for folder in folders)
    assert zarr.keys() == tiff.keys()
    assert {name for name in zarr if zarr[name] != tiff[name]} <= {
        "images.csv", "images.parquet", "wells.csv", "wells.parquet",
    }  # fmt: skip
    assert pd.read_csv(tmp_path / "scored-zarr" / "wells.csv")["well"].tolist() == ["A1", "B12"]


def test_a_plate_cut_short_is_scored_but_for_its_damaged_field(folders, tmp_path):
    (folders[0] / "p7.ome.zarr/A/1/1/zarr.json").write_text("{")
    model, out = save_model(tmp_path / "package", "a" * 64), tmp_path / "out"
    options = score.Options(Layout(brightfield="BF"), overlays=False)
    table = score.score([folders[0] / "p7.ome.zarr"], model, out, options).set_index("image_id")
    assert table["status"].to_dict() == {
        "A1_0": "scored", "A1_1": "refused", "B12_0": "scored", "B12_1": "scored",
    }  # fmt: skip
    assert table.loc["A1_1", "reason"].startswith("unreadable: damaged or truncated OME-Zarr (")
