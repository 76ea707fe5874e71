"""`unstained validate` on stained fields whose truth is known, scored by a stand-in for a registered model."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile

from src.assay import agreement, model, stained, validate
from src.common.mixture import MixtureError
from src.common.sources.folder import Layout
from src.common.sources.intake import pixel_digest

SIZE, SIDE = 64, 5  # px of a window, windows along a field's side
RULE = {"intensity": "counts", "log": False, "live_below": 260.0, "dead_above": 400.0}
URI = {"uri": "models:/unstained-p@champion", "name": "unstained-p", "version": "1", "alias": "champion"}
FACTS = ("synthetic", "arch", "partition", "scheme", "digest", "pixel_size_um")
CONTRACT = {
    "partition": "p", "synthetic": False, "arch": "resnet18", "scheme": "holdout", "digest": "0", "pixel_size_um": 0.5,
    "tile": {"window": SIZE, "stride": SIZE, "unit": "px", "edge": "anchor"}, "label": RULE, "training_images": [],
    "operating": {"temperature": 1.0, "threshold": 0.5, "live_from": 0.4, "dead_to": 0.6},
}  # fmt: skip


class Brightness:
    """A stand-in model: brighter windows are likelier live; `truth` of 0.9 is a good one, 0.5 knows nothing."""

    def predict(self, table: pd.DataFrame) -> pd.DataFrame:
        (row,) = table.to_dict("records")
        blocks = row["image"].reshape(SIDE, SIZE, SIDE, SIZE).mean(axis=(1, 3))
        p = np.clip(blocks / 40000, 0.001, 0.999).round(6)
        return pd.DataFrame([
            {"image_id": row["image_id"], "y": y * SIZE, "x": x * SIZE, "size": SIZE, "verdict": "cells",
             "live_probability": value, "call": "live" if value >= 0.6 else "dead" if value <= 0.4 else "abstain"}
            for (y, x), value in np.ndenumerate(p)
        ])  # fmt: skip


def write_fields(folder, fields: int = 14, signal: float = 8000, gain: float = 1.0, seed: int = 0):
    """Stained fields and their manifest: PI 220 counts where live, 560 where dead; bright-field follows by `signal`."""
    rng, rows = np.random.default_rng(seed), []
    folder.mkdir(exist_ok=True)
    for number in range(fields):
        live = rng.random((SIDE, SIDE)) < rng.uniform(0.2, 0.8)
        level = 20000 + signal * (live - 0.5) + rng.normal(0, 4000, live.shape)
        stain = gain * (np.where(live, 220, 560) + rng.normal(0, 10, live.shape))
        for name, blocks in (("bf", level), ("pi", stain)):
            image = np.kron(blocks, np.ones((SIZE, SIZE))) + rng.normal(0, 5, (SIDE * SIZE, SIDE * SIZE))
            tifffile.imwrite(folder / f"{name}{number}.tif", image.clip(1, 65535).astype(np.uint16))
        rows.append({"image_id": f"f{number}", "experiment": f"e{number % 2}", "well": f"A{number // 2 + 1}",
                     "brightfield": f"bf{number}.tif", "pi": f"pi{number}.tif", "pixel_size_um": 0.5})  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "images.csv", index=False)
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    """validate() of a folder with the stand-in model; keywords change the contract."""

    def go(images, reference: float | None = 0.9, own: bool = False, **contract):
        known = {name: value for name, value in (CONTRACT | contract).items() if value is not None}
        facts = {name: known[name] for name in FACTS} | URI | {"balanced_accuracy": 0.9}
        monkeypatch.setattr(validate, "load", lambda uri: (Brightness(), known, facts, reference))
        return validate.validate(images, URI["uri"], tmp_path / "out", Layout(["v"]), own)

    return go


def test_a_model_that_sees_what_the_stain_sees_agrees(run, tmp_path):
    record = run(write_fields(tmp_path / "in", signal=16000))
    assert record["images"] == {"counted": 14, "without PI": 0, "in training": 0, "refused": 0}
    assert record["overall"]["auc"]["value"] > 0.98 and record["verdict"]["outcome"] == "agrees"
    assert record["labels"]["discarded"] == 0 and record["data"]["n_groups"] == 14
    assert record["fractions"]["fields"]["units"] >= 10 and record["fractions"]["wells"]["units"] >= 10
    low, high = record["fractions"]["fields"]["bias_interval"]
    assert low < 0 < high
    out = tmp_path / "out"
    html = (out / "validation.html").read_text()
    assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]{0,20})', html))
    assert "agrees with the stain" in html and "SYNTHETIC" not in html
    patches = pd.read_parquet(out / "patches.parquet")
    assert len(patches) == 14 * SIDE * SIDE and set(patches["label"]) == {"live", "dead"}
    assert json.loads((out / "validation.json").read_text()) == record


def test_a_model_that_sees_nothing_is_worse(run, tmp_path):
    record = run(write_fields(tmp_path / "in", signal=0), synthetic=True)
    assert record["verdict"]["outcome"] == "worse" and abs(record["overall"]["auc"]["value"] - 0.5) < 0.12
    assert "SYNTHETIC" in (tmp_path / "out" / "validation.html").read_text()


def test_few_fields_or_no_reference_are_not_judged(run, tmp_path):
    few = run(write_fields(tmp_path / "in", fields=6, signal=16000))
    assert few["verdict"]["outcome"] == "not judged" and "6 fields" in few["verdict"]["text"]
    many = run(write_fields(tmp_path / "more", signal=16000), reference=None)
    assert many["verdict"]["outcome"] == "not judged" and "not known" in many["verdict"]["text"]


def test_training_images_are_not_counted(run, tmp_path):
    folder = write_fields(tmp_path / "in", signal=16000)
    digests = [pixel_digest(tifffile.imread(folder / f"bf{number}.tif")) for number in range(14)]
    record = run(folder, training_images=digests[:3])
    assert record["images"]["in training"] == 3 and record["images"]["counted"] == 11
    assert "not counted" in (tmp_path / "out" / "validation.html").read_text()
    with pytest.raises(stained.ValidationError, match=r"all 14 stained images .* training images"):
        run(folder, training_images=digests)


def test_a_package_that_does_not_name_its_training_images_is_not_judged(run, tmp_path):
    record = run(write_fields(tmp_path / "in", signal=16000), training_images=None)
    assert record["training_known"] is False and record["verdict"]["outcome"] == "not judged"
    assert "cannot be known" in (tmp_path / "out" / "validation.html").read_text()


def test_thresholds_that_do_not_fit_are_said_and_own_ones_help(run, tmp_path):
    folder = write_fields(tmp_path / "in", signal=16000, gain=1.5)  # live at 330 counts: none below 260
    with pytest.raises(stained.ValidationError, match=r"0 live .* --thresholds own"):
        run(folder)
    record = run(folder, own=True)
    assert record["thresholds"]["of"] == "these images" and 330 < record["thresholds"]["live_below"] < 450
    assert record["verdict"]["outcome"] == "agrees" and record["problem"] == ""


def test_own_thresholds_need_two_classes(run, tmp_path):
    folder = write_fields(tmp_path / "in", fields=3)
    for number in range(3):
        flat = np.random.default_rng(number).normal(300, 5, (SIDE * SIZE, SIDE * SIZE)).astype(np.uint16)
        tifffile.imwrite(folder / f"pi{number}.tif", flat)
    with pytest.raises(MixtureError, match="does not give two classes"):
        run(folder, own=True)


def test_images_without_pi_or_unreadable_ones_are_counted_and_the_rest_goes_on(run, tmp_path):
    folder = write_fields(tmp_path / "in", signal=16000)
    table = pd.read_csv(folder / "images.csv", dtype=str)
    table.loc[0, "pi"] = ""
    table.to_csv(folder / "images.csv", index=False)
    (folder / "pi1.tif").write_bytes(b"no image")
    record = run(folder)
    assert record["images"] == {"counted": 12, "without PI": 1, "in training": 0, "refused": 1}
    assert record["refused"][0]["image_id"] == "f1"


def test_a_folder_without_manifest_is_refused_with_what_to_do(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(stained.ValidationError, match=r"images\.csv with columns .* --pattern: .* holds no files"):
        run(tmp_path / "empty")
    with pytest.raises(stained.ValidationError, match="there is no folder"):
        run(tmp_path / "nowhere")


def test_agreement_of_known_fractions():
    table = pd.DataFrame({"model": [0.1, 0.3, 0.5, 0.7, 0.9], "stain": [0.0, 0.2, 0.4, 0.6, 0.8]})
    found = agreement.bland_altman(table)
    assert found["bias"] == pytest.approx(0.1) and found["limits"] == pytest.approx([0.1, 0.1])
    assert agreement.bland_altman(table[:3])["bias"] is None


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [([0.86, 0.9], "agrees"), ([0.7, 0.84], "worse"), ([0.8, 0.9], "undecided"), (None, "not judged")],
)
def test_the_verdict_follows_its_rule(interval, outcome):
    auc = {"value": 0.85, "group_interval": interval}
    record = {"overall": {"auc": auc}, "data": {"n_groups": 12}}
    assert agreement.verdict(record, 0.9, True, "")["outcome"] == outcome
    assert agreement.verdict(record, 0.9, True, "few dead")["outcome"] == "not judged"


def test_a_version_is_found_by_alias_or_number_and_other_uris_have_none():
    client = SimpleNamespace(
        get_model_version_by_alias=lambda name, alias: (name, alias), get_model_version=lambda name, v: (name, v)
    )
    assert model.registered(client, "models:/unstained-p@champion") == ("unstained-p", "champion")
    assert model.registered(client, "models:/unstained-p/3") == ("unstained-p", "3")
    assert model.registered(client, "runs:/abc/model") is None
