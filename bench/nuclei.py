"""What stained fields of a session never seen do to the calls of its nuclei, on a run's own
out-of-fold scores: `python bench/nuclei.py [WORKSPACE]` after `unstained real` with masks.

As bench/adaptation.py, for nuclei: each session in turn is new, weights and band are fitted on the
others, and some of its fields are drawn as stained. `as windows`: moved as the windows of these
fields ask for; `own`: as their nuclei do (`unstained adapt` on fields with masks).
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from bench import run_at_hand  # noqa: E402
from bench.adaptation import DRAWS, HEAD, drawn, each_new, judged, moved_by, summary  # noqa: E402
from src.common.evaluate.nuclei import band, fit_nuclei, operate_nuclei  # noqa: E402
from src.common.workspace.sections import Evaluate  # noqa: E402

WAYS = ["nothing", "as windows", "own"]


def called_by_others(nuclei: pd.DataFrame, name: str, error: float) -> tuple[pd.DataFrame, dict]:
    """A session's nuclei as those of the other sessions have them called, and what these taught."""
    settings = Evaluate(confidence=0.9, bootstrap=100, abstain_error=error, band="group", seed=1)
    at = fit_nuclei(nuclei[nuclei["group"] != name], settings, 0.0)
    return operate_nuclei(nuclei[nuclei["group"] == name], at), at


def moves(known: pd.DataFrame, windows: pd.DataFrame, at: dict, temperature: float) -> dict:
    """What is added to the nuclei's evidence in each of WAYS, from stained fields."""
    by = moved_by(windows, None, "intercept") if len(windows) else 0.0
    own = moved_by(known, None, "intercept")
    return dict(zip(WAYS, [0.0, by * at["weights"][0] * temperature, own], strict=True))


def main() -> None:
    """Prints the table of one partition."""
    workspace, partition, record = run_at_hand.asked(__doc__.splitlines()[0])
    saved = workspace / "reports" / "evaluate" / partition / "nuclei.parquet"
    nuclei = pd.read_parquet(saved)
    nuclei = nuclei.assign(live=nuclei["label"] == "live")
    windows = each_new(workspace, partition, record)
    error = record["conformal"]["error"]
    sessions = {name: called_by_others(nuclei, name, error) for name in windows}
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
    for fields in (1, 3):
        random, tables = np.random.default_rng(1), {way: [] for way in WAYS}
        for _ in range(DRAWS):
            parts = {way: [] for way in WAYS}
            for name, (rows, at) in sessions.items():
                stained = drawn(rows, fields, "", random)
                if stained is None:
                    continue
                seen, known_at, _ = windows[name]
                own = seen[seen["image_id"].isin(rows.loc[stained, "image_id"])]
                for way, by in moves(rows[stained], own, at, known_at.temperature).items():
                    parts[way].append(judged(rows[~stained], by, band(at)))
            for way in WAYS:
                tables[way].append(pd.concat(parts[way], ignore_index=True))
        for way in WAYS:
            cells = [f"{fields} stained", way, *summary(tables[way])]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
