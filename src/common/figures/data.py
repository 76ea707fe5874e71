"""Figures of the data stages: what the filter did (paper, Fig. 2b), and where the labels come from
(2a, 3a, 3b).
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from .style import LABELS, VERDICTS

COLOURS = VERDICTS | LABELS
UNITS = {"counts": "mean PI (16-bit counts)", "background_ratio": "mean PI / field's background"}
MAP_POINTS = 1500


def intensity_histograms(cells: pd.DataFrame, thresholds: dict) -> Figure:
    """Fig. 3a: per partition, the patches' intensity with the mixture's components and both
    thresholds.

    cells: partition, intensity; thresholds: the content of thresholds.json. The components are
    scaled to each partition, dotted where they were not fitted.
    """
    parts = list(cells.groupby("partition", sort=False))
    figure = Figure(figsize=(7, 0.6 + 3 * len(parts)), layout="constrained")
    rows = figure.subplots(len(parts), 1, sharex=True, squeeze=False)[:, 0]
    scale = np.log if thresholds["log"] else np.asarray
    low, high = cells["intensity"].min(), np.percentile(cells["intensity"], 99.7)
    edges = np.linspace(scale(low), scale(max(high, low * 1.001 + 1e-6)), 80)
    for axes, (partition, part) in zip(rows, parts, strict=True):
        axes.hist(
            scale(part["intensity"].to_numpy()),
            edges,
            color="#c9d3da",
            label=f"{len(part)} patches",
        )
        here = thresholds["fit_on"] == "all" or partition in thresholds["fit_on"]
        for component in thresholds["components"]:
            _component(axes, component, edges, len(part), "-" if here else ":")
        for name, bound in (
            ("live below", thresholds["live_below"]),
            ("dead above", thresholds["dead_above"]),
        ):
            axes.axvline(
                scale(bound), color=COLOURS[name[:4]], linestyle="--", label=f"{name} {bound:.6g}"
            )
        axes.set(
            title=partition + ("" if here else " (thresholds applied, not fitted here)"),
            ylabel="patches",
        )
        axes.legend(fontsize=8, frameon=False)
    rows[-1].set_xlabel(("ln of " if thresholds["log"] else "") + UNITS[thresholds["intensity"]])
    return figure


def _component(axes: Axes, component: dict, edges: np.ndarray, count: int, style: str) -> None:
    x = np.linspace(edges[0], edges[-1], 400)
    mean, sd, name = component["mean"], component["sd"], component["name"]
    density = (
        component["weight"] * np.exp(-0.5 * ((x - mean) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
    )
    axes.plot(
        x,
        density * count * (edges[1] - edges[0]),
        style,
        color=COLOURS[name],
        label=f"{name} component",
    )


def intensity_scatter(cells: pd.DataFrame, thresholds: dict) -> Figure:
    """Fig.

    3b: the intensity of every patch, coloured by its label; cells: partition, intensity, label.
    """
    parts = list(cells.groupby("partition", sort=False))
    width = 0.6 + 4.6 * len(parts) if len(parts) > 1 else 6.5
    figure = Figure(figsize=(width, 4.4), layout="constrained")
    columns = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for axes, (partition, part) in zip(columns, parts, strict=True):
        place = np.arange(len(part))
        for name in ("live", "dead", "discarded"):
            own = (part["label"] == name).to_numpy()
            label = f"{name} ({own.sum()})"
            axes.scatter(
                place[own],
                part["intensity"][own],
                s=4,
                color=COLOURS[name],
                label=label,
                rasterized=True,
            )
        axes.axhline(thresholds["live_below"], color=COLOURS["live"], linestyle="--", linewidth=1)
        axes.axhline(thresholds["dead_above"], color=COLOURS["dead"], linestyle="--", linewidth=1)
        axes.set(
            xlabel="patch, in the order of the fields",
            yscale="log" if thresholds["log"] else "linear",
        )
        title = {"fontsize": 8, "markerscale": 3, "ncols": 3, "frameon": False, "title": partition}
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), **title)
    columns[0].set_ylabel(UNITS[thresholds["intensity"]])
    if thresholds["log"]:
        columns[0].yaxis.set_major_formatter(ScalarFormatter())
        columns[0].yaxis.set_minor_formatter(ScalarFormatter())
    return figure


def stain_sheet(store, cells: pd.DataFrame, seed: int, each: int = 8) -> Figure:
    """Fig. 2a: live and dead patches of each partition, bright-field above the same window's PI."""
    parts = [
        (p, n, t)
        for p, part in cells.groupby("partition", sort=False)
        for n, t in part.groupby("label")
        if n != "discarded"
    ]
    figure = Figure(figsize=(1.35 * each, 3.1 * len(parts)), layout="constrained")
    for band, (partition, label, table) in zip(
        np.atleast_1d(figure.subfigures(len(parts), 1)), parts, strict=True
    ):
        band.suptitle(
            f"{partition}: {label}; bright-field, and PI on its field's scale (intensity below)",
            fontsize=10,
            color=COLOURS[label],
        )
        shown = table.sample(min(each, len(table)), random_state=seed).sort_values("intensity")
        grid = band.subplots(2, each, squeeze=False)
        for axes in grid.ravel():
            axes.axis("off")
        for column, row in zip(grid.T, shown.itertuples()):
            place = (row.image_id, row.y, row.x, row.size)
            column[0].imshow(store.window(*place), cmap="gray", vmin=0, vmax=255)
            column[1].imshow(store.pi_window(*place), cmap="inferno", vmin=0, vmax=255)
            column[1].set_title(f"{row.intensity:.4g}", fontsize=8, y=-0.22)
    return figure


def contact_sheet(
    store,
    patches: pd.DataFrame,
    title: str,
    seed: int,
    nearest: bool = False,
    columns: int = 8,
    rows: int = 6,
) -> Figure:
    """Patches (image_id, y, x, size, verdict, score), framed in the colour of their verdict, in the
    order of the score.

    A seeded sample of them, or with `nearest` those whose score is nearest zero.
    """
    limit = columns * rows
    shown = (
        patches.loc[patches["score"].abs().sort_values(kind="stable").index[:limit]]
        if nearest
        else patches
    )
    shown = shown.sample(min(limit, len(shown)), random_state=seed).sort_values(
        "score", kind="stable"
    )
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(1.3 * columns, 0.6 + 1.5 * rows), layout="constrained")
    figure.suptitle(
        f"{title}: {len(shown)} of {len(patches)} patches, with the filter's score (above 0: cells)",
        fontsize=11,
    )
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(shown) :]:
        axes.axis("off")
    for axes, row in zip(grid, shown.itertuples()):
        axes.imshow(
            store.window(row.image_id, row.y, row.x, row.size), cmap="gray", vmin=0, vmax=255
        )
        axes.set_title(f"{row.verdict} {row.score:.2f}", fontsize=7, color=COLOURS[row.verdict])
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=COLOURS[row.verdict], linewidth=2)
    return figure


def barcodes(
    store, patches: pd.DataFrame, features: np.ndarray, seed: int, each: int = 5
) -> Figure:
    """Fig. 2b, right: dropped and kept patches beside their feature vectors, drawn as barcodes.

    Only the features that tell kept from dropped patches best stand here (at most 128), in one
    order for all.
    """
    kept = (patches["verdict"] == "cells").to_numpy()
    spread = features.std(axis=0) + 1e-9
    apart = (
        (features[kept].mean(axis=0) - features[~kept].mean(axis=0)) / spread
        if 0 < kept.sum() < len(kept)
        else spread
    )
    order = np.argsort(-np.abs(apart), kind="stable")[:128]
    order = order[np.argsort(apart[order], kind="stable")]
    scaled = (features - features.mean(axis=0)) / spread
    picks = [
        patches[side].sample(min(each, side.sum()), random_state=seed).index
        for side in (~kept, kept)
    ]
    shown = [index for pick in picks for index in pick]
    figure = Figure(figsize=(9, 0.7 + 1.05 * len(shown)), layout="constrained")
    figure.suptitle(
        f"Patches and the {len(order)} features that differ most between dropped and kept",
        fontsize=11,
    )
    grid = figure.subplots(len(shown), 2, width_ratios=[1, 7], squeeze=False)
    for (picture, code), index in zip(grid, shown, strict=True):
        row = patches.loc[index]
        picture.imshow(
            store.window(row["image_id"], row["y"], row["x"], row["size"]),
            cmap="gray",
            vmin=0,
            vmax=255,
        )
        picture.set_ylabel(row["verdict"], color=COLOURS[row["verdict"]], fontsize=9)
        code.imshow(scaled[index, order][None], aspect="auto", cmap="gray", vmin=-2, vmax=2)
        for axes in (picture, code):
            axes.set(xticks=[], yticks=[])
    return figure


def map_sample(annotation: pd.Series, seed: int) -> np.ndarray:
    """Rows for the map: all annotated ones, and a seeded choice of the others up to MAP_POINTS in
    all.
    """
    marked = (annotation != "").to_numpy()
    fixed, free = np.flatnonzero(marked), np.flatnonzero(~marked)
    count = min(len(free), max(MAP_POINTS - len(fixed), 0))
    return np.sort(np.append(fixed, np.random.default_rng(seed).choice(free, count, replace=False)))


def feature_map(table: pd.DataFrame, place: np.ndarray, total: int) -> Figure:
    """Fig. 2b, left: the map, shaded by the filter's decision function; annotated windows have a
    rim.

    table: verdict, score, annotation ('' for most), its rows as in `place` (N, 2), a sample of
    `total` patches. Between points the shade is the mean score of the 15 nearest.
    """
    table = table.reset_index(drop=True)
    figure = Figure(figsize=(8, 6.4), layout="constrained")
    axes = figure.subplots()
    _shade(figure, axes, place, table["score"].to_numpy())
    for name, own in table.groupby("verdict", sort=True):
        axes.scatter(
            *place[own.index].T,
            s=9,
            color=COLOURS[name],
            label=f"{name} ({len(own)})",
            linewidths=0,
        )
    for name, own in table[table["annotation"] != ""].groupby("annotation", sort=True):
        rim = {"s": 26, "facecolors": "none", "edgecolors": COLOURS[name], "linewidths": 1.1}
        axes.scatter(*place[own.index].T, label=f"annotated {name} ({len(own)})", **rim)
    axes.set(
        xticks=[], yticks=[], title=f"t-SNE of backbone features, {len(table)} of {total} patches"
    )
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.01), ncols=3, frameon=False)
    return figure


def _shade(figure: Figure, axes: Axes, place: np.ndarray, score: np.ndarray) -> None:
    from sklearn.neighbors import KNeighborsRegressor

    low, high = place.min(axis=0), place.max(axis=0)
    margin = 0.05 * (high - low) + 1e-6
    x, y = (np.linspace(a, b, 160) for a, b in zip(low - margin, high + margin, strict=True))
    nearest = KNeighborsRegressor(min(15, len(place)), weights="distance").fit(place, score)
    shade = nearest.predict(np.column_stack([g.ravel() for g in np.meshgrid(x, y)])).reshape(
        len(y), len(x)
    )
    top = max(1e-6, float(np.percentile(np.abs(score), 98)))
    drawn = axes.pcolormesh(
        x,
        y,
        shade,
        cmap="PuOr",
        norm=TwoSlopeNorm(0, -top, top),
        alpha=0.5,
        shading="nearest",
        rasterized=True,
    )
    figure.colorbar(drawn, ax=axes, label="decision function (above 0: cells)", shrink=0.8)
