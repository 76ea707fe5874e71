"""Resolves the first weights of one role's backbone (filter or model) once, as safetensors that DVC
versions.

`python -m src.stages weights filter|model`; writes models/weights/ROLE.
"""

from safetensors.torch import save_file

from ..common.scoring.networks.net import build
from ..common.weights.pretrained import resolve
from ..common.workspace.cache import file_digest
from ..common.workspace.params import load
from ..common.workspace.paths import MODELS
from ..common.workspace.records import write_json


def main(role: str) -> dict[str, str]:
    """Runs the stage for a role; returns the record written to source.json."""
    section = load(role)
    # Refuses a model that this project cannot use before anything is downloaded
    build(section.arch)
    state, source = resolve(section.arch, section.weights)
    directory = MODELS / "weights" / role
    directory.mkdir(parents=True, exist_ok=True)
    save_file(state, directory / "model.safetensors")
    digest = file_digest(directory / "model.safetensors")
    source = {"role": role, "arch": section.arch, **source, "sha256": digest}
    write_json(directory / "source.json", source)
    print(f"weights@{role}: {section.arch}, {source['weights']} ({source['origin']})")
    return source
