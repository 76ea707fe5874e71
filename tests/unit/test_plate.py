"""Wells, controls and plate quality on tables whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from src.assay import edge, fractions, plate
from src.assay.layout import is_outer, order, plate_format
from src.assay.wells import intervals, prepare, resemblance, well_table
from src.common.images.wells import canonical, place, row_name
from src.common.scoring.frames.windows import windows
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
    images["live_patch_fraction"] = images["live"] / 40
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


def _unequal(rng, fields: int, rho: float) -> tuple[pd.DataFrame, np.ndarray]:
    """Fields of 96 wells with 5 to 88 calls each, and the wells' true fractions."""
    truth = rng.uniform(0.03, 0.97, 96)
    well = np.repeat(np.arange(96), fields)
    called = rng.integers(5, 89, len(well))
    own = rng.beta(truth[well] * (1 - rho) / rho, (1 - truth[well]) * (1 - rho) / rho)
    live = rng.binomial(called, own)
    table = pd.DataFrame({"experiment": "", "well": well, "time": np.nan, "called": called})
    return table.assign(live_called=live), truth


@pytest.mark.parametrize("fields", [2, 4, 8])
def test_intervals_cover_the_truth_as_often_as_they_say(fields):
    """20 plates of fields of very unequal size, which one dispersion for all covers by 0.91."""
    rng, hits, middle = np.random.default_rng(fields), [], []
    for _ in range(20):
        table, truth = _unequal(rng, fields, rho=0.15)
        alike = resemblance(table)
        n = table["called"]
        noise = n * (1 + (n - 1) * alike.correlation)
        sums = table.assign(noise=noise).groupby("well")[["live_called", "called", "noise"]].sum()
        wells = pd.DataFrame({"live_patch_fraction": sums["live_called"] / sums["called"]})
        wells = wells.assign(fields=fields, effective=sums["called"] ** 2 / sums["noise"])
        low, high = intervals(wells, alike, 0.95)
        covered = (low <= truth) & (truth <= high)
        hits += covered.tolist()
        middle += covered[(truth > 0.3) & (truth < 0.7)].tolist()
    assert 0.93 <= np.mean(hits) <= 0.975  # 0.95; three standard errors of 1,920 wells are 0.015
    assert 0.92 <= np.mean(middle) <= 0.985


def test_fields_that_differ_widen_the_interval_and_copies_of_a_patch_do_not_narrow_it():
    layout = [{"well": f"A{col}", "truth": 0.5} for col in range(1, 13)]
    width = {
        rho: wells_of(plates.images(layout, rho=rho)).eval("high - low").mean()
        for rho in (0.001, 0.2)
    }  # fmt: skip
    assert width[0.2] > 2 * width[0.001]
    images = plates.images(layout, rho=0.2)
    tenfold = images.assign(live=10 * images["live"], dead=10 * images["dead"])  # called follows
    one, ten = (wells_of(table).eval("high - low").to_numpy() for table in (images, tenfold))
    np.testing.assert_allclose(ten, one, rtol=0.1)


def test_a_well_all_live_keeps_an_interval_below_one():
    layout = [{"well": "A1", "truth": 0.5}, {"well": "A2", "truth": 0.5}]
    images = plates.images(layout)
    images.loc[images["well"] == "A2", ["dead", "live_patch_fraction"]] = [0, 1.0]
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


def test_an_edge_effect_is_found_with_its_size():
    found = plate.edge_effect(rim(0.1))
    assert found["low"] < -0.1 < found["high"] < 0 and found["confounded"] == 0
    assert found["p"] < 1e-3


def test_an_edge_effect_is_found_in_5_percent_of_plates_that_have_none(monkeypatch):
    """200 plates of ten treatments, whose wells scatter as fractions do: most half-way."""
    monkeypatch.setattr(edge, "PERMUTATIONS", 400)
    rng, treatment = np.random.default_rng(0), np.repeat(np.arange(10), 6)
    level = np.linspace(0.03, 0.97, 10)[treatment]
    found = []
    for _ in range(200):
        outer = rng.permuted(np.tile([1.0, 1, 0, 0, 0, 0], (10, 1)), axis=1).ravel()
        y = level + rng.normal(0, 0.2, len(level)) * level * (1 - level)
        y -= np.bincount(treatment, y)[treatment] / 6
        _, low, high, p = edge.permuted(y, outer, treatment, 0.95)
        found.append((p < 0.05, low <= 0 <= high))
    wrong, covered = np.mean(found, axis=0)
    assert wrong <= 0.08 and covered >= 0.92  # 0.05 and 0.95; three standard errors are 0.046


def test_the_interval_of_the_edge_effect_covers_a_difference_that_is_there():
    differences = [plate.edge_effect(rim(0.1, seed)) for seed in range(30)]
    assert np.mean([row["low"] <= -0.1 <= row["high"] for row in differences]) >= 0.83


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


# --- windows flush with an edge


def _grid(height: int, width: int, size: int = 224, stride: int = 112) -> pd.DataFrame:
    return pd.DataFrame(windows(height, width, size, stride, "anchor"))


@pytest.mark.parametrize(("height", "width"), [(896, 1344), (1024, 1344), (512, 512), (224, 1030)])
def test_windows_count_in_proportion_to_the_frame_and_regular_ones_count_1(height, width):
    weight = fractions.weights(_grid(height, width), 112)
    steps = ((side - 224) / 112 + 1 for side in (height, width))
    assert weight.sum() == pytest.approx(np.prod(list(steps)))
    regular = height % 112 == width % 112 == 0
    assert (weight == 1).all() == regular


def test_the_bottom_band_does_not_count_double():
    """A frame of 1016 px: its last windows overlap the ones before by 96%."""
    table = _grid(1016, 1344).assign(verdict="cells", novelty=0.0, call="live")
    table.loc[table["y"] > 600, "call"] = "dead"
    drop = table[table["y"] % 112 == 0]
    found, without = (fractions.of_image(part, 112) for part in (table, drop))
    assert found["dead"] == without["dead"] + 11  # the flush row is called, and in the counts
    assert found["live_patch_fraction"] == pytest.approx(without["live_patch_fraction"], abs=0.01)
