"""Rounds of one training side by side, each in a process of its own.

On a processor a network of this size gains little by a second thread, and more by a second round
beside it (docs/cluster.md). With as many threads for each, its result is the same.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import mlflow
import torch
from joblib import Parallel, cpu_count, delayed

from ..workspace.sections import Train
from .loading import TrainingError

GOES_ON = "the same command goes on from the rounds that are done"


def at_a_time(train: Train, rounds: int) -> int:
    """How many of so many rounds train at a time: one a core, or one for OMP_NUM_THREADS of them;
    one alone on a GPU, on several devices, and of the head, whose features all rounds share.
    """
    one = train.layers == "head" or train.devices * train.nodes > 1
    if one or torch.accelerator.is_available():
        return 1
    threads = torch.get_num_threads() if os.environ.get("OMP_NUM_THREADS") else 1
    return max(1, min(rounds, cpu_count() // threads))


def side_by_side(processes: int, function: Callable, items: Sequence[tuple]) -> list:
    """Results of `function(*item)`, in the order of the items, as so many processes compute them.

    function: importable by name. The processes log to this one's MLflow store and end with it, also
    when it is killed. Raises what the first of them to fail raises, TrainingError for one that was
    killed, and SystemExit when interrupted.
    """
    given = function, mlflow.get_tracking_uri(), os.getpid()
    with _interruptible():
        return Parallel(processes)(delayed(_run)(*given, item) for item in items)


def is_beside_others() -> bool:
    """Whether this process is one of several side by side, whose progress bars would mix."""
    return multiprocessing.current_process().name != "MainProcess"


def _run(function: Callable, store: str, parent: int, item: tuple):
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    mlflow.set_tracking_uri(store)
    return function(*item)


def _end_with(parent: int) -> None:
    """Ends this process at once when its parent is gone: it would go on, beside the next try."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM end as they do where Lightning trains in this process: by SystemExit.

    Raises TrainingError for a process that was killed.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(f"training was interrupted: {GOES_ON}") from None
    except BrokenProcessPool:
        raise TrainingError(
            "the process of a round was killed, as the system does when memory runs out: set "
            f"OMP_NUM_THREADS to the number of cores for one round at a time; {GOES_ON}"
        ) from None
    finally:
        signal.signal(signal.SIGTERM, before)
