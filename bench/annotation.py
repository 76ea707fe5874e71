"""How many answers uncertain-first asking saves against random asking, with answers from windows
whose truth is known.

    python -m bench.annotation                                   # the simulated plate (synthetic),
    after `dvc repro` python -m bench.annotation --truth annotations/mcf7.csv      # rows that
    somebody annotated

For each seed half of the images are asked about, and the filter fitted to the answers is judged on
the other half.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from src.annotation.features import FeatureCache
from src.annotation.sampling import candidates, choose, diverse_order
from src.common.filter import annotations
from src.common.filter import fit as fitting
from src.common.patches.store import PatchStore
from src.common.scoring.emptiness import Svm, detail
from src.common.workspace.params import load
from src.common.workspace.paths import MODELS, PATCHES, RAW
from src.common.workspace.sections import Filter

EVERY = 5  # answers between two fits
ENOUGH = 0.98  # of the F1 that answering every window would give


def truth_of(path: Path) -> pd.DataFrame:
    """image_id, y, x, size and verdict of every window whose truth is known."""
    return (
        pd.read_parquet(path) if path.suffix == ".parquet" else annotations.read_annotations(path)
    )


def learn(
    pool: pd.DataFrame,
    features: np.ndarray,
    order: np.ndarray,
    uncertain: bool,
    answers: int,
    params: Filter,
) -> dict[int, Svm]:
    """The machine after every EVERY answers, once both kinds were answered often enough for one."""
    cells, asked, scores, machines = (pool["verdict"] == "cells").to_numpy(), [], None, {}
    for count in range(1, min(answers, len(pool)) + 1):
        asked.append(choose(pool, pool.iloc[asked], order, scores, set()))
        one_kind = cells[asked].all() or not cells[asked].any()
        if one_kind or (count % EVERY and scores is not None):
            continue
        machine = fit(features[asked], pool.iloc[asked], params)
        scores = machine.decision(features) if uncertain else None
        machines[count] = machine
    return machines


def fit(features: np.ndarray, table: pd.DataFrame, params: Filter) -> Svm:
    """The filter's machine, fitted to these windows."""
    return fitting.fit_svm(
        features, (table["verdict"] == "cells").to_numpy(), kernel=params.kernel, C=params.C
    )


def f1(machine: Svm | None, features: np.ndarray, cells: np.ndarray) -> float:
    """F1 of not cells, the rarer kind; zero before there is a machine."""
    if machine is None:
        return 0.0
    found = machine.decision(features) > 0
    wrong = (found != cells).sum()
    hit = 2 * (~found & ~cells).sum()
    return hit / max(hit + wrong, 1)


def curves(
    table: pd.DataFrame, features: np.ndarray, params: Filter, answers: int, seeds: int
) -> dict[str, np.ndarray]:
    """F1 (seeds, answers // EVERY) on the other half of the images, for each way of asking."""
    images, steps = table["image_id"].unique(), range(EVERY, answers + 1, EVERY)
    found = {"random": [], "uncertain": [], "all": []}
    for seed in tqdm(range(seeds), desc="seeds"):
        half = np.random.default_rng(seed).permutation(images)[: len(images) // 2]
        mine = table["image_id"].isin(half).to_numpy()
        pool, cells = (
            table[mine].reset_index(drop=True),
            (table["verdict"] == "cells").to_numpy()[~mine],
        )
        orders = {"random": np.random.default_rng(seed).permutation(len(pool))}
        orders["uncertain"] = diverse_order(detail(pool), seed)
        for name, order in orders.items():
            machines = learn(pool, features[mine], order, name == "uncertain", answers, params)
            found[name].append([f1(machines.get(n), features[~mine], cells) for n in steps])
        whole = fit(features[mine], pool, params)
        found["all"].append([f1(whole, features[~mine], cells)] * len(steps))
    return {name: np.asarray(values) for name, values in found.items()}


def needed(curve: np.ndarray, goal: float) -> int | None:
    """Answers from which a mean curve reaches a goal."""
    reached = np.flatnonzero(curve >= goal)
    return int((reached[0] + 1) * EVERY) if len(reached) else None


def main() -> None:
    """Prints both curves and the ratio of the answers they need for the same F1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--truth", type=Path, default=RAW / "truth" / "windows.parquet")
    parser.add_argument("--windows", type=int, default=1200, help="drawn evenly over the images")
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=10)
    chosen = parser.parse_args()
    dataset, params = load("dataset", "filter")
    store = PatchStore(PATCHES)
    patches = store.patches(dataset.partitions)
    rows = annotations.match(truth_of(chosen.truth), store.frames.reset_index(drop=True)).rows
    table = candidates(
        annotations.annotated_windows(store, patches, rows),
        params.max_border,
        chosen.windows,
        params.seed,
    )
    weights = MODELS / "weights" / "filter" / "model.safetensors"
    cache = FeatureCache(store, params.arch, weights, params.sees)
    found = curves(table, cache.of(table), params, chosen.answers, chosen.seeds)
    kind = "SYNTHETIC images" if dataset.source == "synthetic" else "real images"
    print(
        f"{kind}, {len(table)} windows, {(table['verdict'] != 'cells').mean():.0%} not cells, "
        f"{chosen.seeds} seeds"
    )
    means = {name: values.mean(axis=0) for name, values in found.items()}
    print("answers   F1 of not cells: random (sd)   uncertain first (sd)")
    for i in range(3, chosen.answers // EVERY, 4):
        row = "".join(
            f"{means[n][i]:20.3f} ({found[n][:, i].std():.3f})" for n in ("random", "uncertain")
        )
        print(f"{(i + 1) * EVERY:7d}{row}")
    whole = means["all"][0]
    print(f"all {len(table) // 2} windows of the half answered: {whole:.3f}")
    at, fewer = (needed(means[name], ENOUGH * whole) for name in ("random", "uncertain"))
    print(f"answers to {ENOUGH:.0%} of that: {at} at random, {fewer} uncertain first", end="")
    print(f": {at / fewer:.1f} times fewer" if at and fewer else f" (none within {chosen.answers})")


if __name__ == "__main__":
    main()
