"""Gates on tables, perceptual hashes of fields, and the evidence made from them."""

import os
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile

from src.common.check import leakage
from src.common.check.coverage import uncovered
from src.common.check.expectations import Gate, message, validate
from src.common.check.suites import ARTIFACTS, COLUMNS, SUITES, form
from src.common.scoring.imaging import percentile_range, to_uint8
from src.common.scoring.windows import windows
from src.common.tile.fingerprint import chance, correlations, fingerprint, hamming
from tests import gates


def field(seed: int, size: int = 256) -> np.ndarray:
    """A (size, size) uint8 field of smooth random structure."""
    noise = np.random.default_rng(seed).normal(size=(size, size)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return np.clip(127 + 40 * smooth / smooth.std(), 1, 255).astype(np.uint8)


def both(one: np.ndarray, other: np.ndarray) -> tuple[int, float, float]:
    """Hamming distance, correlation and its standard deviation by chance of two fields."""
    prints = [fingerprint(frame) for frame in (one, other)]
    fine = [p["phash_fine"] for p in prints]
    return hamming([p["phash"] for p in prints])[0, 1], correlations(fine)[0, 1], chance(fine)[0, 1]


CHANGES = {
    "exposure": lambda f: (f * 0.6 + 30).astype(np.uint8),
    "gamma": lambda f: (255 * (f / 255) ** 0.6).astype(np.uint8),
    "jpeg": lambda f: cv2.imdecode(cv2.imencode(".jpg", f, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 0),
    "half size": lambda f: cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "noise": lambda f: np.clip(f + np.random.default_rng(0).normal(0, 15, f.shape), 0, 255).astype(
        np.uint8
    ),
    "uneven light": lambda f: (f * np.linspace(0.6, 1, f.shape[1])).astype(np.uint8),
    "shift": lambda f: f[4:, 3:].copy(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_field_resembles_itself_after(change):
    _, correlation, spread = both(field(1), CHANGES[change](field(1)))
    assert correlation > 8 * spread


@pytest.mark.parametrize("change", ["exposure", "jpeg", "half size"])
def test_a_copy_keeps_its_perceptual_hash(change):
    assert both(field(1), CHANGES[change](field(1)))[0] <= gates.CHECK.near_duplicate_bits


def test_different_fields_correlate_as_chance_predicts():
    prints = [fingerprint(field(seed)) for seed in range(40)]
    fine = [p["phash_fine"] for p in prints]
    pairs = np.triu_indices(len(fine), 1)
    likeness = (correlations(fine) / chance(fine))[pairs]
    assert 0.7 < 1.4826 * np.median(np.abs(likeness - np.median(likeness))) < 1.3
    assert likeness.max() < 6
    assert hamming([p["phash"] for p in prints])[pairs].min() > gates.CHECK.near_duplicate_bits


def test_black_borders_are_not_what_two_fields_share():
    framed = [field(seed) for seed in (1, 2)]
    for frame in framed:
        frame[:30] = 0
        frame[:, -20:] = 0
    bits, correlation, spread = both(*framed)
    assert bits > 10 and abs(correlation) < 5 * spread


def test_fields_without_structure_resemble_nothing():
    blank = np.full((128, 128), 90, np.uint8)
    assert both(blank, blank)[1] == 0
    assert both(blank, np.zeros((128, 128), np.uint8))[1] == 0


def test_hashes_are_columns_of_fixed_form():
    prints = fingerprint(field(3))
    assert re.fullmatch("[0-9a-f]{16}", prints["phash"]) and len(prints["phash_fine"]) == 5120
    for bad in (
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((128, 128), np.uint16),
        np.zeros((63, 200), np.uint8),
    ):
        with pytest.raises(ValueError, match="2-D uint8"):
            fingerprint(bad)


def test_hamming_counts_bits():
    assert hamming(["0" * 16, "f" * 16, "0" * 15 + "3"]).tolist() == [
        [0, 64, 2],
        [64, 0, 62],
        [2, 62, 0],
    ]


def splits_of(fields: list[np.ndarray]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One patch and one frame for each field, each a group and a part of its own."""
    names = [f"f{n}" for n in range(len(fields))]
    table = pd.DataFrame({"image_id": names, "partition": "p", "group": names, "part": names})
    return table, pd.DataFrame([{"image_id": n, **fingerprint(f)} for n, f in zip(names, fields)])


def test_simulated_fields_never_look_alike():
    from src.common.acquire.simulator import plan_plate, simulate_field

    plans = plan_plate(["no_treatment"], 12, 512, 512, 3)
    frames = [simulate_field(plan).brightfield for plan in plans]
    eight = [to_uint8(frame, *percentile_range(frame, 0.5, 99.5)) for frame in frames]
    copies, again = leakage.twins(*splits_of(eight))
    assert copies["bits"].min() > gates.CHECK.near_duplicate_bits
    assert again["sigmas"].max() < gates.CHECK.near_duplicate_sigmas
    copies, again = leakage.twins(
        *splits_of([*eight, CHANGES["gamma"](eight[0]), CHANGES["shift"](eight[1])])
    )
    assert set(again.loc[again["sigmas"] > gates.CHECK.near_duplicate_sigmas, "images"]) == {
        "f0, f12", "f12, f0", "f1, f13", "f13, f1",
    }  # fmt: skip


@pytest.mark.real
@pytest.mark.skipif(
    "UNSTAINED_MCF7" not in os.environ, reason="UNSTAINED_MCF7 names no folder of real fields"
)
def test_real_fields_at_another_time_are_found_and_no_others():
    folder = Path(os.environ["UNSTAINED_MCF7"])
    images = pd.read_csv(folder / "images.csv")
    frames = [tifffile.imread(folder / name) for name in images["brightfield"]]
    prints = [fingerprint(to_uint8(frame, *percentile_range(frame, 0.5, 99.5))) for frame in frames]
    table = images[["image_id", "partition"]].assign(
        group=images["image_id"], part=images["image_id"]
    )  # all apart
    copies, again = leakage.twins(table, pd.DataFrame(prints).assign(image_id=images["image_id"]))
    assert copies["bits"].min() > gates.CHECK.near_duplicate_bits
    fired = again[again["sigmas"] > gates.CHECK.near_duplicate_sigmas]["images"].str.split(", ")
    assert {frozenset(pair) for pair in fired} == {
        frozenset(pair)
        for pair in (
            ("110_snap_0_1_10", "110_snap_0_1_46"),
            ("310_snap_2_2_2", "310_snap_2_2_42"),
            ("401_snap_0_1_10", "401_snap_0_1_4"),
        )
    }


@pytest.mark.parametrize("edge, left", [("drop", 1344 * 16), ("anchor", 0)])
def test_uncovered_pixels_of_the_papers_frame(edge, left):
    table = pd.DataFrame(windows(1024, 1344, 224, 112, edge))
    assert uncovered(*(table[c].to_numpy() for c in ("y", "x", "size")), 1024, 1344) == left


def test_a_hole_between_windows_is_counted():
    corners = np.array([[0, 0], [0, 64], [64, 64]])
    assert uncovered(corners[:, 0], corners[:, 1], np.full(3, 64), 128, 128) == 64 * 64
    assert uncovered(*np.zeros((3, 0), int), 10, 20) == 200


def test_overlaps_count_only_across_parts():
    rows = [("a", 0, 0, "train"), ("a", 0, 32, "test"), ("a", 64, 0, "train"), ("a", 0, 64, "test")]
    table = pd.DataFrame(rows, columns=["image_id", "y", "x", "part"]).assign(size=64, group="g")
    assert leakage.by_image(table)["overlaps"].tolist() == [1]


AT_MOST_3 = {"column": "n", "max_value": 3}
GATE = Gate(
    "small", "things", "ExpectColumnValuesToBeBetween", AT_MOST_3, "n at most 3", "shrink it"
)


def test_a_finding_names_every_offender():
    rows = [{"n": n, "what": f"thing {n}", "images": f"i{n}, j"} for n in range(30)]
    table = pd.DataFrame(rows)
    (finding,) = validate({"things": table}, [GATE])
    assert not finding.success and len(finding.rows) == 26
    assert finding.images[:3] == ["i4", "j", "i5"] and len(finding.images) == 27
    assert finding.rows[0] == {"what": "thing 4", "images": "i4, j", "value": 4}
    text = message("raw", [finding], "report.json")
    for part in (
        "check@raw: 1 of 1",
        "small",
        "n at most 3",
        "26 of 30: thing 4",
        "(27): i4, j",
        "and 7 more",
    ):
        assert part in text


def test_what_cannot_be_judged_fails_with_the_reason():
    (finding,) = validate({"things": pd.DataFrame({"what": ["a"], "images": ["b"]})}, [GATE])
    assert (
        not finding.success
        and "could not be judged" in finding.observed
        and '"n"' in finding.observed
    )


@pytest.mark.parametrize("name", ARTIFACTS)
def test_suites_name_each_expectation_once(name):
    tables = {"record": {"scheme": "holdout", "folds": 0}}
    suite = [*form(name), *SUITES[name](gates.CHECK, tables)]
    names = [gate.name for gate in suite]
    assert len(set(names)) == len(names) and COLUMNS[name]
    assert all(gate.expected and gate.remedy for gate in suite)
