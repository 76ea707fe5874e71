"""The labelled windows of a training as inputs of its MLflow run."""

import warnings

import mlflow
import pandas as pd
from mlflow import MlflowClient

from ..workspace.paths import SPLITS
from .origin import data_digests

AMBIGUOUS = "The specified dataset source can be interpreted in multiple ways"


def log_data(partition: str) -> None:
    """Logs the labelled windows of each part of the split as inputs of the active run: each with
    MLflow's digest of its table, the file it comes from, and DVC's digest of that file's folder in
    the tag `dvc_md5`.
    """
    if MlflowClient().get_run(mlflow.active_run().info.run_id).inputs.dataset_inputs:
        return
    file = SPLITS / "splits.parquet"
    splits = pd.read_parquet(file).query("partition == @partition")
    folder = data_digests().get("splits")
    for part, rows in splits.groupby(splits["split"].replace("", "kfold"), sort=False):
        table = rows[["patch_id", "group", "label"]].reset_index(drop=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", AMBIGUOUS)
            dataset = mlflow.data.from_pandas(
                table, f"data/splits/{file.name}", "label", f"{partition} {part}"
            )
        mlflow.log_input(dataset, context=str(part), tags={"dvc_md5": folder} if folder else None)
