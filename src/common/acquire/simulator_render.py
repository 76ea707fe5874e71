"""Rendering of one simulated field: what its cells look like in bright-field and in PI.

Cells are nearly clear: out of exact focus an image shows the curvature of their thickness (the
transport of intensity, Teague 1983; Streibl 1984). So `_thickness` builds a map of the layer and
one of what lies above it, and `_phase` turns a map into contrast by differences of blurs. Only
exact operations (`simulator_exact`), so the bytes are the same on any x86-64.
"""

from typing import TYPE_CHECKING

import numpy as np

from .simulator_cells import Cells
from .simulator_exact import add_ball, add_points, blur, clip, normal, ring, smooth_field, stamp

if TYPE_CHECKING:
    from .simulator import FieldPlan

WINDOW = 224  # px, the paper's patch: PI levels are stated as means over it
DEAD_LEVEL, DEAD_SPREAD = 745.0, 90.0  # mean PI and its sd where all cells are dead, counts
LIVE_SPREAD = 15.0  # sd of the smooth PI background, counts
CROWD = 30  # cells a window where the layer is closed; fewer have less PI together, more each
IMMUNE_DOSE = 0.3  # PI of a dead immune cell, of a tumour cell's
HAZE = 0.4  # share of PI light from out of focus


def render_brightfield(plan: "FieldPlan", cells: Cells, rng: np.random.Generator) -> np.ndarray:
    """Render the (height, width) uint16 bright-field frame."""
    layer, above = _thickness(plan, cells, rng)
    radius = abs(plan.focus)
    relief = _phase(layer, radius) + 0.8 * _phase(above, radius + 2)
    relief = relief if plan.focus > 0 else -relief
    relief = relief * plan.contrast * (1 + 0.25 * smooth_field(rng, layer.shape, 400.0))
    if plan.out_of_focus:
        relief = blur(relief + 0.2 * layer, 9)
    return _expose(plan, relief, rng)


def _phase(thickness: np.ndarray, radius: int) -> np.ndarray:
    """Contrast of a thickness map `radius` px out of focus: its curvature and one more fringe."""
    curved = blur(thickness, 1) - blur(thickness, radius)
    return 1.6 * curved - 0.6 * blur(curved, radius)


def _thickness(
    plan: "FieldPlan", cells: Cells, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Thickness, relative to a spread cell's: of the layer, and of what lies above it."""
    layer, above = _bodies(plan, cells, rng), np.zeros((plan.height, plan.width))
    _add_nuclei(layer, cells, rng)
    _add_granules(layer, cells, rng)
    _add_round(layer, above, cells, rng)
    for y, x, size, level in rng.random((plan.height * plan.width // 20_000, 4)):
        add_ball(layer, y * plan.height, x * plan.width, 1.5 + 4 * size * size, 0.4 + level)
    return layer, above


def _bodies(plan: "FieldPlan", cells: Cells, rng: np.random.Generator) -> np.ndarray:
    """The layer of spread cells: each rises from its edge, with a grain that varies over the field;
    retracted ones are steeper and leave gaps.
    """
    owner, first, second = _territories(plan, cells)
    grain = clip(0.10 + 0.06 * smooth_field(rng, owner.shape, 150.0), 0.02, 0.3)
    depth = cells.radius[owner] * np.minimum(1 - first, (second - first) * 0.5)
    height = 0.35 + 0.3 * rng.random(len(cells.y)) + 0.3 * cells.signs[:, 0]
    rise = clip(depth * 0.2)
    return rise * (height[owner] + grain * normal(rng, *owner.shape))


def _territories(plan: "FieldPlan", cells: Cells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share the field out: each pixel's nearest spread cell, and the distances to it and the next
    in units of their radius.
    """
    shape = (plan.height, plan.width)
    owner, first, second = np.zeros(shape, np.int64), np.full(shape, 2.0), np.full(shape, 2.0)
    for i in np.flatnonzero(~cells.round):
        spot = stamp(shape, cells.y[i], cells.x[i], 1.45 * cells.radius[i])
        if spot is None:
            continue
        window, dy, dx = spot
        rho = _outline_distance(dy, dx, cells.radius[i], cells.outline[i])
        nearer = rho < first[window]
        second[window] = np.where(nearer, first[window], np.minimum(second[window], rho))
        owner[window] = np.where(nearer, i, owner[window])
        first[window] = np.where(nearer, rho, first[window])
    return owner, first, second


def _outline_distance(
    dy: np.ndarray, dx: np.ndarray, radius: float, outline: np.ndarray
) -> np.ndarray:
    """Return the distance from a cell's centre as a share of its outline's (angles by products: no
    sin).
    """
    distance = np.sqrt(dy * dy + dx * dx) + 1e-6
    u, v = dx / distance, dy / distance
    c2, s2 = u * u - v * v, 2 * u * v
    terms = (c2, s2, c2 * u - s2 * v, s2 * u + c2 * v, c2 * c2 - s2 * s2, 2 * c2 * s2)
    bump = 1 + sum(weight * term for weight, term in zip(outline, terms, strict=True))
    return distance / (radius * np.maximum(bump, 0.3))


def _add_round(
    layer: np.ndarray, above: np.ndarray, cells: Cells, rng: np.random.Generator
) -> None:
    """Add the round cells, with their blebs, to the map they belong to."""
    for i in np.flatnonzero(cells.round):
        plane, radius = (above if cells.lifted[i] else layer), cells.radius[i]
        add_ball(plane, cells.y[i], cells.x[i], radius, 1.1 if cells.immune[i] else 1.6)
        for dy, dx in zip(*ring(rng, cells.blebs[i]), strict=True):
            size = radius * (0.15 + 0.4 * float(rng.random()))
            y, x = cells.y[i] + 0.95 * radius * dy, cells.x[i] + 0.95 * radius * dx
            add_ball(plane, y, x, size, 0.8)


def _add_nuclei(layer: np.ndarray, cells: Cells, rng: np.random.Generator) -> None:
    """Add a nucleus to each spread cell, smaller and denser the more condensed, and nucleoli."""
    draws = rng.random((len(cells.y), 4, 3)) - 0.5
    for i in np.flatnonzero(~cells.round):
        _, condensed, _, blank = cells.signs[i]
        reach = cells.radius[i] * (0.52 - 0.2 * condensed)
        y, x = cells.y[i] + 6 * draws[i, 0, 0], cells.x[i] + 6 * draws[i, 0, 1]
        add_ball(layer, y, x, reach, 0.25 + 0.35 * condensed)
        for dy, dx, size in draws[i, 1 : 1 + int(4 * (1 - blank))]:
            add_ball(layer, y + reach * dy, x + reach * dx, 3.2 + 2 * size, 0.7)


def _add_granules(layer: np.ndarray, cells: Cells, rng: np.random.Generator) -> None:
    """Strew granules through the cytoplasm of granular cells, more to the outside."""
    many = np.rint(22 * cells.signs[:, 2] * np.where(cells.immune, 0.3, 1.0)).astype(np.int64)
    of = np.repeat(np.arange(len(many)), many)
    dy, dx = ring(rng, len(of))
    away = cells.radius[of] * (0.3 + 0.6 * rng.random(len(of)))
    add_points(layer, cells.y[of] + away * dy, cells.x[of] + away * dx, 2 + 4 * rng.random(len(of)))


def _expose(plan: "FieldPlan", relief: np.ndarray, rng: np.random.Generator) -> np.ndarray:
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


def render_pi(plan: "FieldPlan", cells: Cells, rng: np.random.Generator) -> np.ndarray:
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
