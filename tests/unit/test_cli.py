"""The command line: what a user can mend is one line, whatever lies below; the summary of a run."""

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest
import typer
from mlflow.exceptions import MlflowException
from typer.testing import CliRunner

from src import cli, cli_images
from src.common.workspace import params, paths
from tests.conftest import REPO


def said(monkeypatch, *arguments: str) -> str:
    """What a command that fails ends with."""
    monkeypatch.setattr(sys, "argv", ["unstained", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return str(ended.value.code)


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("TMP/store", "filesystem tracking backend"),
        ("nonsense://x", "unsupported URI"),
        ("sqlite:///TMP/lacking/mlflow.db", "unable to open database file"),
        ("sqlite:///TMP/text.db", "not a database"),
        ("postgresql://ada:secret@127.0.0.1:1/x", "Connection refused"),
    ],
)
def test_a_store_that_cannot_be_used_is_named_with_what_to_do(monkeypatch, tmp_path, uri, why):
    (tmp_path / "text.db").write_text("no database " * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.replace("TMP", str(tmp_path)))
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
    ended = said(monkeypatch, "history", "unstained-p")
    assert (
        ended.startswith("error: MLFLOW_TRACKING_URI=")
        and "cannot be used: " in ended
        and why in ended
    )
    assert "or unset MLFLOW_TRACKING_URI" in ended and "\n" not in ended and "secret" not in ended
    assert [path.name for path in tmp_path.iterdir()] == ["text.db"]


def test_a_command_of_another_clone_is_refused(monkeypatch, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "cli.py").touch()
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    ended = said(monkeypatch, "sync")
    assert f"of {paths.WORKSPACE}, and you are in {tmp_path}:" in ended


@pytest.mark.parametrize(
    ("text", "why"),
    [("<<<<<<< HEAD\n{}\n=======\n", "is no JSON"), ("", "is no JSON"),
     ("[]", "is no JSON of a record, but '[]'"), ("null", "is no JSON of a record"),
     ("{}", "lacks 'overall', as of another version"),
     ('{"overall": {}}', "lacks 'balanced_accuracy'")],
)  # fmt: skip
def test_a_record_that_is_damaged_or_of_another_version_is_named(monkeypatch, tmp_path, text, why):
    (tmp_path / "evaluate").mkdir()
    for partition in params.load("dataset").partitions:
        (tmp_path / "evaluate" / f"{partition}.json").write_text(text)
    monkeypatch.setattr(paths, "METRICS", tmp_path / "none")
    assert said(monkeypatch, "summary").endswith("or `dvc pull` if it was pushed")
    monkeypatch.setattr(paths, "METRICS", tmp_path)
    ended = said(monkeypatch, "summary")
    assert re.match(rf"error: {tmp_path}/evaluate/\w+.json {re.escape(why)}", ended)
    assert ended.endswith("`git checkout` or `dvc repro` it")


def test_a_full_disk_is_one_line_that_names_the_file(monkeypatch):
    def full():
        raise OSError(28, "No space left on device", "mlruns/mlflow.db")

    monkeypatch.setattr("src.common.register.synced.sync", full)
    assert (
        said(monkeypatch, "sync") == "error: [Errno 28] No space left on device: 'mlruns/mlflow.db'"
    )


@pytest.mark.parametrize(
    ("raised", "why"),
    [(RuntimeError("(sqlite3.OperationalError) database or disk is full\n[SQL: ...]"),
      "No space left on the disk: make room and repeat"),
     (RuntimeError("Symlink loop from '/lab/a'"), "Symlink loop from '/lab/a': name the folder"),
     (RuntimeError("Could not determine home directory."),
      "Could not determine home directory: set HOME"),
     (RuntimeError("(sqlite3.OperationalError) attempt to write a readonly database\n[SQL: ...]"),
      "the MLflow store may not be written by this user"),
     (MlflowException("API request failed with error code 403: Permission denied"),
      "API request failed with error code 403")],
)  # fmt: skip
def test_what_libraries_make_of_a_disks_refusal_is_one_line(monkeypatch, raised, why):
    def refuse():
        raise raised

    monkeypatch.setattr("src.common.register.synced.sync", refuse)
    ended = said(monkeypatch, "sync")
    assert ended.startswith(f"error: {why}") and "\n" not in ended


def test_a_command_works_in_utf_8_whatever_the_locale():
    code = "import sys; from src import cli; cli.in_utf8(); print(sys.flags.utf8_mode, sys.argv)"
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, "ü"], cwd=REPO, env=os.environ | ascii_alone,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "1 ['-c', 'ü']\n"


def test_an_unexpected_crash_keeps_a_plain_traceback(monkeypatch):
    def crash():
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("src.common.register.synced.sync", crash)
    monkeypatch.setattr(sys, "argv", ["unstained", "sync"])
    with pytest.raises(RuntimeError, match="a fault of ours"):
        cli.main()
    assert not cli.app.pretty_exceptions_enable


def test_the_summary_says_where_an_interval_lacks(monkeypatch, tmp_path, capsys):
    figure = {"value": 0.5, "group_interval": None}
    record = {"synthetic": True, "model": {"arch": "resnet18"}}
    record["overall"] = {
        "auc": figure,
        "balanced_accuracy": {"value": 0.75, "group_interval": [0.7, 0.8]},
    }
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "p.json").write_text(json.dumps(record))
    monkeypatch.setattr(paths, "METRICS", tmp_path)
    monkeypatch.setattr(params, "load", lambda section: SimpleNamespace(partitions=["p"]))
    cli.summary()
    line = capsys.readouterr().out.splitlines()[0]
    assert line == (
        "p (SYNTHETIC images): balanced accuracy 0.750 (0.700 to 0.800), AUC 0.500, resnet18"
    )


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [("--pixel-size-um", "0", "above 0 um"), ("--pixel-size-um", "-1", "above 0 um"),
     ("--pixel-size-um", "nan", "not nan"), ("--pixel-size-um", "inf", "not inf"),
     ("--pixel-size-um", "0_3", "not 0_3"),
     ("--axes", "QQ", "QQ"), ("--axes", "CY", "CY"), ("--axes", "YYX", "YYX"),
     ("--z", "-1", "--z")],
)  # fmt: skip
@pytest.mark.parametrize("command", ["score", "validate"])
def test_how_images_are_read_is_refused_before_any_work(tmp_path, command, option, value, why):
    given = [command, str(tmp_path), "--model", "m", "--out", str(tmp_path / "out")]
    ended = CliRunner().invoke(cli.app, [*given, option, value])
    assert ended.exit_code == 2 and option in ended.output and why in ended.output
    assert not (tmp_path / "out").exists()


def _numbers():
    """What typer knows of every number that a command takes."""
    for command in (*cli.app.registered_commands, *cli_images.app.registered_commands):
        for name, kind in get_type_hints(command.callback, include_extras=True).items():
            plain = get_args(kind)[0] if get_args(kind) else kind  # less what typer is told
            if {int, float} & {plain, *get_args(plain)}:
                yield pytest.param(kind.__metadata__[0], id=f"{command.callback.__name__} {name}")


@pytest.mark.parametrize("option", _numbers())
@pytest.mark.parametrize(
    "text", ["1_0", "\uff11\uff10", "\u0661", " 1", "0x1", "nan", "-1", "1e999"]
)
def test_a_number_is_what_people_write_as_one(option, text):
    """int() would take 1_0 for 10, and digits of other scripts."""
    assert option.parser("12") == 12
    with pytest.raises(typer.BadParameter, match="not"):
        option.parser(text)


@pytest.mark.parametrize("text", ["1.5", "0", "65536", ""])
def test_a_port_is_a_whole_number_of_its_range(text):
    ended = CliRunner().invoke(cli.app, ["annotate", "--port", text])
    assert ended.exit_code == 2 and "whole number from 1 to 65535" in " ".join(ended.output.split())


def test_axes_may_be_in_small_letters():
    assert cli_images._order("cyx") == "CYX" and cli_images._order("") == ""
