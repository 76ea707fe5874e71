"""Whether PI lies on bright-field: found where the images tell, left open where they do not."""

import cv2
import numpy as np
import pytest

from src.common.images import registration
from src.common.images.registration import Session, compare, notes, offset


def field(seed: int, size: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Bright-field and PI of the same dead cells, as uint16: rough in one, bright in the other."""
    rng = np.random.default_rng(seed)
    cells, rough = np.zeros((size, size), np.float32), rng.normal(0, 1, (size, size))
    for y, x in rng.integers(20, size - 20, (25, 2)):
        cv2.circle(cells, (int(x), int(y)), 14, 1.0, -1)
    bright = 3000 + 40 * rng.normal(0, 1, cells.shape) + 300 * cells * rough
    pi = 200 + 10 * rng.normal(0, 1, cells.shape) + 400 * cv2.GaussianBlur(cells, (0, 0), 4)
    return bright.astype(np.uint16), pi.astype(np.uint16)


FIELDS = [field(seed) for seed in range(4)]


def session(fields: list[tuple[np.ndarray, np.ndarray]]) -> Session:
    found = Session()
    for number, channels in enumerate(fields):
        found.add(compare(*channels), f"f{number}")
    return found


@pytest.mark.parametrize(("down", "right"), [(0, 0), (40, -64), (-120, 12)])
def test_a_common_shift_is_found_to_a_step(down, right):
    moved = [(b, np.roll(pi, (down, right), (0, 1))) for b, pi in FIELDS]
    found = offset(session(moved))
    assert found.known and found.apart == bool(down)
    assert abs(found.down - down) <= registration.STEP
    assert abs(found.right - right) <= registration.STEP


def test_the_pi_of_other_fields_is_open_and_never_a_shift():
    others = [(FIELDS[i][0], FIELDS[(i + 1) % 4][1]) for i in range(4)]
    found = session(others)
    assert not offset(found).known
    assert notes({"e": found}) == [
        "bright-field and PI lie on each other in 0 of 1 sessions; in 1 it cannot be told from the "
        "images"
    ]


def test_a_session_that_is_shifted_is_named():
    moved = session([(b, np.roll(pi, 80, 0)) for b, pi in FIELDS])
    warning, told = notes({"bad": moved, "good": session(FIELDS), "small": session(FIELDS[:2])})
    assert warning.startswith("WARNING: bad: PI lies about +80 px down")
    assert told.startswith("bright-field and PI lie on each other in 1 of 3 sessions; in 1 it")


@pytest.mark.parametrize("fill", [0, 7])
def test_images_without_detail_are_open(fill):
    flat = np.full((64, 80), fill, np.uint16)
    assert not offset(session([(flat, flat)] * 3)).known


def test_swapped_channels_are_said_with_the_first_of_them():
    swapped = [(pi, b) for b, pi in FIELDS[2:]]
    warning, _ = notes({"good": session(FIELDS), "bad": session([*FIELDS[:2], *swapped])})
    assert warning.startswith("WARNING: in 2 of 8 fields (f2, ...) bright-field looks like a stain")


def test_a_border_that_leaves_little_to_compare_leaves_it_open():
    lit = (np.arange(512) >= 400).astype(np.uint16)
    assert not offset(session([(b * lit, pi * lit) for b, pi in FIELDS])).known
