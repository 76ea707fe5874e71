"""What a stain network that learns on from a few stained fields makes of the rest of their session:
`python bench/tuning.py [WORKSPACE]` after `unstained real` with the recipe stain (half an hour).

Each session in turn is new: the network of the fold that held it out learns on from drawn fields as
in `unstained adapt`, and the rest of the session is judged by the operating point of the others.
The fields and the columns are those of bench/adaptation.py, with one draw; the last column is
the AUC within sessions, the mean over those with 3 windows of each class left to judge.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from bench import run_at_hand  # noqa: E402
from bench.adaptation import HEAD, drawn, each_new, judged, moved_by, summary  # noqa: E402
from src.assay import tuning  # noqa: E402
from src.common.evaluate.rounds import operate  # noqa: E402
from src.common.patches.store import PatchStore  # noqa: E402
from src.common.scoring.networks.inference import live_logits, load_model  # noqa: E402
from src.common.scoring.scorer import Scorer  # noqa: E402
from src.common.workspace.records import read_json  # noqa: E402

DRAWS, FIELDS, LEAST = 1, (1, 3), 3
WAYS = ["nothing", "intercept", "learns on", "learns on, intercept"]


def fold_networks(workspace: Path, partition: str) -> dict[str, Scorer]:
    """The network that held a session out, for each session."""
    folder = workspace / "models" / partition
    facts = read_json(folder / "model.json")
    splits = pd.read_parquet(workspace / "data" / "splits" / "splits.parquet")
    folds = splits[splits["partition"] == partition].groupby("group")["fold"].first()
    nets = {f: load_model(folder / f"fold-{f}", facts) for f in folds.unique()}
    return {name: Scorer(facts, nets[fold], None) for name, fold in folds.items()}


def as_seen(rows: pd.DataFrame, net: nn.Module, store: PatchStore, at) -> pd.DataFrame:
    """Windows with the evidence that a network gives them."""
    return operate(rows.assign(logit=live_logits(net, store, rows, None)), at)


def after(scorer: Scorer, state: dict[str, torch.Tensor]) -> nn.Module:
    """The network that has learnt on."""
    return tuning.replaced(scorer, state).net


def by_the_others(scorer: Scorer, store: PatchStore, known: pd.DataFrame, at) -> pd.DataFrame:
    """Stained windows by networks that learnt from the other fields; none of a single field."""
    names = known["image_id"].unique()
    parts = []
    for name in names if len(names) > 1 else []:
        state = tuning.learnt(scorer, store, names[names != name])
        rows = known[known["image_id"] == name]
        parts.append(as_seen(rows, after(scorer, state), store, at))
    return pd.concat(parts) if parts else known[:0]


def trial(sessions: dict, scorers: dict, store: PatchStore, fields: int) -> dict[str, list]:
    """The judged windows of every session by way, a table for each draw."""
    random, tables = np.random.default_rng(1), {way: [] for way in WAYS}
    for _ in range(DRAWS):
        parts = {way: [] for way in WAYS}
        for name, (rows, at, means) in sessions.items():
            stained = drawn(rows, fields, "", random)
            if stained is None:
                continue
            known, rest, scorer = rows[stained], rows[~stained], scorers[name]
            by = moved_by(known, means, "intercept")
            parts["nothing"].append(judged(rest, 0.0, at))
            parts["intercept"].append(judged(rest, by, at))
            state = tuning.learnt(scorer, store, list(known["image_id"].unique()))
            seen = as_seen(rest, after(scorer, state), store, at)
            others = by_the_others(scorer, store, known, at)
            by = moved_by(others, means, "intercept") if len(others) else 0.0
            parts["learns on"].append(judged(seen, 0.0, at))
            parts["learns on, intercept"].append(judged(seen, by, at))
            print(f"{fields} of {name}", file=sys.stderr, flush=True)
        for way in WAYS:
            tables[way].append(pd.concat(parts[way], ignore_index=True))
    return tables


def within(tables: list[pd.DataFrame]) -> str:
    """Mean AUC within sessions, and of how many."""
    found: dict[str, list[float]] = {}
    for table in tables:
        for name, rows in table.groupby("group"):
            if rows["live"].sum() >= LEAST and (~rows["live"]).sum() >= LEAST:
                found.setdefault(name, []).append(roc_auc_score(rows["live"], rows["z"]))
    return (
        f"{np.mean([np.mean(v) for v in found.values()]):.3f} of {len(found)}" if found else "n/a"
    )


def main() -> None:
    """Prints the table of one partition."""
    workspace, partition, record = run_at_hand.asked(__doc__.splitlines()[0])
    sessions = each_new(workspace, partition, record)
    scorers = fold_networks(workspace, partition)
    store = PatchStore(workspace / "data" / "patches")
    head = [*HEAD, "AUC within"]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for fields in FIELDS:
        for way, tables in trial(sessions, scorers, store, fields).items():
            cells = [f"{fields} stained", way, *summary(tables), within(tables)]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
