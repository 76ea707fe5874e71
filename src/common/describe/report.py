"""reports/data.md: what the data are, beside the paper's Table 1, its biological check and its
sample figures.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..figures.style import save_figures
from ..workspace.records import clean, read_json, write_json
from ..workspace.tables import (
    CLASS_NAMES,
    LABEL_NAMES,
    SPLIT_NAMES,
    VERDICT_NAMES,
    existing,
    read_images,
    read_table,
)
from ..workspace.words import interval, table
from .pi_area import area_figure, compare_areas, control, pi_areas

PAPER: dict[str, dict[str, object]] = {  # Table 1
    "no_treatment": {
        "fields": 339, "live and dead": 21_848, "live": 10_464, "dead": 11_384,
        "train": (8_680, 9_480), "valid": (891, 925), "test": (979, 893),
    },
    "doxo_paclitaxel": {
        "fields": 964, "live and dead": 56_632, "live": 5_081, "dead": 51_551,
        "train": (4_195, 42_966), "valid": (437, 4_314), "test": (449, 4_271),
    },
}  # fmt: skip
PAPER_THRESHOLDS = {"live_below": 258.97, "dead_above": 396.89}
FIGURES = {  # made by the stages that have what they show
    "label/fig2a_samples.png": "Live and dead patches beside their PI (the paper's Fig. 2a)",
    "filter/fig2b_barcodes.png": "Dropped and kept patches with their feature barcodes (Fig. 2b)",
}


def write_data_report(workspace: Path, partitions: Sequence[str], seed: int) -> Path:
    """Writes workspace/reports/data.md, and data/ beside it with the figure and data.json; returns
    the page's path.

    Reads data/ (raw, patches, filtered, labels, splits); links figures of reports/filter and
    reports/label. Raises MissingInput for a missing table.
    """
    data, folder = workspace / "data", workspace / "reports" / "data"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source = read_json(data / "raw" / "source.json")
    thresholds = read_json(data / "labels" / "thresholds.json")
    images = read_images(data / "raw", partitions)
    counts = count(data, images, partitions)
    areas = pi_areas(images, data / "raw", thresholds).assign(group=_groups(images, data))
    check = clean(compare_areas(areas, control(partitions, thresholds), seed))
    save_figures(folder, {"pi_area": area_figure(areas, check)}, source["synthetic"])
    record = {"synthetic": source["synthetic"], "counts": counts, "pi_area": check}
    write_json(folder / "data.json", record)
    page = workspace / "reports" / "data.md"
    page.write_text(_page(source, counts, thresholds, check))
    return page


def count(data: Path, images: pd.DataFrame, partitions: Sequence[str]) -> dict[str, dict]:
    """Counts of every step by partition: fields, windows, verdicts, labels, and live and dead of
    each split or fold.
    """
    windows = read_table(data / "patches" / "patches.parquet", partitions)
    verdicts = read_table(data / "filtered" / "verdicts.parquet", partitions)
    labels = read_table(data / "labels" / "labels.parquet", partitions)
    splits = read_table(data / "splits" / "splits.parquet", partitions)
    folds = "fold " + splits["fold"].astype("str")
    splits["part"] = splits["split"].where(splits["fold"] < 0, folds)
    tables = {"images": images, "windows": windows, "verdicts": verdicts, "labels": labels,
              "splits": splits}  # fmt: skip
    by_partition = {}
    for partition in partitions:
        mine = {name: table[table["partition"] == partition] for name, table in tables.items()}
        label = mine["labels"]["label"].value_counts()
        verdict = mine["verdicts"]["verdict"].value_counts()
        parts = pd.crosstab(mine["splits"]["part"], mine["splits"]["label"]).reindex(
            columns=list(CLASS_NAMES), fill_value=0
        )
        order = [name for name in SPLIT_NAMES if name in parts.index] or sorted(
            parts.index, key=lambda name: int(name.split()[1])
        )
        by_partition[partition] = {
            "fields": len(mine["images"]), "windows": len(mine["windows"]),
            **{name: int(verdict.get(name, 0)) for name in VERDICT_NAMES},
            "live and dead": int(label.get("live", 0) + label.get("dead", 0)),
            **{name: int(label.get(name, 0)) for name in LABEL_NAMES},
            **{name: tuple(int(n) for n in parts.loc[name]) for name in order},
        }  # fmt: skip
    return by_partition


def _groups(images: pd.DataFrame, data: Path) -> list[str]:
    """The group of each field as data/splits has it; a field without labelled patches is one of its
    own.
    """
    frames = pd.read_parquet(existing(data / "splits" / "frames.parquet"))
    groups = frames.set_index("image_id")["group"]
    return images["image_id"].map(groups).fillna(images["image_id"]).tolist()


def _page(source: Mapping, counts: Mapping, thresholds: Mapping, check: Mapping) -> str:
    synthetic = source["synthetic"]
    kind = "**Synthetic data** (a simulated plate)" if synthetic else f"Source: {source['source']}"
    built = " The simulated plate is built that way." if synthetic and len(counts) > 1 else ""
    sections = {
        "# The data": [
            f"{kind}. The paper's numbers are of its own plates (Pattarone et al. 2021)."
        ],
        "## Counts beside the paper's": [*_counts_table(counts), *_notes(counts)],
        "## Thresholds": _thresholds_table(thresholds),
        "## PI-positive area, treated and control": [
            *_area_lines(check, thresholds, built), "", "![PI-positive area](data/pi_area.png)",
        ],
        **{f"## {title}": [f"![{title}]({name})"] for name, title in FIGURES.items()},
    }  # fmt: skip
    return "\n".join(
        line for heading, lines in sections.items() for line in (heading, "", *lines, "")
    )


def _counts_table(counts: Mapping) -> list[str]:
    sides = [side for p, own in counts.items() for side in ((p, own), ("paper", PAPER.get(p)))]
    sides = [(title, side) for title, side in sides if side]
    rows = list(dict.fromkeys(name for own in counts.values() for name in own))
    lines = []
    for name in rows:
        pair = any(isinstance(own.get(name), tuple) for own in counts.values())
        title = f"{name}, live / dead" if pair else name
        lines.append([title, *(_cell(side.get(name)) for _, side in sides)])
    shares = [side["live"] / max(side["live and dead"], 1) for _, side in sides]
    lines.append(["live fraction", *(f"{share:.3f}" for share in shares)])
    return table(["", *(title for title, _ in sides)], lines, "---:")


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return " / ".join(f"{part:,}" for part in value)
    return "" if value is None else f"{value:,}"


def _notes(counts: Mapping) -> list[str]:
    notes = []
    if set(counts) & set(PAPER):
        notes.append(
            "The paper's `patches` are its live and dead ones: "
            "the discarded middle is not among them."
        )
    if "no_treatment" in counts:
        notes.append(
            "Its split columns of `no_treatment` add up to 10,550 live and 11,298 dead, "
            "not to its totals."
        )
    return ["", *notes] if notes else []


def _thresholds_table(thresholds: Mapping) -> list[str]:
    fit_on = thresholds["fit_on"]
    fitted = fit_on if isinstance(fit_on, str) else ", ".join(fit_on)
    lines = [f"In {thresholds['unit']}, fitted on {fitted}.", ""]
    rows = []
    for name, paper in PAPER_THRESHOLDS.items():
        told = interval(thresholds["interval_95"][name], ".6g")
        rows.append([name, f"{thresholds[name]:.6g}", told, str(paper)])
    return lines + table(["", "here", "95% interval", "paper (counts)"], rows, "---:")


def _area_lines(check: Mapping, thresholds: Mapping, built: str) -> list[str]:
    above = f"{thresholds['dead_above']:.6g} counts (dead_above)"
    if thresholds["intensity"] == "background_ratio":
        above = "twice its field's 5th percentile"
    lines = [f"Share of pixels whose PI is above {above}; intervals by a bootstrap over groups."]
    if len(check["partitions"]) == 1:
        lines.append("One partition: there is no control to compare it with.")
    heads = ["partition", "fields", "groups", "PI-positive area", "95% interval"]
    rows = []
    for name, area in check["partitions"].items():
        change = f"{100 * area['difference']:+.1f} points" if "difference" in area else ""
        sizes = [name, str(area["fields"]), str(area["groups"]), f"{100 * area['share']:.1f}%"]
        against = [change, _range(area.get("difference_interval_95"))]
        rows.append([*sizes, _range(area["interval_95"]), *against])
    shown = table([*heads, "against control", "95% interval"], rows, "---:")
    others = [(name, area) for name, area in check["partitions"].items() if "difference" in area]
    return [*lines, "", *shown, "", *(_verdict(name, area) + built for name, area in others)]


def _verdict(name: str, area: Mapping) -> str:
    """One sentence on one treated partition, no stronger than its interval."""
    low, high = area["difference_interval_95"] or (-1, 1)
    if low > 0:
        return f"The area is higher under `{name}` than in the control, as the paper found."
    if high < 0:
        return (
            f"The area is lower under `{name}` than in the control, unlike in the paper: "
            "check stain and labels."
        )
    return f"The interval for `{name}` includes no difference: these fields do not decide."


def _range(bounds: Sequence[float] | None) -> str:
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}" if bounds else ""
