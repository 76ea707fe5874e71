"""Evaluates one partition's model on its test split, untouched until here: numbers, intervals,
figures, predictions.

`python -m src.stages.evaluate PARTITION`; reads models/PARTITION, models/weights/model,
data/patches, data/splits and data/labels; writes metrics/evaluate/PARTITION.json and
reports/evaluate/PARTITION. Under kfold every round's model scores its own test fold, with the
temperature and threshold of its own validation fold, and the scores are pooled.
"""

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pandas as pd

from ..common.evaluate import baselines, calibration
from ..common.evaluate import figures as plots_evaluate
from ..common.evaluate import record as assessment
from ..common.evaluate.slices import slice_table, slicings
from ..common.metrics.point import confusion
from ..common.patches.store import PatchStore
from ..common.scoring.backbones import build
from ..common.scoring.inference import embed, load_model, predict
from ..common.scoring.operating import Operating, calibrate, called_live, conformal_call
from ..common.split.rounds import Round, rounds
from ..common.tracking import runs as tracking
from ..common.workspace.errors import UserError
from ..common.workspace.params import Evaluate, load
from ..common.workspace.paths import LABELS, METRICS, MODELS, PATCHES, REPORTS, SPLITS
from ..common.workspace.records import read_json
from ..common.workspace.tables import existing, read_table

PREDICTIONS = [
    "patch_id", "image_id", "partition", "experiment", "group", "y", "x", "size", "round", "label", "mean_pi",
    "intensity", "logit", "probability", "called", "call", "split",
]  # fmt: skip


class EvaluationError(UserError):
    """A partition cannot be evaluated as it stands."""


def read_splits(partitions: list[str], store: PatchStore) -> dict[str, pd.DataFrame]:
    """Each partition's labelled patches in splits, in their order, with live (bool), day and the
    frame's size.
    """
    splits = read_table(SPLITS / "splits.parquet", partitions)
    frames = store.frames[["height", "width", "day"]]
    table = splits.join(frames, on="image_id", validate="m:1")
    table["experiment"] = table["experiment"].fillna("").astype("str")
    table["live"] = table["label"] == "live"
    return {name: table[table["partition"] == name].reset_index(drop=True) for name in partitions}


def held_out_rounds(splits: pd.DataFrame, split_json: dict) -> list[Round]:
    """The rounds that have a test part: all but kfold's final."""
    return [r for r in rounds(splits, split_json) if r.test.any()]


def score(
    splits: pd.DataFrame, parts: list[Round], partition: str, card: dict, store: PatchStore
) -> pd.DataFrame:
    """Validation and test patches of every round with their logit z_live - z_dead, rounded to 6
    decimals.
    """
    found = []
    for part in parts:
        net = load_model(part.folder(MODELS / partition), card)
        rows = splits[part.valid | part.test]
        logits = predict(net, store, rows, desc=f"evaluate {partition} {part.name}").astype(float)
        split = np.where(part.test[part.valid | part.test], "test", "valid")
        found.append(
            rows.assign(
                round=part.name, split=split, logit=np.round(logits[:, 1] - logits[:, 0], 6)
            )
        )
    return pd.concat(found, ignore_index=True)


def validation_of(scored: pd.DataFrame, name: str) -> tuple[pd.DataFrame, str]:
    """The rows that a round's temperature and threshold may be fitted on: its validation part, if
    it has both classes.

    Otherwise the validation parts of the other rounds, pooled, without patches that the round
    tests.
    """
    valid = scored[scored["split"] == "valid"]
    own = valid[valid["round"] == name]
    if own["live"].nunique() == 2:
        return own, "own"
    tested = scored.loc[(scored["round"] == name) & (scored["split"] == "test"), "patch_id"]
    others = valid[~valid["patch_id"].isin(tested)]
    if others["live"].nunique() < 2:
        raise EvaluationError(
            f"{name}: no validation patches of both classes; check@splits should have stopped this"
        )
    return others, "pooled"


def operate(rows: pd.DataFrame, at: Operating) -> pd.DataFrame:
    """Rows with score, probability, called, call and covered under an operating point."""
    probability = calibrate(rows["logit"], at.temperature)
    return rows.assign(
        score=rows["logit"] / at.temperature,
        probability=probability,
        called=called_live(probability, at.threshold),
        call=conformal_call(probability, at.live_from, at.dead_to),
        covered=np.where(rows["live"], probability >= at.live_from, probability <= at.dead_to),
    )


def operate_rounds(scored: pd.DataFrame, error: float) -> tuple[pd.DataFrame, list[dict]]:
    """Every round's rows under the operating point of its own validation part, and those points."""
    found, points = [], []
    for name, rows in scored.groupby("round", sort=False):
        valid, source = validation_of(scored, name)
        at = calibration.fit_operating(valid["logit"].to_numpy(), valid["live"].to_numpy(), error)
        found.append(operate(rows, at))
        points.append({"round": name, "validation": source, "n_validation": len(valid)} | vars(at))
    return pd.concat(found), points


def baseline_logits(
    splits: pd.DataFrame, parts: list[Round], features, seed: int
) -> np.ndarray | None:
    """Logits of a linear model for the rows of `score`; None if a round's training part has one
    class.

    `features` turns a table of windows into (N, F); each window is computed once, however many
    rounds use it.
    """
    random = np.random.default_rng(seed)
    drawn = [np.flatnonzero(part.train) for part in parts]
    drawn = [
        np.sort(random.choice(rows, min(baselines.BASELINE_WINDOWS, len(rows)), replace=False))
        for rows in drawn
    ]
    scored = [np.flatnonzero(part.valid | part.test) for part in parts]
    live = splits["live"].to_numpy()
    if any(live[rows].all() or not live[rows].any() for rows in drawn):
        return None
    used = np.unique(np.concatenate(drawn + scored))
    values, at = features(splits.iloc[used]), np.searchsorted
    logits = [
        baselines.linear_logits(
            values[at(used, train)],
            live[train],
            values[at(used, rows)],
            part.valid[rows],
            live[part.valid],
        )
        for part, train, rows in zip(parts, drawn, scored)
    ]
    return np.round(np.concatenate(logits), 6)


def baseline_record(
    splits, parts, store, scored: pd.DataFrame, arch: str, draws, settings: Evaluate
) -> dict:
    """Both linear baselines, operated as the model is, and the experiment-only score on the model's
    test patches.
    """
    probe = build(arch, MODELS / "weights" / "model" / "model.safetensors")
    kinds = {"texture_linear": lambda table: baselines.textures(store, table)}
    kinds["linear_probe"] = lambda table: embed(probe, store, table, desc="linear probe")
    test = test_of(scored)
    found: dict = {"experiment_only": assessment.experiment_only(test, draws, settings)}
    for name, features in kinds.items():
        logits = baseline_logits(splits, parts, features, settings.seed)
        if logits is None:
            found[name] = None
            continue
        other, _ = operate_rounds(scored.assign(logit=logits), settings.abstain_error)
        found[name] = assessment.baseline(test, test_of(other), draws, settings)
    return found


def test_of(scored: pd.DataFrame) -> pd.DataFrame:
    """The test rows of a table of scored patches."""
    return scored[scored["split"] == "test"].reset_index(drop=True)


def cross_partition(
    partition: str,
    own: pd.DataFrame,
    others: dict,
    at: Operating,
    store: PatchStore,
    settings: Evaluate,
) -> dict | None:
    """This partition's model on the test patches of every other one (name to its splits), at its
    own operating point.

    Under kfold every patch is a test patch and the final model is asked. Groups that the model
    trained or validated on are left out and counted; a partition of which nothing remains is named
    without metrics.
    """
    if not others:
        return None
    kfold = (own["fold"] >= 0).any()
    seen = own.loc[own["split"] != "test", "group"].unique()
    net, found = load_model(MODELS / partition, read_json(MODELS / partition / "model.json")), {}
    for other, splits in others.items():
        rows = splits if kfold else splits[splits["split"] == "test"]
        unseen = rows[~rows["group"].isin(seen)]
        left_out = {"groups_left_out": int(rows["group"].nunique() - unseen["group"].nunique())}
        if unseen.empty:
            found[other] = left_out | {"overall": None}
            continue
        logits = predict(net, store, unseen, desc=f"{partition} on {other}").astype(float)
        test = operate(unseen.assign(logit=np.round(logits[:, 1] - logits[:, 0], 6)), at)
        draws = assessment.resamples(test, settings)
        found[other] = (
            left_out
            | assessment.counts(test)
            | {"overall": assessment.overall(test, draws, settings)}
        )
    return found


def digest(test: pd.DataFrame) -> str:
    """Of the test patches and their labels: two models with the same digest were judged on the same
    data.
    """
    rows = sorted(zip(test["patch_id"], test["label"]))
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def run(partition: str) -> dict:
    """Does the stage's work; raises EvaluationError for what a user can mend."""
    dataset, settings = load("dataset", "evaluate")
    if partition not in dataset.partitions:
        raise EvaluationError(
            f"no partition '{partition}' in dataset.partitions: {', '.join(dataset.partitions)}"
        )
    card = json.loads(existing(MODELS / partition / "model.json").read_text())
    split_json = json.loads(existing(SPLITS / "split.json").read_text())
    thresholds = json.loads(existing(LABELS / "thresholds.json").read_text())
    store = PatchStore(PATCHES)
    others = read_splits(dataset.partitions, store)
    splits = others.pop(partition)
    parts = held_out_rounds(splits, split_json)
    scored, points = operate_rounds(
        score(splits, parts, partition, card, store), settings.abstain_error
    )
    test = test_of(scored)
    draws = assessment.resamples(test, settings)
    if split_json["scheme"] == "holdout":
        at = Operating(
            **{field.name: points[0][field.name] for field in dataclasses.fields(Operating)}
        )
    else:  # for the final model, which no split is left to judge
        at = calibration.fit_operating(
            test["logit"].to_numpy(), test["live"].to_numpy(), settings.abstain_error
        )
    record = {
        "partition": partition,
        "synthetic": card["synthetic"],
        "model": {name: card[name] for name in ("arch", "pooling", "digest")}
        | {"weights": card["weights"]["weights"], "recipe": card["params"]},
        "data": assessment.counts(test)
        | {
            "scheme": split_json["scheme"],
            "digest": digest(test),
            "resamples_redrawn": draws.lacking,
        },
        "overall": assessment.overall(test, draws, settings),
        "confusion": confusion(test["live"], test["called"]),
        "threshold": assessment.threshold_record(test, at),
        "calibration": {"temperature": at.temperature} | assessment.calibration_record(test),
        "conformal": assessment.conformal_record(test, at, settings.abstain_error),
        "correlation": assessment.correlation(test, draws, settings),
        "within_experiment": assessment.within(test, test["score"].to_numpy(), draws, settings),
        "baselines": baseline_record(splits, parts, store, scored, card["arch"], draws, settings),
        "slices": slice_table(test, slicings(test, store, thresholds)),
        "cross_partition": cross_partition(partition, splits, others, at, store, settings),
        "rounds": points,
        "notes": assessment.notes(settings, split_json["scheme"], draws.groups),
    }
    record = assessment.clean(record)
    write(partition, record, scored, thresholds)
    tracking.log_evaluation(partition, record, REPORTS / "evaluate" / partition)
    return record


def write(partition: str, record: dict, scored: pd.DataFrame, thresholds: dict) -> None:
    """The record, the predictions, the tables for `dvc plots` and the figures."""
    report = REPORTS / "evaluate" / partition
    shutil.rmtree(report, ignore_errors=True)
    (report / "figures").mkdir(parents=True)
    (METRICS / "evaluate").mkdir(parents=True, exist_ok=True)
    (METRICS / "evaluate" / f"{partition}.json").write_text(json.dumps(record, indent=2) + "\n")
    scored[PREDICTIONS].to_parquet(report / "predictions.parquet", index=False)
    test = test_of(scored)
    for name, table in plots_evaluate.tables(test).items():
        table.round(6).to_csv(report / f"{name}.csv", index=False)
    plots_evaluate.figures(test, record, thresholds, report / "figures")


def main(partition: str) -> dict:
    """Runs the stage; returns the evaluation record."""
    record = run(partition)
    for line in assessment.summary(record):
        print(line)
    return record
