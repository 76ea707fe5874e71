"""Rendering of one simulated field: what its cells look like in bright-field and in PI.

Cells are nearly clear: out of exact focus an image shows the curvature of their thickness (the
transport of intensity, Teague 1983; Streibl 1984). So `simulator_thickness` builds a map of the
layer and one of what lies above it, and `_phases` turns one into contrast by differences of blurs.
Only exact operations (`simulator_exact`), so the bytes are the same on any x86-64.
"""

import numpy as np

from .simulator_cells import Cells, FieldPlan
from .simulator_exact import add_ball, blur, clip, normal, smooth_field
from .simulator_thickness import thickness

WINDOW = 224  # px, the paper's patch: PI levels are stated as means over it
DEAD_LEVEL, DEAD_SPREAD = 745.0, 90.0  # mean PI and its sd where all cells are dead, counts
LIVE_SPREAD = 15.0  # sd of the smooth PI background, counts
CROWD = 30  # cells a window where the layer is closed; fewer have less PI together, more each
IMMUNE_DOSE = 0.3  # PI of a dead immune cell, of a tumour cell's
HAZE = 0.4  # share of PI light from out of focus


def render_brightfield(plan: FieldPlan, cells: Cells, rng: np.random.Generator) -> np.ndarray:
    """Render the (height, width) uint16 bright-field frame.

    The slide lies a little uneven: focus and contrast vary over the field whatever the cells'
    state, so that statistics of texture tell less of it than shapes do.
    """
    layer, above = thickness(plan, cells, rng)
    radius = abs(plan.focus)
    tilt = clip(0.4 + 0.35 * smooth_field(rng, layer.shape, 300.0))
    near, far = _phases(layer, radius, radius + 2)
    [over] = _phases(above, radius + 2)
    relief = near + tilt * (far - near) + 0.8 * over
    relief = relief if plan.focus > 0 else -relief
    uneven = clip(1 + 0.22 * smooth_field(rng, layer.shape, 250.0), 0.5, 1.8)
    relief = relief * plan.contrast * uneven
    if plan.out_of_focus:
        relief = blur(relief + 0.2 * layer, 9)
    return _expose(plan, relief, rng)


def _phases(thickness: np.ndarray, *radii: int) -> list[np.ndarray]:
    """Contrast of a thickness map so many px out of focus: its curvature and one more fringe."""
    fine = blur(thickness, 1)
    curved = [fine - blur(thickness, radius) for radius in radii]
    return [1.6 * one - 0.6 * blur(one, radius) for one, radius in zip(curved, radii)]


def _expose(plan: FieldPlan, relief: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light the field unevenly and record it with shot and read noise, as uint16 counts."""
    y = np.arange(plan.height)[:, None] / plan.height - plan.light_y
    x = np.arange(plan.width)[None, :] / plan.width - plan.light_x
    light = plan.brightness * (1 - plan.vignette * (y * y + x * x))
    counts = light * np.maximum(1 + relief, 0.05)
    return _record(counts, plan.brightness / 5000 * plan.noise * plan.noise, 20.0, rng)


def _record(counts: np.ndarray, gain: float, read: float, rng: np.random.Generator) -> np.ndarray:
    variance = gain * np.maximum(counts, 0.0) + read * read
    noisy = counts + np.sqrt(variance) * normal(rng, *counts.shape)
    return np.rint(clip(noisy, 0.0, 65535.0)).astype(np.uint16)


def render_pi(plan: FieldPlan, cells: Cells, rng: np.random.Generator) -> np.ndarray:
    """Render the (height, width) uint16 PI frame: dye in the medium, and the nuclei of dead cells
    with the light around them. Nuclei of blebbing cells are in pieces.
    """
    shape = (plan.height, plan.width)
    medium = plan.pi_background + LIVE_SPREAD * smooth_field(rng, shape, 260.0)
    level = (DEAD_LEVEL + DEAD_SPREAD * smooth_field(rng, shape, 260.0)) * plan.pi_gain
    rows, columns = (clip(axis, 0, size - 1).astype(np.int64)
                     for axis, size in ((cells.y, shape[0]), (cells.x, shape[1])))  # fmt: skip
    dose = (level[rows, columns] - plan.pi_background) * WINDOW * WINDOW / _crowd(cells)
    dose = dose * (0.3 + 1.4 * rng.random(len(dose))) * np.where(cells.immune, IMMUNE_DOSE, 1.0)
    nuclei = np.zeros(shape)
    for i in np.flatnonzero(cells.dead):
        pieces = 1 + cells.blebs[i] // 2
        spread = 0.0 if pieces == 1 else 0.5 * cells.radius[i]
        size = cells.radius[i] * (0.8 if cells.immune[i] else 0.5) / np.sqrt(pieces)
        for dy, dx in rng.random((pieces, 2)) - 0.5:
            height = float(dose[i]) / pieces / (2.0944 * size * size)
            add_ball(nuclei, cells.y[i] + spread * dy, cells.x[i] + spread * dx, size, height)
    light = (1 - HAZE) * blur(nuclei, 2) + HAZE * blur(nuclei, 26)
    return _record(np.maximum(medium + light, 20.0), 1.5, 8.0, rng)


def _crowd(cells: Cells) -> np.ndarray:
    """Tumour cells in a window around each, part of the way to CROWD: a crowd shares the dye."""
    y, x = cells.y[~cells.immune], cells.x[~cells.immune]
    near = (np.abs(cells.y[:, None] - y) < WINDOW / 2) & (np.abs(cells.x[:, None] - x) < WINDOW / 2)
    return 0.65 * near.sum(axis=1) + 0.35 * CROWD
