"""Grad-CAM: raw evidence of a planted network, all backbones, and the randomisation check."""

import numpy as np
import pytest
import torch
from torch import nn

from src.common.explain import gradcam
from src.common.explain.figures import overlay
from src.common.scoring.networks.backbones import REGISTRY, Backbone
from src.common.scoring.networks.net import Body, Net, build, prepare

CELL = 8  # px a side of a map cell of the planted network


@pytest.fixture
def planted() -> Net:
    """Evidence for dead is brightness, for live nothing else than a constant: 64 px windows, 8 x 8
    map cells.
    """
    body = Body(nn.Sequential(nn.AvgPool2d(CELL), nn.Conv2d(3, 2, 1)))
    net = Net(Backbone("planted", 64, (0.0,) * 3, (1.0,) * 3, 2, "none"), body)
    with torch.no_grad():
        body.layers[1].weight[:] = torch.tensor([1 / 3, 0.0]).view(2, 1, 1, 1)
        body.layers[1].bias[:] = 0
        net.head.weight[:] = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
        net.head.bias[:] = torch.tensor([-0.5, 0.5])
    return net


def spot(row: int, column: int, level: int = 255) -> np.ndarray:
    """A black window with one cell of the given grey level."""
    window = np.zeros((64, 64), np.uint8)
    window[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = level
    return window


def raw_maps(net, windows: np.ndarray, label: str, **options) -> np.ndarray:
    return gradcam.of_class(gradcam.evidence(net, windows, **options), label)


def test_maximum_lies_on_the_planted_evidence(planted):
    places = [(0, 0), (2, 5), (7, 3)]
    maps = raw_maps(planted, np.stack([spot(*place) for place in places]), "dead", batch_size=2)
    assert maps.shape == (3, 8, 8) and maps.dtype == np.float32
    assert [np.unravel_index(m.argmax(), m.shape) for m in maps] == places
    np.testing.assert_allclose(
        maps.max((1, 2)), 1 / 64, rtol=1e-6
    )  # its share of the logit: weight x value / cells
    assert not raw_maps(planted, np.stack([spot(1, 1)]), "live").any()


def test_an_empty_window_does_not_glow(planted):
    windows = np.stack([spot(3, 3), spot(3, 3, level=51), np.zeros((64, 64), np.uint8)])
    maps = raw_maps(planted, windows, "dead")
    scale = maps.max()
    np.testing.assert_allclose(maps.max((1, 2)) / scale, [1, 0.2, 0], atol=1e-6)
    np.testing.assert_array_equal(overlay(windows[2], maps[2], scale), 0)
    assert (
        overlay(windows[1], maps[1], scale)[28, 28].max()
        < overlay(windows[0], maps[0], scale)[28, 28].max()
    )


def test_hooks_are_removed(planted):
    raw_maps(planted, np.stack([spot(1, 1)]), "dead")
    assert not planted.cam_layers[0]._forward_hooks


@pytest.mark.parametrize("pooling", ["last", "levels"])
@pytest.mark.parametrize("arch", REGISTRY)
def test_maps_add_up_to_the_margin(arch, pooling):
    torch.manual_seed(0)
    net = build(arch, pooling=pooling).eval()
    windows = np.random.default_rng(0).integers(0, 256, (2, 224, 224), np.uint8)
    with torch.inference_mode():
        logits = net(prepare(net.backbone, windows)).numpy()
    dead, live = (raw_maps(net, windows, label) for label in ("dead", "live"))
    bias = net.head.bias.numpy()
    expected = logits[:, 0] - logits[:, 1] - (bias[0] - bias[1])
    tolerance = (
        1e-3 if pooling == "last" else 2e-2
    )  # maps of several levels are resized before they are added
    np.testing.assert_allclose(
        dead.sum((1, 2)) - live.sum((1, 2)), expected, rtol=tolerance, atol=1e-4
    )
    for maps in (dead, live):
        assert (
            maps.ndim == 3
            and maps.shape[1] == maps.shape[2] >= 7
            and np.isfinite(maps).all()
            and (maps >= 0).all()
        )
    assert not ((dead > 0) & (live > 0)).any()


def test_sanity_tells_changed_maps_from_unchanged_ones():
    random = np.random.default_rng(0)
    maps = [random.random((7, 7)) for _ in range(6)]
    found = gradcam.sanity(
        maps, {"head": [maps], "all": [[random.random((7, 7)) for _ in range(6)]]}
    )
    assert found["head"]["mean"] == pytest.approx(1) and found["head"]["pairs"] == 6
    assert found["all"]["mean_absolute"] < 0.3 and found["other_windows"]["mean_absolute"] < 0.3
    assert gradcam.sanity(maps, {"head": [[np.zeros((7, 7))] * 6]})["head"]["undefined"] == 6


def test_randomised_parts():
    net = build("squeezenet1_1")
    state = torch.random.get_rng_state()
    head, every = (
        gradcam.randomised(net, "squeezenet1_1", part, seed=1) for part in ("head", "all")
    )
    again = gradcam.randomised(net, "squeezenet1_1", "all", seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    first = "body.layers.0.weight"
    assert torch.equal(head.state_dict()[first], net.state_dict()[first])
    assert not torch.equal(head.head.weight, net.head.weight)
    assert not torch.equal(every.state_dict()[first], net.state_dict()[first])
    assert all(
        torch.equal(a, b) for a, b in zip(every.state_dict().values(), again.state_dict().values())
    )
