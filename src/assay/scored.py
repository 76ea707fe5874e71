"""What became of an image: its windows and, of a model that predicts it, its stain."""

from dataclasses import dataclass

import pandas as pd

from ..common.scoring.novelty import frame_flags
from .checked import Checked
from .predicted import Predicted


@dataclass(frozen=True)
class Scored:
    """A checked image with its windows and predicted stain, None if it was refused; shift: of the
    evidence, where the plate's controls set the operating point.
    """

    checked: Checked
    windows: pd.DataFrame | None = None
    stain: Predicted | None = None
    shift: float = 0.0

    @property
    def cells(self) -> pd.DataFrame | None:
        """The cells of its mask, None where it has none."""
        return None if self.stain is None else self.stain.cells


def flags(one: Checked, windows: pd.DataFrame, contract: dict) -> list[str]:
    """Why a scored image is not trusted, novelty first; empty for one like the training data."""
    novelty = windows["novelty"].dropna().to_numpy()
    reasons = frame_flags(contract, one.bits, one.low, one.high, novelty)
    return sorted(reasons, key=lambda reason: not reason.startswith("unlike"))
