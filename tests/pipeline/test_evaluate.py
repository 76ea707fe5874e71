"""The evaluate stage on planted scores: numbers recomputed from what it saves, pooling, refusals,
same bytes twice.
"""

import json
import shutil
import zlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
from sklearn import metrics as sk

from src.common.evaluate import nuclei, rounds, transfer
from src.common.patches.frozen import save_features
from src.common.workspace.errors import UserError
from src.common.workspace.sections import Dataset, Evaluate
from src.stages import evaluate
from tests.conftest import write_store
from tests.kill import killed

SIDE, WINDOW, ARCH = 192, 64, "timm:test_efficientnet"
PARTITIONS = ["p", "q"]
FIGURES = {"roc", "precision_recall", "confusion", "reliability", "pi_vs_score", "scores", "slices"}


def grid(partition: str, images: int) -> pd.DataFrame:
    """Nine windows of each image, alternately dead and live, PI on the right side of the thresholds
    250 and 400.
    """
    names = np.repeat([f"{partition}{i}" for i in range(images)], 9)
    y, x = (np.tile(v.ravel() * WINDOW, images) for v in np.indices((3, 3)))
    live = np.arange(len(names)) % 2 == 1
    table = pd.DataFrame(
        {"image_id": names, "partition": partition, "y": y, "x": x, "size": WINDOW}
    )
    table["patch_id"] = [f"{i}:{a}:{b}:{WINDOW}" for i, a, b in zip(names, y, x, strict=True)]
    table["experiment"] = [f"e{int(name[1:]) // 2}" for name in names]
    pi = np.where(live, 200.0, 500.0) + np.arange(len(names)) % 40
    return table.assign(group=names, label=np.where(live, "live", "dead"), mean_pi=pi, intensity=pi)


def noise(patch_id: str) -> float:
    """A patch's own number, of mean 0 and sd about 1.2."""
    return (zlib.crc32(patch_id.encode()) % 10000 / 10000 - 0.5) * 4


def planted(table: pd.DataFrame, shift: float = 0.0) -> np.ndarray:
    """Logits (n, 2) that tell live from dead by 1.5, but for the patch's own noise."""
    logit = np.where(table["label"] == "live", 1.5, 0.0) + table["patch_id"].map(noise) + shift
    return np.column_stack([-logit / 2, logit / 2]).astype(np.float32)


class Planted:
    """Stands for networks and features: what a model says depends on where it was loaded from."""

    def load_model(self, directory: Path, description: dict) -> str:
        assert (description["arch"], description["pooling"]) == (ARCH, "last")
        return directory.name

    def live_logits(self, net: str, store, table: pd.DataFrame, desc: str) -> np.ndarray:
        logits = planted(table, shift=int(net[-1]) / 2 if net.startswith("fold") else 0.0)
        return logits[:, 1].astype(float) - logits[:, 0]

    def embed(self, net, store, table: pd.DataFrame, **_) -> np.ndarray:
        logit = planted(table)[:, 1]
        return np.column_stack([logit, logit**2, np.ones(len(table))])

    def build(self, arch: str, weights: Path) -> str:
        assert weights.parts[-2:] == ("model", "model.safetensors")
        return arch

    def save_features(self, folder: Path, table: pd.DataFrame, sees: str) -> None:
        """The same features, as the filter keeps them."""
        made = {"sha256": "weights", "sees": sees}
        every = np.ones(len(table), bool)
        save_features(folder, table["patch_id"], self.embed("", None, table), every, made)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A function that lays out two partitions with planted models, runs the stage for p and returns
    its record.
    """
    frames = np.random.default_rng(0).integers(0, 256, (2 * 12, SIDE, SIDE), np.uint8)
    names = [f"{partition}{i}" for partition in PARTITIONS for i in range(12)]
    columns = {"partition": np.repeat(PARTITIONS, 12), "day": np.tile([3.0, 4.0, np.nan], 8)}
    write_store(tmp_path / "patches", dict(zip(names, frames, strict=True)), **columns)
    for name in ("RAW", "PATCHES", "FEATURES", "SPLITS", "LABELS", "MODELS", "METRICS", "REPORTS"):
        monkeypatch.setattr(evaluate, name, tmp_path / name.lower())
        (tmp_path / name.lower()).mkdir(exist_ok=True)
    fake = Planted()
    for module in (rounds, transfer):
        monkeypatch.setattr(module, "load_model", fake.load_model)
        monkeypatch.setattr(module, "live_logits", fake.live_logits)
    monkeypatch.setattr(evaluate, "embed", fake.embed)
    monkeypatch.setattr(evaluate, "build", fake.build)
    monkeypatch.setattr(evaluate.tracking, "log_evaluation", lambda *arguments: None)
    settings = Evaluate(confidence=0.95, bootstrap=200, abstain_error=0.2, band="patch", seed=1)
    dataset = Dataset(source="synthetic", path="", partitions=PARTITIONS)
    monkeypatch.setattr(evaluate, "load", lambda *names: (dataset, settings))

    draw = evaluate.figures.draw_all

    def run(
        scheme: str = "holdout",
        change=lambda splits: splits,
        partition: str = "p",
        figures: bool = False,
        sees: str = "frame",
        target: str = "label",
    ) -> dict:
        monkeypatch.setattr(
            evaluate.figures, "draw_all", draw if figures else lambda *arguments: None
        )
        splits = pd.concat([grid(name, 12) for name in PARTITIONS], ignore_index=True)
        image = splits["image_id"].str[1:].astype(int)
        split = (
            np.select([image < 4, image < 8], ["train", "valid"], "test")
            if scheme == "holdout"
            else ""
        )
        splits = change(splits.assign(split=split, fold=image % 4 if scheme == "kfold" else -1))
        splits.to_parquet(tmp_path / "splits" / "splits.parquet")
        fake.save_features(tmp_path / "features", splits, sees)
        (tmp_path / "models" / "weights" / "model").mkdir(parents=True, exist_ok=True)
        (tmp_path / "models" / "weights" / "model" / "source.json").write_text(
            json.dumps({"sha256": "weights"})
        )
        (tmp_path / "splits" / "split.json").write_text(json.dumps({"scheme": scheme, "folds": 4}))
        limits = {"intensity": "counts", "live_below": 250.0, "dead_above": 400.0}
        (tmp_path / "labels" / "thresholds.json").write_text(json.dumps(limits))
        (tmp_path / "models" / "p").mkdir(parents=True, exist_ok=True)
        card = {
            "arch": ARCH,
            "digest": "d",
            "weights": {"weights": "random"},
            "synthetic": True,
            "pooling": "last",
            "target": target,
            "params": {"lr": 1e-3},
        }
        (tmp_path / "models" / "p" / "model.json").write_text(json.dumps(card))
        return evaluate.main(partition)

    run.root = tmp_path
    return run


def plant_masks(root: Path, monkeypatch) -> None:
    """Masks of nine nuclei for all images of p but the last, small where their own PI is high."""
    rows, rng = [], np.random.default_rng(1)
    for image in range(12):
        mask, pi = np.zeros((SIDE, SIDE), np.uint16), np.full((SIDE, SIDE), 100, np.uint16)
        for number in range(9):
            dead = (image + number) % 3 == 0
            y, x = (WINDOW // 2 + WINDOW * v for v in divmod(number, 3))
            radius = int(rng.integers(8, 14) if dead else rng.integers(12, 20))
            disk = cv2.circle(np.zeros(mask.shape, np.uint8), (x, y), radius, 1, -1) > 0
            mask[disk], pi[disk] = number + 1, 300 if dead else 100
        files = {"pi": f"{image}-pi.tif", "nuclei": f"{image}-nuclei.tif" if image < 11 else ""}
        tifffile.imwrite(root / "raw" / files["pi"], pi)
        tifffile.imwrite(root / "raw" / f"{image}-nuclei.tif", mask)
        rows.append({"image_id": f"p{image}", "partition": "p", "pixel_size_um": 0.5} | files)
    pd.DataFrame(rows).to_csv(root / "raw" / "images.csv", index=False)
    maps = np.zeros((2, SIDE, SIDE)) + np.linspace(0.1, 0.5, SIDE)
    monkeypatch.setattr(nuclei, "load_model", Planted().load_model)
    monkeypatch.setattr(nuclei, "predict_stain", lambda net, frame: maps)


@pytest.mark.parametrize("scheme", ["holdout", "kfold"])
def test_nuclei_of_masks_are_called_and_what_was_learnt_of_them_is_kept(tree, monkeypatch, scheme):
    plant_masks(tree.root, monkeypatch)
    frames = pd.read_parquet(tree.root / "patches" / "frames.parquet")
    frames.assign(pixel_size_um=0.5, pi_background=100.0).to_parquet(
        tree.root / "patches" / "frames.parquet"
    )
    record = strict_of(tree, scheme=scheme, target="stain")["nuclei"]
    images = {"holdout": 3, "kfold": 11}[scheme]  # the last has no mask
    assert record["n_images"] == images and record["n_live"] + record["n_dead"] == 9 * images
    assert record["overall"]["auc"]["value"] > 0.8 > record["predicted_pi_alone"]["auc"]
    assert len(record["model"]["weights"]) == 4 and record["model"]["weights"][1] > 0
    table = pd.read_parquet(tree.root / "reports" / "evaluate" / "p" / "nuclei.parquet")
    assert list(table) == nuclei.NUCLEI_COLUMNS and len(table) == 9 * images
    assert sk.roc_auc_score(table["label"] == "live", table["probability"]) == pytest.approx(
        record["overall"]["auc"]["value"], abs=1e-3
    )


def test_without_masks_the_record_says_nothing_of_nuclei(tree):
    (tree.root / "raw" / "images.csv").write_text(
        "image_id,partition,pi,nuclei,pixel_size_um\np0,p,a.tif,,0.5\n"
    )
    assert "nuclei" not in tree(target="stain")
    assert pd.read_parquet(tree.root / "reports" / "evaluate" / "p" / "nuclei.parquet").empty


def strict_of(tree, **options) -> dict:
    """The record as it was written."""
    tree(**options)
    return strict(tree.root / "metrics" / "evaluate" / "p.json")


def saved(root: Path) -> pd.DataFrame:
    return pd.read_parquet(root / "reports" / "evaluate" / "p" / "predictions.parquet")


def strict(path: Path) -> dict:
    """A JSON file in which NaN and Infinity are errors."""

    def refuse(constant: str):
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_metrics_follow_from_the_saved_predictions(tree):
    record = tree()
    predictions = saved(tree.root)
    test = predictions[predictions["split"] == "test"]
    live, called = test["label"] == "live", test["probability"] >= record["threshold"]["value"]
    found = {name: entry["value"] for name, entry in record["overall"].items()}
    assert found["auc"] == pytest.approx(sk.roc_auc_score(live, test["probability"]), abs=1e-6)
    assert found["average_precision"] == pytest.approx(
        sk.average_precision_score(live, test["probability"]), abs=1e-6
    )
    assert found["balanced_accuracy"] == pytest.approx(
        sk.balanced_accuracy_score(live, called), abs=1e-6
    )
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(live, called), abs=1e-6)
    assert record["confusion"]["dead_as_live"] == int((~live & called).sum())
    accuracy = found["balanced_accuracy"]
    half = 1.959964 * np.sqrt(accuracy * (1 - accuracy) / len(test))
    assert record["overall"]["balanced_accuracy"]["patch_interval"] == pytest.approx(
        [accuracy - half, accuracy + half], abs=2e-6
    )
    assert record["data"]["n_groups"] == 4 and any(
        "4 groups are few" in note for note in record["notes"]
    )
    at_half = sk.balanced_accuracy_score(live, test["probability"] >= 0.5)
    assert record["threshold"]["at_half"]["balanced_accuracy"] == pytest.approx(at_half, abs=1e-6)


def test_threshold_and_temperature_are_chosen_on_validation_alone(tree):
    first = tree()
    valid = saved(tree.root).query("split == 'valid'")
    live = valid["label"] == "live"
    best = max(
        sk.balanced_accuracy_score(live, valid["probability"] >= cut)
        for cut in valid["probability"]
    )
    assert sk.balanced_accuracy_score(
        live, valid["probability"] >= first["threshold"]["value"]
    ) == pytest.approx(best)

    def other_test(splits: pd.DataFrame) -> pd.DataFrame:
        flip = (splits["split"] == "test") & (splits["x"] == 0)
        return splits.assign(
            label=splits["label"].mask(flip, splits["label"].map({"live": "dead", "dead": "live"}))
        )

    second = tree(change=other_test)
    assert second["rounds"] == first["rounds"] and second["overall"] != first["overall"]


def test_predictions_are_as_promised_and_calls_follow_the_band(tree):
    record = tree()
    predictions = saved(tree.root)
    assert list(predictions.columns) == evaluate.PREDICTIONS
    assert set(predictions["split"]) == {"valid", "test"} and set(predictions["round"]) == {
        "holdout"
    }
    shrunk = 1 / (1 + np.exp(-predictions["logit"] / record["calibration"]["temperature"]))
    assert np.allclose(predictions["probability"], shrunk, atol=1e-6)
    live = predictions["probability"] >= record["conformal"]["live_from"]
    dead = predictions["probability"] <= record["conformal"]["dead_to"]
    expected = np.select([live & ~dead, dead & ~live], ["live", "dead"], "abstain")
    forced = predictions["probability"] >= record["threshold"]["value"]
    assert (predictions["called"] == forced).all()
    assert (predictions["call"] == expected).all() and {"live", "dead"} <= set(expected)
    test = predictions[predictions["split"] == "test"]
    wrong = (test["call"] != "abstain") & (test["call"] != test["label"])
    assert record["conformal"]["error_among_called"] == pytest.approx(
        wrong.sum() / (test["call"] != "abstain").sum(), abs=1e-6
    )
    assert record["conformal"]["abstention"] == pytest.approx(
        (test["call"] == "abstain").mean(), abs=1e-6
    )


def test_tables_for_dvc_plots_and_figures(tree, monkeypatch):
    from matplotlib.figure import Figure

    titles = []
    original = Figure.savefig
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda self, *a, **k: (titles.append(self.axes[0].get_title()), original(self, *a, **k)),
    )
    record = tree(figures=True)
    report = tree.root / "reports" / "evaluate" / "p"
    tables = {path.stem: pd.read_csv(path) for path in report.glob("*.csv")}
    assert list(tables["roc"].columns) == ["fpr", "tpr", "threshold"]
    assert sk.auc(tables["roc"]["fpr"], tables["roc"]["tpr"]) == pytest.approx(
        record["overall"]["auc"]["value"], abs=1e-5
    )
    assert list(tables["pr"].columns) == ["recall", "precision", "threshold"]
    assert (
        list(tables["confusion"].columns) == ["actual", "predicted"]
        and len(tables["confusion"]) == 36
    )
    assert set(tables["reliability"]["calibrated"]) == {"before", "after"}
    assert {
        path.stem for path in (evaluate.REPORTS / "evaluate" / "p" / "figures").glob("*.png")
    } == FIGURES
    assert titles == ["p (synthetic data)"] * len(FIGURES)


def test_the_probe_reads_what_the_filter_has_seen_by_the_same_weights(tree, monkeypatch):
    computed = tree()["baselines"]["linear_probe"]
    monkeypatch.setattr(evaluate, "embed", None)
    assert tree(sees="windows")["baselines"]["linear_probe"] == computed


def test_baselines_slices_and_other_partitions_stand_in_the_record(tree):
    record = tree()
    assert set(record["baselines"]) == {
        "experiment_only", "acquisition", "texture_linear", "linear_probe",
    }  # fmt: skip
    # as many windows of every frame live: what all windows of a frame share tells nothing
    assert record["baselines"]["acquisition"]["auc"]["value"] == pytest.approx(0.5)
    probe = record["baselines"]["linear_probe"]["auc"]["value"]
    # the probe's features are the model's own logit: nothing to tell them apart
    assert probe == pytest.approx(record["overall"]["auc"]["value"], abs=0.02)
    assert record["baselines"]["linear_probe"]["model_minus_auc"]["group_interval"][0] <= 0
    assert 0.2 < record["baselines"]["texture_linear"]["auc"]["value"] < 0.8  # the pixels are noise
    crossed = record["cross_partition"]["q"]
    assert crossed["n_patches"] == 36 and 0.6 < crossed["overall"]["auc"]["value"] < 1
    for name in (
        "partition",
        "experiment",
        "day",
        "position in the frame",
        "distance of PI from threshold",
    ):
        rows = [row for row in record["slices"] if row["slice"] == name]
        assert rows and (name == "day" or sum(row["n"] for row in rows) == 36), name
    assert [row["value"] for row in record["slices"] if row["slice"] == "day"] == ["3", "4"]
    strict(tree.root / "metrics" / "evaluate" / "p.json")


def test_folds_are_pooled_out_of_fold(tree):
    record = tree("kfold")
    predictions = saved(tree.root)
    test = predictions[predictions["split"] == "test"]
    assert test["patch_id"].is_unique and len(test) == 12 * 9
    assert set(test["round"]) == {"fold-0", "fold-1", "fold-2", "fold-3"}
    for row in test.itertuples():  # each fold's own model scored it
        assert int(row.image_id[1:]) % 4 == int(row.round[-1])
        assert row.logit == pytest.approx(
            float(np.diff(planted(pd.DataFrame([row._asdict()]), int(row.round[-1]) / 2))[0, 0]),
            abs=1e-5,
        )
    assert record["overall"]["auc"]["value"] == pytest.approx(
        sk.roc_auc_score(test["label"] == "live", test["probability"]), abs=1e-6
    )
    assert [point["round"] for point in record["rounds"]] == [
        "fold-0",
        "fold-1",
        "fold-2",
        "fold-3",
    ]
    assert record["data"]["n_groups"] == 12
    assert (
        record["cross_partition"]["q"]["n_patches"] == 12 * 9
    )  # by the final model, none of whose patches they are


def test_groups_of_training_are_left_out_of_other_partitions(tree):
    """As happens with split.group_by [experiment] where an experiment holds images of both
    partitions.
    """

    def share(splits: pd.DataFrame) -> pd.DataFrame:
        seen = splits["image_id"].isin(
            ["p1", "q9", "q10"]
        )  # p1 trains p's model; the others are test images of q
        return splits.assign(group=splits["group"].where(~seen, "shared"))

    crossed = tree(change=share)["cross_partition"]["q"]
    assert (crossed["groups_left_out"], crossed["n_patches"], crossed["n_images"]) == (1, 18, 2)
    everything = tree(change=lambda splits: splits.assign(group="one"))["cross_partition"]["q"]
    assert everything == {"groups_left_out": 1, "overall": None}


def one_class_fold(splits: pd.DataFrame) -> pd.DataFrame:
    return splits[(splits["fold"] != 2) | (splits["label"] == "dead")].reset_index(drop=True)


def test_a_fold_of_one_class_is_pooled_never_averaged(tree):
    record = tree("kfold", one_class_fold)
    test = saved(tree.root).query("split == 'test'")
    assert set(test.loc[test["round"] == "fold-2", "label"]) == {"dead"}
    assert record["overall"]["auc"]["value"] == pytest.approx(
        sk.roc_auc_score(test["label"] == "live", test["probability"]), abs=1e-6
    )
    points = {point["round"]: point for point in record["rounds"]}
    for name, point in points.items():  # what the other folds' models said of their own tests
        assert point["validation"] == "other folds"
        assert point["n_validation"] == int((test["round"] != name).sum())


def test_a_test_split_of_one_class_has_no_auc_and_says_so(tree):
    tree(change=lambda splits: splits[(splits["split"] != "test") | (splits["label"] == "dead")])
    record = strict(tree.root / "metrics" / "evaluate" / "p.json")
    assert record["overall"]["auc"] == {
        "value": None,
        "patch_interval": None,
        "group_interval": None,
    }
    assert record["overall"]["specificity"]["value"] is not None
    assert record["within_experiment"]["pair_weighted"]["value"] is None


def test_unknown_experiments_have_no_score_within_them(tree):
    record = tree(change=lambda splits: splits.assign(experiment=None))
    assert record["within_experiment"] is None and record["baselines"]["experiment_only"] is None
    assert not [row for row in record["slices"] if row["slice"] == "experiment"]


def written(root: Path) -> dict[str, bytes]:
    """What the stage wrote, by path below the root."""
    files = [p for part in ("metrics", "reports") for p in (root / part).rglob("*") if p.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_two_runs_write_the_same_bytes(tree):
    tree(figures=True)
    first = written(tree.root)
    tree(figures=True)
    assert written(tree.root) == first


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        "src.stages.evaluate:operate_rounds",
        "src.stages.evaluate:write_json",
        "src.common.evaluate.curves:tables",
    ],
)
def test_killed_at_any_point_it_is_repeated_as_if_undisturbed(tree, place):
    killed(lambda: tree(figures=True), place)
    left = written(tree.root)
    reports = tree.root / "reports" / "evaluate"
    (reports / "p").mkdir(parents=True, exist_ok=True)
    (reports / "p" / "half.csv").write_text("cut o")
    tree(figures=True)
    repeated = written(tree.root)
    shutil.rmtree(reports)
    shutil.rmtree(tree.root / "metrics" / "evaluate")
    tree(figures=True)
    assert repeated == written(tree.root) and len(left) < len(repeated)


@pytest.mark.parametrize(
    ("partition", "message"), [("r", "no partition 'r'"), ("q", "model.json does not exist")]
)
def test_refusals_say_what_is_wrong(tree, partition, message):
    with pytest.raises(UserError, match=message):
        tree(partition=partition)


def test_validation_of_one_class_is_refused(tree):
    with pytest.raises(UserError, match="no validation patches of both classes"):
        tree(
            change=lambda splits: splits[(splits["split"] != "valid") | (splits["label"] == "dead")]
        )
