"""Nuclei of the manifest's masks, called live or dead from predicted PI, size and shape, and tested
by their own PI.

A logistic regression on four measures, fitted on the nuclei of groups that it does not test, as an
operating point is. The masks' nuclei are the test of a stain network that mean PI of windows is not
(docs/accuracy.md).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..images.nuclei import nuclei_of
from ..patches.rounds import Round
from ..patches.store import PatchStore
from ..scoring.networks.inference import load_model
from ..scoring.networks.stain import predict_stain, stain_logits
from ..scoring.nuclei import SHAPE, SPECK, nucleus_features, nucleus_logits
from ..scoring.operating import Operating
from ..workspace.sections import Evaluate
from .calibration import fit_conformal, fit_threshold
from .record import conformal_record, overall, within
from .rounds import operate
from .testset import TestSet

# A nucleus's own class by the PI inside it over the field's background: dead if three quarters of
# it glow, which an immune cell that overlaps it does not do; live if half of it does not; else open
DEAD_FROM, LIVE_BELOW = 1.6, 1.25
LEAST = 10  # nuclei of each class to fit by, of two groups or more
FACTS = ["image_id", "partition", "experiment", "group", "round", "split"]
NUCLEI_COLUMNS = [
    *FACTS, "nucleus", "y", "x", *SHAPE, "predicted_pi", "label", "logit", "probability", "called",
    "call",
]  # fmt: skip


def own_class(mask: np.ndarray, pi: np.ndarray, background: float) -> pd.Series:
    """The class of every nucleus of an instance mask (H, W) by its own PI (H, W) in counts: live,
    dead, open, or unknown where a pixel has no count; by its number.
    """
    inside = mask > 0
    by_nucleus = pd.Series(pi[inside] / (background or np.nan)).groupby(mask[inside])
    dead, live = by_nucleus.quantile(0.25) > DEAD_FROM, by_nucleus.median() < LIVE_BELOW
    named = np.select([by_nucleus.min() <= 0, dead, live], ["unknown", "dead", "live"], "open")
    return pd.Series(named, index=dead.index)


def score_nuclei(
    splits: pd.DataFrame, held_out: Sequence[Round], models: Path, card: dict, store: PatchStore,
    masks: Mapping[str, tuple[Path, Path]],
) -> pd.DataFrame:  # fmt: skip
    """Nuclei in the test images of every round (and, of a single round, in its validation images),
    by its model: NUCLEI_COLUMNS up to `label`, with their evidence `logit` and live (bool).

    models: folder of the partition's models; card: its model.json; masks: by image_id, files of the
    instance mask and of PI. Nuclei with pixels without a count are left out.
    """
    tables = [pd.DataFrame(columns=NUCLEI_COLUMNS)]
    for part in held_out:
        tested, valid = part.test, part.valid & (len(held_out) == 1)
        rows = splits.assign(round=part.name, split=np.where(tested, "test", "valid"))
        rows = rows[(tested | valid) & rows["image_id"].isin(masks)].drop_duplicates("image_id")
        net = load_model(part.folder(models), card) if len(rows) else None
        for row in rows[FACTS].to_dict("records"):
            frame, (mask_file, pi_file) = store.frames.loc[row["image_id"]], masks[row["image_id"]]
            maps = predict_stain(net, np.asarray(store.brightfield(row["image_id"])))
            mask, pi = tifffile.imread(mask_file), tifffile.imread(pi_file)
            table = nuclei_of(mask, maps[0], frame["pixel_size_um"])
            tables.append(table.assign(
                **row, nucleus=table["label"], predicted_pi=1 + table["mean"],
                label=table["label"].map(own_class(mask, pi, frame["pi_background"])),
                logit=stain_logits(table["mean"].to_numpy(float)).round(6),
            ))  # fmt: skip
    nuclei = pd.concat(tables[1:] or tables, ignore_index=True)
    nuclei = nuclei[nuclei["label"] != "unknown"].reset_index(drop=True)
    return nuclei.assign(live=nuclei["label"] == "live")


def fit_nuclei(known: pd.DataFrame, settings: Evaluate, shift: float) -> dict | None:
    """Weights, intercept, threshold and band of nuclei from some of known class, beside windows
    whose evidence is measured from `shift`; None where these are too few or of one group.

    Threshold and band are chosen on what a fit without a nucleus's own group says of it, with
    groups as the unit. area_um2: between which the groups' median areas lie; speck_um2: below it an
    outline is a speck, which teaches nothing and is not called: small and round, it would be dead.
    """
    area = known.groupby("group")["area_um2"].median()
    speck = round(SPECK * float(area.min()), 2)
    known = known[known["area_um2"] >= speck]
    groups_of_class = known.groupby("live")["group"].nunique()
    if len(groups_of_class) < 2 or groups_of_class.min() < 2:
        return None
    if known["live"].value_counts().min() < LEAST:
        return None
    live, groups = known["live"].to_numpy(), known["group"].to_numpy()
    features = nucleus_features(known["logit"], known[SHAPE])
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    others = cross_val_predict(
        model, features, live, groups=groups, cv=LeaveOneGroupOut(), method="predict_proba"
    )[:, 1].round(6)
    live_from, dead_to = fit_conformal(others, live, settings.abstain_error, groups)
    scaler, regression = model.fit(features, live).named_steps.values()
    weights = regression.coef_[0] / scaler.scale_
    return {
        "weights": weights.round(6).tolist(),
        "intercept": round(float(regression.intercept_[0] - weights @ scaler.mean_), 6),
        "shift": shift,
        "threshold": fit_threshold(others, live, live_from, dead_to),
        "live_from": live_from, "dead_to": dead_to,
        "area_um2": [round(float(area.min()), 2), round(float(area.max()), 2)], "speck_um2": speck,
    }  # fmt: skip


def operate_nuclei(rows: pd.DataFrame, at: dict) -> pd.DataFrame:
    """Nuclei with score, probability, called, call and covered under what was fitted on others;
    specks abstain.
    """
    logits = nucleus_logits(rows["logit"], rows[SHAPE], at, at["shift"])
    called = operate(rows.assign(logit=logits), band(at)).assign(logit=rows["logit"])
    speck = called["area_um2"] < at["speck_um2"]
    return called.assign(
        call=called["call"].mask(speck, "abstain"), covered=called["covered"] | speck
    )


def band(at: dict) -> Operating:
    """Threshold and abstain band of nuclei."""
    return Operating(1.0, at["threshold"], at["live_from"], at["dead_to"])


def nuclei_record(
    scored: pd.DataFrame, settings: Evaluate, scheme: str, shift: float
) -> tuple[dict | None, pd.DataFrame]:
    """The section on nuclei of the evaluation record, and the table of tested ones.

    Its `model` is what the model to register carries, with the share called wrongly here (of how
    many); None where `fit_nuclei` has too few, and nuclei are called by the windows' calibration.
    shift: of that model's windows.
    """
    if scored.empty:
        return None, scored[NUCLEI_COLUMNS]
    known = scored[scored["label"] != "open"]
    # a round's nuclei are called by what the others' (of one round: the validation's) taught
    tests, at = [], None
    for name, rows in known[known["split"] == "test"].groupby("round", sort=False):
        of_others = (known["split"] == "valid") | (known["round"] != name)
        if at := fit_nuclei(known[of_others], settings, shift):
            tests.append(operate_nuclei(rows, at))
    counts = scored.loc[scored["split"] == "test", "label"].value_counts()
    sizes = {f"n_{name}": int(counts.get(name, 0)) for name in ("live", "dead", "open")}
    final = at if scheme == "holdout" else fit_nuclei(known, settings, shift)
    tested = pd.concat(tests) if tests else known.iloc[:0]
    if final is None or tested["live"].nunique() < 2:
        return sizes | {"model": final}, tested.reindex(columns=NUCLEI_COLUMNS)
    test = TestSet.of(tested.reset_index(drop=True), settings)
    called = conformal_record(test, band(final))
    live, alone = test.column("live"), test.column("logit")
    record = sizes | {
        "n_images": int(tested["image_id"].nunique()), "n_groups": test.draws.groups,
        "overall": overall(test), "within_experiment": within(test, test.column("score")),
        "conformal": called,
        "predicted_pi_alone": {
            "auc": float(roc_auc_score(live, alone)), "within_experiment": within(test, alone),
        },
        "model": final | {"wrong": called["error_among_called"], "of": called["n_called"]},
    }  # fmt: skip
    return record, tested[NUCLEI_COLUMNS]
