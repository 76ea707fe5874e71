"""Evidence of leaks and imbalance in data/splits: tables for the gates, one row per group, digest,
image or split.

A leak is the same thing on both sides of a split: a group, an image, overlapping windows, the same
pixels under two ids, or one field taken twice (another exposure, encoding or time). `part` is the
split, under K-fold the fold.
"""

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd

from ..split.rounds import SPLITS, rounds
from ..tile.fingerprint import chance, correlations, hamming

CLASSES = ("live", "dead")
COPY = (
    0.6  # correlation of fine hashes from which two fields are copies even in different partitions
)
ENOUGH, MANY = (
    100,
    5000,
)  # pairs: fewer do not show how different fields correlate; more, and chance has more tries
USUAL = (
    1.2,
    0.95,
)  # centre and scale (sd) of different fields' likeness, of real and of simulated ones


def part_names(record: dict) -> list[str]:
    """Names of the splits, or of the folds under K-fold, by split.json."""
    return (
        [f"fold-{fold}" for fold in range(record["folds"])]
        if record["scheme"] == "kfold"
        else list(SPLITS)
    )


def parts(splits: pd.DataFrame) -> pd.Series:
    """The split or fold of each patch; '' for neither."""
    return (
        splits["split"].where(splits["fold"] < 0, "fold-" + splits["fold"].astype("str")).fillna("")
    )


def by_group(splits: pd.DataFrame) -> pd.DataFrame:
    """One row per group of a partition: parts (how many it is in)."""
    return _spread(splits, ["partition", "group"], lambda key: f"group {key[1]} of {key[0]}")


def by_image(splits: pd.DataFrame) -> pd.DataFrame:
    """One row per image: parts, groups, and pairs of overlapping windows in different parts."""
    table = _spread(splits, ["image_id"], lambda key: f"image {key[0]}")
    grouped = splits.groupby("image_id", sort=False)
    crossing = [
        _crossing(rows) if n > 1 else 0
        for n, (_, rows) in zip(table["parts"], grouped, strict=True)
    ]
    return table.assign(groups=grouped["group"].nunique().to_numpy(), overlaps=crossing)


def by_pixels(splits: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """One row per digest of a channel's pixels: parts its images are in."""
    placed = splits[["image_id", "part"]].drop_duplicates().merge(frames, on="image_id")
    channels = [
        _spread(placed, [column], lambda key, name=name: f"{name} pixels {key[0][:12]}")
        for column, name in (("brightfield_sha256", "bright-field"), ("pi_sha256", "PI"))
    ]
    return pd.concat(channels, ignore_index=True)


def twins(splits: pd.DataFrame, frames: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """For each image, the nearest image of another group in another part, by either perceptual
    hash: two tables.

    bits: distance of the 64-bit hashes; sigmas: how far the fine hashes correlate beyond chance.
    """
    place = splits.groupby("image_id", sort=False)[["partition", "group"]].first()
    place["part"] = splits.groupby("image_id", sort=False)["part"].agg(
        lambda found: "/".join(sorted(set(found)))
    )
    table = place.join(
        frames.drop_duplicates("image_id").set_index("image_id")[["phash", "phash_fine"]],
        how="inner",
    )
    home, group = _same(table["partition"]), _same(table["group"])
    torn = (
        table["part"].str.contains("/").to_numpy()
    )  # an image in two parts is apart from everything
    apart = (
        (~_same(table["part"]) | torn[:, None] | torn)
        & ~(group & home)
        & ~np.eye(len(table), dtype=bool)
    )
    bits = hamming(table["phash"].tolist()).astype(float)
    sigmas = _sigmas(table["phash_fine"].tolist(), ~group, home)
    return _nearest(table, bits, apart, "bits", 1), _nearest(table, sigmas, apart, "sigmas", -1)


def balance(splits: pd.DataFrame, record: dict, partitions: Sequence[str]) -> pd.DataFrame:
    """One row per partition and part: groups, fields, live, dead, smallest (class), live_fraction,
    distance (of it from the partition's).
    """
    keys = ["partition", "part"]
    every = pd.MultiIndex.from_product([partitions, part_names(record)], names=keys)
    sizes = splits.groupby(keys).agg(groups=("group", "nunique"), fields=("image_id", "nunique"))
    counts = pd.crosstab([splits[key] for key in keys], splits["label"]).reindex(
        columns=list(CLASSES), fill_value=0
    )
    table = sizes.join(counts).reindex(every).fillna(0).astype(int).reset_index()
    whole = table.groupby("partition")[list(CLASSES)].transform("sum")
    fraction = table["live"] / (table["live"] + table["dead"])  # of an empty part: none
    distance = (fraction - whole["live"] / whole.sum(axis=1)).abs().fillna(1.0).round(6)
    what = [f"{r.partition} {r.part}: {r.live} live, {r.dead} dead" for r in table.itertuples()]
    smallest = table[list(CLASSES)].min(axis=1)
    return table.assign(
        live_fraction=fraction, distance=distance, smallest=smallest, what=what, images=""
    )


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
        row = {"what": what, "images": ", ".join(images), "parts": len(found)}
        rows.append(dict(zip(keys, key, strict=True)) | row)
    return pd.DataFrame(rows, columns=[*keys, "what", "images", "parts"])


def _crossing(windows: pd.DataFrame) -> int:
    """Pairs of overlapping windows of one image that are in different parts."""
    y, x, size = (windows[name].to_numpy(np.int64) for name in ("y", "x", "size"))
    before = (y < (y + size)[:, None]) & (
        x < (x + size)[:, None]
    )  # starts before the other ends, on both axes
    part = windows["part"].to_numpy()
    return int(np.count_nonzero(before & before.T & (part[:, None] != part)) // 2)


def _same(column: pd.Series) -> np.ndarray:
    codes = pd.factorize(column)[0]
    return codes[:, None] == codes


def _sigmas(fine: list[bytes], unlike: np.ndarray, home: np.ndarray) -> np.ndarray:
    """(N, N): how far each two fields' fine hashes correlate beyond chance, in sd.

    Centre and scale are those of the pairs of different groups (median and MAD), so that what all
    fields share, dust or uneven light, counts for nothing. Beyond MANY pairs the values shrink, so
    that the chance of a false alarm among all pairs stays what it is there. Pairs from two
    partitions count only as copies: a position may well be imaged before and after treatment, and
    each partition has its own model.
    """
    correlation = correlations(fine)
    likeness = correlation / np.maximum(chance(fine), 1e-6)
    others = likeness[np.triu(unlike, 1)]
    middle, scale = USUAL
    if others.size >= ENOUGH:
        middle = float(np.median(others))
        scale = max(1.4826 * float(np.median(np.abs(others - middle))), 1e-6)
    shrink = _quantile(max(others.size, MANY)) / _quantile(MANY)
    return np.where(home | (correlation >= COPY), (likeness - middle) / scale / shrink, 0.0)


def _quantile(pairs: int) -> float:
    """The value that the largest of so many standard normal variates exceeds with a chance of 1%."""
    return NormalDist().inv_cdf(1 - 0.01 / pairs)


def _nearest(
    table: pd.DataFrame, values: np.ndarray, apart: np.ndarray, unit: str, sign: int
) -> pd.DataFrame:
    """One row per image that has others `apart` from it: the nearest of them (by smallest `sign`
    times value).
    """
    distance = np.where(apart, sign * values, np.inf)
    images, parts = table.index.tolist(), table["part"].tolist()
    rows = []
    for this, other in enumerate(distance.argmin(axis=1) if images else []):
        if apart[this, other]:
            value = round(float(values[this, other]), 3)
            what = f"{images[this]} ({parts[this]}) ~ {images[other]} ({parts[other]}): {value:g} {unit}"
            rows.append({"what": what, "images": f"{images[this]}, {images[other]}", unit: value})
    return pd.DataFrame(rows, columns=["what", "images", unit])
