"""What a stage or a command brings in when it is imported: nothing heavy that it does not need."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAINING = {"torch", "torchvision", "timm", "lightning", "mlflow"}
HEAVY = TRAINING | {"great_expectations", "matplotlib", "sklearn", "skimage", "scipy.stats", "dvc"}


def brought_by(module: str) -> set[str]:
    """Names of all modules that a fresh interpreter holds after importing one."""
    code = f"import json, sys, {module}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("stage", ["acquire", "tile", "split", "describe", "compare"])
def test_a_stage_without_a_network_starts_without_heavy_libraries(stage):
    assert not brought_by(f"src.stages.{stage}") & HEAVY


def test_the_command_starts_without_heavy_libraries():
    assert not brought_by("src.cli") & (HEAVY | {"pandas", "numpy"})


def test_a_gate_starts_without_networks_and_tracking():
    assert not brought_by("src.stages.check") & TRAINING
