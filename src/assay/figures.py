"""Figures of a scored plate: heat map, dose responses, time courses. Colour-blind safe; values are
printed.
"""

import hashlib
import re
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from ..common.figures.style import save_figure
from .curves import courses, dose_figure, time_figure
from .heat_map import heat_maps
from .look import DPI, LONGEST, STYLE


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
    """A compound's name as part of a file's: two names never give one file, nor any too long."""
    clean = re.sub(r"[^\w.+-]", "_", name)[:LONGEST]
    return clean if clean == name else f"{clean}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _save(figure: Figure, path: Path) -> str:
    save_figure(figure, path, DPI)
    return path.name
