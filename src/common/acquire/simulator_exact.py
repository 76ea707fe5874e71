"""Random fields, blurs and spots that give the same bytes on any x86-64.

`np.exp`, `np.sin`, float blurs, float reductions and numpy's normal or Poisson draws differ in the
last bit between CPUs. Here everything is elementwise + - * / sqrt on float64 (IEEE exact),
integers, uniform PCG64 draws and box filters over whole numbers.
"""

import cv2
import numpy as np


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Draw nearly normal numbers (mean 0, sd 1) as sums of 4 whole uniforms: exact on any CPU."""
    total = np.zeros(shape, dtype=np.int32)
    for _ in range(4):
        total += rng.integers(0, 1 << 16, size=shape, dtype=np.uint16)
    return (total - 131070) / 37837.0  # sqrt(4 / 12) * 65536


def clip(values: np.ndarray, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Limit values to low .. high."""
    return np.clip(values, low, high)


def blur(image: np.ndarray, radius: int) -> np.ndarray:
    """Blur by three box filters of `radius` px (nearly a Gaussian of as many px sd) over whole
    4096ths, in which sums are exact.
    """
    side = 2 * radius + 1
    whole = image * 4096.0
    np.rint(whole, out=whole)
    for _ in range(3):
        whole = cv2.boxFilter(whole, cv2.CV_64F, (side, side), normalize=False)
        whole /= side * side
        np.rint(whole, out=whole)
    whole /= 4096.0
    return whole


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], spacing: float) -> np.ndarray:
    """Draw a random field of `shape`, about normal with unit sd, that varies over `spacing` px."""
    lattice = normal(rng, *(int(n / spacing) + 3 for n in shape))
    y, x = (np.arange(n) / spacing + float(rng.random()) for n in shape)
    return 1.4 * _along(_along(lattice, y).T, x).T  # 1.4: variance lost between lattice points


def smooth_at(rng: np.random.Generator, y: np.ndarray, x: np.ndarray, spacing: float) -> np.ndarray:
    """Draw a random field as `smooth_field` does, at the points y, x (N,) alone."""
    y, x = ((axis - axis.min()) / spacing + float(rng.random()) for axis in (y, x))
    lattice = normal(rng, int(y.max()) + 2, int(x.max()) + 2)
    left = x.astype(np.int64)
    t = _ease(x - left)
    rows = _along(lattice, y)
    points = np.arange(len(y))
    return 1.4 * (rows[points, left] * (1 - t) + rows[points, left + 1] * t)


def _along(lattice: np.ndarray, at: np.ndarray) -> np.ndarray:
    low = at.astype(np.int64)
    t = _ease(at - low)[:, None]
    return lattice[low] * (1 - t) + lattice[low + 1] * t


def _ease(t: np.ndarray) -> np.ndarray:
    return t * t * (3 - 2 * t)


def stamp(
    shape: tuple[int, int], y: float, x: float, reach: float
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray] | None:
    """Return the slices of a square of `reach` px around a point and the offsets dy, dx from it;
    None if outside.
    """
    top, left = max(0, int(y - reach)), max(0, int(x - reach))
    bottom, right = min(shape[0], int(y + reach) + 1), min(shape[1], int(x + reach) + 1)
    if top >= bottom or left >= right:
        return None
    dy, dx = np.arange(top, bottom)[:, None] - y, np.arange(left, right)[None, :] - x
    return (slice(top, bottom), slice(left, right)), dy, dx


def add_ball(image: np.ndarray, y: float, x: float, radius: float, level: float) -> None:
    """Add the projection of a ball, `level` high in its middle, of sum 2/3 pi radius^2 level."""
    spot = stamp(image.shape, y, x, radius)
    if spot is not None:
        window, dy, dx = spot
        image[window] += level * np.sqrt(
            np.maximum(0.0, 1 - (dy * dy + dx * dx) / (radius * radius))
        )


def add_points(image: np.ndarray, y: np.ndarray, x: np.ndarray, level: np.ndarray) -> None:
    """Add `level` to the pixels of the points y, x (N,) that lie in the image."""
    within = (y >= 0) & (y < image.shape[0]) & (x >= 0) & (x < image.shape[1])
    pixel = y[within].astype(np.int64), x[within].astype(np.int64)
    np.add.at(image, pixel, level[within])


def ring(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw `count` directions as unit vectors dy, dx: about even over the circle, without sin."""
    dy, dx = rng.random((2, count)) - 0.5
    length = np.sqrt(dy * dy + dx * dx + 1e-9)
    return dy / length, dx / length
