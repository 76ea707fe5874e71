"""Labels patches with cells live, dead or discarded from their PI, by the paper's Gaussian mixture
(step 3).

Reads data/patches and data/filtered; writes data/labels, metrics/label.json and reports/label (Fig.
3a, 3b, 2a).
"""

import json
import shutil

import numpy as np
import pandas as pd

from ..common.figures.style import save_figures
from ..common.label import mixture as mixtures
from ..common.label.figures import intensity_histograms, intensity_scatter, stain_sheet
from ..common.patches.groups import groups
from ..common.patches.store import PatchStore
from ..common.workspace.params import load
from ..common.workspace.paths import FILTERED, LABELS, METRICS, PATCHES, REPORTS
from ..common.workspace.records import clean, write_json
from ..common.workspace.sections import Label
from ..common.workspace.tables import CLASS_NAMES, LABEL_NAMES, VERDICT_NAMES, read_table


def fit_rows(cells: pd.DataFrame, fit_on: str | list[str]) -> pd.DataFrame:
    """The patches whose intensities set the thresholds.

    Raises MixtureError naming a partition that has none.
    """
    if fit_on == "all":
        return cells
    held = sorted(cells["partition"].unique())
    if missing := [name for name in fit_on if name not in held]:
        raise mixtures.MixtureError(
            f"label.fit_on names {', '.join(missing)}, which has no patches with cells; there are "
            f"some in {', '.join(held) or 'no partition'}. Name one of dataset.partitions, or all"
        )
    return cells[cells["partition"].isin(fit_on)]


def check(
    mixture: mixtures.Mixture, counts: dict[str, dict[str, int]], label: Label, step: float
) -> None:
    """Raises MixtureError, with what was found and what to change, if the stain does not give two
    usable classes; `step` is one count of the camera in the intensity's unit.
    """
    reasons = mixtures.problems(mixture, step)
    for partition, part in counts.items():
        reasons += [
            (
                f"{partition} has {part[name]} {name} patches, "
                f"fewer than label.min_class {label.min_class}"
            )
            for name in CLASS_NAMES
            if part[name] < label.min_class
        ]
    if reasons:
        raise mixtures.MixtureError(
            f"the mixture of {label.intensity}{' (log)' if label.log else ''} does not separate "
            f"live from dead: {'; '.join(reasons)}. Components: {mixtures.describe(mixture)}. "
            f"Counts: {json.dumps(counts)}. Look at {REPORTS.name}/label/fig3a_histograms.png. To "
            "change: label.intensity background_ratio if exposure differs between images, "
            "label.log if the bright component has a long tail, label.fit_on if a partition holds "
            "both classes in balance, dataset.partitions without one that holds a single class, "
            "or label.min_class"
        )


def thresholds(mixture: mixtures.Mixture, label: Label, background: float) -> dict:
    """The head of thresholds.json: thresholds in the intensity's own unit, components in the fit's,
    rounded; `background` is the percentile that a field's background is.
    """
    unit = {"counts": "16-bit counts", "background_ratio": "mean PI over the field's background"}[
        label.intensity
    ]
    parts = zip(CLASS_NAMES, mixture.mean, mixture.sd, mixture.weight, strict=True)
    components = [
        {"name": name, "mean": mean, "sd": sd, "weight": weight} for name, mean, sd, weight in parts
    ]
    if mixture.log:
        components = [{**part, "median": float(np.exp(part["mean"]))} for part in components]
    return clean({
        "intensity": label.intensity, "background": background, "unit": unit, "log": label.log,
        "components_unit": f"natural logarithm of {unit}" if label.log else unit,
        "fit_on": label.fit_on, "components": components, "overlap": mixture.overlap,
        "live_below": mixture.live_below, "dead_above": mixture.dead_above,
    })  # fmt: skip


def tally(table: pd.DataFrame, column: str, names: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Rows per partition and value of a column."""
    return {
        p: {n: int((part[column] == n).sum()) for n in names}
        for p, part in table.groupby("partition", sort=False)
    }


def fields(cells: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """One row per field with cells: its PI background and its number of patches of each label."""
    counts = pd.crosstab(cells["image_id"], cells["label"])
    counts = counts.reindex(columns=list(LABEL_NAMES), fill_value=0)
    facts = ["image_id", "partition", "experiment", "pi_background", "pi_floor", "pi_median"]
    return frames[facts].reset_index(drop=True).merge(counts, on="image_id")


def main() -> dict[str, float]:
    """Runs the stage; returns the content of metrics/label.json."""
    dataset, label, tile = load("dataset", "label", "tile")
    synthetic = dataset.source == "synthetic"
    store = PatchStore(PATCHES)
    verdicts = read_table(FILTERED / "verdicts.parquet", dataset.partitions)
    patches = store.patches(dataset.partitions).merge(
        verdicts[["patch_id", "verdict"]], on="patch_id", validate="1:1"
    )
    cells = patches[patches["verdict"] == "cells"].reset_index(drop=True)
    cells["intensity"] = mixtures.intensities(cells, label.intensity)
    used = fit_rows(cells, label.fit_on)
    values = used["intensity"].to_numpy()
    mixture = mixtures.fit(values, label.log, label.seed)
    record = thresholds(mixture, label, tile.background)
    cells["label"] = mixtures.classify(
        cells["intensity"].to_numpy(), record["live_below"], record["dead_above"]
    )
    record |= {
        "fitted_patches": len(used),
        "counts": tally(cells, "label", LABEL_NAMES),
        "verdicts": tally(patches, "verdict", VERDICT_NAMES),
    }
    report = REPORTS / "label"
    shutil.rmtree(report, ignore_errors=True)
    figures = save_figures(
        report, {"fig3a_histograms": intensity_histograms(cells, record)}, synthetic
    )
    divided = label.intensity == "background_ratio"
    step = 1 / float(used["pi_background"].median()) if divided else 1.0
    check(mixture, record["counts"], label, step)
    record["interval_95"] = clean(
        mixtures.interval(values, groups(used, []).to_numpy(), mixture, label.seed)
    )
    LABELS.mkdir(parents=True, exist_ok=True)
    cells[["patch_id", "image_id", "partition", "intensity", "label"]].to_parquet(
        LABELS / "labels.parquet"
    )
    fields(cells, store.frames).to_parquet(LABELS / "fields.parquet")
    write_json(LABELS / "thresholds.json", record)
    drawn = {
        "fig3b_scatter": intensity_scatter(cells, record),
        "fig2a_samples": stain_sheet(store, cells, label.seed),
    }
    figures += save_figures(report, drawn, synthetic)
    metrics = {
        key: record[key] for key in ("live_below", "dead_above", "interval_95", "overlap", "counts")
    }
    write_json(METRICS / "label.json", metrics)
    _report(record, cells)
    return metrics


def _report(record: dict, cells: pd.DataFrame) -> None:
    for name in ("live_below", "dead_above"):
        low, high = record["interval_95"][name]
        print(
            f"label: {name} {record[name]:.6g} (95% interval {low:.6g} to {high:.6g}, over fields)"
        )
    for partition, part in record["counts"].items():
        print(
            f"label: {partition}: " + ", ".join(f"{count} {name}" for name, count in part.items())
        )
    if saturated := int((cells["pi_saturated"] > 0).sum()):
        print(
            f"label: {saturated} of {len(cells)} patches hold saturated PI pixels; "
            "their mean PI is a lower bound"
        )
