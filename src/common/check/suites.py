"""The gates between the stages: one module per folder of data/, each with the tables it reads
(`read`), their COLUMNS without and with gaps, what is counted from them (`detail`) and the suite on
that. The first table has rows of every partition.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pandas as pd

from ..workspace.sections import Check
from . import labels, patches, raw, splits
from .expectations import Finding, Suite, validate
from .form import form

ARTIFACTS = {"raw": raw, "patches": patches, "labels": labels, "splits": splits}


def shape(gate: ModuleType, partitions: list[str]) -> Suite:
    """The suite on columns, gaps and partitions of a gate's tables."""
    first = next(iter(gate.COLUMNS))
    return {
        name: form(name, *columns, gate.REDO, partitions if name == first else None)
        for name, columns in gate.COLUMNS.items()
    }


def judge(
    artifact: str, folder: Path, partitions: Sequence[str], check: Check
) -> tuple[list[Finding], pd.DataFrame]:
    """All findings about one folder of data/, and the counts found there (empty if its form is
    wrong).

    Raises MissingInput for a file that is not there.
    """
    gate, names = ARTIFACTS[artifact], list(partitions)
    tables = gate.read(folder, names)
    findings = validate(tables, shape(gate, names))
    if not all(finding.success for finding in findings):
        return findings, pd.DataFrame()
    tables |= gate.detail(tables, folder, names)
    return findings + validate(tables, gate.suite(check, tables)), tables["found"]
