"""What a field looks like, in two forms: its corners, by which the same pixels are found again in
any place and orientation (`corners.py`), and its layout, which survives another time point.

Cells that divide, die and drift leave few corners as they were, so `phash_layout` keeps brightness
after a median filter (which drops what is small and moves) on a 64 x 64 grid, and the amount of
texture on a 32 x 32 grid, each relative to its surroundings, so that illumination and exposure
cancel. Two of them are compared by their correlation (`correlations`).

Black registration borders are left out, or they would be what two fields have in common. All sums
are of integers, so that the bytes do not depend on the processor.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from . import corners

GRID, TEXTURE_GRID = 64, 32  # cells of the brightness and the texture map
LENGTH = GRID**2 + TEXTURE_GRID**2  # bytes of a layout
SHIFTS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
BLOCK = 256  # fields whose layouts are unpacked at a time
BRIGHTNESS_WEIGHT = 0.85  # of the correlation; the rest is texture's


def fingerprint(frame: np.ndarray) -> dict[str, bytes]:
    """Both forms of a field as columns of frames.parquet: {"phash_layout": 5120 bytes,
    "phash_corners": 72 bytes for each corner}.

    `frame`: (H, W) uint8 bright-field, any exposure, at least 64 x 64 px.
    """
    if frame.ndim != 2 or frame.dtype != np.uint8 or min(frame.shape) < GRID:
        raise ValueError(
            f"a fingerprint wants a 2-D uint8 frame of {GRID} px or more, "
            f"not {frame.shape} {frame.dtype}"
        )
    seen = ~_border(frame)
    return {"phash_layout": _layout(frame, seen), "phash_corners": corners.describe(frame, seen)}


class Layouts:
    """Layouts of N fields, held against each other a block of them at a time: 16 kB a field are
    held, and 40 kB more for each of two blocks.
    """

    def __init__(self, layouts: Sequence[bytes]) -> None:
        self._codes = np.frombuffer(b"".join(layouts), np.int8).reshape(-1, LENGTH)
        starts = range(0, max(len(layouts), 1), BLOCK)
        parts = [_spectra(*_maps(self._codes[start : start + BLOCK])) for start in starts]
        self._spectra = np.concatenate(parts)

    def __len__(self) -> int:
        return len(self._codes)

    def likeness(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """How far the layouts of `rows` correlate with those of `others`, in standard deviations of
        chance: (rows, others) float32, about 1 for different fields.
        """
        return self.correlations(rows, others) / np.maximum(self.chance(rows, others), 1e-6)

    def correlations(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Correlation of the layouts of `rows` with those of `others`: (rows, others) float32 in
        -1..1, near 0 for different fields.

        The best over shifts of one grid cell (1/64 of the field) either way, since a stage does not
        come back exactly.
        """
        bright, texture = _maps(self._codes[rows])
        their_bright, their_texture = _maps(self._codes[others])
        best = np.full((len(rows), len(others)), -1, np.float32)
        for dy, dx in SHIFTS:
            np.maximum(best, _part(bright, dy, dx) @ _part(their_bright, -dy, -dx).T, out=best)
        return BRIGHTNESS_WEIGHT * best + (1 - BRIGHTNESS_WEIGHT) * (texture @ their_texture.T)

    def chance(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Standard deviation of those correlations if they were of different fields.

        Of two independent random fields with power spectra P and Q (each adding up to 1) it is the
        root of sum(P Q): two smooth fields, as empty or blurred ones are, resemble each other by
        chance more than two finely structured ones.
        """
        return np.sqrt(self._spectra[rows] @ self._spectra[others].T)


def _part(maps: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """What of N brightness maps meets another map that is shifted by so many cells, flat."""
    grids = maps.reshape(-1, GRID, GRID)
    rows, cols = (slice(max(d, 0), GRID + min(d, 0)) for d in (dy, dx))
    return grids[:, rows, cols].reshape(len(maps), -1)


def _maps(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The brightness (N, 4096) and texture maps (N, 1024) of layouts (N, LENGTH) int8, rows of
    length 1 (or 0), float32.
    """
    values = codes.astype(np.float32)
    return _unit(values[:, : GRID**2]), _unit(values[:, GRID**2 :])


def _spectra(bright: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """Of the two maps of N fields what makes the dot product of two rows the variance of their
    correlation by chance: (N, 2656) float32.
    """
    weight = BRIGHTNESS_WEIGHT
    return np.hstack([weight * _spectrum(bright), (1 - weight) * _spectrum(texture)])


def _spectrum(maps: np.ndarray) -> np.ndarray:
    """Power spectra of N square maps, without their mean, each summing to 1. The half of one that
    mirrors the other is left out, and what has a mirror image weighs as two (in a product).
    """
    side = int(np.sqrt(maps.shape[1]))
    power = np.abs(np.fft.rfft2(maps.reshape(-1, side, side))) ** 2
    power[:, 0, 0] = 0
    twice = np.full(power.shape[2], 2.0)
    twice[[0, -1]] = 1
    power /= np.maximum((power * twice).sum(axis=(1, 2), keepdims=True), 1e-9)
    return (power * np.sqrt(twice)).reshape(len(maps), -1).astype(np.float32)


def _layout(frame: np.ndarray, seen: np.ndarray) -> bytes:
    bright, known = _grid(cv2.medianBlur(frame, 7).astype(np.int32) * 256, seen, GRID)
    fine = cv2.boxFilter(frame, cv2.CV_32S, (9, 9), normalize=False) * 41**2
    coarse = cv2.boxFilter(frame, cv2.CV_32S, (41, 41), normalize=False) * 9**2
    texture, known_texture = _grid(
        np.rint(np.sqrt(np.abs(fine - coarse))).astype(np.int32), seen, TEXTURE_GRID
    )
    return _code(bright, known, 13) + _code(texture, known_texture, 13)


def _code(grid: np.ndarray, known: np.ndarray, size: int) -> bytes:
    """A map relative to its surroundings (mean over `size` cells), clipped at two robust sd, as
    signed bytes.
    """
    values = np.where(known, grid, 0)
    around = _box(values, size) // np.maximum(_box(known.astype(np.int64), size), 1)
    relative = np.where(known, values - around, 0)
    if not known.any():
        return bytes(relative.size)
    relative = np.where(known, relative - int(np.median(relative[known])), 0)
    limit = int(2 * 1.4826 * np.median(np.abs(relative[known])))
    return (
        np.rint(np.clip(relative, -limit, limit) * (127 / max(limit, 1))).astype(np.int8).tobytes()
    )


def _border(frame: np.ndarray) -> np.ndarray:
    """(H, W) bool: black areas left by registration and a rim around them; single dark pixels are
    not border.
    """
    black = cv2.copyMakeBorder((frame == 0).astype(np.uint8), 4, 4, 4, 4, cv2.BORDER_REPLICATE)
    areas = cv2.morphologyEx(black, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))[4:-4, 4:-4]
    return cv2.dilate(np.ascontiguousarray(areas), np.ones((25, 25), np.uint8)) > 0


def _grid(values: np.ndarray, seen: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Means (integer) over a `cells` x `cells` grid, and which cells are wholly `seen`."""
    rows, cols = (np.arange(cells) * length // cells for length in values.shape)
    total = np.add.reduceat(
        np.add.reduceat(np.where(seen, values, 0), rows, 0, dtype=np.int64), cols, 1
    )
    count = np.add.reduceat(np.add.reduceat(seen.astype(np.int64), rows, 0), cols, 1)
    area = np.outer(
        np.diff(np.append(rows, values.shape[0])), np.diff(np.append(cols, values.shape[1]))
    )
    return total // np.maximum(count, 1), count == area


def _box(values: np.ndarray, size: int) -> np.ndarray:
    """Sums over a `size` x `size` neighbourhood (odd), cut at the edges: int64."""
    half = size // 2
    total = np.pad(values, ((half + 1, half), (half + 1, half))).cumsum(0).cumsum(1)
    return total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
