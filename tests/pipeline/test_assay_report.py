"""From the tables of a scored plate to wells, plate.json, figures and the summary page."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from src.assay import output, page
from src.assay.report import ReportError, report
from src.assay.wells import prepare
from tests import plates


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    """A 96-well plate with controls, a dose response, one flagged and three refused images; its
    report.
    """
    table = plates.images(plates.layout_96())
    table.loc[5, ["status", "reason"]] = ["flagged", "unlike the training data: 80% of 66 patches"]
    table.loc[9:11, ["status", "reason"]] = ["refused", "pixel size: 0.65 um per pixel"]
    table.loc[9:11, ["windows", "cells", "empty", "live", "dead", "abstain"]] = 0
    table.loc[9:11, "live_patch_fraction"] = np.nan
    out = plates.write(tmp_path_factory.mktemp("plate") / "out", table, overlays=40)
    return out, report(out)


def test_the_known_answers_of_a_plate_are_found(plate):
    _, record = plate
    (only,) = record["plates"]
    assert only["format"] == 96 and only["quality"]["z_prime"] > 0.5
    assert only["edge"]["low"] < 0 < only["edge"]["high"] and only["edge"]["confounded"] > 0
    doxorubicin, other = record["doses"]
    assert doxorubicin["low"] < 0.5 < doxorubicin["high"] and doxorubicin["outcome"] == "fitted"
    assert other["outcome"] == "no response" and other["ic50"] is None


def test_flagged_and_refused_images_are_counted_with_their_reasons_and_left_out(plate):
    out, record = plate
    assert (
        record["totals"]["scored"],
        record["totals"]["flagged"],
        record["totals"]["refused"],
    ) == (194, 1, 3)
    assert [(row["status"], row["count"]) for row in record["left_out"]] == [
        ("flagged", 1),
        ("refused", 3),
    ]
    wells = pd.read_parquet(out / "wells.parquet").set_index("well")
    assert wells.loc["A12", ["fields", "left_out"]].tolist() == [2, 1]
    assert wells.loc["B12", ["fields", "left_out"]].tolist() == [0, 3]
    assert np.isnan(wells.loc["B12", "live_patch_fraction"])


def test_tables_agree_and_a_second_report_is_the_same(plate, tmp_path):
    out, record = plate
    pd.testing.assert_frame_equal(
        pd.read_parquet(out / "wells.parquet"),
        pd.read_csv(out / "wells.csv", keep_default_na=True, dtype=None)
        .fillna({"compound": "", "control": "", "experiment": ""}).astype({"experiment": "str"}),
        check_dtype=False,
    )  # fmt: skip
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert report(out) == record
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_the_page_stands_alone_and_says_what_matters(plate):
    out, _ = plate
    html = (out / "summary.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', html)
    assert sources and all(source.startswith("data:image/") for source in sources)
    for text in (
        "SYNTHETIC MODEL",
        "4 of 198 images",
        "pixel size: 0.65",
        "0.938",
        "research use",
        "live-patch fraction",
    ):
        assert text in html
    assert (
        "viability" in html and len(re.findall("viability", html)) == 1
    )  # only to say that it is not
    assert {"plate.png", "dose-doxorubicin.png", "dose-vehicle-like.png"} <= {
        path.name for path in out.iterdir()
    }


def test_a_model_of_real_images_is_not_called_synthetic(tmp_path):
    out = plates.write(
        tmp_path / "out", plates.images(plates.layout_96()[:6]), synthetic=False, novelty=False
    )
    report(out)
    html = (out / "summary.html").read_text()
    assert "SYNTHETIC" not in html and "unlike the training data are not flagged" in html


def test_a_384_well_plate_over_time_stays_below_10_mb(tmp_path):
    wells = [{"well": f"{row}{col}", "truth": 0.7} for row in plates.ROWS for col in range(1, 25)]
    tables = [plates.images(wells, 2, seed, time=24.0 * seed) for seed in (1, 2)]
    table = pd.concat(
        [t.assign(image_id=t["image_id"] + f"_t{i}") for i, t in enumerate(tables)],
        ignore_index=True,
    )
    out = plates.write(tmp_path / "out", table, overlays=20)
    record = report(out)
    assert (
        len(record["plates"]) == 2
        and record["plates"][0]["format"] == 384
        and record["time_column"] == "time"
    )
    assert (out / "summary.html").stat().st_size < 10e6
    assert [path.name for path in out.glob("time-*.png")] == ["time-wells.png"]


def test_images_without_wells_give_a_page_per_image(tmp_path):
    table = plates.images(plates.layout_96()[:4]).assign(well="", compound="", control="")
    out = plates.write(tmp_path / "out", table)
    record = report(out)
    assert record["plates"] == [] and record["doses"] == [] and record["totals"]["wells"] == 0
    assert len(pd.read_parquet(out / "wells.parquet")) == 0 and not (out / "plate.png").exists()
    assert "A01_p0" in (out / "summary.html").read_text()


@pytest.mark.filterwarnings("error")
def test_a_compound_of_which_nothing_was_called_has_no_figure_over_time(tmp_path):
    tables = [plates.images(plates.layout_96()[:4], time=time) for time in (0.0, 24.0)]
    table = pd.concat(tables, ignore_index=True).assign(control="")
    table["image_id"] += table.index.astype(str)
    table["compound"] = np.where(table["well"].isin(["A01"]), "silent", "seen")
    silent = table["compound"] == "silent"
    table.loc[silent, ["live", "dead", "live_patch_fraction"]] = [0, 0, np.nan]
    out = plates.write(tmp_path / "out", table)
    report(out)
    assert [path.name for path in out.glob("time-*.png")] == ["time-seen.png"]


@pytest.mark.parametrize(
    ("column", "blank", "known"), [("experiment", "", "a"), ("time", np.nan, 24.0)]
)
def test_rows_without_an_experiment_or_time_that_others_have_are_said(
    column, blank, known, tmp_path
):
    table = plates.images(plates.layout_96()[:4])
    table[column] = [blank, blank] + [known] * (len(table) - 2)
    notes = report(plates.write(tmp_path / "some", table))["notes"]
    assert any(note.startswith(f"2 images have no {column}") for note in notes)
    for value in (blank, known):
        whole = plates.write(tmp_path / str(value or "none"), table.assign(**{column: value}))
        assert not any(f"have no {column}" in note for note in report(whole)["notes"])


def test_every_image_refused_still_gives_a_page(tmp_path):
    table = plates.images(plates.layout_96()[:2]).assign(
        status="refused", reason="too small", live_patch_fraction=np.nan
    )
    out = plates.write(tmp_path / "out", table)
    assert report(out)["totals"]["live_patch_fraction"] is None
    assert "too small" in (out / "summary.html").read_text()


@pytest.mark.parametrize(
    "names",
    [["a/b <script>", "a_b <script>"], ["$\\frac{$", "5$ a $"], ["x" * 300, "x" * 300 + "y"],
     ["毒" * 200, "../../out"]],
    ids=["markup", "formula", "long", "letters"],
)  # fmt: skip
def test_names_from_a_manifest_cannot_break_page_or_files(tmp_path, names):
    wells = [
        w | {"compound": names[w["compound"] != "doxorubicin"], "truth": 0.5}
        for w in plates.layout_96()
        if w["compound"]
    ]
    out = plates.write(tmp_path / "out", plates.images(wells, fields=2, experiment=names[0]))
    report(out)
    assert "<script>" not in (out / "summary.html").read_text()
    drawn = [path.name for path in out.glob("dose-*.png")]
    assert len(drawn) == 2  # two compounds, two figures, in this folder
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(ReportError, match=r"images\.parquet does not exist"):
        report(tmp_path)


def test_plate_json_holds_no_nan(plate):
    out, record = plate
    assert json.loads((out / "plate.json").read_text(), parse_constant=pytest.fail) == record


def test_what_was_not_called_stands_on_the_page(tmp_path):
    table = plates.images(plates.layout_96()[:4]).assign(well="", compound="", control="")
    table[["windows", "cells", "empty", "unusable"]] = [20, 20, 0, 0]
    table[["live", "dead", "abstain", "live_patch_fraction"]] = [10, 5, 5, 0.666667]
    table.loc[0, ["live", "dead", "abstain", "live_patch_fraction"]] = [2, 1, 17, 0.666667]
    table.loc[1, ["live", "dead", "abstain", "live_patch_fraction"]] = [0, 0, 20, np.nan]
    out = plates.write(tmp_path / "out", table)
    totals = report(out)["totals"]
    abstained, cells = 17 + 20 + 5 * (len(table) - 2), 20 * len(table)
    assert totals["uncalled"] == 1 and totals["abstained"] == pytest.approx(
        abstained / cells, abs=1e-5
    )
    html = (out / "summary.html").read_text()
    found = (re.findall(r"<td[^>]*>([^<]*)</td>", line) for line in html.splitlines())
    rows = {row[0]: row[1:] for row in found if row}
    assert rows[table["image_id"][0]][1:3] == ["–", "3 of 20"]  # noqa: RUF001
    assert rows[table["image_id"][2]][1:3] == ["66.7%", "15 of 20"]
    assert f"abstained: {abstained} of {cells} patches" in html
    assert "1 of them without any call" in html and "patches were one" not in html


def test_the_models_own_calls_and_its_aim_are_stated(tmp_path):
    own = {"patches": 377, "error": 0.1, "called": 0.86, "wrong": 0.16, "auc_within": 0.83}
    out = plates.write(tmp_path / "out", plates.images(plates.layout_96()[:6]), heldout=own)
    report(out)
    html = (out / "summary.html").read_text()
    assert "at most 10% of the live and 10% of the dead patches" in html
    assert "of 377 labelled patches 86% called, 16.0% of these wrongly" in html
    assert "If forced to call every patch: balanced accuracy 0.938" in html


def test_of_an_adapted_model_what_it_was_adapted_on_is_told_from_its_own_test(tmp_path):
    own = {"patches": 377, "error": 0.1, "called": 0.86, "wrong": 0.16, "auc_within": 0.83}
    calls = {"before": {"called": 0.5, "wrong": 0.3}, "after": {"called": 0.75, "wrong": 0.125}}
    on = {"by": "stained fields", "folder": "june", "images": 3, "live_windows": 9} | calls
    on |= {"dead_windows": 4, "network": "learnt on", "shift": -0.5}
    plate = plates.images(plates.layout_96()[:6])
    report(plates.write(tmp_path / "out", plate, heldout=own, adapted=on))
    html = (tmp_path / "out" / "summary.html").read_text()
    assert "3 images, 9 live and 4 dead patches; its network learnt on from them" in html
    assert "75% called, 12.5% of these wrongly (before: 50%, 30.0%)" in html
    assert "Its own test before that" in html and "own test, before it was adapted, it" in html
    alone = on | {"after": {"called": None, "wrong": None}}
    report(plates.write(tmp_path / "one", plate, heldout=own, adapted=alone))
    assert "nothing is judged by others" in (tmp_path / "one" / "summary.html").read_text()


def test_long_names_are_cut_in_the_middle_and_kept_as_a_title(tmp_path):
    name = "NKratio_Exp_402_0044_roi_579_1206_682_1296"
    table = plates.images(plates.layout_96()[:1]).assign(well="", compound="", control="")
    table.loc[0, "image_id"] = name
    report(plates.write(tmp_path / "out", table))
    html = (tmp_path / "out" / "summary.html").read_text()
    assert f'title="{name}">NKratio_Exp_402…79_1206_682_1296'[:40] in html


# --- statistics of too little


def _wells(count: int, **facts) -> list[dict]:
    return [{"well": f"B{n}", "truth": 0.5} | facts for n in range(1, count + 1)]


def _called(table: pd.DataFrame, live: int, dead: int) -> pd.DataFrame:
    called = live + dead
    return table.assign(live=live, dead=dead, live_patch_fraction=live / called if called else None)


DRUG = {"compound": "drug", "concentration": np.nan, "control": ""}
TOO_LITTLE = {
    "all live": _called(plates.images(_wells(12)), 20, 0),
    "all dead": _called(plates.images(_wells(12)), 0, 20),
    "nothing called": _called(plates.images(_wells(12)), 0, 0),
    "one well": plates.images(_wells(1)),
    "one image": plates.images(_wells(1), fields=1),
    "one control": plates.images(_wells(1, **DRUG | {"control": "positive"})),
    "no concentration": plates.images(_wells(6, **DRUG)),
    "concentration zero": plates.images(_wells(6, **DRUG | {"concentration": 0.0})),
    "one dose": plates.images(_wells(6, **DRUG | {"concentration": 3.0})),
    "one time": plates.images(_wells(6, **DRUG), time=24.0),
    "all live with doses": _called(plates.images(plates.layout_96()), 20, 0),
}


@pytest.mark.parametrize("name", TOO_LITTLE)
def test_a_plate_of_too_little_gives_a_page_and_says_what_is_not_given(name, tmp_path):
    out = plates.write(tmp_path / "out", TOO_LITTLE[name])
    record = report(out)
    (only,) = record["plates"]
    assert only["quality"]["reason"] or only["quality"]["z_prime"] is not None
    html = (out / "summary.html").read_text()
    assert "nan" not in re.sub(r'"data:image[^"]*"', "", html).lower()
    if "live" in name or "dead" in name:
        assert only["edge"]["difference"] is None and "one and the same" in only["edge"]["reason"]
    assert all(fit["ic50"] is None for fit in record["doses"])


def _numbers(value, path=()):
    """Where a record holds floats: the paths to them."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
        if isinstance(part, dict | list):
            yield from _numbers(part, (*path, key))
        elif isinstance(part, float):
            yield (*path, key)


def test_any_number_of_the_record_may_be_absent(plate, tmp_path):
    out, record = plate
    paths, none = list(_numbers(record)), {"plate": [], "dose": [], "time": []}
    assert len(paths) > 20
    for absent in (None, np.nan):
        changed = json.loads(json.dumps(record))
        for *path, key in paths:
            part = changed
            for step in path:
                part = part[step]
            part[key] = absent
        images, _ = prepare(pd.read_parquet(out / "images.parquet"))
        wells = pd.read_parquet(out / "wells.parquet").assign(low=np.nan, normalised=np.nan)
        written = page.summary(tmp_path, images, wells, changed, none, out / "overlays")
        assert ">nan" not in written.read_text() and "None" not in written.read_text()


def test_a_report_that_fails_leaves_the_earlier_one_whole(tmp_path, monkeypatch):
    out = plates.write(tmp_path / "out", plates.images(plates.layout_96()[:6]))
    report(out)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    monkeypatch.setattr(page, "summary", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report(out)
    after = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert after == before and not (out / output.NEW).exists()


def test_a_run_killed_while_it_replaces_files_leaves_no_page(tmp_path):
    out = plates.write(tmp_path / "out", plates.images(plates.layout_96()[:6]))
    (out / "summary.html").mkdir()  # stands for a kill: the last step cannot be done
    with pytest.raises(OSError):
        report(out)
    assert not (out / "summary.html").is_file()


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1+2", "-2+3", "@SUM(A1)", "\t=1"])
def test_no_text_of_a_table_is_a_formula_in_a_spreadsheet(text, tmp_path):
    wells = _wells(3, **DRUG | {"compound": text, "concentration": 1.0})
    out = plates.write(tmp_path / "out", plates.images(wells))
    report(out)
    assert set(pd.read_csv(out / "wells.csv")["compound"]) == {f"'{text}"}
    assert set(pd.read_parquet(out / "wells.parquet")["compound"]) == {text}
    numbers = pd.DataFrame({"n": ["-5", "+1.5e3", "x"], "v": [-1.0, 2.0, 3.0]})
    pd.testing.assert_frame_equal(output.for_spreadsheet(numbers), numbers)
