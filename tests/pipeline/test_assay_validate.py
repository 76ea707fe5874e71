"""`unstained validate` on stained fields whose truth is known, scored by a stand-in for a
registered model.
"""

import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
import tifffile

from src.assay import agreement, checks, differences, heldout, model, output, stained, validate
from src.common.images.entries import pixel_digest
from src.common.images.layout import Layout
from src.common.label.mixture import MixtureError
from tests.conftest import mlflow_at

SIZE, SIDE = 64, 5  # px of a window, windows along a field's side
RULE = {
    "intensity": "counts",
    "log": False,
    "live_below": 260.0,
    "dead_above": 400.0,
    "background": 5.0,
}
URI = {
    "uri": "models:/unstained-p@champion",
    "name": "unstained-p",
    "version": "1",
    "alias": "champion",
    "run_id": None,
}
FACTS = ("synthetic", "arch", "partition", "scheme", "digest", "pixel_size_um")
CONTRACT = {
    "partition": "p", "synthetic": False, "arch": "resnet18", "scheme": "holdout", "digest": "0",
    "pixel_size_um": 0.5, "tile": {"window": SIZE, "stride": SIZE, "unit": "px", "edge": "anchor"},
    "label": RULE, "training_images": [],
    "operating": {"temperature": 1.0, "threshold": 0.5, "live_from": 0.4, "dead_to": 0.6},
}  # fmt: skip


class Brightness:
    """A stand-in model: brighter windows are likelier live; `truth` of 0.9 is a good one, 0.5 knows
    nothing.
    """

    scorer = None  # nothing to compile

    def unwrap_python_model(self) -> "Brightness":
        return self

    def predict(self, table: pd.DataFrame) -> pd.DataFrame:
        (row,) = table.to_dict("records")
        blocks = row["image"].reshape(SIDE, SIZE, SIDE, SIZE).mean(axis=(1, 3))
        p = np.clip(blocks / 40000, 0.001, 0.999).round(6)
        return pd.DataFrame([
            {"image_id": "0", "y": y * SIZE, "x": x * SIZE, "size": SIZE, "verdict": "cells",
             "live_probability": value, "novelty": 0.5,
             "call": "live" if value >= 0.6 else "dead" if value <= 0.4 else "abstain"}
            for (y, x), value in np.ndenumerate(p)
        ])  # fmt: skip


def write_fields(
    folder,
    fields: int = 14,
    signal: float = 8000,
    gain: float = 1.0,
    seed: int = 0,
    experiments: int = 2,
):
    """Stained fields and their manifest: PI 220 counts where live, 560 where dead; bright-field
    follows by `signal`.
    """
    rng, rows = np.random.default_rng(seed), []
    folder.mkdir(exist_ok=True)
    for number in range(fields):
        live = rng.random((SIDE, SIDE)) < rng.uniform(0.2, 0.8)
        level = 20000 + signal * (live - 0.5) + rng.normal(0, 4000, live.shape)
        stain = gain * (np.where(live, 220, 560) + rng.normal(0, 10, live.shape))
        for name, blocks in (("bf", level), ("pi", stain)):
            image = np.kron(blocks, np.ones((SIZE, SIZE))) + rng.normal(
                0, 5, (SIDE * SIZE, SIDE * SIZE)
            )
            tifffile.imwrite(folder / f"{name}{number}.tif", image.clip(1, 65535).astype(np.uint16))
        rows.append({"image_id": f"f{number}", "experiment": f"e{number % experiments}",
                     "well": f"A{number // 2 + 1}", "brightfield": f"bf{number}.tif",
                     "pi": f"pi{number}.tif", "pixel_size_um": 0.5})  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "images.csv", index=False)
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    """validate() of a folder with the stand-in model; keywords change the contract. tested: its own
    test's patches.
    """

    def go(images, reference: float | None = 0.9, own: bool = False, tested=None, **contract):
        known = {name: value for name, value in (CONTRACT | contract).items() if value is not None}
        facts = {name: known[name] for name in FACTS} | URI
        facts |= {"balanced_accuracy": 0.9, "auc": reference, "heldout": None, "created": "now"}
        stand_in = model.Model(Brightness(), known, facts)
        monkeypatch.setattr(validate, "load", lambda uri, allow_synthetic: stand_in)
        monkeypatch.setattr(heldout, "patches", lambda run_id: tested)
        return validate.validate(
            images, URI["uri"], tmp_path / "out", stained.Options(Layout(["v"])), own
        )

    return go


def outcomes(record: dict) -> dict[str, str]:
    return {one["key"]: one["outcome"] for one in record["checks"]}


def test_a_model_that_sees_what_the_stain_sees_agrees(run, tmp_path):
    record = run(write_fields(tmp_path / "in", signal=16000))
    assert record["images"] == {"counted": 14, "without PI": 0, "in training": 0, "refused": 0}
    assert record["overall"]["auc"]["value"] > 0.98 and record["verdict"]["outcome"] == "agrees"
    assert record["labels"]["discarded"] == 0 and record["data"]["n_groups"] == 14
    assert (
        record["fractions"]["fields"]["units"] >= 10 and record["fractions"]["wells"]["units"] >= 10
    )
    low, high = record["fractions"]["fields"]["bias_interval"]
    assert low < 0 < high
    out = tmp_path / "out"
    html = (out / "validation.html").read_text()
    assert all(
        source.startswith("data:image/") for source in re.findall(r'src="([^"]{0,20})', html)
    )
    assert (
        "agrees with the stain" in html
        and "SYNTHETIC" not in html
        and "they say how it is on these plates" in html
    )
    assert set(outcomes(record).values()) == {"holds"} and record["data"]["resampled"] == "fields"
    assert record["verdict"]["settle"] == []
    patches = pd.read_parquet(out / "patches.parquet")
    assert len(patches) == 14 * SIDE * SIDE and set(patches["label"]) == {"live", "dead"}
    assert json.loads((out / "validation.json").read_text()) == record


def test_a_model_that_sees_nothing_does_not_agree(run, tmp_path):
    record = run(write_fields(tmp_path / "in", signal=0), synthetic=True)
    assert (
        record["verdict"]["outcome"] == "disagrees"
        and abs(record["overall"]["auc"]["value"] - 0.5) < 0.12
    )
    assert {outcomes(record)[key] for key in ("ranking", "sensitivity", "specificity")} == {"fails"}
    assert "SYNTHETIC" in (tmp_path / "out" / "validation.html").read_text()


def test_a_model_that_ranks_well_but_calls_nearly_all_live_does_not_agree(
    run, tmp_path, monkeypatch
):
    """The stand-in calls live from 0.4 up: dead patches lie between 0.2 and 0.4 and just above."""
    predict = Brightness.predict

    def generous(self, table):
        found = predict(self, table)
        return found.assign(call=np.where(found["live_probability"] >= 0.25, "live", "dead"))

    monkeypatch.setattr(Brightness, "predict", generous)
    record = run(write_fields(tmp_path / "in", signal=16000))
    assert record["verdict"]["outcome"] == "disagrees" and record["overall"]["auc"]["value"] > 0.98
    assert outcomes(record)["ranking"] == "holds" and outcomes(record)["specificity"] == "fails"
    said = r"ranks live above dead as well.*, but the calls do not hold here: specificity 0\.[0-4]"
    assert re.search(said, record["verdict"]["text"])


def test_few_fields_are_not_judged_and_a_ranking_without_reference_is_said(run, tmp_path):
    few = run(write_fields(tmp_path / "in", fields=6, signal=16000))
    assert (
        few["verdict"]["outcome"] == "not judged"
        and "6 fields are too few" in few["verdict"]["text"]
    )
    assert "column experiment" in few["verdict"]["settle"][0]
    many = run(write_fields(tmp_path / "more", signal=16000), reference=None)
    assert (
        outcomes(many)["ranking"] == "not judged"
        and "not in the MLflow store" in many["verdict"]["text"]
    )
    assert many["verdict"]["outcome"] == "agrees"  # by all that can be judged, which is said


def own_patches(experiments: int, spread: float, seed: int = 0) -> pd.DataFrame:
    """An own test as heldout.patches gives it: each experiment ranks with its own strength about
    2.5 sd.
    """
    rng, tables = np.random.default_rng(seed), []
    for number in range(experiments):
        live = np.arange(60) % 2 == 0
        score = live * (2.5 + rng.normal(0, spread)) + rng.normal(0, 1, 60)
        call = np.where(
            np.abs(score - 1.25) < 0.3, "abstain", np.where(score > 1.25, "live", "dead")
        )
        tables.append(
            pd.DataFrame({"live": live, "score": score, "call": call, "experiment": f"o{number}"})
        )
    table = pd.concat(tables, ignore_index=True)
    return table.assign(group=table["experiment"], field=table["experiment"])


def test_experiments_are_resampled_and_compared_within_on_both_sides(run, tmp_path):
    folder = write_fields(tmp_path / "in", signal=16000, experiments=7)
    record = run(folder, tested=own_patches(30, 0.1))
    ranking = record["checks"][0]
    assert record["data"]["resampled"] == "experiments" and record["data"]["n_groups"] == 7
    assert ranking["what"] == "AUC within experiments" and ranking["own_groups"] == 30
    assert ranking["value"] == pytest.approx(ranking["here"] - ranking["own"], abs=1e-5)
    assert ranking["interval"][0] < ranking["value"] < ranking["interval"][1]
    assert ranking["outcome"] == "holds" and record["own_calls"]["sensitivity"]["value"] > 0.85


def test_an_own_test_that_is_itself_uncertain_leaves_the_ranking_open(run, tmp_path):
    folder = write_fields(tmp_path / "in", signal=6500, experiments=7)
    record = run(folder, tested=own_patches(4, 3.0))
    assert outcomes(record)["ranking"] == "open"
    assert any("tested on more experiments" in wanted for wanted in record["verdict"]["settle"])
    assert any(
        "more fields of the same experiments would narrow" in wanted
        for wanted in record["verdict"]["settle"]
    )


def test_few_experiments_are_not_helped_by_fields_of_the_same(run, tmp_path):
    record = run(write_fields(tmp_path / "in", signal=16000, experiments=4))
    assert (
        record["verdict"]["outcome"] == "not judged"
        and "4 experiments are too few" in record["verdict"]["text"]
    )
    assert record["verdict"]["settle"][0].startswith("more experiments")


def test_a_batch_that_gives_the_class_away_does_not_help_within_experiments():
    """Pooled the AUC is high, as experiments differ in class and score; within, it is chance."""
    rng = np.random.default_rng(0)
    parts = []
    for number in range(8):
        live = rng.random(80) < (0.9 if number % 2 else 0.1)
        score = 3.0 * (number % 2) + rng.normal(0, 1, 80)
        parts.append(
            pd.DataFrame({"live": live, "score": score, "call": "live", "experiment": f"e{number}"})
        )
    here = pd.concat(parts, ignore_index=True)
    here = here.assign(field=here["experiment"], group=here["experiment"])
    found = agreement.ranking(here, own_patches(10, 0.1), 0.96)
    assert (
        found["here"] == pytest.approx(0.5, abs=0.08)
        and found["own"] > 0.9
        and found["interval"][1] < -0.2
    )
    pooled = agreement.ranking(here, None, 0.9)
    assert pooled["what"] == "AUC" and pooled["here"] > 0.85 and pooled["own_interval"] is None


def test_training_images_are_not_counted(run, tmp_path):
    folder = write_fields(tmp_path / "in", signal=16000)
    digests = [pixel_digest(tifffile.imread(folder / f"bf{number}.tif")) for number in range(14)]
    record = run(folder, training_images=digests[:3])
    assert record["images"]["in training"] == 3 and record["images"]["counted"] == 11
    assert "not counted" in (tmp_path / "out" / "validation.html").read_text()
    with pytest.raises(stained.ValidationError, match=r"all 14 stained images .* training images"):
        run(folder, training_images=digests)


def test_a_refusal_says_how_many_images_were_left_out_as_training_images(run, tmp_path):
    folder = write_fields(tmp_path / "in", signal=16000, gain=1.5)
    digests = [pixel_digest(tifffile.imread(folder / f"bf{number}.tif")) for number in range(14)]
    with pytest.raises(
        stained.ValidationError,
        match=r"^12 images trained this model and are left out; "
        r".*of 14 images 2 counted, 12 left out",
    ):
        run(folder, training_images=digests[:12])


def test_no_window_with_cells_asks_whether_the_channels_are_swapped(run, tmp_path, monkeypatch):
    predict = Brightness.predict
    empty = {"verdict": "empty", "live_probability": np.nan, "call": "none"}
    monkeypatch.setattr(
        Brightness, "predict", lambda self, table: predict(self, table).assign(**empty)
    )
    with pytest.raises(
        stained.ValidationError, match=r"no window holds cells \(75 empty.*are the channels swapped"
    ):
        run(write_fields(tmp_path / "in", fields=3))


def test_a_package_that_does_not_name_its_training_images_is_not_judged(run, tmp_path):
    record = run(write_fields(tmp_path / "in", signal=16000), training_images=None)
    assert record["training_known"] is False and record["verdict"]["outcome"] == "not judged"
    assert "cannot be known" in (tmp_path / "out" / "validation.html").read_text()


def test_thresholds_that_do_not_fit_are_said_and_own_ones_help(run, tmp_path):
    folder = write_fields(
        tmp_path / "in", signal=16000, gain=1.5
    )  # live at 330 counts: none below 260
    with pytest.raises(stained.ValidationError, match=r"0 live .* --thresholds own"):
        run(folder)
    record = run(folder, own=True)
    assert (
        record["thresholds"]["of"] == "these images"
        and 330 < record["thresholds"]["live_below"] < 450
    )
    assert record["verdict"]["outcome"] == "agrees" and record["problem"] == ""


def test_own_thresholds_need_two_classes(run, tmp_path):
    folder = write_fields(tmp_path / "in", fields=3)
    for number in range(3):
        flat = (
            np.random.default_rng(number)
            .normal(300, 5, (SIDE * SIZE, SIDE * SIZE))
            .astype(np.uint16)
        )
        tifffile.imwrite(folder / f"pi{number}.tif", flat)
    with pytest.raises(MixtureError, match="does not give two classes"):
        run(folder, own=True)


def test_images_without_pi_or_that_are_unreadable_or_there_twice_are_counted(run, tmp_path):
    folder = write_fields(tmp_path / "in", signal=16000)
    table = pd.read_csv(folder / "images.csv", dtype=str)
    table.loc[0, "pi"] = ""
    again = table.loc[[3]].assign(image_id="again")  # would count twice, in every interval
    pd.concat([table, again]).to_csv(folder / "images.csv", index=False)
    (folder / "pi1.tif").write_bytes(b"no image")
    record = run(folder)
    assert record["images"] == {"counted": 12, "without PI": 1, "in training": 0, "refused": 2}
    assert [one["image_id"] for one in record["refused"]] == ["f1", "again"]
    unread, same = (one["reason"] for one in record["refused"])
    assert "pi1.tif)" in unread and "same pixels: as image f3" in same


def test_a_folder_without_manifest_is_refused_with_what_to_do(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        stained.ValidationError, match=r"images\.csv with columns .* --pattern: .* holds no files"
    ):
        run(tmp_path / "empty")
    with pytest.raises(stained.ValidationError, match="there is no folder"):
        run(tmp_path / "nowhere")


def test_agreement_of_known_fractions():
    table = pd.DataFrame({"model": [0.1, 0.3, 0.5, 0.7, 0.9], "stain": [0.0, 0.2, 0.4, 0.6, 0.8]})
    found = differences.bland_altman(table)
    assert found["bias"] == pytest.approx(0.1) and found["limits"] == pytest.approx([0.1, 0.1])
    assert found["bias_interval"] == pytest.approx([0.1, 0.1]) and found["spread"] == pytest.approx(
        0.1
    )
    assert differences.bland_altman(table[:3])["bias"] is None


def test_the_calls_leave_out_the_abstained():
    label = np.array(["live"] * 10 + ["dead"] * 10)
    call = np.array(
        ["live"] * 6 + ["dead"] * 2 + ["abstain"] * 2 + ["dead"] * 4 + ["live"] + ["abstain"] * 5
    )
    test = pd.DataFrame({"live": label == "live", "call": call, "group": np.arange(20) % 5})
    found = agreement.calls(test)
    assert [
        found[key]["value"] for key in ("sensitivity", "specificity", "called")
    ] == pytest.approx([0.75, 0.8, 0.65])
    assert (found["sensitivity"]["n"], found["specificity"]["n"]) == (8, 5)


def test_calls_without_an_error_keep_an_interval_below_one():
    test = pd.DataFrame(
        {"live": [True, False] * 50, "call": ["live", "dead"] * 50, "group": np.arange(100) // 10}
    )
    found = agreement.calls(test)
    one = agreement.calls(
        test.assign(call=test["call"].mask(test.index == 30, "dead"))
    )  # one of 50 live ones wrong
    assert found["sensitivity"]["interval"][1] == 1.0
    assert (
        0.85
        < found["sensitivity"]["interval"][0]
        == pytest.approx(one["sensitivity"]["interval"][0], abs=0.03)
    )


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [([0.82, 0.9], "holds"), ([0.7, 0.79], "fails"), ([0.7, 0.9], "open"), (None, "not judged")],
)
def test_a_check_follows_its_interval(interval, outcome):
    found = checks.check(
        "sensitivity", {"value": 0.8, "interval": interval}, (0.8, np.inf), "at least 0.80", ""
    )
    assert found["outcome"] == outcome
    few = checks.check(
        "sensitivity",
        {"value": 0.8, "interval": interval},
        (0.8, np.inf),
        "",
        "4 fields are too few",
    )
    assert (few["outcome"], few["reason"]) == ("not judged", "4 fields are too few")


def test_out_belongs_to_one_command_and_is_found_unusable_before_anything_is_loaded(run, tmp_path):
    folder = write_fields(tmp_path / "in", fields=2, signal=16000)
    with output.claimed(tmp_path / "out", {"digest": "0", "created": "then"}, "score"):
        pass
    with pytest.raises(
        output.OutputError, match=r"the output of `unstained score`: give `validate` another --out"
    ):
        run(folder)
    (tmp_path / "file").write_text("a file")
    for wrong in ("file", "file/below"):
        with pytest.raises(output.OutputError, match="is a file: name a folder"):
            validate.validate(
                folder, "models:/none/1", tmp_path / wrong, stained.Options(Layout(["v"]))
            )


def test_a_folder_that_may_not_be_written_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(output.os, "access", lambda path, mode: False)
    with pytest.raises(output.OutputError, match=r"you may not write into .*: name a folder"):
        output.refuse([tmp_path / "in"], tmp_path / "out")
    with (
        pytest.raises(
            output.OutputError,
            match=r"cannot be written \(.*\): name a folder that you may write to",
        ),
        output.claimed(Path("/proc/unstained"), {"digest": "0"}, "score"),
    ):
        pass


def test_a_second_run_computes_nothing_twice(run, tmp_path, monkeypatch):
    folder = write_fields(tmp_path / "in", signal=16000)
    first = run(folder)
    monkeypatch.setattr(Brightness, "predict", lambda self, table: pytest.fail("scored again"))
    assert run(folder) == first


def test_a_manifest_of_another_name_and_a_pixel_size_from_the_command(run, tmp_path):
    folder = write_fields(tmp_path / "in", fields=4, signal=16000)
    table = pd.read_csv(folder / "images.csv").drop(columns="pixel_size_um")
    (folder / "images.csv").unlink()
    table.to_csv(tmp_path / "stained.csv", index=False)
    options = stained.Options(Layout(["v"]), tmp_path / "stained.csv", 0.5)
    entries, _ = stained.find(folder, options)
    sizes = []

    class Noting(model.Model):
        def predict(self, frame, pixel_size_um):
            sizes.append(pixel_size_um)
            return super().predict(frame, pixel_size_um)

    with output.claimed(tmp_path / "out", {"digest": "0"}, "validate"):
        found = stained.score(
            Noting(Brightness(), CONTRACT, {"digest": "0"}), entries, options, tmp_path / "out"
        )
    assert found.counts["counted"] == 4 and sizes == [0.5] * 4
    with pytest.raises(stained.ValidationError, match="give --manifest or --pattern"):
        stained.find(folder, stained.Options(Layout(["v"])))


@pytest.mark.parametrize("uri", ["models:/unstained-p@champion", "runs:/abc/model"])
def test_a_server_that_is_down_is_said_at_once(uri):
    with mlflow_at("http://127.0.0.1:59999"):
        start = time.monotonic()
        with pytest.raises(ValueError, match=r"59999 does not answer"):
            model.load(uri)
        assert time.monotonic() - start < 20


def test_the_own_test_is_read_from_the_run_that_trained_the_model(tmp_path):
    with mlflow_at(f"sqlite:///{tmp_path}/mlflow.db"):
        place = mlflow.create_experiment("e", artifact_location=(tmp_path / "artifacts").as_uri())
        rows = {
            "label": ["live", "dead", "live"],
            "probability": [0.9, 0.1, 0.5],
            "call": ["live", "dead", "abstain"],
        }
        table = pd.DataFrame(rows).assign(
            experiment="e1", group="g", split=["test", "test", "valid"]
        )
        table.to_parquet(tmp_path / "predictions.parquet")
        with mlflow.start_run(experiment_id=place) as active:
            mlflow.log_artifact(str(tmp_path / "predictions.parquet"), "evaluate")
            calls = {"error": 0.1, "abstention": 0.25, "error_among_called": 0.125}
            within = {"pair_weighted": {"value": 0.8}}
            record = {"data": {"n_patches": 8}, "conformal": calls, "within_experiment": within}
            mlflow.log_dict(record, "evaluate/record.json")
        found = heldout.patches(active.info.run_id)
        assert found["live"].tolist() == [True, False] and (np.diff(found["score"]) < 0).all()
        told = {"patches": 8, "error": 0.1, "called": 0.75, "wrong": 0.125, "auc_within": 0.8}
        assert heldout.summary(active.info.run_id) == told
        assert heldout.patches("0" * 32) is None and heldout.summary(None) is None


def test_a_version_is_found_by_alias_or_number_and_other_uris_have_none():
    client = SimpleNamespace(
        get_model_version_by_alias=lambda name, alias: (name, alias),
        get_model_version=lambda name, v: (name, v),
        search_model_versions=lambda _: [SimpleNamespace(version=v) for v in ("9", "10", "2")],
    )
    assert model.registered(client, "models:/unstained-p@champion") == ("unstained-p", "champion")
    assert model.registered(client, "models:/unstained-p/3") == ("unstained-p", "3")
    assert model.registered(client, "models:/unstained-p/latest").version == "10"
    assert model.registered(client, "runs:/abc/model") is None


class Seeing:
    """A stand-in scorer that predicts the stain: 1 where bright-field is bright, 2.5 where not."""

    def stain(self, frame: np.ndarray, pixel_size_um: float) -> np.ndarray:
        return np.stack([np.where(frame > 20000, 1.0, 2.5)] * 2)

    def probability_of(self, pi: np.ndarray) -> np.ndarray:
        return np.where(np.asarray(pi) < 1.75, 0.9, 0.1)


def test_nuclei_of_masks_are_set_against_their_own_pi(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Brightness, "scorer", Seeing())
    folder = write_fields(tmp_path / "in", signal=16000)
    middle = np.zeros((SIZE, SIZE), int)
    middle[20:44, 20:44] = 1
    tifffile.imwrite(folder / "mask.tif", np.kron(np.arange(1, 26).reshape(SIDE, SIDE), middle))
    table = pd.read_csv(folder / "images.csv").assign(nuclei="")
    table.loc[0, "nuclei"] = "mask.tif"
    table.to_csv(folder / "images.csv", index=False)
    record = run(folder, target="stain")["nuclei"]
    assert record["n_live"] + record["n_dead"] == 25 and record["n_open"] == 0
    assert record["overall"]["auc"]["value"] > 0.9
    assert record["conformal"]["abstention"] == 0
    nuclei = pd.read_csv(tmp_path / "out" / "nuclei.csv")
    wrong = (nuclei["label"] != nuclei["call"]).mean()
    assert (
        record["conformal"]["error_among_called"] == pytest.approx(wrong, abs=1e-4) and wrong < 0.2
    )
    assert nuclei["nucleus"].tolist() == list(range(1, 26)) and set(nuclei["image_id"]) == {"f0"}
    page = (tmp_path / "out" / "validation.html").read_text()
    assert "Nucleus by nucleus" in page and f"{record['n_dead']} dead" in page
    run(folder, target="label")
    assert not (tmp_path / "out" / "nuclei.csv").exists()
    assert "Nucleus by nucleus" not in (tmp_path / "out" / "validation.html").read_text()


def test_a_mask_of_another_size_refuses_its_stained_image(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Brightness, "scorer", Seeing())
    folder = write_fields(tmp_path / "in", signal=16000)
    tifffile.imwrite(folder / "mask.tif", np.ones((9, 9), np.uint16))
    table = pd.read_csv(folder / "images.csv").assign(nuclei="")
    table.loc[3, "nuclei"] = "mask.tif"
    table.to_csv(folder / "images.csv", index=False)
    record = run(folder, target="stain")
    assert record["images"]["refused"] == 1 and "nuclei mask" in record["refused"][0]["reason"]
    assert record["nuclei"] is None
