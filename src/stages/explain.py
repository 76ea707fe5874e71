"""Explains one partition's model on its test split: embedding maps, Grad-CAM, its agreement with
PI, worst mistakes.

`python -m src.stages.explain PARTITION`; reads models/PARTITION, data/patches, data/filtered and
what evaluate wrote of it; writes reports/explain/PARTITION, and the key numbers into
metrics/explain/PARTITION.json. Paper, step 7, and what it left open: do Grad-CAM regions agree with
dead regions in PI? Right and wrong are conformal calls; a window the model abstained on is neither.
Under kfold every window is explained by the model that did not see it; features of different folds
share no space, so the map is of one fold.
"""

import json
import shutil
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from ..common.explain import figures as plots_explain
from ..common.explain import gradcam
from ..common.explain import windows as explanation
from ..common.explain.figures import Panel, panel
from ..common.explain.pi_agreement import agreement, stained_nuclei
from ..common.figures.embedding import purities, tsne
from ..common.patches.sampling import disjoint, draw, in_turn
from ..common.patches.store import PatchStore
from ..common.scoring.backbones import CLASSES
from ..common.scoring.inference import WINDOWS, embed, load_model, predict
from ..common.scoring.operating import calibrate, called_live, conformal_call
from ..common.tracking import runs as tracking
from ..common.workspace.errors import UserError
from ..common.workspace.params import Explain, load
from ..common.workspace.paths import FILTERED, METRICS, MODELS, PATCHES, REPORTS
from ..common.workspace.tables import existing, read_table

SANITY_WINDOWS, ERRORS, EMPTY_WINDOWS = 24, 12, 300
DRAWS = {"head": 5, "all": 2}  # random networks of the sanity check
EMPTIEST = "least contrast"
SAID = {"live": "called live", "dead": "called dead", "abstain": "abstained"}
FILTER = {
    "empty": "dropped by the filter",
    "unusable": "unusable by the filter",
    "cells": "kept by the filter",
}


class ExplanationError(UserError):
    """A partition's model cannot be explained as things stand."""


class Models:
    """The networks of a partition, by the round whose test windows they did not see; each is loaded
    once.
    """

    def __init__(self, partition: str):
        self.directory = MODELS / partition
        self.card = json.loads(existing(self.directory / "model.json").read_text())
        note = " (synthetic data)" if self.card["synthetic"] else ""
        self.title = f"{partition}{note}, {self.card['arch']}"
        self.of = cache(
            lambda name: load_model(self.directory / ("" if name == "holdout" else name), self.card)
        )

    def maps(
        self, store: PatchStore, rows: pd.DataFrame, label: str, change=lambda net: net
    ) -> list[np.ndarray]:
        """Raw Grad-CAM of a class for each row, by the (changed) network of its round."""
        found: list[np.ndarray] = [np.empty(0)] * len(rows)
        for name, part in rows.reset_index(drop=True).groupby("round"):
            for position, cam in zip(
                part.index, gradcam.window_maps(change(self.of(name)), store, part, label)
            ):
                found[position] = cam
        return found

    def score(self, store: PatchStore, rows: pd.DataFrame, points: dict[str, dict]) -> pd.DataFrame:
        """The rows with probability and call, by the network and the operating point of each row's
        round.
        """
        parts = [rows.assign(probability=np.nan, call="").head(0)]
        for name, part in rows.groupby("round"):
            logits = predict(self.of(name), store, part, desc="explain: empty windows").astype(
                float
            )
            live = calibrate(logits[:, 1] - logits[:, 0], points[name]["temperature"])
            call = conformal_call(live, points[name]["live_from"], points[name]["dead_to"])
            parts.append(part.assign(probability=live, call=call))
        return pd.concat(parts).loc[rows.index]


def operating_points(partition: str) -> dict[str, dict]:
    """Temperature and limits of each round, as evaluate fitted them on validation."""
    record = json.loads(existing(METRICS / "evaluate" / f"{partition}.json").read_text())
    return {point["round"]: point for point in record["rounds"]}


def test_rows(partition: str, points: dict[str, dict]) -> pd.DataFrame:
    """Test rows of the predictions by patch_id, with outcome (right, wrong, abstained) and forced
    call (live, dead).
    """
    predictions = read_table(REPORTS / "evaluate" / partition / "predictions.parquet", [partition])
    rows = (
        predictions[predictions["split"] == "test"]
        .sort_values("patch_id", kind="stable")
        .reset_index(drop=True)
    )
    if rows.empty:
        raise ExplanationError(
            f"the predictions of {partition} hold no test windows: repeat the stages split to evaluate"
        )
    if missing := sorted(set(rows["round"]) - set(points)):
        raise ExplanationError(
            f"predictions and metrics of {partition} differ in {', '.join(missing)}: repeat evaluate"
        )
    right = np.where(rows["call"] == rows["label"], "right", "wrong")
    thresholds = rows["round"].map({name: point["threshold"] for name, point in points.items()})
    forced = np.where(called_live(rows["probability"], thresholds), "live", "dead")
    return rows.assign(
        outcome=np.where(rows["call"] == "abstain", "abstained", right), forced=forced
    )


def map_figures(
    models: Models, store: PatchStore, rows: pd.DataFrame, settings: Explain, report: Path
) -> dict:
    """Fig. 5a-c and the purity of neighbourhoods, in feature space and on the map."""
    name = round_to_map(rows)
    part = rows[rows["round"] == name]
    of = len(part)
    part = (
        part.sample(min(of, settings.windows), random_state=settings.seed)
        .sort_index()
        .reset_index(drop=True)
    )
    features = embed(models.of(name), store, part, desc="explain: features")
    places, perplexity = tsne(features, settings.perplexity, settings.seed)
    windows = [store.window(*row) for row in part[WINDOWS].itertuples(index=False)]
    heading = f"{models.title}\nt-SNE of {features.shape[1]} features, {len(part)} test windows"
    heading += "" if name == "holdout" else f" of {name}, by its out-of-fold model"
    plots_explain.embedding_figures(places, part, windows, heading, report)
    labels, groups, spaces = (
        part["label"].to_numpy(),
        part["group"].to_numpy(),
        {"features": features, "map": places},
    )
    pure = purities(spaces, labels, groups, settings.neighbours)
    counts = {
        "windows": len(part),
        "of": of,
        "groups": len(np.unique(groups)),
        "features": features.shape[1],
    }
    return {"round": name} | counts | {"perplexity": perplexity, "purity": pure}


def round_to_map(rows: pd.DataFrame) -> str:
    """The round with the most test windows of its rarer class: the one whose map can show both."""
    counts = pd.crosstab(rows["round"], rows["label"]).reindex(columns=list(CLASSES), fill_value=0)
    order = counts.assign(least=counts.min(axis=1), all=counts.sum(axis=1)).sort_index()
    return str(order.sort_values(["least", "all"], ascending=False, kind="stable").index[0])


def filtered_windows(store: PatchStore, rows: pd.DataFrame, partition: str) -> pd.DataFrame:
    """Windows of the test images without black border, least contrast first, with round and verdict
    of the filter.
    """
    rounds = rows.drop_duplicates("image_id").set_index("image_id")["round"]
    verdicts = read_table(FILTERED / "verdicts.parquet", [partition], aloud=False)[
        ["patch_id", "verdict"]
    ]
    table = store.patches(sorted(store.frames["partition"].unique())).merge(
        verdicts, on="patch_id", validate="1:1"
    )
    table = table[table["image_id"].isin(rounds.index) & (table["border"] == 0)]
    return table.assign(round=table["image_id"].map(rounds)).sort_values(
        ["contrast", "patch_id"], ignore_index=True
    )


def cam_examples(rows: pd.DataFrame, emptiest: pd.DataFrame, settings: Explain) -> pd.DataFrame:
    """Windows for Fig. 6: a block of right and one of wrong calls of both classes, each with a
    nearly empty one.

    Without wrong calls the windows abstained on take their place. The emptiest show whether a patch
    without cells stays dark on the scale of the others.
    """
    second = "wrong" if (rows["outcome"] == "wrong").any() else "abstained"
    found = []
    for i, block in enumerate(("right", second)):
        own = rows[rows["outcome"] == block]
        parts = [draw(own[own["label"] == c], settings.patches, settings.seed) for c in CLASSES]
        mixed = pd.concat([part.assign(turn=range(len(part))) for part in parts]).sort_values(
            "turn", kind="stable"
        )
        shown = mixed.head(settings.patches).sort_values("label", kind="stable")
        found.append(
            pd.concat([shown, emptiest.iloc[i : i + 1].assign(outcome=EMPTIEST)]).assign(
                block=block
            )
        )
    return pd.concat(found, ignore_index=True)


def cam_figure(
    models: Models, store: PatchStore, table: pd.DataFrame, counts: dict, report: Path
) -> dict:
    """Fig.

    6: both classes' maps over right and wrong calls and nearly empty windows, on one scale, with
    raw maxima.
    """
    maps = {label: models.maps(store, table, label) for label in CLASSES}
    highest = pd.DataFrame({label: [float(cam.max()) for cam in maps[label]] for label in CLASSES})
    scale = float(highest[table["outcome"] != EMPTIEST].max(axis=None)) or 1.0
    blocks: dict[str, list[Panel]] = {}
    for i, row in enumerate(table.itertuples()):
        empty = row.outcome == EMPTIEST
        line = (
            f"{EMPTIEST},\n{FILTER[row.verdict]}"
            if empty
            else f"truth {row.label}, {SAID[row.call]}"
        )
        name = f"{row.block} calls" if row.block != "abstained" else "abstained (0 wrong)"
        name = f"{name}\n{counts[row.block]} in all"
        blocks.setdefault(name, []).append(
            panel(store, row, {label: maps[label][i] for label in CLASSES}, line)
        )
    plots_explain.save(
        plots_explain.gradcam_figure(blocks, f"{models.title}: Grad-CAM", scale),
        report / "gradcam.png",
    )
    raw = table[["patch_id", "block", "outcome", "probability"]].join(highest).to_dict("records")
    return {"map_cells_a_side": len(maps["dead"][0]), "scale": scale, "raw_maximum": raw}


def emptiness(
    models: Models, store: PatchStore, windows: pd.DataFrame, points: dict, seed: int
) -> dict:
    """What the network alone makes of the windows of the test images that the filter dropped as
    empty.
    """
    dropped = windows[windows["verdict"] == "empty"]
    scored = models.score(
        store, dropped.sample(min(len(dropped), EMPTY_WINDOWS), random_state=seed), points
    )
    found = {"dropped": len(dropped), "scored": len(scored)}
    if len(scored):
        found["live_probability"] = float(scored["probability"].mean())
        found |= {
            name: float((scored["call"] == call).mean())
            for call, name in explanation.SHARES.items()
        }
    return found


def pi_agreement(models: Models, store: PatchStore, rows: pd.DataFrame, settings: Explain) -> dict:
    """Agreement of the maps with stained nuclei over truly dead windows, and the sanity check on
    the same maps.
    """
    dead = rows[rows["label"] == "dead"]
    result: dict = {"dead_windows": len(dead), "drawn": min(len(dead), settings.overlap)}
    dead = in_turn(dead, settings.seed).head(settings.overlap).sort_index()
    bright = [stained_nuclei(store, *row) for row in dead[WINDOWS].itertuples(index=False)]
    partly = np.array([b.any() and not b.all() for b in bright], bool)
    result["bright_nowhere_or_everywhere"] = int((~partly).sum())
    dead, bright = (
        dead[partly].reset_index(drop=True),
        [b for b, kept in zip(bright, partly) if kept],
    )
    if dead.empty:
        return {"agreement": result, "sanity": None}
    maps = {c: models.maps(store, dead, c) for c in CLASSES}
    result |= {f"{c}_map": agreement(maps[c], bright, dead["group"].to_numpy()) for c in CLASSES}
    few = draw(dead, SANITY_WINDOWS, settings.seed)

    def redraw(part: str, seed: int) -> list[np.ndarray]:
        return models.maps(
            store, few, "dead", lambda net: gradcam.randomised(net, models.card["arch"], part, seed)
        )

    random = {
        part: [redraw(part, settings.seed + i) for i in range(count)]
        for part, count in DRAWS.items()
    }
    return {
        "agreement": result,
        "sanity": gradcam.sanity([maps["dead"][i] for i in few.index], random),
    }


def errors(
    store: PatchStore, rows: pd.DataFrame, title: str, counts: dict, report: Path
) -> list[dict]:
    """The most confident wrong calls, no two overlapping, as a gallery and as rows."""
    wrong = rows[rows["outcome"] == "wrong"]
    confidence = np.where(wrong["call"] == "live", wrong["probability"], 1 - wrong["probability"])
    wrong = wrong.assign(confidence=confidence).sort_values(
        ["confidence", "patch_id"], ascending=[False, True]
    )
    apart = disjoint(wrong)
    worst = apart.head(ERRORS)
    line = "truth {0.label}, called {0.call} ({0.confidence:.3f})\ny {0.y}, x {0.x}"
    panels = [panel(store, row, {}, line.format(row)) for row in worst.itertuples()]
    heading = explanation.error_heading(title, counts, len(apart), len(worst))
    plots_explain.save(plots_explain.error_figure(panels, heading), report / "errors.png")
    names = [
        "patch_id",
        "image_id",
        "experiment",
        "round",
        "label",
        "call",
        "confidence",
        "probability",
        "mean_pi",
    ]
    return worst[names].to_dict("records")


def run(partition: str) -> dict:
    """Explains a partition's model and returns the record."""
    settings, models, store = load("explain"), Models(partition), PatchStore(PATCHES)
    points, report = operating_points(partition), REPORTS / "explain" / partition
    rows = test_rows(partition, points)
    windows = filtered_windows(store, rows, partition)
    shutil.rmtree(report, ignore_errors=True)
    report.mkdir(parents=True)
    matplotlib.use("Agg")
    counts = explanation.counts(rows)
    record = {"partition": partition} | {
        key: models.card.get(key) for key in ("arch", "digest", "synthetic")
    }
    record["windows"] = counts
    record["embedding"] = map_figures(models, store, rows, settings, report)
    emptiest = models.score(store, windows.drop_duplicates("image_id").head(2), points)
    record["gradcam"] = cam_figure(
        models, store, cam_examples(rows, emptiest, settings), counts, report
    )
    record["empty_windows"] = emptiness(models, store, windows, points, settings.seed)
    record |= pi_agreement(models, store, rows, settings)
    record["errors"] = errors(store, rows, models.title, counts, report)
    record["notes"] = explanation.notes(record, settings, DRAWS, SANITY_WINDOWS, sorted(points))
    record = explanation.clean(record)
    (report / "explain.json").write_text(json.dumps(record, indent=2) + "\n")
    (METRICS / "explain").mkdir(parents=True, exist_ok=True)
    (METRICS / "explain" / f"{partition}.json").write_text(
        json.dumps(explanation.key_numbers(record), indent=2) + "\n"
    )
    return record


def main(partition: str) -> dict:
    """Runs the stage; returns the record written to explain.json."""
    record = run(partition)
    tracking.log_explanation(partition, record, REPORTS / "explain" / partition)
    print(explanation.summary(record))
    return record
