"""Nuclei of masks in stained images: how a model calls them beside their own PI."""

import numpy as np
import pandas as pd

from ..common.evaluate import record as assessment
from ..common.evaluate.nuclei import own_class
from ..common.evaluate.testset import TestSet
from . import agreement, cells
from .model import Model


def of_field(
    mask: np.ndarray, frame: np.ndarray, pi: np.ndarray, background: float, model: Model,
    pixel_size_um: float | None,
) -> pd.DataFrame:  # fmt: skip
    """The cells of an instance mask (H, W) as `score` calls them (cells.of_image), with their own
    class `label` by PI (H, W) in counts over the field's background.
    """
    called = cells.of_image(mask, model.stain(frame, pixel_size_um), model, pixel_size_um)
    own = called["label"].map(own_class(mask, pi, background))
    return called.rename(columns={"label": "nucleus"}).assign(label=own)


def agreement_of(fields: list[pd.DataFrame], contract: dict) -> dict | None:
    """How calls agree with the nuclei's own PI, with intervals over groups as for patches; None of
    no nuclei, counts alone where a class lacks.
    """
    if not fields:
        return None
    nuclei = pd.concat(fields, ignore_index=True)
    counts = nuclei["label"].value_counts()
    record = {f"n_{name}": int(counts.get(name, 0)) for name in ("live", "dead", "open")}
    at = cells.band(contract) | {"temperature": 1.0}
    test = agreement.scored_table(nuclei, at)
    if test["live"].nunique() < 2:
        return record
    tested = TestSet.of(test, agreement.SETTINGS)
    return record | {
        "overall": assessment.overall(tested),
        "within_experiment": assessment.within(tested, tested.column("score")),
        "conformal": agreement.conformal(test, at),
    }
