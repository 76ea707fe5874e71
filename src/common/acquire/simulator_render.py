"""Rendering of one simulated field with exact operations only.

`np.exp`, `np.sin`, float blurs, float reductions and numpy's normal or Poisson draws differ in the
last bit between CPUs. Here everything is elementwise + - * / sqrt on float64 (IEEE exact),
integers, uniform PCG64 draws and box filters over whole numbers, so the bytes are the same on any
x86-64. Levels are relative to the background, counts come last.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from .simulator import FieldPlan

WINDOW = 224  # px, the paper's patch: PI levels are stated as means over it
DEAD_LEVEL, DEAD_SPREAD = 641.0, 105.0  # mean PI and its sd where all cells are dead, counts
LIVE_SPREAD = 30.0  # sd of the smooth PI background, counts
DIM_BELOW = 8  # cells a window; with fewer, its PI falls in proportion
GRANULES_AT = 0.6  # where dead cells keep their dark granules, as a share of the radius


@dataclass(frozen=True)
class Cells:
    """Cells of one field as columns: centre and radius in px, state, look, and the outline's
    harmonics.
    """

    y: np.ndarray
    x: np.ndarray
    radius: np.ndarray
    dead: np.ndarray
    decay: np.ndarray  # 0 spread out with a sharp edge .. 1 shrunken with a blurred dark halo
    rounded: np.ndarray  # cells in division: small, round, bright rim
    outline: np.ndarray  # (n, 6): cos and sin terms 2, 3, 4 of the outline


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Draw nearly normal numbers (mean 0, sd 1) as sums of 4 whole uniforms: exact on any CPU."""
    total = np.zeros(shape, dtype=np.int64)
    for _ in range(4):
        total += rng.integers(0, 1 << 16, size=shape, dtype=np.uint16)
    return (total - 131070) / 37837.0  # sqrt(4 / 12) * 65536


def blur(image: np.ndarray, radius: int) -> np.ndarray:
    """Blur by three box filters of `radius` px (nearly a Gaussian) over whole thousandths, in which
    sums are exact.
    """
    side = 2 * radius + 1
    whole = np.rint(image * 4096.0)
    for _ in range(3):
        whole = np.rint(
            cv2.boxFilter(whole, cv2.CV_64F, (side, side), normalize=False) / (side * side)
        )
    return whole / 4096.0


def smooth_field(rng: np.random.Generator, height: int, width: int, spacing: float) -> np.ndarray:
    """Draw a (height, width) random field, about normal with unit sd, that varies over `spacing`
    px.
    """
    rows, columns = (int(n / spacing) + 3 for n in (height, width))
    lattice = normal(rng, rows, columns)
    y, x = (np.arange(n) / spacing + float(rng.random()) for n in (height, width))
    down = _interpolate(lattice, y)
    return (
        1.4 * _interpolate(down.T, x).T
    )  # 1.4 makes up for the variance lost between lattice points


def _interpolate(lattice: np.ndarray, at: np.ndarray) -> np.ndarray:
    low = at.astype(np.int64)
    t = (at - low)[:, None]
    t = t * t * (3 - 2 * t)
    return lattice[low] * (1 - t) + lattice[low + 1] * t


def inside(plan: "FieldPlan", y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixel of each point, moved onto the field where it lies outside."""
    pairs = ((y, plan.height), (x, plan.width))
    rows, columns = (
        np.minimum(np.maximum(axis, 0), size - 1).astype(np.int64) for axis, size in pairs
    )
    return rows, columns


def _stamp(
    shape: tuple[int, int], y: float, x: float, reach: float
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray] | None:
    """Return the slices of a square of `reach` px around a point and the offsets dy, dx from it;
    None if outside.
    """
    top, left = max(0, int(y - reach)), max(0, int(x - reach))
    bottom, right = min(shape[0], int(y + reach) + 1), min(shape[1], int(x + reach) + 1)
    if top >= bottom or left >= right:
        return None
    dy, dx = np.arange(top, bottom)[:, None] - y, np.arange(left, right)[None, :] - x
    return (slice(top, bottom), slice(left, right)), dy, dx


def _territories(plan: "FieldPlan", cells: Cells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share the field out: each pixel's nearest cell, and the distances to it and the next in units
    of their radius.
    """
    shape = (plan.height, plan.width)
    owner, first, second = np.zeros(shape, np.int64), np.full(shape, 2.0), np.full(shape, 2.0)
    for i in range(len(cells.y)):
        stamp = _stamp(shape, cells.y[i], cells.x[i], 1.7 * cells.radius[i])
        if stamp is None:
            continue
        window, dy, dx = stamp
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
    bump = (
        1
        + outline[0] * c2
        + outline[1] * s2
        + outline[2] * (c2 * u - s2 * v)
        + outline[3] * (s2 * u + c2 * v)
    )
    bump = bump + outline[4] * (c2 * c2 - s2 * s2) + outline[5] * (2 * c2 * s2)
    return distance / (radius * np.maximum(bump, 0.3))


def _ridge(depth: np.ndarray, at: float, half_width: float) -> np.ndarray:
    """Return a triangular line profile of height 1 along depth = `at`."""
    return np.maximum(0.0, 1 - np.abs(depth - at) / half_width)


def _add_spot(image: np.ndarray, y: float, x: float, radius: float, level: float) -> None:
    stamp = _stamp(image.shape, y, x, radius)
    if stamp is not None:
        window, dy, dx = stamp
        bell = np.maximum(0.0, 1 - (dy * dy + dx * dx) / (radius * radius))
        image[window] += level * bell * (2 - bell)


def render_brightfield(plan: "FieldPlan", cells: Cells, rng: np.random.Generator) -> np.ndarray:
    """Render the (height, width) uint16 bright-field frame."""
    owner, first, second = _territories(plan, cells)
    sharp = _membranes(cells, owner, first, second, rng)
    _add_inner_life(sharp, plan, cells, rng)
    _add_debris(sharp, plan, rng)
    soft = _halos(cells, owner, first, rng)
    texture = _texture(plan, rng) * (first < 1.1)
    local = 1 + 0.25 * smooth_field(rng, plan.height, plan.width, 300.0)
    relief = (sharp + blur(soft, 3) + texture) * local * plan.contrast
    return _expose(plan, _focus(plan, relief, rng), rng)


def _texture(plan: "FieldPlan", rng: np.random.Generator) -> np.ndarray:
    """Draw the grain of cytoplasm, fine and coarse, whose strength varies over the field."""
    shape = (plan.height, plan.width)
    fine, coarse = blur(normal(rng, *shape), 1), blur(normal(rng, *shape), 2)
    strength = np.maximum(0.2 + 0.12 * smooth_field(rng, *shape, 150.0), 0.0)
    return 0.05 * fine + strength * coarse


def _membranes(
    cells: Cells, owner: np.ndarray, first: np.ndarray, second: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw the cells' bodies and sharp edges: a bright line with a dark inner lip, fainter the
    further the decay.
    """
    count = len(cells.y)
    edge = (1 - cells.decay) * (0.6 + 0.8 * rng.random(count)) + np.where(cells.rounded, 1.0, 0.0)
    body = 0.08 * (rng.random(count) - 0.5)
    depth = cells.radius[owner] * np.minimum(1 - first, (second - first) * 0.5)
    line = 0.14 * _ridge(depth, 0.0, 2.0) - 0.08 * _ridge(depth, 3.0, 2.5)
    return line * edge[owner] + body[owner] * np.minimum(np.maximum(depth * 0.25, 0.0), 1.0)


def _halos(
    cells: Cells, owner: np.ndarray, first: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw the dark halos of decaying cells, to be blurred."""
    halo = cells.decay * (0.5 + rng.random(len(cells.y)))
    return -0.15 * halo[owner] * _ridge(first, 1.05, 0.3)


def _add_inner_life(
    image: np.ndarray, plan: "FieldPlan", cells: Cells, rng: np.random.Generator
) -> None:
    """Add a nucleus and a cluster of dark spots to each cell: nucleoli amid it if alive, granules
    aside if dead.
    """
    where = inside(plan, cells.y, cells.x)
    pale = 0.02 + 0.05 * smooth_field(rng, *image.shape, 150.0)[where]
    dark = 0.2 + 0.08 * smooth_field(rng, *image.shape, 150.0)[where]
    vesicles = np.rint(1.5 + 1.5 * smooth_field(rng, *image.shape, 150.0)[where])
    draws = rng.random((len(cells.y), 8, 3)) - 0.5
    for i in np.flatnonzero(~cells.rounded):
        y, x, radius = cells.y[i], cells.x[i], cells.radius[i]
        _add_spot(image, y, x, 0.5 * radius, pale[i])
        aside = radius * (GRANULES_AT if cells.dead[i] else 0.1)
        dy, dx, many = draws[i, 0]
        away = aside / np.sqrt(dy * dy + dx * dx + 1e-6)
        for oy, ox, size in draws[i, 1 : 3 + (many > 0)]:
            spot_y, spot_x = y + away * dy + 0.45 * radius * oy, x + away * dx + 0.45 * radius * ox
            _add_spot(image, spot_y, spot_x, 4.0 + 2 * size, -np.maximum(dark[i], 0.05))
        for dy, dx, size in draws[i, 4 : 4 + int(min(max(vesicles[i], 0), 4))]:
            away = (0.8 + 0.5 * size) * radius / np.sqrt(dy * dy + dx * dx + 1e-6)
            _add_spot(
                image,
                y + away * dy,
                x + away * dx,
                3.5 + 2 * size,
                -0.7 * np.maximum(dark[i], 0.05),
            )


def _add_debris(image: np.ndarray, plan: "FieldPlan", rng: np.random.Generator) -> None:
    """Strew specks over the whole field."""
    for y, x, size, level in rng.random((plan.height * plan.width // 12_000, 4)):
        _add_spot(
            image, y * plan.height, x * plan.width, 2.0 + 5 * size * size, 0.5 * (level - 0.6)
        )


def _focus(plan: "FieldPlan", relief: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur the frame by a defocus that varies over the field; an out-of-focus frame shows only
    shades.
    """
    if plan.out_of_focus:
        return blur(relief, 9)
    share = plan.defocus + 0.25 * smooth_field(rng, plan.height, plan.width, 400.0)
    share = np.minimum(np.maximum(share, 0.0), 1.0)
    return relief * (1 - share) + blur(relief, 2) * share


def _expose(plan: "FieldPlan", relief: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light the field unevenly and record it with shot and read noise, as uint16 counts."""
    cy, cx = (float(c) for c in rng.random(2))
    y = (np.arange(plan.height)[:, None] / plan.height - cy) * (
        np.arange(plan.height)[:, None] / plan.height - cy
    )
    x = (np.arange(plan.width)[None, :] / plan.width - cx) * (
        np.arange(plan.width)[None, :] / plan.width - cx
    )
    counts = plan.brightness * (1 - plan.vignette * (y + x)) * np.maximum(1 + relief, 0.05)
    return _record(counts, 6.0 * plan.noise * plan.noise, 60.0, rng)


def _record(counts: np.ndarray, gain: float, read: float, rng: np.random.Generator) -> np.ndarray:
    noisy = counts + np.sqrt(gain * np.maximum(counts, 0.0) + read * read) * normal(
        rng, *counts.shape
    )
    return np.rint(np.minimum(np.maximum(noisy, 0.0), 65535.0)).astype(np.uint16)


def render_pi(plan: "FieldPlan", cells: Cells, rng: np.random.Generator) -> np.ndarray:
    """Render the (height, width) uint16 PI frame: dye in the medium, and dead nuclei that glow
    beyond their cell.
    """
    shape = (plan.height, plan.width)
    medium = plan.pi_background + LIVE_SPREAD * smooth_field(rng, *shape, 260.0)
    level = DEAD_LEVEL + DEAD_SPREAD * smooth_field(rng, *shape, 260.0)
    rows, columns = inside(plan, cells.y, cells.x)
    dose = (level[rows, columns] - plan.pi_background) * WINDOW * WINDOW / _neighbours(cells)
    core, glow = np.zeros(shape), np.zeros(shape)
    for i in np.flatnonzero(
        cells.dead & (rows == cells.y.astype(np.int64)) & (columns == cells.x.astype(np.int64))
    ):
        core[rows[i], columns[i]] += np.maximum(dose[i], 0.0)
    core = np.rint(core)
    glow = blur(core, 30)
    return _record(np.maximum(medium + 0.25 * blur(core, 5) + 0.75 * glow, 20.0), 1.5, 8.0, rng)


def _neighbours(cells: Cells) -> np.ndarray:
    """Count the cells in a window around each: crowded ones share the dye, so means tell the share
    of dead ones.
    """
    near = (np.abs(cells.y[:, None] - cells.y) < WINDOW / 2) & (
        np.abs(cells.x[:, None] - cells.x) < WINDOW / 2
    )
    return np.maximum(near.sum(axis=1), DIM_BELOW)
