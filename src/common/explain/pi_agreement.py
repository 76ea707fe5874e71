"""How well Grad-CAM of the dead class agrees with where PI stains nuclei, against chance, with
groups as the sample.

Bright is what stands out from its surroundings, not what is bright in counts: PI glows over a
colony of dead cells, and a limit on the field's median would take that haze for nuclei.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from ..patches.store import PI_REDUCTION, PatchStore
from .gradcam import enlarge

BRIGHT = 2.0  # times the local background
NEAR = 15  # px: the tolerance of the pointing game as published; a map cell is about twice as wide
# Of a window's side: 32 um of the paper's 72, wider than any nucleus, narrower than most haze
SURROUNDINGS = 0.45


def pi_counts(store: PatchStore, image_id: str) -> np.ndarray:
    """A field's PI in counts at a quarter of the resolution: (h, w) float32.

    The stored 8 bit run linearly from the frame's pi_low to its pi_high, so that a field without
    any stained nucleus fills them with noise.
    """
    frame = store.frames.loc[image_id]
    step = (frame["pi_high"] - frame["pi_low"]) / 255
    return (frame["pi_low"] + step * store.pi(image_id)).astype(np.float32)


def pi_ratio(store: PatchStore, image_id: str, y: int, x: int, size: int) -> np.ndarray:
    """PI of a window over its field's background (`tile.background`), for figures: (size // 4, size
    // 4) float32.
    """
    return _cut(pi_counts(store, image_id), y, x, size) / max(
        store.frames.loc[image_id, "pi_background"], 1.0
    )


def stained_nuclei(store: PatchStore, image_id: str, y: int, x: int, size: int) -> np.ndarray:
    """Where window PI exceeds BRIGHT times its local background: (size // 4, size // 4) bool."""
    width = int(SURROUNDINGS * size / PI_REDUCTION) | 1
    return _cut(stands_out(pi_counts(store, image_id), width), y, x, size)


def stands_out(counts: np.ndarray, width: int) -> np.ndarray:
    """Where counts (h, w) float32 exceed BRIGHT times their morphological opening by a disk `width`
    px wide: bool.

    The opening keeps what is wider than the disk (background, haze, ramps) and removes what is
    narrower (nuclei).
    """
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return counts > BRIGHT * np.maximum(cv2.morphologyEx(counts, cv2.MORPH_OPEN, disk), 1.0)


def _cut(frame: np.ndarray, y: int, x: int, size: int) -> np.ndarray:
    y, x, size = y // PI_REDUCTION, x // PI_REDUCTION, size // PI_REDUCTION
    return frame[y : y + size, x : x + size]


def agreement(maps: Sequence[np.ndarray], bright: Sequence[np.ndarray], groups: np.ndarray) -> dict:
    """How well maps (h, w) point at bright areas (m, m) bool of the same windows, against chance.

    pointing: share of windows whose map's maximum lies in the bright area; pointing_15px: in it or
    within 15 px of it, as the pointing game was published (Zhang et al. 2018). iou: mean
    intersection over union of the bright area and an equally large area of highest map values,
    without pixels of no evidence; so no threshold on the map is chosen. A map of zeros points
    nowhere and overlaps nothing. area_share: mean bright area. See `against_chance` for the rest.
    """
    size = bright[0].shape[0]
    bright = [_nearest(mask, size) for mask in bright]
    masks = np.stack([mask.ravel() for mask in bright])
    near = np.stack([grown(mask).ravel() for mask in bright])
    values = np.stack([enlarge(cam, size).ravel() for cam in maps])
    return {
        "windows": len(maps),
        "groups": len(np.unique(groups)),
        "empty_maps": int((values.max(1) <= 0).sum()),
        "area_share": float(masks.mean()),
        "pointing": against_chance(pointing_pairs(values, masks), groups),
        "pointing_15px": against_chance(pointing_pairs(values, near), groups),
        "iou": against_chance(iou_pairs(values, masks), groups),
    }


def grown(mask: np.ndarray) -> np.ndarray:
    """A mask (m, m) bool at a quarter of the resolution and all that lies within NEAR px of it."""
    reach = round(NEAR / PI_REDUCTION)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.dilate(mask.astype(np.uint8), disk) > 0


def pointing_pairs(values: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(N, N): whether the maximum of map i, values (N, P), lies in mask j, (N, P) bool; never if
    the map is zero.
    """
    return masks[:, values.argmax(1)].T & (values.max(1) > 0)[:, None]


def iou_pairs(values: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(N, N): intersection over union of mask j with the equally many highest positive values of
    map i.
    """
    order = np.argsort(-values, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(values.shape[1])[None], axis=1)
    overlaps = np.empty((len(values), len(masks)))
    for j, mask in enumerate(masks):
        area = (ranks < mask.sum()) & (values > 0)
        overlaps[:, j] = (area & mask).sum(1) / np.maximum((area | mask).sum(1), 1)
    return overlaps


def against_chance(pairs: np.ndarray, groups: np.ndarray) -> dict:
    """The diagonal of pairs (N, N) of map and bright area against pairs of different groups (N,).

    observed, chance and their difference, the gain: means over the groups' means, so that a group
    counts once, however many windows overlap in it. A pair of different groups keeps what all
    windows share (centre, cell density); if there is one group, pairs of different windows serve.
    gain_interval (95%) and p (two-sided) are Student's over the groups' gains: they agree, p < 0.05
    where the interval leaves out zero. Both None for one group, or if all gains are equal.
    """
    other = groups[:, None] != groups[None, :]
    other = other if other.any() else ~np.eye(len(pairs), dtype=bool)
    observed, partners = np.diag(pairs).astype(float), other.sum(1)
    if not other.any():
        unknown = dict.fromkeys(("chance", "gain", "gain_interval", "p"))
        return {"observed": float(observed.mean())} | unknown
    each = pd.DataFrame({"observed": observed, "chance": (pairs * other).sum(1) / partners})
    table = each.groupby(groups).mean()
    gains = (table["observed"] - table["chance"]).to_numpy()
    interval, p = over_groups(gains)
    return table.mean().to_dict() | {"gain": float(gains.mean()), "gain_interval": interval, "p": p}


def over_groups(gains: np.ndarray) -> tuple[list[float] | None, float | None]:
    """Student's 95% interval of the mean of groups' gains (G,), and the two-sided p value of a mean
    of zero.
    """
    if len(gains) < 2 or np.ptp(gains) < 1e-12:
        return None, None
    test = ttest_1samp(gains, 0)
    return [float(bound) for bound in test.confidence_interval(0.95)], float(test.pvalue)


def _nearest(mask: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(mask.astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST) > 0
