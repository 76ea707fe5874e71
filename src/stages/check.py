"""A gate: judges one folder of data/ by its suite of Great Expectations and stops the graph if it
fails.

Usage: python -m src.stages.check raw|patches|labels|splits. Reads data/NAME; writes
reports/checks/NAME: verdict.json (which later stages depend on), report.json (everything found) and
docs/ (the same to look at).
"""

import json
import shutil
import sys
from dataclasses import asdict

import pandas as pd

from ..common.check.expectations import Finding, message
from ..common.check.page import summary, write_docs
from ..common.check.suites import ARTIFACTS, judge
from ..common.workspace import paths
from ..common.workspace.params import load


def write_report(name: str, findings: list[Finding], found: pd.DataFrame, synthetic: bool) -> dict:
    """Writes verdict.json, report.json and docs/ of a check; returns the verdict."""
    folder = paths.REPORTS / "checks" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    outcomes = [{"name": finding.name, "success": finding.success} for finding in findings]
    verdict = {
        "artifact": name,
        "success": all(f.success for f in findings),
        "expectations": outcomes,
    }
    records = [_record(finding) for finding in findings]
    report = {**verdict, "synthetic": synthetic, "found": summary(found), "expectations": records}
    for file, content in (("verdict.json", verdict), ("report.json", report)):
        (folder / file).write_text(json.dumps(content, indent=2) + "\n")
    write_docs(folder / "docs", name, findings, found, synthetic, ARTIFACTS[name].WHAT)
    return verdict


def _record(finding: Finding) -> dict:
    """A finding as report.json has it, but for sets of allowed values, which may be as long as the
    data.
    """
    record = asdict(finding)
    record["arguments"] = {k: v for k, v in finding.arguments.items() if k != "value_set"}
    return record | {"to_do": "" if finding.success else finding.to_do}


def main(name: str) -> dict:
    """Runs the check of one artifact; after the report, exits with the failing expectations."""
    if name not in ARTIFACTS:
        sys.exit(
            f"error: check: there is no artifact '{name}'; it is one of {', '.join(ARTIFACTS)}"
        )
    dataset, check = load("dataset", "check")
    findings, found = judge(name, paths.DATA / name, dataset.partitions, check)
    verdict = write_report(name, findings, found, dataset.source == "synthetic")
    if not verdict["success"]:
        sys.exit(message(name, findings, f"reports/checks/{name}/report.json and docs/index.html"))
    print(
        f"check@{name}: all {len(findings)} expectations met "
        f"(reports/checks/{name}/docs/index.html)"
    )
    return verdict


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
