"""Corners of a field and what surrounds them, by which its pixels are found again in another file:
turned, mirrored, shifted, in the overlap of two fields of a tile scan, at another exposure.

ORB (Rublee et al., "ORB: an efficient alternative to SIFT or SURF", 2011): 256 bits a corner, which
turn with it; a mirrored field is described once more. Its arithmetic is that of integers, so that
the bytes do not depend on the processor. Comparing corners needs no trial of eight orientations and
all shifts, and an index finds them at a cost that grows little faster than the number of fields.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

COUNT = 400  # corners of a field, those of highest contrast
BYTES = 36  # of a corner: x and y (uint16) and 32 of its description
NEAREST = 6  # corners of all fields that are looked at for each corner
VOTES = 4  # corners of a field near to those of another: worth a closer look
ALIKE = 40  # bits in which two descriptions of one corner may differ; of different ones 64 to 75 do
REACH = 3.0  # px that matched corners may lie from where one turn and shift puts them all
INDEX = {"algorithm": 6, "table_number": 8, "multi_probe_level": 1}  # FLANN's LSH
# Corners of one key: with more fields keys grow longer, so that a look-up costs the same
BUCKET = 32
KEY_BITS = 14  # of up to 1,300 fields


def describe(frame: np.ndarray, seen: np.ndarray) -> bytes:
    """Corners of a field (H, W) uint8, and of its mirror image, where `seen` (H, W) bool.

    Two blocks of as many corners, at most COUNT each, of BYTES a corner.
    """
    mask = seen.astype(np.uint8)
    both = [_corners(frame, mask), _corners(frame[:, ::-1], mask[:, ::-1])]
    count = min(len(rows) for rows in both)
    return b"".join(rows[:count].tobytes() for rows in both)


def shared(codes: Sequence[bytes]) -> dict[tuple[int, int], int]:
    """Corners that two of N fields have in common in one arrangement: {(i, j): count}, i < j, for
    all pairs that may have some.
    """
    if not any(codes):
        return {}
    fields = [np.frombuffer(code, np.uint8).reshape(2, -1, BYTES) for code in codes]
    return {pair: _aligned(fields[pair[0]], fields[pair[1]]) for pair in sorted(_near(fields))}


def _corners(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    smooth = cv2.GaussianBlur(np.ascontiguousarray(frame), (5, 5), 0)
    orb = cv2.ORB_create(COUNT, nlevels=4, edgeThreshold=8, fastThreshold=7)
    points, descriptions = orb.detectAndCompute(smooth, np.ascontiguousarray(mask))
    if not points:
        return np.empty((0, BYTES), np.uint8)
    places = np.rint([point.pt for point in points]).astype("<u2")
    return np.hstack([places.view(np.uint8), descriptions])


def _near(fields: Sequence[np.ndarray]) -> set[tuple[int, int]]:
    """Pairs of fields of which several corners are among the nearest of all fields' corners."""
    count = sum(field.shape[1] for field in fields)
    bits = max(KEY_BITS, math.ceil(math.log2(count / BUCKET)))
    index = cv2.FlannBasedMatcher(INDEX | {"key_size": bits}, {})
    index.add([np.ascontiguousarray(field[0, :, 4:]) for field in fields])
    index.train()
    pairs = set()
    for this, field in enumerate(fields):
        for side in field:
            votes = Counter(_voted(index, side, this))
            pairs |= {(min(this, j), max(this, j)) for j, n in votes.items() if n >= VOTES}
    return pairs


def _voted(index: cv2.FlannBasedMatcher, corners: np.ndarray, this: int) -> Iterator[int]:
    """Another field for each of a field's corners that has its like there."""
    if not len(corners):
        return
    for near in index.knnMatch(np.ascontiguousarray(corners[:, 4:]), NEAREST):
        yield from {m.imgIdx for m in near if m.imgIdx != this and m.distance <= ALIKE}


def _aligned(one: np.ndarray, other: np.ndarray) -> int:
    """The most corners of two fields that one turn, shift and scale unites, either way up."""
    return max(_inliers(one[0], side) for side in other)


def _inliers(one: np.ndarray, other: np.ndarray) -> int:
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True)
    found = matcher.match(*(np.ascontiguousarray(side[:, 4:]) for side in (one, other)))
    pairs = [(m.queryIdx, m.trainIdx) for m in found if m.distance <= ALIKE]
    if len(pairs) < 4:
        return 0
    here, there = np.transpose(pairs)
    matrix, inlier = cv2.estimateAffinePartial2D(
        _places(one[here]), _places(other[there]), ransacReprojThreshold=REACH
    )
    return 0 if matrix is None else int(inlier.sum())


def _places(corners: np.ndarray) -> np.ndarray:
    """x and y of corners (N, BYTES), (N, 2) float32 in px."""
    return np.ascontiguousarray(corners[:, :4]).view("<u2").astype(np.float32)
