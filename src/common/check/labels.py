"""Gates on data/labels: labels follow from thresholds, thresholds from the mixture, both classes
are there, and they are those of cells and not of fields.
"""

from collections.abc import Mapping
from pathlib import Path

import great_expectations.expectations as gxe
import pandas as pd

from ..workspace.records import read_json
from ..workspace.sections import Check
from ..workspace.tables import CLASS_NAMES, LABEL_NAMES
from .expectations import Suite, Tables, among, between, equal, said, unique
from .form import EDITED, read_tables

WHAT = "Live, dead and discarded patches, by the Gaussian mixture of their PI."
REDO = f"{EDITED}label`"
STAIN = (
    "look at reports/label/fig3a_histograms.png; then change label.intensity, "
    "label.log or label.fit_on"
)
COLUMNS = {
    "labels": (["patch_id", "image_id", "partition", "intensity", "label"], []),
    "fields": (
        ["image_id", "partition", "pi_background", "pi_floor", *LABEL_NAMES],
        ["experiment"],
    ),
}
LABELLED = 4  # live and dead windows from which on it says something that a field has one class


def read(folder: Path, partitions: list[str]) -> Tables:
    """labels.parquet, fields.parquet, and thresholds.json as `record`."""
    record = read_json(folder / "thresholds.json")
    return {"record": record} | read_tables(folder, COLUMNS, partitions)


def detail(tables: Tables, folder: Path, partitions: list[str]) -> Tables:
    """The labels of each class, the thresholds in order, classes and verdicts per partition beside
    what was recorded, backgrounds of fields and of partitions; found: the counts.
    """
    table, record, fields = tables["labels"], tables["record"], tables["fields"]
    classes = [_classes(table, fields, record, partition) for partition in partitions]
    per = pd.DataFrame(classes)
    divided = fields if record["intensity"] == "background_ratio" else fields.iloc[:0]
    by_label = {name: table[table["label"] == name] for name in LABEL_NAMES}
    return by_label | {
        "labels": table, "thresholds": _thresholds(record), "partitions": per,
        "counts": _counts(per, record),
        "fields": divided.assign(lift=divided["pi_background"] / divided["pi_floor"]),
        "backgrounds": _backgrounds(divided, record["fit_on"]),
        "found": per[["partition", *LABEL_NAMES, "live_fraction", "cells_fraction"]],
    }  # fmt: skip


def suite(check: Check, tables: Tables) -> Suite:
    """The suite on what the tables hold."""
    record = tables["record"]
    low, high = record["live_below"], record["dead_above"]
    rises = said("thresholds_in_mixture", "live mean < live_below < dead_above < dead mean", STAIN)
    kinds, noted = f"one of {', '.join(LABEL_NAMES)}", "the counts that thresholds.json gives"
    return {
        "labels": [
            unique("patch_id", "patch_labelled_once", "every patch_id once", REDO),
            among("label", list(LABEL_NAMES), "label_values", kinds, REDO),
        ],
        "live": [_follows("live", high=low, strict_max=True)],
        "dead": [_follows("dead", low=high, strict_min=True)],
        "discarded": [_follows("discarded", low=low, high=high)],
        "thresholds": [
            gxe.ExpectColumnValuesToBeIncreasing(column="value", strictly=True, **rises)
        ],
        "counts": [equal("patches", "recorded", "counts_agree", noted, REDO)],
        "partitions": _shares(check),
        "fields": [_unlifted(check.max_background_lift)],
        "backgrounds": [_as_controls(check.max_background_lift)],
    }


def _follows(name: str, **bounds: float):
    text = f"{name} as intensity and thresholds say"
    return between("intensity", f"{name}_follows_thresholds", text, REDO, **bounds)


def _shares(check: Check) -> list:
    """What may not be too rare or too common in a partition."""
    kept = "look at the sheets in reports/filter, and annotate more windows in annotations/"
    alike = (
        "labels that differ between fields but hardly within them are those of exposure or of "
        "noise: label.intensity background_ratio if exposures differ, "
        "and look at the PI of a few fields"
    )
    asked = [
        ("class_count", "smallest", "min_class", STAIN),
        ("class_proportion", "minority", "min_class_fraction", STAIN),
        ("discarded_proportion", "discarded_fraction", "max_discarded_fraction", STAIN),
        ("verdict_rate", "cells_fraction", "min_cells_fraction", kept),
        ("classes_meet_in_fields", "constant_fraction", "max_constant_fraction", alike),
    ]
    expectations = []
    for name, column, parameter, remedy in asked:
        value, least = getattr(check, parameter), parameter.startswith("min")
        text = f"{column} at {'least' if least else 'most'} {value:g} (check.{parameter})"
        bound = {"low" if least else "high": value}
        expectations.append(between(column, name, text, remedy, **bound))
    return expectations


def _unlifted(limit: float):
    text = (
        f"a field's background at most {limit:g} times its darkest hundredth "
        "(check.max_background_lift)"
    )
    remedy = (
        "the glow of dead cells lies over more of these fields than tile.background supposes: a "
        "lower percentile; where even that is lifted, take the fields out, "
        "or image less confluent ones"
    )
    return between("lift", "background_not_lifted", text, remedy, high=limit)


def _as_controls(limit: float):
    text = f"median background at most {limit:g} times the controls' (check.max_background_lift)"
    remedy = (
        "where the whole field glows no percentile of it is background, and dead windows would be "
        "called live: set label.intensity to counts (one exposure), lower tile.background, "
        "or leave these out"
    )
    return between("over_controls", "background_as_controls", text, remedy, high=limit)


def _thresholds(record: Mapping) -> pd.DataFrame:
    """Live mean, live_below, dead_above and dead mean, in the intensity's own unit."""
    parts = {part["name"]: part for part in record["components"]}
    live, dead = (parts[name].get("median", parts[name]["mean"]) for name in CLASS_NAMES)
    values = {"live mean": live, "live_below": record["live_below"]}
    values |= {"dead_above": record["dead_above"], "dead mean": dead}
    return pd.DataFrame({"label": list(values), "value": list(values.values())})


def _classes(table: pd.DataFrame, fields: pd.DataFrame, record: Mapping, partition: str) -> dict:
    labels = table.loc[table["partition"] == partition, "label"].value_counts()
    counts = {name: int(labels.get(name, 0)) for name in LABEL_NAMES}
    live, dead = counts["live"], counts["dead"]
    verdicts = record["verdicts"].get(partition, {})
    mine = fields[
        (fields["partition"] == partition) & (fields["live"] + fields["dead"] >= LABELLED)
    ]
    one_sided = mine[["live", "dead"]].min(axis=1) == 0
    return {
        "partition": partition, **counts, "cells": verdicts.get("cells", 0),
        "live_fraction": live / max(live + dead, 1), "smallest": min(live, dead),
        "minority": min(live, dead) / max(live + dead, 1),
        "discarded_fraction": counts["discarded"] / max(sum(counts.values()), 1),
        "cells_fraction": round(verdicts.get("cells", 0) / max(sum(verdicts.values()), 1), 6),
        "constant_fraction": float(one_sided.mean()) if len(mine) else 0.0,
    }  # fmt: skip


def _counts(per: pd.DataFrame, record: Mapping) -> pd.DataFrame:
    """Patches of each partition and label, and all with verdict cells, beside the record's."""
    rows = []
    for one in per.to_dict("records"):
        partition = one["partition"]
        noted = record["counts"].get(partition, {})
        rows += [(partition, name, one[name], noted.get(name, 0)) for name in LABEL_NAMES]
        rows.append((partition, "cells", sum(one[name] for name in LABEL_NAMES), one["cells"]))
    return pd.DataFrame(rows, columns=["partition", "label", "patches", "recorded"])


def _backgrounds(fields: pd.DataFrame, fit_on: str | list[str]) -> pd.DataFrame:
    """Median PI background of each partition and experiment, over that of the controls imaged with
    them: the partitions that set the thresholds, or, where all do, the darkest.
    """
    keys = ["experiment", "partition"]
    known = fields.assign(experiment=fields["experiment"].fillna(""))
    table = known.groupby(keys, as_index=False)["pi_background"].median()
    controls = table if fit_on == "all" else table[table["partition"].isin(fit_on)]
    darkest = controls.groupby("experiment")["pi_background"].min()
    reference = table["experiment"].map(darkest).astype(float)
    return table.assign(over_controls=table["pi_background"] / reference)
