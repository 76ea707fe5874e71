"""A gate: judges one folder of data/ by its suite of Great Expectations and stops the graph if it
fails.

Usage: python -m src.stages.check raw|patches|labels|splits. Reads data/NAME; writes
reports/checks/NAME: verdict.json (which later stages depend on), report.json (everything found) and
docs/ (the same to look at).
"""

import sys

from ..common.workspace import paths
from ..common.workspace.params import load


def main(name: str) -> dict:
    """Runs the check of one artifact; after the report, exits with the failing expectations."""
    dataset, check = load("dataset", "check")
    # Great Expectations takes most of the stage's start: after params are judged
    from ..common.check.expectations import message
    from ..common.check.report import write_report
    from ..common.check.suites import ARTIFACTS, judge

    if name not in ARTIFACTS:
        sys.exit(
            f"error: check: there is no artifact '{name}'; it is one of {', '.join(ARTIFACTS)}"
        )
    findings, counts = judge(name, paths.DATA / name, dataset.partitions, check)
    folder, synthetic = paths.REPORTS / "checks" / name, dataset.source == "synthetic"
    verdict = write_report(folder, name, findings, counts, synthetic)
    if not verdict["success"]:
        sys.exit(message(name, findings, f"reports/checks/{name}/report.json and docs/index.html"))
    print(
        f"check@{name}: all {len(findings)} expectations met "
        f"(reports/checks/{name}/docs/index.html)"
    )
    return verdict


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
