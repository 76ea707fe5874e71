"""`unstained score` with a small real package: refusals, flags, counts that add up, resume, what
the user is told.
"""

import json
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from safetensors.torch import save_file

from src.assay import fractions, output, overlay, page, score
from src.assay.model import Model, ModelError, load
from src.assay.report import TRAINED_ON
from src.common.images.entries import pixel_digest
from src.common.images.layout import Layout
from src.common.register import packaging
from src.common.scoring.emptiness import EmptyFilter
from src.common.scoring.networks.backbones import facts
from src.common.scoring.networks.net import build, library_model
from src.common.scoring.novelty import Novelty
from tests.conftest import ARCH, REPO, mlflow_at
from tests.kill import on_a_disk

CONTRACT = {
    "partition": "p", "target": "label", "arch": ARCH, "pooling": "last", "synthetic": False,
    "source": "folder", "scheme": "holdout", "pixel_size_um": 0.5,
    "bits": [16], "tile": {"window": 64, "stride": 32, "unit": "px", "edge": "anchor"},
    "scaling": {"method": "percentile", "low": 0.5, "high": 99.5}, "least_sharpness": 0.0,
    "unlike_share": 0.25,
    "intensity": {"low": [900.0, 1100.0], "high": [3800.0, 4100.0], "tolerance": 0.5},
    "novelty": {"neighbour": 1},
    "operating": {"temperature": 0.05, "threshold": 0.5, "live_from": 0.5, "dead_to": 0.49},
    "digest": "d" * 64,
}  # fmt: skip
RULES = {
    "method": "rules",
    "arch": ARCH,
    "limits": {"detail": 12.0, "sharpness": 0.01, "border": 0.01},
}


def save_model(folder: Path, digest: str, limit: float = 2.0, net=None, **changes) -> str:
    """A package as `register` makes it, with random weights or those of `net`, as a folder MLflow
    loads; `limit` of its novelty.
    """
    scorer = folder / "files" / "scorer"
    for name in ("net", "filter"):
        (scorer / name).mkdir(parents=True)
    torch.manual_seed(0)
    state = (net or build(ARCH)).state_dict()
    state = {name: value.contiguous() for name, value in state.items()}
    save_file(state, scorer / "net" / "model.safetensors")
    save_file(library_model(facts(ARCH)).state_dict(), scorer / "filter" / "model.safetensors")
    EmptyFilter(RULES).save(scorer / "filter")
    if limit:
        Novelty(np.eye(4, facts(ARCH).feature_dim, dtype=np.float32), limit, 1).save(scorer)
    contract = {key: value for key, value in (CONTRACT | changes).items() if value is not None}
    (scorer / "contract.json").write_text(json.dumps(contract))
    code = packaging.add_code(folder / "files")
    sys.path.insert(0, str(folder / "files"))
    try:
        mlflow.pyfunc.save_model(
            str(folder / "model"), python_model=str(folder / "files" / "model.py"),
            code_paths=[str(code)], artifacts={"scorer": str(scorer)},
            signature=packaging.SIGNATURE, metadata={"digest": digest}, pip_requirements=["numpy"],
        )  # fmt: skip
    finally:
        sys.path.remove(str(folder / "files"))
    return str(folder / "model")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_model(tmp_path_factory.mktemp("package"), "a" * 64)


def frame(seed: int, low: int = 1000, high: int = 4000) -> np.ndarray:
    """Grain on the left, faint noise on the right: cells and nothing, to the rules."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(low, high, (120, 160))
    counts[:, 90:] = (low + high) // 2 + rng.integers(0, max(2, (high - low) // 60), (120, 70))
    return counts.astype(np.uint16)


def write_plate(root: Path) -> Path:
    """Four good images in two wells, and one each that is dark, 8-bit, of another pixel size, a
    copy, or missing.
    """
    root.mkdir()
    pixels = {f"good{n}": frame(n) for n in range(4)}
    pixels |= {"dark": frame(5, 100, 400), "wide": frame(6), "copy": pixels["good0"]}
    pixels["eight"] = (frame(7) // 16).astype(np.uint8)
    for name, image in pixels.items():
        tifffile.imwrite(root / f"{name}.tif", image)
    rows = [
        {"image_id": name, "brightfield": f"{name}.tif", "well": "B02" if name < "good2" else "b3",
         "control": "", "pixel_size_um": 0.8 if name == "wide" else 0.5}
        for name in [*pixels, "missing"]
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(root / "images.csv", index=False)
    return root


@pytest.fixture
def plate(tmp_path) -> Path:
    return write_plate(tmp_path / "plate")


def run(inputs: Path, model: str, out: Path, **options) -> pd.DataFrame:
    return score.score([inputs], model, out, score.Options(Layout(()), **options))


def contents(out: Path) -> dict[str, bytes]:
    """Every file that a user reads, but for the time of the run."""
    names = [
        p
        for p in out.rglob("*")
        if p.is_file() and p.name not in ("model.json", "plate.json", "summary.html")
    ]
    return {str(path.relative_to(out)): path.read_bytes() for path in names}


@pytest.fixture(scope="module")
def scored(tmp_path_factory, model) -> dict:
    """One plate scored without interruption: its folder, what came out, and the table of images by
    id.
    """
    root = tmp_path_factory.mktemp("scored")
    folder = write_plate(root / "plate")
    return {
        "folder": folder,
        "out": root / "out",
        "table": run(folder, model, root / "out").set_index("image_id"),
    }


def test_every_image_is_a_row_with_its_status_and_reason(scored):
    table = scored["table"]
    assert table["status"].to_dict() == {
        "good0": "scored", "good1": "scored", "good2": "scored", "good3": "scored",
        "dark": "flagged", "wide": "refused", "copy": "refused", "eight": "flagged",
        "missing": "refused",
    }  # fmt: skip
    said = {
        "dark": "intensity: darkest counts", "eight": "bit depth: 8-bit counts, trained on 16 bit",
        "wide": "contract: the frame has 0.8 um per pixel", "copy": "same pixels: as image good0",
        "missing": "missing file",
    }  # fmt: skip
    for name, words in said.items():
        assert table.loc[name, "reason"].startswith(words), table.loc[name, "reason"]
    assert (table.loc[["good0", "good1"], "reason"] == "").all()
    assert table["well"].to_dict()["good0"] == "B2"


def test_counts_add_up_and_agree_with_the_patches(scored):
    table = scored["table"].query("status != 'refused'")
    assert list(table.reset_index().columns) == score.IMAGE_COLUMNS
    assert (table["windows"] == table["cells"] + table["empty"] + table["unusable"]).all()
    assert (table["cells"] == table["live"] + table["dead"] + table["abstain"]).all()
    assert (table["cells"] > 0).all() and (table["empty"] > 0).all()
    patches = pd.read_parquet(scored["out"] / "patches.parquet")
    assert list(patches) == score.PATCH_COLUMNS
    assert patches.groupby("image_id").size().to_dict() == table["windows"].to_dict()
    cells = patches["verdict"] == "cells"
    assert patches.loc[cells, ["live_probability", "novelty"]].notna().all(axis=None)
    assert patches.loc[~cells, ["live_probability", "novelty"]].isna().all(axis=None)
    live = patches.groupby("image_id")["call"].agg(lambda call: (call == "live").sum())
    assert live.to_dict() == table["live"].to_dict()
    weighted = patches.assign(weight=1.0)
    for name, part in patches.groupby("image_id"):
        weighted.loc[patches["image_id"] == name, "weight"] = fractions.weights(part, 32)
    sums = weighted.pivot_table("weight", "image_id", "call", "sum", fill_value=0.0)
    sums = sums.reindex(columns=["live", "dead"], fill_value=0.0)  # one may never be called
    called = sums.sum(axis=1)
    np.testing.assert_allclose(table["called"], called[table.index], atol=1e-6)
    np.testing.assert_allclose(
        table["live_patch_fraction"], (sums["live"] / called)[table.index], atol=1e-6
    )


def test_tables_are_written_twice_and_flagged_images_stay_out_of_the_wells(scored):
    out = scored["out"]
    for name in ("patches", "images", "wells"):
        as_csv, as_parquet = (
            pd.read_csv(out / f"{name}.csv"),
            pd.read_parquet(out / f"{name}.parquet"),
        )
        assert list(as_csv) == list(as_parquet) and len(as_csv) == len(as_parquet)
    assert pd.read_parquet(out / "wells.parquet")["fields"].sum() == 4
    assert (out / "summary.html").stat().st_size > 1000
    facts = json.loads((out / "model.json").read_text())
    assert (facts["digest"], facts["synthetic"], facts["novelty"]) == ("a" * 64, False, True)
    pictures = sorted(path.stem for path in (out / "overlays").iterdir())
    assert pictures == ["dark", "eight", "good0", "good1", "good2", "good3"]


def test_a_run_cut_off_goes_on_where_it_was_and_ends_the_same(scored, model, tmp_path, monkeypatch):
    computed, predict = [], Model.predict

    def once(self, *arguments):
        computed.append(1)
        if len(computed) == 3:
            raise KeyboardInterrupt
        return predict(self, *arguments)

    monkeypatch.setattr(Model, "predict", once)
    with pytest.raises(KeyboardInterrupt):
        run(scored["folder"], model, tmp_path / "out")
    assert not (tmp_path / "out" / "images.csv").exists()
    run(scored["folder"], model, tmp_path / "out")
    assert len(computed) == 3 + 4  # two were done, the third was cut off, four were left with it
    assert contents(tmp_path / "out") == contents(scored["out"])
    run(scored["folder"], model, tmp_path / "out")
    assert len(computed) == 7  # nothing is computed twice
    assert contents(tmp_path / "out") == contents(scored["out"])


# (where a run dies, at which call): the first part, the third image, the page, between two tables
KILLS = [
    ("pandas:DataFrame.to_parquet", 1),
    ("src.assay.model:Model.predict", 3),
    ("src.assay.report:make", 1),
    ("pathlib:Path.replace", 22),
]
KILLED = f"""
import sys
from pathlib import Path
from tests.kill import killed
from tests.pipeline.test_assay_score import run

plate, model, outs = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
for number, (place, count) in enumerate({KILLS}):
    killed(lambda: run(plate, model, outs / str(number)), place, count)
"""


@pytest.mark.slow  # three minutes on a busy machine
def test_a_killed_run_goes_on_and_ends_the_same(scored, model, tmp_path):
    command = [sys.executable, "-c", KILLED, scored["folder"], model, tmp_path]
    subprocess.run(command, cwd=REPO, check=True)
    moved = {path.suffix for path in (tmp_path / "3").iterdir()}
    assert ".csv" in moved and (tmp_path / "3" / output.NEW).exists()  # it died between the two
    for number in range(len(KILLS)):
        out = tmp_path / str(number)
        assert not (out / "summary.html").exists()  # the page is put there last
        run(scored["folder"], model, out)
        assert (out / "summary.html").exists() and contents(out) == contents(scored["out"])


ALONE = """
import sys
sys.modules["src"] = None  # whoever imports this project's code fails
import mlflow, pandas as pd, tifffile

uri, folder, out, *names = sys.argv[1:]
model = mlflow.pyfunc.load_model(uri)
images = [tifffile.imread(f"{folder}/{name}.tif") for name in names]
frames = pd.DataFrame({"image_id": names, "image": images, "pixel_size_um": 0.5})
model.predict(frames).to_parquet(out)
"""


def test_arrays_give_the_same_with_the_registered_model_alone(scored, model, tmp_path):
    patches = pd.read_parquet(scored["out"] / "patches.parquet")
    names = patches["image_id"].unique().tolist()
    command = [sys.executable, "-c", ALONE, model, scored["folder"], tmp_path / "windows", *names]
    subprocess.run(command, cwd=tmp_path, check=True)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "windows"), patches)


def test_an_image_that_changed_is_scored_anew(plate, model, tmp_path):
    before = run(plate, model, tmp_path / "out", overlays=False).set_index("image_id")
    tifffile.imwrite(plate / "good1.tif", frame(1)[:, ::-1][:, :100].copy())
    after = run(plate, model, tmp_path / "out", overlays=False).set_index("image_id")
    assert after.loc["good1", "windows"] < before.loc["good1", "windows"]
    pd.testing.assert_series_equal(after.loc["good2"], before.loc["good2"])
    assert not (tmp_path / "out" / "overlays").exists()


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_an_image_that_goes_or_changes_after_the_first_look_is_refused_alone(
    plate, model, tmp_path, monkeypatch, change
):
    look = score.check

    def meanwhile(*arguments):
        checked = look(*arguments)
        if change == "gone":
            (plate / "good1.tif").unlink()
        else:
            tifffile.imwrite(plate / "good1.tif", frame(9))
        return checked

    monkeypatch.setattr(score, "check", meanwhile)
    table = run(plate, model, tmp_path / "out", overlays=False).set_index("image_id")
    why = {"gone": "missing file", "changed": "changed: the pixels are not those of"}[change]
    assert table.loc["good1", "status"] == "refused"
    assert table.loc["good1", "reason"].startswith(why), table.loc["good1", "reason"]
    assert (table.loc[["good0", "good2", "good3"], "status"] == "scored").all()


def test_an_image_that_goes_before_it_is_drawn_lacks_its_picture_alone(
    plate, model, tmp_path, monkeypatch, capsys
):
    draw = score.draw

    def meanwhile(*arguments):
        (plate / "good1.tif").unlink()
        tifffile.imwrite(plate / "good2.tif", frame(9))
        draw(*arguments)

    monkeypatch.setattr(score, "draw", meanwhile)
    table = run(plate, model, tmp_path / "out").set_index("image_id")
    assert (table.loc[["good0", "good1", "good2", "good3"], "status"] == "scored").all()
    drawn = {path.stem for path in (tmp_path / "out" / "overlays").iterdir()}
    assert {"good0", "good3"} <= drawn and not drawn & {"good1", "good2"}
    said = capsys.readouterr().out
    assert "no overlay of good1: missing file" in said and "no overlay of good2: changed" in said
    assert (tmp_path / "out" / "summary.html").exists()


def test_damaged_files_of_an_earlier_run_are_made_anew_or_named(scored, model, tmp_path):
    """As a power failure leaves them, which the disk had not yet been told of."""
    out = tmp_path / "out"
    run(scored["folder"], model, out)
    for number, path in enumerate(sorted((out / "parts").glob("*.parquet"))):
        path.write_bytes(path.read_bytes()[: 100 * (number % 2)])
    run(scored["folder"], model, out)
    assert contents(out) == contents(scored["out"])
    for text in ("", '{"digest"'):
        (out / output.MODEL).write_text(text)
        with pytest.raises(output.OutputError, match=r"model.json is damaged: remove "):
            run(scored["folder"], model, out)


def test_another_model_does_not_write_into_the_same_folder(scored, tmp_path):
    other = save_model(tmp_path, "b" * 64)
    with pytest.raises(output.OutputError, match=r"output of another model.*give another --out"):
        run(scored["folder"], other, scored["out"])
    assert json.loads((scored["out"] / "model.json").read_text())["digest"] == "a" * 64


def test_a_model_of_synthetic_images_is_refused_unless_allowed(plate, tmp_path):
    synthetic = save_model(tmp_path, "c" * 64, synthetic=True)
    with pytest.raises(ModelError, match="SYNTHETIC images"):
        run(plate, synthetic, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert load(synthetic, allow_synthetic=True).facts["synthetic"] is True


def test_images_unlike_the_training_data_are_flagged(plate, tmp_path):
    strict = save_model(tmp_path, "e" * 64, limit=1e-3)
    table = run(plate, strict, tmp_path / "out", overlays=False).set_index("image_id")
    good = table.loc["good0"]
    assert (good["status"], good["unlike"]) == ("flagged", good["cells"])
    assert (
        good["reason"]
        == f"unlike the training data: {good['cells']} of {good['cells']} windows with cells"
    )


def test_training_images_are_scored_but_named(plate, tmp_path):
    images = [frame(0), (frame(7) // 16).astype(np.uint16)]
    knowing = save_model(
        tmp_path, "d" * 64, training_images=[pixel_digest(image) for image in images]
    )
    table = run(plate, knowing, tmp_path / "out", overlays=False).set_index("image_id")
    assert table.loc["good0", ["status", "reason"]].tolist() == ["scored", TRAINED_ON]
    assert TRAINED_ON in table.loc["eight", "reason"] and table.loc["good1", "reason"] == ""
    assert "2 of the images trained this model" in (tmp_path / "out" / "summary.html").read_text()


def test_a_package_without_novelty_says_so_and_scores(plate, tmp_path, capsys):
    older = {
        name: None for name in ("novelty", "intensity", "unlike_share", "least_sharpness", "bits")
    }
    table = run(
        plate, save_model(tmp_path, "f" * 64, limit=0, **older), tmp_path / "out"
    ).set_index("image_id")
    assert "NOT flagged" in capsys.readouterr().out
    assert table.loc["dark", "status"] == "scored"
    assert table["unlike"].isna().all()


def test_if_every_image_is_refused_that_is_an_error_with_the_reasons(plate, model, tmp_path):
    with pytest.raises(score.ScoreError, match="every image is refused") as error:
        score.score(
            [plate / "good0.tif", plate / "gone.tif"][:1],
            model,
            tmp_path / "out",
            score.Options(Layout(())),
        )
    assert "1 x contract: pixel_size_um is not given" in str(error.value)
    assert pd.read_csv(tmp_path / "out" / "images.csv")["status"].tolist() == ["refused"]
    done = score.score(
        [plate / "good0.tif"],
        model,
        tmp_path / "out",
        score.Options(Layout(()), pixel_size_um=0.5, overlays=False),
    )
    assert done["status"].tolist() == ["scored"]


def test_the_output_never_lies_among_the_images_nor_over_other_files(plate, model, tmp_path):
    for out in (plate, plate / "scores"):
        with pytest.raises(output.OutputError, match="lies in the folder of images"):
            run(plate, model, out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    with pytest.raises(output.OutputError, match="is not empty"):
        run(plate, model, tmp_path / "full")


def test_an_output_on_a_read_only_disk_is_one_line_that_says_so(plate, model, tmp_path):
    def refused():
        with pytest.raises(output.OutputError, match=r"out.*(may not write|Read-only)"):
            run(plate, model, tmp_path / "disk" / "out")

    assert on_a_disk(tmp_path / "disk", refused, "1m", writable=False) == 0


def test_a_model_that_is_not_there_is_said_in_one_line(tmp_path):
    lacking = r"models:/unstained-x@champion cannot be loaded.*no registered model"
    with mlflow_at(f"sqlite:///{tmp_path}/mlflow.db"), pytest.raises(ModelError, match=lacking):
        load("models:/unstained-x@champion")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(str(tmp_path))


def test_a_store_whose_client_fails_in_its_own_way_is_one_line(monkeypatch):
    class Credentials(Exception):  # botocore's, say: no MLflow error, no OSError, no text
        pass

    def fails(uri):
        raise Credentials

    monkeypatch.setattr(mlflow.pyfunc, "load_model", fails)
    with pytest.raises(ModelError, match=r"s3://bucket/model cannot be loaded: Credentials\. Give"):
        load("s3://bucket/model")


def test_a_part_of_the_overlay_is_the_mean_of_the_windows_over_it():
    windows = pd.DataFrame({"y": [0, 0, 0], "x": [0, 2, 4], "size": 4})
    means, rows, columns = overlay.parts(windows, (5, 9), np.array([1.0, 0.0, np.nan]))
    assert (rows.tolist(), columns.tolist()) == ([0, 4, 5], [0, 2, 4, 6, 8, 9])
    np.testing.assert_array_equal(means, [[1.0, 0.5, 0.0, np.nan, np.nan], [np.nan] * 5])


def test_a_second_run_into_the_same_folder_is_refused_while_the_first_goes_on(
    plate, model, tmp_path, monkeypatch
):
    out, predict = tmp_path / "out", Model.predict

    def meanwhile(self, *arguments):
        with pytest.raises(output.OutputError, match="another run is writing into"):
            run(plate, model, out)
        return predict(self, *arguments)

    monkeypatch.setattr(Model, "predict", meanwhile)
    run(plate, model, out, overlays=False)
    assert (out / "summary.html").is_file() and not (out / output.NEW).exists()


def test_if_the_report_fails_tables_and_page_stay_those_of_the_earlier_run(
    plate, model, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    run(plate, model, out, overlays=False)
    before = {
        path.name: path.read_bytes() for path in out.iterdir() if path.suffix in (".csv", ".html")
    }
    (plate / "good1.tif").unlink()
    monkeypatch.setattr(page, "summary", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(plate, model, out, overlays=False)
    assert {
        p.name: p.read_bytes() for p in out.iterdir() if p.suffix in (".csv", ".html")
    } == before
