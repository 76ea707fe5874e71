"""What the README quotes is what was measured and kept, and no record is of another run."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEPT = sorted((ROOT / "results").glob("*.json"))


@pytest.fixture
def record():
    """results/record.py as a module."""
    spec = importlib.util.spec_from_file_location("record", ROOT / "results" / "record.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readmes_table_is_the_one_of_the_kept_results(record):
    text = (ROOT / "README.md").read_text()
    assert record.fill(text) == text, "run `python results/record.py`"


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_run_says_whether_it_is_synthetic(path):
    kept = json.loads(path.read_text())
    synthetic = kept["params"]["dataset"]["source"] == "synthetic"
    assert {evaluation["synthetic"] for evaluation in kept["evaluate"].values()} == {synthetic}


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_all_records_of_a_kept_run_are_of_its_partitions(path):
    kept = json.loads(path.read_text())
    partitions = set(kept["params"]["dataset"]["partitions"])
    assert set(kept["label"]["counts"]) == set(kept["evaluate"]) == partitions


def test_runs_on_the_same_data_keep_the_same_filter_and_labels():
    by_data: dict = {}
    for path in KEPT:
        kept = json.loads(path.read_text())
        digests = kept["data"]["data/filtered"], kept["data"]["data/labels"]
        by_data.setdefault(digests, {})[path.name] = [kept["filter"], kept["label"]]
    for runs in by_data.values():
        first = next(iter(runs.values()))
        assert {name: found == first for name, found in runs.items()} == dict.fromkeys(runs, True)


@pytest.mark.parametrize("stale", ["filter", "label", "evaluate@q"])
def test_a_record_that_is_not_of_the_present_run_is_refused(record, monkeypatch, stale):
    """DVC says of the stages that it is asked about which would change; here one would."""

    def dvc(command, **options):
        assert command[:3] == ("dvc", "status", "--json")
        answer = {name: ["changed deps"] for name in command[3:] if name == stale}
        return subprocess.CompletedProcess(command, 0, json.dumps(answer), "")

    monkeypatch.setattr(record.subprocess, "run", dvc)
    with pytest.raises(SystemExit, match=f"{stale} would not give these metrics"):
        record.refuse_stale(["p", "q"])
