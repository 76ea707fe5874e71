"""The compare stage: models, baselines and the paper side by side; synthetic data called so."""

import copy
import json

import matplotlib
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from src.common.compare import experiments, rows
from src.common.compare import table as comparison
from src.common.evaluate.curves import roc_together
from src.common.workspace.errors import UserError
from src.common.workspace.sections import Dataset
from src.stages import compare

matplotlib.use("Agg")


def metric(value: float) -> dict:
    return {
        "value": value,
        "patch_interval": [value - 0.01, value + 0.01],
        "group_interval": [value - 0.1, value + 0.1],
    }


def record(
    partition: str, auc: float = 0.9, synthetic: bool = True, weights: str = "imagenet"
) -> dict:
    base = {"auc": metric(auc - 0.1), "balanced_accuracy": metric(0.7), "within_experiment": None}
    return {
        "partition": partition,
        "synthetic": synthetic,
        "model": {"arch": "resnet18", "digest": "d", "weights": weights},
        "data": {"n_patches": 1200, "n_groups": 4, "digest": partition},
        "overall": dict.fromkeys(comparison.MORE, metric(0.5))
        | {"auc": metric(auc), "balanced_accuracy": metric(auc - 0.05)},
        "correlation": {"mean_pi": {"pearson": metric(-0.6), "spearman": metric(0.4)}},
        "calibration": {"ece": {"after": 0.031}, "brier": {"after": 0.12}},
        "conformal": {"abstention": 0.2, "error_among_called": 0.08, "coverage": 0.9},
        "within_experiment": {"pair_weighted": metric(0.8)},
        "baselines": {
            "linear_probe": base,
            "texture_linear": copy.deepcopy(base),
            "acquisition": copy.deepcopy(base),
            "experiment_only": None,
        },
        "cross_partition": None,
        "notes": ["how it was done"],
    }


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A function that writes evaluation records, runs compare for some partitions, returns (result,
    Markdown).
    """
    monkeypatch.setattr(compare, "METRICS", tmp_path / "metrics")
    monkeypatch.setattr(compare, "REPORTS", tmp_path / "reports")

    def run(partitions: list[str], *records: dict) -> tuple[dict, str]:
        (tmp_path / "metrics" / "evaluate").mkdir(parents=True, exist_ok=True)
        for entry in records:
            (tmp_path / "metrics" / "evaluate" / f"{entry['partition']}.json").write_text(
                json.dumps(entry)
            )
        dataset = Dataset(source="synthetic", path="", partitions=partitions)
        monkeypatch.setattr(compare, "load", lambda name: dataset)
        compare.main()
        found = json.loads((tmp_path / "metrics" / "compare.json").read_text())
        return found, (tmp_path / "reports" / "compare.md").read_text()

    return run


def line(text: str, start: str) -> list[str]:
    """The cells of the first table line whose model begins so."""
    [found] = [row for row in text.splitlines() if row.startswith("|") and f"| {start}" in row][:1]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_model_baselines_and_paper_stand_together(stage):
    found, text = stage(["no_treatment"], record("no_treatment"))
    assert list(found["models"]["no_treatment"]) == [
        "model",
        "linear_probe",
        "texture_linear",
        "acquisition",
        "paper",
    ]
    assert found["models"]["no_treatment"]["model"]["auc"] == 0.9
    cells = dict(zip(comparison.HEADINGS, line(text, "no_treatment resnet18"), strict=True))
    assert cells["AUC"] == "0.900" and cells["AUC over groups"] == "0.800 to 1.000"
    assert (
        cells["95% over patches"] == "0.840 to 0.860" and cells["patches (groups)"] == "1,200 (4)"
    )
    paper = dict(zip(comparison.HEADINGS, line(text, "paper: Inception-v3"), strict=True))
    assert (paper["balanced accuracy"], paper["AUC"], paper["data"]) == ("0.866", "0.941", "real")
    assert paper["95% over groups"] == "-" and paper["Pearson r, mean PI"] == "-0.705"


def test_the_summary_for_dvc_holds_the_main_figures_alone(stage, tmp_path):
    stage(["p", "q"], record("p"), record("q", auc=0.8) | {"within_experiment": None})
    found = json.loads((tmp_path / "metrics" / "summary.json").read_text())
    assert found["p"] == {
        "balanced_accuracy": 0.85,
        "auc": 0.9,
        "auc_within_experiments": 0.8,
        "brier": 0.12,
    }
    assert found["q"]["auc"] == 0.8 and found["q"]["auc_within_experiments"] is None


def test_synthetic_data_are_called_so_in_every_row_of_ours(stage):
    _, text = stage(
        ["no_treatment", "mcf7"], record("no_treatment"), record("mcf7", synthetic=False)
    )
    kinds = {
        row.split("|")[2].strip(): row.split("|")[4].strip()
        for row in text.splitlines()
        if row.startswith("| ")
    }
    assert kinds["no_treatment resnet18"] == "synthetic" and kinds["mcf7 resnet18"] == "real"
    assert "of simulated images" in text
    assert "of simulated images" not in stage(["mcf7"], record("mcf7", synthetic=False))[1]


def test_partitions_no_longer_in_params_are_named_and_ignored(stage, capsys):
    found, text = stage(["no_treatment"], record("no_treatment"), record("gone"))
    assert list(found["models"]) == ["no_treatment"] and "gone" not in text
    assert "ignoring gone in metrics/evaluate" in capsys.readouterr().out


def test_a_partition_without_a_record_is_refused(stage):
    with pytest.raises(UserError, match=r"missing\.json does not exist"):
        stage(["no_treatment", "missing"], record("no_treatment"))


def test_pretrained_against_random_only_on_the_same_patches_and_architecture():
    records = {
        "tuned": record("p", 0.9),
        "random": record("p", 0.8, weights="random"),
        "elsewhere": record("q", 0.95),
    }
    assert rows.differ_in_first_weights(records) == [("tuned", "random")]
    other_data = copy.deepcopy(records)
    other_data["tuned"]["data"]["digest"] = "changed"
    assert rows.differ_in_first_weights(other_data) == []
    other_recipe = copy.deepcopy(records)
    other_recipe["tuned"]["model"]["recipe"] = {"lr": 1e-5}
    assert rows.differ_in_first_weights(other_recipe) == []


def test_what_pretraining_gains_is_a_row_with_paired_intervals():
    group = np.repeat(list("abcdefgh"), 10)
    live = np.tile([False, True], 40)
    noise = np.random.default_rng(0).normal(size=80)
    table = pd.DataFrame({"patch_id": np.arange(80), "group": group, "live": live})
    good, poor = ((live - 0.5) * gain + noise for gain in (3, 1))
    sides = [table.assign(probability=1 / (1 + np.exp(-z)), called=z >= 0) for z in (good, poor)]
    gains = experiments.pretraining(sides[0], sides[1].sample(frac=1, random_state=1))
    auc = roc_auc_score(live, good) - roc_auc_score(live, poor)
    assert gains["auc"]["value"] == pytest.approx(auc) and auc > 0.1
    low, high = gains["auc"]["group_interval"]
    assert 0 < low < auc < high
    assert experiments.pretraining(*sides[::-1])["auc"]["group_interval"] == pytest.approx(
        [-high, -low]
    )
    row = rows.gain_row(record("p"), "tuned", "random", gains)
    text = line(comparison.markdown({"tuned": record("p")}, [row]), "difference")
    cells = dict(zip(comparison.HEADINGS, text, strict=True))
    assert cells["model"] == "difference: tuned less random" and cells["data"] == "synthetic"
    assert cells["AUC"] == f"{auc:.3f}" and cells["AUC over groups"] == f"{low:.3f} to {high:.3f}"


def test_a_remote_that_fails_in_its_own_way_is_one_line_with_the_file(monkeypatch):
    def refuse(*given, **named):
        raise ImportError("ssh is supported, but requires 'dvc-ssh' to be installed")

    monkeypatch.setattr("dvc.api.read", refuse)
    with pytest.raises(experiments.ExperimentError, match=r"wider: params.yaml .*'dvc-ssh'"):
        experiments._read("wider", "params.yaml")


def test_calibration_and_abstentions_stand_in_a_second_table():
    text = comparison.markdown({"a": record("p")})
    head, values = (
        row
        for row in text.splitlines()
        if row.startswith(("| model | average", "| a, synthetic | 0.5"))
    )
    cells = dict(
        zip(
            *([cell.strip() for cell in row.strip("|").split("|")] for row in (head, values)),
            strict=True,
        )
    )
    assert (
        cells["MCC"] == "0.500 (0.400 to 0.600)"
        and cells["Spearman r, mean PI"] == "0.400 (0.300 to 0.500)"
    )
    assert (cells["ECE"], cells["abstained"], cells["error among called"]) == (
        "0.031",
        "0.200",
        "0.080",
    )


def test_a_partition_all_seen_in_training_is_a_dash_in_the_matrix():
    first = record("p", 0.9)
    first["cross_partition"] = {"q": {"groups_left_out": 3, "overall": None}}
    assert "| a, synthetic | 0.900 (0.850) | - |" in comparison.markdown({"a": first})


def test_cross_partition_matrix_has_its_own_test_split_on_the_diagonal():
    first, second = record("p", 0.9), record("q", 0.8)
    first["cross_partition"] = {
        "q": {"overall": {"auc": metric(0.7), "balanced_accuracy": metric(0.6)}}
    }
    second["cross_partition"] = {
        "p": {"overall": {"auc": metric(0.65), "balanced_accuracy": metric(0.55)}}
    }
    text = comparison.markdown({"a": first, "b": second})
    assert "| a, synthetic | 0.900 (0.850) | 0.700 (0.600) |" in text
    assert "| b, synthetic | 0.650 (0.550) | 0.800 (0.750) |" in text


def test_roc_curves_together_use_the_test_patches_alone():
    test = pd.DataFrame(
        {
            "label": ["dead", "dead", "live", "live"],
            "probability": [0.1, 0.6, 0.4, 0.9],
            "split": "test",
        }
    )
    valid = test.assign(probability=1 - test["probability"], split="valid")
    figure = roc_together(
        {"one": pd.concat([test, valid]), "two": test.assign(probability=[0, 0, 1, 1])}, "p"
    )
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["one, AUC 0.750 (n = 4)", "two, AUC 1.000 (n = 4)"]
    with pytest.raises(ValueError, match="bad: its test patches are all of one class"):
        roc_together({"bad": test[test["label"] == "live"]}, "p")
    assert np.allclose(figure.axes[0].lines[1].get_ydata()[-1], 1)
