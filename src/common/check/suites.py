"""The gates between the stages, declared as data: one suite per folder of data/.

A suite has two parts: its form (columns, no gaps, every partition) and its gates proper. The
evidence for the gates is made only if the form is right. Every gate has a name, by which verdicts,
reports and messages know it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..workspace.params import Check
from . import evidence
from .expectations import Finding, Gate, validate
from .leakage import CLASSES, part_names

ARTIFACTS = {  # folder of data/: the stage that writes it, and what it holds
    "raw": (
        "acquire",
        "Raw fields: bright-field and propidium iodide (PI), 16 bit, with their manifest.",
    ),
    "patches": (
        "tile",
        "Overlapping windows of the fields, as rows, and the fields' pixels in 8 bit.",
    ),
    "labels": ("label", "Live, dead and discarded patches, by the Gaussian mixture of their PI."),
    "splits": ("split", "Labelled patches in train, valid and test, or in folds, by whole groups."),
}
COLUMNS: dict[str, dict[str, str]] = {  # per table; those after the bar may have gaps
    "raw": {
        "images": "image_id partition brightfield pi height width brightfield_bits pi_bits brightfield_sha256 pi_sha256"
        " | experiment well position time day compound concentration pixel_size_um",
        "rejected": "| image_id file reason duplicate_of",
    },
    "patches": {
        "patches": "patch_id image_id partition row col y x size mean_pi pi_background pi_saturated focus"
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
EDITED = "the folder was edited, or is of another version of the code: run `dvc repro "
SOURCE = "correct the source or its manifest, then `dvc repro acquire`"


def judge(
    artifact: str, folder: Path, partitions: Sequence[str], check: Check
) -> tuple[list[Finding], pd.DataFrame]:
    """All findings about one folder of data/, and the counts found there (empty if its form is
    wrong).

    Raises MissingInput for a file that is not there.
    """
    tables = evidence.READ[artifact](folder, partitions)
    gaps = {
        f"gaps_{name}": evidence.gaps(tables[name], required(c))
        for name, c in COLUMNS[artifact].items()
    }
    findings = validate({**tables, **gaps}, form(artifact))
    if not all(finding.success for finding in findings):
        return findings, pd.DataFrame()
    tables |= evidence.DETAIL[artifact](tables, folder, partitions)
    return findings + validate(tables, SUITES[artifact](check, tables)), tables["found"]


def required(columns: str) -> list[str]:
    """The columns that may not have gaps: those before the bar."""
    return columns.split("|")[0].split()


def between(
    name: str, where: str, low: float | None, high: float | None, expected: str, remedy: str
) -> Gate:  # fmt: skip
    """A gate on a numeric column, `where` = "table.column", bounds included."""
    table, column = where.split(".")
    bounds = {
        key: value for key, value in (("min_value", low), ("max_value", high)) if value is not None
    }
    return Gate(
        name, table, "ExpectColumnValuesToBeBetween", {"column": column, **bounds}, expected, remedy
    )


def column(
    name: str, where: str, kind: str, expected: str, remedy: str, **arguments: object
) -> Gate:
    """Any other gate on a column: `kind` is what its values are expected to."""
    table, values = where.split(".")
    return Gate(
        name,
        table,
        f"ExpectColumnValuesTo{kind}",
        {"column": values, **arguments},
        expected,
        remedy,
    )


def form(artifact: str) -> list[Gate]:
    """The gates on columns, gaps and partitions."""
    redo = f"{EDITED}{ARTIFACTS[artifact][0]}`"
    more = "add images of that partition, or take it out of dataset.partitions"
    gates = []
    for name, columns in COLUMNS[artifact].items():
        wanted = columns.replace("|", " ").split()
        kind, arguments = (
            "ExpectTableColumnsToMatchSet",
            {"column_set": wanted, "exact_match": False},
        )
        gates.append(
            Gate(f"{name}_columns", name, kind, arguments, f"columns {', '.join(wanted)}", redo)
        )
        if required(columns):
            text = "no gaps in required columns"
            gates.append(between(f"{name}_complete", f"gaps_{name}.missing", 0, 0, text, redo))
    return [
        *gates,
        between("partitions_present", "partitions.count", 1, None, "rows of every partition", more),
    ]


def raw(check: Check, tables: Mapping) -> list[Gate]:
    """Gates on data/raw: whole, paired, plausible, and no field twice."""
    redo = f"{EDITED}acquire`"
    twice = (
        "one of the two ids is wrong: remove the extra file or manifest row; or, if the copy is harmless, set"
        " check.allow_duplicates to true (the first id is kept)"
    )
    fields = f"at least {check.min_fields} accepted fields in every partition (check.min_fields)"
    refused = "add images, or see in data/raw/rejected.csv why fields were refused"
    gates = [
        column("image_id_unique", "images.image_id", "BeUnique", "every image_id once", SOURCE),
        between(
            "channels_paired",
            "files.missing",
            0,
            0,
            "a bright-field and a PI file of every image",
            redo,
        ),
        between(
            "channels_registered",
            "files.misshapen",
            0,
            0,
            "both files as high and wide as images.csv says",
            redo,
        ),
        between(
            "pixel_size_sane",
            "images.pixel_size_um",
            0.02,
            10,
            "0.02 to 10 um per pixel, where known",
            SOURCE,
        ),
        between("bits_sane", "images.brightfield_bits", 8, 16, "8 to 16 bits per pixel", SOURCE),
        between("height_sane", "images.height", 64, 65535, "64 to 65535 px high", SOURCE),
        between("width_sane", "images.width", 64, 65535, "64 to 65535 px wide", SOURCE),
        between(
            "pixels_unique",
            "pixels.ids",
            1,
            1,
            "each channel's pixels under one image_id only",
            twice,
        ),
        between(
            "fields_per_partition", "partitions.count", check.min_fields, None, fields, refused
        ),
    ]
    if not check.allow_duplicates:
        text = "no field refused for having the pixels of another image_id"
        gates.append(
            column("no_field_under_two_ids", "rejected.duplicate_of", "BeNull", text, twice)
        )
    return gates


def patches(check: Check, tables: Mapping) -> list[Gate]:
    """Gates on data/patches: windows lie in their frames and cover them, measures are possible
    ones.
    """
    redo = f"{EDITED}tile`"
    hashes = "perceptual hashes of 16 hex digits"
    ranges = {
        "mean_pi": (0, 65535), "pi_background": (0, 65535), "pi_saturated": (0, 1),
        "focus": (0, None), "contrast": (0, 127.5), "border": (0, 1),
    }  # fmt: skip
    return [
        column("patch_id_unique", "patches.patch_id", "BeUnique", "every patch_id once", redo),
        column("frame_unique", "frames.image_id", "BeUnique", "every image_id once", redo),
        column("phash_form", "frames.phash", "MatchRegex", hashes, redo, regex="^[0-9a-f]{16}$"),
        between(
            "windows_have_frames",
            "stray.count",
            0,
            0,
            "every window's image in frames.parquet",
            redo,
        ),
        between(
            "frames_have_windows",
            "coverage.windows",
            1,
            None,
            "at least one window in every frame",
            redo,
        ),
        between("windows_inside", "coverage.outside", 0, 0, "every window inside its frame", redo),
        between(
            "frames_covered",
            "coverage.inner",
            0,
            0,
            "every pixel in some window, but at the far edges",
            redo,
        ),
        between(
            "remainder_narrow",
            "coverage.excess",
            None,
            -1,
            "a remainder narrower than the stride",
            redo,
        ),
        between(
            "remainder_reported",
            "coverage.unreported",
            0,
            0,
            "the remainder that frames.parquet reports",
            redo,
        ),
        between(
            "shards_hold_frames",
            "coverage.pixels_left",
            0,
            None,
            "every frame's pixels inside its shard",
            redo,
        ),
        *(
            between(
                f"{name}_range",
                f"patches.{name}",
                low,
                high,
                f"{name} {low} to {high or 'any'}",
                redo,
            )
            for name, (low, high) in ranges.items()
        ),
    ]


def labels(check: Check, tables: Mapping) -> list[Gate]:
    """Gates on data/labels: labels follow from thresholds, thresholds from the mixture, and both
    classes are there.
    """
    redo = f"{EDITED}label`"
    stain = "look at reports/label/fig3a_histograms.png; then change label.intensity, label.log or label.fit_on"
    kept = "look at the sheets in reports/filter, and annotate more windows in annotations/"
    ordered = "live mean < live_below < dead_above < dead mean"
    count = f"at least {check.min_class} live and dead patches in every partition (check.min_class)"
    rarest = f"each class at least {check.min_class_fraction:g} of the labelled (check.min_class_fraction)"
    between_them = f"at most {check.max_discarded_fraction:g} between the thresholds (check.max_discarded_fraction)"
    cells = f"at least {check.min_cells_fraction:g} of a partition's windows with cells (check.min_cells_fraction)"
    names = [*CLASSES, "discarded"]
    return [
        column("patch_labelled_once", "labels.patch_id", "BeUnique", "every patch_id once", redo),
        column(
            "label_values",
            "labels.label",
            "BeInSet",
            f"one of {', '.join(names)}",
            redo,
            value_set=names,
        ),
        between(
            "labels_follow_thresholds",
            "labels.agrees",
            1,
            1,
            "labels as intensity and thresholds say",
            redo,
        ),
        between("thresholds_in_mixture", "thresholds.rise", 1e-9, None, ordered, stain),
        between(
            "counts_agree", "classes.differ", 0, 0, "the counts that thresholds.json gives", redo
        ),
        between(
            "verdicts_agree",
            "verdicts.differ",
            0,
            0,
            "a label for each verdict `cells` in thresholds.json",
            redo,
        ),
        between("class_count", "classes.smallest", check.min_class, None, count, stain),
        between(
            "class_proportion", "classes.minority", check.min_class_fraction, None, rarest, stain
        ),
        between(
            "discarded_proportion",
            "classes.discarded",
            None,
            check.max_discarded_fraction,
            between_them,
            stain,
        ),
        between(
            "verdict_rate", "verdicts.cells_fraction", check.min_cells_fraction, None, cells, kept
        ),
    ]


def splits(check: Check, tables: Mapping) -> list[Gate]:
    """Gates on data/splits: nothing on both sides of a split, and classes balanced as the scheme
    allows.
    """
    record, names = tables["record"], part_names(tables["record"])
    redo = f"{EDITED}split`"
    leak = f"{redo}; if the leak comes from the source, correct its image ids, wells and positions there"
    twin = (
        "these look like one field under two ids: remove one, give both the same position, or name in split.group_by a"
        " column they share; if they are different fields, change check.near_duplicate_"
    )
    bits, sigmas = check.near_duplicate_bits, check.near_duplicate_sigmas
    copy = (
        f"fields of groups in different splits over {bits} bits apart (check.near_duplicate_bits)"
    )
    again = f"no field alike one in another split by {sigmas:g} sd (check.near_duplicate_sigmas)"
    return [
        column(
            "patch_in_one_split", "splits.patch_id", "BeUnique", "every labelled patch once", redo
        ),
        column(
            "split_names",
            "splits.part",
            "BeInSet",
            f"every patch in {', '.join(names)}",
            redo,
            value_set=names,
        ),
        column(
            "class_names", "splits.label", "BeInSet", "live or dead", redo, value_set=list(CLASSES)
        ),
        between(
            "patches_as_recorded",
            "partitions.differ",
            0,
            0,
            "as many patches as split.json counts",
            redo,
        ),
        between(
            "images_described", "images.described", 1, 1, "every image in frames.parquet", redo
        ),
        between(
            "group_in_one_split", "groups.parts", 1, 1, "all patches of a group in one split", leak
        ),
        between(
            "image_in_one_split", "images.parts", 1, 1, "all patches of an image in one split", leak
        ),
        between(
            "image_in_one_group",
            "images.groups",
            1,
            1,
            "all patches of an image in one group",
            leak,
        ),
        between(
            "no_overlap_across_splits",
            "images.overlaps",
            0,
            0,
            "no pixel of an image in two splits",
            leak,
        ),
        between(
            "pixels_in_one_split",
            "pixels.parts",
            1,
            1,
            "the same pixels, under whatever id, in one split",
            leak,
        ),
        between("no_copy_across_splits", "copies.bits", bits + 1, None, copy, f"{twin}bits"),
        between(
            "no_field_again_across_splits", "again.sigmas", None, sigmas, again, f"{twin}sigmas"
        ),
        *_balance(check, record["scheme"]),
    ]


def _balance(check: Check, scheme: str) -> list[Gate]:
    """Class balance; under K-fold only of what is trained on, since a fold of few groups may hold
    one class.
    """
    help_ = "more images, another split.seed or split.fractions, a finer split.group_by, or a lower check."
    if scheme == "kfold":
        text = f"at least {check.min_class} live and dead patches to train on in every round (check.min_class)"
        return [
            between(
                "round_trains_on_both",
                "training.smallest",
                check.min_class,
                None,
                text,
                f"{help_}min_class",
            )
        ]
    near = f"a live fraction within {check.tolerance:g} of the partition's (check.tolerance)"
    least = f"at least {check.min_class} live and dead patches in every split (check.min_class)"
    return [
        between(
            "live_fraction_of_split",
            "balance.distance",
            None,
            check.tolerance,
            near,
            f"{help_}tolerance",
        ),
        between(
            "class_count_of_split",
            "balance.smallest",
            check.min_class,
            None,
            least,
            f"{help_}min_class",
        ),
    ]


SUITES = {"raw": raw, "patches": patches, "labels": labels, "splits": splits}
