"""The MLflow registry: versions by the digest of their package, and what was decided of each.

Registering is idempotent: a sync or a second `dvc repro` finds the version, compares the same
numbers, decides the same and counts nothing twice.
"""

import json
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from mlflow import MlflowClient
from mlflow.artifacts import list_artifacts
from mlflow.entities.model_registry import ModelVersion

from ..tracking import runs as tracking
from ..tracking.origin import data_digests
from ..tracking.server import alone, unless_there
from ..workspace.paths import METRICS, MODELS, REPORTS
from ..workspace.records import read_json
from ..workspace.sections import Register, Tile
from . import aliases, packaging
from .aliases import CHAMPION, TAG_LIMIT
from .card import card
from .champion import compare_with
from .rule import IS_CHAMPION, Decision, decide

PAIRS_KEPT = 200  # of 17 characters and a comma each: what a tag can hold


def model_name(partition: str) -> str:
    """The registered model of a partition."""
    return f"unstained-{partition}"


@alone()
def register_model(partition: str, tile: Tile, rule: Register) -> dict:
    """Registers one partition's model, if it is not yet, decides on its alias by the rule, and
    writes both down.

    Reads models/PARTITION, metrics/evaluate, reports/evaluate and reports/checks; returns a record
    without MLflow ids.
    """
    client = tracking.connect()
    model = read_json(MODELS / partition / "model.json")
    record = read_json(METRICS / "evaluate" / f"{partition}.json")
    with tempfile.TemporaryDirectory() as folder:
        digest = packaging.assemble(partition, tile, Path(folder))
        tags = version_tags(digest, model, record)
        version = known_version(client, model_name(partition), tags)
        version = version or create_version(client, Path(folder), model, record, tags)
    champion = aliases.by_alias(client, version.name, CHAMPION)
    test = partial(compare_with, champion, partition, record, tile, rule)
    decision = decide(version, champion, rule, test)
    brief = decision.reason.split("; ")[0]
    reason = decision.reason
    if decision.by_test:
        reason += note_use(client, version, champion.tags.get(tracking.DIGEST, ""), rule.warn_after)
    write_decision(client, version, champion, decision, reason)
    aliases.move(version, decision.alias, brief, "rule")
    name = f"models:/{version.name}@{decision.alias}"
    print(f"register@{partition}: {name} is version {version.version}: {reason}")
    kept = as_kept(version, decision)
    return {
        "model": version.name,
        "alias": decision.alias,
        "reason": kept.reason.split("; ")[0],
        "digest": model["digest"],
        "synthetic": model["synthetic"],
        "balanced_accuracy": record["overall"]["balanced_accuracy"]["value"],
        "comparison": kept.numbers,
    }


def as_kept(version: ModelVersion, decision: Decision) -> Decision:
    """Of the present champion the decision that made it champion, so that a stage that is repeated
    (it was killed, say) writes the same.
    """
    begin, told = f"{CHAMPION}: ", version.tags.get("decision", "")
    if decision.reason != IS_CHAMPION or not told.startswith(begin):
        return decision
    numbers = None
    if "comparison" in version.tags:
        numbers = dict(aliases.read_tag(version.tags, "comparison", version.name))
        numbers.pop("against", None)
    return replace(decision, reason=told.removeprefix(begin), numbers=numbers)


def known_version(client: MlflowClient, name: str, tags: dict[str, str]) -> ModelVersion | None:
    """The newest version of a model with that package whose files are there, its tags brought up to
    date; None if there is none.
    """
    same = f"name = '{name}' and tags.package_digest = '{tags['package_digest']}'"
    versions = [version for version in client.search_model_versions(same) if has_files(version)]
    if not versions:
        return None
    newest = max(versions, key=lambda version: int(version.version))
    for key, value in tags.items():
        if newest.tags.get(key) != value:
            client.set_model_version_tag(name, newest.version, key, value)
    return client.get_model_version(name, newest.version)


def has_files(version: ModelVersion) -> bool:
    """Whether the files of a version are still where the store says: people clean folders."""
    return bool(list_artifacts(artifact_uri=f"models:/{version.name}/{version.version}"))


def create_version(
    client: MlflowClient, package: Path, model: dict, record: dict, tags: dict[str, str]
) -> ModelVersion:
    """Logs a package into the run that trained its model, and registers it with its card."""
    name = model_name(model["partition"])
    run_id = tracking.training_run(model["partition"])
    metadata = {"digest": tags["package_digest"], "synthetic": model["synthetic"]}
    uri = packaging.log_model(package, model, metadata, run_id)
    if not client.search_registered_models(f"name = '{name}'"):
        kind = {"synthetic": tags["synthetic"]}
        with unless_there():
            client.create_registered_model(name, kind, aliases.about(name))
    contract = read_json(package / "scorer" / "contract.json")
    text = card(model, record, contract, data_digests())[:TAG_LIMIT]
    model_id = uri.removeprefix("models:/")  # a server wants it beside the source
    return client.create_model_version(
        name, uri, run_id=run_id, tags=tags, description=text, model_id=model_id
    )


def version_tags(digest: str, model: dict, record: dict) -> dict[str, str]:
    """What the rule and a reader need to know of a version later, as tags."""
    overall = record["overall"]
    return {
        "synthetic": str(model["synthetic"]).lower(),
        "arch": model["arch"],
        "weights": model["weights"]["weights"],
        "balanced_accuracy": str(overall["balanced_accuracy"]["value"]),
        "auc": str(overall["auc"]["value"]),
        "brier": str(record["calibration"]["brier"]["after"]),
        "scheme": record["data"]["scheme"],
        "gates": gates(),
        "test_digest": record["data"]["digest"],
        tracking.DIGEST: model["digest"],
        "package_digest": digest,
    }


def gates() -> str:
    """`passed`, or which gates failed or were not run, from reports/checks."""
    paths = sorted((REPORTS / "checks").glob("*/verdict.json"))
    if not paths:
        return "not run"
    failed = [path.parent.name for path in paths if not read_json(path)["success"]]
    return f"failed: {', '.join(failed)}" if failed else "passed"


def note_use(client: MlflowClient, version: ModelVersion, other: str, warn_after: int) -> str:
    """Counts on the registered model that a test split has decided between two models, once; what
    to say of it.
    """
    test = version.tags["test_digest"]
    key = f"test_split.{test[:12]}"
    two = "/".join(sorted((version.tags[tracking.DIGEST][:8], other[:8])))
    tags = client.get_registered_model(version.name).tags
    unused = {key: '{"decisions": 0, "pairs": []}'}
    used = aliases.read_tag(unused | tags, key, version.name)
    if two not in used["pairs"]:
        used = {"decisions": used["decisions"] + 1, "pairs": [*used["pairs"], two][-PAIRS_KEPT:]}
        client.set_registered_model_tag(version.name, key, json.dumps(used))
    same_test = f"name = '{version.name}' and tags.test_digest = '{test}'"
    tested = len(client.search_model_versions(same_test))
    decided = f"; this test split has decided {used['decisions']} time(s)"
    said = f"{decided}, {tested} versions were tested on it"
    if used["decisions"] < warn_after:
        return said
    return (
        f"{said}. WARNING: a split that decides often is learned by heart: renew it (split.seed, "
        "or new images)"
    )


def write_decision(
    client: MlflowClient,
    version: ModelVersion,
    champion: ModelVersion | None,
    decision: Decision,
    reason: str,
) -> None:
    """The decision and its numbers on the version; of the present champion the reason that made it
    champion stays.
    """
    if decision.numbers:
        numbers = {"against": aliases.version_number(champion)} | decision.numbers
        text = json.dumps(numbers)[:TAG_LIMIT]
        client.set_model_version_tag(version.name, version.version, "comparison", text)
    if reason != IS_CHAMPION:
        aliases.write_decision(version, f"{decision.alias}: {reason}")
