"""What a stain network predicts beside what PI shows, by the model that did not see the field.

Pearson's correlation of blocks, Spearman's of windows, and dead nuclei found in both; each by
field, then the mean over groups with its interval. Every window counts, discarded ones too.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from ..figures.style import save_figure
from ..metrics.intervals import percentile, resample
from ..patches.store import PI_REDUCTION, PatchStore
from ..scoring.networks.stain import predict_stain
from ..workspace.words import with_interval
from .models import Models
from .nuclei import DIAMETER_UM, dead_nuclei, matched

DEFAULT_PIXEL = 0.3225  # um of the paper, where the pixel size is not known
SHOWN = 6  # fields in the figure
BOOTSTRAP, CONFIDENCE = 2000, 0.95


def predicted_fields(
    models: Models, store: PatchStore, rows: pd.DataFrame
) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """(image_id, group, predicted, measured PI over background) of every test field.

    Both (h, w) float32 at a quarter of the resolution; measured is NaN where there are no counts.
    """
    owners = rows.drop_duplicates("image_id").sort_values("image_id")
    for row in owners.itertuples():
        maps = predict_stain(models.of(row.round), np.asarray(store.brightfield(row.image_id)))
        measured = store.pi_ratio(row.image_id)
        size = measured.shape[::-1]
        predicted = 1 + cv2.resize(maps[0], size, interpolation=cv2.INTER_AREA)
        yield row.image_id, row.group, predicted, measured


def agreement_of_field(
    predicted: np.ndarray, measured: np.ndarray, windows: np.ndarray, pixel_size_um: float
) -> dict[str, float]:
    """How a field's predicted PI agrees with the measured one (both (h, w), over background).

    windows: (n, 3) y, x, size in pixels of the maps; pixel_size_um: of the maps' pixels. pearson:
    of blocks' logarithms; spearman: of window means (NaN for fewer than 4); dead nuclei measured,
    predicted and matched within a nucleus's diameter.
    """
    known = np.isfinite(measured)
    logs = [np.log(np.maximum(ratio[known], 0.5)) for ratio in (predicted, measured)]
    alike = {"pearson": float(np.corrcoef(*logs)[0, 1]) if known.sum() > 3 else np.nan}
    means = np.array(
        [
            [np.nanmean(m[y : y + s, x : x + s]) for m in (predicted, measured)]
            for y, x, s in windows
        ]
    )
    enough = len(means) >= 4 and np.isfinite(means).all()
    alike["spearman"] = float(spearmanr(*means.T).statistic) if enough else np.nan
    nuclei = [
        dead_nuclei(np.where(known, ratio, np.nan), pixel_size_um)
        for ratio in (predicted, measured)
    ]
    reach = DIAMETER_UM / pixel_size_um
    hits = matched(*nuclei, reach)
    return alike | {"predicted_nuclei": len(nuclei[0]), "nuclei": len(nuclei[1]), "matched": hits}


def stain_agreement(
    models: Models, store: PatchStore, rows: pd.DataFrame, seed: int, report: Path
) -> dict:
    """The record of agreement over all test fields; writes stain.png and stain.csv into `report`.

    rows: the test windows, with image_id, group, round.
    """
    every = store.patches(sorted(store.frames["partition"].unique())).groupby("image_id")
    each, shown = [], []
    for image_id, group, predicted, measured in predicted_fields(models, store, rows):
        windows = every.get_group(image_id)[["y", "x", "size"]].to_numpy() // PI_REDUCTION
        pixel = (store.frames.loc[image_id, "pixel_size_um"] or np.nan) * PI_REDUCTION
        pixel = pixel if pixel == pixel else DEFAULT_PIXEL * PI_REDUCTION
        facts = {"image_id": image_id, "group": group}
        each.append(facts | agreement_of_field(predicted, measured, windows, pixel))
        shown.append((group, image_id, predicted, measured))
    table = pd.DataFrame(each)
    table.round(6).to_csv(report / "stain.csv", index=False)
    # one field of each of the groups with the most measured nuclei
    order = table.sort_values(["nuclei", "image_id"], ascending=[False, True])
    picked = set(order.drop_duplicates("group").head(SHOWN)["image_id"])
    panels = [item for item in shown if item[1] in picked]
    save_figure(stain_figure(store, panels, models.title), report / "stain.png")
    return summary(table, seed)


def summary(table: pd.DataFrame, seed: int) -> dict:
    """Means over groups with intervals over groups, and precision and recall of dead nuclei."""
    by_group = table.groupby("group").agg(
        pearson=("pearson", "mean"), spearman=("spearman", "mean"), nuclei=("nuclei", "sum"),
        predicted_nuclei=("predicted_nuclei", "sum"), matched=("matched", "sum"),
    )  # fmt: skip
    draws = resample(len(by_group), BOOTSTRAP, np.random.default_rng(seed))
    record: dict = {"fields": len(table), "groups": len(by_group)}
    for name in ("pearson", "spearman"):
        values = by_group[name].to_numpy()
        known = np.isfinite(values)
        weights = draws[:, known]
        means = (weights @ values[known]) / np.maximum(weights.sum(1), 1)
        means = means[weights.sum(1) > 0]
        record[name] = {
            "value": float(values[known].mean()) if known.any() else None,
            "interval": percentile(means, CONFIDENCE) if known.sum() > 1 else None,
        }
    for name, of in (("precision", "predicted_nuclei"), ("recall", "nuclei")):
        hits, all_ = (draws @ by_group[c].to_numpy() for c in ("matched", of))
        share = hits[all_ > 0] / all_[all_ > 0]
        total = int(by_group[of].sum())
        value = float(by_group["matched"].sum() / total) if total else None
        record[f"nuclei_{name}"] = {
            "value": value, "of": total,
            "interval": percentile(share, CONFIDENCE),
        }  # fmt: skip
    counts = table[["nuclei", "predicted_nuclei"]].to_numpy()
    varied = len(counts) > 2 and (counts.std(0) > 0).all()
    record["count_spearman"] = float(spearmanr(*counts.T).statistic) if varied else None
    return record | {"each_group": by_group.reset_index().to_dict("records")}


def stain_figure(store: PatchStore, panels: list, title: str) -> Figure:
    """Rows of bright-field, measured and predicted PI over background, on one scale."""
    figure = Figure(figsize=(9, 0.6 + 2.7 * len(panels)), layout="constrained")
    figure.suptitle(
        f"{title}\nPI predicted from bright-field by a model that did not see the field"
    )
    grid = figure.subplots(len(panels), 3, squeeze=False)
    for axes, (group, image_id, predicted, measured) in zip(grid, panels):
        top = max(2.5, float(np.nanpercentile(measured, 99)))
        axes[0].imshow(store.brightfield(image_id), cmap="gray", vmin=0, vmax=255)
        axes[0].set_title(f"{group}\n{image_id}", fontsize=7)
        for axis, ratio, name in (
            (axes[1], measured, "measured"),
            (axes[2], predicted, "predicted"),
        ):
            drawn = axis.imshow(ratio, cmap="inferno", vmin=1, vmax=top)
            axis.set_title(f"{name} PI / background", fontsize=8)
        figure.colorbar(drawn, ax=axes[2], shrink=0.8)
        for axis in axes:
            axis.set(xticks=[], yticks=[])
    return figure


def stain_numbers(record: dict) -> dict:
    """The few numbers that tell models apart, flat enough for `dvc metrics diff`."""
    flat = {name: record[name] for name in ("partition", "target", "arch", "synthetic")}
    stain = record["stain"]
    for name in ("pearson", "spearman", "nuclei_precision", "nuclei_recall"):
        low, high = stain[name]["interval"] or (None, None)
        flat[name] = {"value": stain[name]["value"], "low": low, "high": high}
    return flat | {"count_spearman": stain["count_spearman"], "groups": stain["groups"]}


def stain_lines(record: dict) -> str:
    """The main numbers in few lines, for the terminal."""
    stain = record["stain"]
    lines = [
        f"predicted against measured PI, {stain['fields']} fields of {stain['groups']} groups:"
    ]
    for name in ("pearson", "spearman", "nuclei_precision", "nuclei_recall"):
        value = with_interval(stain[name]["value"], stain[name]["interval"])
        lines.append(f"  {name.replace('_', ' ')}: {value}")
    return "\n".join(lines)
