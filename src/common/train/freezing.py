"""Stages of a pretrained body that stay as they are while the rest learns."""

from torch import nn

from ..scoring.networks.net import Net
from ..scoring.networks.stain import UNet


def freeze(net: Net | UNet, stages: int) -> None:
    """Leaves the first `stages` of a body as they are, with all that lies before them and their
    batch statistics: the finest maps take most of a step, and a few sessions have little to teach
    them. With 0 all of it learns.

    The depth-wise filters of the later stages stay as well: their gradient is dear on a processor,
    and gains nothing (docs/accuracy.md). A backbone that names no stages has all of it learn.
    """
    names = net.backbone.levels
    if not stages or not names:
        return
    modules = list(net.body.layers.named_modules())
    last = names[stages - 1]
    ends = [i for i, (m, _) in enumerate(modules) if m == last or m.startswith(f"{last}.")]
    for _, module in modules[: ends[-1] + 1]:
        module.training = False  # of itself alone: some of what follows may lie inside it
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
    for module in net.body.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.weight.requires_grad_(False)
