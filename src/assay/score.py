"""`unstained score`: from bright-field images and a registered model to tables, overlay pictures
and the report.

Every image is checked against the model's contract before the first is scored. The tables are made
from OUT/parts (see output.py), and so are the same however often a run stopped.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..common.images.entries import pixel_digest, size_note, summary
from ..common.images.field import Refused
from ..common.images.files import FileField, bits
from ..common.images.layout import Layout
from ..common.scoring.imaging import scaling_range, to_uint8
from ..common.scoring.novelty import frame_flags
from ..common.scoring.scorer import RefusedFrame
from ..common.workspace.errors import UserError
from . import images, output, overlay, report
from .model import Model, load
from .report import TRAINED_ON

FACTS = ["experiment", "well", "position", "time", "day", "compound", "concentration", "control"]
COUNTS = ["windows", "cells", "empty", "unusable", "live", "dead", "abstain", "unlike"]
COLUMNS = [
    "image_id",
    "file",
    *FACTS,
    "pixel_size_um",
    "status",
    "reason",
    *COUNTS,
    "live_patch_fraction",
]
PATCHES = ["image_id", "y", "x", "size", "verdict", "live_probability", "novelty", "call"]


class ScoreError(UserError):
    """Nothing can be scored as asked; the message says why and what to do."""


@dataclass(frozen=True)
class Options:
    """How images are read and drawn: pixel size (um) where neither manifest nor file says, and
    overlays or not.
    """

    layout: Layout
    manifest: Path | None = None
    pixel_size_um: float | None = None
    overlays: bool = True


@dataclass(frozen=True)
class Checked:
    """An image that was read once: why it is refused, or what is known of its counts and the key of
    its part.
    """

    image: FileField
    reason: str = ""
    pixel_size_um: float | None = None
    bits: int = 0
    low: float = 0.0
    high: float = 0.0
    key: str = ""
    trained_on: bool = False


def score(
    inputs: Sequence[Path], uri: str, out: Path, options: Options, allow_synthetic: bool = False
) -> pd.DataFrame:
    """Scores images into the folder OUT and returns the table of images (see docs/assay.md).

    Raises ValueError for what the user can mend: the model, the manifest, a folder OUT of another
    model, or no image that the contract allows. A refused image is a row with its reason and stops
    none of the others.
    """
    output.refuse(inputs, out)
    model = load(uri, allow_synthetic)
    entries, notes = images.find(inputs, options.layout, options.manifest)
    if not model.facts["novelty"]:
        notes.append(
            "this model was packaged before novelty was: images unlike its training data are NOT flagged"
        )
    for note in notes:
        print(f"score: {note}")
    with output.claimed(out, model.facts, "score"):
        checked = check(entries, model, options.pixel_size_um)
        sizes = [one.pixel_size_um for one in checked]
        for note in size_note(sizes, options.pixel_size_um, "--pixel-size-um"):
            print(f"score: {note}")
        parts = [
            (one, None if one.reason else part(one, model, out, options.overlays))
            for one in tqdm(checked, desc="score", unit="image")
        ]
        result = table(parts, model.contract)
        with output.together(out, report.PAGE, [*report.FILES, "overlays"]) as new:
            output.write(new, "patches", patches(parts))
            output.write(new, "images", result)
            place_overlays(out, new, checked, options.overlays)
            report.make(result, json.loads((out / output.MODEL).read_text()), new)
    if all(one.reason for one in checked):
        raise ScoreError(f"every image is refused:\n{_reasons(checked)}\nsee {out / 'images.csv'}")
    return result


def patches(parts: Sequence[tuple[Checked, pd.DataFrame | None]]) -> pd.DataFrame:
    """The windows of all images that were scored, with their image's id."""
    tables = [
        windows.assign(image_id=one.image.image_id) for one, windows in parts if windows is not None
    ]
    return pd.concat(tables)[PATCHES] if tables else pd.DataFrame(columns=PATCHES)


def check(found: Sequence[FileField], model: Model, pixel_size_um: float | None) -> list[Checked]:
    """Reads every image once and holds it against the contract, before any is scored; same pixels
    count once.
    """
    first: dict[str, str] = {}
    checked, training = [], set(model.contract.get("training_images", []))
    for image in tqdm(found, desc="check", unit="image"):
        try:
            pixels, size = image.pixels()
            size = size or pixel_size_um
            model.check(pixels, size)
            digest = pixel_digest(pixels)
            if digest in first:
                raise Refused(
                    "same pixels", f"as image {first[digest]}: the list is wrong about one of them"
                )
        except (Refused, RefusedFrame) as error:
            kind = "" if isinstance(error, Refused) else "contract: "
            checked.append(Checked(image, f"{kind}{error}"))
            continue
        first[digest] = image.image_id
        seen = pixel_digest(pixels.astype(np.uint16))  # as training data are kept
        low, high = scaling_range(pixels, **model.contract["scaling"])
        key = output.part_key(model.facts["digest"], digest, size)
        checked.append(Checked(image, "", size, bits(pixels), low, high, key, seen in training))
    return checked


def part(one: Checked, model: Model, out: Path, overlays: bool) -> pd.DataFrame:
    """The windows of an image: from its part if there is one, else scored; draws the overlay if
    that lacks.
    """
    pixels = cache(
        lambda: one.image.pixels()[0]
    )  # read only where something is to be scored or drawn
    windows = output.part(
        out, one.key, lambda: model.predict(pixels(), one.pixel_size_um)[PATCHES[1:]]
    )
    picture = out / "parts" / f"{one.key}.jpg"
    if overlays and not picture.exists():
        reasons = flags(one, windows, model.contract)
        frame8 = to_uint8(pixels(), one.low, one.high)
        drawn = overlay.draw(frame8, windows, model.contract, one.pixel_size_um, reasons)
        output.whole(picture, lambda temporary: temporary.write_bytes(drawn))
    return windows


def table(parts: Sequence[tuple[Checked, pd.DataFrame | None]], contract: dict) -> pd.DataFrame:
    """The table of images, from each image and its windows (None for a refused one)."""
    rows = []
    for one, windows in parts:
        image = one.image
        row = {
            "image_id": image.image_id,
            "file": image.name,
            **{name: getattr(image, name) for name in FACTS},
        }
        row |= {
            "pixel_size_um": one.pixel_size_um or image.pixel_size_um,
            "status": "refused",
            "reason": one.reason,
        }
        if windows is not None:
            reasons = flags(one, windows, contract)
            told = [*reasons, TRAINED_ON] if one.trained_on else reasons
            row |= {
                "status": "flagged" if reasons else "scored",
                "reason": "; ".join(told),
            } | counts(windows)
            if "novelty" not in contract:
                row["unlike"] = None  # not known, which is not none
        rows.append(row)
    found = pd.DataFrame(rows, columns=COLUMNS)
    found[COUNTS] = found[COUNTS].astype("Int64")
    numbers = ["time", "day", "concentration", "pixel_size_um", "live_patch_fraction"]
    found[numbers] = found[numbers].astype("float64")
    return found


def flags(one: Checked, windows: pd.DataFrame, contract: dict) -> list[str]:
    """Why a scored image is not trusted, novelty first; empty for one like the training data."""
    found = frame_flags(
        contract, one.bits, one.low, one.high, windows["novelty"].dropna().to_numpy()
    )
    return sorted(found, key=lambda reason: not reason.startswith("unlike"))


def counts(windows: pd.DataFrame) -> dict[str, int | float]:
    """How many windows of an image were seen as what, and live / (live + dead), NaN where nothing
    is called.
    """
    found = {"windows": len(windows)}
    found |= {
        name: int((windows["verdict"] == name).sum()) for name in ("cells", "empty", "unusable")
    }
    found |= {name: int((windows["call"] == name).sum()) for name in ("live", "dead", "abstain")}
    called = found["live"] + found["dead"]
    fraction = round(found["live"] / called, 6) if called else np.nan
    return found | {"unlike": int((windows["novelty"] > 1).sum()), "live_patch_fraction": fraction}


def place_overlays(out: Path, new: Path, checked: Sequence[Checked], wanted: bool) -> None:
    """Names the parts' pictures by image: NEW/overlays/IMAGE_ID.jpg, of these images only."""
    if not wanted:
        return
    (new / "overlays").mkdir()
    for one in checked:
        if one.key:
            target = new / "overlays" / f"{one.image.image_id}.jpg"
            try:
                target.hardlink_to(out / "parts" / f"{one.key}.jpg")
            except OSError:  # a file system without hard links
                shutil.copyfile(out / "parts" / f"{one.key}.jpg", target)


def _reasons(checked: Sequence[Checked]) -> str:
    return summary({"reason": one.reason, "file": one.image.name} for one in checked if one.reason)
