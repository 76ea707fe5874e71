"""From images to wells: the live-patch fraction of each well and time, with an interval over its
fields.

Patches of a field resemble each other, so the field is the unit. A well has too few fields to
bootstrap (the percentile bootstrap of 3 fields covers 70 to 80% where it promises 95%), but a plate
has many wells: how much two patches of one field resemble each other, beyond those of the well, is
estimated over all of them (beta-binomial intraclass correlation by Williams' moments: Applied
Statistics 31, 1982), and each well gets Wilson's (1927) interval of the number of independent
patches that its fields are worth. So fields of many patches count for little more than small ones.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, stats

from ..common.images.wells import canonical
from .fractions import CALLS, COUNTS
from .layout import order

KEYS = ["experiment", "well", "time"]  # an experiment is a plate: two plates may both have an A1
FACTS = ["compound", "concentration", "control"]
WELL_COLUMNS = [*KEYS, *FACTS, "fields", "left_out", *CALLS, "called", "effective",
                "live_patch_fraction", "low", "high", "normalised"]  # fmt: skip
DIGITS = 6  # significant ones of a concentration: 10.000000000000002 is 10


@dataclass(frozen=True)
class Resemblance:
    """How alike patches of one field are within a well: intraclass correlation (0: independent, 1:
    a field tells as much as one patch) and its degrees of freedom (0: no well has two fields that
    tell).
    """

    correlation: float
    freedom: int


def prepare(images: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The images with clean keys, and which manifest column gave the time: time, else day, else ''
    (one time).
    """
    source = next((name for name in ("time", "day") if images[name].notna().any()), "")
    names = ("experiment", "well", "compound", "control")
    text = {name: images[name].fillna("").astype(str) for name in names}
    text["well"] = text["well"].map(canonical)
    whole = {name: images[name].fillna(0).astype("int64") for name in COUNTS if name != "unlike"}
    called = images["called"] if "called" in images else images["live"] + images["dead"]
    return images.assign(
        **text,
        **whole,
        called=called.fillna(0).astype(float),
        time=images[source].astype(float) if source else np.nan,
        concentration=images["concentration"].astype(float).map(lambda c: float(f"{c:.{DIGITS}g}")),
    ), source


def well_table(
    images: pd.DataFrame, confidence: float = 0.95
) -> tuple[pd.DataFrame, Resemblance, list[str]]:
    """One row per experiment, well and time of the images (as `prepare` gives them), the
    resemblance within fields, and remarks.

    Only images of status scored count; `left_out` says how many were flagged or refused. called:
    weighted number of calls (fractions.py), of which live_patch_fraction is the live share, NaN
    where there is none. effective: independent patches that they are worth. low, high: the
    interval, NaN where a well has fewer than two fields. normalised is NaN until `plate.normalise`
    fills it.
    """
    placed = images[images["well"] != ""]
    facts, remarks = _facts(placed)
    fields = _fields(placed[placed["status"] == "scored"])
    alike = resemblance(fields[fields["called"] > 0])
    n = fields["called"]
    fields = fields.assign(fields=(n > 0).astype(int), noise=n * (1 + (n - 1) * alike.correlation))
    added = [*CALLS, "live_called", "called", "fields", "noise"]
    sums = fields.groupby(KEYS, dropna=False)[added].sum()
    left = placed["status"].ne("scored").groupby([placed[key] for key in KEYS], dropna=False).sum()
    sums = left.rename("left_out").to_frame().join(sums).fillna(0).reset_index()
    table = facts.merge(sums, on=KEYS, how="left")
    table = table.astype(dict.fromkeys(["fields", "left_out", *CALLS], "int64"))
    called = table["called"].where(table["called"] > 0)
    table["live_patch_fraction"] = (table["live_called"] / called).clip(0, 1)
    table["effective"] = called**2 / table["noise"]
    table["low"], table["high"] = intervals(table, alike, confidence)
    decimals = dict.fromkeys(["called", "effective", "live_patch_fraction", "low", "high"], 6)
    return table.assign(normalised=np.nan)[WELL_COLUMNS].round(decimals), alike, remarks


def resemblance(fields: pd.DataFrame) -> Resemblance:
    """The intraclass correlation at which Pearson's statistic of the fields about their wells'
    fractions is what it should be, and its freedom; 1 where no well has two fields that tell.

    fields: KEYS, live_called, called (above 0), one row per field. Wells that are all live or all
    dead say nothing about it.
    """
    codes = fields.groupby(KEYS, dropna=False).ngroup().to_numpy()
    live, n = fields["live_called"].to_numpy(float), fields["called"].to_numpy(float)
    wells = codes.max() + 1 if len(codes) else 0
    share = _share(live, n, np.ones(len(n)), codes, wells)
    told = (share[codes] > 0) & (share[codes] < 1)
    live, n, codes = live[told], n[told], codes[told]
    freedom = len(n) - len(np.unique(codes))
    if not freedom:
        return Resemblance(1.0, 0)

    def excess(correlation: float) -> float:
        weight = 1 / (1 + (n - 1) * correlation)
        p = _share(live, n, weight, codes, wells)[codes]
        return float((weight * (live - n * p) ** 2 / (n * p * (1 - p))).sum() - freedom)

    if excess(0.0) <= 0:
        return Resemblance(0.0, freedom)
    return Resemblance(optimize.brentq(excess, 0.0, 1.0) if excess(1.0) < 0 else 1.0, freedom)


def _share(live, n, weight, codes: np.ndarray, wells: int) -> np.ndarray:
    """The weighted live share of each well (wells,), NaN for one without fields."""
    sums = [np.bincount(codes, weight * of, minlength=wells) for of in (live, n)]
    with np.errstate(invalid="ignore"):
        return np.clip(sums[0] / sums[1], 0, 1)


def intervals(
    table: pd.DataFrame, alike: Resemblance, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson intervals (W,), (W,) of the wells' fractions for `effective` patches; t quantiles, as
    the resemblance is estimated. NaN for wells of fewer than two fields.
    """
    p = table["live_patch_fraction"].to_numpy(float)
    effective = table["effective"].where(table["fields"] > 1).to_numpy(float)
    tail = (1 + confidence) / 2
    t = stats.t.ppf(tail, alike.freedom) if alike.freedom else stats.norm.ppf(tail)
    scale = 1 + t**2 / effective
    centre = (p + t**2 / (2 * effective)) / scale
    half = t / scale * np.sqrt(p * (1 - p) / effective + (t / (2 * effective)) ** 2)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def _fields(scored: pd.DataFrame) -> pd.DataFrame:
    """Counts and weighted calls per field: images of one well, time and position are one field."""
    position = scored["position"].fillna("").astype(str)
    field = position.where(position != "", scored["image_id"])
    live = (scored["live_patch_fraction"].astype(float) * scored["called"]).fillna(0)
    by = scored.assign(field=field, live_called=live).groupby([*KEYS, "field"], dropna=False)
    return by[[*CALLS, "live_called", "called"]].sum().reset_index()


def _facts(placed: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Compound, concentration and control of each well and time; what the images of a well disagree
    on is unknown.
    """
    rows, remarks = [], []
    for key, part in placed.groupby(KEYS, dropna=False, sort=True):
        row: dict = dict(zip(KEYS, key))
        for name in FACTS:
            known = [value for value in part[name].dropna().unique() if value != ""]
            if len(known) > 1:
                stated = ", ".join(map(str, known))
                remarks.append(
                    f"well {row['well']}: its images state {name} {stated}: taken as unknown, "
                    "mend the manifest"
                )
            unknown = np.nan if name == "concentration" else ""
            row[name] = known[0] if len(known) == 1 else unknown
        rows.append(row)
    rows.sort(key=lambda row: (row["experiment"], np.nan_to_num(row["time"]), order(row["well"])))
    facts = pd.DataFrame(rows, columns=[*KEYS, *FACTS])
    return facts.astype({"concentration": float, "time": float}), remarks
