"""Runs gates as Great Expectations suites: expectations declared as data, judged on tables of
evidence.

A gate is one expectation about one table. Every table has the columns `what` (the row in words) and
`images` (the ids behind it, joined by ", "), so that each failing expectation can say what it saw
and where.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read by great_expectations at import

SHOWN = 20  # image ids printed; the report has all


@dataclass(frozen=True)
class Gate:
    """An expectation (a Great Expectations class name and its arguments) about a table, and what to
    say if it fails.
    """

    name: str
    table: str
    expectation: str
    arguments: Mapping[str, object]
    expected: str
    remedy: str


@dataclass(frozen=True)
class Finding:
    """A gate's outcome.

    `rows`: the offending rows as {"what", "images", "value"}; `images`: their ids, each once.
    """

    gate: Gate
    success: bool
    observed: str
    rows: list[dict[str, object]] = field(default_factory=list)
    images: list[str] = field(default_factory=list)


def validate(tables: Mapping[str, pd.DataFrame], gates: Sequence[Gate]) -> list[Finding]:
    """Judges the gates on their tables, in the order of the gates.

    Raises KeyError for a gate without its table.
    """
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    source = context.data_sources.add_pandas("evidence")
    findings: dict[str, Finding] = {}
    for name in dict.fromkeys(gate.table for gate in gates):
        mine = {gate.name: gate for gate in gates if gate.table == name}
        batches = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("whole")
        batch = batches.get_batch({"dataframe": tables[name]})
        named = {
            "unexpected_index_column_names": [c for c in ("what", "images") if c in tables[name]]
        }
        suite = gx.ExpectationSuite(
            name=name, expectations=[_expectation(gate) for gate in mine.values()]
        )
        outcome = batch.validate(suite, result_format={"result_format": "COMPLETE", **named})
        for result in outcome.results:
            gate = mine[result.expectation_config.meta["gate"]]
            findings[gate.name] = _finding(gate, result, tables[name])
    return [findings[gate.name] for gate in gates]


def message(artifact: str, findings: Sequence[Finding], report: str) -> str:
    """What a failed check prints: each failing expectation, what it saw and where, and what to do."""
    failed = [finding for finding in findings if not finding.success]
    lines = [f"error: check@{artifact}: {len(failed)} of {len(findings)} expectations failed"]
    for finding in failed:
        lines += ["", f"  {finding.gate.name}"]
        lines += [f"    expected: {finding.gate.expected}", f"    observed: {finding.observed}"]
        if finding.images:
            more = len(finding.images) - SHOWN
            shown = ", ".join(finding.images[:SHOWN]) + (f" and {more} more" if more > 0 else "")
            lines.append(f"    images ({len(finding.images)}): {shown}")
        lines.append(f"    to do: {finding.gate.remedy}")
    return "\n".join([*lines, "", f"  all of it: {report}"])


def _expectation(gate: Gate):
    import great_expectations.expectations as kinds

    return getattr(kinds, gate.expectation)(
        **gate.arguments, meta={"gate": gate.name}, notes=gate.expected
    )


def _finding(gate: Gate, result, table: pd.DataFrame) -> Finding:
    details = result.result or {}
    if result.exception_info and (raised := _raised(result.exception_info)):
        return Finding(gate, False, f"could not be judged: {raised}")
    offending = details.get("unexpected_index_list") or []
    column = gate.arguments.get("column")
    rows = [
        {"what": row["what"], "images": row["images"], "value": _plain(row.get(column))}
        for row in offending
    ]
    ids = dict.fromkeys(image for row in rows for image in str(row["images"]).split(", ") if image)
    return Finding(
        gate, bool(result.success), _observed(details, rows, table.get(column)), rows, list(ids)
    )


def _observed(details: Mapping, rows: Sequence[Mapping], values: pd.Series | None) -> str:
    """In words: the first offending rows; if there are none, how many were judged and the range of
    their values.
    """
    if rows:
        named = "; ".join(str(row["what"]) for row in rows[:3]) + ("; ..." if len(rows) > 3 else "")
        return f"{len(rows)} of {details['element_count']}: {named}"
    if "element_count" not in details:  # about columns
        lost = details.get("details", {}).get("mismatched", {}).get("missing")
        return f"missing: {', '.join(lost)}" if lost else "all there"
    if values is None or not pd.api.types.is_numeric_dtype(values) or values.isna().all():
        return f"all {details['element_count']}"
    low, high = values.min(), values.max()
    return f"all {details['element_count']}: {low:.6g}" + ("" if low == high else f" to {high:.6g}")


def _raised(info: Mapping) -> str:
    """The message of an exception inside Great Expectations, '' if there was none."""
    parts = [info] if "raised_exception" in info else list(info.values())
    return "; ".join(str(part["exception_message"]) for part in parts if part["raised_exception"])


def _plain(value: object) -> object:
    """A value as JSON has it: numbers rounded to 6 decimals, what is missing as null."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return None if pd.isna(value) else round(value, 6)
    return value
