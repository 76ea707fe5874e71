"""Dose responses and time courses of a plate's compounds."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .dose import curve, dosed_and_zero
from .look import FAINT, HUES, INK, SOFT, label, plain

YLIM, YLABEL = (-0.04, 1.04), "live-patch fraction"


def dose_figure(
    compound: str, fits: list[dict], wells: pd.DataFrame, plate: dict, suffix: str
) -> Figure:
    """A compound's wells, intervals and fitted curves, one colour per experiment and time; controls
    at the left.
    """
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    own = wells.loc[wells["compound"] == compound, "concentration"]
    lowest, highest = own[own > 0].min(), own.max()
    for colour, fit in zip(HUES * len(fits), fits):
        dosed, zero = dosed_and_zero(wells, compound, fit["experiment"], fit["time"])
        name = label(fit["experiment"], fit["time"], plate["time_column"])
        text = f"{name}: IC50 {fit['text']}" if name else f"IC50 {fit['text']}"
        _points(axes, dosed, dosed["concentration"], colour)
        _points(axes, zero, np.full(len(zero), lowest / 4), colour, marker="s")
        _curve(axes, fit, colour, textwrap.fill(text, 88))
    axes.set_xscale("log")
    decades = np.arange(np.floor(np.log10(lowest / 2)), np.ceil(np.log10(highest)) + 1)
    axes.set_xticks([10**d for d in decades if lowest / 2 < 10**d < 2 * highest])
    axes.minorticks_off()
    axes.axvline(lowest / 2, color=FAINT, lw=1)
    axes.text(lowest / 4, 1.06, "none", ha="center", va="bottom", fontsize=8, color=SOFT)
    axes.set(ylim=YLIM, xlabel="concentration (unit of the manifest)", ylabel=YLABEL)
    axes.set_title(f"{plain(compound)}{suffix}", loc="left", pad=16)
    figure.legend(loc="outside lower left", fontsize=8, frameon=False)
    return figure


def _points(axes: Axes, part: pd.DataFrame, x, colour: str, marker: str = "o") -> None:
    """Wells with the intervals over their fields, where there are any."""
    y = part["live_patch_fraction"].to_numpy(float)
    low, high = (part[name].to_numpy(float) for name in ("low", "high"))
    error = np.nan_to_num([np.clip(y - low, 0, None), np.clip(high - y, 0, None)])
    look = {"ms": 4.5, "mec": "white", "mew": 0.5, "elinewidth": 0.8, "alpha": 0.75}
    axes.errorbar(x, y, yerr=error, fmt=marker, color=colour, **look)


def _curve(axes: Axes, fit: dict, colour: str, text: str) -> None:
    if fit["outcome"] != "fitted":
        axes.plot([], [], "o", color=colour, label=text)
        return
    x = np.geomspace(fit["lowest"] / 1.5, fit["highest"] * 1.5, 200)
    y = curve(x, fit["top"], fit["bottom"], np.log10(fit["ic50"]), fit["hill"])
    axes.plot(x, y, color=colour, lw=1.8, label=text)
    axes.axvline(fit["ic50"], color=colour, lw=0.8, ls="--")
    low, high = fit["low"] or fit["lowest"], fit["high"] or fit["highest"]
    axes.axvspan(max(low, fit["lowest"]), min(high, fit["highest"]), color=colour, alpha=0.1, lw=0)


def courses(wells: pd.DataFrame) -> list[str]:
    """Compounds (or '' for all wells, where no compound is known) that were called at two times or
    more.
    """
    called = wells.dropna(subset=["live_patch_fraction"])
    seen = called[called["control"] == ""].groupby("compound")["time"].nunique()
    return sorted(seen[seen > 1].index)


def time_figure(compound: str, wells: pd.DataFrame, column: str, suffix: str) -> Figure:
    """The mean live-patch fraction over time by concentration, dots for wells, and the controls in
    grey.
    """
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    own = wells[(wells["compound"] == compound) & (wells["control"] == "")]
    levels = sorted(own["concentration"].dropna().unique())
    groups = [(f"{level:.4g}", own[own["concentration"] == level]) for level in levels]
    groups += [("no concentration", own[own["concentration"].isna()])]
    colours = [*plt.get_cmap("viridis")(np.linspace(0.05, 0.85, len(levels))), INK]
    for name, line in (("negative", "--"), ("positive", ":")):
        _course(axes, wells[wells["control"] == name], SOFT, f"{name} control", line)
    for colour, (name, part) in zip(colours, groups):
        _course(axes, part, colour, name, "-")
    axes.set(ylim=YLIM, xlabel=f"{column} (unit of the manifest)", ylabel=YLABEL)
    axes.set_title(f"{plain(compound) or 'Wells'} over {column}{suffix}", loc="left")
    axes.legend(
        fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), title="concentration"
    )
    return figure


def _course(axes: Axes, part: pd.DataFrame, colour, name: str, line: str) -> None:
    if part["live_patch_fraction"].notna().any():
        mean = part.groupby("time")["live_patch_fraction"].mean()
        axes.plot(mean.index, mean, line, color=colour, lw=1.8, label=name)
        axes.plot(part["time"], part["live_patch_fraction"], ".", color=colour, ms=4, alpha=0.6)
