"""Registers one partition's model in MLflow with its filter and contract, and moves its alias by a
stated rule.

`python -m src.stages register PARTITION`; reads models/PARTITION, models/filter,
models/weights/filter, the partition's evaluation, reports/checks, data/patches and
data/labels/thresholds.json; writes metrics/register/PARTITION.json: what was decided when the stage
ran, without any MLflow id.
"""

from ..common.register.registry import register_model
from ..common.workspace.params import load
from ..common.workspace.paths import METRICS
from ..common.workspace.records import write_json


def main(partition: str) -> dict:
    """Runs the stage; returns what it wrote."""
    tile, rule = load("tile", "register")
    record = register_model(partition, tile, rule)
    write_json(METRICS / "register" / f"{partition}.json", record)
    return record
