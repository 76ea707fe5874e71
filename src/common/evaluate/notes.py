"""What is said of an evaluation: how its numbers came about, and the main ones for the terminal."""

from ..metrics.intervals import few_groups
from ..workspace.sections import Evaluate
from ..workspace.words import interval, number
from .baselines import BASELINE_WINDOWS

BAND = {
    "patch": "The promise is for further patches of the same plates; a new session may break it",
    "group": "Groups weigh the same and a new one's share counts as missed (Lee, Barber and "
    "Willett 2023): the promise is for the patches of one more group, and costs calls; "
    "conformal.groups has each group's outcome",
}


NUCLEI = (
    "nuclei: of the masks, live or dead by their own PI, the rest open; called by predicted PI, "
    "size and shape, with weights, threshold and band that the nuclei of other groups taught; "
    "predicted_pi_alone ranks them without size and shape"
)


def notes(settings: Evaluate, scheme: str, groups: int, masked: bool = False) -> list[str]:
    """What a reader must know of how the numbers came about."""
    percent = f"{settings.confidence:.0%}"
    lines = [
        "live is the positive class: sensitivity is the recall of live, specificity the recall of "
        "dead",
        "operating threshold: the highest balanced accuracy on validation within the abstain band, "
        "the one nearest to 0.5 among equals; confusion matrix and balanced accuracy are of the "
        "forced call at it, no patch left out",
        "validation chooses epoch, temperature, threshold and band; test patches none of them",
        f"patch_interval: {percent}, patches taken as independent; value +- z sqrt(value (1 - "
        "value) / n) as in the paper for balanced accuracy, Wilson's for sensitivity, specificity "
        "and accuracy, else a percentile bootstrap",
        f"group_interval: {percent}, percentile bootstrap of {groups} whole groups, "
        f"{settings.bootstrap} resamples, expanded for few groups (Hesterberg 2015); n/a where all "
        "resamples agree; how training and the choice of a threshold vary is not in it",
        "probability: of a patch where live and dead are equally frequent, as training draws them, "
        "since a plate's own frequencies are what is asked; where they are unequal, mean "
        "probability and live fraction differ (ECE), and equal_classes has ECE and Brier score "
        "with both classes weighted the same",
        "temperature: minimises the cross entropy on validation, truth smoothed as by Platt; ECE: "
        "of the live probability, equal bins; AUC and average precision rank by logit / "
        "temperature, which probability rounds",
        f"conformal: class-conditional split-conformal sets at error {settings.abstain_error}; a "
        f"set of none or both classes abstains. {BAND[settings.band]}",
        "experiment_only: in_sample scores a patch by its experiment's live share, the patch "
        "included, and errs high; leave_one_out without the patch, which puts an experiment's live "
        "patches below its dead ones, and errs low",
        "acquisition: a linear model on the bits, median and contrast of the whole bright-field "
        "frame, which shows no single cell: what it reaches, a model can reach by the session",
        f"linear baselines: logistic regression on at most {BASELINE_WINDOWS} training windows, "
        "regularised, calibrated and called by validation, as the model is",
        "cross_partition: without groups that the model trained or validated on",
        "cell density: by the share of the window that is textured beyond its noise, a stand-in: "
        "no cells are counted",
    ]
    lines += [NUCLEI] if masked else []
    if warning := few_groups(groups):
        lines.append(warning)
    if scheme == "kfold":
        lines.append(
            "kfold: each round's model scores its own test fold at the operating point of all "
            "other folds' scores (see `rounds`), and the scores are pooled; threshold, "
            "temperature, live_from and dead_to in the record are the final model's, fitted on the "
            "pooled scores; that model trains on every fold, for the median of the epochs that the "
            "folds kept, and is scored on nothing but other partitions"
        )
    return lines


def main_figures(record: dict) -> list[str]:
    """The record in a few lines for the terminal."""
    data, name = record["data"], record["partition"]
    kind = "synthetic" if record["synthetic"] else "real"
    sizes = f"{data['n_patches']} test patches ({kind} data), {data['n_groups']} groups"
    lines = [f"evaluate@{name}: {sizes}"]
    for metric in ("balanced_accuracy", "auc"):
        value = record["overall"][metric]
        over = interval(value["group_interval"])
        lines.append(f"  {metric}: {number(value['value'])}, {over} over groups")
    within = (record["within_experiment"] or {}).get("pair_weighted", {}).get("value")
    probe = (record["baselines"]["linear_probe"] or {}).get("auc", {}).get("value")
    lines.append(f"  auc within experiments: {number(within)}")
    lines.append(f"  auc of a linear probe, all pooled: {number(probe)}")
    if "overall" in (nuclei := record.get("nuclei") or {}):
        value = nuclei["overall"]["auc"]
        within = (nuclei["within_experiment"] or {}).get("mean", {}).get("value")
        over = interval(value["group_interval"])
        lines.append(f"  auc of nuclei: {number(value['value'])}, {over} over groups")
        lines.append(f"  auc of nuclei within experiments: {number(within)}, their mean")
    return lines
