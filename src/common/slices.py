"""Slices of a test set: the same few numbers for each experiment, culture day, cell density, ... apart.

A slicing is a column of names; patches without a name are in no slice.
"""

import cv2
import numpy as np
import pandas as pd

from .metrics import point_metrics

THIRDS = ["lowest third", "middle third", "highest third"]
LOCAL, CONTRAST = 9, 0.06  # side in pixels of the neighbourhood, and its sd over mean above which it is textured


def slice_table(test: pd.DataFrame, slicings: dict[str, pd.Series]) -> list[dict]:
    """One row per slice: slice, value, n, n_live, n_dead, balanced_accuracy, auc (NaN with one class), both recalls.

    test has the columns live, score and called; each slicing is aligned with it.
    """
    rows = []
    for name, values in slicings.items():
        for value, part in test.groupby(values.to_numpy(), sort=True):
            live = part["live"].to_numpy()
            found = point_metrics(live, part["score"].to_numpy(), part["called"].to_numpy())
            counts = {"n": len(part), "n_live": int(live.sum()), "n_dead": int((~live).sum())}
            chosen = {key: found[key] for key in ("balanced_accuracy", "auc", "sensitivity", "specificity")}
            rows.append({"slice": name, "value": str(value)} | counts | chosen)
    return rows


def slicings(test: pd.DataFrame, store, thresholds: dict) -> dict[str, pd.Series]:
    """The slicings of a partition's test patches: by partition, experiment, day, cell density, PI and position.

    test has the columns of splits.parquet, those of the frames (height, width) and day.
    """
    return {
        "partition": test["partition"],
        "experiment": test["experiment"],
        "day": test["day"].map(lambda day: f"{day:g}", na_action="ignore"),
        "cell density (textured area)": thirds(pd.Series(textured(store, test), test.index)),
        "PI from its class's threshold": distance_thirds(test, thresholds["live_below"], thresholds["dead_above"]),
        "position in the frame": frame_position(test),
    }


def thirds(values: pd.Series) -> pd.Series:
    """Names of THIRDS by rank, ties in one third by their mean rank."""
    ranks = values.rank(pct=True)
    return pd.Series(np.array(THIRDS)[np.clip((ranks * 3).apply(np.ceil) - 1, 0, 2).astype(int)], values.index)


def distance_thirds(test: pd.DataFrame, live_below: float, dead_above: float) -> pd.Series:
    """Thirds of each class by the distance of a patch's intensity from the threshold of its class: lowest = nearest."""
    distance = np.where(test["live"], live_below - test["intensity"], test["intensity"] - dead_above)
    parts = [thirds(part) for _, part in pd.Series(distance, test.index).groupby(test["live"])]
    return pd.concat(parts).reindex(test.index)


def frame_position(test: pd.DataFrame) -> pd.Series:
    """edge: the window begins or ends less than half a window from the frame's border; else centre."""
    far_y, far_x = test["height"] - test["y"] - test["size"], test["width"] - test["x"] - test["size"]
    nearest = pd.concat([test["y"], test["x"], far_y, far_x], axis=1).min(axis=1)
    return pd.Series(np.where(nearest < test["size"] / 2, "edge", "centre"), test.index)


def textured(store, table: pd.DataFrame) -> np.ndarray:
    """Share (N,) of each window that is textured, as a stand-in for cell density: local sd over local mean above
    CONTRAST (the local contrast of PHANTAST, Jaccard et al. 2014).
    """
    rows = table[["image_id", "y", "x", "size"]].itertuples(index=False)
    return np.array([_textured(store.window(*row)) for row in rows])


def _textured(window: np.ndarray) -> float:
    image = window.astype(np.float32)
    mean = cv2.blur(image, (LOCAL, LOCAL))
    variance = cv2.blur(image * image, (LOCAL, LOCAL)) - mean * mean
    return float((np.sqrt(np.maximum(variance, 0)) > CONTRAST * np.maximum(mean, 1)).mean())
