"""Stained images for validation: read bright-field and PI, score the one, label by the other.

The model sees bright-field alone; the labels come from PI by the rule the model was trained under, which travels in
its contract.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..common import mixture as mixtures
from ..common.scoring.imaging import pi_measures
from ..common.scoring.windows import in_pixels
from ..common.sources import folder
from ..common.sources.field import Field, Refused
from ..common.sources.files import check
from ..common.sources.intake import expand, pixel_digest

SEED = 1  # of the mixture's initialisations
KINDS = ("counted", "without PI", "in training", "refused")
METADATA = ["image_id", "experiment", "well", "position", "time", "compound", "concentration"]


class ValidationError(ValueError):
    """These images cannot validate this model; the message says why and what to do."""


@dataclass
class Stained:
    """What became of the images: patches of those that count, and how many do not and why."""

    patches: pd.DataFrame
    counts: Counter = field(default_factory=Counter)  # images of each of KINDS
    refused: list[dict] = field(default_factory=list)  # image_id, reason
    training_known: bool = True


def score(model, contract: dict, images: Path, layout: folder.Layout) -> Stained:
    """Scores every stained image of a folder by a loaded pyfunc model, and measures its PI.

    patches: METADATA, y, x, size, verdict, live_probability, call, mean_pi, pi_background. Images that were in
    training, by the digest of their pixels, are not counted. Raises ValidationError if no image is left.
    """
    if not (images / folder.MANIFEST).is_file() and not layout.pattern:
        seen = folder.describe(images) if images.is_dir() else f"there is no folder {images}"
        columns = "brightfield and pi (and pixel_size_um, experiment, well, ... where known)"
        raise ValidationError(f"write {images / folder.MANIFEST} with columns {columns}, or give --pattern: {seen}")
    entries = [one for entry in folder.find(images, layout).fields for one in expand(entry)]
    training = contract.get("training_images")
    found, tables = Stained(pd.DataFrame(), training_known=training is not None), []
    for entry in tqdm(entries, desc="validate", unit="image"):
        tables += list(_one(model, contract, entry, set(training or ()), found))
    if not tables:
        raise ValidationError(_nothing(images, found))
    found.patches = pd.concat(tables, ignore_index=True)
    return found


def label(patches: pd.DataFrame, rule: dict, own: bool) -> tuple[pd.DataFrame, dict]:
    """Patches with cells, their intensity and PI label, and the rule used: the contract's thresholds, or `own` ones.

    Own thresholds come from these images by the same mixture (`mixture.fit`), for a microscope whose counts differ.
    Raises MixtureError if the stain of these images does not give two classes.
    """
    cells = patches[patches["verdict"] == "cells"].reset_index(drop=True)
    cells["intensity"] = mixtures.intensities(cells, rule["intensity"])
    used = {name: rule[name] for name in ("intensity", "log", "live_below", "dead_above")} | {"of": "the model"}
    if own:
        fitted = mixtures.fit(cells["intensity"].to_numpy(), rule["log"], SEED)
        if problems := mixtures.problems(fitted):
            raise mixtures.MixtureError(f"the PI of these images does not give two classes: {'; '.join(problems)}")
        used |= {"live_below": fitted.live_below, "dead_above": fitted.dead_above, "of": "these images"}
    cells["label"] = mixtures.classify(cells["intensity"].to_numpy(), used["live_below"], used["dead_above"])
    return cells, used


def _one(model, contract: dict, entry: Field, training: set[str], found: Stained) -> Iterator[pd.DataFrame]:
    """The table of one image, or nothing, with the reason counted."""
    try:
        if entry.problem:
            raise Refused(*entry.problem)
        frame = entry.read()
        size = frame.pixel_size_um or entry.pixel_size_um
        tile = contract["tile"]
        brightfield, pi, bits = check(frame, entry, in_pixels(tile["window"], tile["unit"], size))
        if pixel_digest(brightfield) in training:
            found.counts["in training"] += 1
            return
        row = {"image": frame.brightfield, "pixel_size_um": size or np.nan, "image_id": entry.image_id}
        table = model.predict(pd.DataFrame([row]))
        measures = pi_measures(pi, table[["y", "x", "size"]].to_numpy(np.int64), 2**bits - 1)
        if measures["pi_background"][0] <= 0:
            raise Refused("dark", "the median PI is zero: there is no background")
    except (Refused, ValueError) as error:
        missing = isinstance(error, Refused) and error.kind == "missing partner" and "PI" in str(error)
        found.counts["without PI" if missing else "refused"] += 1
        if not missing:
            found.refused.append({"image_id": entry.image_id, "reason": str(error)})
        return
    found.counts["counted"] += 1
    facts = {name: getattr(entry, name) for name in METADATA if name != "image_id"}
    yield table.assign(**facts, mean_pi=measures["mean_pi"].round(6), pi_background=measures["pi_background"])


def _nothing(images: Path, found: Stained) -> str:
    """Why no image is left to validate on."""
    counts = found.counts
    if counts["in training"] and not counts["refused"]:
        return (
            f"all {counts['in training']} stained images of {images} were among the model's training images: agreement "
            "on them would say nothing. Validate on images that the model has never seen"
        )
    parts = [f"{count} {kind}" for kind, count in counts.items()] or ["none at all"]
    first = f"; the first: {found.refused[0]['reason']}" if found.refused else ""
    return f"{images} has no stained image that counts: {', '.join(parts)}{first}"
