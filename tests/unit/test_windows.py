"""Window geometry: the paper's count, and what holds for frames of any size."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.common.images.field import Frame, Refused
from src.common.images.files import FileField, check_frame
from src.common.scoring.frames.windows import WindowError, in_pixels, remainder, starts, windows

lengths, sizes, strides = st.integers(1, 300), st.integers(1, 90), st.integers(1, 90)


def test_the_papers_frame_has_88_windows():
    found = windows(1024, 1344, 224, 112)
    assert len(found) == 88
    assert (found[0].y, found[0].x, found[-1].row, found[-1].col) == (0, 0, 7, 10)
    assert (found[-1].y, found[-1].x) == (784, 1120)
    assert remainder(1344, 224, 112) == 0
    assert remainder(1024, 224, 112) == 16


def test_windows_are_in_row_major_order():
    corners = [(w.y, w.x) for w in windows(300, 400, 100, 90, "anchor")]
    assert corners == sorted(corners)


@given(lengths, sizes, strides, st.sampled_from(["drop", "anchor"]))
def test_windows_lie_inside_and_advance(length, size, stride, edge):
    found = starts(length, size, stride, edge)
    assert all(first >= 0 and first + size <= length for first in found)
    assert found == sorted(set(found))
    assert bool(found) == (length >= size)


@given(lengths, lengths, st.integers(10, 90), st.data())
def test_anchor_covers_every_pixel(height, width, size, data):
    stride = data.draw(st.integers(5, size))
    covered = np.zeros((height, width), bool)
    for w in windows(height, width, size, stride, "anchor"):
        covered[w.y : w.y + w.size, w.x : w.x + w.size] = True
    assert covered.all() == (min(height, width) >= size)


@given(lengths, sizes, strides)
def test_drop_leaves_less_than_a_stride_which_remainder_tells(length, size, stride):
    found = starts(length, size, stride)
    if found:
        assert remainder(length, size, stride) == length - (found[-1] + size) < stride
        assert remainder(length, size, stride, "anchor") == 0
    else:
        assert remainder(length, size, stride) == length


@given(lengths, lengths, sizes, strides, st.sampled_from(["drop", "anchor"]))
def test_windows_of_a_frame_are_inside_and_leave_what_remainder_says(
    height, width, size, stride, edge
):
    covered = np.zeros((height, width), bool)
    found = windows(height, width, size, stride, edge)
    for w in found:
        assert 0 <= w.y <= height - size and 0 <= w.x <= width - size and w.size == size
        covered[w.y : w.y + size, w.x : w.x + size] = True
    assert len({(w.y, w.x) for w in found}) == len({(w.row, w.col) for w in found}) == len(found)
    assert bool(found) == (min(height, width) >= size)
    if found and stride <= size:
        ends = (length - remainder(length, size, stride, edge) for length in (height, width))
        down, right = ends
        assert covered[:down, :right].all()
        assert not covered[down:].any() and not covered[:, right:].any()


@given(lengths, st.integers(-3, 3), st.integers(-3, 3), st.sampled_from(["drop", "anchor"]))
def test_a_window_or_stride_below_a_pixel_is_refused(length, size, stride, edge):
    if min(size, stride) >= 1:
        assert starts(length, size, stride, edge) is not None
        return
    with pytest.raises(WindowError, match=f"at least 1 pixel, not {size} and {stride}"):
        windows(length, length, size, stride, edge)


@given(st.integers(2, 60), st.integers(3, 60), st.integers(1, 60))
def test_a_frame_smaller_than_the_window_is_refused_and_no_other(height, width, size):
    grey = np.arange(height * width, dtype=np.uint16).reshape(height, width) % 999 + 1
    entry = FileField(image_id="f", partition="arm", brightfield=Path("b.tif"), pi=Path("p.tif"))
    try:
        check_frame(Frame(grey, grey), entry, size)
        refused = ""
    except Refused as error:
        refused = str(error)
    assert (f"holds no patch of {size} px" in refused) == (min(height, width) < size)


def test_micrometres_become_pixels_of_each_frame():
    assert in_pixels(72.24, "um", 0.3225) == 224
    assert in_pixels(72.24, "um", 0.645) == 112
    assert in_pixels(224, "px", None) == 224


@pytest.mark.parametrize("pixel_size", [None, 0.0, -1.0, float("nan")])
def test_micrometres_without_a_pixel_size_are_refused(pixel_size):
    with pytest.raises(ValueError, match="pixel size is not known"):
        in_pixels(72.24, "um", pixel_size)


def test_what_cannot_be_a_window_is_refused():
    with pytest.raises(ValueError, match="whole"):
        in_pixels(22.5, "px", None)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        starts(100, 10, 0)
