"""Nuclei of masks: measured as they were drawn, judged by their own PI, called by PI, size and
shape under what other groups taught.
"""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
from sklearn.metrics import roc_auc_score

from src.common.evaluate import nuclei
from src.common.images.nuclei import nuclei_of
from src.common.metrics.confounding import within_experiments
from src.common.patches.rounds import Round
from src.common.scoring.networks.stain import stain_logits
from src.common.scoring.nuclei import SHAPE, nucleus_logits
from src.common.scoring.scorer import Scorer
from src.common.workspace.sections import Evaluate

SETTINGS = Evaluate(confidence=0.95, bootstrap=200, abstain_error=0.2, band="group", seed=0)


def drawn(*ellipses: tuple, side: int = 200) -> np.ndarray:
    """An instance mask of ellipses (label, (x, y), (half width, half height))."""
    mask = np.zeros((side, side), np.uint16)
    for label, centre, half in ellipses:
        cv2.ellipse(mask, centre, half, 0, 0, 360, label, -1)
    return mask


def test_a_nucleus_has_the_place_size_and_shape_that_it_was_drawn_with():
    mask = drawn((7, (50, 60), (30, 30)), (3, (140, 100), (40, 20)))
    table = nuclei_of(mask, mask.astype(float), 0.5).set_index("label")
    assert sorted(table.index) == [3, 7]
    np.testing.assert_allclose(table.loc[7, ["y", "x"]].to_numpy(float), [60, 50], atol=0.05)
    np.testing.assert_allclose(table.loc[7, "area_um2"], np.pi * 30**2 / 4, rtol=0.05)
    np.testing.assert_allclose(table.loc[3, "eccentricity"], np.sqrt(1 - 0.25), atol=0.02)
    assert table.loc[7, "eccentricity"] < 0.1
    assert table.loc[7, "form_factor"] > table.loc[3, "form_factor"] + 0.1
    np.testing.assert_allclose(table["mean"], table.index)
    assert nuclei_of(mask, mask, None)["area_um2"].isna().all()


def test_size_and_shape_do_not_depend_on_the_pixel_size():
    fine, coarse = drawn((1, (100, 100), (60, 40))), drawn((1, (50, 50), (30, 20)), side=100)
    a, b = (nuclei_of(m, m, s)[SHAPE].iloc[0] for m, s in ((fine, 0.5), (coarse, 1.0)))
    np.testing.assert_allclose(a.to_numpy(float), b.to_numpy(float), rtol=0.06)


def test_numbers_of_any_size_take_no_memory():
    mask = drawn((1, (50, 60), (30, 30)), (2, (140, 100), (40, 20))).astype(np.int32)
    high = np.where(mask > 0, 2**31 - 3 + mask, 0)
    table = nuclei_of(high, mask, 0.5)
    assert table["label"].tolist() == [2**31 - 2, 2**31 - 1]
    columns = table.columns.drop("label")
    pd.testing.assert_frame_equal(table[columns], nuclei_of(mask, mask, 0.5)[columns])
    assert nuclei.own_class(high, np.full(mask.shape, 100), 100.0).tolist() == ["live", "live"]


def test_a_nucleus_of_one_pixel_is_measured():
    mask = np.zeros((9, 9), np.uint16)
    mask[4, 4] = 1
    assert np.isfinite(nuclei_of(mask, mask, 1.0).to_numpy(float)).all()


def test_own_class_is_that_of_most_of_a_nucleus():
    mask = np.repeat(np.arange(6, dtype=np.uint16), 100).reshape(6, 100)
    pi = np.full(mask.shape, 100, np.uint16)
    pi[1] = 170  # glows throughout
    pi[2, :80], pi[3, :40] = 300, 900  # an immune cell over a part of 3
    pi[4] = 140  # neither
    pi[5, 0] = 0  # a pixel without a count
    told = nuclei.own_class(mask, pi, background=100.0)
    assert told.to_dict() == {1: "dead", 2: "dead", 3: "live", 4: "open", 5: "unknown"}


def planted(sessions: int = 6, each: int = 60, seed: int = 0) -> pd.DataFrame:
    """Nuclei whose evidence is shifted by session and weak, and whose dead are small and round."""
    rng = np.random.default_rng(seed)
    group = np.repeat([f"s{i}" for i in range(sessions)], each)
    live = rng.random(len(group)) < np.repeat(np.linspace(0.4, 0.9, sessions), each)
    shifts = np.repeat(rng.normal(0, 1, sessions), each)
    return pd.DataFrame({
        "image_id": group, "partition": "p", "experiment": group, "group": group,
        "round": np.repeat([f"fold-{i % 3}" for i in range(sessions)], each), "split": "test",
        "nucleus": np.arange(len(group)), "y": 0.0, "x": 0.0,
        "area_um2": np.exp(rng.normal(np.where(live, 5.0, 4.5), 0.3)),
        "eccentricity": rng.normal(np.where(live, 0.7, 0.55), 0.1).clip(0, 0.99),
        "form_factor": rng.normal(np.where(live, 0.85, 0.9), 0.03), "predicted_pi": 1.2,
        "label": np.where(live, "live", "dead"), "live": live,
        "logit": rng.normal(0.8 * live, 1) + shifts,
    })  # fmt: skip


def test_size_and_shape_add_to_predicted_pi_on_groups_that_taught_nothing():
    record, tested = nuclei.nuclei_record(planted(), SETTINGS, "kfold", 0.0)
    assert list(tested) == nuclei.NUCLEI_COLUMNS and len(tested) == 360
    alone, both = record["predicted_pi_alone"], record["overall"]
    assert both["auc"]["value"] > alone["auc"] + 0.1
    inside = record["within_experiment"]["mean"]["value"]
    assert inside > alone["within_experiment"]["mean"]["value"] + 0.1
    live = (tested["label"] == "live").to_numpy()
    own = within_experiments(live, tested["probability"].to_numpy(), tested["group"].to_numpy())
    assert own["mean"] == pytest.approx(inside, abs=1e-3)  # recomputed from what is saved
    assert both["auc"]["value"] == pytest.approx(
        roc_auc_score(live, tested["probability"]), abs=1e-3
    )
    weights = record["model"]["weights"]
    assert weights[0] > 0 and weights[1] > 0 and weights[2] > 0 and weights[3] < 0


def test_specks_teach_nothing_and_are_not_called():
    table = planted()
    specks = table[::60].assign(area_um2=3.0, label="live", live=True)
    record, _ = nuclei.nuclei_record(table, SETTINGS, "kfold", 0.0)
    both = pd.concat([table, specks], ignore_index=True)
    among, tested = nuclei.nuclei_record(both, SETTINGS, "kfold", 0.0)
    least = 0.2 * both.groupby("group")["area_um2"].median().min()
    assert among["model"]["speck_um2"] == pytest.approx(least, abs=0.01)
    assert among["model"]["weights"] == record["model"]["weights"]
    assert (tested.loc[tested["area_um2"] == 3.0, "call"] == "abstain").all()
    assert among["conformal"]["n_called"] == record["conformal"]["n_called"]


def test_a_groups_own_labels_do_not_change_how_it_is_called():
    table = planted()
    _, before = nuclei.nuclei_record(table, SETTINGS, "kfold", 0.0)
    own = (table["round"] == "fold-1").to_numpy()
    turned = table.assign(live=table["live"] ^ own)
    turned["label"] = np.where(turned["live"], "live", "dead")
    _, after = nuclei.nuclei_record(turned, SETTINGS, "kfold", 0.0)
    same = before["round"] == "fold-1"
    assert same.sum() == 120
    np.testing.assert_array_equal(before["probability"][same], after["probability"][same])
    assert (before["probability"][~same] != after["probability"][~same]).mean() > 0.9


@pytest.mark.parametrize(
    "few",
    [
        lambda t: t[t["live"]],  # one class
        lambda t: t[t["live"] | (t["group"] == "s0")],  # dead ones of one group
        lambda t: pd.concat([t[t["live"]], t[~t["live"]].groupby("group").head(1)]),  # 6 dead ones
    ],
)
def test_too_few_nuclei_teach_nothing_and_are_counted(few):
    table = few(planted()).reset_index(drop=True)
    assert nuclei.fit_nuclei(table, SETTINGS, 0.0) is None
    record, tested = nuclei.nuclei_record(table, SETTINGS, "kfold", 0.0)
    assert record["model"] is None and record["n_live"] == table["live"].sum()
    assert "overall" not in record and len(tested) == 0


def test_a_holdout_tests_by_what_its_validation_taught_and_registers_that():
    table = planted().assign(round="holdout")
    table["split"] = np.where(table["group"].isin(["s0", "s1"]), "test", "valid")
    record, tested = nuclei.nuclei_record(table, SETTINGS, "holdout", 0.3)
    assert set(tested["group"]) == {"s0", "s1"} and record["n_groups"] == 2
    wanted = nuclei.fit_nuclei(table[table["split"] == "valid"], SETTINGS, 0.3)
    assert wanted["shift"] == 0.3 and wanted.items() <= record["model"].items()
    wrong = (tested["call"] != "abstain") & (tested["call"] != tested["label"])
    called = (tested["call"] != "abstain").sum()
    assert (record["model"]["of"], record["model"]["wrong"]) == (called, wrong.sum() / called)


def test_a_sessions_own_shift_moves_nuclei_as_it_moves_windows():
    at = nuclei.fit_nuclei(planted(), SETTINGS, 1.0)
    pi, shape = np.array([1.1, 2.0]), np.array([[150.0, 0.7, 0.85], [80, 0.5, 0.92]])
    contract = {"nuclei": at, "operating": {"shift": 1.0}}
    before = Scorer(contract, None, None).nuclei_probability(pi, shape)
    np.testing.assert_allclose(
        before, 1 / (1 + np.exp(-nucleus_logits(stain_logits(pi - 1), shape, at, 1.0))), atol=1e-6
    )
    moved = contract | {"operating": {"shift": 0.5}}
    after = Scorer(moved, None, None).nuclei_probability(pi, shape)
    by = np.log(after / (1 - after)) - np.log(before / (1 - before))
    np.testing.assert_allclose(by, 0.5 * at["weights"][0], atol=1e-3)


def test_nuclei_are_scored_by_the_round_that_tests_their_image(tmp_path: Path, monkeypatch):
    masks, frame = {}, np.zeros((200, 200), np.uint8)
    for number, name in enumerate("abc"):
        mask = drawn((1, (50, 50), (20, 20)), (2, (150, 150), (30, 25)), (9, (50, 150), (12, 12)))
        pi = np.where(mask == 1, 400, np.where(mask == 9, 150, 100)).astype(np.uint16)
        pi[mask == 2] = 0 if name == "c" else 100
        files = tmp_path / f"{name}-mask.tif", tmp_path / f"{name}-pi.tif"
        tifffile.imwrite(files[0], mask)
        tifffile.imwrite(files[1], pi)
        masks |= {name: files} if number else {}
    monkeypatch.setattr(nuclei, "load_model", lambda folder, card: folder.name)
    excess = {"fold-0": 0.5, "fold-1": 1.5}
    monkeypatch.setattr(
        nuclei, "predict_stain", lambda net, image: np.full((2, 200, 200), excess[net])
    )
    frames = pd.DataFrame({"pixel_size_um": 0.3, "pi_background": 100.0}, index=list("abc"))
    store = SimpleNamespace(frames=frames, brightfield=lambda image_id: frame)
    splits = pd.DataFrame({"image_id": list("aabbcc"), "partition": "p"})
    splits = splits.assign(experiment=splits["image_id"], group=splits["image_id"])
    test = splits["image_id"].isin(["a", "b"]).to_numpy()
    parts = [Round("fold-0", ~test, ~test, test), Round("fold-1", test, test, ~test)]
    table = nuclei.score_nuclei(splits, parts, tmp_path, {}, store, masks)
    assert table["image_id"].tolist() == ["b"] * 3 + ["c"] * 2  # a has no mask, c's 2 no counts
    assert table["label"].tolist() == ["dead", "live", "open", "dead", "open"]
    assert table["round"].tolist() == ["fold-0"] * 3 + ["fold-1"] * 2
    np.testing.assert_allclose(table["predicted_pi"], [1.5] * 3 + [2.5] * 2)
    np.testing.assert_allclose(table["logit"], stain_logits(table["predicted_pi"] - 1), atol=1e-6)
    record, saved = nuclei.nuclei_record(
        nuclei.score_nuclei(splits, parts, tmp_path, {}, store, {}), SETTINGS, "kfold", 0.0
    )
    assert record is None and list(saved) == nuclei.NUCLEI_COLUMNS and saved.empty
