"""Sets the partitions' models beside each other, their baselines and the paper's results.

Reads metrics/evaluate; writes metrics/compare.json, reports/compare.md, and in metrics/summary.json
the few numbers that `dvc exp show` sets beside each other.
"""

from ..common.compare.rows import by_partition, headline
from ..common.compare.table import markdown
from ..common.workspace.params import load
from ..common.workspace.paths import METRICS, REPORTS, existing
from ..common.workspace.records import read_json, write_json


def main() -> dict:
    """Runs the stage; returns what it wrote to metrics/compare.json."""
    records = read_records(load("dataset").partitions)
    result = {"models": by_partition(records)}
    write_json(METRICS / "compare.json", result)
    write_json(METRICS / "summary.json", headline(records))
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "compare.md").write_text(markdown(records))
    rows = sum(len(kinds) for kinds in result["models"].values())
    print(f"compare: {len(records)} models, {rows} rows in reports/compare.md")
    return result


def read_records(partitions: list[str]) -> dict[str, dict]:
    """The evaluation records of the partitions now in params, named `PARTITION ARCH`; others are
    named as ignored.
    """
    there = sorted(path.stem for path in existing(METRICS / "evaluate").glob("*.json"))
    if ignored := [name for name in there if name not in partitions]:
        names = ", ".join(ignored)
        print(f"compare: ignoring {names} in metrics/evaluate, not in dataset.partitions")
    records = [read_json(METRICS / "evaluate" / f"{name}.json") for name in partitions]
    return {f"{record['partition']} {record['model']['arch']}": record for record in records}
