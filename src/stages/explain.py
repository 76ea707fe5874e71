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
from ..common.backbones import CLASSES, Net
from ..common.embedding import purity, tsne
from ..common.inference import embed, load_model
from ..common.params import Explain, load
from ..common.patches import PatchStore
from ..common.paths import MODELS, PATCHES, REPORTS
from ..common.plots_explain import Panel
from ..common.tables import existing, read_table

HEAD_SEEDS, ALL_SEEDS, SANITY_WINDOWS, ERRORS = 5, 2, 24, 12


class Models:
    """The networks of a partition, by the round whose test windows they did not see; each is loaded once."""

    def __init__(self, partition: str):
        self.directory = MODELS / partition
        self.card = json.loads(existing(self.directory / "model.json").read_text())
        note = " (synthetic data)" if self.card["synthetic"] else ""
        self.title = f"{partition}{note}, {self.card['arch']}"
        self.of = cache(self._load)

    def _load(self, name: str) -> Net:
        place = self.directory if name == "holdout" else self.directory / name
        return load_model(place, self.card["arch"])

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
    kept: list[tuple] = []
    taken: dict[str, list[tuple[int, int, int]]] = {}
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


def embedding(models: Models, store: PatchStore, rows: pd.DataFrame, settings: Explain, report: Path) -> dict:
    """Fig. 5a-c and the purity of neighbourhoods, in feature space and on the map."""
    name = round_to_map(rows)
    part = rows[rows["round"] == name]
    of = len(part)
    if of > settings.windows:
        part = part.sample(settings.windows, random_state=settings.seed).sort_index()
    part = part.reset_index(drop=True)
    features = embed(models.of(name), store, part, desc="explain: features")
    places, perplexity = tsne(features, settings.perplexity, settings.seed)
    windows = [store.window(*row) for row in part[gradcam.WINDOWS].itertuples(index=False)]
    heading = f"{models.title}\nt-SNE of {features.shape[1]} features, {len(part)} test windows"
    heading += "" if name == "holdout" else f" of {name}, by its out-of-fold model"
    plots_explain.embedding_figures(places, part, windows, heading, report)
    labels, groups = part["label"].to_numpy(), part["group"].to_numpy()
    pure = {
        space: {
            which: purity(points, labels, settings.neighbours, only)
            for which, only in (("any", None), ("other_groups", groups))
        }
        for space, points in (("features", features), ("map", places))
    }
    return {
        "round": name, "windows": len(part), "of": of, "groups": part["group"].nunique(),
        "features": features.shape[1], "perplexity": perplexity, "purity": pure,
    }  # fmt: skip


def round_to_map(rows: pd.DataFrame) -> str:
    """The round with the most test windows of its rarer class: the one whose map can show both."""
    counts = pd.crosstab(rows["round"], rows["label"]).reindex(columns=list(CLASSES), fill_value=0)
    order = counts.assign(least=counts.min(axis=1), all=counts.sum(axis=1)).sort_index()
    return str(order.sort_values(["least", "all"], ascending=False, kind="stable").index[0])


def panel(store: PatchStore, row, maps: dict[str, np.ndarray], title: str) -> Panel:
    """What the figures show of one row of the predictions."""
    where = (row.image_id, row.y, row.x, row.size)
    captions = {"pi": "" if pd.isna(row.mean_pi) else f"PI, mean {row.mean_pi:.4g} counts"}
    for label, score in (("dead", 1 - row.probability), ("live", row.probability)):
        text = "" if pd.isna(score) else f"{label} {score:.2f}, "
        captions[label] = f"{text}max {maps[label].max():.3f}" if label in maps else ""
    return Panel(store.window(*where), store.pi_window(*where), gradcam.pi_bright(store, *where), maps, title, captions)


def cam_examples(rows: pd.DataFrame, settings: Explain) -> dict[str, pd.DataFrame]:
    """Windows for Fig. 6: right and wrong calls, each class in turn, drawn with the seed."""
    found = {}
    for outcome in ("right", "wrong"):
        own = rows[rows["outcome"] == outcome]
        parts = [draw(own[own["label"] == c], settings.patches, settings.seed) for c in CLASSES]
        mixed = pd.concat([part.assign(turn=range(len(part))) for part in parts]).sort_values("turn", kind="stable")
        found[outcome] = mixed.head(settings.patches).sort_values("label", kind="stable").reset_index(drop=True)
    return found


def emptiest(store: PatchStore, rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """The windows of the test images with the least contrast, labelled or not, one of an image; without black border.

    They show whether a patch without cells stays dark on the scale of the others.
    """
    table = store.patches(rows["partition"].unique().tolist())
    rounds = rows.drop_duplicates("image_id").set_index("image_id")["round"]
    table = table[table["image_id"].isin(rounds.index) & (table["border"] == 0)].sort_values("contrast", kind="stable")
    chosen = table.drop_duplicates("image_id").head(count)
    known = rows.set_index("patch_id")["probability"].reindex(chosen["patch_id"]).to_numpy()
    return chosen.assign(round=chosen["image_id"].map(rounds), probability=known).reset_index(drop=True)


def cam_figure(models: Models, store: PatchStore, rows: pd.DataFrame, settings: Explain, report: Path) -> dict:
    """Fig. 6: both classes' maps over right and wrong calls and over the emptiest windows, on one scale."""
    groups = cam_examples(rows, settings)
    groups["least contrast"] = emptiest(store, rows, 2)
    maps = {name: {c: models.maps(store, part, c) for c in CLASSES} for name, part in groups.items() if len(part)}
    highest = {name: {c: [float(m.max()) for m in maps[name][c]] for c in CLASSES} for name in maps}
    scale = max(v for name in maps if name != "least contrast" for c in CLASSES for v in highest[name][c]) or 1.0
    panels: dict[str, list[Panel]] = {}
    for name, part in groups.items():
        panels[name] = []
        for i, row in enumerate(part.itertuples()):
            mark = name if name == "least contrast" else f"truth {row.label}, called {row.call}"
            panels[name].append(panel(store, row, {c: maps[name][c][i] for c in CLASSES}, f"{mark}\n{row.image_id}"))
    for name, own in zip(("right", "wrong"), panels.pop("least contrast")):
        panels[name].append(own)
    blocks = {f"{name} calls": panels[name] for name in ("right", "wrong")}
    plots_explain.save(plots_explain.gradcam_figure(blocks, f"{models.title}: Grad-CAM", scale), report / "gradcam.png")
    examples = {
        name: [dict(zip(("patch_id", *CLASSES), row)) for row in zip(groups[name]["patch_id"], *highest[name].values())]
        for name in maps
    }
    return {"scale": scale, "raw_maximum": examples}


def pi_agreement(models: Models, store: PatchStore, rows: pd.DataFrame, settings: Explain) -> dict:
    """Agreement of the maps with bright PI over truly dead windows, and the sanity check on the same maps."""
    dead = draw(rows[rows["label"] == "dead"], settings.overlap, settings.seed)
    bright = [gradcam.pi_bright(store, *row) for row in dead[gradcam.WINDOWS].itertuples(index=False)]
    partly = np.array([b.any() and not b.all() for b in bright], bool)
    dead, bright = dead[partly].reset_index(drop=True), [b for b, kept in zip(bright, partly) if kept]
    result: dict = {"drawn": len(partly), "without_contrast_in_pi": int((~partly).sum())}
    if dead.empty:
        return {"agreement": result, "sanity": None}
    maps = {c: models.maps(store, dead, c) for c in CLASSES}
    groups = dead["group"].to_numpy()
    result |= {f"{c}_map": gradcam.agreement(maps[c], bright, groups, settings.seed) for c in CLASSES}
    few, seeds = dead.head(SANITY_WINDOWS), {"head": HEAD_SEEDS, "all": ALL_SEEDS}
    arch = models.card["arch"]

    def redraw(part: str, seed: int) -> list[np.ndarray]:
        return models.maps(store, few, "dead", lambda net: gradcam.randomised(net, arch, part, seed))

    random = {part: [redraw(part, settings.seed + i) for i in range(count)] for part, count in seeds.items()}
    return {"agreement": result, "sanity": gradcam.sanity(maps["dead"][: len(few)], random)}


def errors(store: PatchStore, rows: pd.DataFrame, title: str, report: Path) -> list[dict]:
    """The most confident wrong calls, no two overlapping, as a gallery and as rows."""
    wrong = rows[rows["outcome"] == "wrong"]
    confidence = np.where(wrong["call"] == "live", wrong["probability"], 1 - wrong["probability"])
    wrong = wrong.assign(confidence=confidence).sort_values(["confidence", "patch_id"], ascending=[False, True])
    worst = disjoint(wrong, ERRORS)
    lines = "truth {0.label}, called {0.call} ({0.confidence:.3f})\n{0.image_id}\ny {0.y}, x {0.x}"
    panels = [panel(store, row, {}, lines.format(row)) for row in worst.itertuples()]
    heading = f"{title}: most confident of {len(wrong)} wrong calls among {len(rows)} test windows"
    plots_explain.save(plots_explain.error_figure(panels, heading), report / "errors.png")
    names = ["patch_id", "image_id", "experiment", "round", "label", "call", "confidence", "probability", "mean_pi"]
    return worst[names].to_dict("records")


def clean(value):
    """The record with floats rounded to 6 decimals and numpy's numbers as Python's."""
    if isinstance(value, dict):
        return {key: clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clean(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return round(value, 6) if isinstance(value, float) else value


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
    record["embedding"] = embedding(models, store, rows, settings, report)
    record["gradcam"] = cam_figure(models, store, rows, settings, report)
    record |= pi_agreement(models, store, rows, settings)
    record["errors"] = errors(store, rows, models.title, report)
    record = clean(record | {"choices": choices(settings)})
    (report / "explain.json").write_text(json.dumps(record, indent=2) + "\n")
    return record


def choices(settings: Explain) -> dict[str, str]:
    """What was chosen where the paper leaves it open, in words that stand beside the numbers."""
    return {
        "calls": "right and wrong are conformal calls; windows abstained on are neither",
        "gradcam_target": "margin of the class's logit over the other's; maps unstretched, logit units per map cell",
        "bright_pi": f"PI above {gradcam.BRIGHT:g} times the field's median, at a quarter of the resolution",
        "agreement_sample": f"up to {settings.overlap} truly dead test windows that do not overlap, images in turn",
        "chance": "map and bright area of windows of different groups; p from 9999 pairings, windows as independent",
        "sanity": f"{HEAD_SEEDS} random heads and {ALL_SEEDS} wholly random networks; Spearman over map cells",
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
