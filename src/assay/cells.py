"""A class and a calibrated score for every cell, where the manifest names an instance mask.

By the mean predicted PI inside its outline; and by its size and shape, where the model learnt these
from masks of nuclei (contract: nuclei). Only a model that predicts the stain can.
"""

import cv2
import numpy as np
import pandas as pd
from skimage.segmentation import find_boundaries

from ..common.images.nuclei import nuclei_of
from ..common.scoring.nuclei import SHAPE
from ..common.scoring.operating import conformal_call
from .fractions import CALLS
from .model import Model
from .wells import FACTS, KEYS, well_table

CELL_COLUMNS = [
    "image_id", "label", "y", "x", "area_px", "area_um2", "eccentricity", "form_factor",
    "predicted_pi", "live_probability", "call",
]  # fmt: skip
UNLIKE = 1.25  # times outside the median areas of training's groups: outlines of another kind
CALL_RGB = {"live": (0, 114, 178), "dead": (213, 94, 0), "abstain": (242, 242, 242)}  # RGB
FRACTION = "dead_cell_fraction"


def of_image(
    mask: np.ndarray, pi: np.ndarray, model: Model, pixel_size_um: float | None
) -> pd.DataFrame:
    """One row per cell of an instance mask (H, W), 0 is background: CELL_COLUMNS but image_id.

    label: its number in the mask; y, x: its centre (px); eccentricity and form_factor: as in
    images/nuclei.py; predicted_pi: mean PI over background of pi (H, W) inside; live_probability
    and call (live, dead, abstain) as for windows.
    """
    table = nuclei_of(mask, pi, pixel_size_um).rename(columns={"mean": "predicted_pi"})
    predicted, shape = (table[name].to_numpy(float) for name in ("predicted_pi", SHAPE))
    table = table.assign(live_probability=model.probability_of(predicted, shape))
    table = called(table, calling_point(model.contract))[CELL_COLUMNS[1:]]
    digits = {"y": 2, "x": 2, "area_um2": 2, "eccentricity": 4, "form_factor": 4}
    return table.round(digits | {"predicted_pi": 4})


def called(cells: pd.DataFrame, at: dict) -> pd.DataFrame:
    """Cells (live_probability, area_um2) with their call at a calling point; specks abstain."""
    probability = cells["live_probability"].to_numpy()
    call = conformal_call(probability, at["live_from"], at["dead_to"])
    return cells.assign(call=np.where(cells["area_um2"] < at["speck_um2"], "abstain", call))


def calling_point(contract: dict) -> dict:
    """From which live probability on a cell is called: live_from, dead_to; `weight`: of the
    evidence of PI in a cell's logit, against that in a window's; speck_um2: area below which an
    outline is a speck, which a model that learnt from masks of nuclei does not call.
    """
    windows, nuclei = contract["operating"], contract.get("nuclei")
    if not nuclei:
        return windows | {"weight": 1.0, "speck_um2": 0.0}
    return nuclei | {"weight": nuclei["weights"][0] * windows["temperature"]}


def remarks(cells: pd.DataFrame, contract: dict) -> list[str]:
    """What is to be said of cells whose outlines are specks, or of another kind than those of
    training.
    """
    nuclei = contract.get("nuclei")
    if not nuclei or cells.empty:
        return []
    least = nuclei["speck_um2"]
    specks = int((cells["area_um2"] < least).sum())
    told = f"{specks} of {len(cells)} cells are smaller than {least:.0f} µm² and not called"
    said = [f"{told}: specks of the masks, which size would call dead"] if specks else []
    (low, high), area = nuclei["area_um2"], float(cells["area_um2"].median())
    if low / UNLIKE <= area <= high * UNLIKE:
        return said
    return [
        *said,
        f"the cells' outlines hold {area:.0f} µm² (median), those of training {low:.0f} to "
        f"{high:.0f}: of another kind, as of whole cells for nuclei. Their calls rest on size and "
        "are not to be trusted; predicted_pi holds",
    ]


def well_cells(images: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """The dead-cell fraction of each well and time: dead / (live + dead) over its scored images,
    with an interval over fields as for windows; KEYS, FACTS, fields, live, dead, abstain.

    images: as `prepare` gives them.
    """
    counts = pd.crosstab(cells["image_id"], cells["call"]).reindex(columns=CALLS, fill_value=0)
    masked = images.drop(columns=CALLS).merge(counts, left_on="image_id", right_index=True)
    number = masked["live"] + masked["dead"]
    share = masked["live"] / number.where(number > 0)
    wells, _, _ = well_table(masked.assign(called=number.astype(float), live_patch_fraction=share))
    wells[FRACTION] = (1 - wells["live_patch_fraction"]).round(6)
    wells = wells.assign(low=1 - wells["high"], high=1 - wells["low"]).round({"low": 6, "high": 6})
    return wells[[*KEYS, *FACTS, "fields", *CALLS, FRACTION, "low", "high"]]


def outlines(frame8: np.ndarray, mask: np.ndarray, cells: pd.DataFrame) -> np.ndarray:
    """The frame (H, W) uint8 with each cell's outline in the colour of its call: (H, W, 3) RGB."""
    picture = np.repeat(frame8[..., None], 3, axis=2)
    edge = find_boundaries(mask, mode="inner")
    for call, colour in CALL_RGB.items():
        labels = cells.loc[cells["call"] == call, "label"].to_numpy()
        own = (np.isin(mask, labels) & edge).astype(np.uint8)
        picture[cv2.dilate(own, np.ones((2, 2), np.uint8)) > 0] = colour
    return picture
