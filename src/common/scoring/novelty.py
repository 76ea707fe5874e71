"""How unlike the training data a window is, and when a whole frame is flagged for it.

Distance to the k-th nearest of a bank of training windows, between features of unit length (Sun et
al. 2022, "Out-of-distribution detection with deep nearest neighbors"), over the limit that training
windows themselves keep. The features are those of the filter's frozen backbone: a fine-tuned
network maps whatever it sees onto the few directions that tell live from dead, and finds nothing
new in a photograph of a cat. How it is fitted: training_range.py.

This file ships inside registered models: numpy and safetensors only.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

# As they lie beside the model in models/PARTITION
BANK_FILE, RANGE = "novelty.safetensors", "training_range.json"


@dataclass(frozen=True)
class Novelty:
    """bank: (B, D) float32 unit features of training windows; limit: the distance that counts as 1;
    k: which neighbour.

    The limit is the 99th percentile of the same distance of training windows to bank rows of other
    groups.
    """

    bank: np.ndarray
    limit: float
    k: int

    def score(self, features: np.ndarray) -> np.ndarray:
        """Novelty (N,) float64 of features (N, D), rounded to 6 decimals: above 1 is unlike the
        training data.
        """
        return np.round(kth_distance(unit(features), self.bank, self.k) / self.limit, 6)

    def save(self, directory: Path) -> None:
        """Writes novelty.safetensors into a directory that exists."""
        tensors = {
            "bank": np.ascontiguousarray(self.bank),
            "limit": np.array([self.limit]),
            "k": np.array([self.k]),
        }
        save_file(tensors, directory / BANK_FILE)


def load_novelty(directory: Path) -> Novelty | None:
    """The bank saved in a directory; None for a model that was packaged without."""
    if not (directory / BANK_FILE).exists():
        return None
    tensors = load_file(directory / BANK_FILE)
    return Novelty(tensors["bank"], float(tensors["limit"][0]), int(tensors["k"][0]))


def unit(features: np.ndarray) -> np.ndarray:
    """Features (N, D) as rows of length 1, float64; rows of zeros stay."""
    rows = np.asarray(features, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def kth_distance(
    rows: np.ndarray, bank: np.ndarray, k: int, allowed: np.ndarray | None = None
) -> np.ndarray:
    """Distance (N,) of unit rows (N, D) to their k-th nearest of bank (B, D), among those `allowed`
    (N, B) bool.
    """
    squared = np.maximum(2 - 2 * rows @ np.asarray(bank, np.float64).T, 0)
    if allowed is not None:
        squared = np.where(allowed, squared, np.inf)
    return np.sqrt(np.partition(squared, k - 1, axis=1)[:, k - 1])


def frame_flags(
    contract: dict, bits: int, low: float, high: float, novelty: np.ndarray
) -> list[str]:
    """Why a frame is not to be trusted, each as "kind: detail"; empty for one like the training
    data.

    bits: of the file's counts; low, high: the counts that become 0 and 255; novelty: (n,) of its
    windows with cells. A contract of an older package, without the facts, flags nothing.
    """
    flags = []
    if bits not in contract.get("bits", [bits]):
        flags.append(
            f"bit depth: {bits}-bit counts, "
            f"trained on {' and '.join(map(str, contract['bits']))} bit"
        )
    if known := contract.get("intensity"):
        for name, value in (("darkest", low), ("brightest", high)):
            least, most = known["low" if name == "darkest" else "high"]
            if not least * (1 - known["tolerance"]) <= value <= most * (1 + known["tolerance"]):
                flags.append(
                    f"intensity: {name} counts {value:g}, in training {least:g} to {most:g}"
                )
    unlike, share = int((novelty > 1).sum()), contract.get("unlike_share", 1.0)
    if len(novelty) and unlike / len(novelty) > share:
        flags.append(f"unlike the training data: {unlike} of {len(novelty)} windows with cells")
    return flags
