"""Grad-CAM as raw evidence, and the test that it depends on what was learned.

Grad-CAM: Selvaraju et al. 2017. The target is the margin of a class over the other, z_c - z_other,
for the probability depends on nothing else: what both logits share is left from the head's random
start, since the gradients of cross entropy add up to zero over the classes. Gradients are taken
element by element (HiResCAM, Draelos and Carin 2020): for average pooling this is Grad-CAM itself,
and it serves pooled deviations too. As the pooled maps are classified linearly, a map before ReLU
adds up to the margin without its bias: values are logit units per map cell, comparable between
patches and models. The maps of several levels are added in the resolution of the finest.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pandas as pd
import torch
from pytorch_grad_cam import HiResCAM
from scipy.stats import spearmanr

from ..patches.store import PatchStore
from ..scoring.networks.backbones import CLASSES
from ..scoring.networks.inference import WINDOWS
from ..scoring.networks.net import Net, build, prepare


class RawGradCAM(HiResCAM):
    """The library's Grad-CAM before its ReLU and its stretching of every map to 0..1, and in the
    resolution of the finest layer.

    Stretched, a patch without any evidence glows as brightly as one full of it.
    """

    def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth) -> list[np.ndarray]:
        kept = self.activations_and_grads
        pairs = [
            [part[i].cpu().numpy() for part in (kept.activations, kept.gradients)]
            for i in range(len(kept.activations))
        ]
        return [
            self.get_cam_image(input_tensor, layer, targets, *pair, eigen_smooth)
            for layer, pair in zip(self.target_layers, pairs)
        ]

    def aggregate_multi_layers(self, cam_per_target_layer: list[np.ndarray]) -> np.ndarray:
        finest = max(cam_per_target_layer, key=lambda maps: maps.shape[-1]).shape[-1]
        return sum(spread(maps, finest) for maps in cam_per_target_layer)


def spread(maps: np.ndarray, size: int) -> np.ndarray:
    """Maps (N, h, h) in (N, size, size) cells, each value shared out among the cells it covers: the
    sum stays.
    """
    share = (maps.shape[-1] / size) ** 2
    return share * np.stack([enlarge(cam, size) for cam in maps])


def margin(index: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Target of the class with that index: its logit less the other's, from one window's logits
    (2,).
    """
    return lambda logits: logits[index] - logits[1 - index]


def of_class(signed: np.ndarray, label: str) -> np.ndarray:
    """The Grad-CAM of a class, >= 0 and not stretched, from maps of `evidence`: its margin is the
    other's with the sign changed, and so are the maps before ReLU.
    """
    return np.maximum(signed if label == "live" else -signed, 0)


def evidence(net: Net, windows: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """Where windows (N, s, s) uint8 of one size look live, above 0, or dead, below: (N, h, w)
    float32.

    h, w: resolution of the network's finest CAM layer. The network is left in evaluation mode, its
    weights frozen: the backward pass then ends at the layers and costs next to nothing.
    """
    net.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    layers = net.cam_layers
    cuts = [
        layer.register_forward_hook(lambda module, inputs, output: output.detach().requires_grad_())
        for layer in layers
    ]
    targets, maps = [margin(CLASSES.index("live"))], []
    try:
        with RawGradCAM(net, layers) as cam:
            for start in range(0, len(windows), batch_size):
                batch = prepare(net.backbone, windows[start : start + batch_size])
                maps.append(
                    cam(batch.contiguous(memory_format=torch.channels_last), targets * len(batch))
                )
    finally:
        for cut in cuts:
            cut.remove()
    return np.concatenate(maps).astype(np.float32)


def window_evidence(net: Net, store: PatchStore, table: pd.DataFrame) -> list[np.ndarray]:
    """`evidence` of each row (image_id, y, x, size): N arrays (h, w) float32."""
    maps: list[np.ndarray] = [np.empty(0)] * len(table)
    for _, rows in table.reset_index(drop=True).groupby("size"):
        windows = np.stack([store.window(*row) for row in rows[WINDOWS].itertuples(index=False)])
        for position, cam in zip(rows.index, evidence(net, windows), strict=True):
            maps[position] = cam
    return maps


def enlarge(cam: np.ndarray, size: int) -> np.ndarray:
    """A map (h, w) in (size, size) by bilinear interpolation, which exceeds no value of the map."""
    return cv2.resize(np.asarray(cam, np.float32), (size, size), interpolation=cv2.INTER_LINEAR)


def randomised(net: Net, arch: str, part: str, seed: int) -> Net:
    """The network with new random weights in its `head` or in `all` of it, from a seed; torch's own
    state is kept.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = (
            build(arch, pooling=net.pooling)
            if part == "all"
            else Net(net.backbone, net.body, net.pooling)
        )
    return fresh.eval()


def rank_correlations(maps: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> np.ndarray:
    """Spearman's rank correlation of each map (h, w) with its counterpart: (N,), NaN where one of
    them is constant.
    """
    return np.array([_spearman(a.ravel(), b.ravel()) for a, b in zip(maps, others, strict=True)])


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return np.nan if np.ptp(a) == 0 or np.ptp(b) == 0 else float(spearmanr(a, b).statistic)


def sanity(maps: Sequence[np.ndarray], random: dict[str, Sequence[Sequence[np.ndarray]]]) -> dict:
    """Sanity check by randomised weights (Adebayo et al. 2018): maps must change when what was
    learned is taken away.

    maps: of some windows, by the trained network; random: per part made random (`head`, `all`), for
    several draws, maps of the same windows. For each part the mean rank correlation with the
    trained network's maps and the mean of its absolute value. other_windows: the same between maps
    of different windows, what a common layout alone gives.
    """
    shifted = [*maps[len(maps) // 2 :], *maps[: len(maps) // 2]]
    result = {"windows": len(maps), "other_windows": _summary(rank_correlations(maps, shifted))}
    for part, draws in random.items():
        result[part] = _summary(
            np.concatenate([rank_correlations(maps, changed) for changed in draws])
        )
    return result


def _summary(values: np.ndarray) -> dict:
    kept = values[np.isfinite(values)]
    mean, absolute = (float(v.mean()) if len(kept) else None for v in (kept, np.abs(kept)))
    return {
        "mean": mean,
        "mean_absolute": absolute,
        "pairs": len(kept),
        "undefined": len(values) - len(kept),
    }
