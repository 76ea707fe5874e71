"""What the README quotes is what was measured and kept."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def record_module():
    """results/record.py as a module."""
    spec = importlib.util.spec_from_file_location("record", ROOT / "results" / "record.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readmes_table_is_the_one_of_the_kept_results():
    text = (ROOT / "README.md").read_text()
    assert record_module().fill(text) == text, "run `python results/record.py`"


def test_every_kept_record_says_whether_it_is_synthetic():
    for path in (ROOT / "results").glob("*.json"):
        kept = json.loads(path.read_text())
        for name, record in kept["evaluate"].items():
            assert isinstance(record["synthetic"], bool), f"{path.name}: {name}"
            assert record["synthetic"] == (kept["params"]["dataset"]["source"] == "synthetic")
