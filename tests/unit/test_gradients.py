"""Gradients of depth-wise convolutions in bf16: those of PyTorch, by a way that is not slow."""

import pytest
import torch
from torch import nn

from src.common.train import gradients
from src.common.train.gradients import QuickGradients


def one_step(layer: nn.Module, images: torch.Tensor, bf16: bool) -> list[torch.Tensor]:
    """Output, and gradients of the images and of what learns in a layer."""
    images, learn = (
        images.clone().requires_grad_(),
        [p for p in layer.parameters() if p.requires_grad],
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = layer(images)
    weight = torch.linspace(-1, 1, out.numel()).view_as(out)
    return [out.detach(), *torch.autograd.grad((out.float() * weight).sum(), [images, *learn])]


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel, stride, padding", [(3, 2, 1), (5, 1, 2), (5, 2, 0)])
def test_they_are_those_of_pytorch(kernel, stride, padding, bias, learns, monkeypatch):
    torch.manual_seed(1)
    layer = nn.Conv2d(8, 8, kernel, stride, padding, groups=8, bias=bias).requires_grad_(learns)
    images = torch.randn(2, 8, 17, 17).contiguous(memory_format=torch.channels_last)
    usual = one_step(layer, images, bf16=True)
    took = []
    monkeypatch.setattr(
        gradients, "_is_slow", lambda *a, f=gradients._is_slow: took.append(f(*a)) or took[-1]
    )
    with QuickGradients():
        quick = one_step(layer, images, bf16=True)
    assert took == [True]
    for one, other in zip(usual, quick, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-2, atol=1e-2)
    if torch.cpu._is_avx512_bf16_supported():  # else PyTorch's own is another way as well
        assert torch.equal(usual[1], quick[1])


@pytest.mark.parametrize("bf16, layer", [
    (False, nn.Conv2d(8, 8, 5, groups=8)),
    (True, nn.Conv2d(8, 8, 5)),
    (True, nn.Conv2d(8, 8, 3, groups=8)),
    (True, nn.Conv2d(8, 8, 5, padding="same", groups=8)),
])  # fmt: skip
def test_what_is_fast_already_is_left_alone(bf16, layer, monkeypatch):
    monkeypatch.setattr(gradients._Convolution, "apply", None)
    with QuickGradients():
        one_step(layer, torch.randn(1, 8, 9, 9), bf16)


def test_a_stride_that_is_one_number_is_left_to_pytorch():
    filters, images = torch.randn(8, 1, 3, 3), torch.randn(1, 8, 9, 9)
    with QuickGradients(), torch.autocast("cpu", torch.bfloat16):
        out = nn.functional.conv2d(images, filters, None, 2, 1, 1, 8)
    assert out.shape == (1, 8, 5, 5)
