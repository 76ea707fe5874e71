"""Figures of the labels: where they come from (the paper's Fig. 2a, 3a, 3b)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from ..figures.style import LABEL_COLOURS
from ..workspace.tables import LABEL_NAMES

BOUNDS = {"live": "live_below", "dead": "dead_above"}
EACH = 8  # patches of a class
PI_AXES = {"counts": "mean PI (16-bit counts)", "background_ratio": "mean PI / field's background"}


def intensity_histograms(cells: pd.DataFrame, thresholds: dict) -> Figure:
    """Fig. 3a: per partition, the patches' intensity with the mixture's components and both
    thresholds.

    cells: partition, intensity; thresholds: the content of thresholds.json. The components are
    scaled to each partition, dotted where they were not fitted.
    """
    if thresholds["log"]:  # partitions that were not fitted may hold zeros
        cells = cells[cells["intensity"] > 0]
    parts = list(cells.groupby("partition", sort=False))
    figure = Figure(figsize=(7, 0.6 + 3 * len(parts)), layout="constrained")
    rows = figure.subplots(len(parts), 1, sharex=True, squeeze=False)[:, 0]
    scale = np.log if thresholds["log"] else np.asarray
    low, high = cells["intensity"].min(), np.percentile(cells["intensity"], 99.7)
    edges = np.linspace(scale(low), scale(max(high, low * 1.001 + 1e-6)), 80)
    for axes, (partition, part) in zip(rows, parts, strict=True):
        values = scale(part["intensity"].to_numpy())
        axes.hist(values, edges, color="#c9d3da", label=f"{len(part)} patches")
        here = thresholds["fit_on"] == "all" or partition in thresholds["fit_on"]
        for component in thresholds["components"]:
            _component(axes, component, edges, len(part), "-" if here else ":")
        for name, key in BOUNDS.items():
            line = {"color": LABEL_COLOURS[name], "linestyle": "--"}
            label = f"{key.replace('_', ' ')} {thresholds[key]:.6g}"
            axes.axvline(scale(thresholds[key]), label=label, **line)
        told = "" if here else " (thresholds applied, not fitted here)"
        axes.set(title=partition + told, ylabel="patches")
        axes.legend(fontsize=8, frameon=False)
    rows[-1].set_xlabel(("ln of " if thresholds["log"] else "") + PI_AXES[thresholds["intensity"]])
    return figure


def _component(axes: Axes, component: dict, edges: np.ndarray, count: int, style: str) -> None:
    x = np.linspace(edges[0], edges[-1], 400)
    mean, sd, name = component["mean"], component["sd"], component["name"]
    bell = component["weight"] * np.exp(-0.5 * ((x - mean) / sd) ** 2)
    patches = bell / (sd * np.sqrt(2 * np.pi)) * count * (edges[1] - edges[0])
    axes.plot(x, patches, style, color=LABEL_COLOURS[name], label=f"{name} component")


def intensity_scatter(cells: pd.DataFrame, thresholds: dict) -> Figure:
    """Fig. 3b: the intensity of every patch, coloured by its label.

    cells: partition, intensity, label."""
    parts = list(cells.groupby("partition", sort=False))
    width = 0.6 + 4.6 * len(parts) if len(parts) > 1 else 6.5
    figure = Figure(figsize=(width, 4.4), layout="constrained")
    columns = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for axes, (partition, part) in zip(columns, parts, strict=True):
        place = np.arange(len(part))
        for name in LABEL_NAMES:
            own = (part["label"] == name).to_numpy()
            dots = {"s": 4, "color": LABEL_COLOURS[name], "rasterized": True}
            label = f"{name} ({own.sum()})"
            axes.scatter(place[own], part["intensity"][own], label=label, **dots)
        for name, key in BOUNDS.items():
            line = {"color": LABEL_COLOURS[name], "linestyle": "--", "linewidth": 1}
            axes.axhline(thresholds[key], **line)
        scale = "log" if thresholds["log"] else "linear"
        axes.set(xlabel="patch, in the order of the fields", yscale=scale)
        title = {"fontsize": 8, "markerscale": 3, "ncols": 3, "frameon": False, "title": partition}
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), **title)
    columns[0].set_ylabel(PI_AXES[thresholds["intensity"]])
    if thresholds["log"]:
        columns[0].yaxis.set_major_formatter(ScalarFormatter())
        columns[0].yaxis.set_minor_formatter(ScalarFormatter())
    return figure


def stain_sheet(store, cells: pd.DataFrame, seed: int) -> Figure:
    """Fig. 2a: live and dead patches of each partition, bright-field above the same window's PI."""
    known = cells[cells["label"] != "discarded"]
    parts = [
        (partition, label, own)
        for partition, part in known.groupby("partition", sort=False)
        for label, own in part.groupby("label")
    ]
    figure = Figure(figsize=(1.35 * EACH, 3.1 * len(parts)), layout="constrained")
    bands = np.atleast_1d(figure.subfigures(len(parts), 1))
    for band, (partition, label, table) in zip(bands, parts, strict=True):
        title = f"{partition}: {label}; bright-field, and PI on its field's scale (intensity below)"
        band.suptitle(title, fontsize=10, color=LABEL_COLOURS[label])
        shown = table.sample(min(EACH, len(table)), random_state=seed).sort_values("intensity")
        grid = band.subplots(2, EACH, squeeze=False)
        for axes in grid.ravel():
            axes.axis("off")
        for column, row in zip(grid.T, shown.itertuples()):
            place = (row.image_id, row.y, row.x, row.size)
            column[0].imshow(store.window(*place), cmap="gray", vmin=0, vmax=255)
            column[1].imshow(store.pi_window(*place), cmap="inferno", vmin=0, vmax=255)
            column[1].set_title(f"{row.intensity:.4g}", fontsize=8, y=-0.22)
    return figure
