"""`unstained real`: names of all kinds reach DVC as they are; what is refused changes nothing."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from src import cli, real
from src.common.acquire import digests, sources
from src.common.tracking import origin
from src.common.workspace.errors import UserError
from src.common.workspace.overrides import OverrideError, applied, quoted
from src.common.workspace.params import parse
from tests.conftest import REPO, default_params

HOSTILE = [
    "my plate (1)",
    "a=b,c",
    "Müller's #2",
    "100% [x] {y}",
    "-S",
    "$HOME `id`",
    "e\u0301\\",
    "日本",
    "日" * 85,
    "n" * 255,
]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository whose graph is one stage that keeps the parameters it saw."""
    root = tmp_path / "clone"
    shutil.copytree(REPO / "presets", root / "presets")
    (root / "sources").mkdir()
    (root / "sources" / "folder.csv").write_text("file,bytes,sha256\n")
    (root / "annotations").mkdir()
    (root / "annotations" / "folder.csv").write_text("image_id\n")
    (root / "params.yaml").write_text(yaml.safe_dump(default_params()))
    stage = {"cmd": "cp params.yaml seen.yaml", "params": ["dataset"], "outs": ["seen.yaml"]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"see": stage}}))
    for module in (real, digests, sources, origin):
        monkeypatch.setattr(module, "WORKSPACE", root)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    for key, value in (("user.name", "test"), ("user.email", "test@localhost")):
        subprocess.run(["git", "config", key, value], cwd=root, check=True)
    commit(root)
    return root


def commit(root: Path) -> None:
    subprocess.run("git add -A && git commit -qm state", shell=True, cwd=root, check=True)


def plate(tmp_path: Path, name: str = "plate", partition: str = "arm") -> Path:
    folder = tmp_path / "lab" / name
    folder.mkdir(parents=True)
    for side in "bp":
        (folder / f"{side}.png").write_bytes(b"not read before acquire")
    column = f"\n{partition}," if partition else "\n"
    head = "partition," if partition else ""
    (folder / "images.csv").write_text(f"{head}brightfield,pi{column}b.png,p.png\n")
    return folder


@pytest.fixture
def told(monkeypatch):
    """The calls of DVC, which is not run."""
    calls = []
    git = subprocess.run

    def fake(words, **options):
        if "dvc" not in words:
            return git(words, **options)
        calls.append(words)
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(real.subprocess, "run", fake)
    return calls


@pytest.mark.parametrize("name", HOSTILE)
def test_a_folder_of_any_name_reaches_dvc_as_it_is(clone, tmp_path, told, name):
    folder = plate(tmp_path, name)
    real.run(folder, "head", "", [])
    changes = told[0][8::2]  # each after its -S
    found = yaml.safe_load(applied((clone / "params.yaml").read_text(), changes))["dataset"]
    assert len(told[0][6].encode()) <= 200 and told[0][5] == "--name"
    assert (found["source"], found["path"], found["partitions"]) == ("folder", str(folder), ["arm"])
    assert "b.png" in (clone / "sources" / "folder.csv").read_text()


def test_dvc_takes_the_arguments_and_the_graph_sees_the_folder(clone, tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_NO_ANALYTICS", "true")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=clone, check=True)
    commit(clone)
    folder = plate(tmp_path, "Müller's (1) = #2, [x]", partition="")
    assert real.run(folder, "head", "", ["train.C=1e-2"]) == 0
    seen = parse((clone / "seen.yaml").read_text())
    assert seen["dataset"].path == str(folder)
    assert seen["dataset"].partitions == ["Muller_s_1_2_x"]
    assert seen["train"].layers == "head" and seen["train"].C == 1e-2
    refs = subprocess.run(
        ["git", "for-each-ref", "refs/exps"], cwd=clone, capture_output=True, text=True, check=True
    ).stdout
    assert "/Müller-s-1-=-2-x-head\n" in refs


@settings(max_examples=50)
@given(st.text(st.characters(blacklist_categories=["C", "Z"]), max_size=30))
def test_any_printed_text_survives_the_grammar(text):
    if "${" not in text:
        assert yaml.safe_load(applied("s:\n  k: ''\n", [f"s.k={quoted(text)}"]))["s"]["k"] == text


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("train.epochs=0", r"train\.epochs.*found 0"),
        ("train.epochs=many", r"train\.epochs.*found 'many'"),
        ("train.epoch=3", r"train\.epoch"),
        ("+train.epoch=3", r"train\.epoch"),
        ("train.lr=1e-3,1e-4", "one value"),
        ("other.yaml:a.b=3", "only params.yaml"),
        ("train.epochs", "cannot be made"),
        ("dataset.path='a", "cannot be made"),
        ("dataset.partitions=[a b]", "partitions.0"),
        ("dataset.partitions=[a,a]", "named twice"),
        ("dataset.partitions=[a,A]", "differ in case alone"),
        ("tile.stride=0", r"tile\.stride"),
        ("model.arch=resnet-18", "model.arch.*did you mean resnet18"),
    ],
)
def test_what_is_refused_changes_nothing(clone, tmp_path, told, change, why):
    before = (clone / "params.yaml").read_text(), (clone / "sources" / "folder.csv").read_text()
    with pytest.raises(ValueError, match=why):
        real.run(plate(tmp_path), "head", "", ["train.C=1e-2", change])
    after = (clone / "params.yaml").read_text(), (clone / "sources" / "folder.csv").read_text()
    assert after == before and not told


def test_partitions_that_differ_in_case_alone_are_refused_with_their_files(clone, tmp_path, told):
    folder = plate(tmp_path)
    rows = "partition,brightfield,pi\nArm,b.png,p.png\narm,p.png,b.png\n"
    (folder / "images.csv").write_text(rows)
    with pytest.raises(real.RealRunError, match=r"'Arm' \(of b\.png.*'arm'.*case alone"):
        real.run(folder, "head", "", [])
    assert not told


def test_a_named_pipe_among_the_images_is_one_line(clone, tmp_path, told):
    folder = plate(tmp_path)
    os.mkfifo(folder / "pipe.tif")
    with pytest.raises(OSError, match=r"pipe\.tif is a named pipe, not a file: take it out"):
        real.run(folder, "head", "", [])
    assert not told


def test_a_link_that_leads_nowhere_is_one_line(clone, tmp_path, told):
    folder = plate(tmp_path)
    (folder / "gone.tif").symlink_to(tmp_path / "nowhere.tif")
    with pytest.raises(OSError, match=r"gone\.tif is a link that leads nowhere: mend it"):
        real.run(folder, "head", "", [])
    assert not told


@pytest.mark.parametrize("partition", ["Kontrolle ü", "a b", "p" * 101, "-x", "../x", "a/b", "'x'"])
def test_a_partition_that_cannot_name_a_model_is_refused_with_its_file(
    clone, tmp_path, told, partition
):
    with pytest.raises(real.RealRunError, match=r"partition .* \(of b\.png .*cannot name a model"):
        real.run(plate(tmp_path, partition=partition), "head", "", [])
    assert not told


@pytest.mark.parametrize(
    ("folder", "recipe", "name", "why"),
    [
        ("lacking", "head", "", "is no folder"),
        ("plate", "haed", "", "no recipe 'haed': known are .*head"),
        ("plate", "head", "a/b", "cannot name an experiment"),
        ("plate", "head", "a b", "cannot name an experiment"),
        ("plate", "head", "-n", "cannot name an experiment"),
        ("plate", "head", "n" * 201, "cannot name an experiment.*200 bytes"),
        ("pl${x}", "head", "", "rename the folder"),
        ("pl\nx", "head", "", "rename the folder"),
    ],
)
def test_a_wrong_folder_recipe_or_name_is_one_line(
    clone, tmp_path, told, folder, recipe, name, why
):
    made = plate(tmp_path, folder if folder != "lacking" else "plate")
    with pytest.raises(real.RealRunError, match=why) as error:
        real.run(made.with_name(folder), recipe, name, [])
    assert "\n" not in str(error.value) and not told


def test_without_a_repository_it_says_so(tmp_path, monkeypatch, told):
    for module in (real, origin):
        monkeypatch.setattr(module, "WORKSPACE", tmp_path)
    with pytest.raises(UserError, match="no git repository"):
        real.run(plate(tmp_path), "head", "", [])


def test_a_clone_of_another_user_is_said_to_be_that(clone, tmp_path, told, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own tests have it
    with pytest.raises(UserError, match=r"belongs to another user.*safe\.directory"):
        real.run(plate(tmp_path), "head", "", [])
    assert not told


def test_a_name_that_is_taken_gets_a_number_unless_it_was_asked_for(clone, tmp_path, told):
    folder = plate(tmp_path)
    for name in ("plate-head", "plate-head-2"):
        subprocess.run(["git", "update-ref", f"refs/exps/00/{name}", "HEAD"], cwd=clone, check=True)
    real.run(folder, "head", "", [])
    assert told[0][told[0].index("--name") + 1] == "plate-head-3"
    with pytest.raises(real.RealRunError, match="'plate-head' exists"):
        real.run(folder, "head", "plate-head", [])


def test_file_names_and_their_own_annotations(clone, tmp_path, told):
    folder = plate(tmp_path)
    (folder / "images.csv").unlink()
    for well, side in (("A1", "BF"), ("A1", "PI")):
        (folder / f"{well}_{side}.png").write_bytes(b"x")
    (clone / "annotations" / "plate.csv").write_text("image_id\n")
    changes = [r"dataset.pattern='(?P<well>\w+)_(?P<channel>BF|PI)\.png'"]
    changes += ["dataset.channels.brightfield=BF", "dataset.channels.pi=PI"]
    real.run(folder, "modern", "", changes)
    found = yaml.safe_load(applied((clone / "params.yaml").read_text(), told[0][8::2]))
    assert found["dataset"]["partitions"] == ["plate"]
    assert found["filter"]["annotations"] == "annotations/plate.csv"


def test_another_folder_forgets_how_the_files_of_the_one_before_were_read(clone, tmp_path, told):
    first, second = plate(tmp_path, "first"), plate(tmp_path, "second")
    given = ["dataset.pixel_size_um=0.65", "dataset.axes=CYX", "dataset.channels.pi=1"]
    real.run(first, "head", "", given)
    for folder, size, pi in ((first, 0.65, 1), (second, None, "")):
        text = applied((clone / "params.yaml").read_text(), told[-1][8::2])
        (clone / "params.yaml").write_text(text)
        real.run(folder, "head", "", [])  # without them
        found = parse(applied(text, told[-1][8::2]))["dataset"]
        assert (found.pixel_size_um, found.channels.pi) == (size, pi)


def test_what_an_earlier_run_left_in_the_parameters_is_said(clone, tmp_path, told, capsys):
    text = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(text.replace("window: 224", "window: 112"))
    real.run(plate(tmp_path), "head", "", [])
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    new = "note: DVC warns first of files whose hash it does not know: this run makes them"
    assert notes == ["note: params.yaml has tile.window=112, other than the last commit", new]
    (clone / "dvc.lock").write_text("schema: '2.0'\nstages:\n  train@arm: {cmd: x}\n")
    real.run(plate(tmp_path, "again"), "head", "", [])
    assert new not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("left", "why"),
    [(10**12, "the lines above name the stage"),
     (3_000_000, r"the disk of .*clone has 3 MB left\. Make room")],
)  # fmt: skip
def test_a_run_that_stops_ends_in_one_line_that_says_what_to_do(
    clone, tmp_path, told, capsys, monkeypatch, left, why
):
    monkeypatch.setattr(real.room, "free", lambda place: left)
    fake = real.subprocess.run

    def stops(words, **options):
        done = fake(words, **options)
        return subprocess.CompletedProcess(words, 255) if "dvc" in words else done

    monkeypatch.setattr(real.subprocess, "run", stops)
    assert real.run(plate(tmp_path), "head", "", []) == 255
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.match(f"error: experiment plate-head has not finished: {why}", line)


def test_the_command_ends_as_dvc_does_and_syncs_only_after_success(monkeypatch):
    done = []
    monkeypatch.setattr(cli, "sync", lambda: done.append("sync"))
    monkeypatch.setattr(cli, "summary", lambda: done.append("summary"))
    for code in (3, 0):
        monkeypatch.setattr(real, "run", lambda *_, code=code: code)
        monkeypatch.setattr(sys, "argv", ["unstained", "real", "x"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == code and done == ([] if code else ["sync", "summary"])


def test_make_hands_the_folder_over_unread(tmp_path):
    shutil.copy(REPO / "Makefile", tmp_path)
    command = tmp_path / ".venv" / "bin" / "unstained"
    command.parent.mkdir(parents=True)
    (tmp_path / ".venv" / ".ready").touch()
    command.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    command.chmod(0o755)
    name = 'my plate (1) = Müller\'s #2; `id` & "x"'
    words = [
        "make",
        "-s",
        "--no-print-directory",
        "-o",
        ".venv/.ready",
        "real",
        f"DATA={name}",
        "RECIPE=head",
    ]
    done = subprocess.run(
        [*words, "SET=-S a.b=1"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    expected = ["real", name, "--recipe", "head", "--name", "", "-S", "a.b=1"]
    assert done.stdout.splitlines()[-8:] == expected


def test_an_override_error_names_the_key():
    with pytest.raises(OverrideError, match=r"cannot be made: .*'a\.c'"):
        applied("a: {b: 1}\n", ["a.b=2", "a.c=1"])
