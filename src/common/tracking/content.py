"""What a run shows in MLflow: the few parameters and metrics that people compare, and a note that
says what it is.

Everything else stays in the artifacts (evaluate/record.json, explain/explain.json,
train/history.csv). Parameters are named as `dvc exp run -S` takes them; metrics of the test split
come first in the alphabet: test/, train/, valid/.
"""

from collections.abc import Sequence

from ..workspace.records import dig
from ..workspace.words import interval, number, table

# Of the machine: they stay in model/model.json
LEFT_OUT = {"precision", "devices", "nodes", "strategy", "workers"}
# What of the data's parameters changes the patches or the labels
OF_THE_DATA = {
    "dataset": ["source"],
    "tile": ["window", "stride"],
    "label": ["intensity", "log"],
    "split": ["scheme", "seed"],
}
COMPARED = ("balanced_accuracy", "auc")  # with their intervals


def parameters(model: dict, sections: dict[str, dict]) -> dict[str, str]:
    """The parameters of a training run: the recipe, and of the data what changes the patches or the
    labels.

    model: models/PARTITION/model.json; sections: dataset, tile, label and split of params.yaml, as
    dictionaries.
    """
    recipe = {
        f"train.{key}": value for key, value in model["params"].items() if key not in LEFT_OUT
    }
    values = {"model.arch": model["arch"], "model.weights": model["weights"]["weights"]} | recipe
    values["model.pooling"] = model["pooling"]
    for section, keys in OF_THE_DATA.items():
        values |= {f"{section}.{key}": sections[section][key] for key in keys}
    return {key: str(value) for key, value in values.items()}


def epoch(round_name: str, row: dict[str, float]) -> dict[str, float]:
    """An epoch's metrics; of a fold only its validation AUC, so that five folds do not fill the
    page.
    """
    known = {name.replace("_", "/", 1): value for name, value in row.items() if value == value}
    if "lr" in known:
        known["train/lr"] = known.pop("lr")
    if round_name in ("holdout", "final"):
        return known
    return {f"valid/auc_{round_name}": known["valid/auc"]} if "valid/auc" in known else {}


def evaluation(record: dict) -> dict[str, float]:
    """The test metrics of an evaluation record; what is not known is left out."""
    overall = record["overall"]
    metrics = {
        f"test/{name}": overall[name]["value"] for name in (*COMPARED, "average_precision", "mcc")
    }
    for name in COMPARED:
        low, high = overall[name]["group_interval"] or (None, None)
        metrics |= {f"test/{name}_low": low, f"test/{name}_high": high}
    within = dig(record, "within_experiment", "pair_weighted", "value")
    metrics["test/auc_within_experiments"] = within
    metrics["test/nuclei_auc"] = dig(record, "nuclei", "overall", "auc", "value")
    within = dig(record, "nuclei", "within_experiment", "mean", "value")
    metrics["test/nuclei_auc_within_experiments"] = within
    metrics["test/brier"] = record["calibration"]["brier"]["after"]
    metrics["test/ece"] = record["calibration"]["ece"]["after"]
    metrics["test/share_abstained"] = record["conformal"]["abstention"]
    metrics["test/groups"] = record["data"]["n_groups"]
    return {key: float(value) for key, value in metrics.items() if value is not None}


def explanation(record: dict) -> dict[str, float]:
    """The two numbers of an explanation that tell models apart."""
    metrics = {
        "test/purity": dig(record, "embedding", "purity", "features", "other_groups", "purity"),
        "test/cam_iou_gain": dig(record, "agreement", "dead_map", "iou", "gain"),
    }
    return {key: float(value) for key, value in metrics.items() if value is not None}


def note(model: dict, record: dict | None, folders: Sequence[str]) -> str:
    """A run's note in Markdown: what was trained, on which data, how good it is, and where to look.

    record: metrics/evaluate/PARTITION.json, or None before evaluation; folders: of the run's
    artifacts.
    """
    kind = "**SYNTHETIC images**" if model["synthetic"] else "real images"
    weights = f"{model['weights']['weights']} weights ({model['weights']['origin']})"
    lines = [
        f"`{model['arch']}` from {weights}, {_trained(model['params'])} for partition "
        f"`{model['partition']}`.",
        f"Data: {kind} (source `{model['source']}`), {model['patches']['live']} live and "
        f"{model['patches']['dead']} dead patches of {model['groups']} groups, {model['scheme']}.",
        _figures(record) if record else "Not evaluated yet.",
        "Artifacts: "
        + ", ".join(f"`{name}` ({CONTENTS[name]})" for name in folders if name in CONTENTS)
        + ".",
        "For research, not for diagnosis.",
    ]
    return "\n\n".join(lines)


def _trained(params: dict) -> str:
    """What was trained: the whole network, or a classifier on one that stays as it was."""
    if params.get("layers") == "head":
        return "frozen, with a logistic regression trained on its features"
    if kept := params.get("frozen_stages"):
        return f"all layers trained but the first {kept} of its stages"
    return "all layers trained"


CONTENTS = {
    "model": "weights and record",
    "train": "history of epochs",
    "evaluate": "record, predictions, figures",
    "explain": "Grad-CAM, embedding maps, errors",
    "checks": "verdicts and reports of the gates",
}


def _figures(record: dict) -> str:
    """A small table of the key figures."""
    data, within = record["data"], dig(record, "within_experiment", "pair_weighted")
    rows = [
        ("balanced accuracy", record["overall"]["balanced_accuracy"]),
        ("AUC", record["overall"]["auc"]),
    ]
    rows += [("AUC within experiments", within)] if within else []
    of = f"test: {data['n_patches']} patches of {data['n_groups']} groups"
    told = [(name, number(m["value"]), interval(m["group_interval"])) for name, m in rows]
    return "\n".join(table([of, "value", "interval over groups"], told))
