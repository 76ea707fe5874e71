"""Changes of 8-bit bright-field frames that session_trials.py tries, each of a frame and a frame of
another session: (H, W) uint8 both, and so is the result.
"""

from functools import partial

import numpy as np
from scipy import ndimage
from skimage import exposure, filters, transform

BACKGROUND = 32.0  # px, sd of what is taken as the local background
Frame = np.ndarray


def grey(values: np.ndarray) -> Frame:
    """Any image between its 0.5 and 99.5 percentiles, as uint8."""
    low, high = np.percentile(values, [0.5, 99.5])
    return np.clip((values - low) / (high - low) * 255, 0, 255).astype(np.uint8)


def unchanged(frame: Frame, _other: Frame) -> Frame:
    """The frame as it is."""
    return frame


def local_contrast(frame: Frame, _other: Frame) -> Frame:
    """Zero mean and unit deviation in a Gaussian neighbourhood."""
    centred = frame - ndimage.gaussian_filter(frame.astype(float), BACKGROUND)
    return grey(centred / (np.sqrt(ndimage.gaussian_filter(centred**2, BACKGROUND)) + 1))


def band_pass(frame: Frame, _other: Frame) -> Frame:
    """A difference of Gaussians of 1 and 16 px."""
    return grey(filters.difference_of_gaussians(frame.astype(float), 1, 16))


def matched(frame: Frame, other: Frame) -> Frame:
    """The other frame's histogram."""
    return exposure.match_histograms(frame, other).astype(np.uint8)


def amplitude(frame: Frame, other: Frame, share: float = 0.02) -> Frame:
    """The other frame's low Fourier amplitudes (FDA: Yang and Soatto 2020)."""
    other = transform.resize(other.astype(float), frame.shape)
    own, theirs = (np.fft.fftshift(np.fft.fft2(f)) for f in (frame.astype(float), other))
    size, (y, x) = int(share * min(frame.shape)), (n // 2 for n in frame.shape)
    low = np.s_[y - size : y + size + 1, x - size : x + size + 1]
    mixed = np.abs(own)
    mixed[low] = np.abs(theirs[low])
    back = np.fft.ifft2(np.fft.ifftshift(mixed * np.exp(1j * np.angle(own)))).real
    return np.clip(back, 0, 255).astype(np.uint8)


def inverted(frame: Frame, _other: Frame) -> Frame:
    """Dark for bright."""
    return 255 - frame


def defocused(frame: Frame, _other: Frame, sign: int = 1) -> Frame:
    """Blurred by 2 px; sign -1 also turns its halos round about the local background."""
    blurred, back = (ndimage.gaussian_filter(frame.astype(float), s) for s in (2.0, BACKGROUND))
    return np.clip(back + sign * (blurred - back), 0, 255).astype(np.uint8)


def gamma(frame: Frame, _other: Frame, power: float) -> Frame:
    """Grey values to a power: another exposure."""
    return exposure.adjust_gamma(frame, power)


darker, brighter = partial(gamma, power=1.4), partial(gamma, power=0.7)
turned_round = partial(defocused, sign=-1)
