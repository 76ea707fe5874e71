"""The MLflow registry: versions by digest, and who is champion and challenger, with the reason written down."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from . import packaging, tracking
from .params import Register, Tile

CHAMPION, CHALLENGER = "champion", "challenger"
STILL = "is the champion"


class RegistryError(ValueError):
    """The registry does not hold what was asked for."""


@dataclass(frozen=True)
class Decision:
    """Which alias a version gets, and why."""

    alias: str
    reason: str


def model_name(partition: str) -> str:
    """The registered model of a partition."""
    return f"unstained-{partition}"


def ensure_version(partition: str, model: dict, record: dict, tile: Tile) -> ModelVersion:
    """The registry's version of this model, found by the digest of all it consists of, or made."""
    client, name = tracking.connect(), model_name(partition)
    with tempfile.TemporaryDirectory() as folder:
        digest = packaging.assemble(partition, tile, Path(folder))
        if found := find_version(client, name, digest):
            return found
        run_id = tracking.training_run(partition)
        with tracking.run_again(run_id):
            uri = packaging.log_model(Path(folder), model["arch"], {"digest": digest, "synthetic": model["synthetic"]})
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, tags={"synthetic": str(model["synthetic"]).lower()})
    return client.create_model_version(
        name, uri, run_id=run_id, tags=version_tags(digest, model, record), description=card(model, record)
    )


def version_tags(digest: str, model: dict, record: dict) -> dict[str, str]:
    """What the gate needs to know of a version later, as tags."""
    return {
        "package_digest": digest,
        tracking.DIGEST: model["digest"],
        "arch": model["arch"],
        "weights": model["weights"]["weights"],
        "synthetic": str(model["synthetic"]).lower(),
        "test_digest": record["data"]["digest"],
        "balanced_accuracy": str(record["overall"]["balanced_accuracy"]["value"]),
        "auc": str(record["overall"]["auc"]["value"]),
    }


def find_version(client: MlflowClient, name: str, digest: str) -> ModelVersion | None:
    """The newest version of a model with that package digest."""
    found = client.search_model_versions(f"name = '{name}' and tags.package_digest = '{digest}'")
    return max(found, key=lambda version: int(version.version), default=None)


def by_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version that carries an alias, or None."""
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException:
        return None


def decide(candidate: dict[str, str], champion: dict[str, str] | None, rule: Register) -> Decision:
    """Champion or challenger, from the tags of the candidate and of the present champion (None if there is none).

    The first model good enough becomes champion; later ones only outside experiments, never from random weights over
    pretrained ones, and only if better on the very same test patches.
    """
    accuracy = float(candidate["balanced_accuracy"])
    if accuracy < rule.min_balanced_accuracy:
        return Decision(CHALLENGER, f"balanced accuracy {accuracy:.3f} is below {rule.min_balanced_accuracy}")
    if champion is None:
        return Decision(CHAMPION, f"first version of balanced accuracy {accuracy:.3f}")
    if candidate["package_digest"] == champion["package_digest"]:
        return Decision(CHAMPION, STILL)
    if os.environ.get("DVC_EXP_NAME"):
        return Decision(CHALLENGER, "an experiment never moves the champion: `unstained promote` does")
    if candidate[tracking.DIGEST] == champion[tracking.DIGEST]:
        return Decision(CHAMPION, "the champion's weights, packaged anew")
    if candidate["weights"] == "random" and champion["weights"] != "random":
        return Decision(CHALLENGER, "random weights never replace pretrained ones")
    if candidate["test_digest"] != champion["test_digest"]:
        return Decision(CHALLENGER, "tested on other patches than the champion: not comparable, promote it by hand")
    before = float(champion["balanced_accuracy"])
    if accuracy <= before + rule.margin:
        return Decision(CHALLENGER, f"balanced accuracy {accuracy:.3f} does not exceed the champion's {before:.3f}")
    return Decision(CHAMPION, f"balanced accuracy {accuracy:.3f} exceeds the champion's {before:.3f}")


def apply(version: ModelVersion, decision: Decision) -> None:
    """Moves the alias and writes the decision on the version."""
    client = MlflowClient()
    before = by_alias(client, version.name, decision.alias)
    if decision.alias == CHAMPION and before and before.version != version.version:
        client.set_model_version_tag(version.name, version.version, "champion_before", before.version)
    client.set_registered_model_alias(version.name, decision.alias, version.version)
    other = CHALLENGER if decision.alias == CHAMPION else CHAMPION
    held = by_alias(client, version.name, other)
    if held and held.version == version.version:
        client.delete_registered_model_alias(version.name, other)
    if decision.reason != STILL:  # keep the reason that made it champion
        client.set_model_version_tag(version.name, version.version, "decision", f"{decision.alias}: {decision.reason}")


def promote(name: str, number: int, reason: str) -> str:
    """Makes a version champion by hand; returns what was done. Raises RegistryError if there is no such version."""
    client = tracking.connect()
    try:
        version = client.get_model_version(name, str(number))
    except MlflowException as error:
        raise RegistryError(f"no version {number} of {name}: {error.message}") from None
    before = by_alias(client, name, CHAMPION)
    if before and before.version == version.version:
        return f"{name} version {number} is the champion already"
    apply(version, Decision(CHAMPION, f"by hand: {reason}"))
    return f"models:/{name}@{CHAMPION} is now version {number}" + (f", was {before.version}" if before else "")


def rollback(name: str, reason: str) -> str:
    """Gives the champion's alias back to the version before. Raises RegistryError if none is known."""
    champion = by_alias(tracking.connect(), name, CHAMPION)
    before = champion.tags.get("champion_before") if champion else None
    if before is None:
        raise RegistryError(f"{name} has no champion that replaced another: use `unstained promote` with a version")
    return promote(name, int(before), f"rollback: {reason}")


def card(model: dict, record: dict) -> str:
    """The model card: what it is, on what it was trained, how good it is, and what it is not for."""
    auc, accuracy = (record["overall"][name] for name in ("auc", "balanced_accuracy"))
    lines = [
        f"**{model['arch']}** from {model['weights']['weights']} weights ({model['weights']['origin']}), "
        f"partition `{model['partition']}`, source `{model['source']}`.",
        "**Trained on SYNTHETIC images: not for real plates.**" if model["synthetic"] else "Trained on real images.",
        f"Patches: {model['patches']['live']} live, {model['patches']['dead']} dead, {model['groups']} groups.",
        f"Test ({_scheme(model)}): balanced accuracy {_interval(accuracy)}, AUC {_interval(auc)}, "
        f"{record['data']['n_patches']} patches of {record['data']['n_groups']} groups; 95% intervals over groups.",
        "Yields the live-patch fraction, not cell viability. For research use, not for diagnosis.",
        f"Digest `{model['digest']}`.",
    ]
    return "\n\n".join(lines)


def _scheme(model: dict) -> str:
    if model["scheme"] == "holdout":
        return "held-out groups"
    return (
        "out-of-fold scores of the folds' models; the registered one is trained on all groups and was not itself tested"
    )


def _interval(value: dict) -> str:
    span = value["group_interval"]
    return f"{value['value']:.3f}" + (f" ({span[0]:.3f} to {span[1]:.3f})" if span else "")
