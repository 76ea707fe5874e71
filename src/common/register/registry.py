"""The MLflow registry: versions by digest, and the rule by which a new one becomes champion or
challenger.

Registering is idempotent: a sync or a second `dvc repro` finds the version, compares the same
numbers, decides the same and counts nothing twice. The rule in words: docs/experiments.md.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from ..metrics import paired as duel
from ..tracking import runs as tracking
from ..workspace.params import Register, Tile
from ..workspace.paths import METRICS, MODELS, REPORTS
from ..workspace.tables import existing
from . import aliases, packaging
from . import champion as opponent
from .aliases import CHALLENGER, CHAMPION, TAG_LIMIT
from .card import card

STILL = "is the champion"
PAIRS_KEPT = 200  # of 17 characters and a comma each: what a tag can hold


@dataclass(frozen=True)
class Decision:
    """Which alias a version gets, why, and the paired numbers if there are any; did they decide?"""

    alias: str
    reason: str
    numbers: dict | None = None
    by_test: bool = False


def model_name(partition: str) -> str:
    """The registered model of a partition."""
    return f"unstained-{partition}"


def register_model(partition: str, tile: Tile, rule: Register) -> dict:
    """Registers one partition's model, if it is not yet, decides on its alias by the rule, and
    writes both down.

    Reads models/PARTITION, metrics/evaluate, reports/evaluate and reports/checks; returns a record
    without MLflow ids.
    """
    model = json.loads(existing(MODELS / partition / "model.json").read_text())
    record = json.loads(existing(METRICS / "evaluate" / f"{partition}.json").read_text())
    client = tracking.connect()
    version = ensure_version(partition, model, record, tile)
    champion = aliases.by_alias(client, version.name, CHAMPION)
    decision = decide(
        version, champion, rule, lambda: face(partition, champion, record, tile, rule)
    )
    reason = decision.reason
    if decision.by_test:
        reason += note_use(client, version, champion.tags.get(tracking.DIGEST, ""), rule.warn_after)
    brief = decision.reason.split("; ")[0]
    aliases.move(version, decision.alias, brief, "rule")
    write(client, version, champion, Decision(decision.alias, reason, decision.numbers))
    print(
        f"register: models:/{version.name}@{decision.alias} is version {version.version}: {reason}"
    )
    return {
        "model": version.name,
        "alias": decision.alias,
        "reason": brief,
        "digest": model["digest"],
        "synthetic": model["synthetic"],
        "balanced_accuracy": record["overall"]["balanced_accuracy"]["value"],
        "comparison": decision.numbers,
    }


def ensure_version(partition: str, model: dict, record: dict, tile: Tile) -> ModelVersion:
    """The registry's version of this model, found by the digest of all it consists of, or made;
    with current tags.
    """
    client, name = MlflowClient(), model_name(partition)
    with tempfile.TemporaryDirectory() as folder:
        digest = packaging.assemble(partition, tile, Path(folder))
        contract = json.loads((Path(folder) / "scorer" / "contract.json").read_text())
        tags = version_tags(digest, model, record)
        found = find_version(client, name, digest)
        if found:
            for key, value in tags.items():
                if found.tags.get(key) != value:
                    client.set_model_version_tag(name, found.version, key, value)
            return client.get_model_version(name, found.version)
        run_id = tracking.training_run(partition)
        with tracking.run_again(run_id):
            uri = packaging.log_model(
                Path(folder), model["arch"], {"digest": digest, "synthetic": model["synthetic"]}
            )
    if not client.search_registered_models(f"name = '{name}'"):
        kind = {"synthetic": str(model["synthetic"]).lower()}
        client.create_registered_model(name, kind, aliases.about(name))
    text = card(model, record, contract, tracking.data_digests())[:TAG_LIMIT]
    model_id = uri.removeprefix("models:/")  # a server wants it beside the source
    return client.create_model_version(
        name, uri, run_id=run_id, tags=tags, description=text, model_id=model_id
    )


def version_tags(digest: str, model: dict, record: dict) -> dict[str, str]:
    """What the rule and a reader need to know of a version later, as tags."""
    found = record["overall"]
    return {
        "synthetic": str(model["synthetic"]).lower(),
        "arch": model["arch"],
        "weights": model["weights"]["weights"],
        "balanced_accuracy": str(found["balanced_accuracy"]["value"]),
        "auc": str(found["auc"]["value"]),
        "brier": str(record["calibration"]["brier"]["after"]),
        "scheme": record["data"]["scheme"],
        "gates": gates(),
        "test_digest": record["data"]["digest"],
        tracking.DIGEST: model["digest"],
        "package_digest": digest,
    }


def gates() -> str:
    """`passed`, or which gates failed or were not run, from reports/checks."""
    verdicts = {
        path.parent.name: json.loads(path.read_text())
        for path in (REPORTS / "checks").glob("*/verdict.json")
    }
    failed = sorted(name for name, verdict in verdicts.items() if not verdict["success"])
    if not verdicts:
        return "not run"
    return f"failed: {', '.join(failed)}" if failed else "passed"


def find_version(client: MlflowClient, name: str, digest: str) -> ModelVersion | None:
    """The newest version of a model with that package digest."""
    found = client.search_model_versions(f"name = '{name}' and tags.package_digest = '{digest}'")
    return max(found, key=lambda version: int(version.version), default=None)


def decide(version: ModelVersion, champion: ModelVersion | None, rule: Register, fight) -> Decision:
    """Champion or challenger. `fight` is called only where the two models must be compared, and
    returns the numbers.

    The first model good enough becomes champion. Later ones replace it only outside experiments and
    only by the paired comparison; a version that lost the alias once gets it back by hand alone.
    """
    mine, theirs = version.tags, champion.tags if champion else None
    accuracy = float(mine["balanced_accuracy"])
    if champion and aliases.number(version) == aliases.number(champion):
        return Decision(CHAMPION, STILL)
    if mine["gates"] != "passed":
        return Decision(CHALLENGER, f"gates {mine['gates']}")
    if accuracy < rule.min_balanced_accuracy:
        return Decision(
            CHALLENGER, f"balanced accuracy {accuracy:.3f} is below {rule.min_balanced_accuracy}"
        )
    if champion is None:
        return Decision(CHAMPION, f"first version of balanced accuracy {accuracy:.3f}")
    barred = bar(version, theirs)
    if not barred and mine[tracking.DIGEST] == theirs.get(tracking.DIGEST):
        return Decision(CHAMPION, "the champion's weights, packaged anew")
    try:
        numbers = fight()
    except duel.Incomparable as error:
        return Decision(CHALLENGER, barred or f"not compared with the champion: {error}; it stays")
    better, told = duel.judge(numbers, rule)
    if barred:
        return Decision(CHALLENGER, f"{barred}; for information: {told}", numbers)
    return Decision(CHAMPION if better else CHALLENGER, told, numbers, by_test=better is not None)


def bar(version: ModelVersion, champion: dict[str, str]) -> str:
    """Why a version cannot replace the champion (its tags) whatever the numbers say; '' if it may."""
    if aliases.was_champion(version):
        lost = version.tags.get(aliases.REPLACED, "replaced")
        return f"only `unstained promote` brings it back: it was champion before and was {lost}"
    if os.environ.get("DVC_EXP_NAME"):
        return "an experiment never moves the champion: `unstained promote` does"
    if version.tags["synthetic"] == "true" and champion.get("synthetic") == "false":
        return "a model of synthetic images never replaces one of real images"
    if version.tags["weights"] == "random" and champion.get("weights") != "random":
        return (
            "random first weights never replace pretrained ones: `unstained promote` wants a reason"
        )
    return ""


def face(partition: str, champion: ModelVersion, record: dict, tile: Tile, rule: Register) -> dict:
    """The paired numbers of candidate and champion on the candidate's test split.

    Raises duel.Incomparable.
    """
    predictions = pd.read_parquet(REPORTS / "evaluate" / partition / "predictions.parquet")
    theirs, how = opponent.answers(champion, predictions, record["data"]["digest"], tile)
    return duel.compare(duel.pair(duel.side(predictions, record), theirs), rule) | {"how": how}


def note_use(client: MlflowClient, version: ModelVersion, other: str, warn_after: int) -> str:
    """Counts on the registered model that a test split has decided between two models, once; what
    to say of it.
    """
    test = version.tags["test_digest"]
    key, two = (
        f"test_split.{test[:12]}",
        "/".join(sorted((version.tags[tracking.DIGEST][:8], other[:8]))),
    )
    tags = client.get_registered_model(version.name).tags
    used = json.loads(tags.get(key, '{"decisions": 0, "pairs": []}'))
    if two not in used["pairs"]:
        used = {"decisions": used["decisions"] + 1, "pairs": [*used["pairs"], two][-PAIRS_KEPT:]}
        client.set_registered_model_tag(version.name, key, json.dumps(used))
    tested = len(
        client.search_model_versions(f"name = '{version.name}' and tags.test_digest = '{test}'")
    )
    said = f"; this test split has decided {used['decisions']} time(s), {tested} versions were tested on it"
    if used["decisions"] < warn_after:
        return said
    return f"{said}. WARNING: a split that decides often is learned by heart: renew it (split.seed, or new images)"


def write(
    client: MlflowClient, version: ModelVersion, champion: ModelVersion | None, decision: Decision
) -> None:
    """The decision and its numbers on the version; of the present champion the reason that made it
    champion stays.
    """
    if decision.numbers:
        numbers = {"against": aliases.number(champion)} | decision.numbers
        client.set_model_version_tag(
            version.name, version.version, "comparison", json.dumps(numbers)[:TAG_LIMIT]
        )
    if decision.reason != STILL:
        aliases.write_decision(version, f"{decision.alias}: {decision.reason}")
