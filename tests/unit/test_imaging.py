"""Scaling and measures of frames against brute force and known answers."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from src.common.scoring.frames import imaging
from src.common.tile.measures import reduce_mean, reduced_size

frames = hnp.arrays(
    np.uint16, st.tuples(st.integers(8, 24), st.integers(8, 24)), elements=st.integers(0, 65535)
)


def _corners(shape: tuple[int, int], rng: np.random.Generator, count: int = 12) -> np.ndarray:
    size = rng.integers(1, min(shape) + 1, count)
    return np.stack(
        [rng.integers(0, shape[0] - size + 1), rng.integers(0, shape[1] - size + 1), size], axis=1
    )


@given(frames, st.integers(0, 2**32 - 1))
def test_window_sums_and_variances_are_those_of_numpy(frame, seed):
    corners = _corners(frame.shape, np.random.default_rng(seed))
    crops = [frame[y : y + s, x : x + s].astype(np.int64) for y, x, s in corners]
    assert imaging.window_sums(frame, corners).tolist() == [c.sum() for c in crops]
    np.testing.assert_allclose(
        imaging.window_variances(frame, corners), [c.var() for c in crops], rtol=1e-9, atol=1e-3
    )


def test_percentile_range_of_known_counts():
    frame = np.arange(1, 1001, dtype=np.uint16).reshape(25, 40)
    assert imaging.percentile_range(frame, 0, 100) == (1.0, 1000.0)
    assert imaging.percentile_range(frame, 10, 90) == (100.0, 900.0)


@given(frames.filter(lambda f: f.any()))
def test_percentile_range_ignores_zero_borders(frame):
    padded = np.pad(frame, 5)
    assert imaging.percentile_range(padded, 0.5, 99.5) == imaging.percentile_range(frame, 0.5, 99.5)


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_a_flat_frame_still_has_a_range(value):
    low, high = imaging.percentile_range(np.full((4, 4), value, np.uint16), 0.5, 99.5)
    assert low < high
    assert imaging.to_uint8(np.full((4, 4), value, np.uint16), low, high).dtype == np.uint8


def test_to_uint8_known_values():
    frame = np.array([[0, 100, 101, 355], [356, 65535, 227, 228]], np.uint16)
    assert imaging.to_uint8(frame, 100, 355).tolist() == [[0, 0, 1, 255], [255, 255, 127, 128]]


@given(frames)
def test_to_uint8_keeps_the_order_of_counts(frame):
    low, high = imaging.percentile_range(frame, 0.5, 99.5)
    scaled = imaging.to_uint8(frame, low, high).ravel()[np.argsort(frame, axis=None, kind="stable")]
    assert (np.diff(scaled.astype(int)) >= 0).all()


@given(hnp.arrays(np.uint8, (12, 15)))
def test_8_and_16_bit_frames_of_one_content_are_scaled_alike(frame):
    wide = frame.astype(np.uint16)
    bounds = imaging.percentile_range(frame, 0.5, 99.5)
    assert bounds == imaging.percentile_range(wide, 0.5, 99.5)
    np.testing.assert_array_equal(imaging.to_uint8(frame, *bounds), imaging.to_uint8(wide, *bounds))


def test_exposure_does_not_change_what_the_network_sees():
    rng = np.random.default_rng(1)
    frame = rng.integers(100, 1000, (64, 64)).astype(np.uint16)
    one, other = (
        imaging.to_uint8(f, *imaging.percentile_range(f, 0.5, 99.5)) for f in (frame, frame * 40)
    )
    assert np.abs(one.astype(int) - other).max() <= 1


def test_a_fixed_range_is_taken_as_it_is():
    assert imaging.scaling_range(np.zeros((2, 2), np.uint16), "fixed", 200, 4000) == (200.0, 4000.0)


def test_reduce_mean_of_blocks_and_padded_edges():
    frame = np.arange(30, dtype=np.uint16).reshape(5, 6)
    found = reduce_mean(frame)
    assert found.shape == (2, 2)
    assert found[0, 0] == frame[:4, :4].sum() // 16
    assert found[1, 1] == frame[4, [4, 5, 5, 5]].sum() // 4
    assert reduced_size(5, 6) == found.size


def test_focus_contrast_and_border_of_a_window():
    rng = np.random.default_rng(2)
    frame = rng.integers(0, 256, (60, 60)).astype(np.uint8)
    corners = np.array([[10, 20, 30]])
    found = imaging.bright_field_measures(frame, frame < 26, corners)
    crop = frame[10:40, 20:50]
    assert found["focus"][0] == pytest.approx(cv2.Laplacian(frame, cv2.CV_64F)[10:40, 20:50].var())
    assert found["contrast"][0] == pytest.approx(crop.std())
    assert found["border"][0] == (crop < 26).mean()


def test_focus_falls_with_blur():
    frame = np.random.default_rng(3).integers(0, 256, (64, 64)).astype(np.uint8)
    sharp, blurred = (
        imaging.bright_field_measures(f, f < 0, np.array([[0, 0, 64]]))["focus"][0]
        for f in (frame, cv2.GaussianBlur(frame, (0, 0), 2))
    )
    assert blurred < sharp / 10


def test_black_border_is_told_from_dark_spots():
    frame = np.full((100, 120), 90, np.uint8)
    frame[:2] = 0
    frame[40:48, 50:58] = 0
    border = imaging.black_border(frame)
    assert border[:2].all() and border.sum() == 2 * 120
    frame[40:49, 50:59] = 0
    assert imaging.black_border(frame).sum() == 2 * 120 + 81
