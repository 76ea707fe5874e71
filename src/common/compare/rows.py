"""Evaluation records beside each other, their baselines and the paper's Inception-v3, as rows."""

# Pattarone et al. 2021, the best of its three architectures; the interval takes patches as
# independent
PAPER_RESULTS = {
    "no_treatment": {
        "value": 0.866,
        "interval": [0.851, 0.881],
        "auc": 0.941,
        "pearson": -0.705,
        "n": 1872,
    },
    "doxo_paclitaxel": {
        "value": 0.923,
        "interval": [0.916, 0.930],
        "auc": 0.978,
        "pearson": -0.281,
        "n": 4720,
    },
}
BASELINE_TITLES = {
    "linear_probe": "baseline: linear model on the frozen backbone",
    "texture_linear": "baseline: linear model on intensity and texture",
    "acquisition": "baseline: linear model on the frame's exposure, no cell seen",
}
# what models that differ in first weights alone have in common
SAME = [("model", "arch"), ("model", "pooling"), ("model", "recipe"), ("data", "digest")]


def rows(records: dict[str, dict]) -> list[dict]:
    """One row per model, after it its baselines, and after the last model of a partition the
    paper's result.

    records: name of a model (any) to its evaluation record. Values a row does not have are None.
    """
    table = []
    for partition in dict.fromkeys(record["partition"] for record in records.values()):
        own = {name: record for name, record in records.items() if record["partition"] == partition}
        for name, record in own.items():
            table += [model_row(name, record), *baseline_rows(record)]
        if partition in PAPER_RESULTS:
            table.append(paper_row(partition))
    return table


def by_partition(records: dict[str, dict]) -> dict[str, dict[str, dict]]:
    """The same rows as partition, then kind, to the other columns."""
    nested: dict = {}
    for row in rows(records):
        columns = {key: value for key, value in row.items() if key not in ("partition", "kind")}
        nested.setdefault(row["partition"], {})[row["kind"]] = columns
    return nested


def headline(records: dict[str, dict]) -> dict[str, dict]:
    """Of each partition's model the figures that tell models apart."""
    return {
        record["partition"]: {
            "balanced_accuracy": record["overall"]["balanced_accuracy"]["value"],
            "auc": record["overall"]["auc"]["value"],
            "auc_within_experiments": _within(record["within_experiment"]),
            "brier": record["calibration"]["brier"]["after"],
        }
        for record in records.values()
    }


def model_row(name: str, record: dict) -> dict:
    """The row of one model."""
    accuracy, auc = record["overall"]["balanced_accuracy"], record["overall"]["auc"]
    return {
        "partition": record["partition"],
        "kind": "model",
        "model": name,
        "arch": record["model"]["arch"],
        "weights": record["model"]["weights"],
        "synthetic": record["synthetic"],
        "n_patches": record["data"]["n_patches"],
        "n_groups": record["data"]["n_groups"],
        "balanced_accuracy": accuracy["value"],
        "balanced_accuracy_patch_interval": accuracy["patch_interval"],
        "balanced_accuracy_group_interval": accuracy["group_interval"],
        "auc": auc["value"],
        "auc_group_interval": auc["group_interval"],
        "auc_within_experiments": _within(record["within_experiment"]),
        "auc_within_experiments_group_interval": _within(
            record["within_experiment"], "group_interval"
        ),
        "pearson": record["correlation"]["mean_pi"]["pearson"]["value"],
        "pearson_group_interval": record["correlation"]["mean_pi"]["pearson"]["group_interval"],
    }


def baseline_rows(record: dict) -> list[dict]:
    """The rows of a record's baselines that could be had, in the keys of `model_row`."""
    shared = {
        key: model_row("", record)[key]
        for key in ("partition", "synthetic", "n_patches", "n_groups")
    }
    table = []
    for key, title in BASELINE_TITLES.items():
        if base := record["baselines"].get(key):  # not in records of earlier versions
            own = {
                "kind": key,
                "model": title,
                "weights": record["model"]["weights"] if key == "linear_probe" else None,
                "auc_within_experiments": _within(base["within_experiment"]),
                "auc_within_experiments_group_interval": _within(
                    base["within_experiment"], "group_interval"
                ),
            }
            for metric in ("balanced_accuracy", "auc"):
                own |= {
                    metric: base[metric]["value"],
                    f"{metric}_group_interval": base[metric]["group_interval"],
                }
            table.append(shared | own)
    if only := record["baselines"]["experiment_only"]:
        for key, how in (("in_sample", ""), ("leave_one_out", ", the patch left out")):
            title = f"baseline: the experiment's own live share{how}, no pixel seen"
            values = {
                "auc": only[key]["auc"]["value"],
                "auc_group_interval": only[key]["auc"]["group_interval"],
            }
            kind = "experiment_only" if key == "in_sample" else f"experiment_{key}"
            table.append(shared | {"kind": kind, "model": title} | values)
    return table


def paper_row(partition: str) -> dict:
    """The paper's result for a partition, in the keys of `model_row`."""
    paper = PAPER_RESULTS[partition]
    return {
        "partition": partition,
        "kind": "paper",
        "model": "paper: Inception-v3, JIMT-1",
        "arch": "inception_v3",
        "weights": "imagenet",
        "synthetic": False,
        "n_patches": paper["n"],
        "balanced_accuracy": paper["value"],
        "balanced_accuracy_patch_interval": paper["interval"],
        "auc": paper["auc"],
        "pearson": paper["pearson"],
    }


def differ_in_first_weights(records: dict[str, dict]) -> list[tuple[str, str]]:
    """Names of (pretrained, random) models that differ in their first weights alone.

    Architecture, pooling, recipe and test patches are the same.
    """
    random = [name for name, record in records.items() if record["model"]["weights"] == "random"]
    return [
        (name, other)
        for other in random
        for name, record in records.items()
        if name not in random and all(records[other][a].get(b) == record[a].get(b) for a, b in SAME)
    ]


def gain_row(record: dict, pretrained: str, random: str, gains: dict[str, dict]) -> dict:
    """The row of a pretrained model less the same one from random weights, in the keys of
    `model_row`.

    record: the pretrained model's; gains: metric to value and group_interval (see
    `paired.difference`).
    """
    row = {
        key: model_row("", record)[key]
        for key in ("partition", "synthetic", "n_patches", "n_groups")
    }
    row |= {
        "kind": "gain",
        "model": f"difference: {pretrained} less {random}",
        "weights": "pretrained less random",
    }
    for metric in ("balanced_accuracy", "auc"):
        row |= {
            metric: gains[metric]["value"],
            f"{metric}_group_interval": gains[metric]["group_interval"],
        }
    return row


def _within(section: dict | None, what: str = "value"):
    return section["pair_weighted"][what] if section else None
