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


def texture_features(window: np.ndarray) -> np.ndarray:
    """Intensity and texture statistics of a (size, size) uint8 window, (36,) float64.

    Mean, sd, skewness, kurtosis, percentiles; mean and sd of the gradient, variance of the
    Laplacian at three scales; grey-level co-occurrence properties at distances 1 and 4, mean of
    four directions (Haralick 1973); the histogram of uniform local binary patterns at half the
    resolution (Ojala 2002).
    """
    image = window.astype(np.float64)  # float32 sums depend on where in memory the image lies
    gradient = cv2.magnitude(cv2.Sobel(image, cv2.CV_64F, 1, 0), cv2.Sobel(image, cv2.CV_64F, 0, 1))
    scales = [image, *(cv2.GaussianBlur(image, (0, 0), sigma) for sigma in (2, 4))]
    laplacians = [np.log1p(cv2.Laplacian(scale, cv2.CV_64F).var()) for scale in scales]
    matrix = graycomatrix(
        window // (256 // GREY_LEVELS),
        [1, 4],
        ANGLES,
        levels=GREY_LEVELS,
        symmetric=True,
        normed=True,
    )
    glcm = np.concatenate([graycoprops(matrix, name).mean(1) for name in GLCM])
    half = cv2.resize(window, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    codes = local_binary_pattern(half, 8, 1, "uniform").astype(int)
    patterns = np.bincount(codes.ravel(), minlength=LBP_CODES) / codes.size
    return np.concatenate(
        [_intensity(window), [gradient.mean(), gradient.std()], laplacians, glcm, patterns]
    )


def textures(store, table: pd.DataFrame) -> np.ndarray:
    """`texture_features` of the windows of a table (image_id, y, x, size), (N, 36)."""
    rows = table[["image_id", "y", "x", "size"]].itertuples(index=False)
    seen = (delayed(texture_features)(store.window(*row)) for row in rows)
    results = Parallel(-1, prefer="threads", batch_size=16, return_as="generator")(seen)
    return np.stack(list(tqdm(results, "textures", len(table), unit="window")))


def _intensity(window: np.ndarray) -> np.ndarray:
    """Mean, sd, skewness, kurtosis and percentiles, from the histogram of the 256 values."""
    share = np.bincount(window.ravel(), minlength=256) / window.size
    values = np.arange(256)
    mean = share @ values
    second, third, fourth = (share @ (values - mean) ** power for power in (2, 3, 4))
    shape = [third / second**1.5, fourth / second**2] if second > 0 else [0.0, 0.0]
    percentiles = np.searchsorted(share.cumsum(), np.array(PERCENTILES) / 100 - 1e-9)
    return np.array([mean, second**0.5, *shape, *percentiles])
