"""Runs a stage: `python -m src.stages STAGE [ITEM]`, as src/run and so `dvc repro` call it.

What a user can mend ends in one line, `error: STAGE@ITEM: ...`, here and for all stages. A stage
that fails leaves a FAILED run with the reason in MLflow; one that succeeds leaves nothing here.
"""

import gc
import sys
import threading
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from inspect import signature

from ..common.scoring import ScoringError
from ..common.workspace.errors import ServerError, UserError, of_mlflow
from ..common.workspace.paths import MLRUNS, MODELS, RAW, REPORTS
from ..common.workspace.room import of_the_disk

# The tag that says what a stage ran on; of others, the partition
ITEM_TAGS = {"check": "artifact", "weights": "role"}
# Seconds that recording may take: an MLflow that hangs must not hold the stage's end up
PATIENCE = 60
WRITTEN = (RAW.parent, MODELS, REPORTS, MLRUNS)


def main() -> None:
    """Runs the stage that the command line names, and exits as it does: 0, or 1 after its error is
    printed and recorded.
    """
    stage, *items = sys.argv[1:] or [""]
    if not stage.isidentifier() or find_spec(f"{__package__}.{stage}") is None:
        sys.exit(f"error: there is no stage '{stage}': src/stages has a file of each")
    started = time.time()
    try:
        work = imported(stage)
        require_items(work, items)
        work(*items)
    except (Exception, SystemExit) as error:
        reason = tell("@".join([stage, *items]), error)
        if reason and not isinstance(error, ServerError):
            record(stage, "".join(items), reason, started, error)
        sys.exit(1 if reason else 0)


def imported(stage: str) -> Callable:
    """The stage's main. What libraries define stays: to look through it for what could be freed
    makes importing a fifth longer.
    """
    gc.disable()
    try:
        return import_module(f"{__package__}.{stage}").main
    finally:
        gc.freeze()
        gc.enable()


def require_items(work: Callable, items: list[str]) -> None:
    """Raises UserError unless the stage takes these items: partition, artifact, role or none."""
    wanted = signature(work)
    try:
        wanted.bind(*items)
    except TypeError:
        names = " ".join(name.upper() for name in wanted.parameters) or "nothing"
        raise UserError(f"wants {names} after the stage's name, not '{' '.join(items)}'") from None


def tell(name: str, error: BaseException) -> str:
    """Prints an error and returns the reason for the record; '' for an exit that is none.

    Of what a user can mend, and of an exit with a message, one line; of a crash the traceback.
    """
    if isinstance(error, UserError | ScoringError):
        reason = f"error: {name}: {error}"
    elif refused := of_the_disk(error, WRITTEN):
        reason = f"error: {name}: {refused}"
    elif of_mlflow(error):
        reason = f"error: {name}: {error} (said by MLflow: mend it and run again)"
    elif not isinstance(error, SystemExit):
        traceback.print_exception(error)
        return crash(error)
    elif not error.code:
        return ""
    else:
        reason = f"error: {name}: exit code {error.code}" if error.code == 1 else str(error.code)
    print(reason, file=sys.stderr)
    return reason[:2000]


def crash(error: BaseException) -> str:
    """A crash's message and the last lines of where it happened."""
    message = "".join(traceback.format_exception_only(error)).strip()
    place = "".join(traceback.format_tb(error.__traceback__)[-4:])
    return f"{message[:1000]}\n{place[-2000:]}"


def record(stage: str, item: str, reason: str, started: float, error: BaseException) -> None:
    """Leaves the run of a failed stage, unless it has one or another process leads; says where, or
    why it could not.
    """
    said = [f"not recorded in MLflow: it did not answer within {PATIENCE} seconds"]

    def attempt() -> None:
        try:
            said[0] = failed_run(stage, item, reason, started)
        except (Exception, SystemExit) as failure:
            why = of_the_disk(failure, WRITTEN) or failure
            said[0] = f"not recorded in MLflow: {why}"

    if hasattr(error, "run_id") or (stage == "train" and not leads()):
        return
    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    print(f"note: {said[0]}", file=sys.stderr)


def failed_run(stage: str, item: str, reason: str, started: float) -> str:
    """Makes the FAILED run of a stage that began at `started` (seconds since 1970); returns what to
    say of it.
    """
    from mlflow.tracking.context.registry import resolve_tags

    from ..common.tracking import runs as tracking
    from ..common.tracking.origin import origin, title

    client = tracking.connect()
    tags = origin(stage) | {"failure": reason, tracking.NOTE: f"Failed:\n\n```\n{reason}\n```"}
    if item:
        tags[ITEM_TAGS.get(stage, "partition")] = item
    name = title(f"{' '.join(filter(None, [stage, item]))} (failed)", tags)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    run = client.create_run(experiment.experiment_id, int(started * 1000), resolve_tags(tags), name)
    client.set_terminated(run.info.run_id, "FAILED")
    return f"MLflow has this as run '{name}' ({run.info.run_id})"


def leads() -> bool:
    """Whether this process leads a training on several devices."""
    from ..common.train.devices import is_rank_zero

    return is_rank_zero()


if __name__ == "__main__":
    main()
