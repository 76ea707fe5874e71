"""The simulated plate as a source. Everything made from it is marked synthetic."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..images.field import Field, Found, Frame, SourceError
from .simulator import FieldPlan, plan_plate, simulate_field, true_windows

# The paper's, for the truth about windows that the tests and the annotation script use
WINDOW, STRIDE = 224, 112
# What a field and its plan both say
PLANNED = ("image_id", "partition", "experiment", "well", "position", "day", "pixel_size_um")


@dataclass(frozen=True, kw_only=True)
class SimulatedField(Field):
    """A field that is rendered instead of read."""

    plan: FieldPlan

    def read(self) -> Frame:
        """Render the field; its truth comes beside it, for the tests alone."""
        rendered = simulate_field(self.plan)
        windows = true_windows(rendered, self.plan.height, self.plan.width, WINDOW, STRIDE)
        return Frame(
            rendered.brightfield, rendered.pi, truth={"cells": rendered.cells, "windows": windows}
        )


def find(
    partitions: Sequence[str], frames: int, height: int, width: int, seed: int, sessions: int
) -> Found:
    """Plan the plate: `frames` fields of `height` x `width` px for each partition, imaged in
    `sessions`. Raises SourceError.
    """
    try:
        plans = plan_plate(partitions, frames, height, width, seed, sessions)
    except ValueError as error:
        raise SourceError(str(error)) from None
    return Found([_field(plan) for plan in plans])


def _field(plan: FieldPlan) -> SimulatedField:
    facts = {name: getattr(plan, name) for name in PLANNED}
    return SimulatedField(name="simulated", plan=plan, **facts)
