"""What makes the session of imaging matter less? Ways of training tried on a cheap test-bed:
`python bench/session_trials.py [WORKSPACE]` after `unstained real` (about 4 minutes of one core).

A linear model on frozen features of windows (mean and deviation of four stages of the backbone, one
orientation), five folds by session, three seeds of the folds. Each way is set against the plain
model on the same folds: mean over seeds, with the paired 90% interval over sessions of the gain. A
gain here is none of a U-Net. A frame's partner in mixing is of another session of the training
folds.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from bench import frame_changes as looks  # noqa: E402
from bench import run_at_hand  # noqa: E402
from bench import session_models as models  # noqa: E402
from bench.frame_changes import Frame  # noqa: E402
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


@dataclass(frozen=True)
class Way:
    """What the frames are changed by, one copy each; whether the plain ones stay in training and
    are the test; what windows weigh; how many copies of mixed styles are added.
    """

    changes: tuple = ()
    plain: bool = True
    weigh: Callable = models.by_windows
    mix: int = 0


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


def scores(windows: Windows, copies: list[Copy], test: Copy, c: float, way: Way) -> np.ndarray:
    """Out-of-fold evidence (seeds, n): trained on the copies, tested on `test`."""
    found = np.empty((len(SEEDS), len(windows.live)))
    for place, seed in enumerate(SEEDS):
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        for train, held_out in folds.split(windows.live, windows.live, windows.session):
            model = fitted(windows, copies, train, c, way, np.random.default_rng(seed))
            found[place, held_out] = model.decision_function(test.features[held_out])
    return found


def fitted(windows: Windows, copies: list[Copy], train: np.ndarray, c: float, way: Way, random):
    """The linear model of the rows `train` of all copies whose partners are of their sessions."""
    known = np.unique(windows.session[train])
    rows = [train[np.isin(each.partner[train], known)] for each in copies]
    x = np.concatenate([each.features[own] for each, own in zip(copies, rows)])
    rows = np.concatenate(rows)
    styles = [models.mixed_styles(x, windows.session[rows], random) for _ in range(way.mix)]
    x, rows = np.concatenate([x, *styles]), np.tile(rows, 1 + way.mix)
    live, session = windows.live[rows], windows.session[rows]
    c = c * len(train) / len(rows)  # as strongly regularised as the plain model
    return models.linear(x, live, way.weigh(x, live, session, c), c)


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


MIXING = (looks.matched, looks.amplitude)
AMPLITUDES = (looks.amplitude,) * PARTNERS
WAYS = {
    "plain": Way(),
    "local contrast normalised": Way((looks.local_contrast,), plain=False),
    "band-pass": Way((looks.band_pass,), plain=False),
    "histograms matched between sessions": Way((looks.matched,) * PARTNERS),
    "Fourier amplitudes of other sessions": Way(AMPLITUDES),
    "contrast inverted": Way((looks.inverted,)),
    "contrast inverted, and amplitudes": Way((looks.inverted, *AMPLITUDES)),
    "defocus, and halos turned round": Way((looks.defocused, looks.turned_round)),
    "sessions weighed equally": Way(weigh=models.by_sessions),
    "worst session weighed most (group DRO)": Way(weigh=models.by_worst_session),
    "statistics of features mixed": Way(mix=PARTNERS),
    "gamma of 0.7 and 1.4, a control": Way((looks.darker, looks.brighter)),
}


def main() -> None:
    """Prints a row for each way."""
    workspace, partition, record = run_at_hand.asked(__doc__.splitlines()[0])
    model = record["model"]
    c = model["recipe"]["C"]
    windows = read(workspace, partition)
    weights = workspace / "models" / "weights" / "model" / "model.safetensors"
    net = build(model["arch"], weights, pooling="levels").eval()
    net = compiled_net(net, "features")
    draws = draw(windows.session, windows.live, RESAMPLES, 1)
    plain = copy_of(windows, net, looks.unchanged, 0)
    base = aucs(windows, scores(windows, [plain], plain, c, Way()), draws)
    print("| way | pooled / within / mean | gain pooled | within | mean | cost |")
    print("|---" * 6 + "|")
    for name, way in WAYS.items():
        start = time.process_time()
        copies = [copy_of(windows, net, change, seed) for seed, change in enumerate(way.changes)]
        test = plain if way.plain else copies[0]
        found = scores(windows, [plain] * way.plain + copies, test, c, way)
        seconds = time.process_time() - start
        print(row(name, windows, aucs(windows, found, draws), base, seconds), flush=True)


if __name__ == "__main__":
    main()
