"""A registered model for a session of its own: another operating point, and for a stain network
that learnt on other weights, with the same filter and code, registered as a version of its own.

No alias is moved: whether an adapted model becomes champion is for people to say (`unstained
promote`).
"""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import mlflow
import torch
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from safetensors.torch import save_file

from ..tracking import runs as tracking
from ..tracking.server import alone
from ..workspace.records import read_json, write_json
from . import packaging
from .aliases import TAG_LIMIT

# Of the network
KEPT = ("synthetic", "arch", "weights", "scheme", "gates", "auc", "balanced_accuracy")


@alone()
def register_adapted(
    version: ModelVersion, changes: dict, about: dict, seen: list[str],
    state: dict[str, torch.Tensor] | None = None,
) -> str:  # fmt: skip
    """Registers the package of a version with changes of its contract (another operating point),
    and other weights of its network if they are given; returns the new version's number, or that of
    the same package registered before.

    about: what it was adapted on, kept in the contract and as a tag; seen: digests of the images
    among it, which count as training images from then on.
    """
    client, source = tracking.connect(), f"models:/{version.name}/{version.version}"
    with tempfile.TemporaryDirectory() as folder:
        package = Path(mlflow.artifacts.download_artifacts(source, dst_path=folder))
        directory = Path(folder) / "adapted"
        digest = assemble(package, directory, changes, about, seen, state)
        same = f"name = '{version.name}' and tags.package_digest = '{digest}'"
        if known := client.search_model_versions(same):
            return str(known[0].version)
        kept = {key: version.tags[key] for key in KEPT if key in version.tags}
        told = json.dumps(about)[:TAG_LIMIT]
        added = {"package_digest": digest, "adapted_from": str(version.version), "adapted_on": told}
        return _create(client, version, package, directory, kept | added)


def assemble(
    package: Path, directory: Path, changes: dict, about: dict, seen: list[str],
    state: dict[str, torch.Tensor] | None,
) -> str:  # fmt: skip
    """Lays out a downloaded package with its new contract and weights in DIRECTORY; returns its
    digest.
    """
    scorer = next(package.rglob("contract.json")).parent
    shutil.copytree(scorer, directory / "scorer", copy_function=shutil.copyfile)
    code = next(path.parent for path in package.rglob("pyfunc.py"))
    shutil.copytree(code, directory / code.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(package / "model.py", directory / "model.py")
    contract = read_json(scorer / "contract.json")
    images = sorted({*contract.get("training_images", []), *seen})
    contract |= changes | {"adapted": about, "training_images": images}
    if state is not None:
        weights = directory / "scorer" / "net" / "model.safetensors"
        save_file(state, weights)
        weights.chmod(0o644)  # safetensors lets its owner alone read what it writes
        contract["digest"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    write_json(directory / "scorer" / "contract.json", contract)
    return packaging.digest_of(directory)


def _create(
    client: MlflowClient, version: ModelVersion, package: Path, directory: Path, tags: dict
) -> str:
    """Logs the package into the run that trained the network, whose evaluation stays its own test
    (of what it was before), and makes the version.
    """
    needed = (package / "requirements.txt").read_text().split()
    metadata = {"digest": tags["package_digest"], "synthetic": tags.get("synthetic") == "true"}
    uri = packaging.log_package(directory, needed, metadata, version.run_id)
    text = f"Version {version.version} adapted to a session: "
    created = client.create_model_version(
        version.name,
        uri,
        run_id=version.run_id,
        tags=tags,
        description=(text + tags["adapted_on"])[:TAG_LIMIT],
        model_id=uri.removeprefix("models:/"),
    )
    return str(created.version)
