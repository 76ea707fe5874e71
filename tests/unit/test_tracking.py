"""What reaches MLflow: few metrics and parameters under names that sort, the note, failures with
their reason.
"""

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from src import real
from src.common.tracking import content as run_content
from src.common.tracking import inputs, origin
from src.common.tracking import runs as tracking
from src.common.workspace.errors import ServerError
from tests.conftest import REPO, mlflow_at

VALUE = {"value": 0.9, "group_interval": [0.8, 0.95], "patch_interval": None}
RECORD = {
    "overall": {
        name: VALUE for name in ("balanced_accuracy", "auc", "average_precision", "mcc", "f1")
    },
    "within_experiment": None,
    "calibration": {
        "brier": {"before": 0.2, "after": 0.1},
        "ece": {"before": 0.2, "after": 0.05},
        "temperature": 1.0,
    },
    "conformal": {"abstention": 0.25},
    "data": {"n_patches": 65, "n_groups": 6},
}
MODEL = {
    "partition": "p", "arch": "resnet18", "pooling": "last", "synthetic": True,
    "source": "synthetic", "scheme": "holdout", "groups": 30,
    "weights": {"weights": "random", "origin": "seed 0"}, "patches": {"live": 10, "dead": 20},
    "params": {"lr": 0.001, "epochs": 3, "devices": 1, "precision": "auto"},
}  # fmt: skip
SECTIONS = {
    "dataset": {"source": "synthetic"}, "tile": {"window": 224.0, "stride": 112.0, "unit": "px"},
    "label": {"intensity": "counts", "log": False}, "split": {"scheme": "holdout", "seed": 1},
}  # fmt: skip


def test_test_metrics_are_few_and_carry_their_intervals():
    found = run_content.evaluation(RECORD)
    assert found["test/auc"] == 0.9 and (found["test/auc_low"], found["test/auc_high"]) == (
        0.8,
        0.95,
    )
    assert found["test/brier"] == 0.1 and found["test/share_abstained"] == 0.25
    assert "test/auc_within_experiments" not in found  # not known here
    assert len(found) < 15


def test_a_metric_without_value_or_interval_is_left_out():
    lone = RECORD | {
        "overall": RECORD["overall"] | {"auc": {"value": None, "group_interval": None}}
    }
    assert not [key for key in run_content.evaluation(lone) if key.startswith("test/auc")]


def test_epochs_are_grouped_and_folds_show_one_curve_each():
    row = {
        "train_loss": 0.5,
        "valid_auc": 0.8,
        "valid_balanced_accuracy": 0.7,
        "lr": 1e-3,
        "valid_loss": float("nan"),
    }
    assert run_content.epoch("holdout", row) == {
        "train/loss": 0.5, "valid/auc": 0.8, "valid/balanced_accuracy": 0.7, "train/lr": 1e-3
    }  # fmt: skip
    assert run_content.epoch("fold-3", row) == {"valid/auc_fold-3": 0.8}


def test_parameters_are_named_as_the_command_line_takes_them():
    found = run_content.parameters(MODEL, SECTIONS)
    assert (
        found["model.arch"] == "resnet18"
        and found["train.lr"] == "0.001"
        and found["tile.stride"] == "112.0"
    )
    assert not {"train.devices", "train.precision"} & set(found)


def test_the_note_says_synthetic_and_gives_the_figures():
    text = run_content.note(MODEL, RECORD, ["evaluate", "model"])
    assert "SYNTHETIC" in text and "| balanced accuracy | 0.900 | 0.800 to 0.950 |" in text
    assert "`evaluate` (record, predictions, figures)" in text
    assert "Not evaluated yet" in run_content.note(MODEL, None, ["model"])
    assert "SYNTHETIC" not in run_content.note(MODEL | {"synthetic": False}, None, [])


def test_the_note_says_what_was_trained():
    head = MODEL | {"params": {"layers": "head", "C": 0.001}}
    assert "frozen, with a logistic regression" in run_content.note(head, None, [])
    assert "all layers trained" in run_content.note(MODEL, None, [])


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def client(store, monkeypatch, tmp_path) -> Iterator[MlflowClient]:
    """An MLflow store away from the repository."""
    monkeypatch.chdir(tmp_path)
    with mlflow_at(store):
        yield tracking.connect()


@pytest.mark.parametrize(
    "error", [ValueError("no live patches"), SystemExit("error: no live patches")]
)
def test_a_stage_that_fails_leaves_a_failed_run_with_the_reason(client, monkeypatch, error):
    monkeypatch.setenv("DVC_EXP_NAME", "idea")
    with pytest.raises(type(error)), tracking.run("train", "p resnet18") as run_id:
        raise error
    found = client.get_run(run_id)
    assert found.info.status == "FAILED" and "no live patches" in found.data.tags["failure"]
    assert found.info.run_name == "idea: p resnet18" and found.data.tags["dvc_exps"] == "idea"
    assert mlflow.active_run() is None


@pytest.mark.parametrize(
    ("failure", "told"), [(None, ServerError), (ValueError("no live patches"), ValueError)]
)
def test_a_server_that_goes_away_is_said_and_hides_no_other_error(
    client, monkeypatch, failure, told
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # else MLflow tries for four minutes
    with (
        pytest.raises(told, match=r"has gone|no live patches"),
        tracking.run("train", "p") as run_id,
    ):
        mlflow.set_tracking_uri("http://127.0.0.1:1")
        if failure:
            raise failure
        tracking.log_epoch(run_id, "holdout", {"train_loss": 1.0}, 0)
    assert mlflow.active_run() is None


def test_a_model_of_several_experiments_is_found_under_each(client, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "one")
    with tracking.run("train", "p", {tracking.DIGEST: "abc"}) as run_id:
        pass
    for name in ("two", "one", "two"):
        tracking.add_experiment(run_id, name)
    assert client.get_run(run_id).data.tags["dvc_exps"] == "one, two"
    assert client.get_run(run_id).data.tags["dvc_exp"] == "one"  # where it was trained
    assert tracking.find_run("abc") == run_id


def test_a_rebuilt_run_says_what_is_known_and_not_who_rebuilt_it(client, monkeypatch):
    for name, value in {
        "DVC_EXP_NAME": "idea",
        "DVC_STAGE": "register",
        "DVC_EXP_BASELINE_REV": "abc",
    }.items():
        monkeypatch.setenv(name, value)
    with tracking.run("train", "p resnet18", restored=True) as run_id:
        pass
    found = client.get_run(run_id)
    tags = found.data.tags
    assert (
        found.info.run_name == "p resnet18"
        and tags["restored"] == "true"
        and tags["dvc_exps"] == "idea"
    )
    assert tags["restored_at_revision"] == origin.git("rev-parse", "HEAD")
    false = {"git_revision", "git_dirty", "dvc_stage", "dvc_exp", "dvc_baseline"}
    assert not {
        name
        for name in tags
        if name in false or name.startswith("mlflow.source.git") or name.endswith("source.name")
    }


def test_a_rebuilt_run_is_named_after_the_experiment_that_trained_it(client, monkeypatch):
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    with tracking.run("train", "p resnet18", {tracking.DIGEST: "def"}, restored=True) as run_id:
        pass
    for name, trained in (("cached", False), ("one", True), ("two", True)):
        tracking.add_experiment(run_id, name, trained)
    found = client.get_run(run_id)
    assert found.info.run_name == "one: p resnet18" and found.data.tags["dvc_exp"] == "one"
    assert found.data.tags["dvc_exps"] == "cached, one, two"


def test_a_failed_run_is_not_found_again(client):
    with pytest.raises(OSError), tracking.run("train", "p", {tracking.DIGEST: "half"}):
        raise OSError("disk full")
    assert tracking.find_run("half") is None


def ended(client: MlflowClient, status: str, end: int) -> str:
    """A run that ended so at that time (ms)."""
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    run_id = client.create_run(experiment.experiment_id, start_time=end - 1000).info.run_id
    client.set_terminated(run_id, status, end)
    return run_id


@pytest.mark.parametrize(("stage", "restored"), [("filter", False), ("train", True)])
def test_a_run_that_was_killed_while_it_was_logged_is_not_taken_for_whole(client, stage, restored):
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id
    tags = {"stage": stage, tracking.DIGEST: "cut"} | ({"restored": "true"} if restored else {})
    half = client.create_run(experiment, tags=tags).info.run_id
    assert tracking.find_run("cut", stage) is None
    assert client.get_run(half).info.status == "KILLED"
    with tracking.run(stage, "anew", {tracking.DIGEST: "cut"}, restored=restored) as run_id:
        pass
    assert tracking.find_run("cut", stage) == run_id


def test_a_later_stage_adds_its_outcome_once_and_keeps_the_times(client, monkeypatch, tmp_path):
    run_id = ended(client, "FINISHED", 1_700_000_000_000)
    monkeypatch.setattr(tracking, "training_run", lambda partition: run_id)
    (tmp_path / "explain.json").write_text("{}")
    record = {"embedding": {"purity": {"features": {"other_groups": {"purity": 0.75}}}}}
    for _ in range(2):
        tracking.log_explanation("p", record, tmp_path)
    found = client.get_run(run_id)
    assert found.data.metrics == {"test/purity": 0.75} and "explain_digest" in found.data.tags
    assert len(client.get_metric_history(run_id, "test/purity")) == 1
    assert [f.path for f in client.list_artifacts(run_id, "explain")] == ["explain/explain.json"]
    assert (found.info.status, found.info.end_time) == ("FINISHED", 1_700_000_000_000)


def test_a_new_outcome_replaces_files_that_are_read_only(client, monkeypatch, tmp_path):
    """As those of DVC's cache are, which MLflow keeps so."""
    run_id = ended(client, "FINISHED", 1_700_000_000_000)
    (tmp_path / "figures").mkdir()
    page, kept = tmp_path / "figures" / "page.txt", []
    for text in ("before", "after"):
        page.write_text(text)
        page.chmod(0o444)
        tracking.log_folder(run_id, tmp_path, "evaluate")
        kept.append(Path(client.download_artifacts(run_id, "evaluate/figures/page.txt")).stat())
        page.unlink()
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/evaluate/figures/page.txt") == "after"
    assert kept[0].st_ino != kept[1].st_ino  # written over, it would be refused to all but root


def test_inputs_have_their_own_digests_and_name_the_file_they_come_from(
    client, monkeypatch, tmp_path
):
    rows = [
        (f"{part}{i}", "g", "live", "p", part)
        for i, part in enumerate(("train", "train", "valid", "test"))
    ]
    table = pd.DataFrame(rows, columns=["patch_id", "group", "label", "partition", "split"])
    table.to_parquet(tmp_path / "splits.parquet")
    monkeypatch.setattr(inputs, "SPLITS", tmp_path)
    monkeypatch.setattr(inputs, "data_digests", lambda: {"splits": "0123.dir"})
    with warnings.catch_warnings(), tracking.run("train", "p") as run_id:
        warnings.simplefilter("error", UserWarning)
        inputs.log_data("p")
        inputs.log_data("p")
    logged = client.get_run(run_id).inputs.dataset_inputs
    assert sorted(found.dataset.name for found in logged) == ["p test", "p train", "p valid"]
    assert len({found.dataset.digest for found in logged}) == 3
    for found in logged:
        tags = {tag.key: tag.value for tag in found.tags}
        assert found.dataset.source == '{"uri": "data/splits/splits.parquet"}'
        assert tags == {"dvc_md5": "0123.dir", "mlflow.data.context": found.dataset.name.split()[1]}


def test_the_saved_view_of_runs_names_columns_that_runs_have(client):
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    view = json.loads(json.loads(experiment.tags["mlflow.sharedViewState.results"])["state"])
    within = {"pair_weighted": VALUE}
    metrics = run_content.evaluation(RECORD | {"within_experiment": within})
    known = {f"metrics.`{name}`" for name in metrics}
    known |= {f"params.`{name}`" for name in run_content.parameters(MODEL, SECTIONS)}
    assert set(view["selectedColumns"]) - {"tags.`partition`", "tags.`dvc_exp`"} <= known


def test_an_experiment_that_was_deleted_is_named_with_its_way_back(client):
    own = client.get_experiment_by_name("unstained").experiment_id
    client.delete_experiment(own)
    with pytest.raises(ServerError, match=f"deleted.*`mlflow experiments restore -x {own}`"):
        tracking.connect()
    client.restore_experiment(own)
    tracking.connect()


def test_an_experiment_that_another_clone_makes_first_is_taken(client, monkeypatch):
    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", lambda *given: None)
    tracking.connect()


def test_a_database_of_several_clones_has_its_artifacts_beside_it(tmp_path):
    with mlflow_at(f"sqlite:///{tmp_path}/mlflow.db"):
        found = tracking.connect().get_experiment_by_name(tracking.EXPERIMENT)
    assert found.artifact_location == (tmp_path / "artifacts").as_uri()
    assert (tmp_path / ".mlflow.db.lock").stat().st_mode & 0o777 == 0o664  # of a group, too


def test_processes_that_meet_at_a_new_store_make_it_once(tmp_path):
    uri, go = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "go"
    code = (
        "import time; from pathlib import Path\n"
        "from src.common.tracking.server import require_store\n"
        f"print(flush=True)\nwhile not Path({str(go)!r}).exists(): time.sleep(0.001)\n"
        f"require_store({uri!r})"
    )
    command = [sys.executable, "-c", code]
    started = [
        subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in started:
        process.stdout.readline()  # it has imported all it needs
    go.touch()
    ended = [(process.communicate()[1], process.returncode) for process in started]
    assert [code for _, code in ended] == [0, 0, 0], ended


@pytest.mark.parametrize("text", [None, "", "schema: '2.0'\n", "schema: '2.0'\nstages: {}\n"])
def test_a_lock_without_stages_knows_of_nothing(tmp_path, monkeypatch, text):
    monkeypatch.setattr(origin, "WORKSPACE", tmp_path)
    if text is not None:
        (tmp_path / "dvc.lock").write_text(text)
    assert origin.data_digests() == {} and real.trained() == set()
