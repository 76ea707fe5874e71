"""Stained images for validation: read bright-field and PI, score the one, label by the other.

The model sees bright-field alone; the labels come from PI by the rule the model was trained under,
which travels in its contract.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..common.images import folder, registration
from ..common.images.entries import expand, file_notes, pixel_digest, refuse_repeated
from ..common.images.field import Field, Refused, SourceError
from ..common.images.files import bits, check_frame
from ..common.images.layout import Layout
from ..common.images.listing import describe
from ..common.images.manifest import MANIFEST
from ..common.label import mixture as mixtures
from ..common.scoring.frames.windows import in_pixels
from ..common.tile.measures import window_measures
from ..common.workspace.errors import UserError
from . import images as scoring
from . import nuclei, output
from .fractions import weights
from .model import Model

OPTIONS = replace(scoring.OPTIONS, channels="--brightfield and --pi")
SEED = 1  # of the mixture's initialisations
KINDS = ("counted", "without PI", "in training", "refused")
METADATA = ["image_id", "experiment", "well", "position", "time", "compound", "concentration"]


class ValidationError(UserError):
    """These images cannot validate this model; the message says why and what to do."""


@dataclass
class Stained:
    """What became of the images: patches of those that count, and how many do not and why."""

    patches: pd.DataFrame
    counts: Counter = field(default_factory=Counter)  # images of each of KINDS
    refused: list[dict] = field(default_factory=list)  # image_id, reason
    nuclei: list[pd.DataFrame] = field(default_factory=list)  # of those with masks, see nuclei.py
    digests: dict[str, str] = field(default_factory=dict)  # of their bright-field, with their id
    fields: list[Field] = field(default_factory=list)  # those that count
    training_known: bool = True
    sessions: dict[str, registration.Session] = field(
        default_factory=lambda: defaultdict(registration.Session)
    )

    def told(self) -> str:
        """What became of the images, in words."""
        names = {"counted": "counted", "without PI": "without PI", "refused": "refused"}
        names |= {"in training": "left out, as they trained this model"}
        parts = [f"{self.counts[kind]} {name}" for kind, name in names.items() if self.counts[kind]]
        return f"of {sum(self.counts.values())} images {', '.join(parts) or 'none'}"


@dataclass(frozen=True)
class Options:
    """How stained images are read: layout, a manifest instead of images.csv, and um per pixel where
    nothing says.
    """

    layout: Layout
    manifest: Path | None = None
    pixel_size_um: float | None = None


def find(images: Path, options: Options) -> tuple[list[Field], list[str]]:
    """The stained images of a folder, and what is worth saying.

    Raises ValueError for what must be mended there.
    """
    layout = replace(options.layout, settings=OPTIONS)
    if not scoring.named_by_manifest(images, options.manifest, layout):
        seen = describe(images) if images.is_dir() else f"there is no folder {images}"
        columns = "brightfield and pi (and pixel_size_um, experiment, well, ... where known)"
        raise ValidationError(
            f"write {images / MANIFEST} with columns {columns}, "
            f"or give --manifest or --pattern: {seen}"
        )
    try:
        source = folder.find(images, layout, options.manifest)
    except SourceError as error:
        raise ValidationError(str(error)) from None
    every = refuse_repeated(one for entry in source.fields for one in expand(entry))
    return every, [*source.notes, *file_notes(every)]


def score(model: Model, entries: list[Field], options: Options, out: Path) -> Stained:
    """Scores every stained image by a model, keeping the windows in OUT/parts, and measures its PI.

    patches: METADATA, y, x, size, verdict, live_probability, call, weight (fractions.py), mean_pi,
    pi_background. Images that were in training, by the digest of their pixels, are not counted.
    Raises ValidationError if no image is left, or no window of those left holds cells.
    """
    model, training = model.for_images(len(entries)), model.contract.get("training_images")
    stained = Stained(pd.DataFrame(), training_known=training is not None)
    known = options.pixel_size_um, set(training or ()), out, stained
    every = tqdm(entries, desc="stained", unit="image")
    tables = [one for entry in every if (one := _one(model, entry, *known)) is not None]
    if not tables:
        raise ValidationError(_nothing(stained))
    for note in registration.notes(stained.sessions):
        print(f"note: {note}")
    stained.patches = pd.concat(tables, ignore_index=True)
    if not (stained.patches["verdict"] == "cells").any():
        seen = stained.patches["verdict"].value_counts().to_dict()
        told = ", ".join(f"{count} {name}" for name, count in seen.items())
        raise ValidationError(
            f"no window holds cells ({told}; {stained.told()}): are the channels swapped "
            "(--brightfield and --pi, or the "
            "columns brightfield and pi)? Look at an image as the model gets it"
        )
    return stained


def label(patches: pd.DataFrame, rule: dict, own: bool) -> tuple[pd.DataFrame, dict]:
    """Patches with cells, their intensity and PI label, and the rule used: the contract's
    thresholds, or `own` ones.

    Own thresholds come from these images by the same mixture (`mixture.fit`), for a microscope
    whose counts differ. Raises MixtureError if the stain of these images does not give two classes.
    """
    cells = patches[patches["verdict"] == "cells"].reset_index(drop=True)
    cells["intensity"] = mixtures.intensities(cells, rule["intensity"])
    used = {name: rule[name] for name in ("intensity", "log", "live_below", "dead_above")}
    used |= {"of": "the model"}
    if own:
        fitted = mixtures.fit(cells["intensity"].to_numpy(), rule["log"], SEED)
        if problems := mixtures.problems(fitted):
            raise mixtures.MixtureError(
                f"the PI of these images does not give two classes: {'; '.join(problems)}"
            )
        used |= {"live_below": fitted.live_below, "dead_above": fitted.dead_above}
        used |= {"of": "these images"}
    intensity, limits = cells["intensity"].to_numpy(), (used["live_below"], used["dead_above"])
    cells["label"] = mixtures.classify(intensity, *limits)
    return cells, used


def _one(
    model: Model, entry: Field, pixel_size_um: float | None, training: set[str], out: Path,
    stained: Stained,
) -> pd.DataFrame | None:  # fmt: skip
    """The table of one image, or None, with the reason counted."""
    try:
        if entry.problem:
            raise Refused(*entry.problem)
        frame = entry.read()
        size = frame.pixel_size_um or entry.pixel_size_um or pixel_size_um
        tile = model.contract["tile"]
        smallest = in_pixels(tile["window"], tile["unit"], size)
        brightfield, pi = check_frame(frame, entry, smallest)
        mask = entry.mask(brightfield.shape) if model.predicts_stain else None
        pixels = pixel_digest(brightfield)
        if pixels in training:
            stained.counts["in training"] += 1
            return None
        if first := stained.digests.get(pixels):
            raise Refused("same pixels", f"as image {first}: the list is wrong about one of them")
        digest = pixel_digest(frame.brightfield)
        key = output.part_key(model.facts["digest"], digest, size, model.many)
        table = output.part(out, key, partial(model.predict, frame.brightfield, size))
        corners, rule = table[["y", "x", "size"]].to_numpy(np.int64), model.contract["label"]
        measures = window_measures(pi, corners, bits(frame.pi), rule["background"])
        if measures["pi_background"][0] <= 0:
            raise Refused("dark", "each 8 x 8 px of PI hold a zero: there is no background")
    except (Refused, ValueError) as error:  # a model's own RefusedFrame is a ValueError
        missing = getattr(error, "kind", "") == "missing partner" and "PI" in str(error)
        stained.counts["without PI" if missing else "refused"] += 1
        if not missing:
            reason = f"{error} ({getattr(error, 'file', '') or entry.name})"
            stained.refused.append({"image_id": entry.image_id, "reason": reason})
        return None
    stained.counts["counted"] += 1
    pair = registration.compare(brightfield, pi)
    stained.sessions[entry.experiment].add(pair, entry.image_id)
    stained.digests[pixels] = entry.image_id
    stained.fields.append(entry)
    facts = {name: getattr(entry, name) for name in METADATA}
    if mask is not None:
        background = measures["pi_background"][0]
        called = nuclei.of_field(mask, frame.brightfield, pi, background, model, size)
        stained.nuclei.append(called.assign(**facts))
    return table.assign(
        **facts,
        weight=weights(table, model.stride(size)),
        mean_pi=measures["mean_pi"].round(6),
        pi_background=measures["pi_background"],
    )


def _nothing(stained: Stained) -> str:
    """Why no image is left."""
    counts = stained.counts
    if counts["in training"] and not counts["refused"]:
        return (
            f"all {counts['in training']} stained images were among the model's training images: "
            "they say nothing new. Give images that the model has never seen"
        )
    first = f"; the first: {stained.refused[0]['reason']}" if stained.refused else ""
    return f"no stained image counts: {stained.told()}{first}"
