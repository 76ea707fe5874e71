"""Figures of what the empty-patch filter did (the paper's Fig. 2b)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from ..figures.style import VERDICT_COLOURS

MAP_POINTS = 1500


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
        (
            f"{title}: {len(shown)} of {len(patches)} patches, "
            "with the filter's score (above 0: cells)"
        ),
        fontsize=11,
    )
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(shown) :]:
        axes.axis("off")
    for axes, row in zip(grid, shown.itertuples()):
        axes.imshow(
            store.window(row.image_id, row.y, row.x, row.size), cmap="gray", vmin=0, vmax=255
        )
        axes.set_title(
            f"{row.verdict} {row.score:.2f}", fontsize=7, color=VERDICT_COLOURS[row.verdict]
        )
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=VERDICT_COLOURS[row.verdict], linewidth=2)
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
        axes.scatter(
            *place[own.index].T,
            s=9,
            color=VERDICT_COLOURS[name],
            label=f"{name} ({len(own)})",
            linewidths=0,
        )
    rim = {"s": 26, "facecolors": "none", "linewidths": 1.1}
    for name, own in table[table["annotation"] != ""].groupby("annotation", sort=True):
        label = f"annotated {name} ({len(own)})"
        axes.scatter(*place[own.index].T, label=label, edgecolors=VERDICT_COLOURS[name], **rim)
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
