"""Work on many images: on this machine's processes, or on a Dask cluster that is already running.

UNSTAINED_SCHEDULER, such as tcp://10.0.0.1:8786, names the cluster's scheduler; nothing else
changes, and results are the same bytes. Workers share the repository's folder with this process
(docs/cluster.md). Dask's own client hands the work out: joblib's backend for it (1.6) gives larger
arguments to one worker, with whose death they are lost, and waits for ever for work that kills its
workers.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from joblib import Parallel, delayed
from tqdm import tqdm

from .errors import UserError
from .paths import WORKSPACE

if TYPE_CHECKING:  # slow to import, and most runs have no cluster
    from distributed import Client, Future

SCHEDULER = "UNSTAINED_SCHEDULER"
PATIENCE = 5  # seconds that a scheduler may take to answer, and to have a worker
AHEAD = 4  # images on their way for each thread of the cluster: results wait in little memory


class ClusterError(UserError):
    """The cluster that UNSTAINED_SCHEDULER names cannot do the work; the message says why."""


def each(
    function: Callable, items: Iterable[tuple], workers: int, name: str, unit: str, total: int
) -> Iterator:
    """The results of `function(*item)`, in the order of the items, with a progress bar.

    function: importable by name; one that writes does so such that doing it again does no harm.
    workers: joblib's processes where there is no cluster (0, 1: this one, -1: one a core). Raises
    ClusterError at once for a scheduler that does not answer.
    """
    address = os.environ.get(SCHEDULER, "")
    results = _cluster(address, function, items) if address else _here(workers, function, items)
    yield from tqdm(results, name, total=total, unit=unit)


def _here(workers: int, function: Callable, items: Iterable[tuple]) -> Iterator:
    parallel = Parallel(n_jobs=workers or 1, return_as="generator")
    return parallel(delayed(function)(*item) for item in items)


def _cluster(address: str, function: Callable, items: Iterable[tuple]) -> Iterator:
    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    with _connected(address) as client:
        most = AHEAD * sum(client.nthreads().values())
        waiting: deque[Future] = deque()
        try:
            for item in items:
                waiting.append(client.submit(function, *item, pure=False))
                if len(waiting) >= most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except KilledWorker as error:
            raise ClusterError(
                f"{function.__name__} ended several workers of {address}, the last at "
                f"{error.last_worker.address}: have they too little memory?"
            ) from None
        except (CancelledError, CommClosedError) as error:
            raise ClusterError(f"{address} was lost amid the work: {error}") from None


@contextmanager
def _connected(address: str) -> Iterator["Client"]:
    """A client of a cluster that answers, has workers, and runs this code. Raises ClusterError."""
    from distributed import Client

    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TimeoutError):
        raise ClusterError(
            f"no Dask scheduler answers at {SCHEDULER}={address}: start it, or unset the variable "
            "to work on this machine"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError:
            raise ClusterError(f"{address} has no worker: start some (docs/cluster.md)") from None
        _same_code(client, address)
        yield client


def _same_code(client: "Client", address: str) -> None:
    """Raises ClusterError for workers of other code: another tree, or started before a change."""
    try:
        theirs = client.run(code)
    except Exception as error:  # whatever keeps a worker from importing it
        raise ClusterError(
            f"the workers of {address} do not find this code ({error}): start them in {WORKSPACE}, "
            "with PYTHONPATH set to it"
        ) from None
    if others := sorted(worker for worker, theirs_ in theirs.items() if theirs_ != code()):
        raise ClusterError(
            f"workers of {address} run other code than this ({', '.join(others[:3])}): restart "
            f"them in {WORKSPACE}"
        )


@cache
def code() -> str:
    """The tree this process runs in, and the digest of its code when this was first asked."""
    digest = hashlib.sha256(str(WORKSPACE).encode())
    for path in sorted((WORKSPACE / "src").rglob("*.py")):
        digest.update(path.read_bytes())
    return f"{WORKSPACE} {digest.hexdigest()}"
