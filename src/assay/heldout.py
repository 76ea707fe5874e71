"""What a registered model did on its own test: kept in MLflow by the run that trained it, beside
its evaluation.
"""

import json
import tempfile
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from ..common.workspace.tables import CLASS_NAMES


def summary(run_id: str | None) -> dict | None:
    """How the model called its own test: patches, error (the share of wrong calls it aims at),
    called (share), wrong (share of the called ones), auc_within; None where the run or its
    evaluation is not there.
    """
    path = "evaluate/record.json"
    record = _read(run_id, path, lambda file: json.loads(file.read_text()))
    if not record or "error" not in record.get("conformal", {}):
        return None
    calls, within = record["conformal"], record.get("within_experiment") or {}
    return {
        "patches": record["data"]["n_patches"], "error": calls["error"],
        "called": 1 - calls["abstention"], "wrong": calls["error_among_called"],
        "auc_within": within.get("pair_weighted", {}).get("value"),
    }  # fmt: skip


def patches(run_id: str | None) -> pd.DataFrame | None:
    """The model's own test patches (label, probability, call, experiment, group), or None where
    they are not there.
    """
    predictions = _read(run_id, "evaluate/predictions.parquet", pd.read_parquet)
    needed = {"label", "probability", "call", "experiment", "group", "split"}
    if predictions is None or not needed <= set(predictions):
        return None
    labelled = predictions["label"].isin(CLASS_NAMES)
    test = predictions[(predictions["split"] == "test") & labelled].reset_index(drop=True)
    experiment = test["experiment"].fillna("").astype(str)
    live, score = test["label"] == "live", evidence(test["probability"])
    return test.assign(live=live, score=score, experiment=experiment, field=test["group"])


def evidence(probability: np.ndarray | pd.Series) -> np.ndarray:
    """The calibrated logit (n,) of live probabilities."""
    p = np.clip(np.asarray(probability, float), 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def _read(run_id: str | None, path: str, read):
    """A file of a run, read; None where there is none."""
    if not run_id:
        return None
    with tempfile.TemporaryDirectory() as folder:
        where = {"run_id": run_id, "artifact_path": path, "dst_path": folder}
        try:
            return read(Path(mlflow.artifacts.download_artifacts(**where)))
        except (MlflowException, OSError, ValueError):
            return None
