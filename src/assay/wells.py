"""From images to wells: the live-patch fraction of each well and time, with an interval over its
fields.

Patches of a field resemble each other, so the field is the unit. A plate has few fields a well, too
few to bootstrap (the percentile bootstrap of 3 fields covers 70 to 80% where it promises 95%), but
many wells: how much fields of one well differ, beyond what counting alone would give, is estimated
over the whole plate (quasi-binomial dispersion, Wedderburn 1974; McCullagh and Nelder 1989, section
4.5), and each well's interval is Wilson's (1927) with that many fewer patches.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from ..common.images.wells import canonical
from .layout import order

KEYS = [
    "experiment",
    "well",
    "time",
]  # an experiment is a plate: two plates may both have a well A1
FACTS = ["compound", "concentration", "control"]
COUNTS = ["live", "dead", "abstain"]
WINDOWS = ["windows", "cells", "empty", "unusable", *COUNTS]
COLUMNS = [
    *KEYS,
    *FACTS,
    "fields",
    "left_out",
    *COUNTS,
    "live_patch_fraction",
    "low",
    "high",
    "normalised",
]


@dataclass(frozen=True)
class Dispersion:
    """How many times more the fields of a well differ than independent patches would, and on how
    many degrees of freedom (0: no well has two fields that tell).
    """

    factor: float
    freedom: int


def prepare(images: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The images with clean keys, and which manifest column gave the time: time, else day, else ''
    (one time).
    """
    source = next((name for name in ("time", "day") if images[name].notna().any()), "")
    text = {
        name: images[name].fillna("").astype(str)
        for name in ("experiment", "well", "compound", "control")
    }
    text["well"] = text["well"].map(canonical)
    whole = {
        name: images[name].fillna(0).astype("int64") for name in WINDOWS
    }  # a refused image has none
    time = images[source].astype(float) if source else np.nan
    return images.assign(
        **text, **whole, time=time, concentration=images["concentration"].astype(float)
    ), source


def well_table(
    images: pd.DataFrame, confidence: float = 0.95
) -> tuple[pd.DataFrame, Dispersion, list[str]]:
    """One row per experiment, well and time of the images (as `prepare` gives them), the
    dispersion, and remarks.

    Only images of status scored count; `left_out` says how many were flagged or refused.
    live_patch_fraction = live / (live + dead), NaN where there is no call; low, high: the interval,
    NaN where a well has fewer than two fields. normalised is NaN until `plate.normalise` fills it.
    """
    placed = images[images["well"] != ""]
    facts, remarks = _facts(placed)
    scored = placed[placed["status"] == "scored"]
    fields = _fields(scored)
    found = placed.groupby(KEYS, dropna=False).size().rename("images").to_frame()
    found = found.join(fields.groupby(KEYS, dropna=False)[COUNTS].sum())
    called = fields[fields["live"] + fields["dead"] > 0]
    found["fields"] = called.groupby(KEYS, dropna=False).size()
    found["left_out"] = placed[placed["status"] != "scored"].groupby(KEYS, dropna=False).size()
    table = facts.merge(found.reset_index(), on=KEYS, how="left")
    whole = ["fields", "left_out", *COUNTS]
    table[whole] = table[whole].fillna(0).astype("int64")
    n = table["live"] + table["dead"]
    table["live_patch_fraction"] = table["live"] / n.where(n > 0)
    spread = dispersion(called)
    table["low"], table["high"] = intervals(table, spread, confidence)
    fractions = ["live_patch_fraction", "low", "high"]
    return (
        table.assign(normalised=np.nan)[COLUMNS].round(dict.fromkeys(fractions, 6)),
        spread,
        remarks,
    )


def dispersion(fields: pd.DataFrame) -> Dispersion:
    """Pearson's dispersion of the fields' live counts about their wells' fractions (at least 1),
    and its freedom.

    fields: KEYS, live, dead, one row per field. Wells that are all live or all dead say nothing
    about it.
    """
    n = fields["live"] + fields["dead"]
    by = [fields[key].fillna(-1) if key == "time" else fields[key] for key in KEYS]
    p = fields["live"].groupby(by).transform("sum") / n.groupby(by).transform("sum")
    told = (p > 0) & (p < 1)
    freedom = int(told.sum() - p[told].groupby([b[told] for b in by]).ngroups) if told.any() else 0
    if not freedom:
        return Dispersion(1.0, 0)
    chi2 = ((fields["live"] - n * p) ** 2 / (n * p * (1 - p)))[told].sum()
    return Dispersion(float(max(1.0, chi2 / freedom)), freedom)


def intervals(
    table: pd.DataFrame, spread: Dispersion, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson intervals of the wells' fractions for patches / dispersion; t quantiles, as the
    dispersion is estimated.

    With no freedom at all each field counts as one patch. NaN for wells of fewer than two fields.
    """
    p, n = (
        table["live_patch_fraction"].to_numpy(float),
        (table["live"] + table["dead"]).to_numpy(float),
    )
    fields = table["fields"].to_numpy(float)
    effective = np.where(fields > 1, n / spread.factor if spread.freedom else fields, np.nan)
    tail = (1 + confidence) / 2
    t = stats.t.ppf(tail, spread.freedom) if spread.freedom else stats.norm.ppf(tail)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1 + t**2 / effective
        centre = (p + t**2 / (2 * effective)) / scale
        half = t / scale * np.sqrt(p * (1 - p) / effective + (t / (2 * effective)) ** 2)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def _fields(scored: pd.DataFrame) -> pd.DataFrame:
    """Counts per field: images of one well, time and position are one field."""
    position = scored["position"].fillna("").astype(str)
    field = position.where(position != "", scored["image_id"])
    return (
        scored.assign(field=field)
        .groupby([*KEYS, "field"], dropna=False)[COUNTS]
        .sum()
        .reset_index()
    )


def _facts(placed: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Compound, concentration and control of each well and time; what the images of a well disagree
    on is unknown.
    """
    rows, remarks = [], []
    for key, part in placed.groupby(KEYS, dropna=False, sort=True):
        row: dict = dict(zip(KEYS, key))
        for name in FACTS:
            known = part[name].dropna().unique()
            known = [value for value in known if value != ""]
            if len(known) > 1:
                stated = ", ".join(map(str, known))
                remarks.append(
                    f"well {row['well']}: its images state {name} {stated}: taken as unknown, mend the manifest"
                )
            unknown = np.nan if name == "concentration" else ""
            row[name] = known[0] if len(known) == 1 else unknown
        rows.append(row)
    rows.sort(
        key=lambda row: (
            row["experiment"],
            row["time"] == row["time"] and row["time"],
            order(row["well"]),
        )
    )
    facts = pd.DataFrame(rows, columns=[*KEYS, *FACTS])
    return facts.astype({"concentration": float, "time": float}), remarks
