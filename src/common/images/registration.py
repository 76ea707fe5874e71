"""Do bright-field and PI show the same place? What can be told, over the fields of one session.

Cells, and dead ones above all, are rough in bright-field and bright in PI. The correlation of the
two over all shifts (by Fourier transform) has a peak at the shift between them; one field seldom
shows it, the sum over a session's fields does. On the 75 real MCF-7 fields that sum reached 8 to 30
times its noise in 5 of the 9 sessions with 3 fields or more, always within 15 px of no shift; with
the PI of other fields of the session it never passed 5. Shifted by 40 px in both directions, all 5
were found out, within 8 px; by 80 px, 4 of them. A low peak proves nothing: on the 20 fields where
nearly all cells are dead there is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from ..exposure.background import block_means, over_blocks

STEP = 4  # px of the field for one of the correlation
SHIFT = 64  # steps: shifts of up to 256 px are seen
TEXTURE, LIGHT, TREND = 2.0, 1.0, 16.0  # steps: widths (sd) of the filters
PEAK = 8.0  # times the noise: real fields with the PI of others stay below 5
TOLERANCE = 24  # px: 7 um of the real fields, whose own channels lie up to 15 px apart
FEWEST = 3  # fields of a session: one or two show chance peaks


@dataclass(frozen=True)
class Offset:
    """Where PI lies against bright-field, in px of the field, and how far the peak stands out of
    the noise.
    """

    down: int
    right: int
    height: float

    @property
    def known(self) -> bool:
        """Whether the peak is no chance."""
        return self.height >= PEAK

    @property
    def apart(self) -> bool:
        """Whether the channels are known to be apart."""
        return self.known and float(np.hypot(self.down, self.right)) > TOLERANCE


@dataclass
class Session:
    """The correlations of its fields, added up: memory does not grow with the fields."""

    total: np.ndarray | int = 0
    fields: int = 0

    def add(self, correlation: np.ndarray) -> None:
        """One more field's, (2 * SHIFT + 1, 2 * SHIFT + 1) float32."""
        self.total = self.total + correlation
        self.fields += 1


def correlation(brightfield: np.ndarray, pi: np.ndarray) -> np.ndarray:
    """How well PI (H, W) uint16, shifted by up to SHIFT steps either way, lies on bright-field (the
    same).

    (2 * SHIFT + 1, 2 * SHIFT + 1) float32, in units of its own noise; no shift is the middle.
    Pixels of zero, as registration leaves them, do not count, nor what is left of blocks at edges.
    """
    whole = tuple(slice(length - length % STEP) for length in brightfield.shape)
    brightfield, pi = brightfield[whole], pi[whole]
    rough, lit = block_means(brightfield, STEP)
    square = over_blocks(np.add, brightfield.astype(np.float64) ** 2, STEP) / STEP**2
    contrast = np.sqrt(np.maximum(square - rough**2, 0)) / np.maximum(rough, 1)
    texture = _blurred(contrast, TEXTURE)
    light, glowing = block_means(pi, STEP)
    light = _blurred(np.log(np.maximum(light, 1)), LIGHT)
    first, second = _detail(np.log(texture + 1e-4), lit), _detail(light, glowing)
    shape = [2 * length for length in first.shape]
    product = np.conj(np.fft.rfft2(first, shape)) * np.fft.rfft2(second, shape)
    every = np.fft.fftshift(np.fft.irfft2(product, shape))
    middle = [length // 2 for length in shape]
    reach = np.ix_(*(np.arange(m - SHIFT, m + SHIFT + 1) % (2 * m) for m in middle))
    return _in_noise(every[reach])


def offset(session: Session) -> Offset:
    """The common shift of fields: the highest point of the sum of their correlations."""
    total = session.total / np.sqrt(session.fields)
    down, right = np.unravel_index(np.argmax(total), total.shape)
    where = STEP * (int(down) - SHIFT), STEP * (int(right) - SHIFT)
    return Offset(*where, round(float(total.max()), 1))


def notes(sessions: Mapping[str, Session]) -> list[str]:
    """What the fields' correlations, by session, say of the channels' registration, in words."""
    offsets = {name: offset(own) for name, own in sessions.items() if own.fields >= FEWEST}
    said = [
        f"WARNING: {name or 'all fields'}: PI lies about {one.down:+d} px down and {one.right:+d} "
        "px right of bright-field: register the channels, or labels are of another place"
        for name, one in offsets.items()
        if one.apart
    ]
    near = sum(one.known and not one.apart for one in offsets.values())
    open_ = len(sessions) - near - len(said)
    told = f"bright-field and PI lie on each other in {near} of {len(sessions)} sessions"
    told += f"; in {open_} it cannot be told from the images" if open_ else ""
    return [*said, told]


def _blurred(image: np.ndarray, width: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), width)


def _detail(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """What is smaller than the trend, with mean 0 and sd 1 where valid; extremes clipped, 0
    elsewhere.
    """
    if not valid.any():
        return np.zeros_like(image)
    filled = np.where(valid, image, np.median(image[valid]))
    detail = filled - _blurred(filled, TREND)
    spread = detail[valid].std()
    detail = np.clip(detail / spread, -4, 4) if spread > 0 else np.zeros_like(detail)
    return np.where(valid, detail - detail[valid].mean(), 0)


def _in_noise(values: np.ndarray) -> np.ndarray:
    middle = np.median(values)
    noise = 1.4826 * np.median(np.abs(values - middle))
    scaled = (values - middle) / noise if noise > 0 else np.zeros_like(values)
    return scaled.astype(np.float32)
