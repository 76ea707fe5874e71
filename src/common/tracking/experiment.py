"""The MLflow experiment that holds all runs, anchored at the repository root, also from DVC's
temporary copies; MLFLOW_TRACKING_URI wins.
"""

import json

import mlflow
from mlflow import MlflowClient

from ..workspace.paths import MLRUNS
from . import server
from .relocate import use_store

EXPERIMENT = "unstained"
NOTE = "mlflow.note.content"
KIND = "mlflow.experimentKind"  # the pages for trained models, not those for language models
ABOUT = (
    "One run trains one partition's model; `test/` metrics are of the test split, with "
    "intervals over groups\n"
    "(`_low`, `_high`); parameters are named as `dvc exp run -S` takes them. Group by the "
    "tag `dvc_exp` to see a DVC\n"
    "experiment's runs together; search `tags.dvc_exps LIKE '%NAME%'` finds also models "
    "that NAME took from the cache. Runs\n"
    "tagged `synthetic: true` are of simulated plates; those tagged `restored` were rebuilt "
    "from a stage's outputs. A failed\n"
    "run says why in the tag `failure`; `attributes.status = 'FINISHED'` hides them."
)
VIEW = "mlflow.sharedViewState.results"  # a saved view, which the page of runs lists under "Views"
SHOWN = ["tags.`partition`", "params.`model.arch`", "metrics.`test/balanced_accuracy`",
         "metrics.`test/auc`", "metrics.`test/auc_within_experiments`", "metrics.`test/brier`",
         "tags.`dvc_exp`"]  # fmt: skip
RESULTS = json.dumps(
    {"name": "Results", "createdAt": 0, "state": json.dumps({"selectedColumns": SHOWN})}
)


def connect() -> MlflowClient:
    """Points MLflow at the store, makes the experiment if it lacks, and returns a client."""
    use_store(MLRUNS)
    server.require_store(mlflow.get_tracking_uri())
    client = MlflowClient()
    if client.get_experiment_by_name(EXPERIMENT) is None:
        local = mlflow.get_tracking_uri().startswith("sqlite:")
        place = (MLRUNS / "artifacts").as_uri() if local else None
        tags = {NOTE: ABOUT, KIND: "custom_model_development", VIEW: RESULTS}
        client.create_experiment(EXPERIMENT, artifact_location=place, tags=tags)
    mlflow.set_experiment(EXPERIMENT)
    return client
