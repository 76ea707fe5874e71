"""Slices of a test set: the same few numbers for each experiment, culture day, cell density, ...
apart.

A slicing is a column of names; patches without a name are in no slice.
"""

import cv2
import numpy as np
import pandas as pd

from ..metrics.point import point_metrics

THIRDS = ["lower third", "middle third", "upper third"]  # in the order of the alphabet, too
DENSITIES = ["1 sparse, below 0.9", "2 dense, 0.9 to 0.99", "3 closed, from 0.99"]
SMOOTH, LOCAL = 2.0, 25  # sigma and side of the neighbourhood, in pixels
NOISES = 3.0  # multiples of the noise that count as texture
LEAST_SD = 5.0  # grey levels that do where there is none
IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


def slice_table(test: pd.DataFrame, slicings: dict[str, pd.Series]) -> list[dict]:
    """One row per slice: slice, value, n, n_live, n_dead, balanced_accuracy, auc (NaN with one
    class), both recalls.

    test has the columns live, score and called; each slicing is aligned with it.
    """
    rows = []
    for name, values in slicings.items():
        for value, part in test.groupby(values.to_numpy(), sort=True):
            live = part["live"].to_numpy()
            measures = point_metrics(live, part["score"].to_numpy(), part["called"].to_numpy())
            counts = {"n": len(part), "n_live": int(live.sum()), "n_dead": int((~live).sum())}
            chosen = {
                key: measures[key]
                for key in ("balanced_accuracy", "auc", "sensitivity", "specificity")
            }
            rows.append({"slice": name, "value": str(value)} | counts | chosen)
    return rows


def slicings(test: pd.DataFrame, store, thresholds: dict) -> dict[str, pd.Series]:
    """The slicings of a partition's test patches: by partition, experiment, day, cell density, PI
    and position.

    test has the columns of splits.parquet, those of the frames (height, width) and day.
    """
    return {
        "partition": test["partition"],
        "experiment": test["experiment"].mask(test["experiment"] == ""),
        "day": test["day"].map(lambda day: f"{day:g}", na_action="ignore"),
        "cell density (textured share)": density(pd.Series(textured(store, test), test.index)),
        "distance of PI from threshold": distance_thirds(
            test, thresholds["live_below"], thresholds["dead_above"]
        ),
        "position in the frame": frame_position(test),
    }


def density(share: pd.Series) -> pd.Series:
    """Sparse, dense or closed, by the textured share of a window: below 0.9, below 0.99, from 0.99
    up.
    """
    return pd.cut(share, [-np.inf, 0.9, 0.99, np.inf], right=False, labels=DENSITIES).astype("str")


def thirds(values: pd.Series) -> pd.Series:
    """Names of THIRDS by rank, ties in one third by their mean rank."""
    ranks = values.rank(pct=True)
    return pd.Series(
        np.array(THIRDS)[np.clip((ranks * 3).apply(np.ceil) - 1, 0, 2).astype(int)], values.index
    )


def distance_thirds(test: pd.DataFrame, live_below: float, dead_above: float) -> pd.Series:
    """Thirds of each class by the distance of a patch's intensity from the threshold of its class:
    lower = nearest.
    """
    distance = np.where(
        test["live"], live_below - test["intensity"], test["intensity"] - dead_above
    )
    parts = [thirds(part) for _, part in pd.Series(distance, test.index).groupby(test["live"])]
    return pd.concat(parts).reindex(test.index)


def frame_position(test: pd.DataFrame) -> pd.Series:
    """edge: the window comes closer than half a window to the frame's border; else centre."""
    far_y = test["height"] - test["y"] - test["size"]
    far_x = test["width"] - test["x"] - test["size"]
    nearest = pd.concat([test["y"], test["x"], far_y, far_x], axis=1).min(axis=1)
    return pd.Series(np.where(nearest < test["size"] / 2, "edge", "centre"), test.index)


def textured(store, table: pd.DataFrame) -> np.ndarray:
    """Share (N,) of each window that is textured beyond its noise: a stand-in for the density of
    cells.

    Textured: the local sd of the smoothed window is above NOISES times what its noise alone leaves
    there; the noise is the median of the response to Immerkaer's (1996) mask, which edges and ramps
    do not excite.
    """
    rows = table[["image_id", "y", "x", "size"]].itertuples(index=False)
    return np.array([_textured(store.window(*row)) for row in rows])


def _textured(window: np.ndarray) -> float:
    image = window.astype(np.float32)
    noise = np.median(np.abs(cv2.filter2D(image, -1, IMMERKAER))) / 0.6745 / 6
    smooth = cv2.GaussianBlur(image, (0, 0), SMOOTH)
    mean = cv2.blur(smooth, (LOCAL, LOCAL))
    variance = cv2.blur(smooth * smooth, (LOCAL, LOCAL)) - mean * mean
    limit = max(NOISES * noise / (2 * SMOOTH * np.sqrt(np.pi)), LEAST_SD)
    return float((np.sqrt(np.maximum(variance, 0)) > limit).mean())
