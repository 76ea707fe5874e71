"""The gates: clean folders pass, and each planted fault fails by its expectation's name, with the
offending ids.
"""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from src.common.check.suites import judge
from src.common.tile.fingerprint import fingerprint
from tests import gates
from tests.conftest import default_params


def failed(name, folder, check=gates.CHECK, partitions=gates.PARTITIONS):
    """The findings that fail."""
    findings, _ = judge(name, folder, partitions, check)
    return [finding for finding in findings if not finding.success]


def failing(name, folder, check=gates.CHECK, partitions=gates.PARTITIONS):
    """{expectation: image ids} of what fails."""
    return {finding.name: finding.images for finding in failed(name, folder, check, partitions)}


def planted(name, folder, plant, **options):
    """What fails after `plant(folder)` in a clean folder."""
    gates.WRITE[name](folder, **options)
    plant(folder)
    return failing(name, folder)


def edit(file, change):
    """A fault: `change(table)` edits a table of the folder in place, or returns another."""

    def plant(folder):
        path = folder / file
        csv = file.endswith("csv")
        table = pd.read_csv(path) if csv else pd.read_parquet(path)
        changed = change(table)
        table = table if changed is None else changed
        table.to_csv(path, index=False) if csv else table.to_parquet(path)

    return plant


def put(column, value, where=0):
    """A change of one cell (or of the rows of a mask)."""

    def change(table):
        table.loc[where(table) if callable(where) else where, column] = value

    return change


def of_image(image):
    return lambda table: table["image_id"] == image


def record(file, change):
    """A fault in a JSON file."""

    def plant(folder):
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))

    return plant


def twice(table):
    return pd.concat([table, table.iloc[:1]], ignore_index=True)


@pytest.mark.parametrize("name", gates.WRITE)
def test_clean_data_pass(name, tmp_path):
    gates.WRITE[name](tmp_path / name)
    findings, found = judge(name, tmp_path / name, gates.PARTITIONS, gates.CHECK)
    assert [finding.name for finding in findings if not finding.success] == []
    assert list(found["partition"].unique()) == gates.PARTITIONS


def refuse(table):
    return pd.DataFrame(
        [
            {
                "image_id": "copy",
                "file": "c.tif",
                "reason": "same pixels",
                "duplicate_of": "control_0",
            }
        ]
    )


RAW = {
    "no_field_under_two_ids": (edit("rejected.csv", refuse), {"copy", "control_0"}),
    "pi_pixels_unique": (
        edit("images.csv", lambda t: put("pi_sha256", t["pi_sha256"][1])(t)),
        {"control_0", "control_1"},
    ),
    "image_id_unique": (edit("images.csv", twice), {"control_0"}),
    "channels_paired": (lambda folder: (folder / "pi" / "control_2.tif").unlink(), {"control_2"}),
    "height_on_disk": (edit("images.csv", put("height", 200)), {"control_0"}),
    "pixel_size_um_sane": (edit("images.csv", put("pixel_size_um", 322.5)), {"control_0"}),
    "brightfield_bits_sane": (edit("images.csv", put("brightfield_bits", 1)), {"control_0"}),
    "fields_per_partition": (edit("images.csv", lambda t: t.drop(range(2, 6))), set()),
    "images_of_every_partition": (
        edit("images.csv", lambda t: t[t["partition"] == "control"]),
        set(),
    ),
    "images_columns": (edit("images.csv", lambda t: t.drop(columns="pi_sha256")), set()),
    "images_height_known": (edit("images.csv", put("height", None)), {"control_0"}),
}


@pytest.mark.parametrize("expectation", RAW)
def test_raw_faults(expectation, tmp_path):
    plant, images = RAW[expectation]
    found = planted("raw", tmp_path / "raw", plant)
    assert expectation in found and set(found[expectation]) == images


def test_same_pixels_are_let_through_on_request(tmp_path):
    gates.write_raw(tmp_path / "raw")
    edit("rejected.csv", refuse)(tmp_path / "raw")
    assert (
        failing("raw", tmp_path / "raw", gates.CHECK.model_copy(update={"allow_duplicates": True}))
        == {}
    )


def test_fields_refused_for_other_reasons_pass(tmp_path):
    blank = edit("rejected.csv", lambda t: refuse(t).assign(duplicate_of=None, reason="constant"))
    assert planted("raw", tmp_path / "raw", blank) == {}


PATCHES = {
    "patch_id_unique": (edit("patches.parquet", twice), {"control_0"}),
    "frame_unique": (edit("frames.parquet", twice), {"control_0"}),
    "windows_right_inside": (edit("patches.parquet", put("x", 100)), {"control_0"}),
    "frames_covered": (edit("patches.parquet", lambda t: t.drop(0)), {"control_0"}),
    "frames_have_windows": (edit("patches.parquet", lambda t: t[t["image_id"] != "control_3"]),
                            {"control_3"}),
    "windows_have_frames": (edit("frames.parquet", lambda t: t.drop(0)), {"control_0"}),
    "remainder_right_narrow": (
        edit("patches.parquet", lambda t: t[~(of_image("control_1")(t) & (t["col"] == 2))]),
        {"control_1"},
    ),
    "remainder_right_noted": (edit("frames.parquet", put("remainder_right", 0)), {"control_0"}),
    "shards_hold_frames": (edit("frames.parquet", put("offset", 10**7, where=3)), {"control_3"}),
    "layout_form": (edit("frames.parquet", put("phash_layout", b"XYZ")), {"control_0"}),
    "frames_phash_corners_known": (
        edit("frames.parquet", put("phash_corners", None)), {"control_0"}
    ),
    "mean_pi_range": (edit("patches.parquet", put("mean_pi", 70000.0)), {"control_0"}),
    "border_range": (edit("patches.parquet", put("border", 1.5)), {"control_0"}),
    "focus_range": (edit("patches.parquet", put("focus", -1.0)), {"control_0"}),
    "patches_mean_pi_known": (edit("patches.parquet", put("mean_pi", None)), {"control_0"}),
}  # fmt: skip


@pytest.mark.parametrize("expectation", PATCHES)
def test_patches_faults(expectation, tmp_path):
    plant, images = PATCHES[expectation]
    found = planted("patches", tmp_path / "patches", plant)
    assert expectation in found and set(found[expectation]) == images


def both(one, other):
    """Two faults at once."""
    return lambda folder: (one(folder), other(folder))


divided = record("thresholds.json", lambda r: r.update(intensity="background_ratio"))
LABELS = {
    "patch_labelled_once": (edit("labels.parquet", twice), {"control_0"}),
    "label_values": (edit("labels.parquet", put("label", "alive")), {"control_0"}),
    "dead_follows_thresholds": (edit("labels.parquet", put("label", "dead")), {"control_0"}),
    "background_not_lifted": (
        both(divided, edit("fields.parquet", put("pi_background", 320.0))),
        {"control_0"},
    ),
    "background_as_controls": (
        both(
            divided,
            edit(
                "fields.parquet",
                lambda t: t.assign(
                    pi_floor=1000.0,
                    pi_background=np.where(t["partition"] == "treated", 320.0, t["pi_background"]),
                ),
            ),
        ),
        set(),
    ),
    "classes_meet_in_fields": (edit("fields.parquet", lambda t: t.assign(dead=0)), set()),
    "thresholds_in_mixture": (
        record("thresholds.json", lambda r: r.update(live_below=450.0)),
        set(),
    ),
    "counts_agree": (edit("labels.parquet", lambda t: t.drop(5)), set()),
    "class_count": (
        edit("labels.parquet", lambda t: t[(t["label"] != "live") | (t["partition"] == "control")]),
        set(),
    ),
    "class_proportion": (edit("labels.parquet", lambda t: t[t["label"] != "dead"]), set()),
    "discarded_proportion": (
        edit("labels.parquet", put("label", "discarded", slice(0, 40))),
        set(),
    ),
    "verdict_rate": (
        record("thresholds.json", lambda r: r["verdicts"]["control"].update(empty=10_000)),
        set(),
    ),
}


@pytest.mark.parametrize("expectation", LABELS)
def test_labels_faults(expectation, tmp_path):
    plant, images = LABELS[expectation]
    found = planted("labels", tmp_path / "labels", plant)
    assert expectation in found and set(found[expectation]) == images


def same_group(table):
    table.loc[table["image_id"].isin(["control_3", "control_5"]), "group"] = "well-7"


def same_field(change):
    """A fault: control_5 (test) becomes control_0 (train), its pixels changed by `change`."""

    def plant(table):
        for column, value in fingerprint(change(gates.frame(0))).items():
            table[column] = table[column].where(~of_image("control_5")(table), value)

    return edit("frames.parquet", plant)


SPLITS = {
    "group_in_one_split": (edit("splits.parquet", same_group), {"control_3", "control_5"}),
    "image_in_one_split": (edit("splits.parquet", put("split", "test")), {"control_0"}),
    "image_in_one_group": (edit("splits.parquet", put("group", "other")), {"control_0"}),
    "pixels_in_one_split": (
        edit("frames.parquet",
             lambda t: put("pi_sha256", t["pi_sha256"][0], of_image("control_5"))(t)),
        {"control_0", "control_5"},
    ),
    "no_copy_across_splits": (same_field(lambda pixels: pixels), {"control_0", "control_5"}),
    "no_field_again_across_splits": (same_field(lambda pixels: pixels), {"control_0", "control_5"}),
    "images_described": (edit("frames.parquet", lambda t: t[t["image_id"] != "control_1"]),
                         {"control_1"}),
    "patch_in_one_split": (edit("splits.parquet", twice), {"control_0"}),
    "split_names": (edit("splits.parquet", put("split", "training")), {"control_0"}),
    "class_names": (edit("splits.parquet", put("label", "discarded")), {"control_0"}),
    "patches_as_recorded": (edit("splits.parquet", lambda t: t.drop(0)), set()),
    "class_count_of_split": (
        edit("splits.parquet", lambda t: t[(t["split"] != "test") | (t["label"] == "live")]), set(),
    ),
    "live_fraction_of_split": (edit("splits.parquet", put("label", "live", of_image("control_4"))),
                               set()),
    "frames_columns": (edit("frames.parquet", lambda t: t.drop(columns="phash_layout")), set()),
}  # fmt: skip


@pytest.mark.parametrize("expectation", SPLITS)
def test_splits_faults(expectation, tmp_path):
    plant, images = SPLITS[expectation]
    found = planted("splits", tmp_path / "splits", plant)
    assert expectation in found and set(found[expectation]) == images


def test_folds_leak_like_splits(tmp_path):
    def move(table):
        table.loc[0, "fold"] = 2

    found = planted("splits", tmp_path / "splits", edit("splits.parquet", move), scheme="kfold")
    assert found["group_in_one_split"] == found["image_in_one_split"] == ["control_0"]


def test_a_fold_may_hold_one_class(tmp_path):
    def one_class(table):
        table.loc[(table["partition"] == "control") & (table["fold"] == 0), "label"] = "live"

    assert (
        planted("splits", tmp_path / "splits", edit("splits.parquet", one_class), scheme="kfold")
        == {}
    )


def test_a_round_must_train_on_both_classes(tmp_path):
    def one_class(table):
        table.loc[(table["partition"] == "control") & (table["fold"] != 3), "label"] = "live"

    found = planted(
        "splits", tmp_path / "splits", edit("splits.parquet", one_class), scheme="kfold"
    )
    assert list(found) == ["round_trains_on_both"]
    [finding] = failed("splits", tmp_path / "splits")
    assert "round fold-3" in finding.observed and "split.folds" in finding.to_do


TURNED = {
    "by 90": np.rot90, "by 180": lambda f: np.rot90(f, 2), "by 270": lambda f: np.rot90(f, 3),
    "mirrored": np.fliplr, "upside down": np.flipud, "transposed": np.transpose,
    "mirrored and turned": lambda f: np.rot90(np.fliplr(f)), "shifted": lambda f: f[40:, 24:],
}  # fmt: skip


@pytest.mark.parametrize("change", TURNED)
def test_a_copy_is_found_in_every_orientation_and_place(change, tmp_path):
    plant = same_field(lambda pixels: np.ascontiguousarray(TURNED[change](pixels)))
    found = planted("splits", tmp_path / "splits", plant)
    assert set(found["no_copy_across_splits"]) == {"control_0", "control_5"}


def test_one_field_at_two_times_may_be_one_group(tmp_path):
    def one_group(folder):
        same_field(lambda pixels: pixels)(folder)
        edit("splits.parquet", put("group", "control_0", of_image("control_5")))(folder)
        edit("splits.parquet", put("split", "train", of_image("control_5")))(folder)

    assert "no_copy_across_splits" not in planted("splits", tmp_path / "splits", one_group)


def test_a_copy_in_another_partition_is_a_leak_but_its_layout_alone_is_none(tmp_path):
    folder = tmp_path / "splits"
    gates.write_splits(folder)
    same_field(lambda pixels: pixels)(folder)
    for file in ("splits.parquet", "frames.parquet"):
        edit(file, put("partition", "treated", of_image("control_5")))(folder)
    found = failing("splits", folder)
    assert "no_copy_across_splits" in found and "no_field_again_across_splits" not in found


def by_experiment(change, **options):
    """A fault in data/splits grouped by experiment, one in each split."""

    def plant(folder):
        edit("splits.parquet", lambda t: t.assign(experiment="e" + t["split"]))(folder)
        record("split.json", lambda r: r.update(group_by=["experiment"]))(folder)

        def experiments(table):
            home = dict(zip(gates.ids()["image_id"], gates.SPLITS * 2))
            parts = table["image_id"].map(home)
            level = parts.map({"train": 300.0, "valid": 900.0, "test": 2700.0})
            return change(table.assign(experiment="e" + parts, brightfield_median=level))

        edit("frames.parquet", experiments)(folder)

    return plant


def test_experiments_that_are_sessions_pass_and_others_do_not(tmp_path):
    def wells(table):
        return table.assign(brightfield_median=table["brightfield_median"].replace(900.0, 2600.0))

    def several(table):
        table.loc[of_image("control_1")(table), "brightfield_median"] = 30.0
        return table

    found = {
        name: planted("splits", tmp_path / name, by_experiment(change))
        for name, change in (("sessions", lambda t: t), ("wells", wells), ("several", several))
    }
    assert found["sessions"] == {}
    assert list(found["wells"]) == ["experiments_differ"]
    alike, mixed = (failed("splits", tmp_path / name)[0].observed for name in ("wells", "several"))
    assert "experiment etest, other evalid" in alike
    assert "measure brightfield_median, factor 10" in mixed
    assert list(found["several"]) == ["experiment_is_one_session"]
    assert "control_1" in found["several"]["experiment_is_one_session"]


def test_an_experiment_in_two_splits_wants_to_be_acknowledged(tmp_path):
    gates.write_splits(tmp_path / "splits")
    strict = gates.CHECK.model_copy(update={"experiment_in_two_splits": False})
    assert list(failing("splits", tmp_path / "splits", strict)) == ["experiment_in_one_split"]
    assert failing("splits", tmp_path / "splits") == {}


def test_a_group_that_tells_the_class_stops(tmp_path):
    def sorted_(table):
        live = table["image_id"].str[-1].isin(["0", "1", "4"])
        return table.assign(label=np.where(live, "live", "dead"))

    found = planted("splits", tmp_path / "splits", edit("splits.parquet", sorted_))
    assert "group_does_not_tell_the_class" in found


def test_groups_of_one_patch_are_not_blamed_for_its_class(tmp_path):
    def single(table):
        return table.drop_duplicates("image_id").assign(label=["live", "dead"] * gates.FIELDS)

    def counts(record):
        record["counts"] = {p: {"all": {"live": 3, "dead": 3}} for p in gates.PARTITIONS}

    def plant(folder):
        edit("splits.parquet", single)(folder)
        record("split.json", counts)(folder)

    assert "group_does_not_tell_the_class" not in planted("splits", tmp_path / "splits", plant)


def run(tree, name):
    return subprocess.run(
        [sys.executable, "-m", "src.stages", "check", name],
        cwd=tree,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def tree(stage_tree):
    """A tree of stages with clean synthetic splits under its params."""
    folder = stage_tree / "data" / "splits"
    for path in [*folder.iterdir()]:
        path.unlink()
    folder.rmdir()
    gates.write_splits(folder)
    params = default_params(dataset={"partitions": ["control", "treated"]}, check={"min_class": 2})
    (stage_tree / "params.yaml").write_text(yaml.safe_dump(params))
    return stage_tree


def test_the_stage_passes_with_a_verdict_that_is_the_same_again(tree):
    outcome, folder = run(tree, "splits"), tree / "reports" / "checks" / "splits"
    assert outcome.returncode == 0, outcome.stderr
    first = {
        name: (folder / name).read_bytes()
        for name in ("verdict.json", "report.json", "docs/index.html")
    }
    run(tree, "splits")
    assert {name: (folder / name).read_bytes() for name in first} == first
    verdict = json.loads(first["verdict.json"])
    assert (
        verdict["artifact"] == "splits"
        and verdict["success"]
        and all(e["success"] for e in verdict["expectations"])
    )
    page = (folder / "docs" / "index.html").read_text()
    assert (
        "synthetic data" in page
        and "http" not in page
        and "<link" not in page
        and "<script" not in page
    )


def test_a_leak_stops_the_stage_and_names_expectation_and_images_after_reporting(tree):
    edit("splits.parquet", put("split", "test"))(tree / "data" / "splits")
    outcome, folder = run(tree, "splits"), tree / "reports" / "checks" / "splits"
    assert outcome.returncode != 0
    said = outcome.stderr
    for text in (
        "image_in_one_split",
        "expected: all patches of an image in one split",
        "control_0",
        "to do:",
    ):
        assert text in said
    assert "Traceback" not in said
    report = {
        e["name"]: e for e in json.loads((folder / "report.json").read_text())["expectations"]
    }
    assert report["image_in_one_split"]["images"] == ["control_0"]
    assert not json.loads((folder / "verdict.json").read_text())["success"]
    assert "image_in_one_split" in (folder / "docs" / "index.html").read_text()


def test_what_is_missing_is_named(tree):
    (tree / "data" / "splits" / "split.json").unlink()
    said = run(tree, "splits").stderr
    assert (
        said.startswith("error: check@splits:")
        and "split.json does not exist" in said
        and "Traceback" not in said
    )
    assert "no artifact 'split'" in run(tree, "split").stderr
