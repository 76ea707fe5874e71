"""Figures of a scored plate: heat map, dose responses, time courses. Colour-blind safe; values are
printed.
"""

import re
import textwrap
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from ..common.images.wells import FORMATS, place, row_name
from .dose import curve
from .layout import plate_format
from .words import DASH, FEWEST_CALLS

DPI, INK, GREY, FAINT = 130, "#1d2733", "#6b7680", "#dfe4e8"
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]  # Okabe and Ito 2008
PANELS = 12  # heat maps in one figure
STYLE = {
    "font.size": 9, "axes.edgecolor": GREY, "axes.labelcolor": INK, "text.color": INK, "xtick.color": GREY,
    "ytick.color": GREY, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10,
}  # fmt: skip


def draw(out: Path, wells: pd.DataFrame, plate: dict) -> dict[str, list[str]]:
    """Writes plate.png, dose-*.png and time-*.png into OUT; returns their names by kind.

    A compound of which no concentration is known has no figure of its dose response.
    """
    matplotlib.use("Agg")
    suffix = " (synthetic model)" if plate["model"].get("synthetic") else ""
    made: dict[str, list[str]] = {"plate": [], "dose": [], "time": []}
    with plt.rc_context(STYLE):
        if (figure := heat_maps(wells, suffix, plate["time_column"])) is not None:
            made["plate"].append(_save(figure, out / "plate.png"))
        fits = pd.DataFrame([row for row in plate["doses"] if row["concentrations"]])
        for name, group in fits.groupby("compound", sort=True) if len(fits) else ():
            figure = dose_figure(name, group.to_dict("records"), wells, plate, suffix)
            made["dose"].append(_save(figure, out / f"dose-{file_name(name)}.png"))
        for name in courses(wells):
            figure = time_figure(name, wells, plate["time_column"], suffix)
            made["time"].append(_save(figure, out / f"time-{file_name(name) or 'wells'}.png"))
    return made


def file_name(name: str) -> str:
    """A compound's name as part of a file's."""
    return re.sub(r"[^\w.+-]", "_", name)


def label(experiment: str, time: float | None, column: str) -> str:
    """How a plate and time are named in titles."""
    parts = [experiment, "" if time is None or pd.isna(time) else f"{column or 'time'} {time:g}"]
    return ", ".join(part for part in parts if part)


# --- heat map


def heat_maps(wells: pd.DataFrame, suffix: str, column: str) -> Figure | None:
    """A heat map per experiment and time, at most PANELS evenly chosen; None where no plate format
    fits.
    """
    groups = list(wells.groupby(["experiment", "time"], dropna=False, sort=True))
    groups = [(key, part) for key, part in groups if plate_format(part["well"])]
    if not groups:
        return None
    chosen = [
        groups[i]
        for i in np.unique(np.linspace(0, len(groups) - 1, min(PANELS, len(groups))).astype(int))
    ]
    small = len(chosen) > 1 and all(plate_format(part["well"]) == 96 for _, part in chosen)
    across = 2 if small else 1  # printed values must stay readable at the width of the page
    down = -(-len(chosen) // across)
    size = (11, 7.9 * down) if across == 1 else (15, 5.5 * down)
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(chosen) :]:
        axis.axis("off")
    for axis, ((experiment, time), part) in zip(axes.flat, chosen):
        image = heat_map(axis, part)
        title = label(experiment, time, column)
        shown = "" if len(chosen) == len(groups) else f" ({len(chosen)} of {len(groups)} shown)"
        axis.set_title(f"{title or 'Plate'}{suffix}{shown}", loc="left", pad=22)
    figure.colorbar(
        image, ax=axes, shrink=0.7 / down, anchor=(0, 1), pad=0.01, label="live-patch fraction, %"
    ).outline.set_visible(False)
    return figure


def heat_map(axes: Axes, part: pd.DataFrame):
    """One plate: percent of live patches printed in each well; a ring where no well was scored, ?
    without calls.
    """
    form = plate_format(part["well"])
    height, width = FORMATS[form]
    values = np.full((height, width), np.nan)
    for row in part.itertuples():
        values[place(row.well)] = 100 * row.live_patch_fraction if _enough(row) else np.nan
    image = axes.imshow(values, cmap="cividis", vmin=0, vmax=100)
    font = {96: 8.5, 384: 5.5, 1536: 2.6}[form]
    seen = {place(row.well): row for row in part.itertuples()}
    for at in np.ndindex(height, width):
        _well(axes, at, seen.get(at), font)
    axes.set_xticks(range(width), range(1, width + 1))
    axes.set_yticks(range(height), [row_name(row) for row in range(height)])
    axes.tick_params(
        length=0,
        top=True,
        labeltop=True,
        bottom=False,
        labelbottom=False,
        labelsize=min(9, font + 2),
    )
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(width + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(height + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1.2 if form == 96 else 0.5)
    axes.tick_params(which="minor", length=0)
    note = (
        "N negative control    P positive control    F images left out    ring: no well scored\n"
        f"? nothing called    {DASH} fewer than {FEWEST_CALLS} patches called"
    )
    axes.set_xlabel(note, fontsize=8, color=GREY)
    return image


def _enough(row) -> bool:
    return row.live + row.dead >= FEWEST_CALLS


def _well(axes: Axes, at: tuple[int, int], row, font: float) -> None:
    y, x = at
    if row is None:
        axes.add_patch(Circle((x, y), 0.3, fill=False, ec=FAINT, lw=0.8))
        return
    if not _enough(row):
        few = "?" if np.isnan(row.live_patch_fraction) else DASH
        axes.text(x, y, few, ha="center", va="center", color=GREY, fontsize=font + 2)
    else:
        percent = 100 * row.live_patch_fraction
        ink = "white" if percent < 55 else INK
        axes.text(x, y, f"{percent:.0f}", ha="center", va="center", color=ink, fontsize=font)
    dark = _enough(row) and row.live_patch_fraction < 0.55
    mark = {"negative": "N", "positive": "P"}.get(row.control, "")
    corner = {
        "fontsize": font * 0.85,
        "color": "white" if dark else INK,
        "ha": "center",
        "va": "center",
    }
    if mark:
        axes.text(x - 0.34, y - 0.34, mark, fontweight="bold", **corner)
    if row.left_out:
        axes.text(x + 0.34, y - 0.34, "F", **corner)


# --- dose response


def dose_figure(
    compound: str, fits: list[dict], wells: pd.DataFrame, plate: dict, suffix: str
) -> Figure:
    """A compound's wells, intervals and fitted curves, one colour per experiment and time; controls
    at the left.
    """
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    positive = wells.loc[
        (wells["compound"] == compound) & (wells["concentration"] > 0), "concentration"
    ]
    for colour, found in zip(COLOURS * len(fits), fits):
        part = _same(wells, found)
        own = part[
            (part["compound"] == compound) & (part["concentration"] > 0) & (part["control"] == "")
        ]
        zero = part[
            (part["control"] == "negative")
            | ((part["compound"] == compound) & (part["concentration"] == 0))
        ]
        name = label(found["experiment"], found["time"], plate["time_column"])
        _points(axes, own, own["concentration"], colour)
        _points(axes, zero, np.full(len(zero), positive.min() / 4), colour, marker="s")
        _curve(
            axes,
            found,
            colour,
            f"{name}: IC50 {found['text']}" if name else f"IC50 {found['text']}",
        )
    axes.set_xscale("log")
    decades = np.arange(
        np.floor(np.log10(positive.min() / 2)), np.ceil(np.log10(positive.max())) + 1
    )
    axes.set_xticks([10**d for d in decades if positive.min() / 2 < 10**d < 2 * positive.max()])
    axes.minorticks_off()
    axes.axvline(positive.min() / 2, color=FAINT, lw=1)
    axes.text(positive.min() / 4, 1.06, "none", ha="center", va="bottom", fontsize=8, color=GREY)
    axes.set(
        ylim=(-0.04, 1.04),
        xlabel="concentration (unit of the manifest)",
        ylabel="live-patch fraction",
    )
    axes.set_title(f"{compound}{suffix}", loc="left", pad=16)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        [_wrapped(text) for text in labels],
        loc="outside lower left",
        fontsize=8,
        frameon=False,
    )
    return figure


def _points(axes: Axes, part: pd.DataFrame, x, colour: str, marker: str = "o") -> None:
    """Wells with the intervals over their fields, where there are any."""
    y = part["live_patch_fraction"].to_numpy(float)
    low, high = (part[name].to_numpy(float) for name in ("low", "high"))
    error = np.nan_to_num([np.clip(y - low, 0, None), np.clip(high - y, 0, None)])
    look = {"ms": 4.5, "mec": "white", "mew": 0.5, "elinewidth": 0.8, "alpha": 0.75}
    axes.errorbar(x, y, yerr=error, fmt=marker, color=colour, **look)


def _curve(axes: Axes, found: dict, colour: str, text: str) -> None:
    if found["outcome"] != "fitted":
        axes.plot([], [], "o", color=colour, label=text)
        return
    x = np.geomspace(found["lowest"] / 1.5, found["highest"] * 1.5, 200)
    y = curve(x, found["top"], found["bottom"], np.log10(found["ic50"]), found["hill"])
    axes.plot(x, y, color=colour, lw=1.8, label=text)
    axes.axvline(found["ic50"], color=colour, lw=0.8, ls="--")
    low, high = found["low"] or found["lowest"], found["high"] or found["highest"]
    axes.axvspan(
        max(low, found["lowest"]), min(high, found["highest"]), color=colour, alpha=0.1, lw=0
    )


def _same(wells: pd.DataFrame, found: dict) -> pd.DataFrame:
    time = (
        wells["time"].isna()
        if found["time"] is None or pd.isna(found["time"])
        else wells["time"] == found["time"]
    )
    return wells[(wells["experiment"] == found["experiment"]) & time]


def _wrapped(text: str, width: int = 88) -> str:
    return "\n".join(textwrap.wrap(text, width))


# --- time courses


def courses(wells: pd.DataFrame) -> list[str]:
    """Compounds (or '' for all wells, where no compound is known) that were seen at two times or
    more.
    """
    seen = wells[wells["control"] == ""].groupby("compound")["time"].nunique()
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
    for name in ("negative", "positive"):
        _course(
            axes,
            wells[wells["control"] == name],
            GREY,
            f"{name} control",
            "--" if name == "negative" else ":",
        )
    for colour, (name, part) in zip(colours, groups):
        _course(axes, part, colour, name, "-")
    axes.set(
        ylim=(-0.04, 1.04), xlabel=f"{column} (unit of the manifest)", ylabel="live-patch fraction"
    )
    axes.set_title(f"{compound or 'Wells'} over {column}{suffix}", loc="left")
    axes.legend(
        fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), title="concentration"
    )
    return figure


def _course(axes: Axes, part: pd.DataFrame, colour, name: str, line: str) -> None:
    if part["live_patch_fraction"].notna().any():
        mean = part.groupby("time")["live_patch_fraction"].mean()
        axes.plot(mean.index, mean, line, color=colour, lw=1.8, label=name)
        axes.plot(part["time"], part["live_patch_fraction"], ".", color=colour, ms=4, alpha=0.6)


def _save(figure: Figure, path: Path) -> str:
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)
    return path.name
