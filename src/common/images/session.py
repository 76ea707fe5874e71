"""What a session is: fields imaged together under one set-up share their exposure, so that what looks
alike and has different ids may be one session, and one id with several exposures may be several.

The limits are natural logarithms, from the 18 real MCF-7 sessions: within one the bright-field
median varies by 0.01 to 0.16 (standard deviation), its contrast by 0.05 to 0.38, PI by 0.01 to 0.45,
as cells die; between sessions the median alone spans 281 to 34,729 counts. With these limits no two
of them look alike, and none falls apart.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd

ALIKE = {"brightfield_median": 0.1, "brightfield_contrast": 0.3, "pi_background": 0.5}
APART = {"brightfield_median": 0.35, "pi_background": 1.0}
EXPOSURE = ["brightfield_bits", *ALIKE]


def exposure(brightfield: np.ndarray) -> dict[str, float]:
    """Median counts of a bright-field frame (H, W) uint16, and its contrast: the range of 98 of 100
    pixels over the median. Zeros are no counts.
    """
    lit = brightfield[brightfield > 0]
    if not lit.size:
        return {"brightfield_median": 0.0, "brightfield_contrast": 0.0}
    low, median, high = np.percentile(lit, [1, 50, 99])
    contrast = round(float((high - low) / median), 6)
    return {"brightfield_median": float(median), "brightfield_contrast": contrast}


def alike(frames: pd.DataFrame) -> pd.DataFrame:
    """Pairs of experiments whose fields look as if imaged together: experiment, other, and one field
    of each (image_id, other_id).

    frames: image_id, experiment ('' if unknown) and EXPOSURE.
    """
    known = _logarithms(frames)
    middle = known.groupby("experiment")[EXPOSURE].median()
    first = known.groupby("experiment")["image_id"].first()
    rows = [
        {"image_id": first[a], "other_id": first[b], "experiment": a, "other": b}
        for a, b in combinations(middle.index, 2)
        if _close(middle.loc[a], middle.loc[b])
    ]
    return pd.DataFrame(rows, columns=["image_id", "other_id", "experiment", "other"])


def mixed(frames: pd.DataFrame) -> pd.DataFrame:
    """Where one experiment's fields fall into several exposures: experiment, what differs, and the
    two fields on the sides of each gap (image_id, other_id).
    """
    known = _logarithms(frames)
    rows = [row for name, own in known.groupby("experiment") for row in _gaps(name, own)]
    return pd.DataFrame(rows, columns=["image_id", "other_id", "experiment", "measure", "factor"])


def _logarithms(frames: pd.DataFrame) -> pd.DataFrame:
    known = frames[frames["experiment"].fillna("") != ""].copy()
    known[list(ALIKE)] = np.log(known[list(ALIKE)].clip(lower=1e-3).astype(float))
    return known


def _close(one: pd.Series, other: pd.Series) -> bool:
    same = one["brightfield_bits"] == other["brightfield_bits"]
    return bool(same and all(abs(one[name] - other[name]) < limit for name, limit in ALIKE.items()))


def _gaps(name: str, own: pd.DataFrame) -> Iterator[dict]:
    """The steps between one experiment's fields, in order of a measure, that are too wide."""
    for measure, limit in APART.items():
        ordered = own.sort_values([measure, "image_id"])
        steps = np.diff(ordered[measure])
        for place in np.flatnonzero(steps > limit):
            low, high = ordered["image_id"].iloc[[place, place + 1]]
            factor = round(float(np.exp(steps[place])), 3)
            yield {
                "image_id": low,
                "other_id": high,
                "experiment": name,
                "measure": measure,
                "factor": factor,
            }
