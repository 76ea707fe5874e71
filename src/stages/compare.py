"""Sets the partitions' models beside each other, their baselines and the paper's tables.

Reads metrics/evaluate; writes metrics/compare.json and reports/compare.md.
"""

import json
import sys

from ..common.params import load
from ..common.paths import METRICS, REPORTS

PAPER = {  # Inception-v3, the best of the paper's three (Results; intervals over patches)
    "no_treatment": {"balanced_accuracy": (0.866, 0.851, 0.881), "auc": (0.941,), "pearson": (-0.705,)},
    "doxo_paclitaxel": {"balanced_accuracy": (0.923, 0.916, 0.930), "auc": (0.978,), "pearson": (-0.281,)},
}
NOTES = """\
Intervals in round brackets are 95% bootstraps over groups (fields of view, or what split.group_by names); in square
brackets those over patches, as in the paper, which take overlapping patches for independent and so are too narrow.
*Texture* is a linear model on simple intensity and texture features, *linear probe* one on the frozen backbone, both
trained and tested on the same patches. *Experiment alone* scores each patch by its experiment's share of live patches,
without a look at any pixel: where it is high, the pooled AUC rewards knowing the batch, and the AUC within experiments
is the one to read."""

SYNTHETIC = """\
**The data are SYNTHETIC**: a simulated plate tests the machinery and says nothing about real cells; the paper's numbers
stand beside them for their scale alone.

"""


def records(partitions: list[str]) -> dict[str, dict]:
    """The evaluation records of the partitions now in params; names the others as ignored."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted((METRICS / "evaluate").glob("*.json"))}
    if lacking := [name for name in partitions if name not in found]:
        sys.exit(f"error: no metrics/evaluate/{lacking[0]}.json: run `dvc repro evaluate@{lacking[0]}`")
    if ignored := sorted(set(found) - set(partitions)):
        print(f"compare: ignoring {', '.join(ignored)}, not in dataset.partitions")
    return {name: found[name] for name in partitions}


def digest(record: dict) -> dict:
    """What is compared of one record."""
    baselines, within = record["baselines"], record["within_experiment"] or {}
    only = (baselines["experiment_only"] or {}).get("in_sample", {})
    return {
        "arch": record["model"]["arch"],
        "weights": record["model"]["weights"],
        "synthetic": record["synthetic"],
        "patches": record["data"]["n_patches"],
        "groups": record["data"]["n_groups"],
        "balanced_accuracy": record["overall"]["balanced_accuracy"],
        "auc": record["overall"]["auc"],
        "auc_within_experiments": within.get("pair_weighted"),
        "pearson_mean_pi": record["correlation"]["mean_pi"]["pearson"],
        "baseline_auc": {
            "texture": (baselines["texture_linear"] or {}).get("auc"),
            "linear_probe": (baselines["linear_probe"] or {}).get("auc"),
            "experiment_alone": only.get("auc"),
        },
    }


def cell(value: dict | None, patches: bool = False) -> str:
    """A number with its intervals, as in the notes."""
    if value is None or value.get("value") is None:
        return "n/a"
    text = f"{value['value']:.3f}"
    if group := value.get("group_interval"):
        text += f" ({group[0]:.3f} to {group[1]:.3f})"
    if patches and (own := value.get("patch_interval")):
        text += f" [{own[0]:.3f} to {own[1]:.3f}]"
    return text


def paper_cell(values: tuple[float, ...] | None) -> str:
    """The paper's number with its interval over patches, if it gives one."""
    if not values:
        return "-"
    return f"{values[0]:.3f}" + (f" [{values[1]:.3f} to {values[2]:.3f}]" if len(values) == 3 else "")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join(["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows)])


def models_table(found: dict[str, dict]) -> str:
    """The models beside the paper's."""
    head = ["partition", "data", "backbone", "weights", "test patches / groups", "balanced accuracy", "AUC"]
    head += ["AUC within experiments", "Pearson r, mean PI and live score"]
    rows = []
    for name, one in found.items():
        kind = "SYNTHETIC" if one["synthetic"] else "real"
        size = f"{one['patches']} / {one['groups']}"
        values = [cell(one["balanced_accuracy"], True), cell(one["auc"], True), cell(one["auc_within_experiments"])]
        rows.append([name, kind, one["arch"], one["weights"], size, *values, cell(one["pearson_mean_pi"])])
        if paper := PAPER.get(name):
            patches = {"no_treatment": "1872 / -", "doxo_paclitaxel": "4720 / -"}[name]
            numbers = [paper_cell(paper[key]) for key in ("balanced_accuracy", "auc")]
            rows.append([f"{name}, the paper", "real, JIMT-1", "inception_v3", "imagenet", patches, *numbers, "-",
                         paper_cell(paper["pearson"])])  # fmt: skip
    return table(head, rows)


def baselines_table(found: dict[str, dict]) -> str:
    """Each model's AUC beside its baselines'."""
    kinds = ("texture", "linear_probe", "experiment_alone")
    rows = [[n, cell(one["auc"]), *(cell(one["baseline_auc"][kind]) for kind in kinds)] for n, one in found.items()]
    return table(["partition", "model AUC", "texture", "linear probe", "experiment alone"], rows)


def main() -> dict:
    """Runs the stage; returns the content of metrics/compare.json."""
    found = {name: digest(record) for name, record in records(load("dataset").partitions).items()}
    synthetic = [name for name, one in found.items() if one["synthetic"]]
    text = "# Models compared\n\n" + (SYNTHETIC if synthetic else "") + models_table(found)
    text += "\n\n## Baselines (AUC)\n\n" + baselines_table(found) + "\n\n" + NOTES + "\n"
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "compare.md").write_text(text)
    METRICS.mkdir(exist_ok=True)
    (METRICS / "compare.json").write_text(json.dumps(found, indent=2) + "\n")
    print(f"compare: {', '.join(found)} in reports/compare.md")
    return found


if __name__ == "__main__":
    main()
