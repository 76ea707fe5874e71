"""Suites of Great Expectations: expectations on tables, each with its name and remedy as `meta` and
what is expected, in words, as `notes`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read by great_expectations at import

import great_expectations as gx
import great_expectations.expectations as gxe
from great_expectations.expectations.expectation import Expectation

Tables = dict[str, pd.DataFrame]
Suite = dict[str, list[Expectation]]  # of each table

# Columns that say which row it is, and by what two differ; the first two name images
IDENTITY = (
    "image_id", "other_id", "patch_id", "group", "experiment", "other", "partition", "part",
    "round", "label", "measure", "factor",
)  # fmt: skip
SHOWN = 20  # image ids printed; the report has all


def said(name: str, expected: str, remedy: str) -> dict:
    """The arguments of an expectation that say its name, what is expected and what to do if it is
    not met.
    """
    return {"notes": expected, "meta": {"name": name, "to_do": remedy}}


def between(
    column: str, *words: str, low: float | None = None, high: float | None = None, **strict: bool
) -> Expectation:
    """Every value of a column from `low` to `high`. words: as of `said`, here and below."""
    return gxe.ExpectColumnValuesToBeBetween(
        column=column, min_value=low, max_value=high, **strict, **said(*words)
    )


def among(column: str, values: list, *words: str) -> Expectation:
    """Every value of a column one of `values`."""
    return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=values, **said(*words))


def unique(column: str, *words: str) -> Expectation:
    """No value of a column twice."""
    return gxe.ExpectColumnValuesToBeUnique(column=column, **said(*words))


def known(column: str, *words: str) -> Expectation:
    """No gap in a column."""
    return gxe.ExpectColumnValuesToNotBeNull(column=column, **said(*words))


def lacking(column: str, *words: str) -> Expectation:
    """Nothing but gaps in a column, as where there are no rows."""
    return gxe.ExpectColumnValuesToBeNull(column=column, **said(*words))


def equal(column: str, other: str, *words: str, **ignored: str) -> Expectation:
    """Two columns hold the same in every row."""
    return gxe.ExpectColumnPairValuesToBeEqual(
        column_A=column, column_B=other, **ignored, **said(*words)
    )


def beyond(column: str, other: str, *words: str, **options: object) -> Expectation:
    """One column is greater than another in every row."""
    return gxe.ExpectColumnPairValuesAToBeGreaterThanB(
        column_A=column, column_B=other, **options, **said(*words)
    )


@dataclass(frozen=True)
class Finding:
    """An expectation's outcome.

    `rows`: the offending rows, each a dict of what identifies it and the values judged; `images`:
    their ids, each once.
    """

    name: str
    success: bool
    expectation: str
    table: str
    arguments: dict[str, object]
    expected: str
    to_do: str
    observed: str
    rows: list[dict[str, object]] = field(default_factory=list)
    images: list[str] = field(default_factory=list)


def validate(tables: Mapping[str, pd.DataFrame], suite: Suite) -> list[Finding]:
    """Judges a suite on its tables, in the order of the suite.

    Raises KeyError for expectations without their table.
    """
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    source = context.data_sources.add_pandas("evidence")
    findings = []
    for name, expectations in suite.items():
        batches = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("whole")
        batch = batches.get_batch({"dataframe": tables[name]})
        named = [column for column in IDENTITY if column in tables[name]]
        form = {"result_format": "COMPLETE", "unexpected_index_column_names": named}
        outcome = batch.validate(
            gx.ExpectationSuite(name=name, expectations=expectations), result_format=form
        )
        results = {result.expectation_config.meta["name"]: result for result in outcome.results}
        order = [expectation.meta["name"] for expectation in expectations]
        findings += [_finding(results[one], name, tables[name]) for one in order]
    return findings


def message(artifact: str, findings: Sequence[Finding], report: str) -> str:
    """What a failed check prints: each failing expectation, what it saw, where, and what to do."""
    failed = [finding for finding in findings if not finding.success]
    lines = [f"error: check@{artifact}: {len(failed)} of {len(findings)} expectations failed"]
    for finding in failed:
        lines += ["", f"  {finding.name}", f"    expected: {finding.expected}"]
        lines.append(f"    observed: {finding.observed}")
        if finding.images:
            more = len(finding.images) - SHOWN
            shown = ", ".join(finding.images[:SHOWN]) + (f" and {more} more" if more > 0 else "")
            lines.append(f"    images ({len(finding.images)}): {shown}")
        lines.append(f"    to do: {finding.to_do}")
    return "\n".join([*lines, "", f"  all of it: {report}"])


def _finding(result, name: str, table: pd.DataFrame) -> Finding:
    asked, details = result.expectation_config, result.result or {}
    arguments = {key: value for key, value in asked.kwargs.items() if key != "batch_id"}
    raised = _raised(result.exception_info or {})
    rows = [_plain(row) for row in details.get("unexpected_index_list") or []]
    named = [str(row[key]) for row in rows for key in IDENTITY[:2] if row.get(key)]
    observed = (
        f"could not be judged: {raised}" if raised else _observed(details, rows, arguments, table)
    )
    return Finding(
        name=asked.meta["name"], success=bool(result.success) and not raised,
        expectation=asked.type, table=name, arguments=arguments, expected=asked.notes,
        to_do=asked.meta["to_do"], observed=observed, rows=rows, images=list(dict.fromkeys(named)),
    )  # fmt: skip


def _observed(
    details: Mapping, rows: Sequence[Mapping], arguments: Mapping, table: pd.DataFrame
) -> str:
    """In words: the first offending rows; if there are none, how many were judged and the range of
    their values.
    """
    if rows:
        named = "; ".join(words(row) for row in rows[:3]) + ("; ..." if len(rows) > 3 else "")
        return f"{len(rows)} of {details['element_count']}: {named}"
    if "column_set" in arguments:
        lost = details.get("details", {}).get("mismatched", {}).get("missing")
        return f"missing: {', '.join(lost)}" if lost else "all there"
    values = table.get(arguments.get("column"), pd.Series(dtype=object))
    if not pd.api.types.is_numeric_dtype(values) or values.isna().all():
        return f"all {len(table)}"
    low, high = values.min(), values.max()
    return f"all {len(table)}: {low:.6g}" + ("" if low == high else f" to {high:.6g}")


def words(row: Mapping) -> str:
    """A row in words: `image_id a, part test, corners 40`."""
    return ", ".join(f"{key} {value}" for key, value in row.items() if value not in (None, ""))


def _raised(info: Mapping) -> str:
    """The message of an exception inside Great Expectations, '' if there was none."""
    parts = [info] if "raised_exception" in info else list(info.values())
    return "; ".join(str(part["exception_message"]) for part in parts if part["raised_exception"])


def _plain(row: Mapping) -> dict[str, object]:
    """A row as JSON, what identifies it first: numbers at 6 decimals, missing ones as null."""
    keys = [*(key for key in IDENTITY if key in row), *(key for key in row if key not in IDENTITY)]
    plain = {key: row[key].item() if hasattr(row[key], "item") else row[key] for key in keys}
    for key, value in plain.items():
        if isinstance(value, float):
            plain[key] = None if pd.isna(value) else round(value, 6)
        elif isinstance(value, bytes):
            plain[key] = f"{len(value)} bytes"
    return plain
