"""Data Docs of a check: one self-contained page that opens from disk without internet.

Great Expectations' own pages load about 16 files from the web and stay unstyled without; this page
shows the same validation results, has its style inside, and no date, so that the same data give the
same bytes.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from .expectations import Finding

ROWS = 200  # offending rows shown for an expectation; report.json has all
LONG = ("column_set", "value_set")  # arguments that may be as long as the data


def write_docs(
    folder: Path,
    artifact: str,
    findings: Sequence[Finding],
    counts: pd.DataFrame,
    synthetic: bool,
    what: str,
) -> None:
    """Writes folder/index.html.

    counts: shown beside the expectations; columns ending in `fraction` become bars.
    what: one sentence on the artifact.
    """
    failed = [finding for finding in findings if not finding.success]
    context = {
        "artifact": artifact, "findings": findings, "failed": failed, "synthetic": synthetic,
        "found": summary(counts), "what": what, "rows": ROWS,
        "version": version("great-expectations"),
        "state": f"{len(failed)} failed" if failed else "all met",
    }  # fmt: skip
    environment = Environment(
        loader=PackageLoader(__package__, "templates"), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["call"] = _call
    folder.mkdir(parents=True, exist_ok=True)
    page = environment.get_template("check.html.j2").render(**context)
    (folder / "index.html").write_text(page, encoding="utf-8")


def summary(table: pd.DataFrame) -> list[Mapping]:
    """A table as JSON has it: missing values null, floats at 6 decimals."""
    rows = table.round(6).astype("object").where(table.notna(), None)
    return rows.to_dict("records")


def _call(finding: Finding) -> str:
    """The arguments of an expectation in words."""
    shown = {key: value for key, value in finding.arguments.items() if key not in LONG}
    return ", ".join(f"{key}={value!r}" for key, value in shown.items())
