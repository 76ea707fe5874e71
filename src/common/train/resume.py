"""An interrupted training goes on: which one it is, that it runs only once at a time, and in which
MLflow run.
"""

import fcntl
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import mlflow

from ..patches import rounds
from ..scoring.networks import backbones, inference, net, stain
from ..tracking import runs as tracking
from .loading import TrainingError

HERE = Path(__file__).parent


def identity(settings: Sequence[str], files: Sequence[Path]) -> str:
    """A digest of all that determines a training: settings, files and code. An interrupted run goes
    on only if it is the same.
    """
    code = [
        *sorted(HERE.glob("*.py")),
        *(Path(m.__file__) for m in (backbones, net, inference, stain, rounds)),
    ]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in [*files, *code]]
    return hashlib.sha256("\n".join([*settings, *digests]).encode()).hexdigest()[:16]


@contextmanager
def resumable_run(scratch: Path, name: str) -> Iterator[str]:
    """The id of a training's MLflow run; its folder of checkpoints is removed when all is done.

    An interrupted or failed training goes on in its own run, whose id lies beside the checkpoints.
    Raises TrainingError if the same training is running already.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    with exclusive(scratch), tracking.run("train", name, run_id=earlier_run(scratch)) as run_id:
        (scratch / "run_id").write_text(run_id)
        clear_failure(run_id)
        yield run_id
    shutil.rmtree(scratch)


@contextmanager
def exclusive(scratch: Path) -> Iterator[None]:
    """Holds the folder of checkpoints, so that no second process writes to it.

    Raises TrainingError if one does.
    """
    with (scratch / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TrainingError(
                f"this very training is running already, with its checkpoints in {scratch}"
            ) from None
        yield


def earlier_run(scratch: Path) -> str | None:
    """Id of the MLflow run that an interrupted training of the same identity left, if the store
    still has it.
    """
    if not (scratch / "run_id").exists():
        return None
    run_id = (scratch / "run_id").read_text()
    try:
        run = tracking.connect().get_run(run_id)
    except mlflow.MlflowException:
        return None
    return run_id if run.info.lifecycle_stage == "active" else None


def clear_failure(run_id: str) -> None:
    """A run that failed before and now goes on says so, instead of being called failed."""
    client = mlflow.MlflowClient()
    if reason := client.get_run(run_id).data.tags.get("failure"):
        client.set_tag(run_id, "resumed_after", reason)
        client.delete_tag(run_id, "failure")
