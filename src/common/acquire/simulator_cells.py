"""Which cells a simulated field holds: where they lie, which are dead, and how it shows.

A dead cell differs from a live one in several signs, each of which live cells under stress have as
well: it retracts and its outline smooths, its nucleus condenses, its nucleoli vanish and vacuoles
lie outside, its granules gather around the nucleus and become more; some round up, bleb and detach,
as dividing cells round up too. How strong a sign is drifts over the field on its own, so that none
tells alone. Most signs move what there is to see and add little to it: who only measures texture
reads them badly. Small immune cells lie on top and die on their own.
"""

from dataclasses import dataclass, fields

import numpy as np

from .simulator_exact import clip, normal, smooth_at

SIGNS = ("retracted", "condensed", "granular", "gathered", "blank")  # blank: without nucleoli
# How far death moves each sign, in sd of its drift over the field
SHOWS = (1.6, 1.5, 0.5, 1.5, 1.5)
ROUND = (0.17, 0.24)  # shares of live and of dead cells that are round
BLEBS = (0.12, 0.80)  # of these, that bleb: the early dying have no PI yet
LIFTED = (0.30, 0.42)  # of these, above the layer and half out of focus
STRAY = 0.03  # share of cells in the other state than their surroundings
ROOM = 100_000  # px of cells of either state in every field: a window or two
IMMUNE_RADIUS_UM = 3.8


@dataclass(frozen=True)
class FieldPlan:
    """All that is needed to render one field: who it is, and what is peculiar to it.

    Lengths in px unless the name says um; levels in 16-bit counts; the other numbers are relative
    (1 = nominal).
    """

    image_id: str
    partition: str
    experiment: str  # the session
    well: str
    position: str
    day: int
    height: int
    width: int
    pixel_size_um: float
    seed: tuple[int, ...]
    dead_fraction: float
    confluence: float
    out_of_focus: bool
    cell_radius_um: float
    contrast: float
    focus: int  # how far below or above exact focus, px of blur: not 0
    brightness: float  # bright-field level where the light is brightest, counts
    vignette: float
    light_y: float  # where that is, 0..1 of the field
    light_x: float
    noise: float
    pi_background: float  # counts
    pi_gain: float
    immune: float  # cells a Mpx
    immune_dead: float  # share of them


@dataclass(frozen=True)
class Cells:
    """Cells of one field as columns; lengths in px."""

    y: np.ndarray
    x: np.ndarray
    radius: np.ndarray
    dead: np.ndarray  # bool: takes up PI
    immune: np.ndarray  # bool
    round: np.ndarray  # bool: a ball, not part of the layer
    lifted: np.ndarray  # bool: above the plane of focus
    blebs: np.ndarray  # int: number of them
    signs: np.ndarray  # (n, 5) of 0..1, by SIGNS
    outline: np.ndarray  # (n, 6): cos and sin terms 2, 3, 4 of the outline


def place_cells(plan: FieldPlan, rng: np.random.Generator) -> Cells:
    """Scatter tumour cells over the occupied part of the field, let some die, add immune cells."""
    tumour, immune = _tumour(plan, rng), _immune(plan, rng)
    columns = [field.name for field in fields(Cells)]
    both = [np.concatenate([getattr(tumour, name), getattr(immune, name)]) for name in columns]
    return Cells(*both)


def _tumour(plan: FieldPlan, rng: np.random.Generator) -> Cells:
    radius = plan.cell_radius_um / plan.pixel_size_um
    y, x = _layer(plan, rng, radius)
    dead = _dying(plan, rng, y, x)
    now = dead.astype(np.int64)  # picks the share of live or of dead cells
    count = len(y)
    rounding = np.take(ROUND, now) * clip(1 + 0.8 * smooth_at(rng, y, x, 220.0), 0.1, 3.0)
    is_round = rng.random(count) < rounding
    lifted = is_round & (rng.random(count) < np.take(LIFTED, now))
    blebbing = is_round & (rng.random(count) < np.take(BLEBS, now))
    blebs = np.where(blebbing, rng.integers(3, 8, count), 0)
    signs = np.stack([_sign(rng, y, x, dead, shows) for shows in SHOWS], axis=1)
    size = np.where(is_round, 0.52, 1.16 - 0.46 * signs[:, 0]) * (0.88 + 0.24 * rng.random(count))
    bumps = np.array([0.18, 0.18, 0.09, 0.09, 0.06, 0.06])
    slack = np.where(is_round, 0.2, 1.6 - 1.3 * signs[:, 0])[:, None]
    outline = normal(rng, count, 6) * bumps * slack
    immune = np.zeros(count, bool)
    return Cells(y, x, radius * size, dead, immune, is_round, lifted, blebs, signs, outline)


def _layer(
    plan: FieldPlan, rng: np.random.Generator, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Centres on a loosened hexagonal grid, where the field is occupied."""
    step, margin = 1.55 * radius, int(2 * radius)
    grid_y = np.arange(-margin, plan.height + margin, step * 0.87)
    grid_x = np.arange(-margin, plan.width + margin, step)
    y, x = (axis.ravel() for axis in np.meshgrid(grid_y, grid_x, indexing="ij"))
    x = x + step / 2 * (np.arange(len(grid_y)) % 2).repeat(len(grid_x))
    y, x = (axis + step * 0.85 * (rng.random(len(axis)) - 0.5) for axis in (y, x))
    room = smooth_at(rng, y, x, 380.0)
    kept = room >= np.sort(room)[int((1 - plan.confluence) * len(room))]
    return y[kept], x[kept]


def _dying(plan: FieldPlan, rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Choose the dead cells: patches with blurred rims, so that there are windows of both kinds
    and mixed ones.
    """
    depth = smooth_at(rng, y, x, 520.0) + 0.25 * smooth_at(rng, y, x, 200.0)
    depth = depth + 0.1 * normal(rng, len(y))
    least = min(0.5, ROOM / (plan.height * plan.width * plan.confluence))
    live = min(max(1 - plan.dead_fraction, least), 1 - least)
    visible = np.sort(depth[(y >= 0) & (y < plan.height) & (x >= 0) & (x < plan.width)])
    cut = visible[int(live * len(visible))] if len(visible) else 0.0
    return (depth >= cut) ^ (rng.random(len(y)) < STRAY)


def _sign(
    rng: np.random.Generator, y: np.ndarray, x: np.ndarray, dead: np.ndarray, shows: float
) -> np.ndarray:
    """One sign of death in every cell: its own drift over the field, chance, and the state."""
    drift = smooth_at(rng, y, x, 180.0) + 0.6 * normal(rng, len(y))
    return clip(0.5 + 0.3 * (drift + shows * (dead - 0.5)))


def _immune(plan: FieldPlan, rng: np.random.Generator) -> Cells:
    """Small round cells, half of them in clusters; `plan.immune` of them on a Mpx."""
    count = int(plan.immune * plan.height * plan.width / 1_000_000) + 1
    y, x = rng.random((2, count)) * np.array([[plan.height], [plan.width]])
    gather = rng.random(count) < 0.5
    heads = rng.integers(0, 1 + count // 8, count)
    radius = IMMUNE_RADIUS_UM / plan.pixel_size_um
    y, x = (np.where(gather, a[heads] + 2.5 * radius * normal(rng, count), a) for a in (y, x))
    dead = rng.random(count) < plan.immune_dead
    size = radius * (0.9 + 0.2 * rng.random(count))
    yes, no = np.ones(count, bool), np.zeros(count, np.int64)
    signs = rng.random((count, len(SIGNS)))
    lifted = rng.random(count) < 0.5
    return Cells(y, x, size, dead, yes, yes, lifted, no, signs, np.zeros((count, 6)))
