"""Curves of an evaluation: ROC and precision-recall as figures, and the tables for `dvc plots`."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn import metrics as sk

from ..figures.style import GREY, LIVE_DEAD
from ..scoring.operating import calibrate
from ..workspace.errors import UserError
from ..workspace.words import interval, number
from .calibration import reliability

SIZE = (5.2, 4.9)  # inches


class OneClass(UserError):
    """A curve wants patches of both classes."""


def tables(test: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """roc (fpr, tpr, threshold), pr (recall, precision, threshold), confusion (actual, predicted)
    and reliability.
    """
    live = test["live"]
    words = np.where(test["called"], "live", "dead")
    called = pd.DataFrame({"actual": test["label"], "predicted": words})
    scores = {"before": calibrate(test["logit"], 1.0), "after": test["probability"].to_numpy()}
    reliable = [
        pd.DataFrame(reliability(score, live.to_numpy())).assign(calibrated=when)
        for when, score in scores.items()
    ]
    curves = {"confusion": called, "reliability": pd.concat(reliable)}
    if live.nunique() < 2:
        return curves
    fpr, tpr, cuts = sk.roc_curve(live, test["score"])
    precision, recall, pr_cuts = sk.precision_recall_curve(
        live, test["score"], drop_intermediate=True
    )
    curves["roc"] = pd.DataFrame({"fpr": fpr, "tpr": tpr, "threshold": calibrate(cuts, 1.0)})
    cuts = np.r_[calibrate(pr_cuts, 1.0), 1.0]  # of the last point: above all
    curves["pr"] = pd.DataFrame({"recall": recall, "precision": precision, "threshold": cuts})
    return curves


def roc_together(named: dict[str, pd.DataFrame], title: str) -> Figure:
    """ROC curves of several models together (Fig. 4a), from their predictions (label, logit or
    probability, split).

    named: model name to its predictions table. Raises OneClass naming a model whose test patches
    are of one class.
    """
    figure, axes = plt.subplots(
        figsize=(SIZE[0] + 1, SIZE[1] + 0.3 * len(named)), layout="constrained"
    )
    for name, predictions in named.items():
        test = predictions[predictions["split"] == "test"]
        live = test["label"] == "live"
        if live.nunique() < 2:
            raise OneClass(
                f"{name}: its test patches are all of one class, so there is no ROC curve"
            )
        fpr, tpr, _ = sk.roc_curve(live, test["probability"])
        axes.plot(fpr, tpr, lw=1.5, label=f"{name}, AUC {sk.auc(fpr, tpr):.3f} (n = {len(test)})")
    _roc_axes(axes)
    axes.set_title(title, fontsize=10)
    figure.legend(fontsize=8, loc="outside lower center")  # names of experiments may be long
    return figure


def roc_figure(test: pd.DataFrame, record: dict) -> Figure:
    """ROC curve with its operating point and both intervals of the AUC."""
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    fpr, tpr, _ = sk.roc_curve(test["live"], test["score"])
    axes.plot(fpr, tpr, color="black", lw=1.5, label=f"AUC {_with_intervals(record, 'auc')}")
    names = ("balanced_accuracy", "sensitivity", "specificity")
    at = {name: record["overall"][name]["value"] for name in names}
    label = f"operating point: balanced accuracy {number(at['balanced_accuracy'])}"
    place = 1 - at["specificity"], at["sensitivity"]
    axes.plot(*place, "o", color=LIVE_DEAD["dead"], label=label)
    _roc_axes(axes)
    axes.legend(fontsize=7, loc="lower right")
    return figure


def pr_figure(test: pd.DataFrame, record: dict) -> Figure:
    """Precision against recall of the live class; the dotted line is the share of live patches."""
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    precision, recall, _ = sk.precision_recall_curve(test["live"], test["score"])
    label = f"average precision {_with_intervals(record, 'average_precision')}"
    axes.step(recall, precision, where="post", color="black", lw=1.5, label=label)
    axes.axhline(test["live"].mean(), ls=":", color=GREY, lw=1)
    unit_square(axes, "recall of live", "precision of live")
    axes.legend(fontsize=7, loc="lower left")
    return figure


def _with_intervals(record: dict, name: str) -> str:
    measure = record["overall"][name]
    text = number(measure["value"])
    for kind, over in (("patch", "patches"), ("group", f"{record['data']['n_groups']} groups")):
        if bounds := measure[f"{kind}_interval"]:
            text += f"\n{interval(bounds)} over {over}"
    return text


def _roc_axes(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], ":", color=GREY, lw=1)
    unit_square(
        axes, "false positive rate (dead called live)", "true positive rate (live called live)"
    )


def unit_square(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=xlabel, ylabel=ylabel, aspect="equal")


def legend_below(figure: Figure, title: str | None = None) -> None:
    """The legend below the axes, where it covers no data."""
    figure.legend(fontsize=8, title=title, title_fontsize=8, ncols=2, loc="outside lower center")
