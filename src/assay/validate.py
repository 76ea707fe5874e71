"""`unstained validate`: does a registered model agree with the stain on this microscope?"""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from ..common.evaluate import figures as plots
from ..common.figures.style import save_figure
from ..common.metrics.intervals import few_groups
from ..common.workspace.records import write_json
from ..common.workspace.tables import LABEL_NAMES
from . import agreement, checks, differences, heldout, nuclei, output, page, stained
from .model import Model, load
from .report import clean
from .stained import Options, Stained
from .wells import KEYS

FIELD_KEYS = ["experiment", "well", "position", "time", "image_id"]
CALL_ORDER = ["dead", "abstain", "live"]
PAGE = "validation.html"
FILES = ("*.png", "fields.csv", "wells.csv", "experiments.csv", "nuclei.*")  # gone unless made anew


def validate(images: Path, uri: str, out: Path, options: Options, own: bool = False) -> dict:
    """Scores the stained images of a folder by a registered model and writes the agreement with PI
    into OUT.

    Writes validation.json, patches.{parquet,csv}, fields.csv, wells.csv and experiments.csv (where
    they are known), figures as PNG and validation.html. `own` fits the PI thresholds to these
    images instead of taking the model's. Returns the content of validation.json. Raises ValueError
    naming what is wrong: an unusable model or folder, an OUT of another model or command, only
    training images. A run that was stopped goes on where it was.
    """
    images, out = Path(images), Path(out)
    output.refuse([images], out)
    entries, notes = stained.find(images, options)
    model = load(uri, allow_synthetic=True)  # a synthetic one can be validated, which the page says
    for note in notes:
        print(f"validate: {note}")
    with output.claimed(out, model.facts, "validate"):
        scored = stained.score(model, entries, options, out)
        cells, rule = stained.label(scored.patches, model.contract["label"], own)
        test = agreement.scored_table(cells, model.contract["operating"])
        if test["live"].nunique() < 2:
            raise stained.ValidationError(_one_class(scored, agreement.misfit(cells, rule)))
        tables = by_unit(cells)
        record = clean(record_of(model, scored, cells, test, tables, rule) | {"notes": notes})
        with output.together(out, PAGE, FILES) as new:
            write(new, cells, test, tables, record)
            if scored.nuclei:
                output.write(new, "nuclei", pd.concat(scored.nuclei))
    return record


def _one_class(scored: Stained, problem: str) -> str:
    seen = scored.counts["in training"]
    told = f"{scored.told()}; {problem}"
    left = f"{seen} images trained this model and are left out; validate on images it has never"
    return f"{left} seen. {told}" if seen else told


def record_of(
    model: Model,
    scored: Stained,
    cells: pd.DataFrame,
    test: pd.DataFrame,
    tables: dict[str, pd.DataFrame],
    rule: dict,
) -> dict:
    """The content of validation.json, but for the notes."""
    problem, known = agreement.misfit(cells, rule), scored.training_known
    return judged(test, tables, model.facts, model.contract, known, problem) | {
        "partition": model.contract["partition"],
        "synthetic": model.contract["synthetic"],
        "model": model.facts,
        "images": {kind: scored.counts[kind] for kind in stained.KINDS},
        "refused": scored.refused,
        "training_known": known,
        "thresholds": rule,
        "labels": {name: int((cells["label"] == name).sum()) for name in LABEL_NAMES},
        "cells": {name: int((cells["call"] == name).sum()) for name in CALL_ORDER},
        "nuclei": nuclei.agreement_of(scored.nuclei, model.contract),
    }


def by_unit(cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Live-patch fractions per field, and per well and experiment where these are known."""
    tables = {"fields": differences.units(cells, FIELD_KEYS)}
    for column, keys in (("well", KEYS), ("experiment", ["experiment"])):
        known = cells[cells[column] != ""]
        if len(known):
            tables[f"{column}s"] = differences.units(known, keys)
    return tables


def judged(
    test: pd.DataFrame,
    tables: dict,
    facts: dict,
    contract: dict,
    training_known: bool,
    problem: str,
) -> dict:
    """The measures of agreement, the checks and the verdict.

    Fractions are judged per well where there are enough.
    """
    unit, number = agreement.unit(test), test["group"].nunique()
    fractions = {name: differences.bland_altman(table, unit) for name, table in tables.items()}
    per = "wells" if fractions.get("wells", {}).get("bias") is not None else "fields"
    own = heldout.patches(facts["run_id"])
    ranking, calls = agreement.ranking(test, own, facts["auc"]), agreement.calls(test)
    judgements = checks.judge(ranking, calls, fractions[per], unit, number)
    return agreement.assess(test, contract) | {
        "own_calls": agreement.calls(agreement.resampled(own)) if own is not None else None,
        "fractions": fractions, "judged_per": per, "checks": judgements, "problem": problem,
        "few_groups": few_groups(number),
        "verdict": checks.verdict(judgements, unit, number, training_known, problem),
    }  # fmt: skip


def write(out: Path, cells: pd.DataFrame, test: pd.DataFrame, tables: dict, record: dict) -> None:
    """Writes tables, validation.json, figures and the page."""
    output.write(out, "patches", cells)
    for name, table in tables.items():
        output.for_spreadsheet(table).to_csv(out / f"{name}.csv", index=False)
    write_json(out / "validation.json", record)
    drawn = draw(out, test, record, tables)
    by = {one["key"]: one for one in record["checks"]}
    context = {"v": record, "by": by, "model": record["model"], "figures": drawn}
    page.write(out / PAGE, "validation.html.j2", context)


def draw(
    out: Path, test: pd.DataFrame, record: dict, tables: dict[str, pd.DataFrame]
) -> dict[str, str]:
    """Writes the figures into OUT and returns them for the page, by name."""
    matplotlib.use("Agg")
    figures = {
        "roc": plots.roc_figure(test, record), "scores": plots.score_figure(test, record),
        "calls": calls_figure(test), "reliability": reliability_figure(record),
        "pi_vs_score": plots.pi_figure(test, record, record["thresholds"]),
    }  # fmt: skip
    for name, table in tables.items():
        if record["fractions"][name]["bias"] is not None:
            figures[f"agreement-{name}"] = agreement_figure(table, record["fractions"][name], name)
    drawn = {}
    for name, figure in figures.items():
        if record["synthetic"]:
            figure.axes[0].set_title("synthetic model", fontsize=10, loc="right", color="#9b1c31")
        save_figure(figure, out / f"{name}.png")
        drawn[name] = page.inline(out / f"{name}.png")
    return drawn


def calls_figure(test: pd.DataFrame) -> Figure:
    """Calls as scoring makes them, by the stain's class: counts and shares of each class."""
    figure, axes = plt.subplots(figsize=plots.SIZE, layout="constrained")
    counts = pd.crosstab(test["label"], test["call"]).reindex(
        index=["dead", "live"], columns=CALL_ORDER, fill_value=0
    )
    plots.counts_by_class(axes, counts.to_numpy(), ["dead", "abstained", "live"], ".0%")
    axes.set(xlabel="called", ylabel="truth (PI)")
    return figure


def reliability_figure(record: dict) -> Figure:
    """Live fraction by the stain against the predicted probability, in bins; areas show patches per
    bin.
    """
    figure, axes = plt.subplots(figsize=plots.SIZE, layout="constrained")
    rows = pd.DataFrame(record["reliability"])
    x, y, n = (rows[name] for name in ("probability", "live_fraction", "n"))
    axes.plot(x, y, "-", color="#5e3c99", lw=1)
    axes.scatter(x, y, s=6 + 300 * n / n.sum(), color="#5e3c99")
    axes.plot([0, 1], [0, 1], ":", color=plots.GREY, lw=1)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    axes.set(xlabel="live probability of the model", ylabel="live fraction by PI")
    ece = record["calibration"]["ece"]["after"]
    axes.text(0.03, 0.95, f"ECE {ece:.3f}", transform=axes.transAxes, fontsize=9)
    return figure


def agreement_figure(table: pd.DataFrame, agreed: dict, name: str) -> Figure:
    """Bland-Altman plot: model minus stain against their mean, bias and limits of agreement."""
    figure, axes = plt.subplots(figsize=plots.SIZE, layout="constrained")
    mean, difference = (table["model"] + table["stain"]) / 2, table["model"] - table["stain"]
    axes.scatter(mean, difference, s=18, color="#0b5c8f", alpha=0.7, lw=0)
    axes.axhline(agreed["bias"], color="#1d2733", lw=1.2, label=f"mean {agreed['bias']:+.3f}")
    low, high = agreed["limits"]
    for value in (low, high):
        axes.axhline(value, color=plots.GREY, lw=1, ls="--")
    axes.plot([], [], "--", color=plots.GREY, label=f"95% limits {low:+.3f} to {high:+.3f}")
    reach = 1.1 * float(np.abs([*difference, low, high]).max())
    axes.set(xlim=(-0.03, 1.03), ylim=(-reach, reach), ylabel="model minus stain")
    axes.set_xlabel("live-patch fraction, mean of model and stain")
    axes.legend(fontsize=8, title=f"{agreed['units']} {name}", title_fontsize=8)
    return figure
