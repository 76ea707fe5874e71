"""Training batches: balanced, repeatable, resumable, shared among ranks."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.common.scoring.networks.backbones import facts
from src.common.scoring.networks.net import prepare
from src.common.train.loading import EpochPlan, ResumableLoader, Windows, in_order, targets

LABELS = np.array([0] * 900 + [1] * 100)


@pytest.fixture(scope="module")
def windows(live_dead):
    store, table = live_dead
    return Windows(store, table, facts("squeezenet1_1"))


def test_targets_follow_the_order_of_classes(live_dead):
    table = live_dead[1]
    assert (targets(table) == (table["label"] == "live")).all()


def test_sampling_balances_classes_and_covers_the_windows():
    rows = np.array([draw[0] for draw in EpochPlan(LABELS, 20_000, 0.0, seed=1)])
    assert abs((LABELS[rows] == 1).mean() - 0.5) < 0.015
    counts = Counter(rows.tolist())
    assert len(counts) > 990  # every window comes up sooner or later, dead ones 9 times less often
    assert max(counts.values()) < 160


def test_orientations_are_the_eight_of_a_square():
    draws = list(EpochPlan(LABELS, 4000, 0.0, seed=1))
    assert sorted(Counter(d[1] for d in draws)) == list(range(8))
    assert all((d[2], d[3]) == (1.0, 0.0) for d in draws)


def test_jitter_stays_within_its_width():
    gains, offsets = np.array([d[2:] for d in EpochPlan(LABELS, 2000, 0.2, seed=1)]).T
    assert gains.min() >= 0.8
    assert gains.max() <= 1.2
    assert np.abs(offsets).max() <= 0.2
    assert offsets.std() > 0.1


def test_one_seed_and_epoch_give_one_plan():
    plan, same, other = (EpochPlan(LABELS, 64, 0.2, seed) for seed in (1, 1, 2))
    assert list(plan) == list(same) != list(other)
    first = list(plan)
    plan.set_epoch(1)
    assert list(plan) != first
    plan.set_epoch(0)
    assert list(plan) == first


def test_zero_samples_mean_as_many_as_there_are():
    assert len(list(EpochPlan(LABELS, 0, 0.0, seed=1))) == len(LABELS)


@given(st.integers(1, 50), st.integers(1, 4))
@settings(max_examples=25)
def test_ranks_share_the_plan_without_overlap(count, ranks):
    shares = [list(EpochPlan(LABELS, count, 0.2, 3, rank, ranks)) for rank in range(ranks)]
    whole = EpochPlan(LABELS, count, 0.2, 3, 0, ranks)
    assert {len(share) for share in shares} == {len(whole)}
    assert count <= len(whole) * ranks < count + ranks
    draws = [draw for share in shares for draw in share]
    assert len(set(draws)) == len(draws)  # gains are real numbers: two draws of one window differ
    single = EpochPlan(LABELS, len(draws), 0.2, 3)
    assert sorted(single) == sorted(draws)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_at_the_very_next_batch(windows, workers):
    def loader():
        return ResumableLoader(
            windows, EpochPlan(windows.targets, 22, 0.2, 5), batch_size=4, workers=workers
        )

    whole = loader()
    whole.sampler.set_epoch(3)
    expected = list(whole)
    assert [len(labels) for _, labels in expected] == [
        4,
        4,
        4,
        4,
        4,
        2,
    ]  # the last, partial batch is there
    interrupted = loader()
    interrupted.sampler.set_epoch(3)
    batches = iter(interrupted)
    next(batches), next(batches)
    state = interrupted.state_dict()
    assert state == {"epoch": 3, "batch": 2}
    resumed = loader()
    resumed.load_state_dict(state)
    rest = list(resumed)
    assert len(rest) == 4
    for (images, labels), (wanted, wanted_labels) in zip(rest, expected[2:]):
        assert torch.equal(images, wanted)
        assert torch.equal(labels, wanted_labels)
    assert len(list(resumed)) == 6  # the next epoch is whole again


def test_a_window_is_turned_and_flipped_not_changed_otherwise(windows, live_dead):
    store, table = live_dead
    row = table.iloc[0]
    pixels = np.array(store.window(row.image_id, row.y, row.x, row["size"]))
    plain, label = windows[0]
    assert torch.equal(plain, prepare(windows.backbone, pixels[None])[0])
    assert label == int(row.label == "live")
    turned = [windows[(0, k, 1.0, 0.0)][0] for k in range(8)]
    assert torch.equal(turned[0], plain)
    for k in range(4):
        assert torch.equal(
            turned[k], prepare(windows.backbone, np.rot90(pixels, k)[None].copy())[0]
        )
        assert torch.allclose(turned[k + 4], turned[k].flip(2), atol=1e-5)
    assert torch.allclose(windows[(0, 0, 1.1, -0.1)][0], plain * 1.1 - 0.1)


@given(st.integers(2, 200), st.integers(1, 40), st.integers(1, 4))
@settings(max_examples=50)
def test_validation_shows_every_window_once_in_equal_numbers_of_batches(count, batch_size, ranks):
    if count < ranks:
        return
    shares = [
        list(in_order(range(count), batch_size, 0, rank, ranks).batch_sampler)
        for rank in range(ranks)
    ]
    assert sorted(i for share in shares for batch in share for i in batch) == list(range(count))
    assert len({len(share) for share in shares}) == 1
    room = max(
        batch_size, -(-count // (count // ranks * ranks))
    )  # few windows: fewer and larger batches
    assert all(1 <= len(batch) <= room for share in shares for batch in share)
