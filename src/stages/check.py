"""A gate: judges one folder of data/ by its suite of Great Expectations and stops the graph if it fails.

Usage: python -m src.stages.check raw|patches|labels|splits. Reads data/NAME; writes reports/checks/NAME: verdict.json
(which later stages depend on), report.json (everything found) and docs/ (the same to look at; dated).
"""

import json
import shutil
import sys

from ..common import paths
from ..common.datadocs import write_docs
from ..common.expectations import Finding, message
from ..common.params import load
from ..common.suites import ARTIFACTS, judge
from ..common.tables import MissingInput


def write_report(name: str, findings: list[Finding]) -> dict:
    """Writes verdict.json, report.json and docs/ of a check; returns the verdict."""
    folder = paths.REPORTS / "checks" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    outcomes = [{"name": finding.gate.name, "success": finding.success} for finding in findings]
    verdict = {"artifact": name, "success": all(f.success for f in findings), "expectations": outcomes}
    report = {"artifact": name, "success": verdict["success"], "expectations": [_record(f) for f in findings]}
    for file, content in (("verdict.json", verdict), ("report.json", report)):
        (folder / file).write_text(json.dumps(content, indent=2) + "\n")
    write_docs(folder / "docs", name, findings)
    return verdict


def main(name: str) -> dict:
    """Runs the check of one artifact; exits with the failing expectations after writing the report."""
    if name not in ARTIFACTS:
        sys.exit(f"error: check: there is no artifact '{name}'; it is one of {', '.join(ARTIFACTS)}")
    dataset, check = load("dataset", "check")
    try:
        findings = judge(name, paths.DATA / name, dataset.partitions, check)
    except (MissingInput, ValueError) as error:
        sys.exit(f"error: check@{name}: {error}")
    verdict = write_report(name, findings)
    if not verdict["success"]:
        sys.exit(message(name, findings, f"reports/checks/{name}/report.json and docs/index.html"))
    print(f"check@{name}: all {len(findings)} expectations met (reports/checks/{name}/docs/index.html)")
    return verdict


def _record(finding: Finding) -> dict:
    gate = finding.gate
    return {
        "name": gate.name, "success": finding.success, "expectation": gate.expectation, "arguments": dict(gate.arguments),
        "expected": gate.expected, "observed": finding.observed, "images": finding.images, "rows": finding.rows,
        "to_do": "" if finding.success else gate.remedy,
    }  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
