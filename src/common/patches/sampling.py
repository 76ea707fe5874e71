"""Which windows stand for the rest: seeded, images taking turns, no two overlapping."""

import pandas as pd


def disjoint(rows: pd.DataFrame, count: int | None = None) -> pd.DataFrame:
    """The first `count` rows (all, if None) of which no two overlap in their image: overlapping
    ones are near-copies.

    rows: image_id, y, x, size.
    """
    kept, taken = [], {}
    for index, image, y, x, size in rows[["image_id", "y", "x", "size"]].itertuples(name=None):
        near = taken.setdefault(image, [])
        if all(abs(y - b) >= max(size, s) or abs(x - a) >= max(size, s) for b, a, s in near):
            near.append((y, x, size))
            kept.append(index)
    return rows.loc[kept].head(len(kept) if count is None else count)


def in_turn(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The rows (image_id, ...) in a seeded random order in which images take turns."""
    mixed = rows.sample(frac=1, random_state=seed)
    turn = mixed.groupby("image_id").cumcount()
    return mixed.loc[turn.sort_values(kind="stable").index]


def draw(rows: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """A seeded sample of at most `count` rows that do not overlap, images taking turns; their index
    is kept.
    """
    return disjoint(in_turn(rows, seed), count)
