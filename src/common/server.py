"""Is the shared MLflow server there, and does it let us in? Asked first, since MLflow itself retries for minutes."""

from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

USER_VARIABLES = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"


class ServerError(SystemExit, ValueError):
    """The MLflow server does not answer, or does not let us in.

    Any stage may meet it, so where nobody catches it as a ValueError it ends the process with its message alone.
    """


def check(uri: str) -> None:
    """Nothing for a store that is no server. Raises ServerError if URI does not answer or refuses the user."""
    if not uri.startswith(("http://", "https://")):
        return
    creds = get_default_host_creds(uri)
    try:
        answer = http_request(
            creds, "/api/2.0/mlflow/experiments/search", "GET", params={"max_results": 1},
            max_retries=0, raise_on_status=False, timeout=30,
        )  # fmt: skip
    except MlflowException:
        raise ServerError(
            f"the MLflow server of MLFLOW_TRACKING_URI={uri} does not answer: is it running, and the address right? "
            "Unset MLFLOW_TRACKING_URI to work with the local store (`unstained sync` brings it to the server later)"
        ) from None
    if answer.status_code == 401:
        raise ServerError(
            f"the MLflow server {uri} refuses user '{creds.username or ''}': check {USER_VARIABLES} (docs/team.md)"
        )
    if not answer.ok:
        raise ServerError(f"the MLflow server {uri} answers {answer.status_code}: {answer.text.strip()[:300]}")
