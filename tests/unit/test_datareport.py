"""reports/data/data.md: counts beside the paper's, and the PI-positive area of treated and control
fields.
"""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile

from src.common.describe.pi_area import compare_areas, control, pi_areas
from src.common.describe.report import write_data_report
from tests import gates


def areas(shares: dict[str, list[float]], per_group: int = 1) -> pd.DataFrame:
    fields = [(p, n // per_group, s) for p, parts in shares.items() for n, s in enumerate(parts)]
    rows = [(p, f"{p}{group}", int(1000 * s), 1000) for p, group, s in fields]
    return pd.DataFrame(rows, columns=["partition", "group", "positive", "lit"])


def test_area_shares_and_their_difference():
    found = compare_areas(
        areas({"control": [0.1, 0.2, 0.3, 0.2], "treated": [0.6, 0.7, 0.8, 0.7]}), "control", 1
    )
    treated = found["partitions"]["treated"]
    assert found["partitions"]["control"]["share"] == pytest.approx(0.2)
    assert treated["difference"] == pytest.approx(0.5)
    low, high = treated["difference_interval_95"]
    assert 0.3 < low < 0.5 < high < 0.7
    assert "difference" not in found["partitions"]["control"]


def test_intervals_are_over_groups():
    shares = {"control": [0.1, 0.1, 0.5, 0.5] * 3, "treated": [0.6] * 12}
    alone, grouped = (
        compare_areas(areas(shares, n), "control", 1)["partitions"]["control"] for n in (1, 6)
    )
    assert alone["groups"] == 12 and grouped["groups"] == 2
    one = compare_areas(areas({"control": [0.1]}), "control", 1)["partitions"]["control"]
    assert one["interval_95"] is None


def test_positive_pixels_by_counts_or_by_the_fields_background(tmp_path):
    pi = np.full((10, 10), 100, np.uint16)
    pi[:3] = 250
    pi[9] = 0  # a registration border
    tifffile.imwrite(tmp_path / "a.tif", pi)
    images = pd.DataFrame({"image_id": ["a"], "partition": ["p"], "pi": ["a.tif"]})
    for intensity, positive in (("counts", 0), ("background_ratio", 30)):
        found = pi_areas(images, tmp_path, {"intensity": intensity, "dead_above": 300.0}).iloc[0]
        assert (found["positive"], found["lit"]) == (positive, 90)


def test_the_control_is_what_set_the_thresholds():
    assert control(["a", "b"], {"fit_on": ["b"]}) == "b"
    assert (
        control(["a", "b"], {"fit_on": "all"}) == control(["a", "b"], {"fit_on": ["a", "b"]}) == "a"
    )


@pytest.fixture
def workspace(tmp_path):
    """Clean synthetic folders of data/, with all windows found to hold cells."""
    for name, write in gates.WRITE.items():
        write(tmp_path / "data" / name)
    record = tmp_path / "data" / "labels" / "thresholds.json"
    more = {"intensity": "counts", "unit": "16-bit counts", "fit_on": ["control"]}
    more["interval_95"] = {"live_below": [250.0, 270.0], "dead_above": [380.0, 420.0]}
    record.write_text(json.dumps(json.loads(record.read_text()) | more))
    (tmp_path / "data" / "raw" / "source.json").write_text(
        '{"source": "synthetic", "synthetic": true}'
    )
    (tmp_path / "data" / "filtered").mkdir()
    verdicts = gates.windows().assign(verdict="cells", score=1.0)
    verdicts.to_parquet(tmp_path / "data" / "filtered" / "verdicts.parquet")
    return tmp_path


def test_the_report_counts_what_is_there_and_is_the_same_again(workspace):
    page = write_data_report(workspace, gates.PARTITIONS, 1)
    text, folder = page.read_text(), page.parent
    assert "Synthetic data" in text
    counts = json.loads((folder / "data" / "data.json").read_text())["counts"]["treated"]
    assert counts["fields"] == 6 and counts["windows"] == counts["cells"] == 54
    assert counts["live"] + counts["dead"] + counts["discarded"] == 54
    splits = [sum(counts[part]) for part in ("train", "valid", "test")]
    assert sum(splits) == counts["live and dead"]
    assert "| train, live / dead |" in text and "(label/fig2a_samples.png)" in text
    first = {path.name: path.read_bytes() for path in folder.rglob("*.*")}
    write_data_report(workspace, gates.PARTITIONS, 1)
    assert {path.name: path.read_bytes() for path in folder.rglob("*.*")} == first


def test_many_folds_stand_in_their_order(workspace):
    path = workspace / "data" / "splits" / "splits.parquet"
    table = pd.read_parquet(path)
    table.assign(split="", fold=[n % 12 for n in range(len(table))]).to_parquet(path)
    text = write_data_report(workspace, gates.PARTITIONS, 1).read_text()
    assert text.index("| fold 2,") < text.index("| fold 10,")


def test_the_papers_partitions_stand_beside_its_numbers(workspace):
    for path in workspace.glob("data/*/*.parquet"):
        table = pd.read_parquet(path)
        table["partition"] = table["partition"].replace("control", "no_treatment")
        table.to_parquet(path)
    images = pd.read_csv(workspace / "data" / "raw" / "images.csv")
    images.replace({"partition": {"control": "no_treatment"}}).to_csv(
        workspace / "data" / "raw" / "images.csv"
    )
    text = write_data_report(workspace, ["no_treatment", "treated"], 1).read_text()
    assert "| | no_treatment | paper | treated |" in text
    assert "| fields | 6 | 339 | 6 |" in text and "8,680 / 9,480" in text and "0.479" in text
