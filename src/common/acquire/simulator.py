"""The simulated plate: fields of live and dead cells with known truth, in the paper's geometry and
intensities.

Nothing here is data from a microscope. The plate stands in for the paper's (Pattarone et al.,
Scientific Reports 11:10304, 2021) so that the whole graph runs on any machine: `plan_plate` draws
what differs between fields, `simulate_field` renders one plan into a bright-field and a PI frame,
`true_windows` says which windows hold cells. A field depends on its own plan alone, so any number
of workers gives the same bytes; `simulator_render` says how they stay the same on any CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .simulator_render import Cells, inside, normal, render_brightfield, render_pi, smooth_field

PIXEL_SIZE_UM = 0.3225  # 20x objective of the paper
DEAD_FRACTION = {
    "no_treatment": 0.47,
    "doxo_paclitaxel": 0.83,
}  # of cells; of windows about 0.5 and 0.9
CONFLUENCE = {
    1: 0.28,
    2: 0.45,
    3: 0.72,
    4: 0.82,
    5: 0.92,
}  # share of the field covered, by culture day
DAYS = (
    4,
    3,
    1,
    5,
    4,
    3,
    5,
    4,
    3,
    5,
    4,
    3,
    2,
    5,
    4,
    3,
    5,
    4,
    3,
    5,
)  # mostly days 3-5, as in the paper
WELLS = ("A1", "A2", "A3", "A4", "B1", "B2", "B3", "B4")  # controls in row A, treated in row B
EXPERIMENTS = 5  # slides, each with both arms
DEATH_SHOWS = 0.6  # how far death moves the look of the outline, in sd of local stress
STRAY = 0.03  # share of cells in the other state than their surroundings
EMPTY_COVERAGE = (
    0.06  # a window with less of its area under cells than one live cell fills counts as empty
)
_RANGES = {  # what differs from field to field: lowest and highest value
    "cell_radius_um": (8.0, 11.0),
    "contrast": (0.6, 1.4),
    "defocus": (0.0, 0.8),
    "brightness": (24000.0, 36000.0),
    "vignette": (0.0, 0.25),
    "noise": (0.5, 1.8),
    "pi_background": (187.5, 217.5),
}


@dataclass(frozen=True)
class FieldPlan:
    """All that is needed to render one field: who it is, and what is peculiar to it.

    Lengths in px unless the name says um; levels in 16-bit counts; the other numbers are relative
    (1 = nominal).
    """

    image_id: str
    partition: str
    experiment: str
    well: str
    position: str
    day: int
    height: int
    width: int
    pixel_size_um: float
    seed: tuple[int, ...]
    dead_fraction: float
    confluence: float
    cell_radius_um: float
    contrast: float
    defocus: float  # 0 sharp .. 1 soft, still usable
    brightness: float  # mean bright-field level, counts
    vignette: float
    noise: float
    pi_background: float  # counts
    out_of_focus: bool


@dataclass(frozen=True)
class SimulatedField:
    """One rendered field.

    `cells` is the truth: y, x, radius (float64 px) and state (live or dead).
    """

    brightfield: np.ndarray  # (height, width) uint16 counts
    pi: np.ndarray  # (height, width) uint16 counts
    cells: pd.DataFrame
    out_of_focus: bool


def plan_plate(
    partitions: Sequence[str], frames: int, height: int, width: int, seed: int
) -> list[FieldPlan]:
    """Plan `frames` fields of `height` x `width` px for each partition.

    Raises ValueError for a partition whose share of dead cells is not known, and for frames smaller
    than a window.
    """
    unknown = [name for name in partitions if name not in DEAD_FRACTION]
    if unknown:
        raise ValueError(
            f"the simulator knows the partitions {sorted(DEAD_FRACTION)}, not {unknown}; add to DEAD_FRACTION"
        )
    if frames < 1 or min(height, width) < 224:
        raise ValueError(
            f"need at least 1 frame of at least 224 x 224 px, got {frames} of {height} x {width}"
        )
    return [
        plan for name in partitions for plan in _plan_partition(name, frames, height, width, seed)
    ]


def _plan_partition(
    partition: str, frames: int, height: int, width: int, seed: int
) -> list[FieldPlan]:
    """Plan one partition: its fields take shuffled even steps of every nuisance, so that small
    plates vary as well.
    """
    stream = list(DEAD_FRACTION).index(partition)
    rng = np.random.default_rng((seed, stream))
    steps = {name: (rng.permutation(frames) + 0.5) / frames for name in _RANGES}
    unfocused = rng.permutation(frames)[: max(1, frames // 20) if frames >= 4 else 0]
    plans = []
    for number in range(frames):
        well, day = 4 * stream + number % 4, DAYS[number % len(DAYS)]
        drawn = {
            name: low + float(steps[name][number]) * (high - low)
            for name, (low, high) in _RANGES.items()
        }
        plans.append(
            FieldPlan(
                image_id=f"{partition}_w{well + 1}_p{number:02d}_d{day}",
                partition=partition,
                experiment=f"sim-{number % EXPERIMENTS + 1}",
                well=WELLS[well],
                position=f"p{number:02d}",
                day=day,
                height=height,
                width=width,
                pixel_size_um=PIXEL_SIZE_UM,
                seed=(seed, stream, number),
                dead_fraction=DEAD_FRACTION[partition],
                confluence=CONFLUENCE[day],
                out_of_focus=bool(number in unfocused),
                **drawn,
            )
        )
    return plans


def simulate_field(plan: FieldPlan) -> SimulatedField:
    """Render one planned field; the same plan gives the same bytes on any x86-64 CPU."""
    streams = [np.random.default_rng((*plan.seed, part)) for part in range(3)]
    cells = _place_cells(plan, streams[0])
    brightfield = render_brightfield(plan, cells, streams[1])
    pi = render_pi(plan, cells, streams[2])
    return SimulatedField(
        brightfield, pi, _truth(cells, plan.height, plan.width), plan.out_of_focus
    )


def _place_cells(plan: FieldPlan, rng: np.random.Generator) -> Cells:
    """Scatter cells over the occupied part of the field and let one side of it die."""
    radius = (0.88 + 0.03 * plan.day) * plan.cell_radius_um / plan.pixel_size_um
    step = 1.55 * radius
    margin = int(2 * radius)
    grid_y = np.arange(-margin, plan.height + margin, step * 0.87)
    grid_x = np.arange(-margin, plan.width + margin, step)
    y, x = (axis.ravel() for axis in np.meshgrid(grid_y, grid_x, indexing="ij"))
    x = x + step / 2 * (np.arange(len(grid_y)) % 2).repeat(len(grid_x))
    y, x = (axis + step * 0.6 * (rng.random(len(axis)) - 0.5) for axis in (y, x))
    where = inside(plan, y, x)
    room = smooth_field(rng, plan.height, plan.width, 380.0)[where]
    kept = room >= np.sort(room)[int((1 - plan.confluence) * len(room))]
    y, x, where = y[kept], x[kept], (where[0][kept], where[1][kept])
    dead = _dying(plan, rng, y, x, where)
    decay = _decay(plan, rng, dead, where)
    rounded = rng.random(len(y)) < 0.04
    shrink = np.where(rounded, 0.6, 1.05 - 0.3 * decay + 0.15 * rng.random(len(y)))
    bumps = np.array([0.11, 0.11, 0.06, 0.06, 0.04, 0.04]) * np.where(rounded, 0.2, 1.0)[:, None]
    return Cells(y, x, radius * shrink, dead, decay, rounded, normal(rng, len(y), 6) * bumps)


def _decay(plan: FieldPlan, rng: np.random.Generator, dead: np.ndarray, where: tuple) -> np.ndarray:
    """Say how far each cell's outline looks dead: local stress, alike for both states, weighs as
    much as the state.
    """
    stress = smooth_field(rng, plan.height, plan.width, 180.0)[where]
    looks = 0.5 + 0.3 * (stress + 0.6 * normal(rng, len(dead)) + DEATH_SHOWS * (dead - 0.5))
    return np.minimum(np.maximum(looks, 0.0), 1.0)


def _dying(
    plan: FieldPlan, rng: np.random.Generator, y: np.ndarray, x: np.ndarray, where: tuple
) -> np.ndarray:
    """Choose the dead cells: all but those nearest to a pole on the field's rim: every field has
    both domains.
    """
    around = int(rng.integers(0, 2 * (plan.height + plan.width)))
    along, far = divmod(around, 2)
    pole = (
        (along, far * plan.width)
        if along < plan.height
        else (far * plan.height, along - plan.height)
    )
    distance = np.sqrt((y - pole[0]) * (y - pole[0]) + (x - pole[1]) * (x - pole[1]))
    depth = distance + 40.0 * smooth_field(rng, plan.height, plan.width, 300.0)[where]
    least = 120_000 / (
        plan.height * plan.width * plan.confluence
    )  # room for a few wholly live windows
    live = max(1 - plan.dead_fraction, min(0.5, least))
    visible = np.sort(depth[(where[0] == y.astype(np.int64)) & (where[1] == x.astype(np.int64))])
    cut = visible[int(live * len(visible))] if len(visible) else 0.0
    return (depth >= cut) ^ (rng.random(len(y)) < STRAY)


def _truth(cells: Cells, height: int, width: int) -> pd.DataFrame:
    """Return the cells whose centre lies in the field."""
    within = (cells.y >= 0) & (cells.y < height) & (cells.x >= 0) & (cells.x < width)
    columns = {"y": cells.y[within], "x": cells.x[within], "radius": cells.radius[within]}
    return pd.DataFrame(columns).assign(state=np.where(cells.dead[within], "dead", "live"))


def true_windows(
    field: SimulatedField, height: int, width: int, size: int, stride: int
) -> pd.DataFrame:
    """Return every window of `size` px at `stride` px: y, x, size and its true verdict cells, empty
    or unusable.

    A window is unusable in an out-of-focus field, empty when cells cover under EMPTY_COVERAGE of
    it.
    """
    covered = np.zeros((height, width), dtype=np.int64)
    for cell in field.cells.itertuples():
        top, left = max(0, int(cell.y - cell.radius)), max(0, int(cell.x - cell.radius))
        patch = covered[top : int(cell.y + cell.radius) + 1, left : int(cell.x + cell.radius) + 1]
        dy, dx = np.ogrid[
            top - cell.y : patch.shape[0] + top - cell.y,
            left - cell.x : patch.shape[1] + left - cell.x,
        ]
        patch[dy[: patch.shape[0]] ** 2 + dx[:, : patch.shape[1]] ** 2 < cell.radius**2] = 1
    rows = []
    for y in range(0, height - size + 1, stride):
        for x in range(0, width - size + 1, stride):
            empty = covered[y : y + size, x : x + size].sum() < EMPTY_COVERAGE * size * size
            rows.append(
                (y, x, size, "unusable" if field.out_of_focus else "empty" if empty else "cells")
            )
    return pd.DataFrame(rows, columns=["y", "x", "size", "verdict"])
