"""Sections of an explanation's record, each with the figures that show it."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ..figures.embedding import tsne
from ..figures.style import save_figure
from ..patches.sampling import draw, in_turn
from ..patches.store import PatchStore
from ..scoring.networks.backbones import CLASSES
from ..scoring.networks.inference import WINDOWS, embed
from ..workspace.sections import Explain
from . import figures, gradcam, notes
from .examples import EMPTIEST, confident_mistakes, round_to_map
from .map_figures import embedding_figures
from .models import Models
from .pi_agreement import agreement, stained_nuclei
from .purity import purities

SANITY_WINDOWS, ERRORS, EMPTY_WINDOWS = 24, 12, 300
DRAWS = {"head": 5, "all": 2}  # random networks of the sanity check
CALLED = {"live": "called live", "dead": "called dead", "abstain": "abstained"}
FILTER = {
    "empty": "dropped by the filter",
    "unusable": "unusable by the filter",
    "cells": "kept by the filter",
}
ERROR_COLUMNS = [
    "patch_id", "image_id", "experiment", "round", "label", "call", "confidence", "probability",
    "mean_pi",
]  # fmt: skip


def embedding(
    models: Models, store: PatchStore, rows: pd.DataFrame, settings: Explain, report: Path
) -> dict:
    """Fig. 5a-c and the purity of neighbourhoods, in feature space and on the map."""
    name = round_to_map(rows)
    own = rows[rows["round"] == name]
    part = own.sample(min(len(own), settings.windows), random_state=settings.seed)
    part = part.sort_index().reset_index(drop=True)
    features = embed(models.of(name), store, part, desc="explain: features")
    places, perplexity = tsne(features, settings.perplexity, settings.seed)
    windows = [store.window(*row) for row in part[WINDOWS].itertuples(index=False)]
    heading = f"{models.title}\nt-SNE of {features.shape[1]} features, {len(part)} test windows"
    heading += "" if name == "holdout" else f" of {name}, by its out-of-fold model"
    embedding_figures(places, part, windows, heading, report)
    labels, groups = part["label"].to_numpy(), part["group"].to_numpy()
    spaces = {"features": features, "map": places}
    return {
        "round": name,
        "windows": len(part),
        "of": len(own),
        "groups": len(np.unique(groups)),
        "features": features.shape[1],
        "perplexity": perplexity,
        "purity": purities(spaces, labels, groups, settings.neighbours),
    }


def example_maps(
    models: Models, store: PatchStore, table: pd.DataFrame, counts: dict, report: Path
) -> dict:
    """Fig. 6: both classes' maps over right and wrong calls and nearly empty windows, on one scale,
    with raw maxima. table: of `cam_examples`; counts: of all calls.
    """
    maps = models.maps(store, table)
    highest = pd.DataFrame({label: [float(cam.max()) for cam in maps[label]] for label in CLASSES})
    scale = float(highest[table["outcome"] != EMPTIEST].max(axis=None)) or 1.0
    blocks: dict[str, list[figures.Panel]] = {}
    for i, row in enumerate(table.itertuples()):
        if row.outcome == EMPTIEST:
            line = f"{EMPTIEST},\n{FILTER[row.verdict]}"
        else:
            line = f"truth {row.label}, {CALLED[row.call]}"
        name = f"{row.block} calls" if row.block != "abstained" else "abstained (0 wrong)"
        own = {label: maps[label][i] for label in CLASSES}
        panel = figures.panel(store, row, own, line)
        blocks.setdefault(f"{name}\n{counts[row.block]} in all", []).append(panel)
    figure = figures.gradcam_figure(blocks, f"{models.title}: Grad-CAM", scale)
    save_figure(figure, report / "gradcam.png")
    raw = table[["patch_id", "block", "outcome", "probability"]].join(highest).to_dict("records")
    return {"map_cells_a_side": len(maps["dead"][0]), "scale": scale, "raw_maximum": raw}


def empty_windows(
    models: Models, store: PatchStore, windows: pd.DataFrame, points: dict, seed: int
) -> dict:
    """What the network alone makes of the windows of the test images that the filter dropped as
    empty.
    """
    dropped = windows[windows["verdict"] == "empty"]
    some = dropped.sample(min(len(dropped), EMPTY_WINDOWS), random_state=seed)
    scored = models.score(store, some, points)
    record = {"dropped": len(dropped), "scored": len(scored)}
    if len(scored):
        record["live_probability"] = float(scored["probability"].mean())
        for call, name in notes.SHARES.items():
            record[name] = float((scored["call"] == call).mean())
    return record


def agreement_with_pi(
    models: Models, store: PatchStore, rows: pd.DataFrame, settings: Explain
) -> dict:
    """Agreement of the maps with stained nuclei over truly dead windows, and the sanity check on
    the same maps.
    """
    dead = rows[rows["label"] == "dead"]
    record: dict = {"dead_windows": len(dead), "drawn": min(len(dead), settings.overlap)}
    dead = in_turn(dead, settings.seed).head(settings.overlap).sort_index()
    bright = [stained_nuclei(store, *row) for row in dead[WINDOWS].itertuples(index=False)]
    partly = np.array([mask.any() and not mask.all() for mask in bright], bool)
    record["bright_nowhere_or_everywhere"] = int((~partly).sum())
    dead = dead[partly].reset_index(drop=True)
    bright = [mask for mask, kept in zip(bright, partly) if kept]
    if dead.empty:
        return {"agreement": record, "sanity": None}
    maps = models.maps(store, dead)
    for label in CLASSES:
        record[f"{label}_map"] = agreement(maps[label], bright, dead["group"].to_numpy())
    few = draw(dead, SANITY_WINDOWS, settings.seed)
    trained = [maps["dead"][i] for i in few.index]
    random = random_maps(models, store, few, settings.seed)
    return {"agreement": record, "sanity": gradcam.sanity(trained, random)}


def random_maps(
    models: Models, store: PatchStore, few: pd.DataFrame, seed: int
) -> dict[str, list[list[np.ndarray]]]:
    """Maps of dead by networks of which a part is random: part to draws to maps of windows."""
    maps: dict = {}
    for part, count in DRAWS.items():
        random = partial(gradcam.randomised, arch=models.card["arch"], part=part)
        changes = [partial(random, seed=seed + i) for i in range(count)]
        maps[part] = [models.maps(store, few, change)["dead"] for change in changes]
    return maps


def mistakes(
    store: PatchStore, rows: pd.DataFrame, title: str, counts: dict, report: Path
) -> list[dict]:
    """The most confident wrong calls, no two overlapping, as a gallery and as rows."""
    apart = confident_mistakes(rows)
    worst = apart.head(ERRORS)
    line = "truth {0.label}, called {0.call} ({0.confidence:.3f})\ny {0.y}, x {0.x}"
    panels = [figures.panel(store, row, {}, line.format(row)) for row in worst.itertuples()]
    heading = notes.error_heading(title, counts, len(apart), len(worst))
    save_figure(figures.error_figure(panels, heading), report / "errors.png")
    return worst[ERROR_COLUMNS].to_dict("records")
