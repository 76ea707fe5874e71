"""Groups before patches: which windows may never meet across splits, and the assignment of whole groups to parts.

Overlapping windows of one image, and images of one field at several times, share pixels; so a group goes into one part
as a whole (the paper splits by raw image for the same reason). Holdout and grouped K-fold are one problem with other
target fractions, solved by one search: `assign`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

SPLITS = ("train", "valid", "test")
GROUP_COLUMNS = ("partition", "experiment", "well", "position", "time", "day", "compound", "concentration")
COLUMNS = ("image_id", *GROUP_COLUMNS)
STARTS, DESCENTS = 2000, 10  # random assignments drawn, and how many of the best are improved by exchanges


class SplitError(ValueError):
    """The labelled patches cannot be split as asked; the message says what would help."""


@dataclass(frozen=True)
class Round:
    """One training round: boolean masks over the rows of the table of splits, of its length."""

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    def folder(self, directory: Path) -> Path:
        """Where this round's model lies: the one to register at the top of models/PARTITION, folds below it."""
        return directory if self.name in ("holdout", "final") else directory / self.name


def groups(table: pd.DataFrame, group_by: list[str]) -> pd.Series:
    """Name of the group of each row, from the columns `group_by` joined by '/', each of which must be filled.

    Without columns: the position where given (with partition, experiment and well, since positions are numbered anew
    in each), so that one field seen at several times is one group; else the image. Raises SplitError.
    """
    if not group_by:
        position = _text(table["position"])
        named = [_text(table[column]) for column in ("partition", "experiment", "well")]
        joined = ["/".join(part for part in parts if part) for parts in zip(*named, position, strict=True)]
        return pd.Series(np.where(position != "", joined, table["image_id"]), index=table.index, dtype="str")
    columns = [_filled(table, column) for column in group_by]
    return pd.Series(["/".join(parts) for parts in zip(*columns, strict=True)], index=table.index, dtype="str")


def assign(counts: np.ndarray, fractions: np.ndarray, seed: int) -> np.ndarray:
    """Part (0 .. K-1) of each group, so that every part's share of each class is near its fraction.

    counts: (G, C) patches of each class in each group; fractions: (K,), adding up to 1, G >= K. Minimises the
    chi-square distance of the parts' shares of every class, and of the groups, from the fractions: many random
    assignments, the best improved by the best exchange of two groups (or move of one) until none helps. A part
    without a class counts worse than any distance. Deterministic: costs are compared rounded.
    """
    totals = np.maximum(counts.sum(axis=0), 1)
    shares = np.column_stack([counts / totals, np.full(len(counts), 1 / len(counts))])
    random = np.random.default_rng(seed)
    sizes = _sizes(len(counts), fractions)
    pattern = np.repeat(np.arange(len(fractions)), sizes)
    starts = [random.permutation(pattern) for _ in range(STARTS)]
    ranked = sorted(range(STARTS), key=lambda i: (_cost(shares, starts[i], fractions), i))[:DESCENTS]
    ends = [_descend(shares, starts[i].copy(), fractions) for i in ranked]
    return min(ends, key=lambda parts: _cost(shares, parts, fractions))


def rounds(splits: pd.DataFrame, split_json: dict) -> list[Round]:
    """Training rounds of one partition's rows of splits.parquet under the scheme in split.json.

    holdout: one round. kfold: round fold-f tests on fold f, validates on the next fold and trains on the rest; a last
    round `final` trains on everything, with nothing held out.
    """
    if split_json["scheme"] == "holdout":
        return [Round("holdout", *((splits["split"] == name).to_numpy() for name in SPLITS))]
    fold, folds = splits["fold"].to_numpy(), split_json["folds"]
    found = []
    for f in range(folds):
        test, valid = fold == f, fold == (f + 1) % folds
        found.append(Round(f"fold-{f}", ~(test | valid), valid, test))
    everything = np.ones(len(splits), bool)
    return [*found, Round("final", everything, ~everything, ~everything)]


def class_counts(labelled: pd.DataFrame) -> pd.DataFrame:
    """Groups (sorted) x (live, dead) patches; columns group and label are read."""
    table = pd.crosstab(labelled["group"], labelled["label"])
    return table.reindex(columns=["live", "dead"], fill_value=0).sort_index()


def _filled(table: pd.DataFrame, column: str) -> pd.Series:
    present = [name for name in COLUMNS if name in table and (_text(table[name]) != "").all()]
    available = f"columns filled for every image: {', '.join(present)}"
    if column not in COLUMNS or column not in table:
        raise SplitError(f"split.group_by: there is no column '{column}'; {available}")
    text = _text(table[column])
    empty = sorted(table.loc[text == "", "image_id"].unique())
    if empty:
        listed = ", ".join(empty[:5]) + (" ..." if len(empty) > 5 else "")
        raise SplitError(
            f"split.group_by: '{column}' is empty for {len(empty)} images ({listed}); fill it, or use {available}"
        )
    return text


def _text(column: pd.Series) -> pd.Series:
    """A column as text: numbers in their shortest form, unknown values as ''."""
    known = column.notna()
    if pd.api.types.is_numeric_dtype(column):
        return (
            column.map(lambda value: f"{value:g}", na_action="ignore").astype("object").where(known, "").astype("str")
        )
    return column.astype("object").where(known, "").astype("str").str.strip()


def _sizes(n_groups: int, fractions: np.ndarray) -> np.ndarray:
    """Groups per part: at least one each, the largest part taking what rounding leaves."""
    sizes = np.maximum(1, np.rint(n_groups * fractions)).astype(int)
    sizes[np.argmax(fractions)] += n_groups - sizes.sum()
    while sizes.min() < 1:
        sizes[np.argmin(sizes)] += 1
        sizes[np.argmax(sizes)] -= 1
    return sizes


def _totals(shares: np.ndarray, parts: np.ndarray, n_parts: int) -> np.ndarray:
    return np.stack([shares[parts == part].sum(axis=0) for part in range(n_parts)])


def _cost(shares: np.ndarray, parts: np.ndarray, fractions: np.ndarray) -> float:
    totals = _totals(shares, parts, len(fractions))
    missing = np.count_nonzero(totals <= 0)
    return round(float(((totals - fractions[:, None]) ** 2 / fractions[:, None]).sum()) + 1000 * missing, 9)


def _descend(shares: np.ndarray, parts: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Repeat the exchange of two groups, or the move of one, that lowers the cost most."""
    for _ in range(len(parts) * 4):
        best, change = _cost(shares, parts, fractions), None
        for group, other, part in _candidates(shares, parts, fractions):
            tried = parts.copy()
            if other >= 0:
                tried[other] = parts[group]
            tried[group] = part
            cost = _cost(shares, tried, fractions)
            if cost < best:
                best, change = cost, tried
        if change is None:
            return parts
        parts = change
    return parts


def _candidates(
    shares: np.ndarray, parts: np.ndarray, fractions: np.ndarray, keep: int = 20
) -> list[tuple[int, int, int]]:
    """The most promising exchanges (group, other group or -1, the group's new part), by their change in distance."""
    weights = 1 / fractions
    pull = weights[:, None] * (_totals(shares, parts, len(fractions)) - fractions[:, None])  # (K, C)
    found = []
    for part in range(len(fractions)):
        here = np.flatnonzero(parts != part)
        others = np.append(np.flatnonzero(parts == part), -1)
        partner = np.where(others[:, None] >= 0, shares[others], 0.0)
        delta = partner[None] - shares[here][:, None]  # what the group's old part gains, (here, others, C)
        old = parts[here]
        change = (delta**2).sum(-1) * (weights[old] + weights[part])[:, None] + 2 * (
            delta * (pull[old] - pull[part])[:, None]
        ).sum(-1)
        for index in np.argsort(np.round(change, 9), axis=None, kind="stable")[:keep]:
            row, column = np.unravel_index(index, change.shape)
            found.append((round(float(change[row, column]), 9), int(here[row]), int(others[column]), part))
    return [item[1:] for item in sorted(found)[:keep]]
