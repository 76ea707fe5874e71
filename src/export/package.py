"""A package of the BioImage Model Zoo, which ilastik, deepImageJ, BiaPy and napari open:
`unstained export MODEL OUT.zip`.

It holds what turns counts into live probabilities or predicted stain. The filter of empty windows,
the abstain band and the checks of the contract stay behind, and the package's documentation says
so.
"""

import json
import tempfile
import warnings
import zipfile
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from ..common.scoring.scorer import Scorer
from .frames import Exported, ExportError
from .stain import of_stain
from .windows import of_windows


def exported(scorer: Scorer) -> Exported:
    """A model for other programs, by its target. Raises ExportError if it cannot be."""
    return of_stain(scorer) if scorer.contract.get("target") == "stain" else of_windows(scorer)


def export(scorer: Scorer, facts: dict, out: Path) -> Path:
    """Writes the package, a zip file, valid for the format's own library; returns where.

    facts: what the assay knows of the model (name, version).
    Raises ExportError if OUT exists, if the model is of a kind that cannot be exported, or if the
    package does not give what the model gives.
    """
    from bioimageio.spec import save_bioimageio_package

    from .description import describe

    if out.exists():
        raise ExportError(f"{out} exists: give another name, or remove it")
    made = exported(scorer)
    frame = trial(made.least + 2 * made.step)
    expected = made.native(frame)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside OUT, which is there whole or not at all
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as scratch:
        folder = Path(scratch)
        # not by its own `save`, which ends the process on a full disk
        (folder / "weights.pt").write_bytes(made.module.save_to_buffer())
        np.save(folder / "frame.npy", frame[None, None].astype(np.float32))
        np.save(folder / f"{made.name}.npy", expected[None].astype(np.float32))
        (folder / "contract.json").write_text(json.dumps(scorer.contract, indent=2))
        about = facts | {"torch": version("torch").partition("+")[0]}
        model = describe(folder, scorer.contract, about, made)
        package = Path(save_bioimageio_package(model, output_path=folder / "package.zip"))
        worst = float(np.abs(run(package, frame) - expected).max())
        if not worst <= made.tolerance:  # as NaN is not
            raise ExportError(f"the exported model differs from {facts['name']} by {worst:g}")
        return package.replace(out)


def trial(side: int) -> np.ndarray:
    """A frame (side, side) uint16 of smooth and rough places, dark pixels and zeros among them."""
    rng = np.random.default_rng(0)
    slope = np.linspace(200, 3000, side)
    counts = rng.gamma(20.0, 0.05, (side, side)) * slope[:, None]
    counts[:3] = 0
    return counts.round().astype(np.uint16)


def run(package: Path, frame: np.ndarray) -> np.ndarray:
    """What a package's weights alone say of a frame (H, W): (C, h, w) float32."""
    with zipfile.ZipFile(package) as files:
        weights = BytesIO(files.read("weights.pt"))
    with warnings.catch_warnings(action="ignore"), torch.no_grad():  # as for frames.traced
        module = torch.jit.load(weights)
        return module(torch.from_numpy(frame[None, None].astype(np.float32)))[0].numpy()
