"""Plates of known truth: tables as `unstained score` writes them (counts, no images), and rendered
fields to score.
"""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from src.assay.dose import curve
from src.common.acquire.intake import write_tiff
from src.common.acquire.simulator import plan_plate, simulate_field

MODEL = {
    "uri": "models:/unstained-no_treatment@champion", "name": "unstained-no_treatment",
    "version": "3", "alias": "champion", "digest": "0" * 64, "synthetic": True,
    "arch": "tf_efficientnet_lite0", "partition": "no_treatment", "scheme": "holdout",
    "balanced_accuracy": 0.938, "pixel_size_um": 0.3225,
}  # fmt: skip
COLUMNS = [
    "image_id", "file", "experiment", "well", "position", "time", "day", "compound",
    "concentration", "control", "pixel_size_um", "status", "reason", "windows", "cells", "empty",
    "unusable", "live", "dead", "abstain", "unlike", "live_patch_fraction",
]  # fmt: skip
ROWS = "ABCDEFGHIJKLMNOP"
LOW, HIGH = 0.03, 0.95  # live-patch fraction of the positive and negative controls


def layout_96() -> list[dict]:
    """Controls in columns 1 and 12 and two inside, two compounds in 8 concentrations of 3 wells,
    the rest empty.
    """
    wells = []
    for row in range(8):
        wells += [_well(row, 0, control="negative"), _well(row, 11, control="positive")]
    wells += [_well(3, 10, control="negative"), _well(4, 10, control="negative")]
    for column in range(8):
        for row in range(3):
            wells.append(
                _well(row + 1, column + 2, compound="doxorubicin", concentration=0.01 * 3**column)
            )
            wells.append(
                _well(row + 4, column + 2, compound="vehicle-like", concentration=0.01 * 3**column)
            )
    return wells


def _well(
    row: int, column: int, compound: str = "", concentration: float = np.nan, control: str = ""
) -> dict:
    name = f"{ROWS[row]}{column + 1:02d}"
    return {"well": name, "compound": compound, "concentration": concentration, "control": control}


def expected(well: dict) -> float:
    """The true live-patch fraction of a well: doxorubicin has an IC50 of 0.5, the other compound
    does nothing.
    """
    if well["control"] == "positive":
        return LOW
    if well["compound"] != "doxorubicin":
        return HIGH
    return float(curve(np.array([well["concentration"]]), HIGH, LOW, np.log10(0.5), 1.3)[0])


def images(
    wells: list[dict], fields: int = 3, seed: int = 0, rho: float = 0.03, **columns
) -> pd.DataFrame:
    """The images table: `fields` scored fields a well, whose true fractions vary (beta, intraclass
    correlation rho).
    """
    rng, rows = np.random.default_rng(seed), []
    for well in wells:
        p = well["truth"] if "truth" in well else expected(well)
        for field in range(fields):
            own = rng.beta(p * (1 - rho) / rho, (1 - p) * (1 - rho) / rho)
            called = int(rng.integers(50, 80))
            live = int(rng.binomial(called, own))
            known = {key: value for key, value in well.items() if key != "truth"}
            rows.append({
                "image_id": f"{well['well']}_p{field}", "file": f"{well['well']}_p{field}.tif",
                "experiment": "", "position": "", "time": np.nan, "day": np.nan, "compound": "",
                "concentration": np.nan, "control": "", "pixel_size_um": 0.3225, "status": "scored",
                "reason": "", "windows": 88, "cells": called + 5, "empty": 83 - called,
                "unusable": 0, "live": live, "dead": called - live, "abstain": 5, "unlike": 0,
                "live_patch_fraction": live / called, **known,
            })  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS).assign(**columns)


def write(out: Path, table: pd.DataFrame, overlays: int = 0, **model) -> Path:
    """The folder that `unstained score` leaves before the report: tables, model.json and some
    overlay pictures.
    """
    (out / "overlays").mkdir(parents=True)
    table.to_parquet(out / "images.parquet", index=False)
    (out / "model.json").write_text(json.dumps(MODEL | model))
    rng = np.random.default_rng(0)
    for name in table["image_id"].head(overlays):
        picture = cv2.resize(rng.integers(0, 255, (24, 32, 3)).astype(np.uint8), (1344, 1024))
        cv2.imwrite(str(out / "overlays" / f"{name}.jpg"), picture)
    return out


def small_layout() -> list[dict]:
    """4 negative and 4 positive control wells, and one compound in 6 concentrations of 2 wells: 20
    of 96.
    """
    wells = [_well(row, 0, control="negative") for row in range(2, 6)]
    wells += [_well(row, 11, control="positive") for row in range(2, 6)]
    for column in range(6):
        wells += [_well(row, column + 3, "doxorubicin", 0.03 * 4**column) for row in (3, 4)]
    return wells


def render(
    folder: Path, wells: list[dict], fields: int = 2, height: int = 1024, width: int = 1344
) -> Path:
    """A folder of simulated fields (bright-field and PI) with images.csv; the dead share follows
    `expected`.

    The simulator keeps some live cells in every field: a positive control is not wholly dead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plans = plan_plate(["no_treatment"], len(wells) * fields, height, width, seed=7, sessions=1)
    rows = []
    for number, plan in enumerate(plans):
        well = wells[number // fields]
        plan = dataclasses.replace(
            plan,
            dead_fraction=1 - expected(well),
            confluence=0.85,
            day=4,
            seed=(7, 9, number),
            out_of_focus=False,
        )
        name, field = f"{well['well']}_p{number % fields}", simulate_field(plan)
        for channel, image in (("bf", field.brightfield), ("pi", field.pi)):
            write_tiff(folder / f"{name}_{channel}.tif", image, plan.pixel_size_um)
        facts = {
            "image_id": name,
            "position": f"p{number % fields}",
            "pixel_size_um": plan.pixel_size_um,
        }
        rows.append(
            well
            | facts
            | {"brightfield": f"{name}_bf.tif", "pi": f"{name}_pi.tif", "experiment": "simulated"}
        )
    pd.DataFrame(rows).to_csv(folder / "images.csv", index=False)
    return folder
