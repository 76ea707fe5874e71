"""The assignment of whole groups to parts.

Holdout and grouped K-fold are one problem with other target fractions, solved by one search:
`assign`. (scikit-learn's StratifiedGroupKFold is greedy, makes equal folds only, and leaves parts
without a class where few groups hold it.)
"""

import numpy as np

STARTS = 2000  # random assignments drawn
DESCENTS = 10  # of the best of them, improved by exchanges
MANY = 500  # groups of a part that are tried for exchange: more divide evenly without


def assign(counts: np.ndarray, fractions: np.ndarray, seed: int) -> np.ndarray:
    """Part (0 .. K-1) of each group, so that every part's share of each class is near its fraction.

    counts: (G, C) patches of each class in each group; fractions: (K,), adding up to 1, G >= K.
    Minimises the chi-square distance of the parts' shares of every class, and of the groups, from
    the fractions: many random assignments, the best improved by the best exchange of two groups (or
    move of one) until none helps. A part without a class counts worse than any distance.
    Deterministic: costs are compared rounded.
    """
    totals = np.maximum(counts.sum(axis=0), 1)
    shares = np.column_stack([counts / totals, np.full(len(counts), 1 / len(counts))])
    random = np.random.default_rng(seed)
    sizes = _sizes(len(counts), fractions)
    pattern = np.repeat(np.arange(len(fractions)), sizes)
    starts = [random.permutation(pattern) for _ in range(STARTS)]
    ranked = sorted(starts, key=lambda parts: _cost(shares, parts, fractions))
    ends = [_descend(shares, parts, fractions) for parts in ranked[:DESCENTS]]
    ends += [_by_size(shares, parts, fractions) for parts in ends]
    return min(ends, key=lambda parts: _cost(shares, parts, fractions))


def _sizes(n_groups: int, fractions: np.ndarray) -> np.ndarray:
    """Groups per part: at least one each, the largest part taking what rounding leaves."""
    sizes = np.maximum(1, np.rint(n_groups * fractions)).astype(int)
    sizes[np.argmax(fractions)] += n_groups - sizes.sum()
    while sizes.min() < 1:
        sizes[np.argmin(sizes)] += 1
        sizes[np.argmax(sizes)] -= 1
    return sizes


def _by_size(shares: np.ndarray, parts: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """The same division with the largest part where the largest is asked for, which exchanges of
    two do not reach where few unequal groups hold a class.
    """
    names = np.empty(len(fractions), int)
    sizes = _totals(shares, parts, len(fractions)).sum(axis=1)
    names[np.argsort(sizes, kind="stable")] = np.argsort(fractions, kind="stable")
    return names[parts]


def _totals(shares: np.ndarray, parts: np.ndarray, n_parts: int) -> np.ndarray:
    return np.stack([shares[parts == part].sum(axis=0) for part in range(n_parts)])


def _cost(shares: np.ndarray, parts: np.ndarray, fractions: np.ndarray) -> float:
    totals = _totals(shares, parts, len(fractions))
    missing = np.count_nonzero(totals <= 0)
    distance = ((totals - fractions[:, None]) ** 2 / fractions[:, None]).sum()
    return round(float(distance) + 1000 * missing, 9)


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
    """The most promising exchanges (group, other group or -1, the group's new part), by their
    change in distance.
    """
    weights = 1 / fractions
    # (K, C)
    pull = weights[:, None] * (_totals(shares, parts, len(fractions)) - fractions[:, None])
    moves = []
    for part in range(len(fractions)):
        here = np.flatnonzero(parts != part)[:MANY]
        others = np.append(np.flatnonzero(parts == part)[:MANY], -1)
        partner = np.where(others[:, None] >= 0, shares[others], 0.0)
        # What the group's old part gains, (here, others, C)
        delta = partner[None] - shares[here][:, None]
        old = parts[here]
        change = (delta**2).sum(-1) * (weights[old] + weights[part])[:, None] + 2 * (
            delta * (pull[old] - pull[part])[:, None]
        ).sum(-1)
        for index in np.argsort(np.round(change, 9), axis=None, kind="stable")[:keep]:
            row, column = np.unravel_index(index, change.shape)
            moves.append(
                (round(float(change[row, column]), 9), int(here[row]), int(others[column]), part)
            )
    return [item[1:] for item in sorted(moves)[:keep]]
