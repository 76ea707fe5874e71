"""Registers every partition's model in MLflow with its filter and contract, and moves its alias by
a stated rule.

Reads models, metrics/evaluate, reports/evaluate, reports/checks, data/patches and
data/labels/thresholds.json; writes metrics/register.json: what was decided when the stage ran,
without any MLflow id.
"""

import json

from ..common.register.registry import register_model
from ..common.workspace.params import load
from ..common.workspace.paths import METRICS


def main() -> dict:
    """Runs the stage; returns one record for each partition."""
    dataset, tile, rule = load("dataset", "tile", "register")
    found = {partition: register_model(partition, tile, rule) for partition in dataset.partitions}
    METRICS.mkdir(exist_ok=True)
    (METRICS / "register.json").write_text(json.dumps(found, indent=2) + "\n")
    return found
