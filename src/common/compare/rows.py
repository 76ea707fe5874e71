"""Evaluation records beside each other, their baselines and the paper's Inception-v3, as rows."""

# Pattarone et al. 2021, the best of its three architectures; the interval takes patches as
# independent
PAPER = {
    "kind": "paper",
    "model": "paper: Inception-v3, JIMT-1",
    "arch": "inception_v3",
    "weights": "imagenet",
    "synthetic": False,
}
PAPER_RESULTS = {
    "no_treatment": {
        "n_patches": 1872,
        "balanced_accuracy": 0.866,
        "balanced_accuracy_patch_interval": [0.851, 0.881],
        "auc": 0.941,
        "pearson": -0.705,
    },
    "doxo_paclitaxel": {
        "n_patches": 4720,
        "balanced_accuracy": 0.923,
        "balanced_accuracy_patch_interval": [0.916, 0.930],
        "auc": 0.978,
        "pearson": -0.281,
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
            table.append({"partition": partition} | PAPER | PAPER_RESULTS[partition])
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
    shown = ("balanced_accuracy", "auc", "auc_within_experiments")
    figures = {}
    for record in records.values():
        row = model_row("", record)
        brier = record["calibration"]["brier"]["after"]
        figures[record["partition"]] = {name: row[name] for name in shown} | {"brier": brier}
    return figures


def model_row(name: str, record: dict) -> dict:
    """The row of one model."""
    accuracy = record["overall"]["balanced_accuracy"]
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
        **_columns(record["overall"], "balanced_accuracy", "auc"),
        **_within(record["within_experiment"]),
        **_columns(record["correlation"]["mean_pi"], "pearson"),
    }


def baseline_rows(record: dict) -> list[dict]:
    """The rows of a record's baselines that could be had, in the keys of `model_row`."""
    shared, table = _shared(record), []
    for key, title in BASELINE_TITLES.items():
        if base := record["baselines"].get(key):  # not in records of earlier versions
            weights = record["model"]["weights"] if key == "linear_probe" else None
            own = {"kind": key, "model": title, "weights": weights}
            own |= _within(base["within_experiment"])
            table.append(shared | own | _columns(base, "balanced_accuracy", "auc"))
    if only := record["baselines"]["experiment_only"]:
        for key, how in (("in_sample", ""), ("leave_one_out", ", the patch left out")):
            title = f"baseline: the experiment's own live share{how}, no pixel seen"
            kind = "experiment_only" if key == "in_sample" else f"experiment_{key}"
            table.append(shared | {"kind": kind, "model": title} | _columns(only[key], "auc"))
    return table


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
    own = {
        "kind": "gain",
        "model": f"difference: {pretrained} less {random}",
        "weights": "pretrained less random",
    }
    return _shared(record) | own | _columns(gains, "balanced_accuracy", "auc")


def _shared(record: dict) -> dict:
    """The columns that rows beside a model have from it."""
    row = model_row("", record)
    return {key: row[key] for key in ("partition", "synthetic", "n_patches", "n_groups")}


def _columns(measures: dict[str, dict], *names: str) -> dict:
    """The columns of measures that have a value and an interval over groups."""
    columns = {}
    for name in names:
        columns[name] = measures[name]["value"]
        columns[f"{name}_group_interval"] = measures[name]["group_interval"]
    return columns


def _within(section: dict | None) -> dict:
    """Those of the AUC within experiments, None where no experiment is known."""
    unknown = {"value": None, "group_interval": None}
    measure = section["pair_weighted"] if section else unknown
    return _columns({"auc_within_experiments": measure}, "auc_within_experiments")
