"""One network shape for all backbones: a convolutional body, global pooling and one linear layer.

Pooling `last` averages the body's output, as the backbones themselves do; for SqueezeNet this
equals its own head (1 x 1 convolution, then average) without the final ReLU, which would keep
logits from going below zero. Pooling `levels` takes mean and standard deviation of four stages of
the body, fine to coarse, so that the linear layer also sees texture that the last stage has
forgotten. The maps that are pooled are the layers for Grad-CAM. This file ships inside registered
models.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from .. import ScoringError
from .backbones import CLASSES, Backbone, UnknownBackbone, facts


class Body(nn.Module):
    """The convolutional part of a library's model: (N, 3, S, S) to a feature map (N, D, h, w)."""

    def __init__(self, layers: nn.Module, call: str = "forward"):
        super().__init__()
        self.layers = layers
        self._call = call

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return getattr(self.layers, self._call)(images)


class Net(nn.Module):
    """A backbone with a linear classifier: (N, 3, S, S) float to (N, classes) logits.

    feature_dim: width of `features`. Raises UnknownBackbone if a body has no named stages for
    pooling `levels`.
    """

    def __init__(self, backbone: Backbone, body: Body, pooling: str = "last"):
        super().__init__()
        self.backbone = backbone
        self.body = body
        self.pooling = pooling
        self.dropout = nn.Dropout(backbone.dropout)
        self.feature_dim = backbone.feature_dim if pooling == "last" else self._width_of_levels()
        self.head = nn.Linear(self.feature_dim, len(CLASSES))

    @property
    def cam_layers(self) -> list[nn.Module]:
        """The layers whose (N, D, h, w) outputs are pooled, and which Grad-CAM weighs; fine to
        coarse.
        """
        if self.pooling == "last":
            return [self.body]
        return [self.body.layers.get_submodule(name) for name in self.backbone.levels]

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """What the linear layer sees, (N, feature_dim): the body's average-pooled output, or that
        of its levels.
        """
        if self.pooling == "last":
            return self.body(images).mean((2, 3))
        return torch.cat(
            [torch.cat([m.mean((2, 3)), _deviation(m)], 1) for m in self.maps(images)], 1
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.features(images)))

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What is pooled, (N, D, h, w) each, fine to coarse."""
        return stage_maps(self.body, self.cam_layers, images)

    def _width_of_levels(self) -> int:
        size, training = self.backbone.input_size, self.body.training
        if not self.backbone.levels:
            raise UnknownBackbone(f"{self.backbone.name} names no stages: use model.pooling last")
        with torch.inference_mode():
            maps = self.body.eval() and self.maps(torch.zeros(1, 3, size, size))
        self.body.train(training)
        return 2 * sum(m.shape[1] for m in maps)


def stage_maps(body: Body, stages: list[nn.Module], images: torch.Tensor) -> list[torch.Tensor]:
    """What modules inside a body yield for images (N, 3, S, S), in the order of computation."""
    maps: list[torch.Tensor] = []
    hooks = [
        stage.register_forward_hook(lambda m, i, output: maps.append(output)) for stage in stages
    ]
    try:
        body(images)
    finally:
        for hook in hooks:
            hook.remove()
    return maps


def _deviation(maps: torch.Tensor) -> torch.Tensor:
    """Standard deviation of each channel over a map (N, D, h, w); the small term keeps its gradient
    finite at 0.
    """
    return (maps.var((2, 3), correction=0) + 1e-8).sqrt()


def build(arch: str, weights: Path | None = None, pooling: str = "last") -> Net:
    """A network for `arch`; its body from a safetensors file of the library's names, or randomly
    initialised.

    The head is always new. Raises UnknownBackbone for a model without a convolutional feature map,
    WrongWeights if the file does not belong to the backbone.
    """
    return Net(facts(arch), body_of(arch, weights), pooling)


def body_of(arch: str, weights: Path | None = None) -> Body:
    """The convolutional part of a backbone, pretrained or random. Raises as `build`."""
    backbone = facts(arch)
    model = library_model(backbone)
    if weights is not None:
        load_body(model, load_file(weights), f"{weights}")
    return _body(backbone, model)


def _body(backbone: Backbone, model: nn.Module) -> Body:
    if backbone.library == "torchvision":
        if backbone.name == "squeezenet1_1":
            return Body(model.features)
        drop = {"avgpool", "dropout", "fc"}
        return Body(
            nn.Sequential(*[layer for name, layer in model.named_children() if name not in drop])
        )
    body = Body(model, "forward_features").eval()
    with torch.inference_mode():
        shape = body(torch.zeros(1, 3, backbone.input_size, backbone.input_size)).shape
    if len(shape) != 4 or shape[1] != backbone.feature_dim:
        raise UnknownBackbone(
            f"timm:{backbone.name} yields {tuple(shape)}, no convolutional feature map (N, D, h, w)"
        )
    return body


class WrongWeights(ScoringError):
    """A file of weights is not of the backbone that it is to be loaded into."""


def library_model(backbone: Backbone) -> nn.Module:
    """The library's own model, randomly initialised, under its own parameter names, without
    Inception's auxiliary classifier.
    """
    if backbone.library == "timm":
        import timm

        return timm.create_model(backbone.name, num_classes=0)
    from torchvision.models import get_model

    options = {"aux_logits": False, "init_weights": True} if backbone.name == "inception_v3" else {}
    return get_model(backbone.name, weights=None, **options)


def load_body(model: nn.Module, state: dict[str, torch.Tensor], name: str) -> None:
    """Loads all but the classifier of a library's model.

    Raises WrongWeights naming tensors that lack or do not fit.
    """
    own = {k: v for k, v in model.state_dict().items() if not _is_classifier(k)}
    lacking = [k for k, v in own.items() if k not in state or state[k].shape != v.shape]
    if lacking:
        missing = f"{len(lacking)} of {len(own)} tensors lack, as {lacking[0]}"
        raise WrongWeights(f"{name} does not fit the backbone: {missing}")
    model.load_state_dict({k: state[k] for k in own}, strict=False)


def _is_classifier(key: str) -> bool:
    return key.split(".")[0] in ("fc", "classifier", "head", "AuxLogits") or key.endswith(
        "num_batches_tracked"
    )


def prepare(backbone: Backbone, windows: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Grey windows (N, h, w) uint8 as a normalised float32 batch (N, 3, S, S) in the backbone's
    input size.
    """
    grey = torch.as_tensor(
        np.ascontiguousarray(windows) if isinstance(windows, np.ndarray) else windows
    )
    images = grey.unsqueeze(1).float() / 255
    size = (backbone.input_size, backbone.input_size)
    if images.shape[-2:] != size:
        images = nn.functional.interpolate(
            images, size, mode="bilinear", antialias=True, align_corners=False
        )
    return normalised(backbone, images)


def normalised(backbone: Backbone, images: torch.Tensor) -> torch.Tensor:
    """Grey images (N, 1, h, w) in 0..1 as the backbone's three channels (N, 3, h, w)."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1).to(images) for v in (backbone.mean, backbone.std))
    return (images - mean) / std
