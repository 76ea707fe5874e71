"""Figures of what the empty-patch filter did (the paper's Fig. 2b)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from ..figures.style import VERDICT_COLOURS

MAP_POINTS = 1500
COLUMNS, SHEET = 8, 48  # of a contact sheet: columns, and patches at most
EACH = 5  # barcodes of kept and of dropped patches
GREYS = {"cmap": "gray", "vmin": 0, "vmax": 255}


def contact_sheet(
    store, patches: pd.DataFrame, title: str, seed: int, nearest: bool = False
) -> Figure:
    """Patches (image_id, y, x, size, verdict, score), framed in the colour of their verdict, in the
    order of the score.

    A seeded sample of them, or with `nearest` those whose score is nearest zero.
    """
    shown = patches
    if nearest:
        shown = patches.loc[patches["score"].abs().sort_values(kind="stable").index[:SHEET]]
    shown = shown.sample(min(SHEET, len(shown)), random_state=seed)
    shown = shown.sort_values("score", kind="stable")
    rows = max(1, -(-len(shown) // COLUMNS))
    figure = Figure(figsize=(1.3 * COLUMNS, 0.6 + 1.5 * rows), layout="constrained")
    held = f"{len(shown)} of {len(patches)} patches"
    figure.suptitle(f"{title}: {held}, with the filter's score (above 0: cells)", fontsize=11)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes in grid[len(shown) :]:
        axes.axis("off")
    for axes, row in zip(grid, shown.itertuples()):
        colour = VERDICT_COLOURS[row.verdict]
        axes.imshow(store.window(row.image_id, row.y, row.x, row.size), **GREYS)
        axes.set_title(f"{row.verdict} {row.score:.2f}", fontsize=7, color=colour)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=2)
    return figure


def barcodes(store, patches: pd.DataFrame, features: np.ndarray, seed: int) -> Figure:
    """Fig. 2b, right: dropped and kept patches beside their feature vectors, drawn as barcodes.

    Only the features that tell kept from dropped patches best stand here (at most 128), in one
    order for all.
    """
    kept = (patches["verdict"] == "cells").to_numpy()
    spread = features.std(axis=0) + 1e-9
    apart = spread
    if 0 < kept.sum() < len(kept):
        apart = (features[kept].mean(axis=0) - features[~kept].mean(axis=0)) / spread
    order = np.argsort(-np.abs(apart), kind="stable")[:128]
    order = order[np.argsort(apart[order], kind="stable")]
    scaled = (features - features.mean(axis=0)) / spread
    shown = []
    for side in (~kept, kept):
        shown += list(patches[side].sample(min(EACH, side.sum()), random_state=seed).index)
    figure = Figure(figsize=(9, 0.7 + 1.05 * len(shown)), layout="constrained")
    title = f"Patches and the {len(order)} features that differ most between dropped and kept"
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(len(shown), 2, width_ratios=[1, 7], squeeze=False)
    for (picture, code), index in zip(grid, shown, strict=True):
        row = patches.loc[index]
        picture.imshow(store.window(row["image_id"], row["y"], row["x"], row["size"]), **GREYS)
        picture.set_ylabel(row["verdict"], color=VERDICT_COLOURS[row["verdict"]], fontsize=9)
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
        dots = {"s": 9, "color": VERDICT_COLOURS[name], "linewidths": 0}
        axes.scatter(*place[own.index].T, label=f"{name} ({len(own)})", **dots)
    rim = {"s": 26, "facecolors": "none", "linewidths": 1.1}
    for name, own in table[table["annotation"] != ""].groupby("annotation", sort=True):
        label = f"annotated {name} ({len(own)})"
        axes.scatter(*place[own.index].T, label=label, edgecolors=VERDICT_COLOURS[name], **rim)
    title = f"t-SNE of backbone features, {len(table)} of {total} patches"
    axes.set(xticks=[], yticks=[], title=title)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.01), ncols=3, frameon=False)
    return figure


def _shade(figure: Figure, axes: Axes, place: np.ndarray, score: np.ndarray) -> None:
    from sklearn.neighbors import KNeighborsRegressor

    low, high = place.min(axis=0), place.max(axis=0)
    margin = 0.05 * (high - low) + 1e-6
    x, y = (np.linspace(a, b, 160) for a, b in zip(low - margin, high + margin, strict=True))
    nearest = KNeighborsRegressor(min(15, len(place)), weights="distance").fit(place, score)
    points = np.column_stack([g.ravel() for g in np.meshgrid(x, y)])
    shade = nearest.predict(points).reshape(len(y), len(x))
    top = max(1e-6, float(np.percentile(np.abs(score), 98)))
    look = {"cmap": "PuOr", "alpha": 0.5, "shading": "nearest", "rasterized": True}
    drawn = axes.pcolormesh(x, y, shade, norm=TwoSlopeNorm(0, -top, top), **look)
    figure.colorbar(drawn, ax=axes, label="decision function (above 0: cells)", shrink=0.8)
