"""How pure the neighbourhoods of windows are in a space of features: near windows of one label."""

import numpy as np
from sklearn.neighbors import NearestNeighbors


def purity(
    points: np.ndarray, labels: np.ndarray, k: int, groups: np.ndarray | None = None
) -> dict:
    """Share of the k nearest neighbours of a point (N, D) that carry its label (N,), and the share
    expected by chance.

    chance: the share of its label among all candidates; excess: (purity - chance) / (1 - chance), 0
    by chance and 1 if pure. Means over points with any candidate. Overlapping windows of an image
    are near-duplicates of each other: with groups (N,) only neighbours of other groups count. None
    for all if no point has a candidate.
    """
    same = labels[:, None] == labels[None, :]
    candidates = (
        ~np.eye(len(points), dtype=bool) if groups is None else groups[:, None] != groups[None, :]
    )
    near = _nearest(points, k, candidates)
    present = near >= 0
    kept = present.any(1)
    if not kept.any():
        return {"k": k, "n": 0, "purity": None, "chance": None, "excess": None, "by_label": {}}
    alike = np.take_along_axis(same, np.maximum(near, 0), 1) & present
    own = alike.sum(1)[kept] / present.sum(1)[kept]
    expected = (same & candidates).sum(1)[kept] / candidates.sum(1)[kept]
    by_label = {
        str(c): _means(own[labels[kept] == c], expected[labels[kept] == c])
        for c in np.unique(labels[kept])
    }
    return {"k": k} | _means(own, expected) | {"by_label": by_label}


def purities(spaces: dict[str, np.ndarray], labels: np.ndarray, groups: np.ndarray, k: int) -> dict:
    """Purity in each named space of points (N, D): among any neighbours, and among those of other
    groups.
    """
    kinds = {"any": None, "other_groups": groups}
    return {
        space: {kind: purity(p, labels, k, only) for kind, only in kinds.items()}
        for space, p in spaces.items()
    }


def _nearest(points: np.ndarray, k: int, candidates: np.ndarray) -> np.ndarray:
    """The k nearest (Euclidean) of each point (N, D) among its candidates (N, N) bool, as row
    numbers (N, k), -1 where there are fewer.
    """
    order = (
        NearestNeighbors(n_neighbors=len(points))
        .fit(points)
        .kneighbors(points, return_distance=False)
    )
    rows = np.full((len(points), k), -1)
    for i, nearest in enumerate(order):
        kept = nearest[candidates[i, nearest]][:k]
        rows[i, : len(kept)] = kept
    return rows


def _means(own: np.ndarray, expected: np.ndarray) -> dict:
    value, chance = float(own.mean()), float(expected.mean())
    excess = (value - chance) / (1 - chance) if chance < 1 else None
    return {"n": len(own), "purity": value, "chance": chance, "excess": excess}
