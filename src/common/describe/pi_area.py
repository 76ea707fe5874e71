"""The paper's biological check (step 8): the area of PI fluorescence under treatment against
control.

A pixel counts as PI positive above one threshold for all partitions, in counts: the label's own
`dead_above`. Where labels rest on the ratio to each field's background, exposures differ, and it is
twice the field's 5th percentile instead. (Not twice its median: where most cells are dead, the
median lies in their glow, and treatment would seem to lower the area.)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from matplotlib.figure import Figure
from tqdm import tqdm

from ..metrics.intervals import percentile, resample

RESAMPLES = 2000


def control(partitions: Sequence[str], thresholds: Mapping) -> str:
    """The partition others are compared with: the one that set the thresholds, else the first."""
    fitted = thresholds["fit_on"]
    return fitted[0] if len(fitted) == 1 and fitted[0] in partitions else partitions[0]


def pi_areas(images: pd.DataFrame, raw: Path, thresholds: Mapping) -> pd.DataFrame:
    """One row per field: its image_id and partition, positive and lit pixels of its PI, the
    threshold in counts.

    images: image_id, partition, pi (path below `raw`); thresholds: intensity, dead_above.
    """
    rows, divided = [], thresholds["intensity"] == "background_ratio"
    for image in tqdm(images.itertuples(), "PI area", total=len(images), unit="field"):
        pi = tifffile.imread(raw / image.pi)
        lit = pi[pi > 0]  # registration borders are zero
        background = float(np.percentile(lit, 5)) if lit.size else 0.0
        above = 2 * background if divided else thresholds["dead_above"]
        rows.append((image.image_id, image.partition, int((lit > above).sum()), lit.size, above))
    return pd.DataFrame(rows, columns=["image_id", "partition", "positive", "lit", "above"])


def compare_areas(areas: pd.DataFrame, reference: str, seed: int) -> dict:
    """PI-positive share of the area by partition, and its difference from the control's, with 95%
    intervals.

    areas: partition, group, positive, lit. A bootstrap over whole groups, each partition resampled
    on its own.
    """
    random = np.random.default_rng(seed)
    draws, shares = {}, {}
    for name, mine in areas.groupby("partition", sort=False):
        sums = mine.groupby("group")[["positive", "lit"]].sum().to_numpy(float)
        weights = resample(len(sums), RESAMPLES, random) @ sums
        draws[name] = weights[:, 0] / weights[:, 1]
        share = sums[:, 0].sum() / sums[:, 1].sum()
        shares[name] = {"fields": len(mine), "groups": len(sums), "share": share}
        shares[name]["interval_95"] = (
            percentile(draws[name], 0.95, len(sums)) if len(sums) > 1 else None
        )
    for name, one in shares.items():
        if name != reference:
            one["difference"] = one["share"] - shares[reference]["share"]
            fewest = min(one["groups"], shares[reference]["groups"])
            one["difference_interval_95"] = (
                percentile(draws[name] - draws[reference], 0.95, fewest) if fewest > 1 else None
            )
    return {"control": reference, "partitions": shares}


def area_figure(areas: pd.DataFrame, check: Mapping) -> Figure:
    """PI-positive share of every field, and of each partition with its interval."""
    figure = Figure(figsize=(1.6 + 2.2 * len(check["partitions"]), 4), layout="constrained")
    axes = figure.subplots()
    random = np.random.default_rng(0)
    for place, (name, area) in enumerate(check["partitions"].items()):
        mine = areas[areas["partition"] == name]
        spread = place + random.uniform(-0.16, 0.16, len(mine))
        label = "field" if not place else None
        axes.scatter(
            spread, 100 * mine["positive"] / mine["lit"], s=14, color="#9db4c4", label=label
        )
        low, high = (100 * bound for bound in area["interval_95"] or (np.nan, np.nan))
        share = 100 * area["share"]
        bars = [[max(share - low, 0)], [max(high - share, 0)]]
        label = "partition, 95% interval over groups" if not place else None
        axes.errorbar(
            [place], [share], bars, fmt="o", color="#d1495b", capsize=6, linewidth=2, label=label
        )
    names = [f"{name}\n{area['groups']} groups" for name, area in check["partitions"].items()]
    axes.set_xticks(range(len(names)), names)
    axes.set(ylabel="PI-positive area (%)", xlim=(-0.6, len(names) - 0.4))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=2)
    return figure
