"""What a check leaves: the verdict that later stages depend on, all that was found, and a page."""

import shutil
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from ..workspace.records import clean, write_json
from .expectations import Finding
from .page import summary, write_docs
from .suites import ARTIFACTS


def write_report(
    folder: Path, name: str, findings: list[Finding], counts: pd.DataFrame, synthetic: bool
) -> dict:
    """Writes verdict.json, report.json and docs/ of a check of the artifact `name` into its folder,
    made anew; returns the verdict. counts: shown beside the expectations.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    outcomes = [{"name": finding.name, "success": finding.success} for finding in findings]
    verdict = {
        "artifact": name,
        "success": all(f.success for f in findings),
        "expectations": outcomes,
    }
    records = [_record(finding) for finding in findings]
    report = {**verdict, "synthetic": synthetic, "found": summary(counts), "expectations": records}
    for file, content in (("verdict.json", verdict), ("report.json", report)):
        write_json(folder / file, clean(content))
    write_docs(folder / "docs", name, findings, counts, synthetic, ARTIFACTS[name].WHAT)
    return verdict


def _record(finding: Finding) -> dict:
    """A finding as report.json has it, but for sets of allowed values, which may be as long as the
    data.
    """
    record = asdict(finding)
    record["arguments"] = {k: v for k, v in finding.arguments.items() if k != "value_set"}
    return record | {"to_do": "" if finding.success else finding.to_do}
