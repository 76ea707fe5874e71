"""How thick the cells of a simulated field are, pixel by pixel: the layer of spread cells with what
is in them, and what lies above it.

What there is to see is much the same in live and dead cells; where it is and what shape it has
tells them apart. So spots lie in the nucleus (nucleoli) or beside it, granules around it or along
the outline, and round cells hold chromosomes or have blebs. Only exact operations
(`simulator_exact`).
"""

import numpy as np

from .simulator_cells import Cells, FieldPlan
from .simulator_exact import (
    add_ball,
    add_points,
    clip,
    normal,
    ring,
    smooth_at,
    smooth_field,
    stamp,
)


def thickness(
    plan: FieldPlan, cells: Cells, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Thickness, relative to a spread cell's: of the layer, and of what lies above it."""
    layer, above = _bodies(plan, cells, rng), np.zeros((plan.height, plan.width))
    _add_nuclei(layer, cells, rng)
    _add_granules(layer, cells, rng)
    _add_round(layer, above, cells, rng)
    _add_litter(layer, rng)
    return layer, above


def _bodies(plan: FieldPlan, cells: Cells, rng: np.random.Generator) -> np.ndarray:
    """The layer of spread cells: each rises from its edge, with a grain that varies over the field;
    retracted ones are steeper and leave gaps.
    """
    owner, first, second = _territories(plan, cells)
    level = 0.04 + 0.14 * float(rng.random())
    grain = level * clip(1 + 0.6 * smooth_field(rng, owner.shape, 150.0), 0.1, 2.5)
    depth = cells.radius[owner] * np.minimum(1 - first, (second - first) * 0.5)
    height = 0.35 + 0.5 * rng.random(len(cells.y))
    rise = clip(depth * 0.2)
    return rise * (height[owner] + grain * normal(rng, *owner.shape))


def _territories(plan: FieldPlan, cells: Cells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _add_nuclei(layer: np.ndarray, cells: Cells, rng: np.random.Generator) -> None:
    """Add a nucleus to each spread cell, smaller and denser the more condensed, and three spots:
    nucleoli in it, and vacuoles outside in their stead the blanker it is.
    """
    draws = rng.random((len(cells.y), 4, 3)) - 0.5
    for i in np.flatnonzero(~cells.round):
        condensed, blank = cells.signs[i, 1], cells.signs[i, 4]
        reach = cells.radius[i] * (0.58 - 0.3 * condensed)
        y, x = cells.y[i] + 6 * draws[i, 0, 0], cells.x[i] + 6 * draws[i, 0, 1]
        add_ball(layer, y, x, reach, 0.55 + 0.25 * condensed)
        inside = int(4 * (1 - blank))
        for number, (dy, dx, size) in enumerate(draws[i, 1:]):
            outside = 0.8 * cells.radius[i] * (0.9 + 0.4 * size)
            away = reach if number < inside else outside / (np.sqrt(dy * dy + dx * dx) + 0.01)
            add_ball(layer, y + away * dy, x + away * dx, 3.6 + 2 * size, 0.9)


def _add_granules(layer: np.ndarray, cells: Cells, rng: np.random.Generator) -> None:
    """Strew granules: around the nucleus the more they are gathered, else along the outline."""
    share = np.where(cells.immune, 0.3, 1.0)
    many = np.rint((4 + 14 * cells.signs[:, 2]) * share).astype(np.int64)
    of = np.repeat(np.arange(len(many)), many)
    dy, dx = ring(rng, len(of))
    gathered = rng.random(len(of)) < cells.signs[of, 3]
    away = cells.radius[of] * (np.where(gathered, 0.3, 0.62) + 0.2 * rng.random(len(of)))
    strong = clip(1 + 0.4 * smooth_at(rng, cells.y, cells.x, 150.0), 0.2, 2.0)
    level = (1.2 + 2.4 * rng.random(len(of))) * strong[of]
    add_points(layer, cells.y[of] + away * dy, cells.x[of] + away * dx, level)


def _add_round(
    layer: np.ndarray, above: np.ndarray, cells: Cells, rng: np.random.Generator
) -> None:
    """Add the round cells, with their blebs, to the map they belong to."""
    for i in np.flatnonzero(cells.round):
        plane, radius = (above if cells.lifted[i] else layer), cells.radius[i]
        add_ball(plane, cells.y[i], cells.x[i], radius, 1.1 if cells.immune[i] else 1.6)
        for dy, dx in zip(*ring(rng, cells.blebs[i]), strict=True):
            size = radius * (0.3 + 0.25 * float(rng.random()))
            y, x = cells.y[i] + 0.95 * radius * dy, cells.x[i] + 0.95 * radius * dx
            add_ball(plane, y, x, size, 0.9)
        if not cells.blebs[i] and not cells.immune[i]:
            _add_chromosomes(plane, cells.y[i], cells.x[i], radius, rng)


def _add_chromosomes(
    plane: np.ndarray, y: float, x: float, radius: float, rng: np.random.Generator
) -> None:
    """Add the condensed chromosomes of a dividing cell: a plate across its middle, more or less in
    order. They are as much to see as blebs are, in another place.
    """
    (dy,), (dx,) = ring(rng, 1)
    mess = 0.05 + 0.3 * float(rng.random())
    for along, up, left, size in rng.random((5, 4)) - 0.5:
        far_y, far_x = 1.1 * along * dy + mess * up, 1.1 * along * dx + mess * left
        add_ball(plane, y + radius * far_y, x + radius * far_x, radius * (0.27 + 0.2 * size), 0.7)


def _add_litter(layer: np.ndarray, rng: np.random.Generator) -> None:
    """Strew specks, more or fewer by field and over it."""
    height, width = layer.shape
    count = int(height * width / 20_000 * (0.5 + 4.0 * rng.random()))
    y, x, size, level = rng.random((4, count))
    y, x = y * height, x * width
    here = smooth_at(rng, y, x, 200.0) > 0.6 * normal(rng, count)
    for i in np.flatnonzero(here):
        add_ball(layer, y[i], x[i], 1.5 + 4 * size[i] * size[i], 0.4 + level[i])
