"""A trained model as an MLflow model that stands alone: weights, filter, contract and the code that
scores.

Models-from-code with safetensors: nothing is pickled. The code ships as a package named by its own
digest, so that two versions with different code can be loaded in one process, and a project with
its own `src` is not disturbed.
"""

import hashlib
import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import AnyType, ColSpec, Schema

from .. import scoring
from ..scoring.networks.backbones import facts
from ..scoring.novelty import BANK_FILE, RANGE
from ..scoring.operating import Operating
from ..tracking.quiet import unwarned
from ..workspace.errors import UserError
from ..workspace.paths import LABELS, METRICS, MODELS, PATCHES
from ..workspace.records import read_json, write_json
from ..workspace.sections import Tile

SCORING_CODE = Path(scoring.__file__).parent  # ships as it is
# A frame half as dark or bright again as any in training is taken as it is
INTENSITY_TOLERANCE = 0.5
# A frame with more of its windows with cells unlike the training data is flagged
UNLIKE_SHARE = 0.15
REQUIREMENTS = (
    "imagecodecs", "mlflow", "numpy", "opencv-python-headless", "pandas", "safetensors", "tifffile",
    "torch", "torchvision", "tqdm",
)  # fmt: skip
SIGNATURE = ModelSignature(
    inputs=Schema([
        ColSpec(AnyType(), "image"),
        ColSpec("double", "pixel_size_um", required=False),
        ColSpec("string", "image_id", required=False),
    ]),
    outputs=Schema([
        ColSpec("string", "image_id"), ColSpec("long", "y"), ColSpec("long", "x"),
        ColSpec("long", "size"), ColSpec("string", "verdict"),
        ColSpec("double", "live_probability"), ColSpec("double", "novelty"),
        ColSpec("string", "call"),
    ]),
)  # fmt: skip


class StaleModel(UserError):
    """The outputs of training are of older code; the message says how to renew them."""


def contract(partition: str, tile: Tile) -> dict:
    """What a frame must be for this model, how it is cut, scaled and called, and what the model was
    trained on.
    """
    model = read_json(MODELS / partition / "model.json")
    record = read_json(METRICS / "evaluate" / f"{partition}.json")
    frames = pd.read_parquet(PATCHES / "frames.parquet").query("partition == @partition")
    known = frames["pixel_size_um"].dropna()
    seen = training_range(partition)
    return {
        "partition": partition,
        "target": model["target"],
        "arch": model["arch"],
        "pooling": model["pooling"],
        "stain": model.get("stain"),
        "classes": model["classes"],
        "synthetic": model["synthetic"],
        "source": model["source"],
        "pixel_size_um": float(known.median()) if len(known) else None,
        "bits": sorted(frames["brightfield_bits"].unique().tolist()),
        "tile": {"window": tile.window, "stride": tile.stride, "unit": tile.unit, "edge": "anchor"},
        "scaling": tile.scaling.model_dump(),
        "intensity": intensity(seen, tile),
        "least_sharpness": seen["least_sharpness"],
        "novelty": seen["novelty"],
        "unlike_share": UNLIKE_SHARE,
        "operating": operating(record),
        "nuclei": (record.get("nuclei") or {}).get("model"),
        "label": read_json(LABELS / "thresholds.json"),
        "weights": model["weights"],
        "patches": model["patches"],
        "scheme": model["scheme"],
        "digest": model["digest"],
        "training_images": seen["images"],
        "versions": {name: version(name) for name in requirements(model["arch"], model["target"])},
    }


def training_range(partition: str) -> dict:
    """What training_range.py noted of the training data.

    Raises StaleModel for a model that older code trained.
    """
    path = MODELS / partition / RANGE
    seen = read_json(path) if path.exists() else {}
    if lacking := sorted({"novelty", "least_sharpness", "low", "high", "images"} - seen.keys()):
        raise StaleModel(
            f"{path} lacks {', '.join(lacking)}: train again with `dvc repro -f -s "
            f"train@{partition}`"
        )
    return seen


def intensity(seen: dict, tile: Tile) -> dict | None:
    """Between which counts the darkest and brightest of training frames lay; None where fixed
    counts scale them all.
    """
    if tile.scaling.method == "fixed":
        return None
    return {"low": seen["low"], "high": seen["high"], "tolerance": INTENSITY_TOLERANCE}


def operating(record: dict) -> dict[str, float]:
    """Temperature, threshold and abstain band of an evaluation record."""
    at = Operating(
        record["calibration"]["temperature"], record["threshold"]["value"],
        record["conformal"]["live_from"], record["conformal"]["dead_to"],
        record["calibration"]["shift"],
    )  # fmt: skip
    return vars(at)


def requirements(arch: str, target: str) -> list[str]:
    """Names of the packages that scoring needs."""
    filter_arch = read_json(MODELS / "filter" / "filter.json")["arch"]
    timm = any(facts(name).library == "timm" for name in (arch, filter_arch))
    decoder = ["segmentation_models_pytorch"] if target == "stain" else []
    return [*REQUIREMENTS, *(["timm"] if timm else []), *decoder]


def assemble(partition: str, tile: Tile, directory: Path) -> str:
    """Writes scorer/ (contract, net, filter, novelty) and the code package to DIRECTORY; returns
    the package's digest.

    The filter's backbone is there also where rules filter: its features tell what is unlike the
    training data.
    """
    scorer = directory / "scorer"
    # Not the files' modes: safetensors lets their owner alone read what it writes
    take = shutil.copyfile
    shutil.copytree(MODELS / "filter", scorer / "filter", copy_function=take)
    take(
        MODELS / "weights" / "filter" / "model.safetensors", scorer / "filter" / "model.safetensors"
    )
    (scorer / "net").mkdir()
    take(MODELS / partition / "model.safetensors", scorer / "net" / "model.safetensors")
    take(MODELS / partition / BANK_FILE, scorer / BANK_FILE)
    write_json(scorer / "contract.json", contract(partition, tile))
    add_code(directory)
    return digest_of(directory)


def digest_of(directory: Path) -> str:
    """The digest of an assembled model: of all its files and their names."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    named = ((p.relative_to(directory).as_posix(), p.read_bytes()) for p in files)
    return _digest("".join(_digest(content) + name for name, content in named).encode())


def add_code(directory: Path) -> Path:
    """Writes the package of code that scores, and model.py beside it, which loads it; returns the
    package's folder.
    """
    files = sorted(SCORING_CODE.rglob("*.py"))
    sources = {path.relative_to(SCORING_CODE).as_posix(): path.read_text() for path in files}
    package = directory / f"unstained_{_digest(json.dumps(sources).encode())[:12]}"
    for name, text in sources.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    entry = [
        "from mlflow.models import set_model",
        f"from {package.name}.pyfunc import LiveDeadModel",
    ]
    (directory / "model.py").write_text("\n\n".join([*entry, "set_model(LiveDeadModel())\n"]))
    return package


def log_model(directory: Path, model: dict, metadata: dict, run_id: str) -> str:
    """Logs an assembled model into a run; returns its URI. model: its model.json."""
    needed = requirements(model["arch"], model["target"])
    pinned = [f"{name}=={version(name)}" for name in needed]
    return log_package(directory, pinned, metadata, run_id)


def log_package(directory: Path, pinned: list[str], metadata: dict, run_id: str) -> str:
    """Logs the folder of an assembled model with its pinned requirements into a run, which may have
    ended and keeps its status and times; returns the model's URI.

    By `Model.log`, which takes a run's id where `pyfunc.log_model` wants the run active: a kill
    while it is would leave it RUNNING.
    """
    code = next(path for path in directory.iterdir() if path.name.startswith("unstained_"))
    # MLflow imports model.py, which imports the package beside it
    sys.path.insert(0, str(directory))
    with unwarned():  # it wants an example of the input, for what the signature says already
        try:
            info = Model.log(
                None, mlflow.pyfunc, run_id=run_id, flavor_name="pyfunc.ModelFromCode",
                name="model", python_model=str(directory / "model.py"), code_paths=[str(code)],
                artifacts={"scorer": str(directory / "scorer")}, signature=SIGNATURE,
                metadata=metadata, pip_requirements=pinned,
            )  # fmt: skip
        finally:
            sys.path.remove(str(directory))
        # A model that cannot be loaded must never get a version
        mlflow.pyfunc.load_model(info.model_uri)
    return info.model_uri


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
