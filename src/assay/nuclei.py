"""Nuclei of masks in stained images: how a model calls them beside their own PI, and what that
teaches of a new session.
"""

import numpy as np
import pandas as pd

from ..common.evaluate import record as assessment
from ..common.evaluate.nuclei import own_class
from ..common.evaluate.testset import TestSet
from . import agreement, cells
from .controls import intercept
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
    speck_um2 = cells.calling_point(model.contract)["speck_um2"]
    own = own.mask(called["area_um2"] < speck_um2, "open")  # it teaches nothing of others
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
    at = cells.calling_point(contract) | {"temperature": 1.0}
    test = agreement.scored_table(nuclei, at)
    if test["live"].nunique() < 2:
        return record
    tested = TestSet.of(test, agreement.SETTINGS)
    return record | {
        "overall": assessment.overall(tested),
        "within_experiment": assessment.within(tested, tested.column("score")),
        "conformal": agreement.conformal(test, at),
    }


def moved(fields: list[pd.DataFrame], contract: dict, operating: dict) -> tuple[dict, list[str]]:
    """What of a contract changes for windows at another operating point: that, and the intercept
    that the nuclei of stained fields ask for (see `controls.intercept`); and what is to be said.

    Without nuclei of known class, cells follow their windows, whose intercept tells little of
    nuclei (docs/accuracy.md).
    """
    at, changes = contract.get("nuclei"), {"operating": operating}
    known = pd.concat(fields).query("label in ['live', 'dead']") if fields else pd.DataFrame()
    if not at or known.empty:
        return changes, []
    live = (known["label"] == "live").to_numpy()
    by = round(intercept(known["live_probability"], live, known["image_id"].to_numpy()), 6)
    own = {"intercept": round(at["intercept"] + by, 6), "shift": operating["shift"]}
    told = f"nuclei: moved by {by:+.2f} (logit) from {live.sum()} live, {(~live).sum()} dead ones"
    return changes | {"nuclei": at | own}, [told]
