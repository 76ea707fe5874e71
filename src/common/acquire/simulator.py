"""The simulated plate: fields of live and dead cells with known truth, in the paper's geometry and
intensities, imaged in several sessions.

Nothing here is data from a microscope. The plate stands in for the paper's (Pattarone et al.,
Scientific Reports 11:10304, 2021) so that the whole graph runs on any machine: `plan_plate` draws
what differs between sessions and fields, `simulate_field` renders one plan into a bright-field and
a PI frame, `true_windows` says which windows hold cells. As on real plates, a session has its own
exposure, focus and light, and more or fewer dead cells than the others: who recognises the session
knows half the answer. A field depends on its own plan alone, so any number of workers gives the
same bytes; `simulator_exact` says how they stay the same on any CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from .simulator_cells import Cells, FieldPlan, place_cells
from .simulator_exact import stamp
from .simulator_render import render_brightfield, render_pi

PIXEL_SIZE_UM = 0.3225  # 20x objective of the paper
DEAD_FRACTION = {"no_treatment": 0.47, "doxo_paclitaxel": 0.83}  # of cells, mean over sessions
SESSION_SHIFT = {"no_treatment": 0.36, "doxo_paclitaxel": 0.12}  # of it, at most, by session
FIELD_SHIFT = 0.06  # of it, at most, by field
CONFLUENCE = {1: 0.28, 2: 0.45, 3: 0.72, 4: 0.82, 5: 0.92}  # share covered, by culture day
DAYS = (4, 3, 1, 5, 4, 3, 5, 4, 3, 5, 4, 3, 2, 5, 4, 3, 5, 4, 3, 5)  # mostly 3-5, as in the paper
WELLS = ("A1", "A2", "A3", "A4", "B1", "B2", "B3", "B4")  # controls in row A, treated in row B
AGAIN = 10  # of so many fields one is the field of another, a day later
EMPTY_COVERAGE = 0.06  # of a window, under tumour cells: less than one live cell, and it is empty
_SESSION = {  # what differs from session to session: lowest and highest value
    "prevalence": (-1.0, 1.0),
    "cell_radius_um": (8.5, 10.5),
    "contrast": (0.7, 1.4),
    "focus": (-1.0, 1.0),
    "brightness": (6000.0, 42000.0),
    "vignette": (0.05, 0.45),
    "light_y": (0.2, 0.8),
    "light_x": (0.2, 0.8),
    "noise": (0.4, 1.4),
    "pi_background": (186.0, 206.0),
    "pi_gain": (0.95, 1.05),
    "immune": (10.0, 110.0),
    "immune_dead": (0.1, 0.4),
}
_VARIES = {"contrast": 0.25, "brightness": 0.05, "vignette": 0.3, "noise": 0.1, "immune": 0.5}


@dataclass(frozen=True)
class SimulatedField:
    """One rendered field.

    `cells` is the truth: y, x, radius (float64 px), state (live or dead), kind (tumour or immune).
    """

    brightfield: np.ndarray  # (height, width) uint16 counts
    pi: np.ndarray  # (height, width) uint16 counts
    cells: pd.DataFrame
    out_of_focus: bool


def plan_plate(
    partitions: Sequence[str], frames: int, height: int, width: int, seed: int, sessions: int = 5
) -> list[FieldPlan]:
    """Plan `frames` fields of `height` x `width` px for each partition, imaged in `sessions`.

    Raises ValueError for a partition whose share of dead cells is not known, and for frames smaller
    than a window.
    """
    unknown = [name for name in partitions if name not in DEAD_FRACTION]
    if unknown:
        raise ValueError(
            f"the simulator knows the partitions {sorted(DEAD_FRACTION)}, not {unknown}; "
            "add to DEAD_FRACTION"
        )
    if frames < 1 or min(height, width) < 224:
        raise ValueError(
            f"need at least 1 frame of at least 224 x 224 px, got {frames} of {height} x {width}"
        )
    looks = _plan_sessions(sessions, seed)
    plans = [_plan_partition(name, frames, (height, width), seed, looks) for name in partitions]
    return [plan for fields in plans for plan in fields]


def _plan_sessions(sessions: int, seed: int) -> list[dict[str, float]]:
    """Draw what is peculiar to each session: shuffled even steps of every nuisance, so that few
    sessions vary as well.
    """
    rng = np.random.default_rng((seed, len(DEAD_FRACTION)))
    steps = {name: (rng.permutation(sessions) + 0.5) / sessions for name in _SESSION}
    steps["focus"] = steps["prevalence"]  # the confounder: mostly dead slides were focused above
    return [
        {name: low + float(steps[name][s]) * (high - low) for name, (low, high) in _SESSION.items()}
        for s in range(sessions)
    ]


def _plan_partition(
    partition: str, frames: int, shape: tuple[int, int], seed: int, looks: list[dict[str, float]]
) -> list[FieldPlan]:
    """Plan one partition, its fields dealt to the sessions in turn; the last tenth comes back a day
    later to where the first were.
    """
    stream = list(DEAD_FRACTION).index(partition)
    rng = np.random.default_rng((seed, stream))
    days = rng.permutation(np.resize(DAYS, frames))
    unfocused = rng.permutation(frames)[: max(1, frames // 20) if frames >= 4 else 0]
    plans: list[FieldPlan] = []
    for number in range(frames - frames // AGAIN):
        drawn = _vary(looks[number % len(looks)], rng)
        shift = SESSION_SHIFT[partition] * drawn.pop("prevalence")
        well, day = 4 * stream + number // len(looks) % 4, int(days[number])
        drift = FIELD_SHIFT * (2 * float(rng.random()) - 1)
        plans.append(
            FieldPlan(
                image_id=f"{partition}_w{well + 1}_p{number:02d}_d{day}",
                partition=partition,
                experiment=f"session-{number % len(looks) + 1}",
                well=WELLS[well],
                position=f"p{number:02d}",
                day=day,
                height=shape[0],
                width=shape[1],
                pixel_size_um=PIXEL_SIZE_UM,
                seed=(seed, stream, number),
                dead_fraction=DEAD_FRACTION[partition] + shift + drift,
                confluence=CONFLUENCE[day],
                out_of_focus=bool(number in unfocused),
                focus=_focus(drawn.pop("focus")),
                **drawn,
            )
        )
    return plans + [_a_day_later(plan) for plan in plans[: frames // AGAIN]]


def _vary(look: dict[str, float], rng: np.random.Generator) -> dict[str, float]:
    """A session's look as one of its fields has it."""
    some = {name: 1 + by * (2 * float(rng.random()) - 1) for name, by in _VARIES.items()}
    return {name: value * some.get(name, 1.0) for name, value in look.items()}


def _focus(step: float) -> int:
    """From -1..1 to -4..-2 or 2..4 px: exact focus shows nothing."""
    return int(2 + 3 * min(abs(step), 0.99)) * (1 if step >= 0 else -1)


def _a_day_later(plan: FieldPlan) -> FieldPlan:
    """The same cells, more of them dead."""
    name = plan.image_id.rsplit("_", 1)[0]
    dead = plan.dead_fraction + 0.4 * (1 - plan.dead_fraction)
    return replace(plan, image_id=f"{name}_d{plan.day + 1}", day=plan.day + 1, dead_fraction=dead)


def simulate_field(plan: FieldPlan) -> SimulatedField:
    """Render one planned field; the same plan gives the same bytes on any x86-64 CPU."""
    cells = place_cells(plan, np.random.default_rng((*plan.seed, 0)))
    streams = [np.random.default_rng((*plan.seed, part, plan.day)) for part in (1, 2)]
    brightfield = render_brightfield(plan, cells, streams[0])
    pi = render_pi(plan, cells, streams[1])
    truth = _truth(cells, plan.height, plan.width)
    return SimulatedField(brightfield, pi, truth, plan.out_of_focus)


def _truth(cells: Cells, height: int, width: int) -> pd.DataFrame:
    """Return the cells whose centre lies in the field."""
    within = (cells.y >= 0) & (cells.y < height) & (cells.x >= 0) & (cells.x < width)
    columns = {"y": cells.y[within], "x": cells.x[within], "radius": cells.radius[within]}
    return pd.DataFrame(columns).assign(
        state=np.where(cells.dead[within], "dead", "live"),
        kind=np.where(cells.immune[within], "immune", "tumour"),
    )


def true_windows(
    field: SimulatedField, height: int, width: int, size: int, stride: int
) -> pd.DataFrame:
    """Return every window of `size` px at `stride` px: y, x, size and its true verdict cells, empty
    or unusable.

    A window is unusable in an out-of-focus field, empty when tumour cells cover under
    EMPTY_COVERAGE of it.
    """
    covered = np.zeros((height, width), dtype=bool)
    for cell in field.cells.query("kind == 'tumour'").itertuples():
        window, dy, dx = stamp(covered.shape, cell.y, cell.x, cell.radius)
        covered[window] |= dy**2 + dx**2 < cell.radius**2
    rows = []
    for y in range(0, height - size + 1, stride):
        for x in range(0, width - size + 1, stride):
            empty = covered[y : y + size, x : x + size].sum() < EMPTY_COVERAGE * size * size
            verdict = "unusable" if field.out_of_focus else "empty" if empty else "cells"
            rows.append((y, x, size, verdict))
    return pd.DataFrame(rows, columns=["y", "x", "size", "verdict"])
