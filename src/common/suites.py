"""The gates between the stages, declared as data: one suite per folder of data/.

A suite has two parts. `form` says what its tables must hold at all: columns, no gaps. Only if that is met are the
tables of evidence made and `gates` judged. Every gate has a name, by which verdicts and messages know it.
"""

from collections.abc import Sequence
from pathlib import Path

from . import evidence
from .expectations import Finding, Gate, validate
from .leakage import CLASSES, part_names
from .params import Check

ARTIFACTS = ("raw", "patches", "labels", "splits")
OWNERS = {"raw": "acquire", "patches": "tile", "labels": "label", "splits": "split"}

# Columns that may not be missing, per table; those after the bar may have gaps.
COLUMNS: dict[str, dict[str, str]] = {
    "raw": {
        "images": "image_id partition brightfield pi height width bits brightfield_sha256 pi_sha256"
        " | experiment well position time day compound concentration pixel_size_um",
        "rejected": "| image_id file reason duplicate_of",
    },
    "patches": {
        "patches": "patch_id image_id partition row col y x size mean_pi pi_background pi_saturated pi_positive focus"
        " contrast border | experiment well position time day compound concentration",
        "frames": "image_id partition shard offset height width phash phash_fine brightfield_sha256 pi_sha256"
        " remainder_right remainder_bottom | experiment pixel_size_um",
    },
    "labels": {"labels": "patch_id image_id partition intensity label"},
    "splits": {
        "splits": "patch_id image_id partition group y x size label mean_pi intensity split fold | experiment",
        "frames": "image_id partition group phash phash_fine brightfield_sha256 pi_sha256 height width"
        " | experiment position time",
    },
}


def judge(artifact: str, folder: Path, partitions: Sequence[str], check: Check) -> list[Finding]:
    """All findings about one folder of data/. Raises MissingInput for a file that is not there."""
    tables = getattr(evidence, artifact)(folder, partitions)
    form = _form(artifact)
    gaps = {f"gaps_{name}": evidence.gaps(tables[name], required(c)) for name, c in COLUMNS[artifact].items()}
    findings = validate({**tables, **gaps}, form)
    if not all(finding.success for finding in findings):
        return findings
    if artifact in ("raw", "patches"):
        tables |= getattr(evidence, f"{artifact}_details")(tables, folder)
    else:
        tables |= getattr(evidence, f"{artifact}_details")(tables, partitions)
    gates = SUITES[artifact](check, tables)
    return findings + validate(tables, gates)


def required(columns: str) -> list[str]:
    """The columns that may not have gaps: those before the bar."""
    return columns.split("|")[0].split()


def between(name: str, table: str, column: str, low: float | None, high: float | None, expected: str, remedy: str) -> Gate:
    """A gate on a numeric column, bounds included."""
    bounds = {key: value for key, value in (("min_value", low), ("max_value", high)) if value is not None}
    return Gate(name, table, "ExpectColumnValuesToBeBetween", {"column": column, **bounds}, expected, remedy)


def unique(name: str, table: str, column: str, expected: str, remedy: str) -> Gate:
    """A gate on a column whose values may occur once each."""
    return Gate(name, table, "ExpectColumnValuesToBeUnique", {"column": column}, expected, remedy)


def _form(artifact: str) -> list[Gate]:
    remedy = f"run `dvc repro {OWNERS[artifact]}`: the folder was edited, or is of another version of the code"
    gates = []
    for name, columns in COLUMNS[artifact].items():
        wanted = columns.replace("|", " ").split()
        holds = {"column_set": wanted, "exact_match": False}
        gates.append(Gate(f"{name}_columns", name, "ExpectTableColumnsToMatchSet", holds, f"columns {', '.join(wanted)}", remedy))
        if required(columns):
            text = "no gaps in required columns"
            gates.append(between(f"{name}_complete", f"gaps_{name}", "missing", 0, 0, text, remedy))
    more = "add images of that partition, or take it out of dataset.partitions"
    gates.append(between("partitions_present", "partitions", "count", 1, None, "rows of every partition in params", more))
    return gates


def raw(check: Check, tables: evidence.Tables) -> list[Gate]:
    """Gates on data/raw: whole, paired, plausible, and no field twice."""
    source = "correct the source or its manifest, then `dvc repro acquire`"
    redo = "run `dvc repro acquire`: data/raw was edited"
    pixels = (
        "one of the two ids is wrong: remove the extra file or manifest row, or, if the copy is harmless, set"
        " check.allow_duplicates to true (the first id is kept)"
    )
    gates = [
        unique("image_id_unique", "images", "image_id", "every image_id once", source),
        between("channels_paired", "files", "missing", 0, 0, "a bright-field and a PI file for every image", redo),
        between("channels_registered", "files", "misshapen", 0, 0, "both files of the height and width in images.csv", redo),
        between("pixel_size_sane", "images", "pixel_size_um", 0.02, 10, "0.02 to 10 um per pixel, where known", source),
        between("bits_sane", "images", "bits", 8, 16, "8 to 16 bits per pixel", source),
        between("height_sane", "images", "height", 64, 65535, "64 to 65535 px high", source),
        between("width_sane", "images", "width", 64, 65535, "64 to 65535 px wide", source),
        between("pixels_unique", "pixels", "ids", 1, 1, "every image's pixels under one image_id, in both channels", pixels),
        between(
            "fields_per_partition", "partitions", "count", check.min_fields, None,
            f"at least {check.min_fields} accepted fields in every partition (check.min_fields)",
            "add images, or see data/raw/rejected.csv for why fields were refused",
        ),
    ]  # fmt: skip
    if not check.allow_duplicates:
        kind = {"column": "duplicate_of"}
        text = "no field refused because its pixels are those of another id"
        gates.append(Gate("no_field_under_two_ids", "rejected", "ExpectColumnValuesToBeNull", kind, text, pixels))
    return gates


def patches(check: Check, tables: evidence.Tables) -> list[Gate]:
    """Gates on data/patches: windows lie in their frames and cover them, measures are possible ones."""
    redo = "run `dvc repro tile`; if it persists, data/raw holds what tile cannot cut"
    ranges = {
        "mean_pi": (0, 65535), "pi_background": (0, 65535), "pi_saturated": (0, 1), "pi_positive": (0, 1),
        "focus": (0, None), "contrast": (0, 127.5), "border": (0, 1),
    }  # fmt: skip
    return [
        unique("patch_id_unique", "patches", "patch_id", "every patch_id once", redo),
        unique("frame_unique", "frames", "image_id", "every image_id once", redo),
        between("windows_have_frames", "stray", "count", 0, 0, "every window's image in frames.parquet", redo),
        between("frames_have_windows", "coverage", "windows", 1, None, "at least one window in every frame", redo),
        between("windows_inside", "coverage", "outside", 0, 0, "every window inside its frame", redo),
        between("frames_covered", "coverage", "inner", 0, 0, "every pixel in some window, but at the far edges", redo),
        between("remainder_narrow", "coverage", "excess", None, -1, "an uncovered remainder narrower than the stride", redo),
        between("remainder_reported", "coverage", "unreported", 0, 0, "the remainder that frames.parquet reports", redo),
        between("shards_hold_frames", "coverage", "pixels_left", 0, None, "every frame's pixels inside its shard", redo),
        Gate(
            "phash_form", "frames", "ExpectColumnValuesToMatchRegex", {"column": "phash", "regex": "^[0-9a-f]{16}$"},
            "perceptual hashes of 16 hex digits", redo,
        ),
        *(between(f"{c}_in_range", "patches", c, low, high, f"{c} from {low} to {high}", redo) for c, (low, high) in ranges.items()),
    ]  # fmt: skip


def labels(check: Check, tables: evidence.Tables) -> list[Gate]:
    """Gates on data/labels: labels follow from thresholds, thresholds from the mixture, and both classes are there."""
    redo = "run `dvc repro label`: data/labels was edited"
    stain = "look at reports/label/fig3a_histograms.png; then label.intensity, label.log or label.fit_on, or more images"
    filtered = "look at the sheets in reports/filter; annotate more windows in annotations/, or lower check.min_cells_fraction"
    values = {"column": "label", "value_set": [*CLASSES, "discarded"]}
    return [
        unique("patch_labelled_once", "labels", "patch_id", "every patch_id once", redo),
        Gate("label_values", "labels", "ExpectColumnValuesToBeInSet", values, "labels live, dead or discarded", redo),
        between("labels_follow_thresholds", "labels", "agrees", 1, 1, "every label as its intensity and the thresholds say", redo),
        between("thresholds_in_mixture", "thresholds", "rise", 1e-9, None, "live mean < live_below < dead_above < dead mean", stain),
        between("counts_agree", "classes", "differ", 0, 0, "the counts that thresholds.json gives", redo),
        between("verdicts_agree", "verdicts", "differ", 0, 0, "as many labels as thresholds.json has verdicts `cells`", redo),
        between(
            "class_count", "classes", "smallest", check.min_class, None,
            f"at least {check.min_class} live and dead patches in every partition (check.min_class)", stain,
        ),
        between(
            "class_proportion", "classes", "minority", check.min_class_fraction, None,
            f"each class at least {check.min_class_fraction:g} of a partition's live and dead (check.min_class_fraction)", stain,
        ),
        between(
            "discarded_proportion", "classes", "discarded", None, check.max_discarded_fraction,
            f"at most {check.max_discarded_fraction:g} of a partition between the thresholds (check.max_discarded_fraction)", stain,
        ),
        between(
            "verdict_rate", "verdicts", "cells", check.min_cells_fraction, None,
            f"at least {check.min_cells_fraction:g} of a partition's windows with cells (check.min_cells_fraction)", filtered,
        ),
    ]  # fmt: skip


def splits(check: Check, tables: evidence.Tables) -> list[Gate]:
    """Gates on data/splits: nothing on both sides of a split, and classes balanced as the scheme allows."""
    record = tables["record"]
    redo = "run `dvc repro split`: data/splits was edited"
    leak = f"{redo}; or, if it comes from the source, correct its ids, wells and positions there"
    twin = (
        "these look like one field under two ids: remove one, give both the same position, or name in split.group_by a"
        " column they share; if they are different fields, change check.near_duplicate_"
    )
    values = {"column": "part", "value_set": part_names(record)}
    return [
        unique("patch_in_one_split", "splits", "patch_id", "every labelled patch once", redo),
        Gate("split_names", "splits", "ExpectColumnValuesToBeInSet", values, f"every patch in {', '.join(part_names(record))}", redo),
        Gate("class_names", "splits", "ExpectColumnValuesToBeInSet", {"column": "label", "value_set": [*CLASSES]}, "live or dead", redo),
        between("patches_as_recorded", "partitions", "differ", 0, 0, "as many patches as split.json counts", redo),
        between("images_described", "images", "described", 1, 1, "every image in frames.parquet", redo),
        between("group_in_one_split", "groups", "parts", 1, 1, "all patches of a group in one split", leak),
        between("image_in_one_split", "images", "parts", 1, 1, "all patches of an image in one split", leak),
        between("image_in_one_group", "images", "groups", 1, 1, "all patches of an image in one group", leak),
        between("windows_do_not_overlap_across_splits", "images", "overlaps", 0, 0, "no pixel of an image in two splits", leak),
        between("pixels_in_one_split", "pixels", "parts", 1, 1, "the same pixels under whatever id in one split", leak),
        between(
            "no_copy_across_splits", "twins", "bits", check.near_duplicate_bits + 1, None,
            f"perceptual hashes over {check.near_duplicate_bits} bits apart between groups in different splits", f"{twin}bits",
        ),
        between(
            "no_field_again_across_splits", "twins", "sigmas", None, check.near_duplicate_sigmas,
            f"no group's field like another's in another split (under {check.near_duplicate_sigmas:g} sd)", f"{twin}sigmas",
        ),
        *_balance(check, record["scheme"]),
    ]  # fmt: skip


def _balance(check: Check, scheme: str) -> list[Gate]:
    few = "more images, another split.seed or fractions, a finer split.group_by, or a lower check."
    if scheme == "kfold":
        text = f"at least {check.min_class} live and dead patches to train on in every round (check.min_class)"
        return [between("round_trains_on_both_classes", "training", "smallest", check.min_class, None, text, f"{few}min_class")]
    text = f"a live fraction within {check.tolerance:g} of the partition's in every split (check.tolerance)"
    least = f"at least {check.min_class} live and dead patches in every split (check.min_class)"
    return [
        between("live_fraction_of_split", "balance", "distance", None, check.tolerance, text, f"{few}tolerance"),
        between("class_count_of_split", "balance", "smallest", check.min_class, None, least, f"{few}min_class"),
    ]


SUITES = {"raw": raw, "patches": patches, "labels": labels, "splits": splits}


