"""Expectations on tables, what fields look like, and the evidence made from them."""

import json
import os
from pathlib import Path

import cv2
import great_expectations.expectations as gxe
import numpy as np
import pandas as pd
import pytest
import tifffile

from src.common.check import leakage, nearest
from src.common.check.coverage import uncovered
from src.common.check.expectations import message, said, validate
from src.common.check.report import write_report
from src.common.check.suites import ARTIFACTS, shape
from src.common.scoring.frames.imaging import percentile_range, to_uint8
from src.common.scoring.frames.windows import windows
from src.common.tile.corners import BYTES, COUNT, shared
from src.common.tile.fingerprint import Layouts, fingerprint
from tests import gates

RECORD = {"scheme": "holdout", "folds": 0, "live_below": 1.0, "dead_above": 2.0}


def field(seed: int, size: int = 256) -> np.ndarray:
    """A (size, size) uint8 field of smooth random structure."""
    noise = np.random.default_rng(seed).normal(size=(size, size)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return np.clip(127 + 40 * smooth / smooth.std(), 1, 255).astype(np.uint8)


def both(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Correlation of the layouts of two fields and its standard deviation by chance."""
    layouts = [fingerprint(frame)["phash_layout"] for frame in (one, other)]
    found, first = Layouts(layouts), np.array([0])
    return found.correlations(first, first + 1)[0, 0], found.chance(first, first + 1)[0, 0]


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
    correlation, spread = both(field(1), CHANGES[change](field(1)))
    assert correlation > 8 * spread


@pytest.mark.parametrize("change", ["exposure", "gamma", "jpeg", "noise", "shift"])
def test_a_copy_keeps_its_corners(change):
    prints = [
        fingerprint(frame)["phash_corners"] for frame in (field(1), CHANGES[change](field(1)))
    ]
    assert shared(prints)[0, 1] > 10 * gates.CHECK.shared_corners / 4


def test_copies_are_found_among_many_fields_and_asked_for_only_where_they_lie_apart():
    fields = [field(seed, 160) for seed in range(60)]
    turned, beside = np.rot90(fields[7]), field(3, 300)
    fields += [turned.copy(), turned[:, ::-1].copy(), beside[:160, :160], beside[:160, 100:260]]
    codes = [fingerprint(np.ascontiguousarray(one))["phash_corners"] for one in fields]
    many = {pair for pair, n in shared(codes).items() if n > gates.CHECK.shared_corners}
    assert many == {(7, 60), (7, 61), (60, 61), (62, 63)}
    apart = shared(codes, lambda i, j: (i < 60) & (j == 61))
    assert (7, 61) in apart and all(i < 60 and j == 61 for i, j in apart)


def test_different_fields_correlate_as_chance_predicts():
    prints = [fingerprint(field(seed)) for seed in range(40)]
    layouts = [p["phash_layout"] for p in prints]
    pairs = np.triu_indices(len(layouts), 1)
    every, rows = Layouts(layouts), np.arange(len(layouts))
    likeness = every.likeness(rows, rows)[pairs]
    assert 0.7 < 1.4826 * np.median(np.abs(likeness - np.median(likeness))) < 1.3
    assert likeness.max() < 6
    found = shared([p["phash_corners"] for p in prints])
    assert max(found.values(), default=0) < gates.CHECK.shared_corners


def test_black_borders_are_not_what_two_fields_share():
    framed = [field(seed) for seed in (1, 2)]
    for frame in framed:
        frame[:30] = 0
        frame[:, -20:] = 0
    correlation, spread = both(*framed)
    assert abs(correlation) < 5 * spread
    corners = shared([fingerprint(frame)["phash_corners"] for frame in framed])
    assert corners.get((0, 1), 0) < gates.CHECK.shared_corners


def test_fields_without_structure_resemble_nothing():
    blank = np.full((128, 128), 90, np.uint8)
    assert both(blank, blank)[0] == 0
    assert both(blank, np.zeros((128, 128), np.uint8))[0] == 0
    code = fingerprint(blank)["phash_corners"]
    assert shared([code, code]) == {} and shared([]) == {}


def test_hashes_are_columns_of_fixed_form():
    prints = fingerprint(field(3))
    assert len(prints["phash_layout"]) == 5120
    assert len(prints["phash_corners"]) == 2 * COUNT * BYTES
    for bad in (
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((128, 128), np.uint16),
        np.zeros((63, 200), np.uint8),
    ):
        with pytest.raises(ValueError, match="2-D uint8"):
            fingerprint(bad)


def splits_of(fields: list[np.ndarray]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One patch and one frame for each field, each a group and a part of its own."""
    names = [f"f{n}" for n in range(len(fields))]
    table = pd.DataFrame({"image_id": names, "partition": "p", "group": names, "part": names})
    return table, pd.DataFrame([{"image_id": n, **fingerprint(f)} for n, f in zip(names, fields)])


def named(table: pd.DataFrame, column: str, limit: float) -> set[tuple[str, str]]:
    """Pairs of fields whose value lies above the limit."""
    above = table[table[column] > limit]
    return set(zip(above["image_id"], above["other_id"], strict=True))


def test_simulated_fields_never_look_alike():
    from src.common.acquire.simulator import plan_plate, simulate_field

    every = plan_plate(["no_treatment"], 16, 512, 512, 3)
    plans = list({plan.position: plan for plan in every}.values())[
        :12
    ]  # some fields come back later
    frames = [simulate_field(plan).brightfield for plan in plans]
    eight = [to_uint8(frame, *percentile_range(frame, 0.5, 99.5)) for frame in frames]
    copies, again = leakage.twins(*splits_of(eight))
    assert not (copies["corners"] > gates.CHECK.shared_corners).any()
    assert again["sigmas"].max() < gates.CHECK.near_duplicate_sigmas
    copies, again = leakage.twins(
        *splits_of([*eight, CHANGES["gamma"](eight[0]), CHANGES["shift"](eight[1])])
    )
    pairs = {("f0", "f12"), ("f12", "f0"), ("f1", "f13"), ("f13", "f1")}
    assert named(again, "sigmas", gates.CHECK.near_duplicate_sigmas) == pairs
    assert named(copies, "corners", gates.CHECK.shared_corners) == {("f0", "f12"), ("f1", "f13")}


@pytest.mark.slow
def test_fields_in_blocks_and_by_a_sample_are_found_as_at_once(monkeypatch):
    """What bounds memory and time where fields are many."""
    fields = [field(seed) for seed in range(30)]
    fields += [CHANGES["exposure"](fields[3]), np.ascontiguousarray(fields[9][:, ::-1])]
    table, frames = splits_of(fields)
    copies, again = leakage.twins(table, frames)
    monkeypatch.setattr(nearest, "BLOCK", 7)
    pd.testing.assert_frame_equal(leakage.twins(table, frames)[1], again, atol=0.002)
    monkeypatch.setattr(nearest, "SAMPLE", 28)
    sampled = leakage.twins(table, frames)[1]
    pairs = {("f3", "f30"), ("f9", "f31")}
    assert named(copies, "corners", gates.CHECK.shared_corners) == pairs
    likest = again.set_index("image_id")["sigmas"]
    near = sampled.set_index("image_id")["sigmas"]
    assert (near[likest > 5] / likest[likest > 5] - 1).abs().max() < 0.1


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
    fired = named(again, "sigmas", gates.CHECK.near_duplicate_sigmas)
    assert {frozenset(pair) for pair in fired} == {
        frozenset(pair)
        for pair in (
            ("110_snap_0_1_10", "110_snap_0_1_46"),
            ("310_snap_2_2_2", "310_snap_2_2_42"),
            ("401_snap_0_1_10", "401_snap_0_1_4"),
        )
    }
    assert copies["corners"].max() < gates.CHECK.shared_corners - 2


@pytest.mark.real
@pytest.mark.skipif(
    "UNSTAINED_MCF7" not in os.environ, reason="UNSTAINED_MCF7 names no folder of real fields"
)
@pytest.mark.parametrize("overlap, found", [(0.15, 8), (0.2, 12)])
def test_neighbours_of_a_tile_scan_of_real_fields_share_corners(overlap, found):
    folder = Path(os.environ["UNSTAINED_MCF7"])
    shared_by = []
    for name in pd.read_csv(folder / "images.csv")["brightfield"].iloc[::6][:12]:
        raw = tifffile.imread(folder / name)
        height = raw.shape[0]
        side = int(height * (1 + overlap) / 2)  # two halves, each with as many corners as a field
        halves = [
            to_uint8(part, *percentile_range(part, 0.5, 99.5))
            for part in (raw[:side], raw[height - side :])
        ]
        codes = [fingerprint(half)["phash_corners"] for half in halves]
        shared_by.append(shared(codes).get((0, 1), 0))
    assert (np.array(shared_by) > gates.CHECK.shared_corners).sum() >= found


@pytest.mark.parametrize("edge, left", [("drop", 1344 * 16), ("anchor", 0)])
def test_uncovered_pixels_of_the_papers_frame(edge, left):
    table = pd.DataFrame(windows(1024, 1344, 224, 112, edge))
    assert uncovered(*(table[c].to_numpy() for c in ("y", "x", "size")), 1024, 1344) == left


def test_a_hole_between_windows_is_counted():
    corners = np.array([[0, 0], [0, 64], [64, 64]])
    assert uncovered(corners[:, 0], corners[:, 1], np.full(3, 64), 128, 128) == 64 * 64
    assert uncovered(*np.zeros((3, 0), int), 10, 20) == 200


AT_MOST_3 = gxe.ExpectColumnValuesToBeBetween(
    column="n", max_value=3, **said("small", "n at most 3", "shrink it")
)


def test_a_finding_names_every_offender():
    rows = [{"n": n, "image_id": f"i{n}", "other_id": "j"} for n in range(30)]
    (finding,) = validate({"things": pd.DataFrame(rows)}, {"things": [AT_MOST_3]})
    assert not finding.success and len(finding.rows) == 26
    assert finding.images[:3] == ["i4", "j", "i5"] and len(finding.images) == 27
    assert finding.rows[0] == {"image_id": "i4", "other_id": "j", "n": 4}
    text = message("raw", [finding], "report.json")
    for part in (
        "check@raw: 1 of 1",
        "small",
        "n at most 3",
        "26 of 30: image_id i4",
        "(27): i4, j",
    ):
        assert part in text
    assert "and 7 more" in text


def test_what_cannot_be_judged_fails_with_the_reason():
    (finding,) = validate({"things": pd.DataFrame({"image_id": ["b"]})}, {"things": [AT_MOST_3]})
    assert not finding.success
    assert "could not be judged" in finding.observed and '"n"' in finding.observed


@pytest.mark.parametrize("name", ARTIFACTS)
def test_suites_name_each_expectation_once_with_what_to_do(name):
    tables = {"record": RECORD, "frames": pd.DataFrame({"image_id": ["a"]})}
    suites = [shape(ARTIFACTS[name], ["p"]), ARTIFACTS[name].suite(gates.CHECK, tables)]
    found = [one for suite in suites for part in suite.values() for one in part]
    names = [one.meta["name"] for one in found]
    assert len(set(names)) == len(names)
    assert all(one.notes and one.meta["to_do"] for one in found)


def test_a_report_of_an_infinite_ratio_is_json(tmp_path):
    table = pd.DataFrame({"n": [1.0, np.inf], "image_id": ["a", "b"]})
    findings = validate({"things": table}, {"things": [AT_MOST_3]})
    write_report(tmp_path / "raw", "raw", findings, pd.DataFrame({"fields": [2]}), synthetic=True)

    def refuse(name: str):
        raise AssertionError(f"{name} is no JSON")

    text = (tmp_path / "raw" / "report.json").read_text()
    (found,) = json.loads(text, parse_constant=refuse)["expectations"]
    assert found["images"] == ["b"] and found["rows"] == [{"image_id": "b", "n": None}]
