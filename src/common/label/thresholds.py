"""What stands around the mixture: patches it is fitted on, what it must show, what is kept.

The one-sigma rule itself is `mixture.Mixture`.
"""

import json

import numpy as np
import pandas as pd

from ..workspace.paths import REPORTS
from ..workspace.records import clean
from ..workspace.sections import Label
from ..workspace.tables import CLASS_NAMES, LABEL_NAMES
from . import mixture as mixtures

UNITS = {"counts": "16-bit counts", "background_ratio": "mean PI over the field's background"}

# Of two populations among what is called live: intensity of the brighter over the other, and share
# on the wrong side, from which on the brighter may be dim dead patches
TWO_RATIO, TWO_OVERLAP = 1.5, 0.02


def fit_rows(cells: pd.DataFrame, fit_on: str | list[str]) -> pd.DataFrame:
    """The patches whose intensities set the thresholds.

    Raises MixtureError naming a partition that has none.
    """
    if fit_on == "all":
        return cells
    held = sorted(cells["partition"].unique())
    if missing := [name for name in fit_on if name not in held]:
        raise mixtures.MixtureError(
            f"label.fit_on names {', '.join(missing)}, which has no patches with cells; there are "
            f"some in {', '.join(held) or 'no partition'}. Name some of dataset.partitions, or all "
            "without brackets"
        )
    return cells[cells["partition"].isin(fit_on)]


def refuse_unseparated(
    mixture: mixtures.Mixture, counts: dict[str, dict[str, int]], label: Label, step: float
) -> None:
    """Raises MixtureError, with what was found and what to change, if the stain does not give two
    usable classes; `step` is one count of the camera in the intensity's unit.
    """
    reasons = mixtures.problems(mixture, step)
    for partition, part in counts.items():
        if not any(part.values()):
            reasons.append(f"the filter found no cells in {partition}: see {REPORTS.name}/filter")
        reasons += [
            f"{partition} has {part[name]} {name} patches, "
            f"fewer than label.min_class {label.min_class}"
            for name in CLASS_NAMES
            if part[name] < label.min_class
        ]
    if reasons:
        raise mixtures.MixtureError(
            f"the mixture of {label.intensity}{' (log)' if label.log else ''} does not separate "
            f"live from dead: {'; '.join(reasons)}. Components: {mixtures.describe(mixture)}. "
            f"Counts: {json.dumps(counts)}. Look at {REPORTS.name}/label/fig3a_histograms.png. To "
            "change: label.intensity background_ratio if exposure differs between images, "
            "label.log if the bright component has a long tail, label.fit_on if a partition holds "
            "both classes in balance, dataset.partitions without one that holds a single class, "
            "or label.min_class"
        )


def hidden_dead(values: np.ndarray, mixture: mixtures.Mixture, seed: int) -> str:
    """A warning where what is called live is two populations, as where debris far brighter than
    dead cells is the mixture's second component; '' where it is one. values: (N,) intensities.
    """
    called = values[values < mixture.live_below]
    if len(called) < mixtures.MIN_FIT or np.ptp(called) == 0:
        return ""
    inner = mixtures.fit(called, mixture.log, seed)
    live, other = inner.centres
    count = round(inner.weight[1] * len(called))
    if other < TWO_RATIO * live or inner.overlap > TWO_OVERLAP or count < mixtures.MIN_FIT:
        return ""
    return (
        f"WARNING: what is called live is two populations, at {live:.4g} and, of {count} patches, "
        f"{other:.4g}: are those dead? Take out fields with bright debris, or try label.log"
    )


def exposure_decides(used: pd.DataFrame, mixture: mixtures.Mixture, label: Label) -> str:
    """A warning where the background of the fields that set the thresholds (image_id,
    pi_background) differs by more than the thresholds, as exposures do; '' where it does not.
    """
    fields = used.drop_duplicates("image_id")
    low, high = fields["pi_background"].quantile([0.05, 0.95])
    within = high * mixture.live_below <= low * mixture.dead_above
    if label.intensity == "background_ratio" or within:
        return ""
    return (
        f"WARNING: the background of the fields goes from {low:.4g} to {high:.4g} counts, further "
        "than from live_below to dead_above: exposure or time, not cells, may decide what is "
        "called dead; label.intensity background_ratio divides by it"
    )


def thresholds(mixture: mixtures.Mixture, label: Label, background: float) -> dict:
    """The head of thresholds.json: thresholds in the intensity's own unit, components in the fit's,
    rounded; `background` is the percentile that a field's background is.
    """
    unit = UNITS[label.intensity]
    parts = zip(CLASS_NAMES, mixture.mean, mixture.sd, mixture.weight, strict=True)
    components = [
        {"name": name, "mean": mean, "sd": sd, "weight": weight} for name, mean, sd, weight in parts
    ]
    if mixture.log:
        components = [{**part, "median": float(np.exp(part["mean"]))} for part in components]
    return clean({
        "intensity": label.intensity, "background": background, "unit": unit, "log": label.log,
        "components_unit": f"natural logarithm of {unit}" if label.log else unit,
        "fit_on": label.fit_on, "components": components, "overlap": mixture.overlap,
        "live_below": mixture.live_below, "dead_above": mixture.dead_above,
    })  # fmt: skip


def tally(
    table: pd.DataFrame, column: str, names: tuple[str, ...], partitions: list[str]
) -> dict[str, dict[str, int]]:
    """Rows of each partition and value of a column."""
    columns = {name: table.loc[table["partition"] == name, column] for name in partitions}
    return {
        partition: {name: int((values == name).sum()) for name in names}
        for partition, values in columns.items()
    }


def labels_by_field(cells: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """One row per field with cells: its PI background and its number of patches of each label."""
    counts = pd.crosstab(cells["image_id"], cells["label"])
    counts = counts.reindex(columns=list(LABEL_NAMES), fill_value=0)
    facts = ["image_id", "partition", "experiment", "pi_background", "pi_floor", "pi_median"]
    return frames[facts].reset_index(drop=True).merge(counts, on="image_id")
