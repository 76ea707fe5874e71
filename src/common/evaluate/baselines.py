"""Baselines beside every model: linear models on intensity and texture, and on the frozen
pretrained backbone.

Both are scikit-learn's logistic regression on standardised features, classes weighted equally,
fitted on the model's own training part, and regularised and called by its validation part, as the
model is.
"""

import cv2
import numpy as np
import pandas as pd
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

BASELINE_WINDOWS = 4000  # training windows that the linear models are fitted on, at most
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of their regularisation, chosen by the validation AUC
SOLVER = "newton-cholesky"  # ends at the optimum to the last digits; lbfgs ends where rounding errors let it
WITHOUT_VALIDATION = 1e-2  # C where validation has one class only
LEVELS = 16  # grey levels of the co-occurrence matrix
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
    image = window.astype(np.float32)
    gradient = cv2.magnitude(cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1))
    scales = [image, *(cv2.GaussianBlur(image, (0, 0), sigma) for sigma in (2, 4))]
    laplacians = [np.log1p(cv2.Laplacian(scale, cv2.CV_32F).var()) for scale in scales]
    matrix = graycomatrix(
        window // (256 // LEVELS), [1, 4], ANGLES, levels=LEVELS, symmetric=True, normed=True
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
    return np.stack(
        [
            texture_features(store.window(*row))
            for row in tqdm(rows, "textures", len(table), unit="window")
        ]
    )


def linear_logits(
    train: np.ndarray,
    live: np.ndarray,
    others: np.ndarray,
    valid: np.ndarray,
    valid_live: np.ndarray,
):
    """Logits (M,) for features `others` (M, F) of a logistic regression fitted on `train` (N, F)
    and `live` (N,) bool.

    valid: (M,) bool, the validation rows of `others`, by whose AUC the regularisation is chosen;
    valid_live: their truth. Of equal ones the strongest.
    """
    train, others = (
        each.astype(np.float64) for each in (train, others)
    )  # in single precision no solver gets there
    scaler = StandardScaler().fit(train)
    train, others = scaler.transform(train), scaler.transform(others)
    both = valid_live.any() and not valid_live.all()
    found = []
    for c in STRENGTHS if both else [WITHOUT_VALIDATION]:
        model = LogisticRegression(C=c, class_weight="balanced", solver=SOLVER, tol=1e-8).fit(
            train, live
        )
        logits = model.decision_function(others)
        found.append((round(roc_auc_score(valid_live, logits[valid]), 9) if both else 0, logits))
    return max(found, key=lambda each: each[0])[1]


def _intensity(window: np.ndarray) -> np.ndarray:
    """Mean, sd, skewness, kurtosis and percentiles, from the histogram of the 256 values."""
    share = np.bincount(window.ravel(), minlength=256) / window.size
    values = np.arange(256)
    mean = share @ values
    second, third, fourth = (share @ (values - mean) ** power for power in (2, 3, 4))
    shape = [third / second**1.5, fourth / second**2] if second > 0 else [0.0, 0.0]
    percentiles = np.searchsorted(share.cumsum(), np.array(PERCENTILES) / 100 - 1e-9)
    return np.array([mean, second**0.5, *shape, *percentiles])
