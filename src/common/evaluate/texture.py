"""Intensity and texture of a window as numbers, for a baseline that knows nothing of cells."""

import cv2
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern
from tqdm import tqdm

GREY_LEVELS = 16  # of the co-occurrence matrix
ANGLES = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
GLCM = ["contrast", "dissimilarity", "homogeneity", "energy", "correlation"]
LBP_CODES = 10  # uniform patterns of 8 neighbours
PERCENTILES = [1, 5, 25, 50, 75, 95, 99]
FEATURES = 36


def texture_features(frame: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Intensity and texture statistics of windows (N, 3) (y, x, size) of a (H, W) uint8 frame, (N,
    36) float64.

    Mean, sd, skewness, kurtosis, percentiles; mean and sd of the gradient, variance of the
    Laplacian at three scales; grey-level co-occurrence properties at distances 1 and 4, mean of
    four directions (Haralick 1973); the histogram of uniform local binary patterns at half the
    resolution (Ojala 2002). Windows overlap, so what can be is computed of the frame, once.
    """
    image = frame.astype(np.float64)  # float32 sums depend on where in memory the image lies
    gradient = cv2.magnitude(cv2.Sobel(image, cv2.CV_64F, 1, 0), cv2.Sobel(image, cv2.CV_64F, 0, 1))
    scales = [image, *(cv2.GaussianBlur(image, (0, 0), sigma) for sigma in (2, 4))]
    laplacians = [cv2.Laplacian(scale, cv2.CV_64F) for scale in scales]
    half = cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    codes = local_binary_pattern(half, 8, 1, "uniform").astype(int)
    rows = []
    for y, x, size in corners:
        at = np.s_[y : y + size, x : x + size]
        patterns = codes[y // 2 : (y + size) // 2, x // 2 : (x + size) // 2]
        rows.append([
            *_intensity(frame[at]), gradient[at].mean(), gradient[at].std(),
            *(np.log1p(laplacian[at].var()) for laplacian in laplacians),
            *_cooccurrence(frame[at]),
            *np.bincount(patterns.ravel(), minlength=LBP_CODES) / patterns.size,
        ])  # fmt: skip
    return np.array(rows)


def textures(store, table: pd.DataFrame) -> np.ndarray:
    """`texture_features` of the windows of a table (image_id, y, x, size), (N, 36)."""
    corners, places = table[["y", "x", "size"]].to_numpy(), table.groupby("image_id").indices
    seen = (
        delayed(texture_features)(store.brightfield(image_id), corners[rows])
        for image_id, rows in places.items()
    )
    found = Parallel(-1, prefer="threads", return_as="generator")(seen)
    result = np.empty((len(table), FEATURES))
    for rows, values in zip(places.values(), tqdm(found, "textures", len(places), unit="field")):
        result[rows] = values
    return result


def _cooccurrence(window: np.ndarray) -> np.ndarray:
    levels = window // (256 // GREY_LEVELS)
    matrix = graycomatrix(levels, [1, 4], ANGLES, GREY_LEVELS, symmetric=True, normed=True)
    return np.concatenate([graycoprops(matrix, name).mean(1) for name in GLCM])


def _intensity(window: np.ndarray) -> np.ndarray:
    """Mean, sd, skewness, kurtosis and percentiles, from the histogram of the 256 values."""
    share = np.bincount(window.ravel(), minlength=256) / window.size
    values = np.arange(256)
    mean = share @ values
    second, third, fourth = (share @ (values - mean) ** power for power in (2, 3, 4))
    shape = [third / second**1.5, fourth / second**2] if second > 0 else [0.0, 0.0]
    percentiles = np.searchsorted(share.cumsum(), np.array(PERCENTILES) / 100 - 1e-9)
    return np.array([mean, second**0.5, *shape, *percentiles])
