"""filter, label and split on a small synthetic plate of known answers: what they write, refuse, and
say again.
"""

import hashlib
import json
import shutil
import warnings

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.torch import save_file

from src.common.patches.frozen import FrozenFeatures
from src.common.scoring.frames.imaging import bright_field_measures
from src.common.scoring.networks.net import build, library_model
from src.common.workspace import params
from src.common.workspace.errors import UserError
from src.stages import filter as filter_stage
from src.stages import label as label_stage
from src.stages import split as split_stage
from tests.conftest import ARCH, WINDOW, default_params, mlflow_at, write_store

FILTER_RUN = filter_stage.tracking.filter_run
KINDS = {"cells": 0.6, "empty": 0.2, "unusable": 0.2}
FRAMES, ROWS, COLS = 24, 2, 5
FOLDERS = {
    "PATCHES": "data/patches", "FILTERED": "data/filtered", "LABELS": "data/labels",
    "FEATURES": "data/features",
    "SPLITS": "data/splits", "MODELS": "models", "METRICS": "metrics", "REPORTS": "reports",
    "WORKSPACE": "",
}  # fmt: skip


def picture(kind: str, random: np.random.Generator) -> np.ndarray:
    """A window (WINDOW, WINDOW) uint8: coarse blobs for cells, faint noise for empty, a smooth
    slope for unusable.
    """
    noise = random.normal(0, 2, (WINDOW, WINDOW))
    if kind == "cells":
        noise += np.kron(random.normal(0, 45, (8, 8)), np.ones((8, 8)))
    if kind == "unusable":
        noise = (
            noise * 0.2 + 90 * np.sin(np.linspace(0, random.uniform(2, 4), WINDOW))[:, None] - 45
        )
    return np.clip(128 + noise, 1, 255).astype(np.uint8)


def plate(directory) -> pd.DataFrame:
    """A patch store of two partitions; its table with each window's true `kind`. Frame f0 has a
    black border.
    """
    random = np.random.default_rng(11)
    frames, tables = {}, []
    for number in range(FRAMES):
        kinds = random.choice(list(KINDS), ROWS * COLS, p=list(KINDS.values()))
        image_id, partition = f"f{number}", "control" if number % 2 else "drug"
        pictures = [picture(kind, random) for kind in kinds]
        frame = np.block([pictures[row * COLS : (row + 1) * COLS] for row in range(ROWS)])
        frame[:, :8] = 0 if number == 0 else frame[:, :8]
        frames[image_id] = frame
        y, x = (WINDOW * grid.ravel() for grid in np.mgrid[:ROWS, :COLS])
        corners = np.column_stack([y, x, np.full(len(y), WINDOW)])
        dead = random.random(len(y)) < (0.5 if partition == "control" else 0.65)
        table = pd.DataFrame(
            {"image_id": image_id, "partition": partition, "y": y, "x": x, "size": WINDOW}
        )
        table["mean_pi"] = np.where(
            dead, random.normal(550, 60, len(y)), random.normal(225, 20, len(y))
        ).round(6)
        tables.append(
            table.assign(kind=kinds, dead=dead, **bright_field_measures(frame, frame == 0, corners))
        )
    write_store(
        directory,
        frames,
        partition=["drug", "control"] * (FRAMES // 2),
        phash_layout=b"00",
        pi_background=100.0,
        pi_floor=99.0,
        pi_median=105.0,
        experiment="e",
        brightfield_bits=16,
        brightfield_median=500.0,
        brightfield_contrast=0.8,
        brightfield_sha256="a",
    )
    patches = pd.concat(tables, ignore_index=True)
    number = patches["image_id"].str[1:].astype(int)
    patches["patch_id"] = [f"{p.image_id}:{p.y}:{p.x}:{p.size}" for p in patches.itertuples()]
    patches = patches.assign(
        experiment="e" + (number % 6).astype("str"), well="", position="", compound="", time=np.nan,
        day=number % 3, concentration=np.nan, pi_background=100.0, pi_saturated=0.0,
    )  # fmt: skip
    patches.drop(columns=["kind", "dead"]).to_parquet(directory / "patches.parquet")
    return patches


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(tree with patches, weights and annotations of two thirds of the windows, the table with the
    truth).
    """
    root = tmp_path_factory.mktemp("plate")
    patches = plate(root / "data" / "patches")
    weights = root / "models" / "weights" / "filter"
    weights.mkdir(parents=True)
    state = {k: v.contiguous() for k, v in library_model(build(ARCH).backbone).state_dict().items()}
    save_file(state, weights / "model.safetensors")
    (weights / "source.json").write_text(json.dumps({"arch": ARCH, "weights": "random"}))
    rows = patches.sample(frac=0.66, random_state=1).assign(
        verdict=lambda t: t["kind"], annotator="me", date="2026-01-02"
    )
    rows[["image_id", "y", "x", "size", "verdict", "annotator", "date"]].to_csv(
        root / "notes.csv", index=False
    )
    return root, patches


@pytest.fixture
def tree(made, tmp_path, monkeypatch):
    """A copy of the tree in which the stages run in this process; `run(stage, section={key:
    value})` runs one.
    """
    root = shutil.copytree(made[0], tmp_path / "tree")
    monkeypatch.setattr(params, "WORKSPACE", root)
    monkeypatch.setattr(
        filter_stage.tracking, "filter_run", lambda: ""
    )  # MLflow has a test of its own: end to end
    for stage in (filter_stage, label_stage, split_stage):
        for name, folder in FOLDERS.items():
            if hasattr(stage, name):
                monkeypatch.setattr(stage, name, root / folder)
    chosen = default_params(
        dataset={"source": "folder", "partitions": ["drug", "control"]},
        filter={"arch": ARCH, "annotations": "notes.csv"},
        label={"fit_on": ["control"], "min_class": 5},
    )

    def run(stage, **changes):
        for section, values in changes.items():
            chosen[section] |= values
        (root / "params.yaml").write_text(yaml.safe_dump(chosen))
        return stage.main()

    run.root, run.patches = root, made[1]
    return run


@pytest.fixture
def labelled(tree):
    """The tree with true verdicts in data/filtered, so that label and split can be tried without
    the network.
    """
    verdicts = tree.patches[["patch_id", "image_id", "partition"]].assign(
        verdict=tree.patches["kind"], score=0.0
    )
    (tree.root / "data" / "filtered").mkdir()
    verdicts.to_parquet(tree.root / "data" / "filtered" / "verdicts.parquet")
    return tree


def digests(folder) -> dict[str, str]:
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def refusal(call) -> str:
    with pytest.raises(UserError) as stopped:
        call()
    return str(stopped.value)


@pytest.mark.parametrize(("sees", "width"), [("windows", 256), ("frame", 336)])
def test_filter_finds_what_it_was_shown_and_says_the_same_again(tree, capsys, sees, width):
    metrics = tree(filter_stage, filter={"sees": sees})
    found = pd.read_parquet(tree.root / "data" / "filtered" / "verdicts.parquet").merge(
        tree.patches, on="patch_id"
    )
    cells = found[found["verdict"] == "cells"]
    assert FrozenFeatures(tree.root / "data" / "features").of(cells).shape == (len(cells), width)
    bordered = found["border"] > 0.01
    assert bordered.sum() == ROWS and (found.loc[bordered, "verdict"] == "unusable").all()
    assert (found.loc[~bordered, "verdict"] == found.loc[~bordered, "kind"]).mean() > 0.9
    assert (
        metrics["method"] == "svm" and metrics["f1_cells"] > 0.9 and metrics["f1_not_cells"] > 0.9
    )
    assert (
        metrics["f1_cells_interval_95"][0]
        <= metrics["f1_cells"]
        <= metrics["f1_cells_interval_95"][1]
    )
    assert metrics == json.loads((tree.root / "metrics" / "filter.json").read_text())
    facts = json.loads((tree.root / "models" / "filter" / "filter.json").read_text())
    assert facts["weights"]["weights"] == "random" and facts["annotations_left_out"]["border"] > 0
    figures = {path.stem for path in (tree.root / "reports" / "filter").iterdir()}
    assert figures == {"fig2b_map", "fig2b_barcodes", "dropped", "kept", "boundary"}
    assert "cross-validated by image; the paper" in capsys.readouterr().out
    folders = [
        tree.root / name
        for name in ("data/filtered", "data/features", "models/filter", "metrics", "reports/filter")
    ]
    before = [digests(folder) for folder in folders]
    tree(filter_stage)
    assert [digests(folder) for folder in folders] == before


def test_annotations_survive_another_grid(tree, capsys, monkeypatch):
    monkeypatch.setattr(filter_stage, "draw", lambda *_: {})
    notes = pd.read_csv(tree.root / "notes.csv")
    table = pd.read_parquet(tree.root / "data" / "patches" / "patches.parquet")
    table[table["x"] > 0].to_parquet(tree.root / "data" / "patches" / "patches.parquet")
    stray = pd.DataFrame([["unknown", 0, 0, WINDOW, "cells", "me", ""]], columns=notes.columns)
    pd.concat([notes, stray]).to_csv(tree.root / "notes.csv", index=False)
    metrics = tree(filter_stage)
    assert metrics["annotations_outside_grid"] == (notes["x"] == 0).sum() > 0
    used, left_out = sum(metrics["annotations"].values()), metrics["annotations_left_out"]
    assert used + left_out["border"] == len(notes) and left_out["of_no_image"] == 1
    assert "1 of no image" in capsys.readouterr().out


def test_too_few_annotations_fall_back_to_rules(tree, capsys, monkeypatch):
    monkeypatch.setattr(filter_stage, "draw", lambda *_: {})
    notes = pd.read_csv(tree.root / "notes.csv")
    few = notes[notes["verdict"] != "cells"].head(19)
    pd.concat([notes[notes["verdict"] == "cells"], few]).to_csv(
        tree.root / "notes.csv", index=False
    )
    assert tree(filter_stage)["method"] == "rules"
    assert not (tree.root / "models" / "filter" / "svm.safetensors").exists()
    assert "fewer than 20" in capsys.readouterr().out


def test_no_annotation_at_all_still_gives_verdicts_and_a_finished_run(tree, monkeypatch):
    monkeypatch.setattr(filter_stage.tracking, "filter_run", FILTER_RUN)
    monkeypatch.chdir(tree.root)
    for name in ("MODELS", "METRICS", "REPORTS"):
        monkeypatch.setattr(filter_stage.tracking, name, tree.root / FOLDERS[name])
    (tree.root / "notes.csv").write_text("image_id,y,x,size,verdict,annotator,date\n")
    with mlflow_at(f"sqlite:///{tree.root}/mlflow.db"):
        metrics = tree(filter_stage)
        [run] = mlflow.search_runs(
            experiment_names=[filter_stage.tracking.EXPERIMENT], output_format="list"
        )
    assert run.info.status == "FINISHED" and not run.data.metrics
    assert metrics["method"] == "rules" and metrics["f1_cells"] is None
    assert sum(sum(part.values()) for part in metrics["verdicts"].values()) == len(tree.patches)


def test_thresholds_and_labels_of_known_components(labelled):
    labelled(label_stage)
    record = json.loads((labelled.root / "data" / "labels" / "thresholds.json").read_text())
    assert record["live_below"] == pytest.approx(245, rel=0.05) and record[
        "dead_above"
    ] == pytest.approx(490, rel=0.05)
    low, high = record["interval_95"]["live_below"]
    assert low < record["live_below"] < high
    labels = pd.read_parquet(labelled.root / "data" / "labels" / "labels.parquet").merge(
        labelled.patches, on="patch_id"
    )
    assert len(labels) == (labelled.patches["kind"] == "cells").sum()
    sure = labels[labels["label"] != "discarded"]
    assert ((sure["label"] == "dead") == sure["dead"]).all()
    assert (
        record["verdicts"]["drug"]["empty"] > 0
        and record["counts"]["drug"]["dead"] > record["counts"]["drug"]["live"]
    )
    assert len(list((labelled.root / "reports" / "label").iterdir())) == 3


def test_label_twice_is_the_same_bytes(labelled):
    labelled(label_stage)
    before = (
        digests(labelled.root / "data" / "labels"),
        digests(labelled.root / "reports" / "label"),
    )
    labelled(label_stage)
    assert (
        digests(labelled.root / "data" / "labels"),
        digests(labelled.root / "reports" / "label"),
    ) == before


@pytest.mark.parametrize(
    "change, said",
    [
        ({"min_class": 60}, "fewer than label.min_class 60"),
        ({"fit_on": ["none_such"]}, "label.fit_on names none_such.*control, drug"),
    ],
)
def test_label_refuses_with_what_to_change(labelled, change, said):
    message = refusal(lambda: labelled(label_stage, label=change))
    assert pd.Series([message]).str.contains(said).all()


def test_label_refuses_a_stain_without_signal_and_shows_the_histogram(labelled):
    file = labelled.root / "data" / "patches" / "patches.parquet"
    table = pd.read_parquet(file)
    table["mean_pi"] = np.random.default_rng(0).normal(200, 10, len(table))
    table.to_parquet(file)
    message = refusal(lambda: labelled(label_stage))
    assert (
        "does not separate" in message
        and "one component describes" in message
        and "background_ratio" in message
    )
    assert (labelled.root / "reports" / "label" / "fig3a_histograms.png").exists()
    assert not (labelled.root / "data" / "labels" / "labels.parquet").exists()


def test_a_partition_without_cells_is_named_as_that(labelled):
    file = labelled.root / "data" / "filtered" / "verdicts.parquet"
    table = pd.read_parquet(file)
    table.loc[table["partition"] == "drug", "verdict"] = "empty"
    table.to_parquet(file)
    message = refusal(lambda: labelled(label_stage))
    assert "the filter found no cells in drug: see reports/filter" in message


def test_exposures_that_differ_are_said_where_counts_are_labelled(labelled, capsys):
    labelled(label_stage)
    assert "WARNING" not in capsys.readouterr().out
    file = labelled.root / "data" / "patches" / "patches.parquet"
    table = pd.read_parquet(file)
    exposure = np.where(table["image_id"].str[1:].astype(int) % 4 < 2, 1.0, 2.0)
    columns = ["mean_pi", "pi_background"]
    table[columns] = table[columns].mul(exposure, axis=0)
    table.to_parquet(file)
    labelled(label_stage)
    assert "from 100 to 200 counts" in capsys.readouterr().out
    labelled(label_stage, label={"intensity": "background_ratio"})
    assert "WARNING" not in capsys.readouterr().out


def test_zeros_of_a_partition_that_is_not_fitted_do_not_empty_the_histogram(labelled):
    file = labelled.root / "data" / "patches" / "patches.parquet"
    table = pd.read_parquet(file)
    table.loc[table["image_id"] == "f0", "mean_pi"] = 0.0
    table.to_parquet(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        labelled(label_stage, label={"log": True})


def splits(tree) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    folder = tree.root / "data" / "splits"
    read = [pd.read_parquet(folder / name) for name in ("splits.parquet", "frames.parquet")]
    return *read, json.loads((folder / "split.json").read_text())


def test_holdout_keeps_images_apart_and_both_classes_everywhere(labelled):
    labelled(label_stage)
    labelled(split_stage)
    table, frames, record = splits(labelled)
    assert set(table["label"]) == {"live", "dead"} and set(table["fold"]) == {-1}
    assert table.groupby(["partition", "group"])["split"].agg(set).str.len().eq(1).all()
    assert (table.groupby(["partition", "split"])["label"].nunique() == 2).all()
    assert frames["image_id"].is_unique and set(frames["image_id"]) == set(table["image_id"])
    assert {"phash_layout", "brightfield_sha256", "height", "position", "time"} <= set(frames)
    counted = sum(
        c["live"] + c["dead"] for part in record["counts"].values() for c in part.values()
    )
    assert counted == len(table)
    before = digests(labelled.root / "data" / "splits")
    labelled(split_stage)
    assert digests(labelled.root / "data" / "splits") == before


def test_kfold_by_experiment(labelled):
    labelled(label_stage)
    labelled(split_stage, split={"scheme": "kfold", "folds": 3, "group_by": ["experiment"]})
    table, _, record = splits(labelled)
    assert set(table["fold"]) == {0, 1, 2} and set(table["split"]) == {""}
    assert table.groupby(["partition", "experiment"])["fold"].agg(set).str.len().eq(1).all()
    assert record["group_by"] == ["experiment"] and list(record["counts"]["drug"]) == [
        "fold-0",
        "fold-1",
        "fold-2",
    ]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"scheme": "kfold", "folds": 4, "group_by": ["experiment"]}, "has 3 groups for 4 folds"),
        ({"scheme": "kfold", "group_by": ["partition"]}, "more images or a finer split.group_by"),
        ({"group_by": ["well"]}, "'well' is empty for"),
        (
            {"group_by": ["plate"]},
            "no column 'plate'; columns filled for every image: "
            "image_id, partition, experiment, day",
        ),
    ],
)
def test_split_refuses_with_what_would_help(labelled, change, said):
    labelled(label_stage)
    assert said in refusal(lambda: labelled(split_stage, split=change))


def test_split_without_both_classes_stops_with_the_counts(labelled):
    labelled(label_stage)
    file = labelled.root / "data" / "labels" / "labels.parquet"
    table = pd.read_parquet(file)
    live = (table["label"] == "live") & (table["partition"] == "drug")
    table.loc[live & (table["image_id"] != table.loc[live, "image_id"].iloc[0]), "label"] = (
        "discarded"
    )
    table.to_parquet(file)
    message = refusal(lambda: labelled(split_stage))
    assert "has no live patches" in message and "1 hold live" in message and "kfold" in message
