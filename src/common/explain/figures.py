"""Figures of an explanation: Grad-CAM beside bright-field and PI (the paper's Fig. 6), mistakes."""

from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from ..patches.store import PatchStore
from ..scoring.networks.backbones import CLASSES
from .gradcam import enlarge
from .pi_agreement import BRIGHT, pi_ratio, stained_nuclei

HEAT = "inferno"
# Of the field's background, for all panels: a field without stained nuclei stays dark
PI_RANGE = (0.8, 5.0)
PI_NOTE = f"PI from {PI_RANGE[0]} to {PI_RANGE[1]:g} times the field's background"
PI_NOTE += f"; outlined: nuclei, above {BRIGHT:g} times their surroundings"


@dataclass(frozen=True)
class Panel:
    """One window as a figure shows it: uint8 bright-field, PI over its background, stained nuclei,
    raw maps, lines.
    """

    brightfield: np.ndarray
    pi: np.ndarray
    nuclei: np.ndarray
    maps: dict[str, np.ndarray]
    title: str
    captions: dict[str, str]


def panel(store: PatchStore, row, maps: dict[str, np.ndarray], title: str) -> Panel:
    """What figures show of a row (image_id, y, x, size, mean_pi, probability) and its raw maps."""
    where = (row.image_id, row.y, row.x, row.size)
    captions = {"pi": f"PI, mean {row.mean_pi:.4g} counts"}
    scores = {"dead": 1 - row.probability, "live": row.probability}
    for label, cam in maps.items():
        captions[label] = f"{label} {scores[label]:.2f}, max {cam.max():.3f}"
    name = row.image_id if len(row.image_id) <= 22 else f"{row.image_id[:10]}...{row.image_id[-9:]}"
    title = f"{title}\n{name}"  # short enough to fit over its window
    window, nuclei = store.window(*where), stained_nuclei(store, *where)
    return Panel(window, pi_ratio(store, *where), nuclei, maps, title, captions)


def gradcam_figure(blocks: dict[str, list[Panel]], title: str, scale: float) -> Figure:
    """Fig. 6: blocks of windows side by side; each window's bright-field, PI and raw class maps.

    All maps share one scale, 0 to `scale` (logit units per map cell); a value of zero leaves the
    bright-field as it is.
    """
    rows, width = max(1, *(len(panels) for panels in blocks.values())), 2 + len(CLASSES)
    columns = width * len(blocks)
    figure, axes = _grid(rows, columns, (1.62 * columns + 0.9, 1.95 * rows + 1.2))
    for block, (name, panels) in enumerate(blocks.items()):
        first = axes[0, block * width]
        text = name if panels else f"{name}: none"
        first.text(0, 1.38, text, transform=first.transAxes, fontsize=10, weight="bold")
        for row, panel in enumerate(panels):
            _draw_panel(axes[row, block * width : (block + 1) * width], panel, scale)
    norm = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, scale), HEAT)
    bar = figure.colorbar(norm, ax=axes, shrink=0.5, aspect=40, pad=0.01)
    bar.set_label("Grad-CAM, logit units per map cell; one scale for all", fontsize=9)
    calls = (
        "scores: calibrated probabilities; calls: conformal, "
        "by limits from validation and not by the higher score"
    )
    figure.suptitle(f"{title}\n{calls}\n{PI_NOTE}", fontsize=9)
    return figure


def _grid(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, np.ndarray]:
    """A figure of that size in inches and its axes (rows, columns), without frames."""
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    return figure, axes


def _draw_panel(axes: np.ndarray, panel: Panel, scale: float) -> None:
    axes[0].imshow(panel.brightfield, cmap="gray", vmin=0, vmax=255)
    axes[0].set_title(panel.title, fontsize=7, loc="left")
    _draw_pi(axes[1], panel)
    for axis, label in zip(axes[2:], CLASSES):
        axis.imshow(overlay(panel.brightfield, panel.maps[label], scale))
        axis.set_title(panel.captions[label], fontsize=7, loc="left")


def _draw_pi(axis, panel: Panel) -> None:
    axis.imshow(panel.pi, cmap="gray", vmin=PI_RANGE[0], vmax=PI_RANGE[1])
    if panel.nuclei.any() and not panel.nuclei.all():
        axis.contour(panel.nuclei, [0.5], colors="#00b7ff", linewidths=0.7)
    axis.set_title(panel.captions["pi"], fontsize=7, loc="left")


def overlay(window: np.ndarray, cam: np.ndarray, scale: float) -> np.ndarray:
    """A window (s, s) uint8 under a raw map (h, w) as RGB (s, s, 3) in 0..1; higher values cover
    more.
    """
    value = np.clip(enlarge(cam, len(window)) / scale, 0, 1)[..., None]
    heat = matplotlib.colormaps[HEAT](value[..., 0])[..., :3]
    alpha = 0.8 * np.sqrt(value)
    return (1 - alpha) * (window[..., None] / 255) + alpha * heat


def error_figure(panels: list[Panel], title: str) -> Figure:
    """The most confident mistakes: bright-field and PI beside each other, with truth, score and
    image.
    """
    columns = 3
    rows = max(1, -(-len(panels) // columns))
    height = (2.25 if panels else 0.4) * rows + 0.7
    figure, axes = _grid(rows, 2 * columns, (3.9 * columns, height))
    for i, panel in enumerate(panels):
        left, right = axes[i // columns, 2 * (i % columns) : 2 * (i % columns) + 2]
        left.imshow(panel.brightfield, cmap="gray", vmin=0, vmax=255)
        left.set_title(panel.title, fontsize=7, loc="left")
        _draw_pi(right, panel)
    if not panels:
        axes[0, 0].text(0, 0.5, "no wrong calls on the test split", fontsize=10)
    figure.suptitle(f"{title}\n{PI_NOTE}", fontsize=10)
    return figure
