"""Runs a stage as `python -m src.stages.STAGE ITEM` does, and leaves a FAILED run with the reason
if it fails.

`python -m src.stages STAGE [ITEM]`, as src/run and so `dvc repro` call it: one entry, so that no
stage's code (which DVC watches) needs to know of it. A stage that succeeds leaves nothing here.
"""

import runpy
import sys
import threading
import time
import traceback
from importlib.util import find_spec

ITEMS = {
    "check": "artifact",
    "weights": "role",
}  # the tag that says what a stage ran on; of others, the partition
PATIENCE = (
    60  # seconds that recording may take: an MLflow that hangs must not hold the stage's end up
)


def main() -> None:
    """Runs the stage that the command line names; exits as it does. Its error is printed before it
    is recorded.
    """
    stage = sys.argv[1] if len(sys.argv) > 1 else ""
    if not stage.isidentifier() or find_spec(f"src.stages.{stage}") is None:
        sys.exit(f"error: there is no stage '{stage}': src/stages has a file of each")
    sys.argv = sys.argv[1:]
    started = time.time()
    try:
        runpy.run_module(f"src.stages.{stage}", run_name="__main__", alter_sys=True)
    except (Exception, SystemExit) as error:
        code, reason = told(stage, error)
        if code and not of_tracking(error):
            record(stage, "".join(sys.argv[1:2]), reason, started)
        sys.exit(code)


def told(stage: str, error: BaseException) -> tuple[int, str]:
    """Prints an error as Python does; returns the exit code and the reason: its message, with a
    crash's last lines.

    An earlier stage's file that is not there is no crash, whether or not the stage says so itself.
    """
    from ..common.workspace.tables import MissingInput

    if isinstance(error, MissingInput):
        error = SystemExit(f"error: {stage}: {error}")
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0, f"exit code {error.code}"
        print(error.code, file=sys.stderr)
        return 1, str(error.code)[:2000]
    traceback.print_exception(error)
    head = "".join(traceback.format_exception_only(error)).strip()
    return 1, f"{head[:1000]}\n{''.join(traceback.format_tb(error.__traceback__)[-4:])[-2000:]}"


def of_tracking(error: BaseException) -> bool:
    """Whether the MLflow server itself is what failed: asking it again would only take time."""
    module = sys.modules.get(
        f"{__package__}.server"
    )  # not imported before it is needed: it brings all of MLflow
    return module is not None and isinstance(error, module.ServerError)


def record(stage: str, item: str, reason: str, started: float) -> None:
    """Leaves the run, unless the stage has one or is not the leader of several; says where, or why
    it could not.
    """
    said = [f"not recorded in MLflow: it did not answer within {PATIENCE} seconds"]

    def attempt() -> None:
        try:
            said[:] = failed_run(stage, item, reason, started)
        except (Exception, SystemExit) as error:
            said[:] = [f"not recorded in MLflow: {error}"]

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    for line in said:
        print(f"note: {line}", file=sys.stderr)


def failed_run(stage: str, item: str, reason: str, started: float) -> list[str]:
    """Makes the FAILED run of a stage that began at `started` (seconds since 1970); returns what to
    say of it.
    """
    from mlflow.tracking.context.registry import resolve_tags

    from ..common.tracking import runs as tracking
    from ..common.tracking.origin import origin, title

    if stage in tracking.failed or (stage == "train" and not leads()):
        return []
    client = tracking.connect()
    tags = origin(stage) | {"failure": reason, tracking.NOTE: f"Failed:\n\n```\n{reason}\n```"}
    if item:
        tags[ITEMS.get(stage, "partition")] = item
    name = title(f"{' '.join(filter(None, [stage, item]))} (failed)", tags)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    run = client.create_run(experiment.experiment_id, int(started * 1000), resolve_tags(tags), name)
    client.set_terminated(run.info.run_id, "FAILED")
    return [f"MLflow has this as run '{name}' ({run.info.run_id})"]


def leads() -> bool:
    """Whether this process leads a training on several devices."""
    from ..common.train.fine_tuning import is_rank_zero

    return is_rank_zero()


if __name__ == "__main__":
    main()
