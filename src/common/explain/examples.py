"""Windows that an explanation shows: outcomes of calls, examples, the nearly empty, mistakes."""

import numpy as np
import pandas as pd

from ..patches.sampling import disjoint, draw
from ..patches.store import PatchStore
from ..scoring.networks.backbones import CLASSES
from ..scoring.operating import called_live
from ..workspace.errors import UserError
from ..workspace.sections import Explain

EMPTIEST = "least contrast"


class ExplanationError(UserError):
    """A partition's model cannot be explained as things stand; the message says what to repeat."""


def outcomes(predictions: pd.DataFrame, points: dict[str, dict]) -> pd.DataFrame:
    """Test rows of the predictions by patch_id, with outcome (right, wrong, abstained) and forced
    call (live, dead). points: the operating point of each round.

    Raises ExplanationError if there are none, or if predictions and points are of other rounds.
    """
    test = predictions[predictions["split"] == "test"]
    rows = test.sort_values("patch_id", kind="stable").reset_index(drop=True)
    if rows.empty:
        raise ExplanationError(
            "the predictions hold no test windows: repeat the stages split to evaluate"
        )
    if missing := sorted(set(rows["round"]) - set(points)):
        raise ExplanationError(
            f"predictions and metrics differ in {', '.join(missing)}: repeat evaluate"
        )
    right = np.where(rows["call"] == rows["label"], "right", "wrong")
    outcome = np.where(rows["call"] == "abstain", "abstained", right)
    thresholds = rows["round"].map({name: point["threshold"] for name, point in points.items()})
    forced = np.where(called_live(rows["probability"], thresholds), "live", "dead")
    return rows.assign(outcome=outcome, forced=forced)


def round_to_map(rows: pd.DataFrame) -> str:
    """The round with the most test windows of its rarer class: the one whose map can show both."""
    counts = pd.crosstab(rows["round"], rows["label"]).reindex(columns=list(CLASSES), fill_value=0)
    order = counts.assign(least=counts.min(axis=1), all=counts.sum(axis=1)).sort_index()
    return str(order.sort_values(["least", "all"], ascending=False, kind="stable").index[0])


def by_contrast(store: PatchStore, rows: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """Windows of the test images (those of `rows`) without black border, least contrast first, with
    round and verdict of the filter (patch_id, verdict).
    """
    rounds = rows.drop_duplicates("image_id").set_index("image_id")["round"]
    patches = store.patches(sorted(store.frames["partition"].unique()))
    table = patches.merge(verdicts[["patch_id", "verdict"]], on="patch_id", validate="1:1")
    table = table[table["image_id"].isin(rounds.index) & (table["border"] == 0)]
    table = table.assign(round=table["image_id"].map(rounds))
    return table.sort_values(["contrast", "patch_id"], ignore_index=True)


def cam_examples(rows: pd.DataFrame, emptiest: pd.DataFrame, settings: Explain) -> pd.DataFrame:
    """Windows for Fig. 6: a block of right and one of wrong calls of both classes, each with a
    nearly empty one.

    Without wrong calls the windows abstained on take their place. The emptiest show whether a patch
    without cells stays dark on the scale of the others.
    """
    second = "wrong" if (rows["outcome"] == "wrong").any() else "abstained"
    blocks = []
    for i, block in enumerate(("right", second)):
        own = rows[rows["outcome"] == block]
        parts = [draw(own[own["label"] == c], settings.patches, settings.seed) for c in CLASSES]
        mixed = pd.concat([part.assign(turn=range(len(part))) for part in parts]).sort_values(
            "turn", kind="stable"
        )
        shown = mixed.head(settings.patches).sort_values("label", kind="stable")
        empty = emptiest.iloc[i : i + 1].assign(outcome=EMPTIEST)
        blocks.append(pd.concat([shown, empty]).assign(block=block))
    return pd.concat(blocks, ignore_index=True)


def confident_mistakes(rows: pd.DataFrame) -> pd.DataFrame:
    """The wrong calls with their confidence, the most confident first, no two overlapping."""
    wrong = rows[rows["outcome"] == "wrong"]
    confidence = np.where(wrong["call"] == "live", wrong["probability"], 1 - wrong["probability"])
    wrong = wrong.assign(confidence=confidence)
    return disjoint(wrong.sort_values(["confidence", "patch_id"], ascending=[False, True]))
