"""The empty-patch filter applied: is a window filled with cells, empty, or unusable (blurred, or a
black border)?

Paper, step 2: a support vector machine on average-pooled features of a frozen ImageNet backbone.
Without enough annotations, rules on focus, contrast and border instead. This file ships inside
registered models: numpy and safetensors only, and nothing is unpickled. How a filter is fitted:
filter/fit.py.

Decision, in this order:
1. a window with more than the limit (1%) of its pixels in a black registration border is unusable;
2. a score above zero is cells. The score is the SVM's decision function, or under rules the
   logarithm of the window's detail over its limit;
3. of the rest, a second SVM tells unusable (score below zero) from empty if both were annotated
   often enough, else sharpness does: what is blurred is unusable, the others are empty.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

VERDICTS = ("cells", "empty", "unusable")
CHUNK = 1024


@dataclass(frozen=True)
class Svm:
    """A fitted support vector machine with its standardisation, as numbers (float64).

    mean, scale: (D,); support: (S, D) standardised support vectors; dual: (S,); gamma is used by
    the rbf kernel only.
    """

    kernel: str
    mean: np.ndarray
    scale: np.ndarray
    support: np.ndarray
    dual: np.ndarray
    intercept: np.ndarray
    gamma: np.ndarray

    def decision(self, features: np.ndarray) -> np.ndarray:
        """scikit-learn's decision_function of StandardScaler and SVC for features (N, D): (N,)
        float64.
        """
        chunks = [features[start : start + CHUNK] for start in range(0, len(features), CHUNK)]
        return (
            np.concatenate([self._decision(chunk) for chunk in chunks]) if chunks else np.empty(0)
        )

    def _decision(self, features: np.ndarray) -> np.ndarray:
        x = (features.astype(np.float64) - self.mean) / self.scale
        products = x @ self.support.T
        if self.kernel == "rbf":
            distances = (x**2).sum(1)[:, None] + (self.support**2).sum(1) - 2 * products
            products = np.exp(-self.gamma * np.maximum(distances, 0))
        return products @ self.dual + self.intercept

    def tensors(self) -> dict[str, np.ndarray]:
        """The numbers, by name."""
        return {name: getattr(self, name) for name in TENSORS}


TENSORS = ("mean", "scale", "support", "dual", "intercept", "gamma")


@dataclass(frozen=True)
class EmptyFilter:
    """A filter: `facts` is the content of filter.json (method svm or rules, limits, ...); cells
    tells cells (above zero) from the rest, rejects empty (above zero) from unusable; either may be
    None.
    """

    facts: dict
    cells: Svm | None = None
    rejects: Svm | None = None

    def save(self, directory: Path) -> None:
        """Writes filter.json, and svm.safetensors if there is an SVM, to an existing folder."""
        machines = {
            name: svm for name, svm in (("cells", self.cells), ("rejects", self.rejects)) if svm
        }
        if machines:
            tensors = {
                f"{name}.{key}": np.ascontiguousarray(v)
                for name, svm in machines.items()
                for key, v in svm.tensors().items()
            }
            save_file(tensors, directory / "svm.safetensors")
        (directory / "filter.json").write_text(json.dumps(self.facts, indent=2) + "\n")


def load_filter(directory: Path) -> EmptyFilter:
    """The filter saved in a directory."""
    facts = json.loads((Path(directory) / "filter.json").read_text())
    if facts["method"] == "rules":
        return EmptyFilter(facts)
    tensors = load_file(Path(directory) / "svm.safetensors")
    machines = {}
    for name in ("cells", "rejects"):
        if f"{name}.dual" in tensors:
            machines[name] = Svm(
                facts["kernel"], **{key: tensors[f"{name}.{key}"] for key in TENSORS}
            )
    return EmptyFilter(facts, **machines)


def decide(
    features: np.ndarray, rules: Mapping[str, np.ndarray], chosen: EmptyFilter
) -> tuple[np.ndarray, np.ndarray]:
    """Verdict (N,) of str and score (N,) float64, rounded to 6 decimals, of N windows.

    features: (N, D) from the backbone of facts["arch"], unused under rules; rules: the
    columns that imaging.bright_field_measures gives, (N,) each (a DataFrame will do).
    """
    limits = chosen.facts["limits"]
    score = (
        margin(detail(rules), limits["detail"])
        if chosen.cells is None
        else chosen.cells.decision(features)
    )
    score = np.round(score, 6)
    if chosen.rejects is None:
        empty = margin(sharpness(rules), limits["sharpness"]) > 0
    else:
        empty = np.round(chosen.rejects.decision(features), 6) > 0
    bordered = np.asarray(rules["border"]) > limits["border"]
    return np.select(
        [bordered, score > 0, empty], ["unusable", "cells", "empty"], "unusable"
    ), score


def detail(rules: Mapping[str, np.ndarray]) -> np.ndarray:
    """How much there is to see in each window, (N,): `texture`, the contrast at the scale of cell
    edges, where it is measured; else the contrast of the grey values, which uneven illumination
    raises as well.
    """
    return np.asarray(rules["texture" if "texture" in rules else "contrast"], np.float64)


def sharpness(rules: Mapping[str, np.ndarray]) -> np.ndarray:
    """Share of fine structure in each window's contrast, (N,), low where it is blurred, but not
    where it is empty.

    texture over contrast, or, where texture is not measured, focus over squared contrast.
    """
    contrast = np.maximum(np.asarray(rules["contrast"], np.float64), 1e-3)
    return (
        detail(rules) / contrast
        if "texture" in rules
        else np.asarray(rules["focus"], np.float64) / contrast**2
    )


def margin(values: np.ndarray, limit: float) -> np.ndarray:
    """Logarithm of values over a limit: above zero where the limit is exceeded."""
    return np.log(np.maximum(values, 1e-9) / max(limit, 1e-9))
