"""Sessions by their exposure: SYNTHETIC fields of sessions, called by other ids than their own."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

from src.common.exposure.session import alike, exposure, exposures, mixed, notes
from src.common.workspace.tables import EXPOSURE

LEVELS = {"a": 300, "b": 3000, "c": 9000, "d": 42000}  # median counts of four sessions


@cache
def sessions() -> pd.DataFrame:
    """Six fields of each session: noise about its level, PI background 200 counts."""
    rng = np.random.default_rng(1)
    rows = []
    for name, level in LEVELS.items():
        for n in range(6):
            dim = rng.uniform(0.95, 1.05)
            bright = rng.normal(level * dim, level / 8, (64, 64)).clip(1, 65535).astype(np.uint16)
            pi = rng.normal(200, 5, (64, 64)).astype(np.uint16)
            row = {"image_id": f"{name}{n}", "experiment": name, "brightfield_bits": 16}
            rows.append(row | exposures(bright, pi))
    return pd.DataFrame(rows)


def called(**names: str) -> pd.DataFrame:
    """The fields, the named sessions' under other ids; `#` stands for the field's parity."""
    parity = (sessions()["image_id"].str[-1].astype(int) % 2).astype(str)
    ids = sessions()["experiment"].map(lambda name: names.get(name, name))
    given = [name.replace("#", n) for name, n in zip(ids, parity)]
    return sessions().assign(experiment=given)


def test_sessions_called_by_their_own_ids_say_nothing():
    assert alike(sessions()).empty and mixed(sessions()).empty and notes(sessions()) == []


@pytest.mark.parametrize("name", LEVELS)
def test_a_session_cut_in_two_is_named_with_what_to_do(name):
    (note,) = notes(called(**{name: f"{name}-well#"}))
    assert f"experiments {name}-well0, {name}-well1 look" in note and "give them one id" in note


def test_each_session_cut_has_its_own_line_and_all_wells_stand_in_it():
    wells = sessions()["experiment"] + sessions()["image_id"].str[-1]
    said = notes(sessions().assign(experiment=wells))
    assert len(said) == len(LEVELS)
    for name, note in zip(LEVELS, said):
        assert f"{', '.join(name + str(n) for n in range(6))} look" in note


@pytest.mark.parametrize("pair", [("a", "b"), ("a", "d"), ("c", "d")])
def test_two_sessions_under_one_id_are_named_with_the_step_between_them(pair):
    frames = called(**dict.fromkeys(pair, "both"))
    (note,) = notes(frames)
    low, high = (LEVELS[name] for name in pair)
    (row,) = mixed(frames).to_dict("records")
    assert row["factor"] == pytest.approx(high / low, rel=0.15)
    assert "experiment both holds several exposures (bright-field median" in note
    assert row["image_id"] in note and row["other_id"] in note and "an id of its own" in note


def test_8_bit_is_not_like_16_bit_and_unknown_experiments_are_left_alone():
    cut = called(a="a#")
    bits = np.where(cut["experiment"] == "a1", 8, 16)
    assert notes(cut.assign(brightfield_bits=bits)) == []
    assert notes(sessions().assign(experiment="")) == []
    assert notes(pd.DataFrame(columns=["image_id", "experiment", *EXPOSURE])) == []


def test_borders_are_no_counts():
    field = np.full((8, 8), 500, np.uint16)
    field[:5] = 0
    assert exposure(field) == {"brightfield_median": 500.0, "brightfield_contrast": 0.0}
    assert exposure(np.zeros((8, 8), np.uint16))["brightfield_median"] == 0
