"""Heat map of a plate: the percent of live patches of each well, printed in it."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from ..common.images.wells import FORMATS, place, row_name
from .layout import plate_format
from .look import FAINT, INK, SOFT, evenly, label
from .words import DASH, FEWEST_CALLS

PANELS = 12  # heat maps in one figure


def heat_maps(wells: pd.DataFrame, suffix: str, column: str) -> Figure | None:
    """A heat map per experiment and time, at most PANELS evenly chosen; None where no plate format
    fits.
    """
    groups = list(wells.groupby(["experiment", "time"], dropna=False, sort=True))
    groups = [(key, part) for key, part in groups if plate_format(part["well"])]
    if not groups:
        return None
    chosen = [groups[i] for i in evenly(len(groups), PANELS)]
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
    seen = {place(row.well): row for row in part.itertuples()}
    values = np.full((height, width), np.nan)
    for at, row in seen.items():
        values[at] = 100 * row.live_patch_fraction if _enough(row) else np.nan
    image = axes.imshow(values, cmap="cividis", vmin=0, vmax=100)
    font = {96: 8.5, 384: 5.5, 1536: 2.6}[form]
    for at in np.ndindex(height, width):
        _well(axes, at, seen.get(at), font)
    axes.set_xticks(range(width), range(1, width + 1))
    axes.set_yticks(range(height), [row_name(row) for row in range(height)])
    above = {"top": True, "labeltop": True, "bottom": False, "labelbottom": False}
    axes.tick_params(length=0, labelsize=min(9, font + 2), **above)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(width + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(height + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1.2 if form == 96 else 0.5)
    axes.tick_params(which="minor", length=0)
    note = (
        "N negative control    P positive control    F images left out    ring: no well scored\n"
        f"? nothing called    {DASH} fewer than {FEWEST_CALLS} patches called"
    )
    axes.set_xlabel(note, fontsize=8, color=SOFT)
    return image


def _enough(row) -> bool:
    return row.live + row.dead >= FEWEST_CALLS


def _well(axes: Axes, at: tuple[int, int], row, font: float) -> None:
    y, x = at
    if row is None:
        axes.add_patch(Circle((x, y), 0.3, fill=False, ec=FAINT, lw=0.8))
        return
    percent, middle = 100 * row.live_patch_fraction, {"ha": "center", "va": "center"}
    ink = "white" if _enough(row) and percent < 55 else INK
    if _enough(row):
        axes.text(x, y, f"{percent:.0f}", color=ink, fontsize=font, **middle)
    else:
        few = "?" if np.isnan(percent) else DASH
        axes.text(x, y, few, color=SOFT, fontsize=font + 2, **middle)
    corner = middle | {"fontsize": font * 0.85, "color": ink}
    if mark := {"negative": "N", "positive": "P"}.get(row.control):
        axes.text(x - 0.34, y - 0.34, mark, fontweight="bold", **corner)
    if row.left_out:
        axes.text(x + 0.34, y - 0.34, "F", **corner)
