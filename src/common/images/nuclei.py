"""Nuclei, or cells, of an instance mask: place, size, shape, and what an image holds inside."""

import numpy as np
import pandas as pd
from skimage.measure import regionprops_table

MEASURES = {
    "label": "label", "centroid-0": "y", "centroid-1": "x", "area": "area_px",
    "eccentricity": "eccentricity", "perimeter": "perimeter", "intensity_mean": "mean",
}  # fmt: skip


def nuclei_of(mask: np.ndarray, image: np.ndarray, pixel_size_um: float | None) -> pd.DataFrame:
    """One row per nucleus of an instance mask (H, W), 0 is background, by its number in it.

    label; y, x: its centre (px); area_px; area_um2 (NaN without a pixel size); eccentricity (of the
    ellipse with the same moments, 0: a circle); form_factor (4 pi area / perimeter^2, about 1: a
    circle); mean: of image (H, W) inside.
    """
    properties = [name.split("-")[0] for name in MEASURES if name != "centroid-1"]
    # numbers without gaps: scikit-image keeps a place in memory for each up to the highest
    numbers, dense = np.unique(np.append(mask, 0), return_inverse=True)
    dense = dense[:-1].reshape(mask.shape)
    table = pd.DataFrame(regionprops_table(dense, image, properties=properties))
    table = table.rename(columns=MEASURES)[list(MEASURES.values())]
    table["label"] = numbers[table["label"]].astype(np.int64)
    perimeter = table.pop("perimeter").clip(lower=1)  # a single pixel has none
    return table.assign(
        area_um2=table["area_px"] * (pixel_size_um or np.nan) ** 2,
        form_factor=4 * np.pi * table["area_px"] / perimeter**2,
    )
