"""Figures of an evaluation: confusion, reliability, PI by score (Fig. 4b), scores, slices."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from sklearn import metrics as sk

from ..figures.style import GREY, LIVE_DEAD, save_figure
from ..metrics.intervals import wilson
from ..scoring.operating import calibrate
from ..workspace.words import number
from .calibration import reliability
from .curves import SIZE, legend_below, pr_figure, roc_figure, unit_square

FEW = 10  # patches of a class under which a slice's values are drawn hollow


def draw_all(test: pd.DataFrame, record: dict, thresholds: dict, directory: Path) -> None:
    """Draws all figures of one partition as PNG files into a directory."""
    matplotlib.use("Agg")
    drawn = {
        "confusion": confusion_figure(test),
        "reliability": reliability_figure(test, record),
        "pi_vs_score": pi_figure(test, record, thresholds),
        "scores": score_figure(test, record),
        "slices": slice_figure(record),
    }
    if test["live"].nunique() == 2:
        drawn |= {"roc": roc_figure(test, record), "precision_recall": pr_figure(test, record)}
    title = record["partition"] + (" (synthetic data)" if record["synthetic"] else "")
    for name, figure in drawn.items():
        figure.axes[0].set_title(title, fontsize=10)
        save_figure(figure, directory / f"{name}.png")


def counts_by_class(axes: Axes, counts: np.ndarray, calls: list[str], form: str) -> None:
    """Draws counts (2, N) of dead and live patches by how they were called, and their shares."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.6 else "black"
        text = f"{count}\n{shares[row, column]:{form}}"
        axes.text(column, row, text, ha="center", va="center", color=colour)
    axes.set(xticks=range(len(calls)), xticklabels=calls)
    axes.set(yticks=[0, 1], yticklabels=["dead", "live"])


def confusion_figure(test: pd.DataFrame) -> Figure:
    """Confusion matrix at the operating threshold: counts and shares of each true class."""
    figure, axes = plt.subplots(figsize=(4.4, 4.0), layout="constrained")
    cells = sk.confusion_matrix(test["live"], test["called"], labels=[False, True])
    counts_by_class(axes, cells, ["dead", "live"], ".1%")
    axes.set(xlabel="called at the threshold, none left out", ylabel="truth (PI)")
    return figure


def reliability_figure(test: pd.DataFrame, record: dict) -> Figure:
    """Observed against predicted live fraction, before and after the temperature, with 95% Wilson
    intervals.

    The intervals take patches as independent; the numbers are patches per bin, after.
    """
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    live, ece = test["live"].to_numpy(), record["calibration"]["ece"]
    for name, probability, colour in (
        ("before", calibrate(test["logit"], 1.0), "#b2abd2"),
        ("after", test["probability"].to_numpy(), "#5e3c99"),
    ):
        rows = pd.DataFrame(reliability(probability, live))
        x, y, label = rows["probability"], rows["live_fraction"], f"{name}: ECE {ece[name]:.3f}"
        spans = np.array([wilson(share, n, 0.95) for share, n in zip(y, rows["n"])])
        bars = np.abs(spans.T - y.to_numpy())
        axes.errorbar(x, y, bars, fmt="o", ms=4, lw=1, color=colour, alpha=0.8, label=label)
    for row in rows.itertuples():
        place = row.probability, row.live_fraction
        axes.annotate(row.n, place, (4, 3), textcoords="offset points", fontsize=7)
    axes.plot([0, 1], [0, 1], ":", color=GREY, lw=1)
    unit_square(axes, "predicted live probability", "observed live fraction")
    legend_below(figure, title="temperature, fitted on validation")
    return figure


def pi_figure(test: pd.DataFrame, record: dict, thresholds: dict) -> Figure:
    """Fig. 4b: a patch's PI against its live probability, by true class, with label thresholds."""
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    column = "mean_pi" if thresholds["intensity"] == "counts" else "intensity"
    for label, colour in LIVE_DEAD.items():
        rows = test[test["label"] == label]
        text = f"{label} (n = {len(rows)})"
        axes.scatter(
            rows[column], rows["probability"], s=6, alpha=0.5, color=colour, label=text, lw=0
        )
    for name in ("live_below", "dead_above"):
        axes.axvline(thresholds[name], ls=":", color=GREY, lw=1)
    least, most = test[column].min(), test[column].max()
    if column == "intensity" or least <= 0 or most / least > 10:
        axes.set_xscale("log" if least > 0 else "linear")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(ScalarFormatter())
    correlation = record["correlation"][column]
    text = ", ".join(
        f"{name.capitalize()} {number(correlation[name]['value'])}"
        for name in ("pearson", "spearman")
    )
    unit = (
        "mean PI (16-bit counts)" if column == "mean_pi" else "mean PI over the field's background"
    )
    axes.set(xlabel=unit, ylabel="live probability", ylim=(-0.03, 1.03))
    legend_below(figure, title=f"{text}, n = {correlation['n']}")
    return figure


def score_figure(test: pd.DataFrame, record: dict) -> Figure:
    """Histogram of live probabilities by true class, with the operating threshold and the abstain
    band.
    """
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    for label, colour in LIVE_DEAD.items():
        rows = test.loc[test["label"] == label, "probability"]
        share = np.full(len(rows), 1 / max(len(rows), 1))
        text = f"{label} (n = {len(rows)})"
        axes.hist(rows, np.linspace(0, 1, 41), weights=share, alpha=0.6, color=colour, label=text)
    at = record["threshold"]
    axes.axvline(at["value"], color="black", lw=1, label=f"threshold {at['value']:.3f}")
    conformal = record["conformal"]
    band = sorted((conformal["live_from"], conformal["dead_to"]))
    label = f"abstain: {conformal['abstention']:.1%}"
    axes.axvspan(*band, color=GREY, alpha=0.2, lw=0, label=label)
    axes.set(xlabel="live probability", ylabel="share of the class's patches")
    legend_below(figure)
    return figure


def slice_figure(record: dict) -> Figure:
    """AUC and balanced accuracy of every slice that has both classes; hollow where one has fewer
    than FEW patches.
    """
    rows = [row for row in record["slices"] if row["auc"] is not None][::-1]
    figure, axes = plt.subplots(figsize=(7.5, 1.6 + 0.24 * len(rows)), layout="constrained")
    y = np.arange(len(rows))
    few = np.array([min(r["n_live"], r["n_dead"]) < FEW for r in rows], bool)
    lowest = 0.45
    for name, title, marker, colour in (
        ("auc", "AUC", "o", "black"),
        ("balanced_accuracy", "balanced accuracy", "s", LIVE_DEAD["dead"]),
    ):
        x = np.array([r[name] for r in rows], float)
        lowest = min([lowest, *x])
        axes.plot(x[~few], y[~few], marker, color=colour, ms=4, label=title)
        axes.plot(x[few], y[few], marker, color=colour, ms=4, mfc="none")
    names = [f"{r['slice']}: {r['value']} ({r['n_live']} live, {r['n_dead']} dead)" for r in rows]
    axes.set_yticks(y, names, fontsize=7)
    axes.axvline(0.5, ls=":", color=GREY, lw=1)
    axes.set_xlim(lowest - 0.03, 1.02)
    axes.grid(axis="x", alpha=0.3)
    legend_below(figure, title=f"hollow: fewer than {FEW} patches of a class")
    return figure
