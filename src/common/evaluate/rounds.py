"""Every round's model on its validation and test patches, called at its own operating point.

The temperature, threshold and band of a round are fitted on groups that it does not test, and
applied to its test part; under kfold the test parts are then pooled.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..patches.rounds import Round
from ..patches.store import PatchStore
from ..scoring.networks.inference import live_logits, load_model
from ..scoring.operating import Operating, calibrate, called_live, conformal_call, evidence
from ..workspace.errors import UserError
from ..workspace.sections import Evaluate
from .calibration import fit_operating


class EvaluationError(UserError):
    """A model cannot be evaluated on this split; the message says why."""


def score_rounds(
    splits: pd.DataFrame, held_out: Sequence[Round], models: Path, card: dict, store: PatchStore
) -> pd.DataFrame:
    """Validation and test patches of every round with its name, split and live evidence
    `logit`, rounded to 6 decimals as it is saved.

    models: folder of the partition's models; card: its model.json.
    """
    scored = []
    for part in held_out:
        net = load_model(part.folder(models), card)
        rows = splits[part.valid | part.test]
        split = np.where(part.test[part.valid | part.test], "test", "valid")
        logit = live_logits(net, store, rows, f"evaluate {models.name} {part.name}")
        scored.append(rows.assign(round=part.name, split=split, logit=np.round(logit, 6)))
    return pd.concat(scored, ignore_index=True)


def operate_rounds(
    scored: pd.DataFrame, settings: Evaluate, shifted: bool = False
) -> tuple[pd.DataFrame, list[dict]]:
    """Every round's rows under its own operating point, and those points.

    shifted: the evidence has no natural zero, as that of a stain network (see `fit_operating`).
    """
    operated, points = [], []
    for name, rows in scored.groupby("round", sort=False):
        known, source = known_to(scored, name)
        at = operating_of(known, settings, shifted)
        operated.append(operate(rows, at))
        points.append({"round": name, "validation": source, "n_validation": len(known)} | vars(at))
    return pd.concat(operated), points


def known_to(scored: pd.DataFrame, name: str) -> tuple[pd.DataFrame, str]:
    """The rows that a round's operating point may be fitted on.

    holdout: its validation part. kfold: what the other rounds' models said of their own test parts,
    which are all groups but those that this round tests; a single fold holds too few groups to
    choose by. Raises EvaluationError if these lack a class.
    """
    part, source = scored["split"] == "valid", "validation"
    if len(scored["round"].unique()) > 1:
        part, source = (scored["split"] == "test") & (scored["round"] != name), "other folds"
    if scored.loc[part, "live"].nunique() < 2:
        raise EvaluationError(
            f"{name}: no {source} patches of both classes; check@splits should have stopped this"
        )
    return scored[part], source


def operating_of(known: pd.DataFrame, settings: Evaluate, shifted: bool) -> Operating:
    """The operating point fitted on scored patches."""
    groups = known["group"].to_numpy() if settings.band == "group" else None
    logit, live = known["logit"].to_numpy(), known["live"].to_numpy()
    return fit_operating(logit, live, settings.abstain_error, shifted, groups)


def operate(rows: pd.DataFrame, at: Operating) -> pd.DataFrame:
    """Rows with score, probability, called, call and covered under an operating point."""
    probability = calibrate(rows["logit"], at.temperature, at.shift)
    return rows.assign(
        score=evidence(rows["logit"], at.temperature, at.shift),
        probability=probability,
        called=called_live(probability, at.threshold),
        call=conformal_call(probability, at.live_from, at.dead_to),
        covered=np.where(rows["live"], probability >= at.live_from, probability <= at.dead_to),
    )


def test_rows(scored: pd.DataFrame) -> pd.DataFrame:
    """The test rows of a table of scored patches."""
    return scored[scored["split"] == "test"].reset_index(drop=True)


def final_operating(
    points: list[dict], test: pd.DataFrame, scheme: str, settings: Evaluate, shifted: bool = False
) -> Operating:
    """The operating point that the model to register carries.

    holdout: that of its round. kfold: fitted on the pooled test scores, since no split is left to
    judge the final model.
    """
    if scheme == "holdout":
        return Operating(**{name: points[0][name] for name in Operating.__dataclass_fields__})
    return operating_of(test, settings, shifted)


def test_digest(test: pd.DataFrame) -> str:
    """Of the test patches and their labels: two models with the same digest were judged on the same
    data.
    """
    rows = sorted(zip(test["patch_id"], test["label"]))
    return hashlib.sha256(repr(rows).encode()).hexdigest()
