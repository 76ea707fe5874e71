"""Dead nuclei in a map of PI over background, measured or predicted: nucleus-sized spots."""

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from skimage.feature import peak_local_max

LEAST_PEAK = 1.5  # times background: less is haze
DIAMETER_UM = 13.0  # of the nuclei of the real MCF-7 fields


def dead_nuclei(ratio: np.ndarray, pixel_size_um: float) -> np.ndarray:
    """Centres (n, 2) int64 (y, x) of spots in PI over background (H, W), NaN where unknown.

    Local maxima (scikit-image) of the map smoothed to a third of a nucleus's radius, at least a
    radius apart and LEAST_PEAK times the background.
    """
    radius = max(1.0, DIAMETER_UM / 2 / pixel_size_um)
    filled = np.nan_to_num(ratio, nan=1.0).astype(np.float32)
    smooth = cv2.GaussianBlur(filled, (0, 0), radius / 3, borderType=cv2.BORDER_REPLICATE)
    return peak_local_max(
        smooth, min_distance=round(radius), threshold_abs=LEAST_PEAK, exclude_border=False
    )


def matched(centres: np.ndarray, true: np.ndarray, reach: float) -> int:
    """How many of the found centres (n, 2) belong to one true centre (m, 2) each, within `reach`
    px: the assignment of least total distance.
    """
    if not len(centres) or not len(true):
        return 0
    distance = cdist(centres, true)
    rows, columns = linear_sum_assignment(np.minimum(distance, 10 * reach))
    return int((distance[rows, columns] <= reach).sum())
