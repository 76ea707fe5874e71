"""The stain network: shapes over all backbones, what normalisation takes out, turns, seams, windows."""

import numpy as np
import pytest
import torch

from src.common.scoring import stain as stain_module
from src.common.scoring.backbones import REGISTRY, UnknownBackbone
from src.common.scoring.stain import (
    FLOOR,
    StainFacts,
    build_stain,
    normalise,
    predict_stain,
    window_logits,
)

FACTS = StainFacts(reduction=2, band=64, orientations=1)
SMALL = "timm:test_efficientnet"


@pytest.fixture
def frame() -> np.ndarray:
    """A frame (256, 320) uint8 of grain with a brighter square, without zero counts."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(60, 120, (256, 320))
    pixels[64:128, 64:128] += 80
    return pixels.astype(np.uint8)


def small_net(orientations: int = 1):
    torch.manual_seed(0)
    return build_stain(SMALL, StainFacts(2, 64, orientations)).eval()


@pytest.mark.parametrize("arch", [*REGISTRY, SMALL, "timm:mobilenetv3_small_100"])
def test_every_backbone_predicts_two_maps_at_a_quarter_of_its_input(arch):
    net = build_stain(arch, FACTS).eval()
    with torch.inference_mode():
        out = net(torch.randn(2, 1, 128, 160))
    assert out.shape == (2, 2, 32, 40)
    assert out.isfinite().all() and out.std() > 0


@pytest.mark.parametrize("arch", ["timm:vit_tiny_patch16_224", "timm:nothing_like_it"])
def test_a_backbone_without_stages_is_refused_by_name(arch):
    with pytest.raises(UnknownBackbone, match=arch.removeprefix("timm:")):
        build_stain(arch, FACTS)


def test_exposure_and_illumination_do_not_reach_the_network(frame):
    before, _ = normalise(frame, FACTS)
    darker, _ = normalise((frame // 2 + 20).astype(np.uint8), FACTS)
    assert np.corrcoef(before.ravel(), darker.ravel())[0, 1] > 0.99
    tilted = frame + np.linspace(0, 60, frame.shape[1])
    flat, _ = normalise(tilted.astype(np.uint8), FACTS)
    assert abs(np.polyfit(np.arange(160), flat.mean(0), 1)[0] * 160) < 0.3


def test_a_black_border_is_absent_and_changes_nothing_else(frame):
    bordered = np.zeros((256, 400), np.uint8)
    bordered[:, :320] = frame
    image, present = normalise(bordered, FACTS)
    assert not present[:, 161:].any() and present[:, :159].all()
    assert (image[:, 161:] == 0).all() and image[:, :159].std() > 0.1


def test_a_frame_of_nothing_but_border_has_no_image():
    image, present = normalise(np.zeros((64, 64), np.uint8), FACTS)
    assert not present.any() and (image == 0).all()


def test_eight_orientations_turn_with_the_frame(frame):
    net = small_net(8)
    square = frame[:, :256]
    turned = predict_stain(net, np.ascontiguousarray(np.rot90(square)))
    assert np.allclose(np.rot90(turned, -1, (1, 2)), predict_stain(net, square), atol=1e-3)


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
    monkeypatch.setattr(stain_module, "TILE", 512)
    tiled = predict_stain(small_net(), pixels)
    assert np.abs(np.log(tiled[0] / whole[0])).max() < 0.05


def test_window_logits_are_of_the_mean_inside():
    maps = np.zeros((2, 100, 100), np.float32)
    maps[0, :50] = 0.5
    found = window_logits(maps, np.array([[0, 0, 50], [50, 0, 50], [25, 10, 50]]))
    assert np.allclose(found, -np.log(np.array([0.5, 0.0, 0.25]) + FLOOR))
