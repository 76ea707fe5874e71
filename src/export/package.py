"""A package of the BioImage Model Zoo, which ilastik, deepImageJ, BiaPy and napari open:
`unstained export MODEL OUT.zip`.

It holds what turns counts into live probabilities. The filter of empty windows, the abstain band
and the checks of the contract stay behind, and the package's documentation says so.
"""

import json
import tempfile
import zipfile
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from ..common.scoring.imaging import scaling_range, to_uint8
from ..common.scoring.inference import apply_to_windows
from ..common.scoring.operating import calibrate
from ..common.scoring.scorer import Scorer
from ..common.scoring.windows import windows
from .torchscript import ExportError, frame_map

TOLERANCE = 1e-4  # of a live probability, between the package and the model that it comes from


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
    module = frame_map(scorer)
    frame = trial(module.size + 2 * module.stride)
    expected = native(scorer, frame, module.size, module.stride)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        module.save(str(folder / "weights.pt"))
        np.save(folder / "frame.npy", frame[None, None].astype(np.float32))
        np.save(folder / "live_probability.npy", expected[None, None].astype(np.float32))
        (folder / "contract.json").write_text(json.dumps(scorer.contract, indent=2))
        torch_version = version("torch").partition("+")[0]
        about = facts | {"tolerance": TOLERANCE, "torch": torch_version}
        model = describe(folder, scorer.contract, about, module.size, module.stride)
        out.parent.mkdir(parents=True, exist_ok=True)
        written = Path(save_bioimageio_package(model, output_path=out))
    if (worst := float(np.abs(run(written, frame) - expected).max())) > TOLERANCE:
        written.unlink()
        raise ExportError(f"the exported model differs from {facts['name']} by {worst:g}")
    return written


def trial(side: int) -> np.ndarray:
    """A frame (side, side) uint16 of smooth and rough places, dark pixels and zeros among them."""
    rng = np.random.default_rng(0)
    slope = np.linspace(200, 3000, side)
    counts = rng.gamma(20.0, 0.05, (side, side)) * slope[:, None]
    counts[:3] = 0
    return counts.round().astype(np.uint16)


def native(scorer: Scorer, frame: np.ndarray, size: int, stride: int) -> np.ndarray:
    """Live probabilities (rows, columns) of a frame's windows, as the model computes them."""
    low, high = scaling_range(frame, **scorer.contract["scaling"])
    frame8 = to_uint8(frame, low, high)
    found = windows(*frame.shape, size, stride, "drop")
    crops = np.stack([frame8[w.y : w.y + size, w.x : w.x + size] for w in found])
    logits = apply_to_windows(scorer.net, scorer.net.forward, crops).astype(float)
    at = scorer.contract["operating"]
    live = calibrate(logits[:, 1] - logits[:, 0], at["temperature"], at.get("shift", 0.0))
    return live.reshape(-1, len({w.x for w in found}))


def run(package: Path, frame: np.ndarray) -> np.ndarray:
    """Live probabilities (rows, columns) of a frame (H, W) from a package's weights alone."""
    with zipfile.ZipFile(package) as files:
        module = torch.jit.load(BytesIO(files.read("weights.pt")))
    with torch.no_grad():
        return module(torch.from_numpy(frame[None, None].astype(np.float32)))[0, 0].numpy()
