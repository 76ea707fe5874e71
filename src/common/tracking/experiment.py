"""The MLflow experiment that holds all runs, anchored at the repository root, also from DVC's
temporary copies (MLFLOW_TRACKING_URI wins), and how a run in it begins and ends.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from ..workspace.errors import ServerError
from ..workspace.paths import MLRUNS
from . import server
from .origin import origin, restoration, title
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
SHOWN_COLUMNS = ["tags.`partition`", "params.`model.arch`", "metrics.`test/balanced_accuracy`",
         "metrics.`test/auc`", "metrics.`test/auc_within_experiments`", "metrics.`test/brier`",
         "tags.`dvc_exp`"]  # fmt: skip
RESULTS = json.dumps(
    {"name": "Results", "createdAt": 0, "state": json.dumps({"selectedColumns": SHOWN_COLUMNS})}
)

# MLflow's tags of what runs
SOURCE_TAGS = {"mlflow.source.name", "mlflow.source.git.commit", "mlflow.source.git.branch"}


def connect() -> MlflowClient:
    """Points MLflow at the store, makes the experiment if it lacks, and returns a client."""
    use_store(MLRUNS)
    server.require_store(mlflow.get_tracking_uri())
    client = MlflowClient()
    known = client.get_experiment_by_name(EXPERIMENT)
    if known and known.lifecycle_stage == "deleted":
        raise ServerError(
            f"the experiment '{EXPERIMENT}' was deleted in MLflow ({mlflow.get_tracking_uri()}): "
            f"`mlflow experiments restore -x {known.experiment_id}` brings it back with its runs"
        )
    if known is None:
        file = server.database_file(mlflow.get_tracking_uri())
        place = (file.absolute().parent / "artifacts").as_uri() if file else None
        tags = {NOTE: ABOUT, KIND: "custom_model_development", VIEW: RESULTS}
        with server.unless_there():
            client.create_experiment(EXPERIMENT, artifact_location=place, tags=tags)
    mlflow.set_experiment(EXPERIMENT)
    return client


@contextmanager
def run(
    stage: str,
    name: str,
    tags: dict[str, str] | None = None,
    run_id: str | None = None,
    restored: bool = False,
) -> Iterator[str]:
    """A run of a stage with the tags of its origin; goes on with `run_id` if given. Yields the
    run's id.

    A run whose body raises ends as FAILED, with the reason in the tag `failure`. `restored`:
    rebuilt from outputs.
    """
    client = connect()
    given = restoration(stage) if restored else origin(stage)
    shown = None if run_id else title(name, given)
    run_id = mlflow.start_run(run_id=run_id, run_name=shown, tags=given | (tags or {})).info.run_id
    try:
        if restored:
            _forget_source(client, run_id)
        yield run_id
        mlflow.end_run()
    except BaseException as error:
        _fail(run_id, error)
        raise


def _forget_source(client: MlflowClient, run_id: str) -> None:
    """Takes away MLflow's tags of who makes this run."""
    for tag in client.get_run(run_id).data.tags.keys() & SOURCE_TAGS:
        client.delete_tag(run_id, tag)


def _fail(run_id: str, error: BaseException) -> None:
    """Ends the active run as FAILED with the reason. Raises ServerError if the server has gone: it
    is asked once, after MLflow tried for minutes.
    """
    error.run_id = run_id  # so that nobody makes a second run of the failure
    try:
        with server.asking_once():
            mlflow.end_run("FAILED")
            MlflowClient().set_tag(run_id, "failure", f"{type(error).__name__}: {error}"[:2000])
    except MlflowException as gone:
        if not isinstance(error, MlflowException):
            return  # the error itself is what to tell
        raise ServerError(
            f"the MLflow server of {mlflow.get_tracking_uri()} has gone, and its run {run_id} "
            f"stays open: repeat when it answers again. MLflow says: {gone.message[:300]}"
        ) from None
