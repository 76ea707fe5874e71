"""The name of a backbone in params.yaml, refused before any work and without loading torch."""

from difflib import get_close_matches
from typing import Annotated

from pydantic import AfterValidator

# the names of scoring/networks/backbones.py, which loads torch; a test holds the two together
BACKBONES = ("resnet18", "squeezenet1_1", "inception_v3", "tf_efficientnet_lite0")
PREFIX = "timm:"  # whether timm has the rest of the name is seen when its weights are resolved


def known(arch: str) -> str:
    """The name itself. Raises ValueError naming the choices, and the nearest of them."""
    if arch in BACKBONES or (arch.startswith(PREFIX) and arch != PREFIX):
        return arch
    near = get_close_matches(arch.lower(), BACKBONES, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise ValueError(
        f"no such backbone: {meant}allowed are {', '.join(BACKBONES)}, "
        "or timm:NAME for one of timm's"
    )


Arch = Annotated[str, AfterValidator(known)]
