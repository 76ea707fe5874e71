"""Every round's model on its validation and test patches, called at its own operating point.

The temperature, threshold and band of a round are fitted on its validation part and applied to its
test part; under kfold the test parts are then pooled.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..patches.store import PatchStore
from ..scoring.inference import live_logits, load_model
from ..scoring.operating import Operating, calibrate, called_live, conformal_call, evidence
from ..split.rounds import Round
from ..workspace.errors import UserError
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
    scored: pd.DataFrame, error: float, shifted: bool = False
) -> tuple[pd.DataFrame, list[dict]]:
    """Every round's rows under the operating point of its own validation part, and those points.

    shifted: the evidence has no natural zero, as that of a stain network (see `fit_operating`).
    """
    operated, points = [], []
    for name, rows in scored.groupby("round", sort=False):
        valid, source = validation_of(scored, name)
        at = fit_operating(valid["logit"].to_numpy(), valid["live"].to_numpy(), error, shifted)
        operated.append(operate(rows, at))
        points.append({"round": name, "validation": source, "n_validation": len(valid)} | vars(at))
    return pd.concat(operated), points


def validation_of(scored: pd.DataFrame, name: str) -> tuple[pd.DataFrame, str]:
    """The rows that a round's temperature and threshold may be fitted on: its validation part, if
    it has both classes.

    Otherwise the validation parts of the other rounds, pooled, without patches that the round
    tests. Raises EvaluationError if these lack a class too.
    """
    valid = scored[scored["split"] == "valid"]
    own = valid[valid["round"] == name]
    if own["live"].nunique() == 2:
        return own, "own"
    tested = scored.loc[(scored["round"] == name) & (scored["split"] == "test"), "patch_id"]
    others = valid[~valid["patch_id"].isin(tested)]
    if others["live"].nunique() < 2:
        raise EvaluationError(
            f"{name}: no validation patches of both classes; check@splits should have stopped this"
        )
    return others, "pooled"


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
    points: list[dict], test: pd.DataFrame, scheme: str, error: float, shifted: bool = False
) -> Operating:
    """The operating point that the model to register carries.

    holdout: that of its round. kfold: fitted on the pooled test scores, since no split is left to
    judge the final model.
    """
    if scheme == "holdout":
        return Operating(**{name: points[0][name] for name in Operating.__dataclass_fields__})
    return fit_operating(test["logit"].to_numpy(), test["live"].to_numpy(), error, shifted)


def test_digest(test: pd.DataFrame) -> str:
    """Of the test patches and their labels: two models with the same digest were judged on the same
    data.
    """
    rows = sorted(zip(test["patch_id"], test["label"]))
    return hashlib.sha256(repr(rows).encode()).hexdigest()
