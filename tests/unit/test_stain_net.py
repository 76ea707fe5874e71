"""The stain network: shapes of all backbones, what normalisation removes, turns, seams, windows."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from src.common.scoring.networks import stain as stain_module
from src.common.scoring.networks.backbones import REGISTRY, UnknownBackbone, facts
from src.common.scoring.networks.net import library_model
from src.common.scoring.networks.stain import (
    EXCESS_FLOOR,
    StainFacts,
    StainNet,
    build_stain,
    oriented,
    predict_stain,
    reduced,
    window_logits,
)

FACTS = StainFacts(reduction=2, orientations=1, networks=1)
SMALL = "timm:test_efficientnet"


@pytest.fixture
def frame() -> np.ndarray:
    """A frame (256, 320) uint8 of grain with a brighter square, without zero counts."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(60, 120, (256, 320))
    pixels[64:128, 64:128] += 80
    return pixels.astype(np.uint8)


def small_net(orientations: int = 1, networks: int = 1):
    torch.manual_seed(0)
    return build_stain(SMALL, StainFacts(2, orientations, networks)).eval()


@pytest.mark.parametrize("arch", [*REGISTRY, SMALL, "timm:mobilenetv3_small_100"])
def test_every_backbone_predicts_excess_and_probability(arch):
    torch.manual_seed(1)  # a random Inception saturates, by some seeds everywhere
    net = build_stain(arch, FACTS).eval()
    pixels = np.random.default_rng(0).integers(1, 255, (256, 320)).astype(np.uint8)
    excess, stained = predict_stain(net, pixels)
    assert excess.shape == stained.shape == (256, 320)
    assert (excess > 0).all() and excess.std() > 0
    assert ((stained >= 0) & (stained <= 1)).all() and stained.std() > 0


@pytest.mark.parametrize("pretrained", [True, False])
def test_the_body_learns_and_a_pretrained_one_keeps_its_normalisation(pretrained, tmp_path):
    file = tmp_path / "w.safetensors"
    save_file(library_model(facts(SMALL)).state_dict(), file)
    [net] = build_stain(SMALL, FACTS, file if pretrained else None).train().networks
    assert net.decoder.training
    assert any(m.training for m in net.body.modules()) != pretrained
    net(torch.randn(2, 1, 64, 64).clamp(-1, 1)).sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in net.body.parameters())


@pytest.mark.parametrize("arch", ["timm:vit_tiny_patch16_224", "timm:nothing_like_it"])
def test_a_backbone_without_stages_is_refused_by_name(arch):
    with pytest.raises(UnknownBackbone, match=arch.removeprefix("timm:")):
        build_stain(arch, FACTS)


def test_a_reduced_frame_is_means_of_blocks_and_a_border_is_grey(frame):
    small = reduced(frame, 2)
    blocks = frame.reshape(128, 2, 160, 2).mean((1, 3))
    assert np.allclose(small, blocks / 127.5 - 1, atol=1e-5) and small.dtype == np.float32
    bordered = np.zeros((256, 400), np.uint8)
    bordered[:, :320] = frame
    wide = reduced(bordered, 2)
    assert np.allclose(wide[:, :159], small[:, :159], atol=1e-5)
    assert np.unique(wide[:, 161:]).tolist() == pytest.approx(
        [np.median(frame) / 127.5 - 1], abs=1e-5
    )


def test_a_frame_of_nothing_but_border_is_refused_nothing():
    assert np.isfinite(reduced(np.zeros((64, 64), np.uint8), 2)).all()


def test_eight_orientations_turn_with_the_frame(frame):
    net = small_net(8)
    square = frame[:, :256]
    turned = predict_stain(net, np.ascontiguousarray(np.rot90(square)))
    assert np.allclose(np.rot90(turned, -1, (1, 2)), predict_stain(net, square), atol=1e-3)


def test_networks_take_the_orientations_in_turn_and_are_averaged(frame):
    net = small_net(4, networks=2)
    first, second = net.networks
    for network in (first, second):
        torch.nn.init.normal_(network.out.weight)  # what they say differs
    views = []
    for number, network in enumerate([first, second, first, second]):
        alone = StainNet([network], StainFacts(2, 1, 1))
        turned = oriented(torch.from_numpy(frame), number).numpy().copy()
        maps = torch.from_numpy(predict_stain(alone, turned))
        views.append(oriented(maps, number, back=True).numpy())
    found = predict_stain(net, frame)
    assert np.allclose(found, np.mean(views, 0), rtol=1e-4)
    assert not any(np.allclose(found, view, rtol=1e-2) for view in views)


@pytest.mark.parametrize("height,width", [(256, 320), (250, 333), (224, 224)])
def test_maps_are_as_large_as_the_frame(height, width):
    pixels = np.random.default_rng(0).integers(1, 255, (height, width)).astype(np.uint8)
    maps = predict_stain(small_net(), pixels)
    assert maps.shape == (2, height, width) and maps.dtype == np.float32
    assert (maps[0] > 0).all() and ((maps[1] > 0) & (maps[1] < 1)).all()


def test_tiles_of_a_large_frame_meet_without_a_seam(monkeypatch):
    rng = np.random.default_rng(1)
    pixels = rng.integers(1, 255, (1400, 900)).astype(np.uint8)
    whole = predict_stain(small_net(), pixels)
    monkeypatch.setattr(stain_module, "TILE", 640)
    tiled = predict_stain(small_net(), pixels)
    assert np.abs(np.log(tiled[0] / whole[0])).max() < 0.05


def test_window_logits_are_of_the_mean_inside():
    maps = np.zeros((2, 100, 100), np.float32)
    maps[0, :50] = 0.5
    found = window_logits(maps, np.array([[0, 0, 50], [50, 0, 50], [25, 10, 50]]))
    assert np.allclose(found, -np.log(np.array([0.5, 0.0, 0.25]) + EXCESS_FLOOR))
