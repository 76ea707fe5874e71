"""Wells, controls and plate quality on tables whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from src.assay import plate
from src.assay.layout import canonical, is_outer, order, place, plate_format, row_name
from src.assay.wells import prepare, well_table
from tests import plates


def wells_of(images: pd.DataFrame) -> pd.DataFrame:
    return plate.normalise(well_table(prepare(images)[0])[0])


def simple(values: dict[str, float], **facts) -> pd.DataFrame:
    """A table of wells with these live-patch fractions."""
    known = {
        "experiment": "",
        "time": np.nan,
        "compound": "",
        "concentration": np.nan,
        "control": "",
    } | facts
    return pd.DataFrame(
        {"well": list(values), "live_patch_fraction": list(values.values()), **known}
    )


# --- layout


@pytest.mark.parametrize(
    ("text", "name"), [("a01", "A1"), ("H12", "H12"), (" p24 ", "P24"), ("slide-2", "slide-2")]
)
def test_wells_are_named_without_padding(text, name):
    assert canonical(text) == name


def test_places_and_their_names_agree():
    assert [place(name) for name in ("A1", "P24", "AF48", "A0", "well 3")] == [
        (0, 0),
        (15, 23),
        (31, 47),
        None,
        None,
    ]
    assert [row_name(row) for row in (0, 15, 26, 31)] == ["A", "P", "AA", "AF"]


@pytest.mark.parametrize(
    ("wells", "format"),
    [
        (["A1"], 96),
        (["H12", "A1"], 96),
        (["I1"], 384),
        (["A13"], 384),
        (["P25"], 1536),
        (["A1", "left"], None),
    ],
)
def test_the_format_is_the_smallest_that_holds_all_wells(wells, format):
    assert plate_format(pd.Series(wells)) == format


def test_the_rim_depends_on_the_format():
    assert is_outer("H5", 96) and not is_outer("H5", 384)
    assert sorted(["B1", "A10", "A2"], key=order) == ["A2", "A10", "B1"]


# --- wells


def test_a_well_sums_its_fields_and_leaves_out_what_is_flagged_or_refused():
    images = plates.images([{"well": "A01", "truth": 0.5}], fields=4)
    images[["live", "dead", "abstain"]] = [[10, 30, 1], [30, 10, 2], [20, 20, 3], [40, 0, 4]]
    images.loc[3, "status"] = "flagged"
    (row,) = wells_of(images).to_dict("records")
    assert (row["well"], row["fields"], row["left_out"]) == ("A1", 3, 1)
    assert (row["live"], row["dead"], row["abstain"], row["live_patch_fraction"]) == (
        60,
        60,
        6,
        0.5,
    )


def test_a_well_with_nothing_called_or_nothing_scored_has_no_fraction():
    images = plates.images([{"well": "A1", "truth": 0.5}, {"well": "A2", "truth": 0.5}], fields=2)
    images.loc[images["well"] == "A1", ["live", "dead"]] = 0
    images.loc[images["well"] == "A2", "status"] = "refused"
    table = wells_of(images)
    assert table["live_patch_fraction"].isna().all() and table["fields"].tolist() == [0, 0]
    assert table["left_out"].tolist() == [0, 2]


def test_images_of_one_position_are_one_field():
    images = plates.images([{"well": "A1", "truth": 0.5}], fields=4).assign(
        position=["p1", "p1", "p2", "p2"]
    )
    assert wells_of(images)["fields"].tolist() == [2]


def test_one_field_has_no_interval():
    table = wells_of(plates.images([{"well": "A1", "truth": 0.5}], fields=1))
    assert table[["low", "high"]].isna().all(axis=None)


def test_two_plates_with_the_same_wells_stay_two_wells():
    layout = [{"well": "A1", "truth": 0.2}]
    images = pd.concat(
        [plates.images(layout, experiment="one"), plates.images(layout, experiment="two")]
    )
    assert len(wells_of(images)) == 2


@pytest.mark.parametrize("fields", [2, 3])
def test_intervals_cover_the_truth_as_often_as_they_say(fields):
    rng, hits = np.random.default_rng(0), []
    for seed in range(6):
        layout = [
            {"well": f"{row}{col}", "truth": rng.uniform(0.03, 0.97)}
            for row in "ABCDEFGH"
            for col in range(1, 13)
        ]
        table = wells_of(plates.images(layout, fields, seed, rho=0.15))
        truth = table["well"].map({well["well"]: well["truth"] for well in layout})
        hits += (table["low"].le(truth) & table["high"].ge(truth)).tolist()
    assert 0.93 <= np.mean(hits) <= 0.985  # 576 wells: three standard errors are 0.027


def test_fields_that_differ_widen_the_interval_and_copies_of_a_patch_do_not_narrow_it():
    layout = [{"well": f"A{col}", "truth": 0.5} for col in range(1, 13)]
    width = {
        rho: wells_of(plates.images(layout, rho=rho)).eval("high - low").mean() for rho in (0.001, 0.2)
    }  # fmt: skip
    assert width[0.2] > 2 * width[0.001]
    images = plates.images(layout, rho=0.2)
    tenfold = images.assign(live=10 * images["live"], dead=10 * images["dead"])
    one, ten = (wells_of(table).eval("high - low").to_numpy() for table in (images, tenfold))
    np.testing.assert_allclose(ten, one, rtol=0.02)


def test_a_well_all_live_keeps_an_interval_below_one():
    layout = [{"well": "A1", "truth": 0.5}, {"well": "A2", "truth": 0.5}]
    images = plates.images(layout)
    images.loc[images["well"] == "A2", "dead"] = 0
    row = wells_of(images).set_index("well").loc["A2"]
    assert row["live_patch_fraction"] == 1 and row["high"] == 1 and row["low"] < 0.98


def test_what_the_images_of_a_well_disagree_on_is_unknown_and_said():
    images = plates.images(
        [{"well": "B2", "truth": 0.5, "compound": "x", "concentration": 1.0, "control": ""}]
    )
    images.loc[0, "concentration"] = 2.0
    table, _, remarks = well_table(prepare(images)[0])
    assert np.isnan(table["concentration"][0]) and table["compound"][0] == "x"
    assert len(remarks) == 1 and "B2" in remarks[0] and "concentration" in remarks[0]


def test_small_concentrations_are_not_rounded_away():
    well = {"well": "A1", "truth": 0.5, "compound": "x", "concentration": 3e-9, "control": ""}
    assert wells_of(plates.images([well]))["concentration"].tolist() == [3e-9]


@pytest.mark.parametrize(
    ("time", "day", "column"), [(2.0, 1.0, "time"), (np.nan, 4.0, "day"), (np.nan, np.nan, "")]
)
def test_the_day_stands_in_for_a_missing_time(time, day, column):
    images, found = prepare(
        plates.images([{"well": "A1", "truth": 0.5}]).assign(time=time, day=day)
    )
    assert found == column and np.array_equal(
        images["time"][0], time if time == time else day, equal_nan=True
    )


# --- controls


def test_normalised_is_0_at_the_positive_and_1_at_the_negative_controls_of_each_plate():
    table = wells_of(plates.images(plates.layout_96()))
    means = table.groupby("control")["normalised"].mean()
    assert means["negative"] == pytest.approx(1, abs=1e-6) and means["positive"] == pytest.approx(
        0, abs=1e-6
    )


def test_without_positive_controls_zero_is_no_live_patch():
    zero, one, text = plate.scale(np.array([0.8, 0.9]), np.array([]))
    assert (zero, one) == (0, pytest.approx(0.85)) and "no live patch" in text


@pytest.mark.parametrize(("negative", "positive"), [([], [0.1]), ([0.1, 0.2], [0.6])])
def test_no_normalisation_without_or_with_inverted_controls(negative, positive):
    zero, one, text = plate.scale(np.array(negative), np.array(positive))
    assert np.isnan(zero) and np.isnan(one) and text.startswith("not given")


def test_z_prime_of_known_controls():
    found = plate.quality(np.array([0.8, 0.9, 1.0]), np.array([0.1, 0.2, 0.3]))
    assert found["z_prime"] == pytest.approx(1 - 3 * 0.2 / 0.7)
    assert found["robust_z_prime"] == pytest.approx(1 - 3 * 2 * 1.4826 * 0.1 / 0.7)
    assert found["ssmd"] == pytest.approx(0.7 / np.sqrt(0.02))


@pytest.mark.parametrize(
    ("negative", "positive", "reason"),
    [
        ([0.9, 0.9], [0.1] * 3, "2 negative"),
        ([0.9] * 3, [], "0 positive"),
        ([0.1] * 3, [0.9] * 3, "layout"),
    ],
)
def test_no_z_prime_without_enough_or_with_inverted_controls(negative, positive, reason):
    found = plate.quality(np.array(negative), np.array(positive))
    assert found["z_prime"] is None and reason in found["reason"]


# --- edge


def rim(shift: float, seed: int = 0, confounded: bool = False) -> pd.DataFrame:
    """A full 96-well plate of two treatments; outer wells are lower by `shift`."""
    rng, parts = np.random.default_rng(seed), []
    names = [f"{row}{col}" for row in "ABCDEFGH" for col in range(1, 13)]
    for compound, level in (("x", 0.8), ("y", 0.3)):
        mine = [
            n
            for n in names
            if (is_outer(n, 96) if confounded else int(n[1:]) <= 6) == (compound == "x")
        ]
        values = {n: level - shift * is_outer(n, 96) + rng.normal(0, 0.05) for n in mine}
        parts.append(simple(values, compound=compound))
    return pd.concat(parts)


def test_an_edge_effect_is_found_with_its_size_and_none_where_there_is_none():
    found = plate.edge_effect(rim(0.1))
    assert (
        found["low"] < -0.1 < found["high"] < 0 and found["p"] < 1e-6 and found["confounded"] == 0
    )
    inside = [plate.edge_effect(rim(0.0, seed)) for seed in range(120)]
    assert 0.9 <= np.mean([row["low"] <= 0 <= row["high"] for row in inside]) <= 0.99
    assert np.mean([row["p"] < 0.05 for row in inside]) < 0.1


def test_an_edge_confounded_with_the_treatment_is_not_called_an_edge_effect():
    found = plate.edge_effect(rim(0.2, confounded=True))
    assert found["difference"] is None and "layout" in found["reason"]


def test_wells_of_treatments_on_one_side_only_are_counted_as_confounded():
    both = simple({"A1": 0.5, "A2": 0.52, "B2": 0.6, "C3": 0.62}, compound="x")
    found = plate.edge_effect(
        pd.concat([both, simple({"H1": 0.1, "H2": 0.1}, compound="rim only")])
    )
    assert found["difference"] == pytest.approx(-0.1) and found["confounded"] == 2
    assert plate.edge_effect(simple({"left": 0.5}))["difference"] is None
