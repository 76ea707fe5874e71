"""Evaluates one partition's model on its test split, untouched until here: numbers, intervals,
figures, predictions.

`python -m src.stages evaluate PARTITION`; reads models/PARTITION, models/weights/model,
data/patches, data/features, data/splits, data/labels and, of fields with masks of nuclei, data/raw;
writes metrics/evaluate/PARTITION.json and reports/evaluate/PARTITION. Under kfold every round's
model scores its own test fold, at the operating point of the others, and the scores are pooled.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from ..common.evaluate import curves, figures, record
from ..common.evaluate.baselines import Features, acquisition, baselines
from ..common.evaluate.notes import main_figures, notes
from ..common.evaluate.nuclei import nuclei_record, score_nuclei
from ..common.evaluate.rounds import (
    EvaluationError,
    final_operating,
    operate_rounds,
    score_rounds,
    test_digest,
    test_rows,
)
from ..common.evaluate.slices import slice_table, slicings
from ..common.evaluate.testset import TestSet
from ..common.evaluate.texture import textures
from ..common.evaluate.transfer import cross_partition
from ..common.patches.frozen import FrozenFeatures
from ..common.patches.rounds import rounds
from ..common.patches.store import PatchStore
from ..common.scoring.networks.inference import embed
from ..common.scoring.networks.net import build
from ..common.tracking import runs as tracking
from ..common.workspace.params import load
from ..common.workspace.paths import (
    FEATURES,
    LABELS,
    METRICS,
    MODELS,
    PATCHES,
    RAW,
    REPORTS,
    SPLITS,
)
from ..common.workspace.records import clean, read_json, write_json
from ..common.workspace.tables import read_images, read_table

PREDICTIONS = [
    "patch_id", "image_id", "partition", "experiment", "group", "y", "x", "size", "round", "label",
    "mean_pi", "intensity", "logit", "probability", "called", "call", "split",
]  # fmt: skip


def main(partition: str) -> dict:
    """Runs the stage; returns the evaluation record."""
    dataset, settings = load("dataset", "evaluate")
    if partition not in dataset.partitions:
        named = ", ".join(dataset.partitions)
        raise EvaluationError(f"no partition '{partition}' in dataset.partitions: {named}")
    models, store = MODELS / partition, PatchStore(PATCHES)
    card, thresholds = read_json(models / "model.json"), read_json(LABELS / "thresholds.json")
    split = read_json(SPLITS / "split.json")
    others = read_splits(dataset.partitions, store)
    splits = others.pop(partition)
    held_out = [part for part in rounds(splits, split) if part.test.any()]
    scored = score_rounds(splits, held_out, models, card, store)
    stain = card["target"] == "stain"
    scored, points = operate_rounds(scored, settings, stain)
    test = TestSet.of(test_rows(scored), settings)
    at = final_operating(points, test.rows, split["scheme"], settings, stain)
    masked = masks(partition) if stain else {}
    nuclei = score_nuclei(splits, held_out, models, card, store, masked)
    of_nuclei, nuclei = nuclei_record(nuclei, settings, split["scheme"], at.shift)
    features = baseline_features(card["arch"], store)
    result = clean(
        {
            "partition": partition,
            "synthetic": card["synthetic"],
            "model": model_facts(card),
            "data": data_facts(test, split["scheme"]),
            **record.sections(test, at),
            **({"nuclei": of_nuclei} if masked else {}),
            "baselines": baselines(features, splits, held_out, scored, test),
            "slices": slice_table(test.rows, slicings(test.rows, store, thresholds)),
            "cross_partition": cross_partition(splits, others, models, card, at, store, settings),
            "rounds": points,
            "notes": notes(settings, split["scheme"], test.draws.groups, bool(masked)),
        }
    )
    write(partition, result, scored, nuclei, thresholds)
    tracking.log_evaluation(partition, result, REPORTS / "evaluate" / partition)
    print("\n".join(main_figures(result)))
    return result


def baseline_features(arch: str, store: PatchStore) -> dict[str, Features]:
    """What the linear baselines see of windows: their frame's exposure, texture, and the backbone
    before training, which is the filter's own by default and has seen them as the filter does.
    """
    weights, frozen = MODELS / "weights" / "model", FrozenFeatures(FEATURES)
    seen = frozen.made_by(read_json(weights / "source.json"))
    return {
        "acquisition": lambda table: acquisition(store.frames, table),
        "texture_linear": lambda table: textures(store, table),
        "linear_probe": frozen.of if seen else lambda table: probe(arch, weights, store, table),
    }


def probe(arch: str, weights: Path, store: PatchStore, table: pd.DataFrame) -> np.ndarray:
    """Features (N, D) float32 of windows by the backbone before training."""
    return embed(build(arch, weights / "model.safetensors"), store, table, desc="linear probe")


def read_splits(partitions: list[str], store: PatchStore) -> dict[str, pd.DataFrame]:
    """Each partition's labelled patches in splits, in their order, with live (bool), day and the
    frame's size.
    """
    splits = read_table(SPLITS / "splits.parquet", partitions)
    frames = store.frames[["height", "width", "day"]]
    table = splits.join(frames, on="image_id", validate="m:1")
    table["experiment"] = table["experiment"].fillna("").astype("str")
    table["live"] = table["label"] == "live"
    return {name: table[table["partition"] == name].reset_index(drop=True) for name in partitions}


def masks(partition: str) -> dict[str, tuple[Path, Path]]:
    """Files of the mask of nuclei and of PI of the images that have a mask and a pixel size."""
    images = read_images(RAW, [partition]).dropna(subset=["nuclei", "pixel_size_um"])
    return {row.image_id: (RAW / row.nuclei, RAW / row.pi) for row in images.itertuples()}


def model_facts(card: dict) -> dict:
    """What the record says of the model, from its model.json."""
    own = {name: card[name] for name in ("target", "arch", "pooling", "digest")}
    return own | {"weights": card["weights"]["weights"], "recipe": card["params"]}


def data_facts(test: TestSet, scheme: str) -> dict:
    """What the record says of the test patches."""
    sizes = test.counts() | {"scheme": scheme, "digest": test_digest(test.rows)}
    return sizes | {"resamples_redrawn": test.draws.lacking}


def write(
    partition: str, result: dict, scored: pd.DataFrame, nuclei: pd.DataFrame, thresholds: dict
) -> None:
    """The record, the predictions of patches and of nuclei, the tables for `dvc plots` and the
    figures.
    """
    report, test = REPORTS / "evaluate" / partition, test_rows(scored)
    shutil.rmtree(report, ignore_errors=True)
    (report / "figures").mkdir(parents=True)
    write_json(METRICS / "evaluate" / f"{partition}.json", result)
    scored[PREDICTIONS].to_parquet(report / "predictions.parquet", index=False)
    nuclei.to_parquet(report / "nuclei.parquet", index=False)
    for name, table in curves.tables(test).items():
        table.round(6).to_csv(report / f"{name}.csv", index=False)
    figures.draw_all(test, result, thresholds, report / "figures")
