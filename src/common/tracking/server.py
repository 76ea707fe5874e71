"""Can the MLflow store be used, and does a server let us in? Asked first and once, since MLflow
itself tries for minutes.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import sqlalchemy
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from ..workspace.errors import ServerError
from ..workspace.paths import MLRUNS
from ..workspace.room import STORE

USER_VARIABLES = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
DATABASES = ("sqlite:", "postgresql", "mysql", "mssql")
ONCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}  # seconds
SHARED = 0o664  # the mode of a lock: a group may share a clone

CURES = STORE | {
    "disk is full": "has no room: make some on its disk, and repeat",
    "database schema": "is of another version of MLflow: of a newer one, work with the environment "
    "that made it; of an older one, copy it and run `mlflow db upgrade` on it",
}
OTHER = (
    "give a server (http://HOST:PORT) or a database (sqlite:////ABSOLUTE/PATH/mlflow.db, in a "
    "folder that exists), or unset MLFLOW_TRACKING_URI to work with the repository's own store"
)
OWN = "move it aside, and `unstained sync` makes another from the outputs at hand"


def require_store(uri: str) -> None:
    """Raises ServerError if the store at URI, a database or a server, cannot be used; makes no
    folder for it.
    """
    if uri.startswith(("http:", "https:")):
        _server(uri)
    else:
        _store(uri)


def _store(uri: str) -> None:
    shown, making = uri, nullcontext()
    try:
        if uri.startswith(DATABASES):
            shown = sqlalchemy.make_url(uri).render_as_string(hide_password=True)
            engine = sqlalchemy.create_engine(uri)
            # Fails at once, where MLflow would try for 100 s
            sqlalchemy.inspect(engine).get_table_names()
            engine.dispose()
            making = _one_at_a_time(database_file(uri))
        with making:
            MlflowClient(uri).search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, ImportError) as error:
        own = uri == f"sqlite:///{MLRUNS / 'mlflow.db'}"  # MLflow puts it into the environment too
        name = f"the MLflow store {shown}" if own else f"MLFLOW_TRACKING_URI={shown}"
        cause = str(error).strip().splitlines()[0].split(". ")[0].rstrip(".")
        told = next((cure for said, cure in CURES.items() if said in str(error)), "")
        told = told or f"cannot be used: {cause}; {OWN if own else OTHER}"
        raise ServerError(f"{name} {told}") from None


def database_file(uri: str) -> Path | None:
    """The file of an SQLite store; None for a server and for other databases."""
    url = sqlalchemy.make_url(uri) if uri.startswith("sqlite:") else None
    return Path(url.database) if url and url.database else None


def _one_at_a_time(file: Path | None) -> AbstractContextManager:
    """Held while MLflow connects to a database in a file, whose tables it makes at first use: two
    processes that make them at once get in each other's way, and one fails.
    """
    if not file or not os.access(file.parent, os.W_OK):  # nothing can be made there
        return nullcontext()
    return FileLock(file.with_name(f".{file.name}.lock"), mode=SHARED)


@contextmanager
def alone() -> Iterator[None]:
    """Held while a version is registered or an alias moved, since what is decided rests on what is
    there. It keeps the processes of this clone apart, not the machines that share a server.
    """
    MLRUNS.mkdir(parents=True, exist_ok=True)
    with FileLock(MLRUNS / ".registry.lock", mode=SHARED):
        yield


@contextmanager
def unless_there() -> Iterator[None]:
    """What is made within may be there already: another clone of the same store made it first."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _server(uri: str) -> None:
    try:
        with asking_once():
            MlflowClient(uri).search_experiments(max_results=1)
    except MlflowException as error:
        if error.get_http_status_code() in (401, 403):
            user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
            raise ServerError(
                f"the MLflow server {uri} refuses user '{user}': check {USER_VARIABLES} "
                "(docs/team.md)"
            ) from None
        raise ServerError(
            f"the MLflow server of MLFLOW_TRACKING_URI={uri} does not answer: is it running, and "
            "the address right? Unset MLFLOW_TRACKING_URI to work with the local store "
            f"(`unstained sync` brings it to the server later). MLflow says: {error.message[:300]}"
        ) from None


@contextmanager
def asking_once() -> Iterator[None]:
    """MLflow's requests are not repeated meanwhile."""
    before = {name: os.environ.get(name) for name in ONCE}
    os.environ.update(ONCE)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
