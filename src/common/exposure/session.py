"""What a session is: fields imaged together under one set-up share their exposure, so what looks
alike and has different ids may be one session, and one id with several exposures may be several.

The limits are natural logarithms, chosen on the 75 real MCF-7 fields and measured on the same:
within one session the bright-field median spreads by 0.01 to 0.16 (standard deviation), its
contrast by 0.06 to 0.39, PI by 0.01 to 0.45. Of the 18 sessions as they are, no two are called
alike and none is mixed. Six wells of one session, called six experiments: all six are named. A
session of 4 fields or more cut in two at random: found in 124 of 140 trials (7 sessions), one of 5
or more in three: in all 120 (6 sessions). Two sessions under one id: found in 133 of 153 pairs; the
others' exposures are near one another, as those from 26,000 to 35,000 counts. Silence proves
nothing.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd

from ..workspace.tables import EXPOSURE
from .background import backgrounds

CLOSE = {"brightfield_median": 0.1, "brightfield_contrast": 0.3, "pi_background": 0.5}
FAR = {"brightfield_median": 0.35, "pi_background": 1.0}
BACKGROUND = 5  # percentile of PI where fields are not cut yet and `tile.background` is not asked
WORDS = {"brightfield_median": "bright-field median", "pi_background": "PI background"}


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


def exposures(brightfield: np.ndarray, pi: np.ndarray) -> dict[str, float]:
    """`exposure` and the PI background in counts of a field (H, W) uint16."""
    return exposure(brightfield) | {"pi_background": backgrounds(pi, [BACKGROUND])[0]}


def alike(frames: pd.DataFrame) -> pd.DataFrame:
    """Pairs of experiments whose fields look as if imaged together: experiment, other, and a field
    of each (image_id, other_id).

    frames: image_id, experiment ('' if unknown) and EXPOSURE.
    """
    known = _logarithms(frames)
    middle = known.groupby("experiment")[EXPOSURE].median()
    first = known.groupby("experiment")["image_id"].first()
    rows = [
        (first[a], first[b], a, b)
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


def notes(frames: pd.DataFrame) -> list[str]:
    """What the ids of the experiments may have wrong, a line for each set of look-alikes and each
    mixed experiment. frames: as for `alike`.
    """
    return [_alike_note(names) for names in _sets(alike(frames))] + [
        _mixed_note(*entry) for entry in mixed(frames).groupby("experiment")
    ]


def _sets(pairs: pd.DataFrame) -> list[list[str]]:
    """The experiments that hang together by pairs."""
    names = sorted({*pairs["experiment"], *pairs["other"]})
    if not names:
        return []
    from scipy.sparse import coo_array  # slow to import, and few tables have such pairs
    from scipy.sparse.csgraph import connected_components

    ends = [[names.index(name) for name in pairs[end]] for end in ("experiment", "other")]
    joined = coo_array((np.ones(len(pairs)), ends), shape=(len(names), len(names)))
    count, member = connected_components(joined, directed=False)
    return [[name for name, m in zip(names, member) if m == n] for n in range(count)]


def _alike_note(names: list[str]) -> str:
    return (
        f"WARNING: experiments {', '.join(names)} look as if imaged together (bright-field median "
        "and contrast, PI background): if they are, as wells of one session, give them one id in "
        "the column `experiment` of the manifest; "
        "otherwise a model is tested on a session it was trained on"
    )


def _mixed_note(name: str, gaps: pd.DataFrame) -> str:
    widest = gaps.loc[gaps["factor"].idxmax()]
    return (
        f"WARNING: experiment {name} holds several exposures ({WORDS[widest['measure']]} "
        f"{widest['factor']:.3g} times higher in {widest['other_id']} than in {widest['image_id']})"
        ": if they are several sessions, give each an id of its own in the column `experiment` of "
        "the manifest; otherwise results within an experiment compare sessions"
    )


def _logarithms(frames: pd.DataFrame) -> pd.DataFrame:
    known = frames[frames["experiment"].fillna("") != ""].copy()
    known[EXPOSURE] = known[EXPOSURE].astype(float)  # a table without rows has no types
    known[list(CLOSE)] = np.log(known[list(CLOSE)].clip(lower=1e-3))
    return known


def _close(one: pd.Series, other: pd.Series) -> bool:
    same = one["brightfield_bits"] == other["brightfield_bits"]
    return bool(same and all(abs(one[name] - other[name]) < limit for name, limit in CLOSE.items()))


def _gaps(name: str, own: pd.DataFrame) -> Iterator[tuple]:
    """The steps between one experiment's fields, in order of a measure, that are too wide."""
    for measure, limit in FAR.items():
        ordered = own.sort_values([measure, "image_id"])
        steps = np.diff(ordered[measure])
        for place in np.flatnonzero(steps > limit):
            low, high = ordered["image_id"].iloc[[place, place + 1]]
            yield low, high, name, measure, round(float(np.exp(steps[place])), 3)
