"""Labels patches with cells live, dead or discarded from their PI, by the paper's Gaussian mixture
(step 3).

Reads data/patches and data/filtered; writes data/labels, metrics/label.json and reports/label (Fig.
3a, 3b, 2a).
"""

import shutil

import pandas as pd

from ..common.figures.style import save_figures
from ..common.label import mixture as mixtures
from ..common.label.figures import intensity_histograms, intensity_scatter, stain_sheet
from ..common.label.thresholds import (
    exposure_decides,
    fit_rows,
    hidden_dead,
    labels_by_field,
    refuse_unseparated,
    tally,
    thresholds,
)
from ..common.patches.groups import groups
from ..common.patches.store import PatchStore
from ..common.workspace.params import load
from ..common.workspace.paths import FILTERED, LABELS, METRICS, PATCHES, REPORTS
from ..common.workspace.records import clean, write_json
from ..common.workspace.tables import LABEL_NAMES, VERDICT_NAMES, read_table

LABEL_COLUMNS = ["patch_id", "image_id", "partition", "intensity", "label"]
HEADLINE = ["live_below", "dead_above", "interval_95", "overlap", "counts"]


def main() -> dict[str, float]:
    """Runs the stage; returns the content of metrics/label.json."""
    dataset, label, tile = load("dataset", "label", "tile")
    synthetic = dataset.source == "synthetic"
    store = PatchStore(PATCHES)
    patches = read_patches(store, dataset.partitions)
    cells = patches[patches["verdict"] == "cells"].reset_index(drop=True)
    cells["intensity"] = mixtures.intensities(cells, label.intensity)

    used = fit_rows(cells, label.fit_on)
    values = used["intensity"].to_numpy()
    mixture = mixtures.fit(values, label.log, label.seed)
    record = thresholds(mixture, label, tile.background)
    cells["label"] = mixtures.classify(
        cells["intensity"].to_numpy(), record["live_below"], record["dead_above"]
    )
    record["fitted_patches"] = len(used)
    record["counts"] = tally(cells, "label", LABEL_NAMES, dataset.partitions)
    record["verdicts"] = tally(patches, "verdict", VERDICT_NAMES, dataset.partitions)

    report = REPORTS / "label"
    shutil.rmtree(report, ignore_errors=True)
    histograms = {"fig3a_histograms": intensity_histograms(cells, record)}
    save_figures(report, histograms, synthetic)  # before what may refuse, and names it
    divided = label.intensity == "background_ratio"
    step = 1 / float(used["pi_background"].median()) if divided else 1.0
    refuse_unseparated(mixture, record["counts"], label, step)

    by_field = groups(used, []).to_numpy()
    record["interval_95"] = clean(mixtures.interval(values, by_field, mixture, label.seed))
    LABELS.mkdir(parents=True, exist_ok=True)
    cells[LABEL_COLUMNS].to_parquet(LABELS / "labels.parquet")
    labels_by_field(cells, store.frames).to_parquet(LABELS / "fields.parquet")
    write_json(LABELS / "thresholds.json", record)
    drawn = {
        "fig3b_scatter": intensity_scatter(cells, record),
        "fig2a_samples": stain_sheet(store, cells, label.seed),
    }
    save_figures(report, drawn, synthetic)
    metrics = {name: record[name] for name in HEADLINE}
    write_json(METRICS / "label.json", metrics)
    _report(record, cells)
    said = hidden_dead(values, mixture, label.seed), exposure_decides(used, mixture, label)
    for warning in filter(None, said):
        print(f"label: {warning}")
    return metrics


def read_patches(store: PatchStore, partitions: list[str]) -> pd.DataFrame:
    """The patches of the partitions with the filter's verdict on each."""
    verdicts = read_table(FILTERED / "verdicts.parquet", partitions)[["patch_id", "verdict"]]
    return store.patches(partitions).merge(verdicts, on="patch_id", validate="1:1")


def _report(record: dict, cells: pd.DataFrame) -> None:
    for name in ("live_below", "dead_above"):
        low, high = record["interval_95"][name]
        between = f"95% interval {low:.6g} to {high:.6g}, over fields"
        print(f"label: {name} {record[name]:.6g} ({between})")
    for partition, part in record["counts"].items():
        counts = ", ".join(f"{count} {name}" for name, count in part.items())
        print(f"label: {partition}: {counts}")
    if saturated := int((cells["pi_saturated"] > 0).sum()):
        print(
            f"label: {saturated} of {len(cells)} patches hold saturated PI pixels; "
            "their mean PI is a lower bound"
        )
