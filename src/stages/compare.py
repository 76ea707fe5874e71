"""Sets the partitions' models beside each other, their baselines and the paper's results.

Reads metrics/evaluate; writes metrics/compare.json, reports/compare.md, and in metrics/summary.json
the few numbers that `dvc exp show` sets beside each other.
"""

import json

from ..common.compare.table import markdown, rows
from ..common.workspace.params import load
from ..common.workspace.paths import METRICS, REPORTS
from ..common.workspace.tables import existing


def read_records(partitions: list[str]) -> dict[str, dict]:
    """The evaluation records of the partitions now in params, named `PARTITION ARCH`; others are
    named as ignored.
    """
    found = sorted(path.stem for path in existing(METRICS / "evaluate").glob("*.json"))
    if ignored := [name for name in found if name not in partitions]:
        print(
            f"compare: ignoring {', '.join(ignored)} in metrics/evaluate, not in dataset.partitions"
        )
    read = [
        json.loads(existing(METRICS / "evaluate" / f"{name}.json").read_text())
        for name in partitions
    ]
    return {f"{record['partition']} {record['model']['arch']}": record for record in read}


def summary(records: dict[str, dict]) -> dict[str, dict]:
    """Of each partition's model the figures that tell models apart."""
    return {
        record["partition"]: {
            "balanced_accuracy": record["overall"]["balanced_accuracy"]["value"],
            "auc": record["overall"]["auc"]["value"],
            "auc_within_experiments": (
                (record["within_experiment"] or {}).get("pair_weighted") or {}
            ).get("value"),
            "brier": record["calibration"]["brier"]["after"],
        }
        for record in records.values()
    }


def main() -> dict:
    """Runs the stage; returns what it wrote to metrics/compare.json."""
    records = read_records(load("dataset").partitions)
    table = rows(records)
    nested: dict = {}
    for row in table:
        nested.setdefault(row["partition"], {})[row["kind"]] = {
            k: v for k, v in row.items() if k not in ("partition", "kind")
        }
    found = {"models": nested}
    (METRICS / "compare.json").write_text(json.dumps(found, indent=2) + "\n")
    (METRICS / "summary.json").write_text(json.dumps(summary(records), indent=2) + "\n")
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "compare.md").write_text(markdown(records))
    print(f"compare: {len(records)} models, {len(table)} rows in reports/compare.md")
    return found
