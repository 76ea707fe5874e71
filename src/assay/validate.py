"""`unstained validate`: does a registered model agree with the stain on this microscope?"""

import json
from pathlib import Path

import matplotlib
import mlflow
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from ..common.evaluation import plots
from ..common.mixture import LABELS
from ..common.sources.folder import Layout
from . import agreement, page, stained
from . import model as models
from .report import clean

WELL, FIELD = ["experiment", "well", "time"], ["experiment", "well", "position", "time", "image_id"]
DPI = 120


def validate(images: Path, uri: str, out: Path, layout: Layout, own: bool = False) -> dict:
    """Scores the stained images of a folder by a registered model and writes the agreement with PI into OUT.

    Writes validation.json, patches.{parquet,csv}, fields.csv, wells.csv (where wells are known), figures as PNG and
    validation.html. `own` fits the PI thresholds to these images instead of taking the model's. Returns the content of
    validation.json. Raises ValueError naming what is wrong: an unusable model or folder, only training images.
    """
    model, contract, facts, reference = load(uri)
    found = stained.score(model, contract, Path(images), layout)
    cells, rule = stained.label(found.patches, contract["label"], own)
    test = agreement.scored_table(cells, contract["operating"])
    if test["live"].nunique() < 2:
        raise stained.ValidationError(agreement.misfit(cells, rule))
    tables = {"fields": agreement.units(cells, FIELD)}
    if cells["well"].ne("").any():
        tables["wells"] = agreement.units(cells[cells["well"] != ""], WELL)
    record = agreement.assess(test, contract)
    problem = agreement.misfit(cells, rule)
    record |= {
        "partition": contract["partition"], "synthetic": contract["synthetic"], "model": facts,
        "reference_auc": reference,
        "images": {kind: found.counts[kind] for kind in stained.KINDS}, "refused": found.refused,
        "training_known": found.training_known, "thresholds": rule, "problem": problem,
        "labels": {name: int((cells["label"] == name).sum()) for name in LABELS},
        "fractions": {name: agreement.bland_altman(table) for name, table in tables.items()},
        "verdict": agreement.verdict(record, reference, found.training_known, problem),
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    cells.to_parquet(out / "patches.parquet", index=False)
    cells.to_csv(out / "patches.csv", index=False)
    for name, table in tables.items():
        table.to_csv(out / f"{name}.csv", index=False)
    record = clean(record)
    (out / "validation.json").write_text(json.dumps(record, indent=2) + "\n")
    drawn = draw(out, test, record, tables)
    page.write(out / "validation.html", "validation.html.j2", {"v": record, "model": facts, "figures": drawn})
    return record


def load(uri: str) -> tuple:
    """The loaded model, its contract, its facts for people, and the AUC of its own test (None if not known).

    Raises ModelError if there is no such model. A synthetic one is taken: it can be validated, which the page says.
    """
    model = models.load(uri, allow_synthetic=True)
    version = models.registered(mlflow.MlflowClient(), uri) if model.facts["name"] else None
    reference = models.number(version.tags.get("auc")) if version else None
    return model.pyfunc, model.contract, model.facts, reference


def draw(out: Path, test: pd.DataFrame, record: dict, tables: dict[str, pd.DataFrame]) -> dict[str, str]:
    """Writes the figures into OUT and returns them for the page, by name."""
    matplotlib.use("Agg")
    figures = {
        "roc": plots.roc_figure(test, record), "scores": plots.score_figure(test, record),
        "confusion": plots.confusion_figure(test), "reliability": reliability_figure(record),
        "pi_vs_score": plots.pi_figure(test, record, record["thresholds"]),
    }  # fmt: skip
    for name, table in tables.items():
        if record["fractions"][name]["bias"] is not None:
            figures[f"agreement-{name}"] = agreement_figure(table, record["fractions"][name], name)
    drawn = {}
    for name, figure in figures.items():
        if record["synthetic"]:
            figure.axes[0].set_title("synthetic model", fontsize=10, loc="right", color="#9b1c31")
        figure.tight_layout()
        figure.savefig(out / f"{name}.png", dpi=DPI, metadata={"Software": None})
        plt.close(figure)
        drawn[name] = page.inline(out / f"{name}.png")
    return drawn


def reliability_figure(record: dict) -> Figure:
    """Live fraction by the stain against the predicted probability, in bins; areas show patches per bin."""
    figure, axes = plt.subplots(figsize=plots.SIZE)
    rows = pd.DataFrame(record["reliability"])
    axes.plot(rows["probability"], rows["live_fraction"], "-", color="#5e3c99", lw=1)
    axes.scatter(rows["probability"], rows["live_fraction"], s=6 + 300 * rows["n"] / rows["n"].sum(), color="#5e3c99")
    axes.plot([0, 1], [0, 1], ":", color=plots.GREY, lw=1)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    axes.set(xlabel="live probability of the model", ylabel="live fraction by PI")
    axes.text(0.03, 0.95, f"ECE {record['calibration']['ece']['after']:.3f}", transform=axes.transAxes, fontsize=9)
    return figure


def agreement_figure(table: pd.DataFrame, found: dict, name: str) -> Figure:
    """Bland-Altman plot: model minus stain against their mean, bias and limits of agreement."""
    figure, axes = plt.subplots(figsize=plots.SIZE)
    mean, difference = (table["model"] + table["stain"]) / 2, table["model"] - table["stain"]
    axes.scatter(mean, difference, s=18, color="#0b5c8f", alpha=0.7, lw=0)
    axes.axhline(found["bias"], color="#1d2733", lw=1.2, label=f"mean {found['bias']:+.3f}")
    low, high = found["limits"]
    for value in (low, high):
        axes.axhline(value, color=plots.GREY, lw=1, ls="--")
    axes.plot([], [], "--", color=plots.GREY, label=f"95% limits {low:+.3f} to {high:+.3f}")
    reach = 1.1 * float(np.abs([*difference, low, high]).max())
    axes.set(xlim=(-0.03, 1.03), ylim=(-reach, reach), xlabel="live-patch fraction, mean of model and stain")
    axes.set_ylabel("model minus stain")
    axes.legend(fontsize=8, title=f"{found['units']} {name}", title_fontsize=8)
    return figure
