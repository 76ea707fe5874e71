"""The local MLflow store in a clone that was moved or copied.

MLflow keeps the places of artifacts absolute. In another folder they still name the old clone: of a
moved one nothing could be loaded, and a copied one would write into the original.
"""

import os
import sqlite3
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import mlflow

from ..workspace.errors import ServerError
from ..workspace.paths import MLRUNS
from .quiet import quieten

FOREIGN = {
    "MLFLOW_RUN_ID": "runs here are the project's own",
    "MLFLOW_REGISTRY_URI": "models are registered where their runs are",
}
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def use_store(mlruns: Path = MLRUNS) -> None:
    """Points MLflow at the repository's own store, mended if the clone was moved, unless
    MLFLOW_TRACKING_URI names another. From here on it is quiet.

    What would lead elsewhere is taken out of the environment: every run here is our own, and its
    model versions are in the same store. Raises ServerError for a path that no store can have.
    """
    quieten()
    for name, why in FOREIGN.items():
        if foreign := os.environ.pop(name, ""):
            print(f"note: {name}={foreign} is ignored: {why}")
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return
    if "?" in str(mlruns):  # it ends the path in a database's address: another file would be made
        raise ServerError(f"no MLflow store can lie in {mlruns}: rename the folder, without '?'")
    mlruns.mkdir(parents=True, exist_ok=True)
    relocate(mlruns / "mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{mlruns / 'mlflow.db'}")


def relocate(database: Path) -> None:
    """Points the places below the old clone's mlruns at the folder of the database, and says so.

    Nothing is done without a store, or where somebody chose another place for artifacts.
    Raises ServerError if the store cannot be written.
    """
    new, old = database.parent, recorded(database)
    if old is None or old == new:
        return
    try:
        _replace_all(database, old, new)
    except sqlite3.OperationalError as error:  # read-only, or held by another process
        raise ServerError(
            f"{database} names files in {old.parent}, where this clone or its original was, and "
            f"cannot be mended: {error}; make it writable and end what uses it"
        ) from None
    print(f"note: this clone, or what it was copied from, was {old.parent}: its MLflow store named "
          f"files there, and names those in {new} now")  # fmt: skip


def recorded(database: Path) -> Path | None:
    """The mlruns folder that a local store's experiments name; None for no store or no folder."""
    if not database.is_file():
        return None
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=60)
    try:
        query = "SELECT artifact_location FROM experiments WHERE artifact_location LIKE ?"
        row = connection.execute(query, ("file://%/mlruns/artifacts",)).fetchone()
    except sqlite3.DatabaseError:  # no database, or locked: the check of the store says which
        return None
    finally:
        connection.close()
    return Path(url2pathname(urlparse(row[0]).path)).parent if row else None


def _replace_all(database: Path, old: Path, new: Path) -> None:
    """Replaces a folder at the beginning of every place, in all of them or in none."""
    connection = sqlite3.connect(database, timeout=60)
    with connection:
        for before, after in ((str(old), str(new)), (old.as_uri(), new.as_uri())):
            size = len(before) + 1
            for table, column in PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE substr({column}, 1, ?) = ?",
                    (after, size, size, f"{before}/"),
                )
    connection.close()
