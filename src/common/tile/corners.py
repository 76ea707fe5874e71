"""Corners of a field and what surrounds them, by which its pixels are found again in another file:
turned, mirrored, shifted, in the overlap of two fields of a tile scan, at another exposure.

ORB (Rublee et al., "ORB: an efficient alternative to SIFT or SURF", 2011): 256 bits a corner, which
turn with it; a mirrored field is described once more. Its arithmetic is that of integers, so that
the bytes do not depend on the processor. Comparing corners needs no trial of eight orientations and
all shifts. Corners that are alike are found by sorting: descriptions that differ in few bits stand
close together in one of several orders, each by other bits first (Charikar, "Similarity estimation
techniques from rounding algorithms", 2002). Finding them costs what sorting costs. Two fields that
have some alike in one arrangement are then matched, each corner with each; how many do so by chance
depends on the images.
"""

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import pandas as pd

COUNT = 400  # corners of a field, those of highest contrast
BYTES = 36  # of a corner: x and y (uint16) and 32 of its description
ORDERS = 16  # in which all corners are sorted, each by other bytes first
KEY = 8  # bytes they are sorted by
PIECE = 2**17  # corners that are compared at a time: 4 MB
BESIDE = 8  # corners after each in each order that it is compared with
VOTES = 4  # corners alike of two fields, in one arrangement: worth a closer look
ALIKE = 40  # bits in which two descriptions of one corner may differ; of different ones 64 to 75 do
REACH = 3.0  # px that matched corners may lie from where one turn and shift puts them all


def describe(frame: np.ndarray, seen: np.ndarray) -> bytes:
    """Corners of a field (H, W) uint8, and of its mirror image, where `seen` (H, W) bool.

    Two blocks of as many corners, at most COUNT each, of BYTES a corner.
    """
    mask = seen.astype(np.uint8)
    both = [_corners(frame, mask), _corners(frame[:, ::-1], mask[:, ::-1])]
    count = min(len(rows) for rows in both)
    return b"".join(rows[:count].tobytes() for rows in both)


def shared(
    codes: Sequence[bytes], apart: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
) -> dict[tuple[int, int], int]:
    """Corners that two of N fields have in common in one arrangement: {(i, j): count}, i < j, for
    pairs that may have some. `apart(i, j)`, arrays of fields: which of these pairs are wanted.
    """
    fields = [np.frombuffer(code, np.uint8).reshape(2, -1, BYTES) for code in codes]
    if not any(field.size for field in fields):
        return {}
    alike = _alike(fields)
    if apart is not None:
        alike = alike[apart(alike["i"].to_numpy(), alike["j"].to_numpy())]
    sides = alike.groupby(["i", "j", "side"])
    alike = alike[sides["corner"].transform("size") >= VOTES]
    inliers: dict[tuple[int, int], int] = {}
    for (i, j, side), pairs in alike.groupby(["i", "j", "side"]):
        one, other = fields[i][0], fields[j][side]
        here, there = pairs["corner"].to_numpy(), pairs["its"].to_numpy()
        if _arranged(one, other, here, there) >= VOTES:
            count = _arranged(one, other, *_matched(one, other))
            inliers[i, j] = max(inliers.get((i, j), 0), count)
    return inliers


def _corners(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    smooth = cv2.GaussianBlur(np.ascontiguousarray(frame), (5, 5), 0)
    orb = cv2.ORB_create(COUNT, nlevels=4, edgeThreshold=8, fastThreshold=7)
    points, descriptions = orb.detectAndCompute(smooth, np.ascontiguousarray(mask))
    if not points:
        return np.empty((0, BYTES), np.uint8)
    places = np.rint([point.pt for point in points]).astype("<u2")
    return np.hstack([places.view(np.uint8), descriptions])


def _alike(fields: Sequence[np.ndarray]) -> pd.DataFrame:
    """Corners of two fields that differ in at most ALIKE bits: fields i < j, the number of the
    corner in i and of its like (its) in the one `side` of j.
    """
    counts = np.repeat([field.shape[1] for field in fields], 2)
    sides = np.repeat(np.arange(len(counts)), counts)
    bits = np.concatenate([field[..., 4:].reshape(-1, BYTES - 4) for field in fields])
    pairs = np.empty(0, np.int64)
    for first in range(0, BYTES - 4, (BYTES - 4) // ORDERS):
        near = [pairs]
        for one, other in _beside(bits, first):
            low, high = np.minimum(one, other), np.maximum(one, other)
            # Two fields both mirrored are as neither is
            new = (sides[low] // 2 < sides[high] // 2) & (sides[low] % 2 == 0)
            near.append(low[new] * len(bits) + high[new])
        pairs = np.unique(np.concatenate(near))
    low, high = np.divmod(pairs, len(bits))
    starts = np.cumsum(counts) - counts
    i, j = sides[low] // 2, sides[high] // 2
    corner, its = low - starts[sides[low]], high - starts[sides[high]]
    return pd.DataFrame({"i": i, "j": j, "side": sides[high] % 2, "corner": corner, "its": its})


def _beside(bits: np.ndarray, first: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers of corners that stand close together, sorted by KEY bytes from the `first` on, and
    differ in at most ALIKE bits.
    """
    taken = np.arange(first, first + KEY) % bits.shape[1]
    key = np.ascontiguousarray(bits[:, taken]).view(">u8").ravel()
    order = np.argsort(key.astype(np.uint64), kind="stable")
    for start in range(0, len(order), PIECE):
        piece = order[start : start + PIECE + BESIDE]
        words = bits[piece].view(np.uint64)
        for step in range(1, min(BESIDE, len(piece) - 1) + 1):
            differ = np.bitwise_count(words[:-step] ^ words[step:]).sum(axis=1)
            near = np.flatnonzero(differ[:PIECE] <= ALIKE)
            yield piece[near], piece[near + step]


def _matched(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of corners of two fields that are each other's likest, and alike."""
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True)
    matches = matcher.match(*(np.ascontiguousarray(side[:, 4:]) for side in (one, other)))
    pairs = [(m.queryIdx, m.trainIdx) for m in matches if m.distance <= ALIKE]
    here, there = np.array(pairs, int).reshape(-1, 2).T
    return here, there


def _arranged(one: np.ndarray, other: np.ndarray, here: np.ndarray, there: np.ndarray) -> int:
    """How many corners, of those numbered `here` and `there` in pairs, one turn, scale and shift
    puts on each other.
    """
    if min(len(np.unique(here)), len(np.unique(there))) < VOTES:
        return 0
    matrix, inlier = cv2.estimateAffinePartial2D(
        _places(one[here]), _places(other[there]), ransacReprojThreshold=REACH
    )
    if matrix is None:
        return 0
    inside = inlier.ravel() > 0
    return min(len(np.unique(here[inside])), len(np.unique(there[inside])))


def _places(corners: np.ndarray) -> np.ndarray:
    """x and y of corners (N, BYTES), (N, 2) float32 in px."""
    return np.ascontiguousarray(corners[:, :4]).view("<u2").astype(np.float32)
