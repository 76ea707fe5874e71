"""What stained fields, or controls alone, of a session never seen do to its calls, on a run's own
out-of-fold scores: `python bench/adaptation.py [WORKSPACE]` after `unstained real`.

Each session in turn is new: operating point, band and expected evidence are fitted on the other
sessions, some of its fields are drawn as stained (their PI labels known), the evidence is shifted
as `unstained adapt` does, and the rest of the session is judged. A control is a field whose
labelled windows are all of one class. Figures are means over draws, then over sessions, with
intervals over sessions; AUC is pooled over the judged windows.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from bench import run_at_hand  # noqa: E402
from src.assay import controls  # noqa: E402
from src.common.evaluate.calibration import fit_operating  # noqa: E402
from src.common.evaluate.rounds import operate, test_rows  # noqa: E402
from src.common.metrics.intervals import percentile, resample  # noqa: E402
from src.common.metrics.point import weighted_ranked  # noqa: E402
from src.common.scoring.operating import called_live, conformal_call  # noqa: E402

CONFIDENCE, RESAMPLES, DRAWS = 0.9, 1000, 50
FEWEST_FIELDS = {"": 4, "live": 3, "dead": 3}  # of a session, by the class of its controls
HEAD = ["known", "then", "sessions", "forced wrong", "called", "wrong of called", "of live; dead",
        "above 20%", "AUC"]  # fmt: skip
WAYS = ["nothing", "shift", "intercept", "its class for all"]
ASKED = [(n, "", way) for n in (1, 3, 5) for way in WAYS]
ASKED += [(2, control, way) for control in ("live", "dead") for way in WAYS[:3]]


def new_session(test: pd.DataFrame, name: str, record: dict):
    """The session's rows as a model of the other sessions calls them, its operating point and what
    evidence it expects."""
    others = test[test["group"] != name]
    band, logit, live = record["conformal"], others["logit"].to_numpy(), others["live"].to_numpy()
    groups = others["group"].to_numpy() if band["unit"] == "group" else None
    shifted = record["model"]["target"] == "stain"
    at = fit_operating(logit, live, band["error"], shifted, groups)
    return operate(test[test["group"] == name], at), at, controls.expected_of(operate(others, at))


def judged(rows: pd.DataFrame, by: float, at) -> pd.DataFrame:
    """Windows (live, z, forced, made, wrong) after the evidence moved by `by`."""
    z = rows["score"].to_numpy() + by
    p, live = 1 / (1 + np.exp(-z)), rows["live"].to_numpy()
    call = conformal_call(p, at.live_from, at.dead_to)
    made = call != "abstain"
    return pd.DataFrame({
        "group": rows["group"].to_numpy(), "live": live, "z": z, "made": made,
        "forced": called_live(p, at.threshold) != live, "wrong": made & ((call == "live") != live),
    })  # fmt: skip


def repeated(rows: pd.DataFrame, known: pd.DataFrame, at) -> pd.DataFrame:
    """No pixels: every window gets the class of most known ones, and is called if all agree."""
    share = known["live"].mean()
    wrong = rows["live"].to_numpy() != (share >= 0.5)
    made = np.full(len(rows), share in (0, 1))
    table = {"group": rows["group"].to_numpy(), "live": rows["live"].to_numpy(), "z": share}
    return pd.DataFrame(table | {"made": made, "forced": wrong, "wrong": made & wrong})


def drawn(rows: pd.DataFrame, fields: int, control: str, random) -> np.ndarray | None:
    """Which rows are of the fields drawn; None where the session has too few."""
    by = rows.groupby("image_id")["live"].mean()
    names = by.index[{"": by >= 0, "live": by == 1, "dead": by == 0}[control]]
    if len(names) < fields or len(by) <= max(fields, FEWEST_FIELDS[control] - 1):
        return None
    return rows["image_id"].isin(random.choice(names, fields, replace=False)).to_numpy()


def moved_by(known: pd.DataFrame, means: controls.Expected, how: str) -> float:
    """What is added to the evidence, from the windows of known class."""
    p, live = known["probability"].to_numpy(), known["live"].to_numpy()
    if how == "shift":
        return controls.shift(p, live, means)
    return controls.intercept(p, live, known["image_id"].to_numpy()) if how == "intercept" else 0.0


def trial(sessions: dict, fields: int, control: str, how: str) -> list[pd.DataFrame]:
    """The judged windows of every session, once a draw; the same draws for every `how`."""
    random, tables = np.random.default_rng(1), []
    for _ in range(DRAWS):
        parts = []
        for rows, at, means in sessions.values():
            stained = drawn(rows, fields, control, random)
            if stained is None:
                continue
            known, rest = rows[stained], rows[~stained]
            if how == "its class for all":
                parts.append(repeated(rest, known, at))
                continue
            parts.append(judged(rest, moved_by(known, means, how), at))
        tables.append(pd.concat(parts, ignore_index=True))
    return tables


def summary(tables: list[pd.DataFrame]) -> list[str]:
    """Cells of the table: means over sessions with their intervals."""
    names = ["forced", "made", "wrong"]
    each = pd.concat([t.groupby("group")[names].mean() for t in tables]).groupby(level=0).mean()
    weights = resample(len(each), RESAMPLES, np.random.default_rng(1)).astype(float)
    every = np.r_[np.ones((1, len(each))), weights]
    forced, made, wrong = (every @ each.to_numpy() / len(each)).T
    by_class = pd.concat([t.groupby(["live", "group"])[names].mean() for t in tables])
    by_class = by_class.groupby(level=[0, 1]).mean().groupby(level=0).mean()
    classes = by_class["wrong"] / by_class["made"]
    above = (each["wrong"] / each["made"].where(each["made"] > 0) > 0.2).sum()
    auc = np.mean([ranked(t, each.index, every) for t in tables], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        of_called = wrong / made
    shown = [told(v, len(each), False) for v in (forced, made, of_called)]
    split = "; ".join(f"{classes[live]:.0%}" for live in (True, False))
    return [str(len(each)), *shown, split, str(above), told(auc, len(each), True)]


def ranked(table: pd.DataFrame, names: pd.Index, weights: np.ndarray) -> np.ndarray:
    """Pooled AUC under weights of sessions."""
    codes = names.get_indexer(table["group"])
    live, z = table["live"].to_numpy(), table["z"].to_numpy()
    return weighted_ranked(live, z, weights[:, codes])["auc"]


def told(values: np.ndarray, groups: int, auc: bool) -> str:
    """The first value with the interval of the others."""
    low, high = percentile(values[1:], CONFIDENCE, groups) or (np.nan, np.nan)
    if auc:
        return f"{values[0]:.3f} ({low:.2f} to {high:.2f})"
    return f"{values[0]:.0%} ({low:.0%} to {high:.0%})"


def each_new(workspace: Path, partition: str, record: dict) -> dict[str, tuple]:
    """`new_session` of every session of a run, by its name."""
    saved = workspace / "reports" / "evaluate" / partition / "predictions.parquet"
    test = test_rows(pd.read_parquet(saved))
    test = test.assign(live=test["label"] == "live")
    return {name: new_session(test, name, record) for name in sorted(test["group"].unique())}


def main() -> None:
    """Prints the table of one partition."""
    workspace, partition, record = run_at_hand.asked(__doc__.splitlines()[0])
    sessions = each_new(workspace, partition, record)
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
    for fields, control, way in ASKED:
        cells = summary(trial(sessions, fields, control, way))
        what = f"{fields} {f'all {control}' if control else 'stained'}"
        print("| " + " | ".join([what, way, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
