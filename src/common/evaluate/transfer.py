"""A partition's model on the test patches of the other partitions."""

from pathlib import Path

import numpy as np
import pandas as pd

from ..patches.store import PatchStore
from ..scoring.networks.inference import live_logits, load_model
from ..scoring.operating import Operating
from ..workspace.sections import Evaluate
from .record import overall
from .rounds import operate
from .testset import TestSet


def cross_partition(
    own: pd.DataFrame, others: dict[str, pd.DataFrame], models: Path, card: dict, at: Operating,
    store: PatchStore, settings: Evaluate,
) -> dict | None:  # fmt: skip
    """The model on every other partition (name to its splits), at its own operating point.

    Under kfold every patch is a test patch and the final model is asked. Groups that the model
    trained or validated on are left out and counted; a partition of which nothing remains is named
    without metrics. own: the model's own splits; None if there are no others.
    """
    if not others:
        return None
    kfold = (own["fold"] >= 0).any()
    seen = own.loc[own["split"] != "test", "group"].unique()
    net, record = load_model(models, card), {}
    for name, splits in others.items():
        rows = splits if kfold else splits[splits["split"] == "test"]
        unseen = rows[~rows["group"].isin(seen)]
        left_out = {"groups_left_out": int(rows["group"].nunique() - unseen["group"].nunique())}
        if unseen.empty:
            record[name] = left_out | {"overall": None}
            continue
        logit = np.round(live_logits(net, store, unseen, f"{models.name} on {name}"), 6)
        test = TestSet.of(operate(unseen.assign(logit=logit), at), settings)
        record[name] = left_out | test.counts() | {"overall": overall(test)}
    return record
