"""Can the MLflow store be used, and does a server let us in? Asked first, since MLflow itself
retries for minutes.
"""

import os

import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from sqlalchemy.exc import SQLAlchemyError

USER_VARIABLES = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
DATABASES = ("sqlite:", "postgresql", "mysql", "mssql")


class ServerError(SystemExit, ValueError):
    """The MLflow store cannot be used: no such place, a server that does not answer, or one that
    does not let us in.

    Any stage may meet it, so where nobody catches it as a ValueError it ends the process with its
    message alone.
    """


def check(uri: str) -> None:
    """Raises ServerError if the store at URI, a database or a server, cannot be used; makes no
    folder for it.
    """
    if uri.startswith(("http:", "https:")):
        _server(uri)
    else:
        _store(uri)


def _store(uri: str) -> None:
    shown = uri
    try:
        if uri.startswith(DATABASES):
            shown = sqlalchemy.make_url(uri).render_as_string(hide_password=True)
            engine = sqlalchemy.create_engine(uri)
            sqlalchemy.inspect(
                engine
            ).get_table_names()  # fails at once, where MLflow would try for 100 s
            engine.dispose()
        MlflowClient(uri).search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, ImportError) as error:
        name = (
            f"MLFLOW_TRACKING_URI={shown}"
            if os.environ.get("MLFLOW_TRACKING_URI")
            else f"the MLflow store {shown}"
        )
        cause = str(error).strip().splitlines()[0].split(". ")[0].rstrip(".")
        raise ServerError(
            f"{name} cannot be used: {cause}; give a server (http://HOST:PORT) or a database "
            "(sqlite:////ABSOLUTE/PATH/mlflow.db, in a folder that exists), or unset MLFLOW_TRACKING_URI to work with "
            "the repository's own store"
        ) from None


def _server(uri: str) -> None:
    creds = get_default_host_creds(uri)
    try:
        answer = http_request(
            creds, "/api/2.0/mlflow/experiments/search", "GET", params={"max_results": 1},
            max_retries=0, raise_on_status=False, timeout=30,
        )  # fmt: skip
    except MlflowException:
        raise ServerError(
            f"the MLflow server of MLFLOW_TRACKING_URI={uri} does not answer: is it running, and the address right? "
            "Unset MLFLOW_TRACKING_URI to work with the local store (`unstained sync` brings it to the server later)"
        ) from None
    if answer.status_code == 401:
        raise ServerError(
            f"the MLflow server {uri} refuses user '{creds.username or ''}': check {USER_VARIABLES} (docs/team.md)"
        )
    if not answer.ok:
        raise ServerError(
            f"the MLflow server {uri} answers {answer.status_code}: {answer.text.strip()[:300]}"
        )
