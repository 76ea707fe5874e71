"""Stages without their imports: one process makes them all, and is forked for each stage.

Twenty stages import torch, MLflow and scikit-learn again and again, for a fifth of the default
run's time. `unstained repro` keeps such a process (`warmed`), src/run leads a stage's command here,
and what is forked does as `python -m src.stages` does, with the command's own environment, input
and output. A stage that begins before the imports are made makes its own.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from .common.workspace.paths import WORKSPACE

PLACE = "UNSTAINED_WARM"  # the socket's path
# What stages import late
LATE = ("timm", "src.common.check.expectations", "mlflow.store.tracking.sqlalchemy_store")


@contextmanager
def warmed(env: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """An environment in which stages have their imports made, once those are; the process that
    makes them ends with the context. env: of the stages.
    """
    with tempfile.TemporaryDirectory() as folder:
        env = {**env, PLACE: str(Path(folder) / "stages")}
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        server = subprocess.Popen(["sh", "src/run"], cwd=WORKSPACE, env=env, **quiet)
        try:
            yield env
        finally:
            server.terminate()
            server.wait()


def main() -> None:
    """Without arguments makes the imports and waits for stages; with those of a stage, runs it."""
    place, command = Path(os.environ[PLACE]), sys.argv[1:]
    if not command:
        serve(place, os.getppid())
    elif place.exists():
        sys.exit(hand_over(place, command))
    else:
        from .stages.__main__ import main as stage

        stage()


def hand_over(place: Path, command: list[str]) -> int:
    """Has a stage run by a fork; returns its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the fork has it as well, and says so
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(place))
        told = json.dumps([command, os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(connection, [len(told).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(told)
        code = connection.recv(1)
        connection.recv(1)  # nothing, when the fork has ended
    if not code:
        print("error: the stage's process was killed, as the system does when memory runs out",
              file=sys.stderr)  # fmt: skip
    return code[0] if code else 1


def serve(place: Path, parent: int) -> None:
    """Makes the imports, then forks a process for each stage, as long as its parent lives."""
    from .stages.__main__ import imported

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whose end nobody asks for
    for path in sorted((WORKSPACE / "src" / "stages").glob("[!_]*.py")):
        imported(path.stem)
    for name in LATE:
        import_module(name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{place}.part")
        listener.listen()
        listener.settimeout(1)
        Path(f"{place}.part").rename(place)  # from here on it answers
        while os.getppid() == parent:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            if not os.fork():
                listener.close()
                _stage(connection)
            connection.close()


def _stage(connection: socket.socket) -> NoReturn:
    """In the fork: the stage that the other end asks for."""
    from .stages import __main__ as stages

    connection.setblocking(True)
    size, files, *_ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as told:
        command, cwd, env = json.loads(told.read(int.from_bytes(size, "big")))
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[1:] = command
    sys.modules["__main__"] = stages  # what processes of joblib and of Lightning begin with
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    code = 1
    try:
        stages.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    finally:
        connection.sendall(bytes([code]))
    sys.exit()


def _end_with(connection: socket.socket) -> None:
    """Ends the stage, as SIGTERM does, when the command that asked for it is gone."""
    connection.recv(1)  # nothing
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
