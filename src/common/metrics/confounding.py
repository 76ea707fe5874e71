"""How much of an AUC is the batch: AUC within experiments, and the experiment's live share as the
only score.

Where classes and experiments go together, a model that recognises the experiment has a good pooled
AUC without having seen a dead cell. The AUC within experiments compares live with dead patches of
one experiment only.
"""

import numpy as np
import pandas as pd

from .intervals import Statistic


def within_experiments(
    live: np.ndarray, score: np.ndarray, experiment: np.ndarray
) -> dict[str, float]:
    """AUC within experiments: `pair_weighted` (concordant over all live-dead pairs of one
    experiment, summed over experiments, ties one half), `mean` (of the experiments' own AUCs), and
    the `pairs` and `experiments` behind them.
    """
    tables = [
        _pairs(live[rows], score[rows], np.zeros(len(rows), int)) for rows in _rows(experiment)
    ]
    sums = [(concordant.sum(), pairs.sum()) for concordant, pairs, _ in tables]
    counts = np.array(sums).reshape(-1, 2)
    counts = counts[counts[:, 1] > 0]
    if not len(counts):
        return {"pair_weighted": np.nan, "mean": np.nan, "pairs": 0, "experiments": 0}
    concordant, pairs = counts.T
    return {
        "pair_weighted": float(concordant.sum() / pairs.sum()),
        "mean": float((concordant / pairs).mean()),
        "pairs": int(pairs.sum()),
        "experiments": len(counts),
    }


def within_statistic(
    live: np.ndarray, score: np.ndarray, experiment: np.ndarray, codes: np.ndarray
) -> Statistic:
    """The same two AUCs as a statistic of (b, G) group weights, for `bootstrap(...,
    by_patch=False)`.

    A pair of patches of one group counts as often as the group was drawn (copies of a whole
    experiment stay separate experiments); a pair across groups of one experiment as often as both
    together.
    """
    tables = [_pairs(live[rows], score[rows], codes[rows]) for rows in _rows(experiment)]

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        concordant, pairs, copies = (np.zeros((len(weights), len(tables))) for _ in range(3))
        for e, (own_concordant, own_pairs, groups) in enumerate(tables):
            own = weights[:, groups]
            concordant[:, e], pairs[:, e] = (_weighted(m, own) for m in (own_concordant, own_pairs))
            copies[:, e] = own[:, 0] if len(groups) == 1 else 1
        copies *= pairs > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            auc = np.where(pairs > 0, concordant / np.where(pairs > 0, pairs, 1), 0)
            return {
                "pair_weighted": concordant.sum(1) / pairs.sum(1),
                "mean": (copies * auc).sum(1) / copies.sum(1),
            }

    return statistic


def live_share(live: np.ndarray, experiment: np.ndarray) -> np.ndarray:
    """Each patch's experiment's share of live patches, the patch itself included: what the batch
    alone could tell.
    """
    return pd.Series(live.astype(float)).groupby(experiment).transform("mean").to_numpy()


def live_share_of_others(live: np.ndarray, experiment: np.ndarray) -> np.ndarray:
    """The share without the patch itself (the overall share where it is alone).

    Within an experiment this ranks every live patch below every dead one, so it errs low where the
    other errs high.
    """
    by = pd.Series(live.astype(float)).groupby(experiment)
    total, count = by.transform("sum").to_numpy(), by.transform("size").to_numpy()
    return np.where(count > 1, (total - live) / np.maximum(count - 1, 1), live.mean())


def _rows(experiment: np.ndarray) -> list[np.ndarray]:
    codes, names = pd.factorize(experiment, sort=True)
    return [np.flatnonzero(codes == code) for code in range(len(names))]


def _pairs(
    live: np.ndarray, score: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one experiment: concordant and all pairs between live patches of one group (rows) and dead
    ones of another (columns), both (G, G), and the codes of those groups.
    """
    groups, local = np.unique(codes, return_inverse=True)
    concordant = np.zeros((len(groups), len(groups)))
    for g in range(len(groups)):
        deads = np.sort(score[(local == g) & ~live])
        below, up_to = (np.searchsorted(deads, score[live], side) for side in ("left", "right"))
        beaten = (below + up_to) / 2
        concordant[:, g] = np.bincount(local[live], weights=beaten, minlength=len(groups))
    lives, deads = (
        np.bincount(local[part], minlength=len(groups)).astype(float) for part in (live, ~live)
    )
    return concordant, np.outer(lives, deads), groups


def _weighted(table: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over pairs of groups of table x weights x weights, but x weight once on the diagonal:
    (b,).
    """
    return ((weights @ table) * weights).sum(1) - (weights**2 - weights) @ np.diag(table)
