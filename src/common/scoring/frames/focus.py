"""Is a window in focus? The share of its contrast that lies in detail of the size of cell edges.

Pixel-sized detail, as the Laplacian sees it, is mostly the camera's noise, which stays when a frame
is out of focus. This file ships inside registered models.
"""

import numpy as np

from .imaging import detail, window_variances

FINE, COARSE = 5, 11  # px: detail between means over these


def sharpness(frame8: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Sharpness (N,) float64 of windows (y, x, size) of an 8-bit frame (H, W): low where it is out
    of focus.

    The variance of what lies between means over 5 and 11 px, over the variance of the grey values,
    so that contrast does not count.
    """
    lying_between = window_variances(detail(frame8, FINE, COARSE), corners) / 16**2
    return lying_between / np.maximum(window_variances(frame8, corners), 1e-6)
