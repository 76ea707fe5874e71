"""What makes the session of imaging matter less? Ways of training tried on a cheap test-bed:
`python bench/session_trials.py [WORKSPACE]` after `unstained real` (about 10 minutes of one core).

A linear model on frozen features of windows (mean and deviation of four stages of the backbone, one
orientation), five folds by session, three seeds of the folds. Each way is set against the plain
model on the same folds: mean over seeds, with the paired 90% interval over sessions of the gain. A
gain here is none of a U-Net. A frame's partner in mixing is of another session of the training
folds.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from bench.frame_changes import (  # noqa: E402
    Frame,
    amplitude,
    band_pass,
    defocused,
    inverted,
    local_contrast,
    matched,
    turned_round,
    unchanged,
)
from src.common.metrics.confounding import within_statistic  # noqa: E402
from src.common.metrics.intervals import Resamples, bootstrap, draw, percentile  # noqa: E402
from src.common.metrics.point import weighted_ranked  # noqa: E402
from src.common.patches.store import PatchStore  # noqa: E402
from src.common.scoring.networks.inference import compiled_net, embed  # noqa: E402
from src.common.scoring.networks.net import build  # noqa: E402

SEEDS, FOLDS, CONFIDENCE, RESAMPLES, PARTNERS = (1, 2, 3), 5, 0.9, 1000, 2
LEAST = 5  # windows of each class for a session to count in the mean


@dataclass(frozen=True)
class Windows:
    """Labelled windows: live (n,), session (n,), the table and the frames that they are cut of."""

    table: pd.DataFrame
    live: np.ndarray
    session: np.ndarray
    frames: dict[str, Frame]


@dataclass(frozen=True)
class Copy:
    """Features (n, D) of all windows under one change, and the session that went into each: its
    partner's, or its own.
    """

    features: np.ndarray
    partner: np.ndarray


class Changed:
    """A store of changed frames, as `embed` reads it."""

    def __init__(self, frames: dict[str, Frame]):
        self._frames = frames

    def window(self, image_id: str, y: int, x: int, size: int) -> Frame:
        """The (size, size) uint8 window at (y, x)."""
        return self._frames[image_id][y : y + size, x : x + size]


def copy_of(windows: Windows, net, change: Callable[[Frame, Frame], Frame], seed: int) -> Copy:
    """Features of all windows after a change of their frames, each with a random partner."""
    random = np.random.default_rng(seed)
    session = dict(zip(windows.table["image_id"], windows.session))
    changed, partner = {}, {}
    for name, own in session.items():
        other = random.choice([other for other, its in session.items() if its != own])
        changed[name] = change(windows.frames[name], windows.frames[other])
        partner[name] = session[other] if change in MIXING else own
    features = embed(net, Changed(changed), windows.table, desc=None)
    return Copy(features, windows.table["image_id"].map(partner).to_numpy())


def equal_classes(live: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights (n,) with the same sum in both classes, and mean 1."""
    sums = np.where(live, weights[live].sum(), weights[~live].sum())
    return weights / sums * len(live) / 2


def by_windows(x, live, session, c) -> np.ndarray:
    """Every window weighs the same in its class."""
    return np.ones(len(live))


def by_sessions(x, live, session, c) -> np.ndarray:
    """Every session weighs the same."""
    return 1 / pd.Series(session).groupby(session).transform("size").to_numpy()


def by_worst_session(x, live, session, c, rounds: int = 20, rate: float = 1.0) -> np.ndarray:
    """Group DRO (Sagawa et al. 2020) for a convex model: a session's weight grows with its loss."""
    equal = by_sessions(x, live, session, c)
    log_weight = np.zeros(len(live))
    for _ in range(rounds):
        model = linear(x, live, equal * np.exp(log_weight), c)
        loss = np.logaddexp(0, np.where(live, -1, 1) * model.decision_function(x))
        log_weight += rate * pd.Series(loss).groupby(session).transform("mean").to_numpy()
        log_weight -= log_weight.max()
    return equal * np.exp(log_weight)


def linear(x: np.ndarray, live: np.ndarray, weights: np.ndarray, c: float):
    """The product's head: a logistic regression on standardised features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000))
    weights = equal_classes(live, weights)
    return model.fit(x, live, logisticregression__sample_weight=weights)


def mixed_styles(x: np.ndarray, session: np.ndarray, random) -> np.ndarray:
    """Features with mean and deviation of their session mixed with another's (after MixStyle: Zhou
    et al. 2021).
    """
    names, codes = np.unique(session, return_inverse=True)
    mean, sd = (
        np.stack([f(x[codes == k], 0) for k in range(len(names))]) for f in (np.mean, np.std)
    )
    other = (np.arange(len(names)) + random.integers(1, len(names), len(names))) % len(names)
    own = random.beta(0.1, 0.1, (len(names), 1))
    means, sds = (own * v + (1 - own) * v[other] for v in (mean, sd))
    return (x - mean[codes]) / (sd[codes] + 1e-3) * sds[codes] + means[codes]


def scores(
    windows: Windows, copies: list[Copy], test: Copy, c: float, weigh, mix: int
) -> np.ndarray:
    """Out-of-fold evidence (seeds, n): trained on the copies, tested on `test`."""
    found = np.empty((len(SEEDS), len(windows.live)))
    for place, seed in enumerate(SEEDS):
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        for train, held_out in folds.split(windows.live, windows.live, windows.session):
            known = set(windows.session[train])
            rows = [train[np.isin(each.partner[train], list(known))] for each in copies]
            x = np.concatenate([each.features[r] for each, r in zip(copies, rows)])
            r, random = np.concatenate(rows), np.random.default_rng(seed)
            styles = [mixed_styles(x, windows.session[r], random) for _ in range(mix)]
            x, r = np.concatenate([x, *styles]), np.tile(r, 1 + mix)
            live, share = windows.live[r], len(train) / len(r)  # as strongly regularised as plain
            weights = weigh(x, live, windows.session[r], c * share)
            model = linear(x, live, weights, c * share)
            found[place, held_out] = model.decision_function(test.features[held_out])
    return found


def aucs(windows: Windows, evidence: np.ndarray, draws: Resamples) -> np.ndarray:
    """Pooled AUC, within sessions by pairs, mean over sessions: (3, 1 + resamples), over seeds."""
    live, session = windows.live, windows.session
    by = pd.DataFrame({"live": live, "dead": ~live}).groupby(session).transform("sum")
    large = (by >= LEAST).all(axis=1).to_numpy()
    every = Resamples(np.r_[np.ones((1, draws.groups)), draws.weights], draws.codes, 0)
    found = []
    for score in evidence:
        pairs = within_statistic(live, score, session, draws.codes)
        means = within_statistic(live[large], score[large], session[large], draws.codes[large])
        found.append([
            bootstrap(partial(weighted_ranked, live, score), every)["auc"],
            bootstrap(pairs, every, by_patch=False)["pair_weighted"],
            bootstrap(means, every, by_patch=False)["mean"],
        ])  # fmt: skip
    return np.mean(found, axis=0)


def row(name: str, windows: Windows, found: np.ndarray, plain: np.ndarray, seconds: float) -> str:
    """A line of the table: the three AUCs, their gains with intervals, and the cost in
    seconds of one core."""
    groups = len(np.unique(windows.session))
    cells = [name, " / ".join(f"{value:.3f}" for value in found[:, 0])]
    for gain in found - plain:
        low, high = percentile(gain[1:], CONFIDENCE, groups) or (0.0, 0.0)
        cells.append(f"{gain[0]:+.3f} ({low:+.3f} to {high:+.3f})")
    return "| " + " | ".join([*cells, f"{seconds:.0f} s"]) + " |"


def read(workspace: Path, partition: str) -> Windows:
    """The labelled windows of a run and its frames."""
    store = PatchStore(workspace / "data" / "patches")
    table = pd.read_parquet(workspace / "data" / "splits" / "splits.parquet")
    table = table[(table["partition"] == partition) & table["label"].isin(["live", "dead"])]
    table = table.reset_index(drop=True)
    frames = {name: np.array(store.brightfield(name)) for name in table["image_id"].unique()}
    live = (table["label"] == "live").to_numpy()
    return Windows(table, live, table["group"].to_numpy(), frames)


MIXING = (matched, amplitude)
WAYS = {  # changes of the frames, whether the plain ones are kept, weights, copies of mixed styles
    "plain": ([], True, by_windows, 0),
    "sessions weighed equally": ([], True, by_sessions, 0),
    "worst session weighed most (group DRO)": ([], True, by_worst_session, 0),
    "statistics of features mixed": ([], True, by_windows, PARTNERS),
    "local contrast normalised": ([local_contrast], False, by_windows, 0),
    "band-pass": ([band_pass], False, by_windows, 0),
    "histograms matched between sessions": ([matched] * PARTNERS, True, by_windows, 0),
    "Fourier amplitudes of other sessions": ([amplitude] * PARTNERS, True, by_windows, 0),
    "contrast inverted": ([inverted], True, by_windows, 0),
    "defocus, and halos turned round": ([defocused, turned_round], True, by_windows, 0),
}


def main() -> None:
    """Prints a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path, nargs="?", default=ROOT)
    parser.add_argument("--partition", default="mcf7")
    asked = parser.parse_args()
    record = asked.workspace / "metrics" / "evaluate" / f"{asked.partition}.json"
    model = json.loads(record.read_text())["model"]
    c = model["recipe"]["C"]
    windows = read(asked.workspace, asked.partition)
    weights = asked.workspace / "models" / "weights" / "model" / "model.safetensors"
    net = build(model["arch"], weights, pooling="levels").eval()
    net = compiled_net(net, "features")
    draws = draw(windows.session, windows.live, RESAMPLES, 1)
    plain = copy_of(windows, net, unchanged, 0)
    base = aucs(windows, scores(windows, [plain], plain, c, by_windows, 0), draws)
    print("| way | pooled / within / mean | gain pooled | within | mean | cost |")
    print("|---" * 6 + "|")
    for name, (changes, kept, weigh, mix) in WAYS.items():
        start = time.process_time()
        copies = [copy_of(windows, net, change, seed) for seed, change in enumerate(changes)]
        test = plain if kept else copies[0]
        found = scores(windows, [plain] * kept + copies, test, c, weigh, mix)
        seconds = time.process_time() - start
        print(row(name, windows, aucs(windows, found, draws), base, seconds), flush=True)


if __name__ == "__main__":
    main()
