"""The training rounds that a table of splits describes, and what is counted of its groups."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..workspace.tables import CLASS_NAMES, SPLIT_NAMES


@dataclass(frozen=True)
class Round:
    """One training round: boolean masks over the rows of the table of splits, of its length."""

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    def folder(self, directory: Path) -> Path:
        """Where this round's model lies: the one to register at the top of models/PARTITION, folds
        below it.
        """
        return directory if self.name in ("holdout", "final") else directory / self.name


def rounds(splits: pd.DataFrame, split_json: dict) -> list[Round]:
    """Training rounds of one partition's rows of splits.parquet under the scheme in split.json.

    holdout: one round. kfold: round fold-f tests on fold f, validates on the next fold and trains
    on the rest; a last round `final` trains on everything, with nothing held out.
    """
    if split_json["scheme"] == "holdout":
        return [Round("holdout", *((splits["split"] == name).to_numpy() for name in SPLIT_NAMES))]
    fold, folds = splits["fold"].to_numpy(), split_json["folds"]
    folds_made = []
    for f in range(folds):
        test, valid = fold == f, fold == (f + 1) % folds
        folds_made.append(Round(f"fold-{f}", ~(test | valid), valid, test))
    everything = np.ones(len(splits), bool)
    return [*folds_made, Round("final", everything, ~everything, ~everything)]


def class_counts(labelled: pd.DataFrame) -> pd.DataFrame:
    """Groups (sorted) x (live, dead) patches; columns group and label are read."""
    table = pd.crosstab(labelled["group"], labelled["label"])
    return table.reindex(columns=list(CLASS_NAMES), fill_value=0).sort_index()
