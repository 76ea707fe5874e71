"""The explain stage on a small made-up partition: files, numbers, refusals, and the same result
twice.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from src.common.explain import gradcam, notes
from src.common.explain.examples import by_contrast, outcomes, round_to_map
from src.common.explain.models import Models
from src.common.patches.sampling import draw
from src.common.patches.store import PatchStore
from src.common.scoring.networks.inference import predict
from src.common.scoring.networks.net import build
from src.common.workspace.errors import UserError
from src.common.workspace.sections import Explain
from src.stages import explain

SIDE, WINDOW, STRIDE = 448, 224, 112
ARCH = "squeezenet1_1"
FIGURES = {
    "embedding_truth.png",
    "embedding_call.png",
    "embedding_thumbnails.png",
    "gradcam.png",
    "errors.png",
}


def write_store(directory: Path, images: list[str]) -> pd.DataFrame:
    """Noise in bright-field; PI of 100 counts with a bright square in each image. Returns the table
    of windows.
    """
    directory.mkdir(parents=True)
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (len(images), SIDE, SIDE), np.uint8)
    pi = np.zeros((len(images), SIDE // 4, SIDE // 4), np.uint8)
    pi[:, 40:80, 30:70] = 255
    np.save(directory / "brightfield-000.npy", grey.ravel())
    np.save(directory / "pi-000.npy", pi.ravel())
    number = np.arange(len(images))
    frames = pd.DataFrame(
        {
            "image_id": images,
            "shard": 0,
            "offset": number * SIDE**2,
            "pi_offset": number * SIDE**2 // 16,
        }
    )
    frames = frames.assign(
        height=SIDE, width=SIDE, pi_background=100.0, pi_low=100.0, pi_high=610.0, partition="p"
    )
    frames.to_parquet(directory / "frames.parquet")
    rows = [
        {
            "patch_id": f"{i}:{y}:{x}:{WINDOW}",
            "image_id": i,
            "partition": "p",
            "y": y,
            "x": x,
            "size": WINDOW,
        }
        for i in images
        for y in range(0, SIDE - WINDOW + 1, STRIDE)
        for x in range(0, SIDE - WINDOW + 1, STRIDE)
    ]
    table = pd.DataFrame(rows).assign(contrast=random.random(len(rows)), border=0.0, mean_pi=200.0)
    table.to_parquet(directory / "patches.parquet")
    (directory.parent / "filtered").mkdir()
    verdicts = table[["patch_id", "partition"]].assign(
        verdict=np.where(table["contrast"] < 0.2, "empty", "cells")
    )
    verdicts.to_parquet(directory.parent / "filtered" / "verdicts.parquet")
    return table


def predictions_of(table: pd.DataFrame, rounds: dict[str, str]) -> pd.DataFrame:
    """Made-up predictions: windows dead and live in turn, every fifth one wrong, every seventh
    abstained on.
    """
    number = np.arange(len(table))
    live = number % 2 == 1
    said = live ^ (number % 5 == 0)
    calls = np.where(number % 7 == 0, "abstain", np.where(said, "live", "dead"))
    names = {
        "label": np.where(live, "live", "dead"),
        "call": calls,
        "probability": np.where(said, 0.9, 0.2) - number / 1e3,
    }
    images = table["image_id"]
    return table.assign(
        experiment="e", group=images, round=images.map(rounds), split="test", **names
    )


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A function that lays out a partition, for `holdout` or two folds, and returns its root."""

    def lay(rounds: dict[str, str], synthetic: bool = True) -> Path:
        table = write_store(tmp_path / "patches", list(rounds))
        (tmp_path / "reports" / "evaluate" / "p").mkdir(parents=True)
        (tmp_path / "metrics" / "evaluate").mkdir(parents=True)
        limits = {"temperature": 2.0, "threshold": 0.5, "live_from": 0.6, "dead_to": 0.4}
        points = [{"round": name} | limits for name in sorted(set(rounds.values()))]
        (tmp_path / "metrics" / "evaluate" / "p.json").write_text(json.dumps({"rounds": points}))
        predictions_of(table, rounds).to_parquet(
            tmp_path / "reports" / "evaluate" / "p" / "predictions.parquet"
        )
        for i, name in enumerate(sorted(set(rounds.values()))):
            place = tmp_path / "models" / "p" / ("" if name == "holdout" else name)
            place.mkdir(parents=True, exist_ok=True)
            torch.manual_seed(i)
            save_file(build(ARCH).state_dict(), place / "model.safetensors")
        card = {"arch": ARCH, "pooling": "last", "digest": "d", "synthetic": synthetic}
        (tmp_path / "models" / "p" / "model.json").write_text(json.dumps(card))
        return tmp_path

    for name in ("PATCHES", "FILTERED", "MODELS", "METRICS", "REPORTS"):
        monkeypatch.setattr(explain, name, tmp_path / name.lower())
    settings = Explain(patches=2, windows=2000, perplexity=5, neighbours=3, overlap=6, seed=1)
    monkeypatch.setattr(explain, "load", lambda name: settings)
    logged = []
    monkeypatch.setattr(explain.tracking, "log_explanation", lambda *given: logged.append(given))
    lay.logged = logged
    return lay


def called_rows() -> pd.DataFrame:
    """The test rows of the partition with their outcome."""
    saved = explain.REPORTS / "evaluate" / "p" / "predictions.parquet"
    return outcomes(pd.read_parquet(saved), explain.operating_points("p"))


def test_holdout(tree):
    root = tree(dict.fromkeys(("a", "b", "c"), "holdout"))
    record = explain.main("p")
    report = root / "reports" / "explain" / "p"
    assert {path.name for path in report.iterdir()} == FIGURES | {"explain.json"}
    assert json.loads((report / "explain.json").read_text()) == record
    assert tree.logged == [("p", record, report)]
    assert (
        record["windows"]["test"] == 27
        and record["embedding"]["windows"] == 27
        and record["synthetic"]
    )
    assert sum(record["windows"][name] for name in ("right", "wrong", "abstained")) == 27
    shown = pd.DataFrame(record["gradcam"]["raw_maximum"])
    empty = shown["outcome"] == "least contrast"
    assert empty.sum() == 2 and set(shown["block"]) == {"right", "wrong"}
    assert record["gradcam"]["scale"] == shown.loc[~empty, ["dead", "live"]].max(axis=None) > 0
    dead = record["agreement"]["dead_map"]
    assert record["agreement"]["drawn"] == 6 and dead["windows"] <= 6 and 0 < dead["area_share"] < 1
    assert (
        record["agreement"]["dead_windows"] == 14
        and "a sample of 6 of 14" in record["notes"]["agreement_windows"]
    )
    assert (
        record["sanity"]["head"]["pairs"] + record["sanity"]["head"]["undefined"]
        == 5 * record["sanity"]["windows"]
    )


def test_all_dead_windows_are_used_unless_there_are_more_than_stated(tree, monkeypatch):
    tree(dict.fromkeys(("a", "b"), "holdout"))
    settings = explain.load("explain").model_copy(update={"overlap": 400})
    monkeypatch.setattr(explain, "load", lambda name: settings)
    found = explain.main("p")
    used, left = (
        found["agreement"]["dead_map"]["windows"],
        found["agreement"]["bright_nowhere_or_everywhere"],
    )
    assert used + left == found["agreement"]["dead_windows"] == found["agreement"]["drawn"] > 6
    assert "all 9 truly dead" in found["notes"]["agreement_windows"]


def test_key_numbers_are_a_metric(tree):
    root = tree(dict.fromkeys(("a", "b", "c"), "holdout"))
    record = explain.main("p")
    found = json.loads((root / "metrics" / "explain" / "p.json").read_text())
    pointing, dead = found["dead_map"]["pointing"], record["agreement"]["dead_map"]
    assert (
        pointing["gain"] == dead["pointing"]["gain"]
        and found["dead_map"]["groups"] == dead["groups"] == 3
    )
    assert [pointing["gain_low"], pointing["gain_high"]] == (
        dead["pointing"]["gain_interval"] or [None, None]
    )
    assert (
        found["purity"]["value"]
        == record["embedding"]["purity"]["features"]["other_groups"]["purity"]
    )
    assert found["rank_correlation"]["random_head"] == record["sanity"]["head"]["mean_absolute"]


def test_empty_windows_are_scored(tree):
    tree({"a": "fold-0", "b": "fold-0", "c": "fold-1"})
    models, store, points = (
        Models(explain.MODELS / "p"),
        PatchStore(explain.PATCHES),
        explain.operating_points("p"),
    )
    verdicts = pd.read_parquet(explain.FILTERED / "verdicts.parquet")
    windows = by_contrast(store, called_rows(), verdicts)
    assert windows["contrast"].is_monotonic_increasing and set(windows["round"]) == {
        "fold-0",
        "fold-1",
    }
    scored = models.score(store, windows.head(7), points)
    assert scored["patch_id"].tolist() == windows["patch_id"].head(7).tolist()
    for row in scored.to_dict("records"):
        net = models.of("fold-1" if row["image_id"] == "c" else "fold-0")
        logits = predict(net, store, pd.DataFrame([row]), desc=None).astype(float)[0]
        live = 1 / (1 + np.exp(-(logits[1] - logits[0]) / 2))
        assert row["probability"] == pytest.approx(live, abs=1e-4)
        assert row["call"] == ("live" if live >= 0.6 else "dead" if live <= 0.4 else "abstain")
    record = explain.main("p")
    dropped = (windows["verdict"] == "empty").sum()
    assert record["empty_windows"]["dropped"] == record["empty_windows"]["scored"] == dropped > 0
    shown = pd.DataFrame(record["gradcam"]["raw_maximum"])
    emptiest = models.score(store, windows.drop_duplicates("image_id").head(2), points)
    nearly_empty = shown.loc[shown["outcome"] == "least contrast", "probability"]
    assert nearly_empty.tolist() == pytest.approx(emptiest["probability"].tolist(), abs=1e-6)
    assert "filter that keeps empty windows out" in record["notes"]["empty_windows"]


def test_both_kinds_of_wrong_calls_are_counted(tree):
    tree(dict.fromkeys(("a", "b"), "holdout"))
    rows = called_rows()
    live = rows["probability"] >= 0.5
    found = explain.main("p")["windows"]
    assert (
        found["wrong_at_threshold"]
        == (live != (rows["label"] == "live")).sum()
        > found["wrong"]
        > 0
    )


def test_twice_the_same(tree):
    root = tree(dict.fromkeys(("a", "b"), "holdout"))
    report = root / "reports" / "explain" / "p"
    found = []
    for _ in range(2):
        explain.main("p")
        found.append({path.name: path.read_bytes() for path in sorted(report.iterdir())})
    assert found[0] == found[1]


def test_folds_are_explained_by_the_model_that_did_not_see_them(tree):
    root = tree({"a": "fold-0", "b": "fold-0", "c": "fold-1"})
    models, store = Models(explain.MODELS / "p"), PatchStore(root / "patches")
    rows = called_rows()
    assert round_to_map(rows) == "fold-0"
    maps = models.maps(store, rows)["dead"]
    for name in ("fold-0", "fold-1"):
        own = rows[rows["round"] == name].reset_index(drop=True)
        signed = gradcam.window_evidence(models.of(name), store, own)
        expected = [gradcam.of_class(one, "dead") for one in signed]
        at = np.flatnonzero(rows["round"] == name)
        np.testing.assert_allclose([maps[i] for i in at], expected, rtol=1e-4, atol=1e-7)
    record = explain.main("p")
    assert record["embedding"]["round"] == "fold-0" and record["embedding"]["windows"] == 18


def test_errors_are_the_most_confident_wrong_calls(tree):
    tree(dict.fromkeys(("a", "b"), "holdout"))
    rows = called_rows()
    worst = explain.main("p")["errors"]
    confidences = [row["confidence"] for row in worst]
    assert confidences == sorted(confidences, reverse=True)
    assert all(row["call"] != row["label"] and row["call"] != "abstain" for row in worst)
    wrong = rows[rows["outcome"] == "wrong"]
    best = np.where(wrong["call"] == "live", wrong["probability"], 1 - wrong["probability"]).max()
    assert confidences[0] == pytest.approx(best)


def test_samples_do_not_overlap(tree):
    tree(dict.fromkeys(("a", "b"), "holdout"))
    drawn = draw(called_rows(), 8, seed=1)
    assert len(drawn) >= 4 and set(drawn["image_id"]) == {"a", "b"}
    for _, own in drawn.groupby("image_id"):
        places = own[["y", "x"]].to_numpy()
        apart = np.abs(places[:, None] - places[None]).max(-1)[~np.eye(len(own), dtype=bool)]
        assert (apart >= WINDOW).all()


def test_no_wrong_calls(tree):
    root = tree(dict.fromkeys(("a", "b"), "holdout"))
    path = root / "reports" / "evaluate" / "p" / "predictions.parquet"
    rows = pd.read_parquet(path)
    rows.assign(call=rows["label"].where(rows["call"] != "abstain", "abstain")).to_parquet(path)
    record = explain.main("p")
    assert record["errors"] == [] and record["windows"]["wrong"] == 0
    assert {row["block"] for row in record["gradcam"]["raw_maximum"]} == {"right", "abstained"}


def test_no_dead_windows(tree):
    root = tree(dict.fromkeys(("a", "b"), "holdout"))
    path = root / "reports" / "evaluate" / "p" / "predictions.parquet"
    pd.read_parquet(path).assign(label="live").to_parquet(path)
    record = explain.main("p")
    assert record["agreement"] == {"dead_windows": 0, "drawn": 0, "bright_nowhere_or_everywhere": 0}
    assert record["sanity"] is None and "dead_map" not in notes.key_numbers(record)


def test_missing_inputs_are_named(tree):
    root = tree(dict.fromkeys(("a", "b"), "holdout"))
    (root / "models" / "p" / "model.json").unlink()
    with pytest.raises(UserError, match=r"model\.json does not exist"):
        explain.main("p")


def test_metrics_of_another_evaluation_are_refused(tree):
    root = tree(dict.fromkeys(("a", "b"), "holdout"))
    path = root / "metrics" / "evaluate" / "p.json"
    path.write_text(path.read_text().replace("holdout", "fold-0"))
    with pytest.raises(
        UserError, match="predictions and metrics differ in holdout: repeat evaluate"
    ):
        explain.main("p")


def test_no_test_windows_are_refused(tree):
    root = tree(dict.fromkeys(("a", "b"), "holdout"))
    path = root / "reports" / "evaluate" / "p" / "predictions.parquet"
    pd.read_parquet(path).assign(split="valid").to_parquet(path)
    with pytest.raises(UserError, match="no test windows"):
        explain.main("p")
