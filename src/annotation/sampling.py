"""Which window to ask about next: the uncertain ones first, spread over images, none that shows
what is known.

Uncertainty sampling with a support vector machine: Tong and Koller, Journal of Machine Learning
Research 2, 2001. Before there is a machine to be uncertain, windows from every stratum of how much
there is to see in them.
"""

import numpy as np
import pandas as pd

from ..common.filter.annotations import WINDOW_KEY

# Share of the windows in question, nearest to the boundary, among which the image decides
UNCERTAIN = 0.05
STRATA = 10


def candidates(patches: pd.DataFrame, max_border: float, count: int, seed: int) -> pd.DataFrame:
    """At most `count` windows drawn evenly over the images, without those that the border rule
    settles; same order.
    """
    asked = patches[patches["border"] <= max_border]
    drawn = asked.sample(frac=1, random_state=seed)
    turn = drawn.groupby("image_id").cumcount()
    kept = turn.sort_values(kind="stable").index[:count]
    return patches.loc[np.sort(kept)].reset_index(drop=True)


def diverse_order(values: np.ndarray, seed: int) -> np.ndarray:
    """All N row numbers, each STRATA of them one from every stratum of a measure (N,), in random
    order.

    A rare kind that lies at one end of the measure, as empty windows do in detail, is met early.
    """
    random = np.random.default_rng(seed)
    strata = np.array_split(np.argsort(values, kind="stable"), STRATA)
    place = np.concatenate(
        [random.permutation(len(stratum)) + random.random() for stratum in strata]
    )
    return np.concatenate(strata)[np.argsort(place, kind="stable")]


def known(windows: pd.DataFrame, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Which of N windows are among `rows` (image_id, y, x, size), and which overlap one of them:
    (N,) bool each.
    """
    pairs = (
        windows[WINDOW_KEY]
        .assign(place=np.arange(len(windows)))
        .merge(rows[WINDOW_KEY], on="image_id", suffixes=("", "_other"))
    )
    down, right = (pairs[axis] - pairs[f"{axis}_other"] for axis in ("y", "x"))
    met = ((down < pairs["size_other"]) & (-down < pairs["size"])) & (
        (right < pairs["size_other"]) & (-right < pairs["size"])
    )
    same = met & (down == 0) & (right == 0) & (pairs["size"] == pairs["size_other"])
    return tuple(np.isin(np.arange(len(windows)), pairs["place"][hit]) for hit in (same, met))


def choose(
    windows: pd.DataFrame,
    rows: pd.DataFrame,
    order: np.ndarray,
    scores: np.ndarray | None,
    put_off: set[int],
) -> int | None:
    """The next of N windows to ask about, given annotated rows; None if none is left.

    order: (N,) row numbers, followed while `scores` is None; scores: (N,) decision values, nearest
    to zero first, of the nearest few the one whose image has the fewest rows. Windows that overlap
    an annotated one come last of all, those in `put_off` never.
    """
    annotated, overlapping = known(windows, rows)
    left = ~annotated
    left[list(put_off)] = False
    asked = np.flatnonzero(left & ~overlapping)
    if not len(asked):
        asked = np.flatnonzero(left)
    if not len(asked):
        return None
    if scores is None:
        return int(order[np.isin(order, asked)][0])
    nearest = asked[np.argsort(np.abs(scores[asked]), kind="stable")][
        : max(1, round(UNCERTAIN * len(asked)))
    ]
    count = (
        windows["image_id"].iloc[nearest].map(rows["image_id"].value_counts()).fillna(0).to_numpy()
    )
    return int(nearest[np.argmin(count)])
