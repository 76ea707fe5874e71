"""Evidence of leaks and imbalance in data/splits, as tables for the gates: one row per group, digest, image or split.

A leak is the same thing on both sides of a split: a group, an image, overlapping windows, the same pixels under two ids,
or one field taken twice (another exposure, encoding or time). `part` is the split, under K-fold the fold.
"""

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd

from .fingerprint import correlations, hamming
from .splitting import SPLITS, rounds

CLASSES = ("live", "dead")
COPY = 0.6  # correlation of fine hashes from which two fields are copies even in different partitions
ENOUGH_PAIRS = 100  # below that, the spread of the correlations is not known and TYPICAL_SPREAD is taken at least
TYPICAL_SPREAD = 0.025  # of the correlations between different fields: 0.013 on real, 0.022 on simulated ones
CHANCE = 0.01  # chance of one false alarm among all pairs, if they were Gaussian


def part_names(record: dict) -> list[str]:
    """Names of the splits, or of the folds under K-fold, by split.json."""
    return [f"fold-{fold}" for fold in range(record["folds"])] if record["scheme"] == "kfold" else list(SPLITS)


def parts(splits: pd.DataFrame) -> pd.Series:
    """The split or fold of each patch; '' for neither."""
    return splits["split"].where(splits["fold"] < 0, "fold-" + splits["fold"].astype("str")).fillna("")


def by_group(splits: pd.DataFrame) -> pd.DataFrame:
    """One row per group of a partition: parts (how many it is in)."""
    return _spread(splits, ["partition", "group"], lambda key: f"group {key[1]} of {key[0]}")


def by_image(splits: pd.DataFrame) -> pd.DataFrame:
    """One row per image: parts, groups, and pairs of overlapping windows in different parts."""
    table = _spread(splits, ["image_id"], lambda key: f"image {key[0]}")
    grouped = splits.groupby("image_id", sort=False)
    crossing = [_crossing(rows) if n > 1 else 0 for n, (_, rows) in zip(table["parts"], grouped, strict=True)]
    return table.assign(groups=grouped["group"].nunique().to_numpy(), overlaps=crossing)


def by_pixels(splits: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """One row per digest of a channel's pixels: parts its images are in."""
    placed = splits[["image_id", "part"]].drop_duplicates().merge(frames, on="image_id")
    channels = [
        _spread(placed, [column], lambda key, name=name: f"{name} pixels {key[0][:12]}")
        for column, name in (("brightfield_sha256", "bright-field"), ("pi_sha256", "PI"))
    ]
    return pd.concat(channels, ignore_index=True)


def twins(splits: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """For each image, its likeness to the nearest image of another group in another part.

    bits: the smallest distance of perceptual hashes; sigmas: the largest correlation of fine hashes, in robust sd above
    that of all pairs of different groups. Two rows per image, one for each measure, the other being empty.
    """
    table = splits.groupby("image_id", sort=False).agg(
        part=("part", lambda values: tuple(sorted(set(values)))), group=("group", "first"), partition=("partition", "first")
    )
    table = table.join(frames.drop_duplicates("image_id").set_index("image_id")[["phash", "phash_fine"]], how="inner")
    if len(table) < 2:
        return pd.DataFrame(columns=["image_id", "images", "what", "bits", "sigmas"])
    same_home = _same(table["partition"])
    apart = ~(_same(table["part"]) & _single(table["part"])) & ~(_same(table["group"]) & same_home)
    bits = np.where(apart, hamming(table["phash"].tolist()), 64)
    sigmas = _sigmas(correlations(table["phash_fine"].tolist()), ~_same(table["group"]), same_home)
    return pd.concat([_nearest(table, bits, "bits", 1), _nearest(table, np.where(apart, sigmas, 0), "sigmas", -1)])


def balance(splits: pd.DataFrame, record: dict, partitions: Sequence[str]) -> pd.DataFrame:
    """One row per partition and part: live, dead, smallest class, live fraction, and its distance from the partition's."""
    counts = pd.crosstab([splits["partition"], splits["part"]], splits["label"])
    every = pd.MultiIndex.from_product([partitions, part_names(record)], names=["partition", "part"])
    counts = counts.reindex(index=every, columns=list(CLASSES), fill_value=0).reset_index()
    total = counts.groupby("partition")[list(CLASSES)].transform("sum")
    whole = total["live"] / total.sum(axis=1).replace(0, np.nan)
    counts["live_fraction"] = counts["live"] / (counts["live"] + counts["dead"]).replace(0, np.nan)
    counts["distance"] = (counts["live_fraction"] - whole).abs().fillna(1.0).round(6)
    counts["smallest"] = counts[list(CLASSES)].min(axis=1)
    counts["what"] = [
        f"{r.partition} {r.part}: {r.live} live, {r.dead} dead ({_percent(r.live_fraction)} live, partition {_percent(w)})"
        for r, w in zip(counts.itertuples(), whole, strict=True)
    ]
    return counts.assign(images="")


def training(splits: pd.DataFrame, record: dict, partitions: Sequence[str]) -> pd.DataFrame:
    """One row per partition and round: the smaller class of what the round trains on."""
    rows = []
    for partition in partitions:
        mine = splits[splits["partition"] == partition]
        for part in rounds(mine, record):
            live, dead = (int((mine["label"][part.train] == label).sum()) for label in CLASSES)
            what = f"{partition} {part.name} trains on {live} live and {dead} dead patches"
            rows.append({"what": what, "images": "", "smallest": min(live, dead)})
    return pd.DataFrame(rows)


def _spread(table: pd.DataFrame, keys: list[str], name: Callable) -> pd.DataFrame:
    """One row per value of the keys: in how many parts it is, in words and in image ids."""
    rows = []
    for key, group in table.groupby(keys, sort=False):
        found = sorted(group["part"].unique())
        images = list(dict.fromkeys(group["image_id"]))
        what = f"{name(key)} in {', '.join(found)}"
        rows.append({**dict(zip(keys, key, strict=True)), "what": what, "images": ", ".join(images), "parts": len(found)})
    return pd.DataFrame(rows, columns=[*keys, "what", "images", "parts"])


def _crossing(windows: pd.DataFrame) -> int:
    """Pairs of overlapping windows of one image that are in different parts."""
    y, x, size = (windows[name].to_numpy(np.int64) for name in ("y", "x", "size"))
    before = (y < (y + size)[:, None]) & (x < (x + size)[:, None])  # starts before the other ends, on both axes
    part = windows["part"].to_numpy()
    return int(np.count_nonzero(before & before.T & (part[:, None] != part)) // 2)


def _same(column: pd.Series) -> np.ndarray:
    codes = pd.factorize(column)[0]
    return codes[:, None] == codes


def _single(part: pd.Series) -> np.ndarray:
    return part.map(len).to_numpy()[:, None] == 1


def _sigmas(correlation: np.ndarray, unlike: np.ndarray, same_home: np.ndarray) -> np.ndarray:
    """(N, N) correlations in robust sd above the median of pairs of different groups.

    The more pairs, the higher the largest by chance, so beyond 5 sd's worth of pairs they are scaled down to keep the
    family-wise chance of a false alarm. Pairs from two partitions count only as copies: a position may well be imaged
    before and after treatment, and each partition has its own model.
    """
    null = correlation[np.triu(unlike, 1)]
    middle = np.median(null) if null.size else 0.0
    spread = 1.4826 * np.median(np.abs(null - middle)) if null.size else 0.0
    if null.size < ENOUGH_PAIRS:
        middle, spread = min(middle, TYPICAL_SPREAD), TYPICAL_SPREAD
    many = max(1.0, NormalDist().inv_cdf(1 - CHANCE / max(null.size, 1)) / 4.5)
    sigmas = (correlation - middle) / max(spread, 1e-6) / many
    return np.where(same_home | (correlation >= COPY), sigmas, 0.0)


def _nearest(table: pd.DataFrame, likeness: np.ndarray, column: str, sign: int) -> pd.DataFrame:
    """One row per image with its nearest other in `likeness` (sign 1: the smallest is nearest, -1: the largest)."""
    likeness = np.where(np.eye(len(table), dtype=bool), sign * np.inf, likeness)
    other = (sign * likeness).argmin(axis=1)
    value = np.take_along_axis(likeness, other[:, None], axis=1)[:, 0].round(3)
    ids, where = table.index.to_numpy(), ["/".join(part) for part in table["part"]]
    what = [f"{i} ({where[n]}) ~ {ids[o]} ({where[o]}), {v:g} {column}" for n, (i, o, v) in enumerate(zip(ids, other, value))]
    images = [f"{i}, {ids[o]}" for i, o in zip(ids, other)]
    return pd.DataFrame({"image_id": ids, "images": images, "what": what, column: value.astype(float)})


def _percent(fraction: float) -> str:
    return "none" if pd.isna(fraction) else f"{100 * fraction:.0f}%"
