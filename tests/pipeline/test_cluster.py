"""Per-image work on a real Dask cluster, a scheduler and two workers on loopback, gives the bytes
that this machine alone gives, also where a worker is killed amid it.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from distributed import Client

from src.common.workspace import parallel
from tests.conftest import REPO, default_params
from tests.pipeline.test_acquire import tree
from tests.pipeline.test_assay_score import contents, save_model, write_plate

FIELDS = 6


class Cluster:
    """A scheduler and workers that work in a tree of their own."""

    def __init__(self, root: Path) -> None:
        self.root, self.log = root, root / "scheduler.log"
        self.started: list[subprocess.Popen] = []
        self.env = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}

    def start(self, kind: str, *arguments: str, log: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments]
        with (self.root / log).open("w") as out:
            process = subprocess.Popen(
                command, cwd=self.root, env=self.env, stdout=out, stderr=out, text=True
            )
        self.started.append(process)
        return process

    def open(self) -> str:
        """Starts a scheduler alone and returns its address."""
        self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
                   log=self.log.name)  # fmt: skip
        return until(lambda: re.search(r"Scheduler at:\s+(tcp://\S+)", self.log.read_text()))[1]

    def work(self, address: str, count: int = 2) -> list[subprocess.Popen]:
        """Starts workers, which no nanny starts again."""
        options = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1"]
        found = [
            self.start("worker", address, *options, log=f"worker{n}.log") for n in range(count)
        ]
        until(lambda: self.log.read_text().count("Register worker") >= count)
        return found

    def run(self, *command: str, address: str = "", wait: bool = True) -> subprocess.Popen:
        env = self.env | ({parallel.SCHEDULER: address} if address else {})
        env["MLFLOW_TRACKING_URI"] = f"sqlite:///{self.root}/mlflow.db"
        process = subprocess.Popen(
            [sys.executable, *command], cwd=self.root, env=env,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if wait:
            said = process.communicate()[0]
            assert process.returncode == 0, said
        return process

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()


def until(found, seconds: float = 240):
    """The first true answer. Fails after some minutes, for a machine that is busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := found():
            return answer
        time.sleep(0.05)
    raise AssertionError("waited in vain")


@pytest.fixture
def cluster(tmp_path):
    root = tmp_path / "tree"
    shutil.copytree(REPO / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "sources").mkdir()
    (root / "sources" / "synthetic.csv").write_text("file,bytes,sha256\n")
    small = {"frames": FIELDS, "height": 240, "width": 300}
    changes = {"synthetic": small, "acquire": {"workers": 1}, "tile": {"workers": 1}}
    changes["dataset"] = {"partitions": ["no_treatment"]}
    (root / "params.yaml").write_text(yaml.safe_dump(default_params(**changes)))
    made = Cluster(root)
    yield made
    made.close()


def put_aside(cluster: Cluster, name: str) -> dict[str, str]:
    """The digests of a stage's output, which is taken away."""
    found = tree(cluster.root / "data" / name)
    shutil.rmtree(cluster.root / "data" / name)
    return found


def test_a_stage_on_a_cluster_writes_the_same_bytes_though_a_worker_is_killed(cluster):
    cluster.run("-m", "src.stages", "acquire")
    alone = put_aside(cluster, "raw")
    address = cluster.open()
    first, _ = cluster.work(address)
    stage = cluster.run("-m", "src.stages", "acquire", address=address, wait=False)
    images = cluster.root / "data" / "raw" / "pi"
    until(lambda: images.is_dir() and any(images.iterdir()))
    first.send_signal(signal.SIGKILL)
    said = stage.communicate()[0]
    assert stage.returncode == 0 and f"acquired {FIELDS} fields" in said, said
    assert "Remove worker" in cluster.log.read_text()
    assert tree(cluster.root / "data" / "raw") == alone
    cluster.run("-m", "src.stages", "tile", address=address)
    together = put_aside(cluster, "patches")
    cluster.run("-m", "src.stages", "tile")
    assert put_aside(cluster, "patches") == together


FEATURES = """
import sys
from pathlib import Path
import numpy as np, pandas as pd
from src.common.filter import features
features.AT_ONCE = 64
root = Path.cwd()
windows = pd.read_parquet(root / "data/patches/patches.parquet")
windows = pd.concat([windows] * 30, ignore_index=True)
weights = root / "model.safetensors"
found = features.features({arch!r}, weights, "windows", root / "data/patches", windows)
np.save(sys.argv[1], found)
"""


@pytest.mark.slow
def test_features_and_scores_of_a_cluster_are_the_same_bytes(cluster, tmp_path):
    from safetensors.torch import save_file

    from src.common.scoring.networks.backbones import facts
    from src.common.scoring.networks.net import library_model
    from tests.conftest import ARCH

    cluster.run("-m", "src.stages", "acquire")
    cluster.run("-m", "src.stages", "tile")
    save_file(library_model(facts(ARCH)).state_dict(), cluster.root / "model.safetensors")
    (cluster.root / "embed.py").write_text(FEATURES.format(arch=ARCH))
    package = save_model(tmp_path / "package", "a" * 64)
    plate = write_plate(cluster.root / "plate")
    address = cluster.open()
    cluster.work(address)
    for name, at in (("alone", ""), ("together", address)):
        cluster.run("embed.py", f"{name}.npy", address=at)
        given = tasks(address)
        options = ["score", plate.name, "--model", package, "--out", name]
        cluster.run("-m", "src.cli", *options, address=at)
        assert bool(given) == (tasks(address) > given) == bool(at)
    files = [(cluster.root / f"{name}.npy").read_bytes() for name in ("alone", "together")]
    assert files[0] == files[1]
    assert contents(cluster.root / "alone") == contents(cluster.root / "together")


def tasks(address: str) -> int:
    """How often the scheduler has moved a task on, from 0."""
    with Client(address, set_as_default=False) as client:
        return client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)


def test_an_address_that_does_not_answer_is_said_at_once(monkeypatch):
    monkeypatch.setenv(parallel.SCHEDULER, "tcp://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(parallel.ClusterError, match="no Dask scheduler answers at UNSTAINED_SCH"):
        next(parallel.each(abs, [(-1,)], 1, "x", "y", 1))
    assert time.monotonic() - started < 60  # 5 on a machine that is not busy


def test_no_worker_and_workers_of_other_code_are_said(cluster, monkeypatch):
    address = cluster.open()
    monkeypatch.setenv(parallel.SCHEDULER, address)
    with pytest.raises(parallel.ClusterError, match="has no worker: start some"):
        list(parallel.each(abs, [(-1,)], 1, "x", "y", 1))
    cluster.work(address, 1)  # in a copy of this tree
    with pytest.raises(parallel.ClusterError, match="run other code than this"):
        list(parallel.each(abs, [(-1,)], 1, "x", "y", 1))


def test_without_a_cluster_results_come_in_order():
    found = parallel.each(divmod, ((n, 7) for n in range(20)), 2, "x", "y", 20)
    assert list(found) == [divmod(n, 7) for n in range(20)]


@pytest.mark.parametrize("workers", [0, 1])
def test_no_workers_are_this_process(workers):
    assert list(parallel.each(divmod, [(7, 2)], workers, "divide", "pair", 1)) == [(3, 1)]
