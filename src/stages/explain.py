"""Explains one partition's model on its test split: embedding maps, Grad-CAM, its agreement with PI, worst mistakes.

`python -m src.stages.explain PARTITION`; reads models/PARTITION, data/patches and the predictions of evaluate; writes
reports/explain/PARTITION. Paper, step 7, and what it left open: do Grad-CAM regions agree with dead regions in PI?
Right and wrong are calls; a window the model abstained on is neither. Under kfold every window is explained by the
model that did not see it; features of different folds share no space, so the map is of one fold.
"""

import json
import shutil
import sys
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from ..common import gradcam, plots_explain, tracking
from ..common.embedding import purities, tsne
from ..common.params import Explain, load
from ..common.patches import PatchStore
from ..common.paths import MODELS, PATCHES, REPORTS
from ..common.plots_explain import Panel, panel
from ..common.scoring.backbones import CLASSES
from ..common.scoring.inference import embed, load_model
from ..common.tables import existing, read_table

SANITY_WINDOWS, ERRORS = 24, 12
DRAWS = {"head": 5, "all": 2}  # random networks of the sanity check
EMPTIEST = "least contrast"
SAID = {"live": "called live", "dead": "called dead", "abstain": "abstained"}


class Models:
    """The networks of a partition, by the round whose test windows they did not see; each is loaded once."""

    def __init__(self, partition: str):
        self.directory = MODELS / partition
        self.card = json.loads(existing(self.directory / "model.json").read_text())
        note = " (synthetic data)" if self.card["synthetic"] else ""
        self.title = f"{partition}{note}, {self.card['arch']}"
        self.of = cache(
            lambda name: load_model(self.directory / ("" if name == "holdout" else name), self.card["arch"])
        )

    def maps(self, store: PatchStore, rows: pd.DataFrame, label: str, change=lambda net: net) -> list[np.ndarray]:
        """Raw Grad-CAM of a class for each row, by the (changed) network of its round."""
        found: list[np.ndarray] = [np.empty(0)] * len(rows)
        for name, part in rows.reset_index(drop=True).groupby("round"):
            for position, cam in zip(part.index, gradcam.window_maps(change(self.of(name)), store, part, label)):
                found[position] = cam
        return found


def test_rows(partition: str) -> pd.DataFrame:
    """Test rows of the predictions in the order of patch_id, with outcome (right, wrong or abstained)."""
    predictions = read_table(REPORTS / "evaluate" / partition / "predictions.parquet", [partition])
    rows = predictions[predictions["split"] == "test"].sort_values("patch_id", kind="stable").reset_index(drop=True)
    if rows.empty:
        raise ValueError(f"the predictions of {partition} hold no test windows: repeat the stages split to evaluate")
    right = np.where(rows["call"] == rows["label"], "right", "wrong")
    return rows.assign(outcome=np.where(rows["call"] == "abstain", "abstained", right))


def disjoint(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """The first `count` rows no two of which overlap in their image: overlapping windows are near-duplicates."""
    kept, taken = [], {}
    for index, image, y, x, size in rows[["image_id", "y", "x", "size"]].itertuples(name=None):
        near = taken.setdefault(image, [])
        if len(kept) < count and all(abs(y - b) >= max(size, s) or abs(x - a) >= max(size, s) for b, a, s in near):
            near.append((y, x, size))
            kept.append(index)
    return rows.loc[kept]


def draw(rows: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """A seeded sample of at most `count` rows that do not overlap, images taking turns."""
    mixed = rows.sample(frac=1, random_state=seed)
    turn = mixed.groupby("image_id").cumcount()
    return disjoint(mixed.loc[turn.sort_values(kind="stable").index], count).reset_index(drop=True)


def map_figures(models: Models, store: PatchStore, rows: pd.DataFrame, settings: Explain, report: Path) -> dict:
    """Fig. 5a-c and the purity of neighbourhoods, in feature space and on the map."""
    name = round_to_map(rows)
    part = rows[rows["round"] == name]
    of = len(part)
    part = part.sample(min(of, settings.windows), random_state=settings.seed).sort_index().reset_index(drop=True)
    features = embed(models.of(name), store, part, desc="explain: features")
    places, perplexity = tsne(features, settings.perplexity, settings.seed)
    windows = [store.window(*row) for row in part[gradcam.WINDOWS].itertuples(index=False)]
    heading = f"{models.title}\nt-SNE of {features.shape[1]} features, {len(part)} test windows"
    heading += "" if name == "holdout" else f" of {name}, by its out-of-fold model"
    plots_explain.embedding_figures(places, part, windows, heading, report)
    labels, groups, spaces = part["label"].to_numpy(), part["group"].to_numpy(), {"features": features, "map": places}
    pure = purities(spaces, labels, groups, settings.neighbours)
    counts = {"windows": len(part), "of": of, "groups": len(np.unique(groups)), "features": features.shape[1]}
    return {"round": name} | counts | {"perplexity": perplexity, "purity": pure}


def round_to_map(rows: pd.DataFrame) -> str:
    """The round with the most test windows of its rarer class: the one whose map can show both."""
    counts = pd.crosstab(rows["round"], rows["label"]).reindex(columns=list(CLASSES), fill_value=0)
    order = counts.assign(least=counts.min(axis=1), all=counts.sum(axis=1)).sort_index()
    return str(order.sort_values(["least", "all"], ascending=False, kind="stable").index[0])


def cam_examples(store: PatchStore, rows: pd.DataFrame, settings: Explain) -> pd.DataFrame:
    """Windows for Fig. 6: a block of right and one of wrong calls of both classes, each with a nearly empty one.

    Without wrong calls the windows abstained on take their place.
    """
    second = "wrong" if (rows["outcome"] == "wrong").any() else "abstained"
    found = []
    for block, empty in zip(("right", second), emptiest(store, rows, 2)):
        own = rows[rows["outcome"] == block]
        parts = [draw(own[own["label"] == c], settings.patches, settings.seed) for c in CLASSES]
        mixed = pd.concat([part.assign(turn=range(len(part))) for part in parts]).sort_values("turn", kind="stable")
        shown = mixed.head(settings.patches).sort_values("label", kind="stable")
        found.append(pd.concat([shown, empty]).assign(block=block))
    return pd.concat(found, ignore_index=True)


def emptiest(store: PatchStore, rows: pd.DataFrame, count: int) -> list[pd.DataFrame]:
    """The windows of the test images with the least contrast, one of an image, without black border: tables of one row.

    They show whether a patch without cells stays dark on the scale of the others.
    """
    rounds = rows.drop_duplicates("image_id").set_index("image_id")["round"]
    table = store.patches(sorted(store.frames["partition"].unique()))
    table = table[table["image_id"].isin(rounds.index) & (table["border"] == 0)].sort_values("contrast", kind="stable")
    chosen = table.drop_duplicates("image_id").head(count)
    known = rows.set_index("patch_id")["probability"].reindex(chosen["patch_id"]).to_numpy()
    chosen = chosen.assign(round=chosen["image_id"].map(rounds), probability=known, outcome=EMPTIEST)
    return [chosen.iloc[i : i + 1] for i in range(count)]


def cam_figure(models: Models, store: PatchStore, rows: pd.DataFrame, settings: Explain, report: Path) -> dict:
    """Fig. 6: both classes' maps over right and wrong calls and nearly empty windows, on one scale, with raw maxima."""
    table = cam_examples(store, rows, settings)
    maps = {label: models.maps(store, table, label) for label in CLASSES}
    highest = pd.DataFrame({label: [float(cam.max()) for cam in maps[label]] for label in CLASSES})
    scale = float(highest[table["outcome"] != EMPTIEST].max(axis=None)) or 1.0
    blocks: dict[str, list[Panel]] = {}
    for i, row in enumerate(table.itertuples()):
        line = EMPTIEST if row.outcome == EMPTIEST else f"truth {row.label}, {SAID[row.call]}"
        name = f"{row.block} calls" if row.block != "abstained" else "abstained (0 wrong)"
        blocks.setdefault(name, []).append(panel(store, row, {label: maps[label][i] for label in CLASSES}, line))
    plots_explain.save(plots_explain.gradcam_figure(blocks, f"{models.title}: Grad-CAM", scale), report / "gradcam.png")
    raw = table[["patch_id", "block", "outcome"]].join(highest).to_dict("records")
    return {"map_cells_a_side": len(maps["dead"][0]), "scale": scale, "raw_maximum": raw}


def pi_agreement(models: Models, store: PatchStore, rows: pd.DataFrame, settings: Explain) -> dict:
    """Agreement of the maps with bright PI over truly dead windows, and the sanity check on the same maps."""
    dead = draw(rows[rows["label"] == "dead"], settings.overlap, settings.seed)
    bright = [gradcam.pi_ratio(store, *row) > gradcam.BRIGHT for row in dead[gradcam.WINDOWS].itertuples(index=False)]
    partly = np.array([b.any() and not b.all() for b in bright], bool)
    result: dict = {"drawn": len(dead), "bright_nowhere_or_everywhere": int((~partly).sum())}
    dead, bright = dead[partly].reset_index(drop=True), [b for b, kept in zip(bright, partly) if kept]
    if dead.empty:
        return {"agreement": result, "sanity": None}
    maps = {c: models.maps(store, dead, c) for c in CLASSES}
    groups = dead["group"].to_numpy()
    result |= {f"{c}_map": gradcam.agreement(maps[c], bright, groups, settings.seed) for c in CLASSES}
    few = dead.head(SANITY_WINDOWS)

    def redraw(part: str, seed: int) -> list[np.ndarray]:
        return models.maps(store, few, "dead", lambda net: gradcam.randomised(net, models.card["arch"], part, seed))

    random = {part: [redraw(part, settings.seed + i) for i in range(count)] for part, count in DRAWS.items()}
    return {"agreement": result, "sanity": gradcam.sanity(maps["dead"][: len(few)], random)}


def errors(store: PatchStore, rows: pd.DataFrame, title: str, report: Path) -> list[dict]:
    """The most confident wrong calls, no two overlapping, as a gallery and as rows."""
    wrong = rows[rows["outcome"] == "wrong"]
    confidence = np.where(wrong["call"] == "live", wrong["probability"], 1 - wrong["probability"])
    wrong = wrong.assign(confidence=confidence).sort_values(["confidence", "patch_id"], ascending=[False, True])
    worst = disjoint(wrong, ERRORS)
    line = "truth {0.label}, called {0.call} ({0.confidence:.3f})\ny {0.y}, x {0.x}"
    panels = [panel(store, row, {}, line.format(row)) for row in worst.itertuples()]
    heading = f"{title}: most confident of {len(wrong)} wrong calls among {len(rows)} test windows"
    plots_explain.save(plots_explain.error_figure(panels, heading), report / "errors.png")
    names = ["patch_id", "image_id", "experiment", "round", "label", "call", "confidence", "probability", "mean_pi"]
    return worst[names].to_dict("records")


def clean(record: dict) -> dict:
    """The record as JSON keeps it: floats rounded to 6 decimals, numpy's numbers as Python's, NaN as None."""
    text = json.dumps(record, default=lambda number: number.item())
    return json.loads(text, parse_float=lambda number: round(float(number), 6), parse_constant=lambda name: None)


def run(partition: str) -> dict:
    """Explains a partition's model and returns the record."""
    settings, models, store = load("explain"), Models(partition), PatchStore(PATCHES)
    rows, report = test_rows(partition), REPORTS / "explain" / partition
    shutil.rmtree(report, ignore_errors=True)
    report.mkdir(parents=True)
    matplotlib.use("Agg")
    counts = rows["outcome"].value_counts().reindex(["right", "wrong", "abstained"], fill_value=0).to_dict()
    record = {"partition": partition} | {key: models.card.get(key) for key in ("arch", "digest", "synthetic")}
    record["windows"] = {"test": len(rows)} | counts
    record["embedding"] = map_figures(models, store, rows, settings, report)
    record["gradcam"] = cam_figure(models, store, rows, settings, report)
    record |= pi_agreement(models, store, rows, settings)
    record["errors"] = errors(store, rows, models.title, report)
    record = clean(record | {"choices": choices(settings)})
    (report / "explain.json").write_text(json.dumps(record, indent=2) + "\n")
    return record


def choices(settings: Explain) -> dict[str, str]:
    """What was chosen where the paper leaves it open, in words that stand beside the numbers."""
    return {
        "calls": "right and wrong are conformal calls; a window abstained on is neither",
        "gradcam_target": "margin of the class's logit over the other's; maps unstretched, logit units per map cell",
        "bright_pi": f"PI above {gradcam.BRIGHT:g} times the field's median, at a quarter of the resolution",
        "agreement_sample": f"up to {settings.overlap} truly dead test windows that do not overlap, images in turn",
        "chance": "map and bright area of different groups; p takes windows as independent, gain_interval groups",
        "sanity": f"random networks {DRAWS}; Spearman over map cells, first {SANITY_WINDOWS} dead windows",
        "purity": f"{settings.neighbours} nearest by Euclidean distance; other_groups: without the window's own group",
    }


def summary(record: dict) -> str:
    """The main numbers in two lines."""
    pure = record["embedding"]["purity"]["features"]["other_groups"]
    lines = [f"purity of neighbours from other groups {pure['purity']}, by chance {pure['chance']}"]
    if found := record["agreement"].get("dead_map"):
        both = (f"{name} {found[name]['observed']}, by chance {found[name]['chance']}" for name in ("pointing", "iou"))
        lines.append(f"dead map against bright PI in {found['windows']} windows: {'; '.join(both)}")
    return "\n".join(f"explain@{record['partition']}: {line}" for line in lines)


def main(partition: str) -> dict:
    """Runs the stage; returns the record written to explain.json."""
    try:
        record = run(partition)
    except ValueError as error:
        sys.exit(f"error: explain {partition}: {error}")
    tracking.log_explanation(partition, record, REPORTS / "explain" / partition)
    print(summary(record))
    return record


if __name__ == "__main__":
    main(sys.argv[1])
