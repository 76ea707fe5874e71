"""Registers every partition's model in MLflow with its filter and contract, and moves its alias by a stated rule.

Reads models, metrics/evaluate, data/labels/thresholds.json; writes metrics/register.json, which holds no MLflow id.
"""

import json

from mlflow import MlflowClient

from ..common import registry
from ..common.params import Register, Tile, load
from ..common.paths import METRICS, MODELS


def register(partition: str, tile: Tile, rule: Register) -> dict:
    """Registers one partition's model, if it is not yet, and decides on its alias; returns the record."""
    model = json.loads((MODELS / partition / "model.json").read_text())
    record = json.loads((METRICS / "evaluate" / f"{partition}.json").read_text())
    version = registry.ensure_version(partition, model, record, tile)
    champion = registry.by_alias(MlflowClient(), version.name, registry.CHAMPION)
    decision = registry.decide(version.tags, champion.tags if champion else None, rule)
    registry.apply(version, decision)
    print(f"register: models:/{version.name}@{decision.alias} is version {version.version}: {decision.reason}")
    return {
        "model": version.name,
        "alias": decision.alias,
        "reason": decision.reason,
        "digest": model["digest"],
        "synthetic": model["synthetic"],
        "balanced_accuracy": record["overall"]["balanced_accuracy"]["value"],
    }


def main() -> dict:
    """Runs the stage; returns one record for each partition."""
    dataset, tile, rule = load("dataset", "tile", "register")
    found = {partition: register(partition, tile, rule) for partition in dataset.partitions}
    METRICS.mkdir(exist_ok=True)
    (METRICS / "register.json").write_text(json.dumps(found, indent=2) + "\n")
    return found


if __name__ == "__main__":
    main()
