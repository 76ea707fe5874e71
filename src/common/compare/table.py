"""The comparison as a Markdown document."""

from collections.abc import Sequence

from ..workspace import words
from ..workspace.words import interval, number, with_interval
from .rows import PAPER_RESULTS, rows

HEADINGS = [
    "partition", "model", "weights", "data", "patches (groups)", "balanced accuracy",
    "95% over patches", "95% over groups", "AUC", "AUC over groups", "AUC within experiments",
    "Pearson r, mean PI",
]  # fmt: skip
# With their intervals over groups
MORE = ["average_precision", "f1", "mcc", "sensitivity", "specificity"]


def markdown(records: dict[str, dict], gains: Sequence[dict] = ()) -> str:
    """The comparison as a Markdown document; synthetic data are called so in every row.

    gains: further rows, of pretrained against random first weights.
    """
    table = [*rows(records), *gains]
    lines = ["# Models beside each other and beside the paper", ""]
    if any(row["synthetic"] for row in table):
        lines += [
            "**Rows marked `synthetic` are of simulated images: they show that the pipeline works, "
            "not how well cells are told apart, and cannot be set against the paper's.**",
            "",
        ]
    lines += words.table(HEADINGS, map(cells, table))
    return "\n".join([*lines, "", *_more(records), *_cross(records), *_notes(records)]) + "\n"


def cells(row: dict) -> list[str]:
    """A row's texts in the order of HEADINGS; what it does not have is a dash."""
    get = row.get
    count = f"{get('n_patches'):,}" + (f" ({get('n_groups')})" if get("n_groups") else "")
    data = "synthetic" if get("synthetic") else "real"
    texts = [get("partition"), get("model"), get("weights"), data, count]
    values = [
        number(get("balanced_accuracy")), interval(get("balanced_accuracy_patch_interval")),
        interval(get("balanced_accuracy_group_interval")), number(get("auc")),
        interval(get("auc_group_interval")),
        with_interval(get("auc_within_experiments"), get("auc_within_experiments_group_interval")),
        with_interval(get("pearson"), get("pearson_group_interval")),
    ]  # fmt: skip
    return [str(text or "-").replace("n/a", "-") for text in texts + values]


def _more(records: dict[str, dict]) -> list[str]:
    """What else was measured of every model, its calibration and its abstentions."""
    titles = ["average precision", "F1", "MCC", "sensitivity", "specificity", "Spearman r, mean PI",
              "ECE", "Brier", "abstained", "error among called", "coverage"]  # fmt: skip
    rows = []
    for name, record in records.items():
        measures = [record["overall"][metric] for metric in MORE]
        measures.append(record["correlation"]["mean_pi"]["spearman"])
        calibration, conformal = record["calibration"], record["conformal"]
        plain = [calibration["ece"]["after"], calibration["brier"]["after"]]
        plain += [conformal[key] for key in ("abstention", "error_among_called", "coverage")]
        texts = [_marked(name, record)]
        texts += [with_interval(each["value"], each["group_interval"]) for each in measures]
        texts += map(number, plain)
        rows.append(texts)
    heading = "## More of each model (95% over groups)"
    return [heading, "", *words.table(["model", *titles], rows), ""]


def _cross(records: dict[str, dict]) -> list[str]:
    """AUC of every model on every partition's test split, where there is more than one."""
    crossed = {name: record for name, record in records.items() if record["cross_partition"]}
    if not crossed:
        return []
    partitions = list(
        dict.fromkeys(p for r in crossed.values() for p in (r["partition"], *r["cross_partition"]))
    )
    rows = []
    for name, record in crossed.items():
        tested = {record["partition"]: record, **record["cross_partition"]}
        scores = [tested.get(p, {}).get("overall") for p in partitions]
        texts = [
            f"{number(s['auc']['value'])} ({number(s['balanced_accuracy']['value'])})" if s else "-"
            for s in scores
        ]
        rows.append([_marked(name, record), *texts])
    heading = "## AUC (balanced accuracy) of each model on each test split"
    return [heading, "", *words.table(["model", *partitions], rows), ""]


def _marked(name: str, record: dict) -> str:
    return f"{name}, synthetic" if record["synthetic"] else name


def _notes(records: dict[str, dict]) -> list[str]:
    """The records' own notes, each once, and those on the paper's rows."""
    own = dict.fromkeys(note for record in records.values() for note in record["notes"])
    paper = [
        "paper: Pattarone et al., Sci Rep 11:10304 (2021), Inception-v3, the best of its three "
        "architectures; its interval takes overlapping patches of one image as independent; its "
        "cells, microscope and images are not ours"
    ]
    beside = any(record["partition"] in PAPER_RESULTS for record in records.values())
    return [
        "## How the numbers came about",
        "",
        *(f"- {note}" for note in [*own, *(paper if beside else [])]),
    ]
