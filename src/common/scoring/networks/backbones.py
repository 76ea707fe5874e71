"""Backbones, each with its own facts: input size, normalisation, feature width.

This file ships inside registered models. It needs timm only for a backbone of timm's that is not
registered here, and no torch, so that what asks for facts alone starts at once.
"""

from dataclasses import dataclass
from difflib import get_close_matches

from .. import ScoringError

CLASSES = ("dead", "live")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
LEVELS = 4  # stages that pooling `levels` takes


@dataclass(frozen=True)
class Backbone:
    """What a backbone expects and yields: input pixels a side, mean and std per channel, width of
    its features.

    levels: the modules inside the body whose outputs pooling `levels` takes, fine to coarse.
    dropout: of the features, in training, as in the backbone's own classifier.
    """

    name: str
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    feature_dim: int
    library: str
    levels: tuple[str, ...] = ()
    dropout: float = 0.2


REGISTRY = {
    "resnet18": Backbone(
        "resnet18", 224, IMAGENET_MEAN, IMAGENET_STD, 512, "torchvision", ("4", "5", "6", "7"), 0.0
    ),
    "squeezenet1_1": Backbone(
        "squeezenet1_1",
        224,
        IMAGENET_MEAN,
        IMAGENET_STD,
        512,
        "torchvision",
        ("4", "7", "9", "12"),
        0.5,
    ),
    # torchvision's weights were trained on inputs scaled to -1..1; its transform_input only undoes
    # ImageNet's scaling
    "inception_v3": Backbone(
        "inception_v3", 299, HALF, HALF, 2048, "torchvision", ("6", "9", "14", "17"), 0.5
    ),
    "tf_efficientnet_lite0": Backbone(
        "tf_efficientnet_lite0",
        224,
        HALF,
        HALF,
        1280,
        "timm",
        ("blocks.1", "blocks.2", "blocks.4", "blocks.6"),
    ),
}


class UnknownBackbone(ScoringError):
    """No backbone of that name, or one that this project cannot use."""


def facts(arch: str) -> Backbone:
    """The facts of a registered backbone, or of any convolutional model of timm as `timm:NAME`.

    Raises UnknownBackbone naming the choices.
    """
    if arch in REGISTRY:
        return REGISTRY[arch]
    name = arch.removeprefix("timm:")
    if name == arch:
        raise UnknownBackbone(
            f"no backbone '{arch}': use {', '.join(REGISTRY)}, or timm:NAME for one of timm's"
        )
    import timm

    if not timm.is_model(name):
        near = (
            ", ".join(get_close_matches(name, timm.list_models(), 8, 0.4))
            or "see timm.list_models()"
        )
        raise UnknownBackbone(f"timm has no model '{name}': {near}")
    config = timm.get_pretrained_cfg(name)
    model = timm.create_model(name, num_classes=0)
    stages = getattr(model, "feature_info", [])
    levels = tuple(stage["module"] for stage in list(getattr(stages, "info", stages))[-LEVELS:])
    return Backbone(
        name,
        config.input_size[-1],
        tuple(config.mean),
        tuple(config.std),
        model.num_features,
        "timm",
        levels,
    )
