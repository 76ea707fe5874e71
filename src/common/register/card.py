"""The model card, written as the description of a registered version: data, results, contract,
limits, decision.
"""

from ..workspace.records import dig
from ..workspace.words import interval, number, table

DECISION = "### Decision"
# Titles of what not every record has, and where it lies there
MORE = {
    "AUC within experiments": ("within_experiment", "pair_weighted"),
    "AUC of the baseline: experiment only": ("baselines", "experiment_only", "in_sample", "auc"),
    "AUC of the baseline: acquisition": ("baselines", "acquisition", "auc"),
    "AUC of the baseline: texture": ("baselines", "texture_linear", "auc"),
    "AUC of the baseline: linear probe": ("baselines", "linear_probe", "auc"),
    "AUC of nuclei in masks": ("nuclei", "overall", "auc"),
    "AUC of nuclei within experiments, mean": ("nuclei", "within_experiment", "mean"),
}


def card(model: dict, record: dict, contract: dict, digests: dict[str, str]) -> str:
    """The card without its decision, in Markdown.

    model: models/PARTITION/model.json; record: metrics/evaluate/PARTITION.json; contract: the
    package's contract.json; digests: DVC's, of the folders of data/.
    """
    sections = (
        _head(model),
        _data(model, record, digests),
        _results(model, record),
        _contract(contract),
        _limits(model),
    )
    return "\n\n".join(sections)


def with_decision(text: str, decision: str) -> str:
    """The card with its last section replaced."""
    return f"{text.partition(DECISION)[0].rstrip()}\n\n{DECISION}\n{decision}\n"


def _head(model: dict) -> str:
    kind = (
        "**Trained on SYNTHETIC images: not for real plates.**"
        if model["synthetic"]
        else "Trained on real images."
    )
    what = f"`{model['arch']}`, partition `{model['partition']}`"
    return f"{kind}\n\nCalls patches of bright-field images live or dead: {what}."


def _data(model: dict, record: dict, digests: dict[str, str]) -> str:
    data, kind = record["data"], "synthetic" if model["synthetic"] else "real"
    marks = ", ".join(f"{name} `{digests[name][:12]}`" for name in _FOLDERS if name in digests)
    recipe = model["params"] | {"pooling": model["pooling"]}
    told = _HEAD if recipe.get("layers") == "head" else _RECIPE
    weights = f"{model['weights']['weights']} ({model['weights']['origin']})"
    return "\n".join([
        "### Data and training",
        f"- source `{model['source']}` ({kind}); {model['patches']['live']} live and "
        f"{model['patches']['dead']} dead labelled patches of {model['groups']} groups; labels "
        "from the PI stain",
        f"- digests: {marks or 'not known'}; model `{model['digest'][:12]}`; test split "
        f"`{data['digest'][:12]}`",
        f"- first weights: {weights}",
        f"- recipe: {', '.join(f'{name} {recipe[name]}' for name in told if name in recipe)}",
    ])  # fmt: skip


_FOLDERS = ("raw", "patches", "labels", "splits")
_RECIPE = ("layers", "epochs", "optimizer", "lr", "batch_size", "schedule", "seed")
_HEAD = ("layers", "pooling", "C")  # what a head trained alone depends on


def _results(model: dict, record: dict) -> str:
    data, overall = record["data"], record["overall"]
    rows = [("balanced accuracy", overall["balanced_accuracy"]), ("AUC", overall["auc"])]
    rows += [(title, dig(record, *place)) for title, place in MORE.items()]
    told = [
        (title, number(metric["value"]), interval(metric.get("group_interval")))
        for title, metric in rows
        if metric
    ]
    brier = record["calibration"]["brier"]["after"]
    return "\n".join([
        "### Results",
        f"{data['n_patches']} test patches of {data['n_groups']} groups ({_scheme(model)}); "
        "intervals over groups.",
        "",
        *table(["", "value", "interval"], [*told, ("Brier score", number(brier), "")]),
    ])  # fmt: skip


def _contract(contract: dict) -> str:
    tile, at, label = contract["tile"], contract["operating"], contract["label"]
    band = sorted((at["dead_to"], at["live_from"]))
    pixel = contract["pixel_size_um"]
    size = f"{pixel} um per pixel" if pixel else "pixel size not known"
    return "\n".join([
        "### Contract",
        f"- one bright-field channel, {'/'.join(map(str, contract['bits']))} bit, {size}",
        f"- windows of {tile['window']:g} {tile['unit']}, stride {tile['stride']:g}; 16 to 8 bit "
        f"by {contract['scaling']['method']} {contract['scaling']['low']:g} to "
        f"{contract['scaling']['high']:g}",
        f"- live from {at['threshold']:.3f}; abstains between {band[0]:.3f} and {band[1]:.3f}; "
        f"temperature {at['temperature']:.3f}",
        f"- stain thresholds of the labels: live below {label['live_below']:.4g}, dead above "
        f"{label['dead_above']:.4g} ({label['intensity']})",
    ])  # fmt: skip


def _limits(model: dict) -> str:
    lines = [
        "### Intended use and limits",
        "- for research, not for diagnosis; yields the live-patch fraction, not cell viability",
        "- for plates like those of training: cell line, microscope, magnification, treatment; "
        "others need `unstained validate` against a stain first",
    ]
    if model["scheme"] != "holdout":
        lines.append(
            "- the results are those of the folds' models; the registered model is trained on all "
            "groups"
        )
    return "\n".join(lines)


def _scheme(model: dict) -> str:
    return (
        "held-out groups"
        if model["scheme"] == "holdout"
        else "out-of-fold scores of the folds' models"
    )
