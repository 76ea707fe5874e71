"""Resolves the first weights of one role's backbone (filter or model) once, as safetensors that DVC
versions.

`python -m src.stages.weights filter|model`; writes models/weights/ROLE.
"""

import hashlib
import json
import sys

from safetensors.torch import save_file

from ..common.scoring.backbones import UnknownBackbone, build
from ..common.weights.pretrained import WeightsError, resolve
from ..common.workspace.params import load
from ..common.workspace.paths import MODELS


def main(role: str) -> dict[str, str]:
    """Runs the stage for a role; returns the record written to source.json."""
    section = load(role)
    try:
        build(
            section.arch
        )  # refuses a model that this project cannot use before anything is downloaded
        state, source = resolve(section.arch, section.weights)
    except (WeightsError, UnknownBackbone) as error:
        sys.exit(f"error: {role}.arch {section.arch}, {role}.weights {section.weights}: {error}")
    directory = MODELS / "weights" / role
    directory.mkdir(parents=True, exist_ok=True)
    save_file(state, directory / "model.safetensors")
    digest = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    source = {"role": role, "arch": section.arch, **source, "sha256": digest}
    (directory / "source.json").write_text(json.dumps(source, indent=2) + "\n")
    print(f"weights@{role}: {section.arch}, {source['weights']} ({source['origin']})")
    return source


if __name__ == "__main__":
    main(sys.argv[1])
