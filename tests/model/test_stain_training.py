"""Training the stain network: its loss, its crops, and a field whose stain anybody can see."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from src.common.scoring.stain import StainFacts, build_stain
from src.common.train.crops import CropPlan, StainField, alter
from src.common.train.stain import fit_stain, freeze_early, stain_loss

SMALL = "timm:test_efficientnet"


def target(excess: float, weight: float = 1.0) -> torch.Tensor:
    return torch.tensor([excess, float(excess > 0.5), weight]).view(1, 3, 1, 1)


def out(excess: float, logit: float = 0.0) -> torch.Tensor:
    return torch.tensor([np.log(excess), logit]).float().view(1, 2, 1, 1)


def test_the_loss_is_least_at_the_mean_excess():
    two = torch.cat([target(0.2), target(1.0)], 3)
    losses = [float(stain_loss(out(e).expand(1, 2, 1, 2), two)) for e in (0.3, 0.6, 1.0)]
    assert min(losses) == losses[1]  # Poisson: the mean, so that window means are unbiased


def test_a_saturated_block_is_a_lower_bound_and_an_unknown_one_counts_nothing():
    assert float(stain_loss(out(4.0), target(2.0, -1.0))) == 0
    assert float(stain_loss(out(0.5), target(2.0, -1.0))) > 0
    assert float(stain_loss(out(0.5), target(2.0, 0.0))) == 0


def field(group: str, seed: int = 0, side: int = 160) -> StainField:
    """Noise with stained bright squares."""
    rng = np.random.default_rng(seed)
    bright = np.kron(rng.random((side // 32, side // 32)) < 0.3, np.ones((32, 32)))
    image = rng.normal(0, 0.3, (side, side)) + bright
    known = np.ones((side // 2, side // 2))
    stained = bright[::2, ::2]
    target = np.stack([2.0 * stained, stained, known]).astype(np.float32)
    return StainField(
        torch.from_numpy(image[None].astype(np.float32)), torch.from_numpy(target), group
    )


def test_a_step_shows_the_same_again_and_another_step_another():
    fields = [field("a", 0), field("b", 1)]
    plans = [CropPlan(fields, 4, 2, 64, 0.5, 1.0, seed=5) for _ in range(2)]
    assert torch.equal(plans[0][1][0], plans[1][1][0])
    assert not torch.equal(plans[0][1][0], plans[0][2][0])
    images, targets = plans[0][0]
    assert images.shape == (2, 1, 64, 64) and targets.shape == (2, 3, 16, 16)


def test_balance_draws_groups_alike():
    fields = [field("many", i) for i in range(9)] + [field("one", 9)]
    for balance, share in ((1.0, 0.5), (0.0, 0.1)):
        plan = CropPlan(fields, 1, 4, 64, balance, 0.0, seed=0)
        drawn = np.concatenate([plan.draw(np.random.default_rng(i)) for i in range(200)])
        assert (drawn == 9).mean() == pytest.approx(share, abs=0.06)


def test_target_stays_under_the_image_it_belongs_to():
    plan = CropPlan([field("a", 2)], 20, 4, 96, 0.0, 0.0, seed=1)
    for step in range(5):
        images, targets = plan[step]
        small = torch.nn.functional.avg_pool2d(images, 4)
        known = targets[:, 2:] > 0.9
        inside, outside = (small[known & (targets[:, 1:2] > t)] for t in (0.9, -1))
        assert inside.mean() > 0.7 and inside.mean() > outside.mean() + 0.2


def test_augmentation_is_off_at_strength_nought():
    images = torch.randn(2, 1, 64, 64)
    assert torch.equal(alter(images, 0.0, np.random.default_rng(0)), images)
    assert not torch.allclose(alter(images, 1.0, np.random.default_rng(0)), images)


def test_early_layers_and_statistics_stay_as_pretrained():
    net = build_stain(SMALL, StainFacts(2, 64, 1))
    freeze_early(net)
    learning = [name for name, p in net.named_parameters() if p.requires_grad]
    assert not any(name.startswith("body.layers.conv_stem") for name in learning)
    assert any(name.startswith("body.layers.blocks") for name in learning)
    assert not any(m.training for m in net.train().body.modules())


def test_what_is_stained_is_learnt_and_found_in_another_field(tmp_path):
    train = SimpleNamespace(
        lr=3e-3, betas=[0.9, 0.999], weight_decay=0.01, warmup_fraction=0.1, epochs=6, devices=1,
        samples_per_epoch=64, batch_size=8, nodes=1, workers=0, seed=1, strategy="auto",
        frozen_epochs=0, precision="32",
    )  # fmt: skip
    stain = SimpleNamespace(
        reduction=2,
        band=64,
        crop=128,
        balance=0.5,
        augmentation=0.3,
        encoder_lr=0.3,
        orientations=1,
    )
    fields = [field(f"g{i}", i) for i in range(6)]

    state, rows, last = fit_stain(SMALL, None, fields, train, stain, lambda row, epoch: None)
    assert last == 5 and rows[-1]["train_loss"] < rows[0]["train_loss"]
    again, *_ = fit_stain(SMALL, None, fields, train, stain, lambda row, epoch: None)
    assert all(torch.equal(state[k], again[k]) for k in state)
    net = build_stain(SMALL, StainFacts(2, 64, 1))
    net.load_state_dict(state)
    other = field("new", 99)
    with torch.inference_mode():
        maps = net.eval()(other.image[None])
    stained = torch.nn.functional.avg_pool2d(other.target[None, 1:2], 2)[0, 0] > 0.5
    assert maps[0, 1][stained].mean() > maps[0, 1][~stained].mean() + 1
