"""Frames: the 16-to-8-bit scaling that training and scoring share, and what is measured on a frame
or window.

The arithmetic on pixels is integer, or elementwise + - * / on float64, so that the results are the
same bytes on every x86-64 processor.
"""

import cv2
import numpy as np

SUMMED = (np.uint8, np.uint16, np.int16)
BORDER = 9  # px: side of the least square without counts that is a black border


def percentile_range(frame: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Counts at two percentiles of a (H, W) unsigned integer frame; the bounds of its 8-bit
    scaling.

    Pixels that are exactly zero are left out: they are the black borders that registration leaves.
    """
    counts = np.bincount(frame.ravel(), minlength=2)
    counts[0] = 0
    total = int(counts.sum())
    if total == 0:
        return 0.0, 1.0
    cumulated = np.cumsum(counts)
    lower = int(np.searchsorted(cumulated, total * low / 100, side="left"))
    upper = int(np.searchsorted(cumulated, total * high / 100, side="left"))
    return float(max(lower, 1)), float(max(upper, lower + 1))


def scaling_range(frame: np.ndarray, method: str, low: float, high: float) -> tuple[float, float]:
    """The counts that become 0 and 255: the frame's own percentiles, or a fixed range."""
    return (
        percentile_range(frame, low, high) if method == "percentile" else (float(low), float(high))
    )


def to_uint8(frame: np.ndarray, low: float, high: float) -> np.ndarray:
    """A (H, W) unsigned integer frame scaled linearly to uint8, clipped outside low..high."""
    top = int(frame.max(initial=0)) + 1
    table = (np.arange(top, dtype=np.float64) - low) * (255.0 / (high - low)) + 0.5
    return np.clip(table, 0, 255).astype(np.uint8)[frame]


def black_border(frame: np.ndarray) -> np.ndarray:
    """Areas without any count (H, W) bool of a frame (H, W) unsigned integer, as registration
    leaves them: those that hold a square of BORDER px, an image's edge carried on beyond it. Dark
    spots inside cells are none.
    """
    around = BORDER - 1
    wide = np.pad((frame == 0).astype(np.uint8), around, mode="edge")
    opened = cv2.morphologyEx(wide, cv2.MORPH_OPEN, np.ones((BORDER, BORDER), np.uint8))
    return opened[around:-around, around:-around].astype(bool)


def window_sums(values: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Exact sums of a (H, W) array of whole numbers over windows, rows (y, x, size), as (N,) int64.

    In float64, which holds every sum below 2**53: of counts, or of squares of grey values, those of
    10**8 pixels and more.
    """
    return _inside(cv2.integral(_summed(values), sdepth=cv2.CV_64F), corners)


def window_variances(values: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Population variances of a (H, W) integer array over windows (y, x, size), as (N,) float64."""
    area = corners[:, 2].astype(np.float64) ** 2
    sums, squares = cv2.integral2(_summed(values), sdepth=cv2.CV_64F, sqdepth=cv2.CV_64F)
    mean = _inside(sums, corners) / area
    return _inside(squares, corners) / area - mean * mean


def _summed(values: np.ndarray) -> np.ndarray:
    """The values in a type whose integral OpenCV computes: small ones as they are."""
    if values.dtype == bool:
        return values.view(np.uint8)
    return values if values.dtype in SUMMED else values.astype(np.float64)


def _inside(integral: np.ndarray, corners: np.ndarray) -> np.ndarray:
    y, x, size = corners.T
    sums = integral[y + size, x + size] - integral[y, x + size]
    return (sums - integral[y + size, x] + integral[y, x]).astype(np.int64)


def detail(frame8: np.ndarray, fine: int, coarse: int) -> np.ndarray:
    """Sixteen times the difference of means over `fine` and over `coarse` px of a (H, W) uint8
    frame, as (H, W) int16; exact while their product is below 700.
    """
    small, large = (
        cv2.boxFilter(frame8, cv2.CV_32S, (side, side), normalize=False) * other**2
        for side, other in ((fine, coarse), (coarse, fine))
    )
    return ((small - large) * 16 // (fine * coarse) ** 2).astype(np.int16)


def bright_field_measures(
    frame8: np.ndarray, zero: np.ndarray, corners: np.ndarray
) -> dict[str, np.ndarray]:
    """What the 8-bit bright-field (H, W) and its mask of zero counts say of each window (y, x,
    size).

    focus: variance of the Laplacian (higher is sharper); contrast: standard deviation of the grey
    values; texture: that of what lies between means over 5 and 21 px, the size of detail inside
    cells; border: fraction of pixels without any count, as registration leaves them.
    """
    laplacian = cv2.Laplacian(frame8, cv2.CV_16S)
    area = corners[:, 2].astype(np.float64) ** 2
    return {
        "focus": window_variances(laplacian, corners),
        "contrast": np.sqrt(np.maximum(window_variances(frame8, corners), 0)),
        "texture": np.sqrt(np.maximum(window_variances(detail(frame8, 5, 21), corners), 0)) / 16,
        "border": window_sums(zero, corners) / area,
    }
