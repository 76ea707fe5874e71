"""Do bright-field and PI show the same place, and is each what it is called? What can be told, over
the fields of one session.

Cells, and dead ones above all, are rough in bright-field and bright in PI. The correlation of the
two over all shifts (by Fourier transform) has a peak at the shift between them; one field seldom
shows it, the sum over a session's fields does. On the 75 real MCF-7 fields that sum reached 8 to 30
times its noise in 5 of the 9 sessions with 3 fields or more, always within 15 px of no shift; with
the PI of other fields of the session it never passed 5. Shifted by 40 px in both directions, all 5
were found out, within 8 px; by 80 px, 4 of them. A low peak proves nothing: on the 20 fields where
nearly all cells are dead there is none.

PI has bright spots on a dark ground, bright-field has both sides of its own. The skewness of the
logarithm of PI, less that of bright-field, is above 0 in all 75 real fields (in 73 above 1) and in
simulated ones: below -1 the channels look swapped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from ..exposure.background import BLOCK_PX, block_means, over_blocks

STEP = 4  # px of the field for one of the correlation
SHIFT = 64  # steps: shifts of up to 256 px are seen
TEXTURE, LIGHT, TREND = 2.0, 1.0, 16.0  # steps: widths (sd) of the filters
PEAK = 8.0  # times the noise: real fields with the PI of others stay below 5
TOLERANCE = 24  # px: 7 um of the real fields, whose own channels lie up to 15 px apart
SWAPPED = -1.0  # skewness of log PI less that of bright-field
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


# Of a field's two channels: their correlation over shifts (2 * SHIFT + 1, 2 * SHIFT + 1) float32,
# and whether each looks like the other; plain, since the cache of acquire keeps no classes
Pair = tuple[np.ndarray, bool]


@dataclass
class Session:
    """The correlations of its fields, added up: memory does not grow with the fields."""

    total: np.ndarray | int = 0
    fields: int = 0
    swapped: list[str] = field(default_factory=list)

    def add(self, pair: Pair, image_id: str) -> None:
        """One more field."""
        correlation, swapped = pair
        self.total = self.total + correlation
        self.fields += 1
        self.swapped += [image_id] * swapped


def compare(brightfield: np.ndarray, pi: np.ndarray) -> Pair:
    """A field's two channels (H, W) uint16 held against each other."""
    swapped = _skewness(pi) - _skewness(brightfield) < SWAPPED
    return correlation(brightfield, pi), swapped


def _skewness(image: np.ndarray) -> float:
    """Of the logarithm of blocks of pixels that are wholly lit; 0 where all are alike."""
    means, lit = block_means(image, BLOCK_PX)
    values = np.log(means[lit])
    spread = values.std() if values.size else 0.0
    return float((((values - values.mean()) / spread) ** 3).mean()) if spread > 0 else 0.0


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
    """What the fields' channels, by session, say of each other, in words."""
    offsets = {name: offset(own) for name, own in sessions.items() if own.fields >= FEWEST}
    said = [
        f"WARNING: {name or 'all fields'}: PI lies about {one.down:+d} px down and {one.right:+d} "
        "px right of bright-field: register the channels, or labels are of another place"
        for name, one in offsets.items()
        if one.apart
    ]
    near = sum(one.known and not one.apart for one in offsets.values())
    open_ = len(sessions) - near - len(said)
    if swapped := [image_id for own in sessions.values() for image_id in own.swapped]:
        of_all = f"{len(swapped)} of {sum(own.fields for own in sessions.values())} fields"
        said.append(
            f"WARNING: in {of_all} ({swapped[0]}, ...) bright-field looks like a stain, PI like "
            "bright-field: are the channels swapped in the manifest or the settings?"
        )
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
    known = noise > 1e-6 * np.abs(values).max()  # where a border leaves little to compare
    scaled = (values - middle) / noise if known else np.zeros_like(values)
    return scaled.astype(np.float32)
