"""Gradients of depth-wise convolutions in bf16 at the speed of 32 bit.

For strides above 1 (gradient of the input) and filters above 3 x 3 (that of the filters) oneDNN has
no fast bf16 kernel on processors, and takes 4 to 30 times as long as in 32 bit: a fifth of a step
of the stain network, a third of the default classifier's. Computed in 32 bit and rounded they are
the same, those of the input to the last bit.
"""

import torch
from torch.nn.functional import conv2d
from torch.overrides import TorchFunctionMode


class QuickGradients(TorchFunctionMode):
    """Within it, convolutions whose bf16 gradients would be slow have them computed in 32 bit."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is conv2d and len(args) == 7 and _is_slow(*args):
            return _Convolution.apply(*args)
        return function(*args, **(kwargs or {}))


def _is_slow(images, filters, bias, stride, padding, dilation, groups: int) -> bool:
    plain = isinstance(stride, tuple) and isinstance(padding, tuple)  # as modules give them
    if not (plain and images.is_cpu and torch.is_autocast_enabled("cpu")):
        return False
    depth_wise = 1 < groups == len(filters)
    large = max(stride) > 1 or max(filters.shape[2:]) > 3
    return depth_wise and large and torch.get_autocast_dtype("cpu") == torch.bfloat16


class _Convolution(torch.autograd.Function):
    """conv2d as autocast computes it, with gradients in 32 bit."""

    @staticmethod
    def forward(ctx, images, filters, bias, *how):
        learns = filters.requires_grad
        ctx.save_for_backward(images if learns else None, filters)
        ctx.shape, ctx.bias, ctx.how = images.shape, bias, how
        return conv2d(images, filters, bias, *how)

    @staticmethod
    def backward(ctx, gradient):
        images, filters = ctx.saved_tensors
        if images is None:  # only their shape counts
            images = torch.empty(ctx.shape, memory_format=torch.channels_last)
        else:
            images = images.bfloat16().float()
        stride, padding, dilation, groups = ctx.how
        sizes = None if ctx.bias is None else [len(ctx.bias)]
        found = torch.ops.aten.convolution_backward(
            gradient.float(), images, filters.bfloat16().float(), sizes, stride,
            padding, dilation, False, [0, 0], groups, ctx.needs_input_grad[:3],
        )  # fmt: skip
        rounded = [None if each is None else each.bfloat16() for each in found]
        return *rounded, None, None, None, None
