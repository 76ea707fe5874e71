"""Data Docs of a check: one self-contained page that opens from disk without internet.

Great Expectations' own pages load about 16 files from the web and stay unstyled without; this page
shows the same validation results, and has its style inside.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from .expectations import Finding

ROWS = 200  # offending rows shown for an expectation; report.json has all

STYLE = """
:root { --ink:#1d2733; --soft:#5d6b7a; --line:#dfe5ec; --paper:#fff; --ground:#f3f6f9; --good:#1b7f4d; --bad:#b3261e;
  --live:#3b82b8; --tint:#e9f5ee; --warn:#fdecea; --code:#eef2f6; }
@media (prefers-color-scheme: dark) { :root { --ink:#e6ebf0; --soft:#9aa8b6; --line:#2f3a46; --paper:#1a222b;
  --ground:#12181f; --good:#57c78a; --bad:#f28b82; --live:#6bb3e6; --tint:#16301f; --warn:#3a1c1a; --code:#232d38; } }
* { box-sizing:border-box; } body { margin:0; background:var(--ground); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif; }
main { max-width:1080px; margin:0 auto; padding:32px 24px 64px; } h1 { font-size:26px; margin:0; }
h2 { font-size:18px; margin:36px 0 10px; } p { margin:4px 0; } .soft { color:var(--soft); }
header { display:flex; gap:16px; align-items:center; flex-wrap:wrap; } .badge { border-radius:999px; padding:4px 14px;
  font-weight:600; } .met { background:var(--tint); color:var(--good); } .failed { background:var(--warn);
  color:var(--bad); }
.synthetic { border:1px solid var(--line); color:var(--soft); font-weight:500; }
.tiles { display:flex; gap:12px; margin:20px 0 0; flex-wrap:wrap; } .tile { background:var(--paper); border:1px solid
  var(--line); border-radius:10px; padding:10px 18px; min-width:130px; } .tile b { display:block; font-size:24px; }
.card { background:var(--paper); border:1px solid var(--line); border-radius:10px; overflow-x:auto; }
table { border-collapse:collapse; width:100%; } th { text-align:left; font-weight:600; color:var(--soft);
  font-size:13px; }
th,td { padding:8px 14px; border-top:1px solid var(--line); vertical-align:top; } tr:first-child th { border-top:0; }
td.n,th.n { text-align:right; font-variant-numeric:tabular-nums; } .mark { font-weight:700; width:28px; }
.ok { color:var(--good); } .no { color:var(--bad); }
code { background:var(--code); border-radius:4px; padding:1px 5px;
  font:12.5px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace; } .name { font-weight:600; overflow-wrap:anywhere; }
.fault { border-left:4px solid var(--bad); padding:14px 18px; margin:12px 0; } .fault p { margin:6px 0; }
details { margin-top:10px; } summary { cursor:pointer; color:var(--live); } .ids { overflow-wrap:anywhere; }
.bar { display:inline-block; width:110px; height:9px; border-radius:5px; background:var(--line); margin-right:8px; }
.bar i { display:block; height:100%; border-radius:5px; background:var(--live); }
footer { margin-top:40px; font-size:13px; }
"""


def write_docs(
    folder: Path,
    artifact: str,
    findings: Sequence[Finding],
    found: pd.DataFrame,
    synthetic: bool,
    what: str = "",
) -> Path:
    """Writes folder/index.html, and returns its path.

    found: the counts to show beside the expectations; columns ending in `fraction` become bars.
    what: one sentence on the artifact. The page bears the time it was written.
    """
    failed = [finding for finding in findings if not finding.success]
    tag = '<span class="badge synthetic">synthetic data</span>' if synthetic else ""
    state = f"{len(failed)} failed" if failed else "all met"
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>data/{artifact}: {state}</title>
<style>{STYLE}</style></head><body><main>
<header><h1>data/{artifact}</h1><span class="badge {"failed" if failed else "met"}">{state}</span>{tag}</header>
<p class="soft">{escape(what)}</p>
<div class="tiles">{_tile(len(findings), "expectations")}{_tile(len(findings) - len(failed), "met")}\
{_tile(len(failed), "failed")}</div>
{"<h2>What failed</h2>" if failed else ""}{"".join(map(_fault, failed))}
<h2>What was found</h2><div class="card">{_table(found)}</div>
<h2>Expectations</h2><div class="card"><table><tr><th></th><th>Expected</th><th>Observed</th>
<th>Great Expectations</th></tr>{"".join(map(_line, findings))}</table></div>
<footer class="soft">Data Docs of <code>check@{artifact}</code>, judged by Great Expectations
{version("great-expectations")} at {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}. The verdict that the graph
depends on is <code>../verdict.json</code>; every offending id is in <code>../report.json</code>.</footer>
</main></body></html>
"""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def _tile(count: int, name: str) -> str:
    return f'<div class="tile"><b>{count}</b><span class="soft">{name}</span></div>'


def _line(finding: Finding) -> str:
    gate = finding.gate
    mark = (
        '<td class="mark ok">&#10003;</td>'
        if finding.success
        else '<td class="mark no">&#10007;</td>'
    )
    return (
        f'<tr>{mark}<td><span class="name">{escape(gate.name)}</span><br>{escape(gate.expected)}</td>'
        f"<td>{escape(finding.observed)}</td><td>{_call(finding)}</td></tr>"
    )


def _call(finding: Finding) -> str:
    """The expectation as Great Expectations has it: its kind, the table and its arguments."""
    gate = finding.gate
    shown = {
        key: value
        for key, value in gate.arguments.items()
        if key not in ("column_set", "exact_match")
    }
    arguments = ", ".join(f"{key}={value!r}" for key, value in shown.items())
    place = escape(f"{gate.table}: {arguments}".rstrip(": "))
    return f'<code>{escape(gate.expectation)}</code><br><span class="soft">{place}</span>'


def _fault(finding: Finding) -> str:
    gate, rows = finding.gate, finding.rows[:ROWS]
    listed = "".join(
        f"<tr><td>{escape(str(r['what']))}</td><td>{escape(str(r['value']))}</td></tr>"
        for r in rows
    )
    more = f" (first {ROWS})" if len(finding.rows) > ROWS else ""
    column = escape(str(gate.arguments.get("column", "")))
    table = (
        f"<details><summary>All {len(finding.rows)} offending{more}</summary>"
        f"<table><tr><th>What</th><th>{column}</th></tr>{listed}</table></details>"
    )
    images = f'<p class="ids"><b>Images ({len(finding.images)})</b>: {escape(", ".join(finding.images[:ROWS]))}</p>'
    return (
        f'<div class="card fault"><p class="name no">{escape(gate.name)}</p>'
        f"<p><b>Expected</b>: {escape(gate.expected)}</p>"
        f"<p><b>Observed</b>: {escape(finding.observed)}</p>{images if finding.images else ''}"
        f"<p><b>To do</b>: {escape(gate.remedy)}</p>{table if rows else ''}</div>"
    )


def _table(found: pd.DataFrame) -> str:
    if found.empty:
        return '<p class="fault">Nothing was counted, since the tables themselves are not as expected.</p>'
    head = "".join(_head(str(column), found[column]) for column in found.columns)
    rows = (
        "".join(_cell(str(name), value) for name, value in row.items())
        for row in found.to_dict("records")
    )
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _head(name: str, values: pd.Series) -> str:
    number = pd.api.types.is_numeric_dtype(values) and not name.endswith("fraction")
    return f"<th{' class=n' if number else ''}>{escape(name.replace('_', ' '))}</th>"


def _cell(name: str, value: object) -> str:
    if name.endswith("fraction") and isinstance(value, float):
        if pd.isna(value):
            return "<td>none</td>"
        return f'<td><span class="bar"><i style="width:{100 * value:.1f}%"></i></span>{100 * value:.1f}%</td>'
    if isinstance(value, int | float):
        return f'<td class="n">{value:,}</td>'
    return f"<td>{escape(str(value))}</td>"


def summary(found: pd.DataFrame) -> list[Mapping]:
    """The table `found` as JSON has it: missing values null, floats at 6 decimals."""
    rows = found.round(6).astype("object").where(found.notna(), None)
    return rows.to_dict("records")
