"""The acquire stage as a whole: what goes into data/raw, what is refused, when it stops."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml

from src.common.acquire import digests, sources
from src.common.acquire.intake import MANIFEST_COLUMNS
from src.common.check import raw
from src.common.images.entries import pixel_digest
from src.common.images.field import SourceError
from src.common.images.planes import Plane, read_plane
from src.common.workspace import params, paths
from src.common.workspace.errors import UserError
from src.common.workspace.tables import read_images
from src.stages import acquire
from src.stages.tile import cut, require_sides
from tests.conftest import default_params

ROOT = Path(__file__).parents[2]
REJECTED = ["image_id", "file", "reason", "duplicate_of"]


def image(seed: int, dtype: str = "uint16", shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 250, shape).astype(dtype)


class Plant:
    """A repository in a temporary folder with its own folder source, and the stage run on it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.raw, self.images = root, root / "data/raw", root / "lab"
        self.rows: list[dict] = []
        self.sections = default_params()
        self.set("dataset", source="folder", path="lab", partitions=["arm"])
        self.set("tile", window=32, stride=16)
        self.set("acquire", workers=1, max_rejected_fraction=1.0)
        self.set("synthetic", frames=1, height=224, width=240)
        for folder in (self.images, root / "sources"):
            folder.mkdir(parents=True)
        for source in ("folder", "synthetic"):
            (root / f"sources/{source}.csv").write_text("file,bytes,sha256\n")
        for module in (acquire, sources):
            monkeypatch.setattr(module, "RAW", self.raw)
        monkeypatch.setattr(paths, "REPO", root)
        monkeypatch.setattr(digests, "WORKSPACE", root)
        monkeypatch.setattr(sources, "WORKSPACE", root)
        monkeypatch.setattr(
            acquire, "load", lambda *names: tuple(self.parsed()[name] for name in names)
        )

    def set(self, section: str, **values) -> None:
        self.sections[section] |= values

    def parsed(self) -> dict:
        return params.parse(yaml.safe_dump(self.sections))

    @property
    def dataset(self):
        return self.parsed()["dataset"]

    def add(
        self, image_id: str, brightfield=None, pi=None, partition: str = "arm", **values
    ) -> None:
        """One row of the manifest with its files; a channel is an array, None for noise, or '' for
        no file.
        """
        row = {"image_id": image_id, "partition": partition, **values}
        for role, pixels, seed in (("brightfield", brightfield, 2), ("pi", pi, 3)):
            row[role] = "" if isinstance(pixels, str) else f"{role}_{len(self.rows)}.tif"
            if row[role]:
                noise = image(10 * len(self.rows) + seed)
                tifffile.imwrite(
                    self.images / row[role], noise if pixels is None else pixels, metadata=None
                )
        self.rows.append(row)
        pd.DataFrame(self.rows).to_csv(self.images / "images.csv", index=False)

    def run(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        acquire.main()
        return self.tables()

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        read = {"dtype": str, "keep_default_na": False}
        return pd.read_csv(self.raw / "images.csv", **read), pd.read_csv(
            self.raw / "rejected.csv", **read
        )


@pytest.fixture
def plant(tmp_path, monkeypatch) -> Plant:
    return Plant(tmp_path, monkeypatch)


def test_masks_of_nuclei_go_with_their_fields_and_one_of_another_refuses_its(plant):
    mask = np.zeros((64, 80), np.int32)
    mask[8:16, 4:12], mask[40:44, 60:72] = 7, 70_000
    tifffile.imwrite(plant.images / "mask.tif", mask)
    tifffile.imwrite(plant.images / "small.tif", mask[:32])
    plant.add("with", nuclei="mask.tif")
    plant.add("without", nuclei="")
    plant.add("wrong", nuclei="small.tif")
    plant.add("again", nuclei="mask.tif")
    images, rejected = plant.run()
    assert list(images["nuclei"]) == ["nuclei/with.tif", ""]
    kept = tifffile.imread(plant.raw / "nuclei/with.tif")
    assert np.array_equal(kept, mask)  # each nucleus keeps its number
    assert [path.name for path in (plant.raw / "nuclei").iterdir()] == ["with.tif"]
    assert list(rejected["reason"]) == [
        "nuclei mask: small.tif: shapes: 32 x 80 px, its image 64 x 80 px",
        "nuclei mask: mask.tif is already that of with",
    ]
    tile_of = plant.parsed()["tile"]
    files = (plant.raw / "brightfield/with.tif", plant.raw / "pi/with.tif")
    arrays, record, _ = cut(*files, plant.raw / "nuclei/with.tif", None, 16, tile_of)
    assert record["nuclei"] and arrays["nuclei"].shape == (16, 20)
    assert np.array_equal(arrays["nuclei"] == 255, mask[::4, ::4] > 0)  # these edges lie on blocks
    arrays, record, _ = cut(*files, None, None, 16, tile_of)
    assert not record["nuclei"] and "nuclei" not in arrays


@pytest.mark.parametrize("name", ["None", "NA", "null", "nan", "001"])
def test_a_name_is_a_name_whatever_a_library_takes_it_for(plant, name):
    plant.set("dataset", partitions=[name])
    for number in range(3):
        plant.add(f"{name}-{number}", partition=name, experiment=name, well="A1", compound=name)
    plant.add("copy", image(2), partition=name)  # the pixels of the first field
    plant.run()
    table = read_images(plant.raw, [name])
    assert (table[["partition", "experiment", "compound"]] == name).all(axis=None)
    gate = raw.read(plant.raw, [name])
    assert (gate["images"]["experiment"] == name).all()
    assert list(gate["rejected"]["duplicate_of"]) == [f"{name}-0"]


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_images_are_written_as_16_bit_pages_and_described(plant):
    eight, pi = image(1, "uint8"), image(2) * 200
    known = {
        "well": "A1",
        "position": "2",
        "time": 1,
        "day": 3,
        "compound": "dox",
        "concentration": 0.5,
    }
    plant.add("f1", eight, pi, experiment="e", pixel_size_um=0.3225, **known)
    plant.add("f2", partition="elsewhere")
    images, rejected = plant.run()
    assert list(images.columns) == MANIFEST_COLUMNS
    assert list(rejected.columns) == REJECTED and rejected.empty
    (row,) = images.to_dict("records")
    expected = [
        "f1",
        "arm",
        "e",
        "A1",
        "2",
        "1",
        "3",
        "dox",
        "0.5",
        "brightfield/f1.tif",
        "pi/f1.tif",
        "0.3225",
        "64",
        "80",
        "8",  # bits of each channel
        "16",
    ]
    assert list(row.values())[:16] == expected
    for role, source in (("brightfield", eight), ("pi", pi)):
        with tifffile.TiffFile(plant.raw / row[role]) as tif:
            assert len(tif.pages) == 1 and tif.pages.first.compression == 1
            written = tif.asarray()
        assert written.dtype == np.uint16 and np.array_equal(written, source)
        assert row[f"{role}_sha256"] == pixel_digest(written)
    facts = json.loads((plant.raw / "source.json").read_text())
    assert facts == {
        "source": "folder",
        "synthetic": False,
        "fields": 1,
        "rejected": 0,
        "other_partitions": ["elsewhere"],
    }


def test_the_written_file_states_its_pixel_size(plant):
    plant.add("f", pixel_size_um=0.25)
    plant.run()
    assert read_plane(Plane(plant.raw / "pi/f.tif", "f.tif"))[1] == 0.25


def test_every_kind_of_fault_is_refused_with_its_reason_and_the_rest_goes_on(plant, capsys):
    plant.add("good")
    plant.add("float", image(1).astype("float32"))
    plant.add("int32", None, image(1).astype("int32"))
    plant.add("shapes", None, image(1, shape=(64, 81)))
    plant.add("partner", None, "")
    plant.add("constant", np.full((64, 80), 9, np.uint16))
    plant.add("saturated", None, np.where(image(1) < 200, 65535, 3).astype(np.uint16))
    plant.add("small", image(1, shape=(31, 80)), image(2, shape=(31, 80)))
    plant.add("truncated")
    damaged = plant.images / plant.rows[-1]["brightfield"]
    damaged.write_bytes(damaged.read_bytes()[:3000])
    plant.add("stack", np.stack([image(n) for n in range(5)]))
    plant.add("good")
    plant.rows.append(
        {"image_id": "gone", "partition": "arm", "brightfield": "gone.tif", "pi": "gone.tif"}
    )
    plant.rows.append(
        {"image_id": "nikon", "partition": "arm", "brightfield": "x.nd2", "pi": "x.nd2"}
    )
    plant.rows.append(
        {"image_id": "bad:id", "partition": "arm", "brightfield": "x.tif", "pi": "y.tif"}
    )
    pd.DataFrame(plant.rows).to_csv(plant.images / "images.csv", index=False)
    images, rejected = plant.run()
    assert list(images["image_id"]) == ["good"]
    kinds = dict(zip(rejected["image_id"], rejected["reason"].str.partition(":")[0]))
    assert kinds == {
        "float": "pixel type", "int32": "pixel type", "shapes": "shapes",
        "partner": "missing partner", "constant": "constant", "saturated": "saturated",
        "small": "too small", "truncated": "unreadable", "stack": "axes",
        "good": "same id twice", "gone": "missing file", "nikon": "format", "bad:id": "image_id",
    }  # fmt: skip
    assert (rejected["file"] != "").all() and (rejected["duplicate_of"] == "").all()
    assert sorted(tree(plant.raw)) == [
        "brightfield/good.tif",
        "images.csv",
        "pi/good.tif",
        "rejected.csv",
        "source.json",
    ]
    said = capsys.readouterr().out
    assert "refused 13 of 14 fields" in said and "2 x pixel type: bright-field is float32" in said


@pytest.mark.parametrize("role", ["brightfield", "pi"])
def test_same_pixels_under_two_ids(plant, role):
    plant.set("acquire", max_rejected_fraction=0.0)
    plant.add("first")
    plant.add("other")
    plant.add("again", **{role: tifffile.imread(plant.images / plant.rows[0][role])})
    images, rejected = plant.run()
    assert list(images["image_id"]) == ["first", "other"]
    assert rejected[["image_id", "duplicate_of"]].values.tolist() == [["again", "first"]]
    assert (
        rejected["reason"][0].startswith("same pixels: its ")
        and not (plant.raw / "pi/again.tif").exists()
    )


def test_same_pixels_in_another_format_are_the_same(plant):
    plant.add("tiff", image(1, "uint8"), image(2, "uint8"))
    cv2.imwrite(str(plant.images / "a.png"), image(1).astype(np.uint16))
    cv2.imwrite(str(plant.images / "b.png"), image(7).astype(np.uint8))
    plant.rows.append(
        {"image_id": "png", "partition": "arm", "brightfield": "a.png", "pi": "b.png"}
    )
    pd.DataFrame(plant.rows).to_csv(plant.images / "images.csv", index=False)
    assert list(plant.run()[1]["duplicate_of"]) == ["tiff"]


def test_a_compression_that_may_lose_texture_is_said(plant, capsys):
    for name in ("plain", "lost"):
        plant.add(name)
    path = plant.images / plant.rows[-1]["pi"]
    tifffile.imwrite(path, image(9, "uint8"), compression="jpeg")
    images, _ = plant.run()
    assert len(images) == 2
    told = "note: WARNING: 1 of 2 images (brightfield_1.tif + pi_1.tif, ...) are compressed as JPEG"
    assert told in capsys.readouterr().out


def test_too_many_refused_fields_stop_with_a_summary(plant, capsys):
    plant.set("acquire", max_rejected_fraction=0.3)
    for number in range(4):
        plant.add(f"f{number}", None, "" if number % 2 else None)
    with pytest.raises(
        SourceError,
        match=r"2 of 4 fields were refused, more than acquire\.max_rejected_fraction 0\.3",
    ):
        plant.run()
    assert "2 x missing partner: no PI image (brightfield_1.tif)" in capsys.readouterr().out
    assert len(plant.tables()[1]) == 2, "the list is there to look at"
    assert not (plant.raw / "source.json").exists()


def test_several_magnifications_stop_where_windows_are_cut_in_pixels(plant):
    for image_id, size in (("a", 0.31), ("b", 0.32), ("c", ""), ("d", 0.65)):
        plant.add(image_id, pixel_size_um=size)
    with pytest.raises(SourceError, match=r"0\.31 um per pixel in a, 0\.65 in d"):
        plant.run()
    plant.rows[-1]["partition"] = "other"
    plant.set("dataset", partitions=["arm", "other"])
    plant.add("e", pixel_size_um=0.33)
    assert len(plant.run()[0]) == 5
    plant.rows[-1]["pixel_size_um"], plant.rows[3]["partition"] = 0.65, "arm"
    plant.add("f", partition="other", pixel_size_um=0.31)
    plant.set("tile", unit="um", window=9, stride=9)
    assert list(plant.run()[0]["image_id"]) == ["a", "b", "d", "e", "f"]


def test_a_partition_without_any_field_left_stops(plant):
    plant.set("dataset", partitions=["arm", "leg"])
    plant.add("a")
    plant.add("b", None, "", partition="leg")
    with pytest.raises(SourceError, match="no field of partition leg can be used"):
        plant.run()


def test_partitions_that_the_source_lacks_stop_and_others_are_named(plant, capsys):
    plant.add("a")
    plant.add("b", partition="leg")
    plant.run()
    assert "ignoring partition leg, not in dataset.partitions" in capsys.readouterr().out
    plant.set("dataset", partitions=["arm", "head"])
    with pytest.raises(SourceError, match="the source has no partition head; it has arm, leg"):
        plant.run()


@pytest.mark.parametrize("path", ["", "nowhere", "data/raw", "data/raw/deeper", "data", "."])
def test_source_folders_that_cannot_be(plant, path):
    plant.set("dataset", path=path)
    plant.add("a")
    with pytest.raises(
        SourceError, match=r".*(dataset.path is empty|does not exist|overlaps with data/raw)"
    ):
        plant.run()


def test_stale_outputs_of_an_earlier_run_are_removed(plant):
    plant.add("a")
    plant.run()
    plant.rows[0]["image_id"] = "renamed"
    pd.DataFrame(plant.rows).to_csv(plant.images / "images.csv", index=False)
    plant.run()
    assert [p.name for p in (plant.raw / "pi").iterdir()] == ["renamed.tif"]


@pytest.fixture
def varied(plant) -> Plant:
    for number in range(6):
        shape = (40 + number, 70)
        plant.add(
            f"f{number}",
            image(20 + number, shape=shape),
            image(40 + number, shape=shape),
            day=number or None,
        )
    plant.add("twin", image(20, shape=(40, 70)), image(90, shape=(40, 70)))
    plant.add("alone", None, "")
    movie = np.random.default_rng(1).integers(1, 999, (3, 2, 50, 60), dtype=np.uint16)
    tifffile.imwrite(plant.images / "movie.tif", movie, imagej=True, metadata={"axes": "TCYX"})
    plant.rows.append({"image_id": "m", "partition": "arm", "brightfield": "movie.tif",
                       "pi": "movie.tif", "brightfield_channel": 0, "pi_channel": 1})  # fmt: skip
    pd.DataFrame(plant.rows).astype(object).to_csv(plant.images / "images.csv", index=False)
    return plant


def test_wells_called_experiments_and_two_sessions_under_one_id_are_warned_of(plant, capsys):
    for n in range(6):
        plant.add(f"own{n}", image(100 + n) + 1000, experiment="own")
        plant.add(f"well{n}", image(200 + n) + 9000, experiment=f"well{n % 2}")
        plant.add(f"mix{n}", image(300 + n) + [3000, 40000][n % 2], experiment="mix")
    plant.run()
    said = [line for line in capsys.readouterr().out.splitlines() if "WARNING: experiment" in line]
    assert len(said) == 2
    assert "experiments well0, well1 look as if imaged together" in said[0]
    assert "experiment mix holds several exposures" in said[1]


def test_workers_and_repetition_change_no_byte_and_sources_stay_as_they_are(varied):
    before = tree(varied.images)
    results = []
    for workers in (1, 2, 1):
        varied.set("acquire", workers=workers)
        images, rejected = varied.run()
        results.append(tree(varied.raw))
    assert results[0] == results[1] == results[2] and tree(varied.images) == before
    assert list(images["image_id"]) == [*(f"f{n}" for n in range(6)), "m_t000", "m_t001", "m_t002"]
    assert list(images["day"]) == ["", "1", "2", "3", "4", "5", "", "", ""] and list(
        images["time"][-3:]
    ) == ["0", "1", "2"]
    assert list(rejected["image_id"]) == ["twin", "alone"]


def test_digest_list(plant, capsys):
    plant.add("a")
    plant.add("b")
    plant.run()
    assert (
        "sources/folder.csv lists no files, so `dvc repro` will not notice"
        in capsys.readouterr().out
    )
    written = digests.refresh(plant.dataset)
    assert written == plant.root / "sources/folder.csv"
    assert list(pd.read_csv(written)["file"]) == [
        "brightfield_0.tif",
        "brightfield_1.tif",
        "images.csv",
        "pi_0.tif",
        "pi_1.tif",
    ]
    plant.run()
    assert "will not notice" not in capsys.readouterr().out
    (plant.images / "pi_0.tif").unlink()
    tifffile.imwrite(plant.images / "pi_1.tif", image(99))
    tifffile.imwrite(plant.images / "new.tif", image(98))
    before = tree(plant.raw)
    with pytest.raises(SourceError) as stop:
        plant.run()
    for words in ("added: new.tif", "removed: pi_0.tif", "changed: pi_1.tif", "unstained digest"):
        assert words in str(stop.value)
    assert tree(plant.raw) == before, "nothing is touched with a stale list"
    digests.refresh(plant.dataset)
    assert list(plant.run()[1]["image_id"]) == ["a"]


def test_a_long_list_of_changes_is_cut_and_a_broken_list_named(plant):
    plant.add("a")
    digests.refresh(plant.dataset)
    for number in range(30):
        tifffile.imwrite(plant.images / f"more{number:02d}.tif", image(number))
    with pytest.raises(SourceError, match=r"added: more19\.tif\n  and 10 more\n"):
        plant.run()
    (plant.root / "sources/folder.csv").write_text("file,sha256\na.tif,0\n")
    with pytest.raises(SourceError, match=r"sources/folder\.csv is not a digest list"):
        plant.run()


def test_refresh_refuses_a_folder_without_images_and_keeps_the_list(plant, tmp_path):
    plant.add("a")
    digests.refresh(plant.dataset)
    before = tree(plant.root / "sources")
    for path in (tmp_path / "nowhere", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(SourceError, match="holds no images"):
            digests.refresh(plant.dataset.model_copy(update={"path": str(path)}))
    assert tree(plant.root / "sources") == before


def test_refresh_leaves_the_lists_of_other_sources(plant):
    plant.set("dataset", source="synthetic")
    before = tree(plant.root / "sources")
    assert (
        digests.refresh(plant.dataset).name == "synthetic.csv"
        and tree(plant.root / "sources") == before
    )


def test_the_simulated_plate_says_so_and_keeps_its_truth_apart(plant):
    plant.set(
        "dataset", source="synthetic", path="", partitions=["no_treatment", "doxo_paclitaxel"]
    )
    images, rejected = plant.run()
    assert list(images["partition"]) == ["no_treatment", "doxo_paclitaxel"] and rejected.empty
    assert json.loads((plant.raw / "source.json").read_text())["synthetic"] is True
    cells = pd.read_parquet(plant.raw / "truth/cells.parquet")
    windows = pd.read_parquet(plant.raw / "truth/windows.parquet")
    assert list(cells.columns) == ["image_id", "y", "x", "radius", "state", "kind"]
    assert set(cells["image_id"]) <= set(images["image_id"])
    assert list(windows.columns) == ["image_id", "y", "x", "size", "verdict"] and len(windows) == 2


def test_unknown_simulated_partitions_stop(plant):
    plant.set("dataset", source="synthetic", partitions=["placebo"])
    with pytest.raises(
        SourceError, match=r"the simulator knows the partitions .* not \['placebo'\]"
    ):
        plant.run()


def test_a_relative_path_means_the_repository_in_a_temporary_copy_too(varied, tmp_path_factory):
    """DVC runs experiments in a copy of the tree that holds no images, and names the repository in
    DVC_ROOT.
    """
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(varied.root / "sources", copy / "sources")
    (copy / "params.yaml").write_text(yaml.safe_dump(varied.sections))
    command = [sys.executable, "-m", "src.stages", "acquire"]
    environment = os.environ | {"DVC_ROOT": str(varied.root)}
    done = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    varied.run()
    assert tree(copy / "data/raw") == tree(varied.raw)


@pytest.mark.real
@pytest.mark.skipif(
    "UNSTAINED_MCF7" not in os.environ,
    reason="UNSTAINED_MCF7 names no folder with the real MCF-7 fields",
)
def test_the_real_fields_are_all_accepted_and_none_looks_swapped(plant, capsys):
    folder = Path(os.environ["UNSTAINED_MCF7"])
    plant.set("dataset", path=str(folder), partitions=["mcf7"])
    plant.set("tile", window=224, stride=112)
    images, rejected = plant.run()
    manifest = pd.read_csv(folder / "images.csv", dtype=str)
    assert rejected.empty and len(images) == 75
    assert "swapped" not in capsys.readouterr().out
    for column in ("image_id", "experiment", "height", "width"):
        assert list(images[column]) == list(manifest[column])
    assert set(images["pixel_size_um"]) == {"0.3112"} and set(images["brightfield_bits"]) == {"16"}
    listed = (
        pd.read_csv(ROOT / "sources/mcf7.csv").set_index("image_id").loc[list(images["image_id"])]
    )
    for column in ("brightfield_sha256", "pi_sha256"):
        assert list(images[column]) == list(listed[column]), (
            "the list of the mcf7 source names the same pixels"
        )
    copied = tifffile.imread(plant.raw / images["pi"][5])
    assert np.array_equal(copied, tifffile.imread(folder / manifest["pi"][5]))


def test_a_field_too_small_for_its_copies_to_be_found_is_named():
    images = pd.DataFrame({"image_id": ["a", "b"], "height": [64, 90], "width": [64, 63]})
    require_sides(images[:1])
    with pytest.raises(UserError, match=r"field b has 90 x 63 px \(1 such\).*64 px a side"):
        require_sides(images)
