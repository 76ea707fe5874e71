"""Inference over windows, and the scorer that travels inside a registered model."""

import base64
import json
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from src.common.scoring.emptiness import EmptyFilter
from src.common.scoring.networks.inference import embed, load_model, predict
from src.common.scoring.networks.net import build
from src.common.scoring.networks.overview import features_of
from src.common.scoring.novelty import Novelty, unit
from src.common.scoring.pyfunc import LiveDeadModel, decode
from src.common.scoring.scorer import WINDOW_COLUMNS, RefusedFrame, Scorer
from tests.conftest import ARCH, REPO, write_store

CONTRACT = {
    "arch": ARCH,
    "pooling": "last",
    "pixel_size_um": 0.5,
    "tile": {"window": 64, "stride": 32, "unit": "px", "edge": "anchor"},
    "scaling": {"method": "percentile", "low": 0.5, "high": 99.5},
    "operating": {"temperature": 1.5, "threshold": 0.5, "live_from": 0.4, "dead_to": 0.6},
}
RULES = {
    "method": "rules",
    "arch": ARCH,
    "limits": {"detail": 12.0, "sharpness": 0.01, "border": 0.01},
}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build(ARCH).eval()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A store of two frame sizes, and windows of two sizes in no order."""
    rng = np.random.default_rng(0)
    frames = {"a": (130, 200), "b": (90, 140)}
    store = write_store(
        tmp_path_factory.mktemp("mixed"),
        {name: rng.integers(0, 256, shape).astype(np.uint8) for name, shape in frames.items()},
    )
    rows = [
        (name, y, x, size)
        for name in frames
        for y in (0, 20)
        for x in (0, 30, 70)
        for size in (64, 48)
    ]
    table = pd.DataFrame(rows, columns=["image_id", "y", "x", "size"]).sample(
        frac=1, random_state=1
    )
    return store, table


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_batch_size_does_not_change_results_nor_their_order(net, mixed, batch_size):
    store, table = mixed
    singly = np.concatenate(
        [predict(net, store, table.iloc[[i]], 1, None) for i in range(len(table))]
    )
    found = predict(net, store, table, batch_size, None)
    assert found.shape == (len(table), 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, singly, atol=2e-5)
    assert (
        np.ptp(singly[:, 0]) > 20 * np.abs(found - singly).max()
    )  # windows differ, so an order lost would show


def test_features_are_what_the_head_sees(net, mixed):
    store, table = mixed
    features = torch.from_numpy(embed(net, store, table, 8, None))
    with torch.no_grad():
        logits = net.head(features).numpy()
    np.testing.assert_allclose(logits, predict(net, store, table, 8, None), atol=1e-4)


def test_a_saved_model_is_loaded_with_its_backbone(net, tmp_path, mixed):
    save_file(
        {k: v.contiguous() for k, v in net.state_dict().items()}, tmp_path / "model.safetensors"
    )
    store, table = mixed
    np.testing.assert_array_equal(
        predict(load_model(tmp_path, {"arch": ARCH, "pooling": "last"}), store, table, 8, None),
        predict(net, store, table, 8, None),
    )


@pytest.fixture
def scorer(net, tmp_path):
    """A scorer loaded from a folder, as a registered model carries it; `scorer(tile={...})` changes
    its contract.
    """
    for name in ("net", "filter"):
        (tmp_path / name).mkdir()
    save_file(
        {k: v.contiguous() for k, v in net.state_dict().items()},
        tmp_path / "net" / "model.safetensors",
    )
    EmptyFilter(RULES).save(tmp_path / "filter")

    def load(**changes) -> Scorer:
        (tmp_path / "contract.json").write_text(json.dumps(CONTRACT | changes))
        return Scorer.load(tmp_path)

    return load


@pytest.fixture(scope="module")
def frame():
    """Grain on the left, nothing but faint noise on the right, and a black border below: (170, 250)
    uint16.
    """
    rng = np.random.default_rng(3)
    counts = rng.integers(1000, 4000, (170, 250))
    counts[:, 120:] = 2500 + rng.integers(0, 60, (170, 130))
    counts[150:] = 0
    return counts.astype(np.uint16)


def test_a_frame_becomes_a_table_that_covers_it(scorer, frame):
    table = scorer().score(frame, 0.5)
    assert list(table.columns) == WINDOW_COLUMNS
    covered = np.zeros(frame.shape, bool)
    for w in table.itertuples():
        covered[w.y : w.y + w.size, w.x : w.x + w.size] = True
    assert covered.all()
    assert set(table["verdict"]) == {"cells", "empty", "unusable"}


def test_windows_without_cells_are_not_called(scorer, frame):
    table = scorer().score(frame, 0.5)
    cells = table["verdict"] == "cells"
    assert cells.any() and table.loc[cells, "live_probability"].notna().all()
    assert set(table.loc[cells, "call"]) <= {"live", "dead", "abstain"}
    assert table.loc[~cells, "live_probability"].isna().all()
    assert (table.loc[~cells, "call"] == "none").all()
    bordered = table["y"] + table["size"] > 150 + 2  # more than 1% of a window of 64 px
    assert (table.loc[bordered, "verdict"] == "unusable").all()


def test_calls_follow_the_operating_points(scorer, frame):
    always = {"temperature": 1.0, "threshold": 0.5, "live_from": 0.0, "dead_to": -1.0}
    never = {"temperature": 1.0, "threshold": 0.5, "live_from": 2.0, "dead_to": -1.0}
    for operating, call in ((always, "live"), (never, "abstain")):
        table = scorer(operating=operating).score(frame, 0.5)
        assert set(table.loc[table["verdict"] == "cells", "call"]) == {call}


def test_8_and_16_bit_of_one_content_give_the_same_table(scorer):
    frame = np.random.default_rng(4).integers(1, 256, (100, 130)).astype(np.uint8)
    wide = scorer().score(frame.astype(np.uint16), 0.5)
    pd.testing.assert_frame_equal(scorer().score(frame, 0.5), wide)
    pd.testing.assert_frame_equal(scorer().score(frame.astype(np.int64), 0.5), wide)
    brighter = scorer().score(
        frame.astype(np.uint16) * 257, 0.5
    )  # the same picture, stretched to 16 bit
    assert (brighter[["verdict", "call"]] == wide[["verdict", "call"]]).all(axis=None)


def test_scoring_is_that_of_training(scorer, net, tmp_path):
    """The table's probabilities are the calibrated logits that inference gives on the stored
    windows.
    """
    frame = np.random.default_rng(5).integers(0, 256, (96, 128)).astype(np.uint8)
    frame.flat[:200] = np.repeat([0, 255], 100)  # its percentiles 0.5 and 99.5 are then 1..255
    fixed = {"method": "fixed", "low": 0.0, "high": 255.0}
    table = scorer(scaling=fixed).score(frame, 0.5)
    cells = table[table["verdict"] == "cells"].assign(image_id="f")
    assert len(cells)
    logits = predict(net, write_store(tmp_path / "store", {"f": frame}), cells, 8, None).astype(
        float
    )
    expected = 1 / (
        1 + np.exp(-(logits[:, 1] - logits[:, 0]) / CONTRACT["operating"]["temperature"])
    )
    np.testing.assert_allclose(cells["live_probability"], expected, atol=1e-5)


def test_cells_that_are_out_of_focus_are_unusable_whatever_the_filter_says(scorer):
    spots = np.kron(
        np.random.default_rng(6).integers(1000, 4000, (20, 20)), np.ones((8, 8))
    ).astype(np.uint16)
    noise = np.random.default_rng(7).normal(0, 30, spots.shape)
    blurred = (cv2.GaussianBlur(spots.astype(float), (0, 0), 5) + noise).astype(
        np.uint16
    )  # noise stays sharp
    assert set(scorer().score(blurred, 0.5)["verdict"]) == {
        "cells"
    }  # scaling to 8 bit gives contrast back
    limit = scorer(least_sharpness=0.1)
    table = limit.score(blurred, 0.5)
    assert set(table["verdict"]) == {"unusable"}
    assert set(table["call"]) == {"none"}
    assert set(limit.score(spots, 0.5)["verdict"]) == {"cells"}


def test_novelty_is_that_of_the_filters_frozen_features(scorer, net, frame, tmp_path):
    """Zero distance to the windows in the bank, and none where there are no cells; a model without
    a bank says NaN.
    """
    plain = scorer().score(frame, 0.5)
    assert plain["novelty"].isna().all()
    state = {k: v.contiguous() for k, v in net.body.layers.state_dict().items()}
    save_file(state, tmp_path / "filter" / "model.safetensors")
    Novelty(np.eye(net.backbone.feature_dim, dtype=np.float32)[:4], 0.5, 1).save(tmp_path)
    far = scorer().score(frame, 0.5)
    cells = far["verdict"] == "cells"
    assert (far.loc[cells, "novelty"] > 1).all()
    assert far.loc[~cells, "novelty"].isna().all()
    pd.testing.assert_frame_equal(
        far.drop(columns="novelty"), plain.drop(columns="novelty")
    )  # calls stay the same
    known = scorer(scaling={"method": "fixed", "low": 0, "high": 255})
    crops = np.random.default_rng(8).integers(0, 256, (1, 64, 64)).astype(np.uint8)
    Novelty(
        unit(features_of(known.filter_net, crops[0], np.array([[0, 0, 64]]))).astype(np.float32),
        0.5,
        1,
    ).save(tmp_path)
    near = scorer(scaling={"method": "fixed", "low": 0, "high": 255}).score(crops[0], 0.5)
    assert near["novelty"].tolist() == pytest.approx([0.0], abs=1e-3)


def test_a_compiled_scorer_says_the_same(scorer, net, frame, tmp_path):
    state = {k: v.contiguous() for k, v in net.body.layers.state_dict().items()}
    save_file(state, tmp_path / "filter" / "model.safetensors")
    Novelty(np.eye(net.backbone.feature_dim, dtype=np.float32)[:4], 0.5, 1).save(tmp_path)
    plain = scorer()
    found, wanted = plain.compiled().score(frame, 0.5), plain.score(frame, 0.5)
    assert wanted["live_probability"].nunique() > 3 and wanted["novelty"].notna().any()
    pd.testing.assert_frame_equal(found, wanted, atol=1e-5)


@pytest.mark.parametrize("pixel_size", [0.5, 0.54, 0.46])
def test_pixel_sizes_within_a_tenth_are_taken(scorer, frame, pixel_size):
    assert len(scorer().score(frame, pixel_size))


@pytest.mark.parametrize(
    ("pixel_size", "message"),
    [
        (0.6, "0.6 um per pixel, the model was trained at 0.5"),
        (None, "not given"),
        (-0.5, "is -0.5"),
    ],
)
def test_other_pixel_sizes_are_refused(scorer, frame, pixel_size, message):
    with pytest.raises(RefusedFrame, match=message):
        scorer().score(frame, pixel_size)


def test_a_frame_without_a_name_gets_its_row_number(scorer, frame):
    model = LiveDeadModel()
    model.scorer = scorer()
    names = ["a", None, np.nan, "", "b"]
    frames = pd.DataFrame({"image_id": names, "image": [frame] * 5, "pixel_size_um": 0.5})
    assert model.predict(None, frames)["image_id"].unique().tolist() == ["a", "1", "2", "3", "b"]


def test_micrometre_windows_follow_the_frames_pixel_size(scorer, frame):
    tile = {"window": 32, "stride": 16, "unit": "um", "edge": "anchor"}
    assert set(scorer(tile=tile).score(frame, 0.5)["size"]) == {64}
    assert set(scorer(tile=tile).score(frame, 0.4)["size"]) == {80}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((100, 100, 3), np.uint8), "one bright-field channel"),
        (np.zeros((100, 100), np.float32), "raw 8 or 16 bit counts"),
        (np.full((100, 100), -1), "raw 8 or 16 bit counts"),
        (np.full((100, 100), 70000), "raw 8 or 16 bit counts"),
        (np.ones((100, 100), bool), "raw 8 or 16 bit counts"),
        (np.zeros((63, 100), np.uint16), "less than one window of 64 x 64"),
        (np.zeros((0, 0), np.uint16), "less than one window"),
    ],
)
def test_what_is_no_raw_frame_is_refused(scorer, wrong, message):
    with pytest.raises(RefusedFrame, match=message):
        scorer().score(wrong, 0.5)


def test_an_all_black_frame_is_unusable_not_an_error(scorer):
    table = scorer().score(np.zeros((100, 100), np.uint16), 0.5)
    assert set(table["verdict"]) == {"unusable"}


def test_bytes_that_are_no_image_are_refused():
    with pytest.raises(RefusedFrame, match="does not begin as a TIFF or PNG"):
        decode(b"hello")


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"", "there are no bytes"),
        ("", "there are no bytes"),
        ("abc", "not base64"),
        ("data:png;base64,A", "not base64"),
    ],
)
def test_bytes_that_are_not_there_or_no_base64_are_refused_in_words(sent, message):
    with pytest.raises(RefusedFrame, match=message):
        decode(sent)


def test_base64_with_line_ends_is_read():
    image = np.arange(64, dtype=np.uint16).reshape(8, 8)
    sent = base64.encodebytes(cv2.imencode(".png", image)[1].tobytes()).decode()
    np.testing.assert_array_equal(decode(sent)[0], image)


def test_floats_within_range_are_refused_for_what_they_are(scorer):
    with pytest.raises(RefusedFrame, match="not float64: give the camera's counts") as error:
        scorer().score(np.full((100, 100), 300.0), 0.5)
    assert "0..65535" not in str(error.value)
    with pytest.raises(RefusedFrame, match=r"within 0\.\.65535, not 70000 to 70000"):
        scorer().score(np.full((100, 100), 70000), 0.5)


def test_whoever_loads_a_model_hears_nothing_of_its_code():
    """MLflow's advice to authors, which a user of the model alone would see."""
    words = [sys.executable, "-c", "import src.common.scoring.pyfunc"]
    done = subprocess.run(words, cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stderr == ""
