"""The PostgreSQL of the shared set-up: finds the binaries, makes the databases on first use, runs
the server.

PostgreSQL refuses to run as root; then it runs as the user `postgres` of its package (else
`nobody`).
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from team.settings import HOST, Settings, TeamError, credentials, load

# Only MLflow's role may come in, with its password, to its own databases; the superuser not at all
ACCESS = "".join(
    f"host {name} mlflow {HOST}/32 scram-sha-256\n" for name in ("mlflow", "mlflow_auth")
)


def binaries() -> Path:
    """The folder of `initdb` and `postgres`: from PATH, pg_config or Debian's place.

    Raises TeamError if there is none.
    """
    places = [
        Path(found).resolve().parent
        for name in ("initdb", "postgres")
        if (found := shutil.which(name))
    ]
    if config := shutil.which("pg_config"):
        printed = subprocess.run(
            [config, "--bindir"], capture_output=True, text=True, check=False
        ).stdout
        places.append(Path(printed.strip()))
    versions = [
        path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdecimal()
    ]
    places += sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
    for place in places:
        if all((place / name).exists() for name in ("initdb", "postgres", "pg_isready")):
            return place
    raise TeamError(
        "PostgreSQL is not installed: `apt-get install postgresql` (Debian, Ubuntu), then again"
    )


def account() -> str | None:
    """The user that runs PostgreSQL if we are root, else None (ourselves)."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    if found := next((name for name in ("postgres", "nobody") if name in names), None):
        return found
    raise TeamError(
        "PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody: "
        "use another user"
    )


def call(command: list[str | Path], text: str = "") -> None:
    """Runs a PostgreSQL program as its user, with TEXT on its input.

    Raises TeamError with its message if it fails.
    """
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, **_as_user()
    )
    if done.returncode:
        raise TeamError(
            f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[-1500:]}"
        )


def prepare(settings: Settings) -> None:
    """Makes the cluster with MLflow's role and databases, if there is none; a first start cut short
    leaves none.
    """
    target, new = settings.directory / "postgres", settings.directory / "postgres.new"
    if target.exists():
        return
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    if user := account():
        shutil.chown(new, user)
    try:
        call(["test", "-x", new])
    except TeamError:
        raise TeamError(
            f"user {user}, who runs PostgreSQL for root, cannot enter {settings.directory}: "
            "a folder above it is closed to others. Set TEAM_DIR to a folder elsewhere, "
            "or do not run as root"
        ) from None
    tools = binaries()
    options = ["--encoding=UTF8", "--locale=C", "--auth=reject"]
    call([tools / "initdb", "-D", new, "-U", "postgres", *options])
    # URL-safe characters: no quote to escape
    password = credentials(settings.directory)["postgres"]
    statements = [f"CREATE ROLE mlflow LOGIN PASSWORD '{password}'"]
    statements += [f"CREATE DATABASE {name} OWNER mlflow" for name in ("mlflow", "mlflow_auth")]
    call([tools / "postgres", "--single", "-D", new, "postgres"], "\n".join(statements) + "\n")
    (new / "pg_hba.conf").write_text(ACCESS)
    new.rename(target)


def serve(settings: Settings) -> int:
    """Runs the server until it ends; SIGTERM and SIGINT close it at once but cleanly. Returns its
    exit code.
    """
    options = {"port": settings.postgres, "listen_addresses": HOST, "unix_socket_directories": ""}
    command = [binaries() / "postgres", "-D", settings.directory / "postgres"]
    command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    server = subprocess.Popen(command, start_new_session=True, **_as_user())
    # By itself, SIGTERM would have PostgreSQL wait for its clients
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.send_signal(signal.SIGINT))
    return server.wait()


def wait_until_closed(settings: Settings, seconds: float = 60) -> None:
    """Returns when the server has written everything and ended; a busy disk can take longer than
    honcho waits.
    """
    end = time.monotonic() + seconds
    while (settings.directory / "postgres" / "postmaster.pid").exists() and time.monotonic() < end:
        time.sleep(0.1)


def _as_user() -> dict:
    """Keywords of subprocess: the user, and an environment without our secrets."""
    user = account()
    keep = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    return {"env": keep, "cwd": "/"} | (
        {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
    )


if __name__ == "__main__":
    sys.exit(serve(load()))
