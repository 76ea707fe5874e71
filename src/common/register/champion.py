"""The champion's answers on the candidate's test split: as it saved them, or scored anew where that
is fair.
"""

import tempfile
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from ..metrics.paired import PAIRED, Incomparable, compare, pair, side
from ..patches.store import PatchStore
from ..scoring.operating import calibrate, called_live
from ..scoring.reading.pixel_size import PIXEL_SIZE_TOLERANCE
from ..workspace.paths import PATCHES, REPORTS
from ..workspace.records import read_json
from ..workspace.sections import Register, Tile


def compare_with(
    champion: ModelVersion, partition: str, record: dict, tile: Tile, rule: Register
) -> dict:
    """The paired numbers of candidate and champion on the candidate's test split, and `how` the
    champion's were had. record: the candidate's evaluation.

    Raises Incomparable.
    """
    predictions = pd.read_parquet(REPORTS / "evaluate" / partition / "predictions.parquet")
    theirs, how = answers(champion, predictions, record["data"]["digest"], tile)
    return compare(pair(side(predictions, record), theirs), rule) | {"how": how}


def answers(
    champion: ModelVersion, predictions: pd.DataFrame, digest: str, tile: Tile
) -> tuple[pd.DataFrame, str]:
    """The champion's rows (PAIRED) for the candidate's test patches, and how they came about.

    predictions: the candidate's predictions.parquet; digest: of its test split. Raises Incomparable
    where the champion can give no fair answer.
    """
    saved = saved_answers(champion, digest)
    if saved is not None:
        return saved, "both as saved on the same test split"
    with tempfile.TemporaryDirectory() as folder:
        try:
            uri = f"models:/{champion.name}/{champion.version}"
            package = mlflow.artifacts.download_artifacts(uri, dst_path=folder)
        except (MlflowException, OSError) as error:
            raise Incomparable(f"the champion's package cannot be read ({error})") from None
        scorer = next((path.parent for path in Path(package).rglob("contract.json")), None)
        if scorer is None:
            raise Incomparable("the champion is no model of this project: it has no contract")
        contract = read_json(scorer / "contract.json")
        test, store = predictions[predictions["split"] == "test"], PatchStore(PATCHES)
        check_fair(contract, store.frames.loc[test["image_id"].unique()], tile)
        how = "the champion scored anew on the candidate's test split"
        return scored_anew(scorer, contract, test, store), how


def saved_answers(champion: ModelVersion, test_digest: str) -> pd.DataFrame | None:
    """The champion's own saved test predictions, if they are of that test split; None if not, or
    not at hand.
    """
    try:
        record = mlflow.artifacts.load_dict(f"runs:/{champion.run_id}/evaluate/record.json")
        if record["data"]["digest"] != test_digest:
            return None
        with tempfile.TemporaryDirectory() as folder:
            uri = f"runs:/{champion.run_id}/evaluate/predictions.parquet"
            file = mlflow.artifacts.download_artifacts(uri, dst_path=folder)
            return side(pd.read_parquet(file), record)
    except (MlflowException, OSError, KeyError):  # the last of records of other versions
        return None


def check_fair(contract: dict, frames: pd.DataFrame, tile: Tile) -> None:
    """Raises Incomparable unless the champion never saw these frames in training and they fit its
    contract.

    frames: rows of data/patches/frames.parquet of the candidate's test split.
    """
    if not contract.get("training_images") or "pooling" not in contract:
        raise Incomparable(
            "the champion was tested on other patches, and its contract does not list its training "
            "images, or not how its network is built"
        )
    if seen := sorted(set(contract["training_images"]) & set(frames["brightfield_sha256"])):
        raise Incomparable(
            f"the champion was tested on other patches, and trained on {len(seen)} of the "
            f"{len(frames)} images of this test split"
        )
    own, here = contract["tile"], tile.model_dump()
    if differing := [
        f"{name} {own[name]} against {here[name]}"
        for name in ("window", "unit")
        if own[name] != here[name]
    ]:
        raise Incomparable(f"the champion was trained on other windows: {', '.join(differing)}")
    if contract["scaling"] != here["scaling"]:
        raise Incomparable(
            f"the champion scales 16 to 8 bit as {contract['scaling']}, this data as "
            f"{here['scaling']}"
        )
    size, known = contract["pixel_size_um"], frames["pixel_size_um"].dropna()
    if size and len(known) and abs(known.median() / size - 1) > PIXEL_SIZE_TOLERANCE:
        raise Incomparable(
            f"the champion was trained at {size} um per pixel, this data has {known.median()}"
        )


def scored_anew(
    scorer: Path, contract: dict, test: pd.DataFrame, store: PatchStore
) -> pd.DataFrame:
    """The champion's network on the test patches, under its own temperature and threshold."""
    from ..scoring.networks.inference import live_logits, load_model  # slow: brings torch

    net = load_model(scorer / "net", contract)
    logits = live_logits(net, store, test, "register: the champion on this test split")
    at = contract["operating"]
    probability = calibrate(logits, at["temperature"], at["shift"])
    called = called_live(probability, at["threshold"])
    live = test["label"] == "live"
    return test.assign(live=live, probability=probability, called=called)[PAIRED]
