"""Explains one partition's model on its test split: embedding maps, Grad-CAM, its agreement with
PI, worst mistakes.

`python -m src.stages explain PARTITION`; reads models/PARTITION, data/patches, data/filtered and
what evaluate wrote of it; writes reports/explain/PARTITION, and the key numbers into
metrics/explain/PARTITION.json. Paper, step 7, and what it left open: do Grad-CAM regions agree with
dead regions in PI? Right and wrong are conformal calls; a window the model abstained on is neither.
Under kfold every window is explained by the model that did not see it; features of different folds
share no space, so the map is of one fold.
"""

import shutil
from pathlib import Path

import matplotlib
import pandas as pd

from ..common.explain import notes, sections
from ..common.explain.examples import by_contrast, cam_examples, outcomes
from ..common.explain.models import Models
from ..common.explain.stain import stain_agreement, stain_lines, stain_numbers
from ..common.patches.store import PatchStore
from ..common.tracking import runs as tracking
from ..common.workspace.params import load
from ..common.workspace.paths import FILTERED, METRICS, MODELS, PATCHES, REPORTS
from ..common.workspace.records import clean, read_json, write_json
from ..common.workspace.sections import Explain
from ..common.workspace.tables import read_table


def main(partition: str) -> dict:
    """Runs the stage; returns the record written to explain.json."""
    settings, models, store = load("explain"), Models(MODELS / partition), PatchStore(PATCHES)
    report, points = REPORTS / "explain" / partition, operating_points(partition)
    saved = REPORTS / "evaluate" / partition / "predictions.parquet"
    rows = outcomes(read_table(saved, [partition]), points)
    counts = notes.counts(rows)
    shutil.rmtree(report, ignore_errors=True)
    report.mkdir(parents=True)
    matplotlib.use("Agg")
    stain = models.card.get("target") == "stain"
    record = {
        "partition": partition,
        **{name: models.card.get(name) for name in ("target", "arch", "digest", "synthetic")},
        "windows": counts,
        "errors": sections.mistakes(store, rows, models.title, counts, report),
    }
    if stain:
        record["stain"] = stain_agreement(models, store, rows, settings.seed, report)
        record = clean(record)
        numbers, figures = stain_numbers(record), stain_lines(record)
    else:
        verdicts = read_table(FILTERED / "verdicts.parquet", [partition], aloud=False)
        record |= of_classifier(models, store, rows, verdicts, points, settings, report)
        few, drawn = sections.SANITY_WINDOWS, sections.DRAWS
        record["notes"] = notes.notes(record, settings, drawn, few, sorted(points))
        record = clean(record)
        numbers, figures = notes.key_numbers(record), notes.main_figures(record)
    write_json(report / "explain.json", record)
    write_json(METRICS / "explain" / f"{partition}.json", numbers)
    tracking.log_explanation(partition, record, report)
    print(figures)
    return record


def of_classifier(
    models: Models, store: PatchStore, rows: pd.DataFrame, verdicts: pd.DataFrame,
    points: dict[str, dict], settings: Explain, report: Path,
) -> dict:  # fmt: skip
    """What explains a classifier of windows: embedding maps, Grad-CAM and its agreement with PI."""
    windows = by_contrast(store, rows, verdicts)
    emptiest = models.score(store, windows.drop_duplicates("image_id").head(2), points)
    examples, counts = cam_examples(rows, emptiest, settings), notes.counts(rows)
    return {
        "embedding": sections.embedding(models, store, rows, settings, report),
        "gradcam": sections.example_maps(models, store, examples, counts, report),
        "empty_windows": sections.empty_windows(models, store, windows, points, settings.seed),
        **sections.agreement_with_pi(models, store, rows, settings),
    }


def operating_points(partition: str) -> dict[str, dict]:
    """Temperature and limits of each round, as evaluate fitted them on validation."""
    record = read_json(METRICS / "evaluate" / f"{partition}.json")
    return {point["round"]: point for point in record["rounds"]}
