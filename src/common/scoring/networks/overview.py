"""What the filter's frozen backbone sees of windows: each by itself, as in the paper, or all in one
pass over the frame, at a tenth of the cost or less (bench/scoring.py).

Of the frame at half resolution, mean and deviation of the backbone's four stages inside a window
tell cells from empty as the window's own features do (docs/accuracy.md). This file ships inside
registered models.
"""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from .inference import apply_to_windows, compiled_net, embed
from .net import Net, build, normalised

SIDE = 112  # input pixels of a window
SPAN, MARGIN = 2048, 256  # frame pixels: a larger frame is seen in squares, with some around each;
# multiples of 64 lay the coarsest stage alike


def filter_net(arch: str, weights: Path | None, sees: str) -> Net:
    """The filter's network; sees: windows | frame, which is told from its pooling from then on."""
    return build(arch, weights, pooling="levels" if sees == "frame" else "last").eval()


def compiled_filter(net: Net) -> Net:
    """The filter's network for many windows or frames."""
    return compiled_net(net, "features" if net.pooling == "last" else "maps")


def features_of(net: Net, frame8: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Features (n, D) float32 of windows (n, 3: y, x, size) of a frame (H, W) uint8.

    Windows are of one size; their features do not depend on which others are asked for.
    """
    if net.pooling == "last":
        return apply_to_windows(net, net.features, cut(frame8, corners))
    features = np.empty((len(corners), net.feature_dim), np.float32)
    square = corners[:, :2] // SPAN
    for place in np.unique(square, axis=0):
        rows = np.flatnonzero((square == place).all(axis=1))
        features[rows] = _of_square(net, frame8, corners[rows], place * SPAN)
    return features


def cut(frame8: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The windows (n, 3: y, x, size) of a frame themselves, (n, size, size)."""
    return np.stack([frame8[y : y + size, x : x + size] for y, x, size in corners])


def _of_square(net: Net, frame8: np.ndarray, corners: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The features of windows whose corners lie in the square of SPAN pixels from `start`."""
    size = int(corners[0, 2])
    first = np.maximum(start - MARGIN, 0)
    last = start + SPAN + size + MARGIN
    piece = frame8[first[0] : last[0], first[1] : last[1]]
    sides = [max(1, round(n * SIDE / size)) for n in piece.shape]
    small = cv2.resize(np.asarray(piece), sides[::-1], interpolation=cv2.INTER_AREA)
    with torch.inference_mode():
        maps = net.maps(normalised(net.backbone, torch.from_numpy(small)[None, None].float() / 255))
    y, x = (corners[:, :2] - first).T
    boxes = np.stack([x, y, x + size, y + size], 1) / np.tile(piece.shape[::-1], 2)
    return np.concatenate([_inside(m, boxes) for m in maps], 1)


def _inside(maps: torch.Tensor, boxes: np.ndarray) -> np.ndarray:
    """Mean and deviation (n, 2 D) of maps (1, D, h, w) inside boxes (n, 4: x, y, x, y), which are
    shares of the sides.
    """
    from torchvision.ops import roi_align  # two seconds, which windows by themselves need not pay

    sides = np.tile(maps.shape[:1:-1], 2)
    places = [torch.from_numpy((boxes * sides).astype(np.float32))]
    mean, square = (roi_align(m, places, 1, aligned=True)[..., 0, 0] for m in (maps, maps**2))
    return torch.cat([mean, (square - mean**2).clamp(min=1e-8).sqrt()], 1).numpy()


def embed_seen(net: Net, store, table: pd.DataFrame, desc: str | None = None) -> np.ndarray:
    """Features (N, D) float32 of the windows of a table (image_id, y, x, size) of a patch store."""
    if net.pooling == "last":
        return embed(net, store, table, desc=desc)
    features = np.empty((len(table), net.feature_dim), np.float32)
    corners = table[["y", "x", "size"]].to_numpy(np.int64)
    for (image_id, _), rows in table.groupby(["image_id", "size"], sort=False).indices.items():
        features[rows] = features_of(net, np.asarray(store.brightfield(image_id)), corners[rows])
    return features
