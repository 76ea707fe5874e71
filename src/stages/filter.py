"""Sorts patches into cells, empty and unusable with the paper's frozen-feature SVM (step 2), or
rules without it.

Reads data/patches, the annotations and models/weights/filter; writes models/filter, data/filtered,
data/features (of windows with cells, for the stages after it), metrics/filter.json and
reports/filter.
"""

import shutil

import numpy as np
import pandas as pd

from ..common.figures.embedding import tsne
from ..common.figures.style import save_figures
from ..common.filter import annotations
from ..common.filter import fit as fitting
from ..common.filter.features import features as features_of
from ..common.filter.figures import barcodes, contact_sheet, feature_map, map_sample
from ..common.patches.frozen import save_features
from ..common.patches.store import PatchStore
from ..common.scoring.emptiness import decide
from ..common.tracking import runs as tracking
from ..common.workspace.params import load
from ..common.workspace.paths import (
    FEATURES,
    FILTERED,
    METRICS,
    MODELS,
    PATCHES,
    REPORTS,
    WORKSPACE,
)
from ..common.workspace.records import read_json, write_json
from ..common.workspace.sections import Filter

VERDICT_COLUMNS = ["patch_id", "image_id", "partition", "verdict", "score"]
PERPLEXITY = 30


def main() -> dict:
    """Runs the stage and logs it as an MLflow run; returns the content of metrics/filter.json."""
    metrics = run()
    tracking.filter_run()
    return metrics


def run() -> dict:
    """Does the stage's work; raises AnnotationError for what a user can mend."""
    dataset, params = load("dataset", "filter")
    store = PatchStore(PATCHES)
    patches = store.patches(dataset.partitions)
    frames = store.frames[store.frames["partition"].isin(dataset.partitions)].reset_index(drop=True)
    given = annotations.read_annotations(WORKSPACE / params.annotations)
    matched = annotations.match(given, frames)
    annotated = annotations.annotated_windows(store, patches, matched.rows)
    windows = annotations.all_windows(patches, annotated)
    weights = MODELS / "weights" / "filter"
    net = weights / "model.safetensors"
    features = features_of(params.arch, net, params.sees, PATCHES, windows)

    # A rule decides on these: the SVM must get no credit for them
    bordered = annotated["border"] > params.max_border
    table = annotated[~bordered].reset_index(drop=True)
    seen, source = features[table["place"]], read_json(weights / "source.json")
    chosen = fitting.fit_filter(table, seen, unbordered(patches, params), params, source)
    left_out = matched.left_out | {"border": int(bordered.sum())}
    chosen.facts["annotations_left_out"] = left_out
    shutil.rmtree(MODELS / "filter", ignore_errors=True)
    (MODELS / "filter").mkdir(parents=True)
    chosen.save(MODELS / "filter")

    of_patches = features[: len(patches)]
    patches["verdict"], patches["score"] = decide(of_patches, patches, chosen)
    FILTERED.mkdir(parents=True, exist_ok=True)
    patches[VERDICT_COLUMNS].to_parquet(FILTERED / "verdicts.parquet")
    cells = (patches["verdict"] == "cells").to_numpy()
    by = source | {"sees": params.sees}
    save_features(FEATURES, patches["patch_id"], of_patches, cells, by)
    metrics = {
        "method": chosen.facts["method"],
        "weights": source["weights"],
        **fitting.quality(table, seen, chosen, params),
        "annotations": chosen.facts["annotations"],
        "annotations_left_out": left_out,
        "annotations_outside_grid": len(windows) - len(patches),
        "verdicts": {
            name: fitting.tally(part["verdict"])
            for name, part in patches.groupby("partition", sort=False)
        },
    }
    write_json(METRICS / "filter.json", metrics)
    shutil.rmtree(REPORTS / "filter", ignore_errors=True)
    drawn = draw(store, patches, of_patches, annotated, params)
    figures = save_figures(REPORTS / "filter", drawn, dataset.source == "synthetic")
    _report(metrics, figures)
    return metrics


def unbordered(patches: pd.DataFrame, params: Filter) -> pd.DataFrame:
    """The patches that no border makes unusable; AnnotationError if there is none."""
    inside = patches[patches["border"] <= params.max_border]
    if inside.empty:
        raise annotations.AnnotationError(
            f"every window has more than filter.max_border {params.max_border} of its pixels "
            "without counts"
        )
    return inside


def draw(
    store: PatchStore, patches: pd.DataFrame, features: np.ndarray, annotated: pd.DataFrame,
    params: Filter,
) -> dict:  # fmt: skip
    """The stage's figures by name: the paper's Fig. 2b in parts, and what the filter did."""
    inside = annotated[annotated["place"] < len(patches)]
    marked = patches.assign(annotation="")
    marked.loc[inside["place"], "annotation"] = inside["verdict"].to_numpy()
    rows = map_sample(marked["annotation"], params.seed)
    some, seen = marked.iloc[rows].reset_index(drop=True), np.asarray(features[rows])
    scaled = (seen - seen.mean(axis=0)) / (seen.std(axis=0) + 1e-6)
    place, _ = tsne(scaled, PERPLEXITY, params.seed)

    def sheet(chosen: pd.Series, title: str, nearest: bool = False):
        return contact_sheet(store, patches[chosen], title, params.seed, nearest)

    kept = patches["verdict"] == "cells"
    return {
        "fig2b_map": feature_map(some, place, len(marked)),
        "fig2b_barcodes": barcodes(store, some, seen, params.seed),
        "dropped": sheet(~kept, "dropped"),
        "kept": sheet(kept, "kept"),
        "boundary": sheet(patches["border"] <= params.max_border, "nearest the boundary", True),
    }


def _report(metrics: dict, figures: list) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in metrics["annotations"].items())
    print(f"filter: annotated windows used: {counts}")
    for reason, count in metrics["annotations_left_out"].items():
        if count:
            print(f"filter: annotated windows left out: {count} {reason.replace('_', ' ')}")
    if metrics["method"] == "rules":
        print(
            f"filter: fewer than {fitting.LEAST_ROWS} windows of cells or of not cells are "
            "annotated, so focus, contrast and border rules decide instead of the SVM; annotate "
            "more windows for the paper's filter"
        )
    svm = metrics["method"] == "svm"
    how = "cross-validated by image" if svm else "of the rules on the annotated windows"
    for name in ("cells", "not_cells"):
        if metrics[f"f1_{name}"] is not None:
            low, high = metrics[f"f1_{name}_interval_95"]
            score = f"{metrics[f'f1_{name}']:.3f} ({low:.3f} to {high:.3f}), {how}"
            print(f"filter: F1 of {name} {score}; the paper (class not stated): {fitting.PAPER_F1}")
    for partition, part in metrics["verdicts"].items():
        counts = ", ".join(f"{count} {name}" for name, count in part.items())
        print(f"filter: {partition}: {counts}")
    print(f"filter: {len(figures)} figures in {REPORTS / 'filter'}")
