"""Leaks and imbalance in data/splits: gate tables, one row per patch, field or pair of fields.

A leak is the same thing on both sides of a split: a group, an image, the same pixels under two ids
(whole, turned, mirrored, shifted, or in the overlap of a tile scan), or one field at two times.
`part` is the split, under K-fold the fold.

Found among the 75 real MCF-7 fields and copies of 12 of them, by more than 10 shared corners: all
12 turned by 90, 180 or 270 degrees, mirrored, with half the exposure and noise, and shifted by 16
to 256 of 512 px; of neighbours that overlap by a tenth of 512 px 8, by 15 or 20 in 100 12.
Different fields share 7 at most. The three true pairs of one position at two times are found by
their layout, without false alarm.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from ..patches.rounds import rounds
from ..tile.corners import shared
from ..tile.fingerprint import Layouts
from ..workspace.tables import CLASS_NAMES, SPLIT_NAMES
from .nearest import likest, usual

MANY = 5000  # pairs: more, and chance has more tries
FEW = 3  # patches of a group


def part_names(record: dict) -> list[str]:
    """Names of the splits, or of the folds under K-fold, by split.json."""
    if record["scheme"] == "holdout":
        return list(SPLIT_NAMES)
    return [f"fold-{fold}" for fold in range(record["folds"])]


def parts(splits: pd.DataFrame) -> pd.Series:
    """The split or fold of each patch; '' for neither."""
    folds = "fold-" + splits["fold"].astype("str")
    return splits["split"].where(splits["fold"] < 0, folds).fillna("")


def beside_first(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Rows (image_id, part, group, ...) beside the first of equal `keys`: other_id, first_part and
    first_group.
    """
    names = {"image_id": "other_id", "part": "first_part", "group": "first_group"}
    first = table.groupby(keys, sort=False)[[*names]].transform("first")
    return table.assign(**first.rename(columns=names))


def by_pixels(splits: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """Fields of each part beside the first of the same pixels of a channel."""
    placed = splits[["image_id", "part", "group"]].drop_duplicates()
    tables = []
    for channel in ("brightfield_sha256", "pi_sha256"):
        digests = frames[["image_id", channel]].rename(columns={channel: "sha256"})
        merged = placed.merge(digests.assign(channel=channel), on="image_id")
        tables.append(beside_first(merged, ["sha256"]))
    return pd.concat(tables, ignore_index=True)


def twins(splits: pd.DataFrame, frames: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pairs of fields of different groups in different parts that look alike: two tables with
    image_id, other_id, part and other_part.

    corners: how many they share in one arrangement, for pairs that may share some. sigmas: how far
    the layouts of the nearest field of the same partition correlate beyond chance; a position may
    well be imaged before and after treatment, and each partition has its own model.
    """
    table = _fields(splits, frames)
    in_common = shared(table["phash_corners"].tolist(), lambda i, j: _apart(table, i, j))
    pairs = np.array(list(in_common), int).reshape(-1, 2)
    return _pairs(table, *pairs.T).assign(corners=list(in_common.values())), _nearest(table)


def _fields(splits: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """One row per labelled field that frames.parquet describes, by image_id; what it lies in also
    as whole numbers, which compare fast.
    """
    by = splits.groupby("image_id", sort=False)
    place = by[["partition", "group"]].first()
    place["part"] = by["part"].agg(lambda parts: "/".join(sorted(set(parts))))
    prints = frames.drop_duplicates("image_id").set_index("image_id")
    place["torn"] = place["part"].str.contains("/")
    place["in_partition"] = place.groupby("partition").ngroup()
    place["in_part"] = place.groupby("part").ngroup()
    place["in_group"] = place.groupby(["partition", "group"]).ngroup()
    return place.join(prints[["phash_layout", "phash_corners"]], how="inner")


def _pairs(table: pd.DataFrame, ones: np.ndarray, others: np.ndarray) -> pd.DataFrame:
    names, parts = table.index.to_numpy(), table["part"].to_numpy()
    return pd.DataFrame({
        "image_id": names[ones], "other_id": names[others],
        "part": parts[ones], "other_part": parts[others],
    })  # fmt: skip


def balance(splits: pd.DataFrame, record: dict, partitions: Sequence[str]) -> pd.DataFrame:
    """One row per partition and part: groups, fields, live, dead, smallest (class), live_fraction,
    distance (of it from the partition's).
    """
    keys = ["partition", "part"]
    every = pd.MultiIndex.from_product([partitions, part_names(record)], names=keys)
    sizes = splits.groupby(keys).agg(groups=("group", "nunique"), fields=("image_id", "nunique"))
    counts = pd.crosstab([splits[key] for key in keys], splits["label"]).reindex(
        columns=list(CLASS_NAMES), fill_value=0
    )
    table = sizes.join(counts).reindex(every).fillna(0).astype(int).reset_index()
    whole = table.groupby("partition")[list(CLASS_NAMES)].transform("sum")
    fraction = table["live"] / (table["live"] + table["dead"])  # of an empty part: none
    distance = (fraction - whole["live"] / whole.sum(axis=1)).abs().fillna(1.0).round(6)
    smallest = table[list(CLASS_NAMES)].min(axis=1)
    return table.assign(live_fraction=fraction, distance=distance, smallest=smallest)


def training(splits: pd.DataFrame, record: dict, partitions: Sequence[str]) -> pd.DataFrame:
    """One row per partition and round: the smaller class of what the round trains on."""
    rows = []
    for partition in partitions:
        mine = splits[splits["partition"] == partition]
        for part in rounds(mine, record):
            live, dead = (int((mine["label"][part.train] == label).sum()) for label in CLASS_NAMES)
            counts = {"live": live, "dead": dead, "smallest": min(live, dead)}
            rows.append({"partition": partition, "round": part.name} | counts)
    return pd.DataFrame(rows)


def by_group_alone(splits: pd.DataFrame, partitions: Sequence[str]) -> pd.DataFrame:
    """One row per partition: AUC of its patches' groups alone, each patch scored by the live share
    of its group, without looking at a pixel; missing where most lie in groups of FEW or less, of
    which a patch alone makes the share.
    """
    rows = []
    for partition in partitions:
        mine = splits[splits["partition"] == partition]
        live = mine["label"] == "live"
        by = live.groupby(mine["group"])
        area = roc_auc_score(live, by.transform("mean")) if live.nunique() == 2 else 1.0
        if by.transform("size").median() <= FEW:
            area = float("nan")
        rows.append(
            {"partition": partition, "groups": mine["group"].nunique(), "auc": round(area, 6)}
        )
    return pd.DataFrame(rows)


def _apart(table: pd.DataFrame, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which fields `ones` are of another part and group than `others`; the two broadcast."""
    torn = table["torn"].to_numpy()  # an image in two parts is apart from all
    apart = ~_same(table["in_part"], ones, others) | torn[ones] | torn[others]
    return apart & ~_same(table["in_group"], ones, others)


def _same(numbers: pd.Series, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    values = numbers.to_numpy()
    return values[ones] == values[others]


def _nearest(table: pd.DataFrame) -> pd.DataFrame:
    """For each field that has others `_apart` from it in its partition, the likest of them: how far
    their layouts correlate beyond chance, in sd of what is usual.

    Beyond MANY pairs the values shrink, so that the chance of a false alarm among all pairs stays
    what it is there.
    """
    layouts = Layouts(table["phash_layout"].tolist())
    middle, scale = usual(layouts, lambda i, j: ~_same(table["in_group"], i, j))
    sizes = table.groupby(["partition", "group"], sort=False).size().to_numpy(np.int64)
    pairs = int(len(table) ** 2 - (sizes**2).sum()) // 2
    scale *= _quantile(max(pairs, MANY)) / _quantile(MANY)
    other, likeness = likest(
        layouts, lambda i, j: _apart(table, i, j) & _same(table["in_partition"], i, j)
    )
    met = np.flatnonzero(other >= 0)
    sigmas = (likeness[met].astype(float) - middle) / scale
    return _pairs(table, met, other[met]).assign(sigmas=sigmas.round(3))


def _quantile(pairs: int) -> float:
    """The value that the largest of so many standard normal variates exceeds with 1% chance."""
    return NormalDist().inv_cdf(1 - 0.01 / pairs)
