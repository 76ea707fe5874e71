"""The gates between the stages: one module per folder of data/, each with the tables it reads
(`read`), the suite on their form (`shape`), what is counted from them (`detail`) and the suite on
that.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..workspace.sections import Check
from . import labels, patches, raw, splits
from .expectations import Finding, validate

ARTIFACTS = {"raw": raw, "patches": patches, "labels": labels, "splits": splits}


def judge(
    artifact: str, folder: Path, partitions: Sequence[str], check: Check
) -> tuple[list[Finding], pd.DataFrame]:
    """All findings about one folder of data/, and the counts found there (empty if its form is
    wrong).

    Raises MissingInput for a file that is not there.
    """
    gate, names = ARTIFACTS[artifact], list(partitions)
    tables = gate.read(folder, names)
    findings = validate(tables, gate.shape(names))
    if not all(finding.success for finding in findings):
        return findings, pd.DataFrame()
    tables |= gate.detail(tables, folder, names)
    return findings + validate(tables, gate.suite(check, tables)), tables["found"]
