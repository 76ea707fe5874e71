"""A registered model as the assay uses it: loaded by MLflow from any URI, with the facts that its
results carry.
"""

import ctypes
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from ..common.scoring.frames.windows import in_pixels
from ..common.scoring.networks.inference import WORTH_FRAMES
from ..common.scoring.scorer import Scorer
from ..common.tracking import server
from ..common.tracking.quiet import unwarned
from ..common.tracking.relocate import use_store
from ..common.workspace.errors import ServerError, UserError
from ..common.workspace.paths import MLRUNS
from . import heldout

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


class ModelError(UserError):
    """The model cannot be had or must not be used here; the message says why and what to do."""


@dataclass(frozen=True)
class Model:
    """A loaded model: its contract, what is known of it (see `facts`), and `predict`.

    many: whether so many images are asked for that compiling its networks pays.
    """

    pyfunc: "mlflow.pyfunc.PyFuncModel"
    contract: dict
    facts: dict
    version: "ModelVersion | None" = None  # of the registry, where it was named so
    many: bool = False

    def predict(self, frame: np.ndarray, pixel_size_um: float | None) -> pd.DataFrame:
        """One row per window of a frame (H, W): y, x, size, verdict, live_probability, novelty,
        call.
        """
        self._ready()
        row = {"image": frame, "pixel_size_um": np.nan if pixel_size_um is None else pixel_size_um}
        table = self.pyfunc.predict(pd.DataFrame([row])).drop(columns="image_id")
        give_back()
        return table if "novelty" in table else table.assign(novelty=np.nan)

    def __reduce__(self) -> tuple:
        """A copy for another process is loaded there, by what never moves: no alias, no relative
        path.
        """
        uri, digest = self.facts["uri"], self.facts["digest"]
        if self.version:
            uri = f"models:/{self.version.name}/{self.version.version}"
        elif Path(uri).exists():
            uri = str(Path(uri).absolute())
        return _again, (uri, digest, self.many)

    @property
    def predicts_stain(self) -> bool:
        """Whether it predicts PI, from which nuclei and cells are read."""
        return self.contract.get("target") == "stain"

    def stain(self, frame: np.ndarray, pixel_size_um: float | None) -> np.ndarray:
        """Predicted PI over background (1 is none) of a frame (H, W): (H, W) float32."""
        return self._ready().stain(frame, pixel_size_um)[0]

    def probability_of(self, pi: np.ndarray, shape: np.ndarray) -> np.ndarray:
        """Live probability (n,) of cells from their mean predicted PI over background (n,) and, if
        it learnt from masks of nuclei, their size and shape (n, 3) as in scoring/nuclei.py."""
        if self.contract.get("nuclei"):
            return self._ready().nuclei_probability(pi, shape)
        return self._ready().probability_of(pi)

    def for_images(self, count: int) -> "Model":
        """The same for a number of images: from some on, compiling its networks pays."""
        return replace(self, many=count >= WORTH_FRAMES)

    def _ready(self) -> Scorer:
        """What scores, compiled where many images come."""
        held = self.pyfunc.unwrap_python_model()
        can = hasattr(held.scorer, "compiled")  # an older package's cannot
        if self.many and can and not getattr(held, "compiled", False):
            held.scorer, held.compiled = held.scorer.compiled(), True
        return held.scorer

    def stride(self, pixel_size_um: float | None) -> int:
        """The distance of neighbouring windows in pixels."""
        tile = self.contract["tile"]
        return in_pixels(tile["stride"], tile["unit"], pixel_size_um)

    def check(self, frame: np.ndarray, pixel_size_um: float | None) -> None:
        """Raises RefusedFrame if the contract does not allow the frame; nothing is computed."""
        Scorer(self.contract, None, None).check(frame, pixel_size_um)


def give_back() -> None:
    """Returns freed memory to the system: glibc keeps it where a table that stays lies above it,
    which came to 4 MB an image.
    """
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's alone
        trim(0)


def load(uri: str, allow_synthetic: bool = False) -> Model:
    """The model behind a URI: models:/NAME@ALIAS, models:/NAME/VERSION, runs:/..., or a folder.

    Registered models are looked for where MLFLOW_TRACKING_URI says, else in the repository's own
    store. Raises ModelError, also for a model trained on synthetic images unless that is allowed,
    and ServerError at once if the server that MLFLOW_TRACKING_URI names does not answer.
    """
    use_store(MLRUNS)
    reachable = _ask_server(uri)
    try:
        with unwarned():
            loaded = mlflow.pyfunc.load_model(uri)
        version = registered(mlflow.MlflowClient(), uri) if uri.startswith("models:/") else None
    except Exception as error:  # of MLflow, or of the client of any store that a URI names
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{uri} cannot be loaded: {said.rstrip('.')}. {_known(uri)}") from None
    contract = _contract(uri, loaded)
    if contract["synthetic"] and not allow_synthetic:
        raise ModelError(
            f"{uri} was trained on SYNTHETIC images: its calls on real cells mean nothing. Train "
            "it on images of your own (README: your own images), "
            "or give --allow-synthetic to try the machinery"
        )
    return Model(loaded, contract, facts(uri, loaded, contract, version, reachable), version)


@cache
def _again(uri: str, digest: str, many: bool) -> Model:
    """The model that another process works with. Raises ModelError if it is another one here."""
    model = load(uri, allow_synthetic=True)  # whether it may be used was decided there
    if model.facts["digest"] != digest:
        raise ModelError(f"{uri} is another model on a worker: is MLFLOW_TRACKING_URI set there?")
    return replace(model, many=many)


def _ask_server(uri: str) -> bool:
    """Whether the tracking store can be asked.

    Raises ServerError where the model itself lies there and it cannot.
    """
    try:
        for place in {mlflow.get_tracking_uri(), mlflow.get_registry_uri()}:
            server.require_store(place)
    except ServerError:
        if uri.startswith(("models:", "runs:", "mlflow-artifacts:")):
            raise
        return False
    return True


def facts(
    uri: str,
    loaded: "mlflow.pyfunc.PyFuncModel",
    contract: dict,
    version: "ModelVersion | None",
    reachable: bool = True,
) -> dict:
    """What results carry of the model they came from; None where it is not known.

    digest: of the whole package (weights, filter, contract, code), so of all that results depend
    on. heldout: how it called its own test (see heldout.summary), from the run that trained it,
    before it was `adapted` if it was (what on, and how that was called; see adapt.adapt).
    """
    tags = version.tags if version else {}
    run_id = (version.run_id if version else loaded.metadata.run_id) if reachable else None
    names = ["partition", "synthetic", "arch", "scheme", "source", "pixel_size_um", "adapted"]
    return {name: contract.get(name) for name in [*names, "nuclei"]} | {
        "uri": uri,
        "name": version.name if version else None,
        "version": str(version.version) if version else None,
        "alias": uri.partition("@")[2] or None,
        "digest": (loaded.metadata.metadata or {}).get("digest") or contract["digest"],
        "network_digest": contract["digest"],
        "run_id": run_id,
        "balanced_accuracy": number(tags.get("balanced_accuracy")),
        "auc": number(tags.get("auc")),
        "heldout": heldout.summary(run_id),
        "novelty": "novelty" in contract,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def registered(client: mlflow.MlflowClient, uri: str) -> "ModelVersion | None":
    """The registry's version that a URI names by alias, number or `latest`; None for others."""
    match = re.fullmatch(r"models:/([^/@]+)(?:@(.+)|/(\d+|latest))", uri)
    if not match:
        return None
    name, alias, version = match.groups()
    if alias:
        return client.get_model_version_by_alias(name, alias)
    if version == "latest":
        return max(client.search_model_versions(f"name='{name}'"), key=lambda v: int(v.version))
    return client.get_model_version(name, version)


def number(text: str | None) -> float | None:
    """A number from a tag; None where there is none."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if np.isfinite(value) else None


def _contract(uri: str, loaded: "mlflow.pyfunc.PyFuncModel") -> dict:
    try:
        return loaded.unwrap_python_model().scorer.contract
    except (MlflowException, AttributeError):
        raise ModelError(
            f"{uri} is not a model that `unstained` registered: it carries no contract"
        ) from None


def _known(uri: str) -> str:
    """What can be given, and what the registry holds, in words."""
    forms = "Give models:/NAME@champion, models:/NAME/VERSION, or the folder of a saved model"
    if not uri.startswith("models:"):
        return forms
    try:
        names = sorted(one.name for one in mlflow.MlflowClient().search_registered_models())
    except MlflowException:
        names = []
    held = f"{mlflow.get_tracking_uri()} holds {', '.join(names) or 'no registered model'}"
    return f"{forms}; {held}. Set MLFLOW_TRACKING_URI if the model is registered elsewhere"
