"""Where the shared set-up keeps its data, its ports, and its generated credentials."""

import json
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
BUCKETS = ("dvc", "mlflow")
USER = "team"  # the first MLflow user, who is no admin


class TeamError(ValueError):
    """The set-up cannot start as asked."""


@dataclass(frozen=True)
class Settings:
    """State folder and ports (TCP, loopback)."""

    directory: Path
    mlflow: int
    s3: int
    postgres: int

    @property
    def mlflow_url(self) -> str:
        return f"http://{HOST}:{self.mlflow}"

    @property
    def s3_url(self) -> str:
        return f"http://{HOST}:{self.s3}"


def load() -> Settings:
    """Settings from TEAM_DIR, TEAM_MLFLOW_PORT, TEAM_S3_PORT and TEAM_POSTGRES_PORT, or the
    defaults.
    """
    directory = Path(os.environ.get("TEAM_DIR") or HERE / "state").expanduser().resolve()
    ports = {"mlflow": 5050, "s3": 5060, "postgres": 5070}
    return Settings(
        directory,
        **{name: _port(f"TEAM_{name.upper()}_PORT", port) for name, port in ports.items()},
    )


def check_ports(settings: Settings) -> None:
    """Raises TeamError naming the first port that something else listens on."""
    for name in ("mlflow", "s3", "postgres"):
        port = getattr(settings, name)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise TeamError(
                    f"port {port} for {name} is taken ({error.strerror}): is the set-up running "
                    f"already? Else choose another: TEAM_{name.upper()}_PORT=NUMBER make team"
                ) from None


def credentials(directory: Path) -> dict[str, str]:
    """The generated secrets, made on first use; DIRECTORY/credentials.json is readable by its owner
    only.
    """
    path = directory / "credentials.json"
    if not path.exists():
        names = ("postgres", "mlflow_admin", "mlflow_session", "s3_server", "s3_client")
        private(
            path, json.dumps({name: secrets.token_urlsafe(24) for name in names}, indent=1) + "\n"
        )
    return json.loads(path.read_text())


def private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read; never readable by others in between, never half
    written.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


def _port(variable: str, default: int) -> int:
    value = os.environ.get(variable) or str(default)
    if not value.isdecimal() or not 0 < int(value) < 65536:
        raise TeamError(f"{variable}={value} is not a port number (1 to 65535)")
    return int(value)
