"""Every backbone of the registry: shapes, pooled features, weights, Grad-CAM's layer, training."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from src.common.scoring.networks.backbones import REGISTRY, UnknownBackbone, facts
from src.common.scoring.networks.inference import load_model
from src.common.scoring.networks.net import build, library_model, prepare
from src.common.workspace.backbone import BACKBONES

ALL = {
    "resnet18": (224, 512),
    "squeezenet1_1": (224, 512),
    "inception_v3": (299, 2048),
    "tf_efficientnet_lite0": (224, 1280),
    "timm:test_efficientnet": (160, 256),
}


def _images(arch: str, count: int = 2) -> torch.Tensor:
    windows = np.random.default_rng(0).integers(0, 256, (count, 64, 64)).astype(np.uint8)
    return prepare(facts(arch), windows)


def test_every_registered_backbone_is_tested():
    assert set(REGISTRY) < set(ALL)


@pytest.mark.parametrize("arch", ALL)
def test_backbone(arch, tmp_path):
    size, width = ALL[arch]
    torch.manual_seed(0)
    net = build(arch).eval()
    assert (net.backbone.input_size, net.backbone.feature_dim) == (size, width)
    images, seen = _images(arch), {}
    assert images.shape == (2, 3, size, size)
    assert images.dtype == torch.float32
    hooks = [
        net.cam_layers[-1].register_forward_hook(lambda module, given, out: seen.update(map=out)),
        net.head.register_forward_pre_hook(lambda module, given: seen.update(head=given[0])),
    ]
    with torch.no_grad():
        logits = net(images)
        features = net.features(images)
    assert logits.shape == (2, 2)
    assert features.shape == (2, width)
    assert seen["map"].ndim == 4
    assert seen["map"].shape[:2] == (2, width)
    assert min(seen["map"].shape[2:]) > 1  # a map, not a point
    assert torch.equal(
        features, seen["head"]
    )  # dropout sleeps in evaluation: pooled features are the head's input
    for hook in hooks:
        hook.remove()
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    torch.manual_seed(1)
    other = build(arch).eval()
    with torch.no_grad():
        assert not torch.equal(other(images), logits)
        other.load_state_dict(load_file(tmp_path / "model.safetensors"))
        assert torch.equal(other(images), logits)


@pytest.mark.parametrize("arch", ALL)
def test_a_body_takes_the_librarys_weights_and_trains_on_a_batch_of_two(arch, tmp_path):
    """At Inception's 299 px too, where its auxiliary classifier used to stop small batches."""
    torch.manual_seed(3)
    state = library_model(facts(arch)).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    net = build(arch, tmp_path / "w.safetensors").train()
    first = next(name for name in state if name.endswith("weight"))
    assert any(torch.equal(state[first], tensor) for tensor in net.state_dict().values())
    loss = torch.nn.functional.cross_entropy(net(_images(arch)), torch.tensor([0, 1]))
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert net.head.weight.grad.abs().sum() > 0
    assert sum(p.grad is None for p in net.body.parameters()) == 0


@pytest.mark.parametrize("arch", ALL)
def test_levels_are_pooled_fine_to_coarse(arch, tmp_path):
    torch.manual_seed(0)
    net = build(arch, pooling="levels").eval()
    images, sizes = _images(arch), []
    hooks = [
        layer.register_forward_hook(lambda m, i, out: sizes.append(out.shape))
        for layer in net.cam_layers
    ]
    with torch.no_grad():
        features = net.features(images)
    for hook in hooks:
        hook.remove()
    assert [s[-1] for s in sizes] == sorted((s[-1] for s in sizes), reverse=True) and len(
        sizes
    ) == 4
    assert features.shape == (2, 2 * sum(s[1] for s in sizes)) == (2, net.feature_dim)
    assert not any(layer._forward_hooks for layer in net.cam_layers)
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    loaded = load_model(tmp_path, {"arch": arch, "pooling": "levels"})
    with torch.no_grad():
        assert loaded.pooling == "levels" and torch.equal(loaded(images), net(images))


def test_a_level_gives_mean_and_deviation_of_its_channels():
    net = build("squeezenet1_1", pooling="levels").eval()
    images, seen = _images("squeezenet1_1"), []
    with torch.no_grad():
        hook = net.cam_layers[0].register_forward_hook(lambda m, i, out: seen.append(out))
        features = net.features(images)
        hook.remove()
    [maps] = seen
    width = maps.shape[1]
    torch.testing.assert_close(features[:, :width], maps.mean((2, 3)))
    torch.testing.assert_close(
        features[:, width : 2 * width], maps.std((2, 3), correction=0), rtol=1e-3, atol=1e-3
    )


def test_weights_of_another_backbone_are_refused(tmp_path):
    save_file(library_model(facts("squeezenet1_1")).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(
        ValueError, match=r"other\.safetensors does not fit the backbone: .* tensors lack"
    ):
        build("resnet18", tmp_path / "other.safetensors")


def test_logits_of_squeezenet_can_be_negative():
    """Its own head ends in a ReLU, under which no class could be spoken against."""
    torch.manual_seed(0)
    net = build("squeezenet1_1").eval()
    torch.nn.init.normal_(net.head.weight)
    with torch.no_grad():
        assert net(_images("squeezenet1_1", 8)).min() < 0


def test_a_transformer_is_refused():
    with pytest.raises(UnknownBackbone, match="no convolutional feature map"):
        build("timm:test_vit")


def test_an_unknown_name_tells_the_choices():
    with pytest.raises(UnknownBackbone, match="resnet18, squeezenet1_1"):
        facts("resnet19")
    with pytest.raises(UnknownBackbone, match=r"timm has no model 'resnet9999'.*resnet"):
        facts("timm:resnet9999")


def test_prepare_normalises_and_repeats_the_grey_channel():
    backbone = facts("resnet18")
    grey = np.full((1, 224, 224), 255, np.uint8)
    found = prepare(backbone, grey)[0]
    expected = [(1 - m) / s for m, s in zip(backbone.mean, backbone.std)]
    assert found.mean((1, 2)).tolist() == pytest.approx(expected, abs=1e-5)


def test_prepare_resizes_alike_one_by_one_and_in_a_batch():
    backbone = facts("inception_v3")
    windows = np.random.default_rng(0).integers(0, 256, (3, 224, 224)).astype(np.uint8)
    batch = prepare(backbone, windows)
    assert batch.shape == (3, 3, 299, 299)
    assert all(torch.equal(prepare(backbone, w[None])[0], b) for w, b in zip(windows, batch))


@pytest.mark.parametrize("arch", ["squeezenet1_1", "tf_efficientnet_lite0"])
def test_genuine_weights_from_a_file(arch):
    folder = os.environ.get("UNSTAINED_WEIGHTS")
    if not folder:
        pytest.skip("UNSTAINED_WEIGHTS names no folder of genuine ImageNet weights")
    net = build(arch, Path(folder) / f"{arch}.safetensors").eval()
    with torch.no_grad():
        assert torch.isfinite(net.features(_images(arch))).all()


def test_params_allow_the_registered_names():
    assert tuple(REGISTRY) == BACKBONES
