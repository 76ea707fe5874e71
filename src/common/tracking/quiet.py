"""MLflow speaks to a user only where something has failed.

By itself it gives advice to authors of models, counts the files that it copies on this machine and
tells of its own set-up, at every turn. MLFLOW_LOGGING_LEVEL and
MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR, where they are set, say otherwise.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def quieten() -> None:
    """Errors alone from MLflow's log, and no bars, from here on."""
    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        logging.getLogger("mlflow").setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


@contextmanager
def unwarned() -> Iterator[None]:
    """No warning is shown within. A filter would not do: MLflow turns filters of its own on."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda *shown, **more: None
        yield
