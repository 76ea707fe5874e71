"""An image with its live probability as colour, and a mark for each call in the middle of its
window.

Windows overlap, so a single one cannot be painted; the field is cut where any window starts or
ends, and a part's colour is the mean over the windows with cells that hold it. Colours from dead
(vermilion) to live (blue) are told apart with any kind of colour vision (Okabe and Ito 2008).
"""

import io
from textwrap import shorten

import cv2
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from ..common.scoring.frames.windows import in_pixels
from .fractions import of_image

CALL_MAP = LinearSegmentedColormap.from_list("calls", ["#D55E00", "#F2F2F2", "#0072B2"])
UNLIKE = "#F0E442"
TINT, DIM = 0.38, 0.45  # how strong the colour is, and how dark what is not called
WIDTH, DPI = 1100, 110  # px of the picture
# Inches above, below and beside the image: title, legend, margin
HEAD, FOOT, EDGE = 0.47, 0.98, 0.11
MARKS = {"live": ("o", "#0072B2"), "dead": ("s", "#D55E00"), "abstain": ("o", "none")}
MARK, BAR_TEXT = 14, 18  # points; the page shows the picture at a third of its size
BARS = (5, 10, 20, 50, 100, 200, 500, 1000)  # um
JPEG_QUALITY = 88
SAID = {"live": "live", "dead": "dead", "abstain": "abstained"}


def draw(
    frame8: np.ndarray,
    windows: pd.DataFrame,
    contract: dict,
    pixel_size_um: float | None,
    flags: list,
) -> bytes:
    """A JPEG of an 8-bit frame (H, W) with its windows' calls, legend and scale bar; flags: why it
    is not trusted.
    """
    height, width = frame8.shape
    inches = WIDTH / DPI
    across = inches - 2 * EDGE
    picture = across * height / width
    total = picture + HEAD + FOOT
    figure = Figure(figsize=(inches, total), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((EDGE / inches, FOOT / total, across / inches, picture / total))
    seen = tinted(frame8, windows, round(across * DPI))
    axes.imshow(seen, interpolation="nearest", extent=(0, width, height, 0))
    axes.set_axis_off()
    _hatch(axes, windows, frame8.shape)
    _mark(axes, windows)
    _scale_bar(axes, frame8.shape, pixel_size_um)
    model = "SYNTHETIC model, not a result. " if contract["synthetic"] else ""
    stride = in_pixels(contract["tile"]["stride"], contract["tile"]["unit"], pixel_size_um)
    told = model + title(windows, stride)
    figure.text(0.01, 1 - 0.06 / total, told, va="top", fontsize=11, weight="bold")
    below = "flagged, not counted: " + "; ".join(flags) if flags else ""
    below = shorten(below, 150, placeholder=" ...")
    figure.text(0.01, 1 - 0.27 / total, below, va="top", fontsize=9, color="#9b1c31")
    _legend(figure, total, contract["operating"])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpg", pil_kwargs={"quality": JPEG_QUALITY})
    return buffer.getvalue()


def title(windows: pd.DataFrame, stride: int) -> str:
    """What was called in the image, in words."""
    seen = of_image(windows, stride)
    fraction = seen["live_patch_fraction"]
    share = f"live-patch fraction {fraction:.0%}" if fraction == fraction else "nothing called"
    called = ", ".join(f"{seen[name]} {word}" for name, word in SAID.items())
    return f"{share}: {called}, of {len(windows)} windows"


def parts(
    windows: pd.DataFrame, shape: tuple[int, int], values: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Mean of values (N,) over the windows that hold each part of the frame, NaN where none does.

    Returns (means (R, C), edges of rows (R + 1,), edges of columns (C + 1,)); windows whose value
    is NaN do not count.
    """
    rows, columns = (_edges(windows, axis, length) for axis, length in zip("yx", shape))
    sums, numbers = np.zeros((2, len(rows) - 1, len(columns) - 1))
    for y, x, size, value in zip(windows["y"], windows["x"], windows["size"], values):
        if value == value:
            place = (
                slice(*np.searchsorted(rows, (y, y + size))),
                slice(*np.searchsorted(columns, (x, x + size))),
            )
            sums[place] += value
            numbers[place] += 1
    return np.where(numbers > 0, sums / np.maximum(numbers, 1), np.nan), rows, columns


def tinted(frame8: np.ndarray, windows: pd.DataFrame, across: int) -> np.ndarray:
    """The frame (H, W), `across` px wide if it is wider: RGB (h, w, 3) uint8, coloured where
    windows with cells lie, darkened where there are none.
    """
    means, *edges = parts(windows, frame8.shape, windows["live_probability"].to_numpy())
    scale = min(1.0, across / frame8.shape[1])
    rows, columns = (np.rint(scale * each).astype(int) for each in edges)
    grey = cv2.resize(frame8, (columns[-1], rows[-1]), interpolation=cv2.INTER_AREA)
    called = ~np.isnan(means)[..., None]
    # of each part, how much of the grey stays, and the colour that comes to it
    kept = np.where(called, 1 - TINT, DIM)
    colour = np.where(called, 255 * TINT * CALL_MAP(np.nan_to_num(means))[..., :3], 0)
    kept, colour = (
        np.repeat(np.repeat(each.astype(np.float32), np.diff(rows), 0), np.diff(columns), 1)
        for each in (kept, colour)
    )
    return np.rint(kept * grey[..., None] + colour).astype(np.uint8)


def _edges(windows: pd.DataFrame, axis: str, length: int) -> np.ndarray:
    return np.unique([0, length, *windows[axis], *(windows[axis] + windows["size"])])


def _hatch(axes, windows: pd.DataFrame, shape: tuple[int, int]) -> None:
    """Hatches what is unusable and has no cells window over it, and what is mostly unlike the
    training data.
    """
    cells = (windows["verdict"] == "cells").to_numpy()
    unusable = np.where(cells, -1.0, (windows["verdict"] == "unusable").to_numpy(float))
    unlike = np.where(cells, (windows["novelty"] > 1).to_numpy(float), np.nan)
    seen, rows, columns = parts(windows, shape, np.where(cells, 1.0, np.nan))
    for values, where, hatch, colour in (
        (unusable, np.isnan(seen), "xx", "#bbbbbb"),
        (unlike, ~np.isnan(seen), "//", UNLIKE),
    ):
        share, _, _ = parts(windows, shape, values)
        for r, c in zip(*np.nonzero(where & (np.nan_to_num(share) > 0.5))):
            corner = columns[c], rows[r]
            size = columns[c + 1] - columns[c], rows[r + 1] - rows[r]
            look = {"fill": False, "hatch": hatch, "edgecolor": colour, "lw": 0, "alpha": 0.8}
            axes.add_patch(Rectangle(corner, *size, **look))


def _mark(axes, windows: pd.DataFrame) -> None:
    """A dot (live), square (dead) or ring (abstained) in the middle of each window with cells."""
    for call, (shape, colour) in MARKS.items():
        rows = windows[windows["call"] == call]
        x, y = (rows[axis] + rows["size"] / 2 for axis in "xy")
        rim = "white" if colour != "none" else "black"
        axes.plot(x, y, shape, ms=MARK, mfc=colour, mec=rim, mew=2)


def _scale_bar(axes, shape: tuple[int, int], pixel_size_um: float | None) -> None:
    if not pixel_size_um:
        return
    height, width = shape
    length = max([bar for bar in BARS if bar / pixel_size_um <= 0.25 * width] or BARS[:1])
    pixels, margin = length / pixel_size_um, 0.025 * width
    x, y = width - margin - pixels, height - margin
    corner = x - margin / 2, y - 2.3 * margin
    axes.add_patch(Rectangle(corner, pixels + margin, 2.8 * margin, color="black", lw=0))
    axes.plot([x, x + pixels], [y, y], color="white", lw=4, solid_capstyle="butt")
    look = {"color": "white", "ha": "center", "va": "bottom", "fontsize": BAR_TEXT}
    axes.text(x + pixels / 2, y - 0.4 * margin, f"{length} µm", **look)


def _legend(figure: Figure, total: float, operating: dict) -> None:
    """Colours of the live probability with the band of abstention, and what else is marked."""
    axes = figure.add_axes((0.02, 0.5 / total, 0.36, 0.16 / total))
    ramp = (1 - TINT) * 0.55 + TINT * CALL_MAP(np.linspace(0, 1, 256))[None, :, :3]
    axes.imshow(ramp, aspect="auto", extent=(0, 1, 0, 1))
    low, high = sorted((operating["live_from"], operating["dead_to"]))
    low, high = max(low, 0), min(high, 1)
    for edge in (low, high):
        axes.axvline(edge, color="black", lw=1)
    axes.set_yticks([])
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.tick_params(labelsize=8, length=2, pad=2)
    meaning = "colour: mean live probability of the windows over each part"
    axes.set_xlabel(meaning, fontsize=9, labelpad=2)
    for at, text in ((low / 2, "dead"), ((low + high) / 2, "abstain"), ((1 + high) / 2, "live")):
        axes.text(at, 1.15, text, ha="center", va="bottom", fontsize=9)
    names = {"live": "window called live", "dead": "window called dead"}
    names |= {"abstain": "window left open (abstain)"}
    marks = [
        Line2D([], [], ls="", marker=shape, ms=7, mfc=colour, mec="black", label=names[call])
        for call, (shape, colour) in MARKS.items()
    ]
    dark, away = {"facecolor": "#4d4d4d"}, "out of focus or border: not called"
    marks += [
        Patch(**dark, label="no cells: not called"),
        Patch(**dark, hatch="xxx", edgecolor="#bbbbbb", label=away),
        Patch(facecolor="#9a9a9a", hatch="///", edgecolor=UNLIKE, label="unlike the training data"),
    ]
    place = {"loc": "lower right", "bbox_to_anchor": (0.995, 0.06 / total), "ncols": 2}
    figure.legend(handles=marks, fontsize=9, frameon=False, columnspacing=1.2, **place)
