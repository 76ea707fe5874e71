"""The stain's background is that of the medium, however many cells glow, and what it says of
windows and pixels is exact.
"""

import numpy as np
import pytest

from src.common.acquire.simulator import plan_plate, simulate_field
from src.common.exposure.background import backgrounds, block_means, ceiling, over_blocks
from src.common.tile.measures import ratio, window_measures


def field(dead: float, background: float = 150.3, noise: float = 8.0) -> np.ndarray:
    """PI (512, 512) uint16 of which a share `dead` glows at 2 to 4 times the background."""
    random = np.random.default_rng(0)
    signal = np.full((512, 512), background)
    rows = int(512 * dead)
    signal[:rows] *= random.uniform(2, 4, (rows // 16 + 1, 32)).repeat(16, 0).repeat(16, 1)[:rows]
    return np.rint(np.maximum(random.normal(signal, noise), 1)).astype(np.uint16)


@pytest.mark.parametrize("dead", [0.0, 0.3, 0.6, 0.9])
def test_background_is_the_mediums_to_a_part_in_a_hundred_however_much_glows(dead):
    [background] = backgrounds(field(dead), [5])
    assert background == pytest.approx(150.3, rel=0.015)


def test_the_median_lies_in_the_glow_and_a_percentile_of_pixels_in_the_noise():
    mostly = field(0.6)
    assert backgrounds(mostly, [50])[0] > 250
    assert np.percentile(field(0.0), 5) < 139


def test_background_has_fractions_of_a_count():
    [dim] = backgrounds(field(0.0, background=3.4, noise=1.0), [5])
    assert dim == pytest.approx(3.4, abs=0.25) and dim != round(dim)


def test_borders_are_left_out_and_a_dark_field_has_no_background():
    pi = np.full((40, 40), 100, np.uint16)
    pi[:, :21] = 0
    assert backgrounds(pi, [5]) == [100]
    assert backgrounds(np.zeros_like(pi), [5, 50]) == [0, 0]


@pytest.mark.parametrize("factor", [1, 4, 8])
@pytest.mark.parametrize("shape", [(64, 48), (37, 51), (3, 5), (1, 8)])
def test_blocks_are_numpys_own_to_the_byte_with_borders_and_sides_no_multiple(shape, factor):
    random = np.random.default_rng(0)
    pi = random.integers(60000, 65536, shape).astype(np.uint16)  # sums beyond 16 bit
    pi[: shape[0] // 3] = 0
    padded = np.pad(pi, [(0, -length % factor) for length in shape], mode="edge")
    parts = padded.reshape(-(-shape[0] // factor), factor, -(-shape[1] // factor), factor)
    means, lit = block_means(pi, factor)
    assert means.tobytes() == (parts.sum(axis=(1, 3), dtype=np.int64) / factor**2).tobytes()
    assert lit.tobytes() == (parts.min(axis=(1, 3)) > 0).tobytes()
    gaps = np.where(parts == 0, np.nan, parts.astype(np.float32))
    found = over_blocks(np.minimum, np.where(pi == 0, np.nan, pi.astype(np.float32)), factor)
    np.testing.assert_array_equal(found, gaps.min(axis=(1, 3)))


def test_mean_pi_is_exact_and_from_16_bit_counts():
    random = np.random.default_rng(0)
    pi = random.integers(60000, 65536, (1024, 1344)).astype(np.uint16)  # sums beyond 32 bit
    corners = np.array([[0, 0, 224], [800, 1120, 224], [0, 0, 1024]])
    found = window_measures(pi, corners, 16, 5)
    expected = [pi[y : y + s, x : x + s].astype(np.int64).sum() / s**2 for y, x, s in corners]
    assert found["mean_pi"].tolist() == expected
    assert found["pi_saturated"][2] == (pi[:, :1024] == 65535).mean()
    assert found["pi_background"].tolist() == backgrounds(pi, [5]) * 3


@pytest.mark.parametrize("limit, step", [(4095, 1), (65520, 16), (1023, 1), (65535, 1)])
def test_clipping_is_found_whatever_the_type_holds(limit, step):
    random = np.random.default_rng(1)
    scene = random.gamma(2.0, limit / 8, (256, 256))
    pi = (np.minimum(scene, limit) // step * step).astype(np.uint16)
    assert ceiling(pi, 16) == limit
    share = window_measures(pi, np.array([[0, 0, 256]]), 16, 5)["pi_saturated"][0]
    assert share == pytest.approx((scene >= limit).mean())


@pytest.mark.parametrize("top", [200.0, 3000.0])
def test_a_field_that_never_clips_has_its_types_limit(top):
    pi = np.random.default_rng(2).normal(top / 2, top / 12, (256, 256)).clip(1, top)
    assert ceiling(pi.astype(np.uint16), 16) == 65535
    assert ceiling(np.full((64, 64), 7, np.uint16), 8) == 255


def test_ratio_of_blocks_with_what_is_absent_and_what_is_clipped():
    pi = np.full((21, 32), 200, np.uint16)
    pi[:4, :4] = 500
    pi[4:8, 4:8] = 65535
    pi[9, 9] = 0
    found = ratio(pi, 160.0, 16)
    assert found.shape == (6, 8) and found.dtype == np.float16
    assert found[0, 0] == 3.125 and found[5, 7] == 1.25
    assert found[1, 1] == pytest.approx(-65535 / 160, rel=1e-3)
    assert np.isnan(found[2, 2]) and np.isnan(found).sum() == 1
    assert np.isnan(ratio(pi, 0.0, 16)).all()


def test_simulated_plate_of_mostly_dead_fields_keeps_the_background_of_its_controls():
    """SYNTHETIC: where the median of treated fields lies 2 times above the medium's PI."""
    plans = plan_plate(["no_treatment", "doxo_paclitaxel"], 6, 512, 672, 3)
    found = {}
    for plan in plans:
        low, median = backgrounds(simulate_field(plan).pi, [5, 50])
        found.setdefault(plan.partition, []).append((low, median))
    control, treated = (np.median(values, axis=0) for values in found.values())
    assert 0.9 < treated[0] / control[0] < 1.35 and treated[1] / control[0] > 1.5
