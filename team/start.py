"""Starts the shared set-up on loopback and keeps it running until Ctrl-C: `make team`.

First use makes the state folder: credentials, database, buckets. Later starts find everything as it
was left.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import requests

from team import postgres
from team.clients import add_user
from team.settings import (
    BUCKETS,
    HERE,
    HOST,
    USER,
    Settings,
    TeamError,
    check_ports,
    credentials,
    load,
    private,
)

AUTH = """[mlflow]
; what a user may do with an experiment or model of others: READ, EDIT, MANAGE or NO_PERMISSIONS
default_permission = EDIT
database_uri = {database}_auth
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
; a changed password or a removed user counts after this time at the latest
auth_cache_ttl_seconds = 60
"""


def prepare(settings: Settings) -> dict[str, str]:
    """Makes what the state folder lacks; returns the environment of the servers."""
    directory = settings.directory
    directory.mkdir(parents=True, exist_ok=True)
    # PostgreSQL's own user must pass through
    directory.chmod(0o711 if postgres.account() else 0o700)
    for bucket in BUCKETS:
        (directory / "s3" / bucket).mkdir(parents=True, exist_ok=True, mode=0o700)
    (directory / "s3").chmod(0o700)
    known = credentials(directory)
    postgres.prepare(settings)
    private(directory / "basic_auth.ini", AUTH.format(database=database(settings, known)))
    return environment(settings, known)


def database(settings: Settings, known: dict[str, str]) -> str:
    """URI of MLflow's database, with the psycopg 3 driver."""
    return f"postgresql+psycopg://mlflow:{known['postgres']}@{HOST}:{settings.postgres}/mlflow"


def environment(settings: Settings, known: dict[str, str]) -> dict[str, str]:
    """Variables of the servers: secrets go by environment, never by command line, where every user
    could read them.
    """
    inherited = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("MLFLOW_", "AWS_", "RCLONE_", "TEAM_", "DVC_"))
    }
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), str(postgres.binaries()), inherited.get("PATH", "")]
    )
    keys = ",".join(f'"{name},{known[f"s3_{name}"]}"' for name in ("server", "client"))
    return inherited | {
        "PATH": path,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE.parent), os.getenv("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "TEAM_DIR": str(settings.directory),
        "TEAM_MLFLOW_PORT": str(settings.mlflow),
        "TEAM_S3_PORT": str(settings.s3),
        "TEAM_POSTGRES_PORT": str(settings.postgres),
        "RCLONE_AUTH_KEY": keys,
        "AWS_ACCESS_KEY_ID": "server",
        "AWS_SECRET_ACCESS_KEY": known["s3_server"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_S3_ENDPOINT_URL": settings.s3_url,
        "MLFLOW_BACKEND_STORE_URI": database(settings, known),
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow",
        "MLFLOW_AUTH_CONFIG_PATH": str(settings.directory / "basic_auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": known["mlflow_admin"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": known["mlflow_session"],
        "MLFLOW_HOST": HOST,
        "MLFLOW_PORT": str(settings.mlflow),
        "MLFLOW_WORKERS": "1",
        "MLFLOW_UVICORN_OPTS": "--log-level warning",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def wait_until_ready(settings: Settings, servers: subprocess.Popen, seconds: float = 180) -> None:
    """Returns when MLflow and S3 answer. Raises TeamError if they end or do not answer in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and servers.poll() is None:
        try:
            requests.get(settings.s3_url, timeout=2)  # refuses us without a key, but answers
            if requests.get(f"{settings.mlflow_url}/health", timeout=2).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.3)
    raise TeamError("the servers did not come up: their messages above say why")


def main() -> int:
    """Prepares, starts, says how to connect, and waits; Ctrl-C, SIGTERM and a closed terminal end
    all servers.
    """
    settings = load()
    check_ports(settings)
    env = prepare(settings)
    honcho = [sys.executable, "-m", "honcho", "-f", str(HERE / "Procfile"), "-e", os.devnull]
    servers = subprocess.Popen([*honcho, "start"], env=env, cwd=HERE.parent, start_new_session=True)
    stopped = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: (stopped.append(True), servers.terminate()))
    try:
        wait_until_ready(settings, servers)
        client = add_user(settings, USER)
        print(f"ready: MLflow {settings.mlflow_url}, S3 {settings.s3_url}; Ctrl-C ends both")
        print(f"to connect: . {client}", flush=True)
    except TeamError:
        servers.terminate()
        if not stopped:
            raise
    finally:
        code = servers.wait()
        if stopped:
            postgres.wait_until_closed(settings)
    return 0 if stopped else code or 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TeamError as error:
        sys.exit(f"error: {error}")
