"""Grad-CAM as raw evidence, its agreement with the PI stain, and the test that it depends on what was learned.

Grad-CAM: Selvaraju et al. 2017. The target is the margin of a class over the other, z_c - z_other, for the probability
depends on nothing else: what both logits share is left from the head's random start, since the gradients of cross
entropy add up to zero over the classes. Gradients are taken element by element (HiResCAM, Draelos and Carin 2020): for
average pooling this is Grad-CAM itself, and it serves pooled deviations too. As the pooled maps are classified
linearly, a map before ReLU adds up to the margin without its bias: values are logit units per map cell, comparable
between patches and models. The maps of several levels are added in the resolution of the finest.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pandas as pd
import torch
from pytorch_grad_cam import HiResCAM
from scipy.stats import spearmanr

from .patches import PatchStore
from .scoring.backbones import CLASSES, Net, build, prepare
from .scoring.inference import WINDOWS

BRIGHT = 2.0  # times the field's median PI


class RawGradCAM(HiResCAM):
    """The library's Grad-CAM without its stretching of every map to 0..1, and in the resolution of the finest layer.

    Stretched, a patch without any evidence glows as brightly as one full of it.
    """

    def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth) -> list[np.ndarray]:
        kept = self.activations_and_grads
        pairs = [
            [part[i].cpu().numpy() for part in (kept.activations, kept.gradients)] for i in range(len(kept.activations))
        ]
        return [
            self.get_cam_image(input_tensor, layer, targets, *pair, eigen_smooth)
            for layer, pair in zip(self.target_layers, pairs)
        ]

    def aggregate_multi_layers(self, cam_per_target_layer: list[np.ndarray]) -> np.ndarray:
        finest = max(cam_per_target_layer, key=lambda maps: maps.shape[-1]).shape[-1]
        return np.maximum(sum(spread(maps, finest) for maps in cam_per_target_layer), 0)


def spread(maps: np.ndarray, size: int) -> np.ndarray:
    """Maps (N, h, h) in (N, size, size) cells, each value shared out among the cells it covers: the sum stays."""
    share = (maps.shape[-1] / size) ** 2
    return share * np.stack([enlarge(cam, size) for cam in maps])


def margin(index: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Target of the class with that index: its logit less the other's, from one window's logits (2,)."""
    return lambda logits: logits[index] - logits[1 - index]


def raw_maps(net: Net, windows: np.ndarray, label: str, batch_size: int = 16) -> np.ndarray:
    """Grad-CAM of a class for windows (N, s, s) uint8 of one size: (N, h, w) float32 >= 0, not stretched.

    h, w: resolution of the network's finest CAM layer. The network is left in evaluation mode, its weights frozen: the
    backward pass then ends at the layers and costs next to nothing.
    """
    net.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    layers = net.cam_layers
    cuts = [
        layer.register_forward_hook(lambda module, inputs, output: output.detach().requires_grad_()) for layer in layers
    ]
    targets, found = [margin(CLASSES.index(label))], []
    try:
        with RawGradCAM(net, layers) as cam:
            for start in range(0, len(windows), batch_size):
                batch = prepare(net.backbone, windows[start : start + batch_size])
                found.append(cam(batch.contiguous(memory_format=torch.channels_last), targets * len(batch)))
    finally:
        for cut in cuts:
            cut.remove()
    return np.concatenate(found).astype(np.float32)


def window_maps(net: Net, store: PatchStore, table: pd.DataFrame, label: str) -> list[np.ndarray]:
    """Grad-CAM of a class for each row of a table (image_id, y, x, size): N arrays (h, w) float32."""
    found: list[np.ndarray] = [np.empty(0)] * len(table)
    for _, rows in table.reset_index(drop=True).groupby("size"):
        windows = np.stack([store.window(*row) for row in rows[WINDOWS].itertuples(index=False)])
        for position, cam in zip(rows.index, raw_maps(net, windows, label), strict=True):
            found[position] = cam
    return found


def enlarge(cam: np.ndarray, size: int) -> np.ndarray:
    """A map (h, w) in (size, size) by bilinear interpolation, which exceeds no value of the map."""
    return cv2.resize(np.asarray(cam, np.float32), (size, size), interpolation=cv2.INTER_LINEAR)


def _nearest(mask: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(mask.astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST) > 0


def pi_ratio(store: PatchStore, image_id: str, y: int, x: int, size: int) -> np.ndarray:
    """PI over the field's background (its median): (size // 4, size // 4) float. Above BRIGHT it counts as bright.

    From counts: the stored 8-bit PI runs linearly from the frame's pi_low to its pi_high, so that a field without any
    stained nucleus fills the 8-bit range with noise.
    """
    frame = store.frames.loc[image_id]
    step = (frame["pi_high"] - frame["pi_low"]) / 255
    return (frame["pi_low"] + step * store.pi_window(image_id, y, x, size)) / max(frame["pi_background"], 1.0)


def agreement(maps: Sequence[np.ndarray], bright: Sequence[np.ndarray], groups: np.ndarray, seed: int) -> dict:
    """How well maps (h, w) point at bright areas (m, m) bool of the same windows, against chance.

    pointing: share of windows whose map's maximum lies in the bright area (Zhang et al. 2018, without tolerance). iou:
    mean intersection over union of the bright area and an equally large area of highest map values, without pixels of
    no evidence; so no threshold on the map is chosen. A map of zeros points nowhere and overlaps nothing.
    chance: mean over pairs of a map and the bright area of a window of another group, which keeps what all windows
    share (centre, cell density). p: share of 9999 such random pairings at least as good, windows taken as independent;
    gain: observed - chance, with its 95% interval over groups. area_share: mean bright area.
    """
    size = bright[0].shape[0]
    masks = np.stack([_nearest(mask, size).ravel() for mask in bright])
    values = np.stack([enlarge(cam, size).ravel() for cam in maps])
    pairs = {"pointing": pointing_pairs(values, masks), "iou": iou_pairs(values, masks)}
    result = {"windows": len(maps), "groups": len(np.unique(groups)), "empty_maps": int((values.max(1) <= 0).sum())}
    result["area_share"] = float(masks.mean())
    return result | {name: _against_chance(table, groups, seed) for name, table in pairs.items()}


def pointing_pairs(values: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(N, N): whether the maximum of map i, values (N, P), lies in mask j, (N, P) bool; never if the map is zero."""
    return masks[:, values.argmax(1)].T & (values.max(1) > 0)[:, None]


def iou_pairs(values: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(N, N): intersection over union of mask j with the equally many highest positive values of map i."""
    order = np.argsort(-values, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(values.shape[1])[None], axis=1)
    found = np.empty((len(values), len(masks)))
    for j, mask in enumerate(masks):
        area = (ranks < mask.sum()) & (values > 0)
        found[:, j] = (area & mask).sum(1) / np.maximum((area | mask).sum(1), 1)
    return found


def _against_chance(pairs: np.ndarray, groups: np.ndarray, seed: int, draws: int = 9999) -> dict:
    """Mean of the diagonal against the pairs of different groups (of different windows, if there is one group)."""
    other = groups[:, None] != groups[None, :]
    other = other if other.any() else ~np.eye(len(pairs), dtype=bool)
    observed = np.diag(pairs).astype(float)
    if not other.any():
        return {"observed": float(observed.mean()), "chance": None, "p": None, "gain": None, "gain_interval": None}
    random = np.random.default_rng(seed)
    drawn = np.mean([pairs[i, random.choice(np.flatnonzero(row), draws)] for i, row in enumerate(other)], axis=0)
    p = (1 + (drawn >= observed.mean() - 1e-9).sum()) / (1 + draws)
    chance = (pairs * other).sum(1) / other.sum(1)
    result = {"observed": float(observed.mean()), "chance": float(chance.mean()), "p": float(p)}
    gain = observed - chance
    return result | {"gain": float(gain.mean()), "gain_interval": _over_groups(gain, groups, random)}


def _over_groups(values: np.ndarray, groups: np.ndarray, random: np.random.Generator, draws: int = 2000) -> list | None:
    """95% percentile interval of the mean of values (N,), whole groups drawn with replacement; None for one group."""
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return None
    times = random.multinomial(len(names), np.full(len(names), 1 / len(names)), draws)
    means = times @ np.bincount(codes, values) / (times @ np.bincount(codes))
    return np.quantile(means, [0.025, 0.975]).tolist()


def randomised(net: Net, arch: str, part: str, seed: int) -> Net:
    """The network with new random weights in its `head` or in `all` of it, from a seed; torch's own state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = (
            build(arch, pooling=net.pooling)
            if part == "all"
            else Net(net.backbone, net.body, len(CLASSES), net.pooling)
        )
    return fresh.eval()


def rank_correlations(maps: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> np.ndarray:
    """Spearman's rank correlation of each map (h, w) with its counterpart: (N,), NaN where one of them is constant."""
    return np.array([_spearman(a.ravel(), b.ravel()) for a, b in zip(maps, others, strict=True)])


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return np.nan if np.ptp(a) == 0 or np.ptp(b) == 0 else float(spearmanr(a, b).statistic)


def sanity(maps: Sequence[np.ndarray], random: dict[str, Sequence[Sequence[np.ndarray]]]) -> dict:
    """Sanity check by randomised weights (Adebayo et al. 2018): maps must change when what was learned is taken away.

    maps: of some windows, by the trained network; random: per part made random (`head`, `all`), for several draws, maps
    of the same windows. For each part the mean rank correlation with the trained network's maps and the mean of its
    absolute value. other_windows: the same between maps of different windows, what a common layout alone gives.
    """
    shifted = [*maps[len(maps) // 2 :], *maps[: len(maps) // 2]]
    result = {"windows": len(maps), "other_windows": _summary(rank_correlations(maps, shifted))}
    for part, draws in random.items():
        result[part] = _summary(np.concatenate([rank_correlations(maps, changed) for changed in draws]))
    return result


def _summary(values: np.ndarray) -> dict:
    kept = values[np.isfinite(values)]
    mean, absolute = (float(v.mean()) if len(kept) else None for v in (kept, np.abs(kept)))
    return {"mean": mean, "mean_absolute": absolute, "pairs": len(kept), "undefined": len(values) - len(kept)}
