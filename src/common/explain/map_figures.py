"""Figures of an embedding map of windows (the paper's Fig. 5a-c)."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from ..figures.style import CALL_COLOURS, save_figure
from ..scoring.networks.backbones import CLASSES

CANVAS = 1500  # px, the longer side of the map of thumbnails


def embedding_figures(
    places: np.ndarray,
    rows: pd.DataFrame,
    windows: Sequence[np.ndarray],
    title: str,
    directory: Path,
) -> None:
    """Writes Fig. 5a-c of rows with `label` and `call`."""
    labels, calls = rows["label"].to_numpy(), rows["call"].to_numpy()
    figures = {
        "truth": embedding_figure(places, labels, title, "truth (PI)"),
        "call": embedding_figure(places, calls, title, "call"),
        "thumbnails": thumbnail_figure(places, windows, labels, title),
    }
    for name, figure in figures.items():
        save_figure(figure, directory / f"embedding_{name}.png")


def embedding_figure(places: np.ndarray, kinds: np.ndarray, title: str, legend: str) -> Figure:
    """Fig. 5a, b: places (N, 2) coloured by kind (N,): live, dead or abstain."""
    width, height = np.maximum(np.ptp(places, axis=0), 1e-12)
    figure, axes = plt.subplots(
        figsize=(6.4, np.clip(6.4 * height / width, 3, 9) + 0.5), layout="constrained"
    )
    order = np.random.default_rng(0).permutation(len(places))  # so that no class covers the other
    axes.scatter(
        *places[order].T, s=14, lw=0, alpha=0.75, c=[CALL_COLOURS[kind] for kind in kinds[order]]
    )
    for kind in [k for k in CALL_COLOURS if (kinds == k).any()]:
        axes.scatter(
            [], [], s=30, color=CALL_COLOURS[kind], label=f"{kind} (n = {(kinds == kind).sum()})"
        )
    _legend(figure, legend)
    _bare(axes, title)
    return figure


def thumbnail_figure(
    places: np.ndarray, windows: Sequence[np.ndarray], labels: np.ndarray, title: str
) -> Figure:
    """Fig. 5c: every place (N, 2) as the window (s, s) uint8 itself, framed in the colour of its
    label.
    """
    canvas = thumbnail_canvas(places, windows, labels)
    figure, axes = plt.subplots(
        figsize=(10, 10 * len(canvas) / canvas.shape[1] + 0.5), layout="constrained"
    )
    axes.imshow(canvas, interpolation="antialiased")
    for label in CLASSES:
        axes.plot([], [], "s", color=CALL_COLOURS[label], label=label)
    _legend(figure, "frame: truth (PI)")
    _bare(axes, title)
    return figure


def thumbnail_canvas(
    places: np.ndarray, windows: Sequence[np.ndarray], labels: np.ndarray, side: int = CANVAS
) -> np.ndarray:
    """White (h, w, 3) uint8, longer side `side`, with each window shrunk and framed at its place,
    later ones on top.

    Thumbnails are of 24 to 90 px, smaller the more there are.
    """
    size = int(np.clip(side * np.sqrt(0.5 / len(places)), 24, 90))
    corners = (places - places.min(0)) / max(np.ptp(places, axis=0).max(), 1e-12) * (side - size)
    corners = corners.round().astype(int)
    corners[:, 1] = corners[:, 1].max() - corners[:, 1]  # the map's second axis points up
    width, height = corners.max(0) + size
    canvas = np.full((height, width, 3), 255, np.uint8)
    for (x, y), window, label in zip(corners, windows, labels):
        small = cv2.resize(
            np.ascontiguousarray(window), (size - 4, size - 4), interpolation=cv2.INTER_AREA
        )
        canvas[y : y + size, x : x + size] = _rgb(CALL_COLOURS[label])
        canvas[y + 2 : y + size - 2, x + 2 : x + size - 2] = small[..., None]
    return canvas


def _legend(figure: Figure, title: str) -> None:
    """Below the axes, where it covers no window."""
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, title=title, title_fontsize=9)


def _bare(axes, title: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal")
    axes.set_title(title, fontsize=10)


def _rgb(colour: str) -> list[int]:
    return [round(255 * part) for part in matplotlib.colors.to_rgb(colour)]
