"""The graph with stages that do not wait for each other side by side: `unstained repro`.

`dvc repro` runs one stage after another; several of them at a time are DVC's own way to run more
(dvc.org, "Parallel stage execution"). Each here is told one stage, in the order of the graph.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import chdir
from graphlib import TopologicalSorter
from pathlib import Path

from .common.workspace.errors import UserError
from .common.workspace.paths import WORKSPACE
from .warm import warmed

# These take all cores by themselves, and what begins beside them would only make them longer
WIDE = {"acquire", "tile"}


class ReproError(UserError):
    """A stage failed."""


def bring_up_to_date(jobs: int) -> int:
    """Runs what is out of date, at most `jobs` stages at a time; returns how many stages that was.
    Raises ReproError.
    """
    if stages := outdated(WORKSPACE):
        with warmed(environment(jobs)) as env:
            repro(stages, jobs, env, WORKSPACE)
    return len(stages)


def environment(jobs: int) -> dict[str, str]:
    """That of stages of which so many run at a time: no progress bars, and as OMP_NUM_THREADS,
    unless it is set, their share of the cores.
    """
    share = str(max(1, (os.cpu_count() or 1) // jobs))
    return {"OMP_NUM_THREADS": share, **os.environ, "TQDM_DISABLE": "1"}


def repro(waits_for: dict[str, set[str]], jobs: int, env: dict[str, str], root: Path) -> None:
    """Runs stages (see `outdated`), at most `jobs` at a time.

    A stage's words come when it ends. Raises ReproError, after those stages have ended that are
    still at work.
    """
    order, failed, ready = TopologicalSorter(waits_for), [], []
    order.prepare()
    with ThreadPoolExecutor(jobs) as pool:
        running: dict[Future, str] = {}
        while True:
            ready = [] if failed else [*ready, *order.get_ready()]
            ready.sort(key=lambda stage: stage not in WIDE)
            while ready and len(running) < jobs and not WIDE & {*running.values()}:
                stage = ready.pop(0)
                running[pool.submit(_run, stage, root, env)] = stage
            if not running:
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                stage = running.pop(future)
                order.done(stage)
                failed += [stage] if future.result() else []
    if failed:
        raise ReproError(f"{', '.join(failed)}: the lines above say why; what is done stays done")


def outdated(root: Path) -> dict[str, set[str]]:
    """The stages that changed and those that rest on them, each with those of them it waits for."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    rests_on = {}
    try:
        with chdir(root), Repo() as repo:  # stages are named as from here
            if changed := set(repo.status()):
                graph = repo.index.graph
                for one in repo.index.stages:
                    rests_on[one.addressing] = {each.addressing for each in graph[one]}
    except DvcException as error:
        raise ReproError(f"DVC cannot say what changed: {error}") from error
    affected: set[str] = set()
    for stage in TopologicalSorter(rests_on).static_order():
        if stage in changed or rests_on[stage] & affected:
            affected.add(stage)
    # in the order of dvc.yaml, so that of stages that could begin the same ones do
    return {stage: rests_on[stage] & affected for stage in rests_on if stage in affected}


def _run(stage: str, root: Path, env: dict[str, str]) -> int:
    print(f"{stage} ...", flush=True)
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage]
    start = time.monotonic()
    done = subprocess.run(
        command, cwd=root, env=env, check=False, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    # Of a bar that was drawn over and over, its last state
    lines = [line.rpartition("\r")[2] for line in done.stdout.splitlines()]
    said = "\n".join(f"  {line}" for line in lines if line.strip())
    print(f"{stage}: {time.monotonic() - start:.0f} s\n{said}", flush=True)
    return done.returncode
