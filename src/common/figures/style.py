"""One look for all figures: the colours of what is told apart, and how a figure is written."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

LIVE_DEAD = {"live": "#1b7837", "dead": "#c51b7d"}
CALL_COLOURS = LIVE_DEAD | {"abstain": "#999999"}
LABEL_COLOURS = LIVE_DEAD | {"discarded": "#9a9a9a"}
VERDICT_COLOURS = {"cells": "#1b7f79", "empty": "#c8a020", "unusable": "#7a4b94"}
GREY = "#777777"
DPI = 120


def save_figure(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Writes a PNG without the date or version that would differ between runs, and closes it."""
    figure.savefig(path, dpi=dpi, metadata={"Software": None})
    plt.close(figure)


def save_figures(directory: Path, figures: Mapping[str, Figure], synthetic: bool) -> list[Path]:
    """Writes NAME.png for each figure, marked where the data are synthetic; returns the paths."""
    directory.mkdir(parents=True, exist_ok=True)
    mark = {"ha": "left", "va": "top", "fontsize": 9, "color": "#a00000"}
    paths = []
    for name, figure in figures.items():
        if synthetic:
            figure.text(0.005, 0.995, "synthetic data", **mark)
        paths.append(directory / f"{name}.png")
        save_figure(figure, paths[-1], dpi=110)
    return paths
