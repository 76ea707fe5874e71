"""Training while its MLflow server goes away: for a minute, it waits; for good, one line, and the
same command goes on later.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient

from tests.model.test_training import stage, tree  # noqa: F401

pytestmark = pytest.mark.slow

# The server dies at the start of the second epoch; the stage goes on without it
AWAY = """
import os, signal
from src.common.train.classifier import Classifier
from src.stages import __main__ as runner
os.environ |= {variables}
go_on = Classifier.on_train_batch_start
def stop(self, batch, batch_idx):
    if self.global_step == 6:
        os.killpg({server}, signal.SIGKILL)
    return go_on(self, batch, batch_idx)
if {server}:
    Classifier.on_train_batch_start = stop
runner.sys.argv = ["runner", "train", "p"]
runner.main()
"""


class Server:
    """An MLflow server on loopback with a store of its own, which can be started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        store = [f"--backend-store-uri=sqlite:///{self.folder}/mlflow.db",
                 f"--artifacts-destination={self.folder}/artifacts"]  # fmt: skip
        mlflow = [str(Path(sys.executable).parent / "mlflow"), "server"]
        address = [f"--port={self.port}", "--host=127.0.0.1", "--workers=1"]
        quiet = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.process = subprocess.Popen(
            [*mlflow, *store, *address], env=quiet, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def wait(self, seconds: float = 180) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                return requests.get(f"{self.uri}/health", timeout=5).raise_for_status()
            except requests.RequestException:
                time.sleep(0.5)
        raise TimeoutError(f"no MLflow server at {self.uri}")

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path)
    try:
        made.wait()
        yield made
    finally:
        made.end()


def train(tree: Path, server: Server, dies: bool, **variables: str) -> subprocess.CompletedProcess:  # noqa: F811
    variables |= {"MLFLOW_TRACKING_URI": server.uri}
    pid = server.process.pid if dies else 0
    return stage(tree, "-c", AWAY.format(server=pid, variables=variables))


def run_of(server: Server):
    client = MlflowClient(server.uri)
    (experiment,) = client.search_experiments(filter_string="name = 'unstained'")
    (run,) = client.search_runs([experiment.experiment_id])
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    return run, [metric.step for metric in losses]


def test_a_server_that_is_away_for_a_while_holds_the_training_up_and_loses_nothing(tree, server):  # noqa: F811
    with ThreadPoolExecutor() as pool:
        trained = pool.submit(train, tree, server, dies=True)
        server.process.wait()
        time.sleep(10)
        server.start()
        assert trained.result().returncode == 0, trained.result().stderr
    run, epochs = run_of(server)
    assert (run.info.status, epochs) == ("FINISHED", [0, 1, 2])


def test_a_server_that_stays_away_is_said_and_the_same_command_goes_on_later(tree, server):  # noqa: F811
    gone = train(tree, server, dies=True, MLFLOW_HTTP_REQUEST_MAX_RETRIES="1")
    assert gone.returncode == 1, gone.stderr
    (told,) = [line for line in gone.stderr.splitlines() if line.startswith("error: ")]
    assert told.startswith("error: train@p: the MLflow server of ") and "has gone" in told
    assert "Traceback" not in gone.stderr
    server.start()
    server.wait()
    before, epochs = run_of(server)
    assert (before.info.status, epochs) == ("RUNNING", [0])
    assert train(tree, server, dies=False).returncode == 0
    after, epochs = run_of(server)
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "FINISHED")
    assert epochs == [0, 1, 2]
