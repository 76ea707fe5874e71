"""Write the filter's annotations of the simulated plate from its known truth.

    python annotations/from_truth.py data/raw/truth annotations/synthetic.csv

Stages read the annotations and never the truth, as they would read a person's. As in the paper: 226
windows with cells and 226 without or unusable, taken from both partitions and many fields.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

COUNTS = {"cells": 226, "empty": 150, "unusable": 76}  # the paper's 226 + 226
ANNOTATOR, DATE, SEED = "simulator", "2026-11-22", 20261122


def annotate(
    windows: pd.DataFrame, counts: dict[str, int] = COUNTS, seed: int = SEED
) -> pd.DataFrame:
    """Choose `counts` windows of each verdict, evenly over the fields that have some.

    `windows` has image_id, y, x, size, verdict; the result has annotator and date besides, sorted,
    without repeats. Raises ValueError if there are too few.
    """
    chosen = pd.concat(
        [
            _spread(windows[windows["verdict"] == name], count, seed)
            for name, count in counts.items()
        ]
    )
    chosen = chosen.assign(annotator=ANNOTATOR, date=DATE).sort_values(["image_id", "y", "x"])
    return chosen[["image_id", "y", "x", "size", "verdict", "annotator", "date"]].reset_index(
        drop=True
    )


def _spread(windows: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Take `count` windows in rounds: one of each field, then a second of each, until there are
    enough.
    """
    if len(windows) < count:
        raise ValueError(
            f"only {len(windows)} windows to choose {count} from: simulate more frames"
        )
    windows = windows.sort_values(["image_id", "y", "x"]).reset_index(drop=True)
    shuffled = windows.iloc[np.random.default_rng(seed).permutation(len(windows))]
    turn = shuffled.groupby("image_id", sort=True).cumcount()
    return shuffled.iloc[np.argsort(turn.to_numpy(), kind="stable")[:count]]


if __name__ == "__main__":
    truth, target = Path(sys.argv[1]), Path(sys.argv[2])
    annotate(pd.read_parquet(truth / "windows.parquet")).to_csv(
        target, index=False, lineterminator="\n"
    )
