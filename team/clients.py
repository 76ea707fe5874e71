"""Users of the shared set-up, each with a file to source: `make team-user WHO=anna` (the servers
must run).
"""

import secrets
import sys
from pathlib import Path

import requests

from team.settings import Settings, TeamError, credentials, load, private

CLIENT = """export MLFLOW_TRACKING_URI={mlflow}
export MLFLOW_TRACKING_USERNAME={name}
export MLFLOW_TRACKING_PASSWORD={password}
export TEAM_S3_URL={s3}
export TEAM_S3_CREDENTIALS={s3_credentials}
export MLFLOW_DISABLE_TELEMETRY=true
"""
S3 = "[default]\naws_access_key_id = client\naws_secret_access_key = {secret}\n"


def add_user(settings: Settings, name: str) -> Path:
    """Makes an MLflow user, or gives one whose file is lost a new password; returns the file to
    source.
    """
    if not name.isidentifier():
        raise TeamError(
            f"WHO={name or '(missing)'}: a user's name is letters, digits and underscores, "
            "as in WHO=anna"
        )
    folder = settings.directory / "clients"
    folder.mkdir(exist_ok=True, mode=0o700)
    client, s3 = folder / f"{name}.env", folder / f"{name}.s3"
    password = _known_password(client) or _new_password(settings, name)
    private(s3, S3.format(secret=credentials(settings.directory)["s3_client"]))
    filled = {"mlflow": settings.mlflow_url, "s3": settings.s3_url, "s3_credentials": s3}
    private(client, CLIENT.format(name=name, password=password, **filled))
    return client


def _known_password(client: Path) -> str | None:
    lines = client.read_text().splitlines() if client.exists() else []
    return next((line.split("=", 1)[1] for line in lines if "_PASSWORD=" in line), None)


def _new_password(settings: Settings, name: str) -> str:
    admin = "admin", credentials(settings.directory)["mlflow_admin"]
    api, password = f"{settings.mlflow_url}/api/2.0/mlflow/users", secrets.token_urlsafe(18)
    body = {"username": name, "password": password}
    try:
        exists = requests.get(f"{api}/get", params={"username": name}, auth=admin, timeout=30).ok
        change = requests.patch if exists else requests.post
        done = change(
            f"{api}/{'update-password' if exists else 'create'}", json=body, auth=admin, timeout=30
        )
    except requests.RequestException:
        raise TeamError(
            f"MLflow does not answer at {settings.mlflow_url}: start it with `make team`"
        ) from None
    if not done.ok:
        raise TeamError(f"MLflow made no user {name}: {done.status_code} {done.text.strip()[:300]}")
    return password


if __name__ == "__main__":
    try:
        print(f". {add_user(load(), sys.argv[1] if len(sys.argv) > 1 else '')}")
    except TeamError as error:
        sys.exit(f"error: {error}")
