"""Training the stain network: its loss, its crops, and stain that anybody can see."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from src.common.scoring.networks.stain import StainFacts, build_stain, predict_stain, reduced
from src.common.train.crops import Crops, draw
from src.common.train.freezing import freeze
from src.common.train.stain import StainModule, fit_stain, nuclei_loss, place_loss, stain_loss

SMALL = "timm:test_efficientnet"
FACTS = StainFacts(reduction=2, orientations=1, networks=1)


def target(excess: float, weight: float = 1.0) -> torch.Tensor:
    return torch.tensor([excess, float(excess > 0.5), weight]).view(1, 3, 1, 1)


def out(excess: float, logit: float = 0.0) -> torch.Tensor:
    return torch.tensor([np.log(excess), logit]).float().view(1, 2, 1, 1)


def test_the_loss_is_least_at_the_mean_excess():
    two = torch.cat([target(0.2), target(1.0)], 3)
    losses = [float(stain_loss(out(e).expand(1, 2, 1, 2), two)) for e in (0.3, 0.6, 1.0)]
    assert min(losses) == losses[1]  # Poisson: the mean, so that window means are unbiased


def test_a_clipped_block_is_a_lower_bound_and_an_unknown_one_counts_nothing():
    assert float(stain_loss(out(4.0), target(2.0, -1.0))) == 0
    assert float(stain_loss(out(0.5), target(2.0, -1.0))) > 0
    assert float(stain_loss(out(0.5), target(2.0, 0.0))) == 0


def maps(excess: np.ndarray) -> torch.Tensor:
    """What a network says that sees this excess (h, w): its logarithm, and a logit as sure."""
    log = torch.tensor(excess).float().log()
    return torch.stack([log, 4 * (log > np.log(0.5)) - 2.0])[None]


def targets(excess: np.ndarray, known: float = 1.0) -> torch.Tensor:
    excess = torch.tensor(excess).float()
    return torch.stack([excess, (excess > 0.5).float(), torch.full_like(excess, known)])[None]


STAINED = np.kron([[2.0, 0.1], [0.1, 0.1]], np.ones((8, 8)))  # a quarter of a crop


def test_the_loss_of_place_knows_where_and_not_how_much():
    truth = targets(STAINED)
    right = place_loss(maps(STAINED), truth)
    scaled = maps(STAINED)
    scaled[:, 0] += 1.5  # a session that glows more
    torch.testing.assert_close(place_loss(scaled, truth), right)
    even = place_loss(maps(np.full_like(STAINED, 0.3)), truth)
    wrong = place_loss(maps(STAINED[::-1, ::-1].copy()), truth)
    assert right < even < wrong and float(even) == pytest.approx(0, abs=1e-5)
    for nothing in (targets(STAINED * 0), targets(STAINED, known=0.0)):
        assert float(place_loss(maps(STAINED), nothing)) == 0


class Fields:
    """A store of fields of grain with bright, stained squares; the last column has no PI counts."""

    def __init__(self, names: list[str], side: int = 256, masked: tuple[str, ...] = ()):
        self.frames, self.masked = {}, masked
        for number, name in enumerate(names):
            rng = np.random.default_rng(number)
            squares = rng.random((side // 64, side // 64)) < 0.35
            bright = np.kron(squares, np.ones((64, 64)))
            frame = rng.integers(40, 100, (side, side)) + 100 * bright
            ratio = 1 + 2 * bright[::4, ::4].astype(np.float32)
            ratio[:, -1] = np.nan
            self.frames[name] = frame.astype(np.uint8), ratio

    def brightfield(self, image_id: str) -> np.ndarray:
        return self.frames[image_id][0]

    def pi_ratio(self, image_id: str) -> np.ndarray:
        return self.frames[image_id][1]

    def pi_clipped(self, image_id: str) -> np.ndarray:
        return np.zeros(self.frames[image_id][1].shape, bool)

    def nuclei(self, image_id: str) -> np.ndarray | None:
        """Of some fields, the bright squares."""
        ratio = self.frames[image_id][1]
        return (ratio > 2).astype(np.float32) if image_id in self.masked else None


def asked(**changes) -> SimpleNamespace:
    """Parameters of section stain."""
    usual = {
        "reduction": 2, "crop": 64, "magnified": [0.5], "augmentation": 0.3, "place": 0.4,
        "nuclei": 1.0,
    }  # fmt: skip
    return SimpleNamespace(**usual | changes)


def training(**changes) -> SimpleNamespace:
    """Parameters of section train."""
    usual = {
        "lr": 1e-2, "betas": [0.9, 0.999], "weight_decay": 0.01, "warmup_fraction": 0.1,
        "epochs": 12, "devices": 1, "samples_per_epoch": 64, "batch_size": 8, "nodes": 1, "seed": 1,
        "strategy": "auto", "frozen_epochs": 0, "frozen_stages": 0, "precision": "32", "workers": 0,
    }  # fmt: skip
    return SimpleNamespace(**usual | changes)


NAMES = [f"field/{i}" for i in range(8)]


def test_the_target_stays_under_the_image_it_belongs_to():
    store, rng = Fields(NAMES), np.random.default_rng(0)
    for _ in range(8):
        image, target = draw(store, "field/3", asked(crop=96), 0.5, rng)
        assert image.shape == (1, 96, 96) and target.shape == (5, 48, 48)
        means = image.reshape(48, 2, 48, 2).mean((1, 3))
        stained, clear = target[0] > 1.9, (target[0] < 0.1) & (target[2] > 0.9)
        assert means[stained].mean() > means[clear].mean() + 0.3


def test_a_crop_without_alteration_is_the_field_itself():
    store = Fields(NAMES)
    image, target = draw(
        store, "field/0", asked(augmentation=0, crop=128), 0, np.random.default_rng(0)
    )
    assert np.allclose(image[0].numpy(), reduced(store.brightfield("field/0"), 2), atol=1e-6)
    ratio = store.pi_ratio("field/0")
    assert np.allclose(target[0][:, :-1], ratio[:, :-1] - 1, atol=1e-6)
    assert not target[2][:, -1].any() and target[2][:, :-1].all()  # where nothing was counted


def test_a_magnified_crop_shows_a_quarter_of_the_area_and_its_detail():
    store, rng = Fields(NAMES), np.random.default_rng(0)
    whole = asked(augmentation=0, crop=256, reduction=2)
    image, target = draw(store, "field/0", whole, 1, rng)
    assert np.allclose(image[0].numpy(), reduced(store.brightfield("field/0"), 1), atol=1e-6)
    assert target.shape == (5, 128, 128)
    crops = [draw(store, "field/0", asked(augmentation=0), 0.5, rng)[0] for _ in range(200)]
    grain = np.array([float((c[..., 1:] - c[..., :-1]).abs().median()) for c in crops])
    # means of blocks are smoother than pixels
    assert (grain > grain.mean()).mean() == pytest.approx(0.5, abs=0.15)
    assert grain.max() > 1.5 * grain.min()


def test_nuclei_are_asked_for_where_a_mask_tells_them_alone():
    store = Fields(NAMES, masked=("field/0",))
    crops = {}
    for name in ("field/0", "field/1"):
        plain = asked(augmentation=0, crop=128)
        crops[name] = draw(store, name, plain, 0, np.random.default_rng(0))[1]
    assert np.array_equal(crops["field/0"][3][:, :-1], store.nuclei("field/0")[:, :-1])
    assert crops["field/0"][4][:, :-1].all() and not crops["field/0"][4][:, -1].any()
    assert not crops["field/1"][3:].any()
    target = torch.stack([crops["field/0"], crops["field/1"]])
    sure = torch.stack([20 * crops["field/0"][3] - 10, torch.full((64, 64), 10.0)])[:, None]
    assert float(nuclei_loss(sure, target)) < 1e-3  # whatever is said of the field without a mask
    assert float(nuclei_loss(-sure, target)) > 5
    assert float(nuclei_loss(sure[1:], target[1:])) == 0


def test_what_lies_beyond_a_small_field_teaches_nothing():
    store = Fields(NAMES, side=64)
    image, target = draw(store, "field/0", asked(augmentation=0), 0, np.random.default_rng(0))
    assert image.shape == (1, 64, 64)
    assert not target[2][16:].any() and not target[2][:, 16:].any() and target[2][:16, :15].all()


def test_a_step_draws_the_same_again_and_no_field_twice():
    store, train, fields = Fields(NAMES), training(batch_size=4), NAMES[:7]
    crops = Crops(store, fields, train, asked())
    drawn = np.array([crops.drawn(np.random.default_rng(i)) for i in range(700)])
    assert all(len(set(batch)) == 4 for batch in drawn)
    counts = np.bincount(drawn.ravel(), minlength=7)
    assert counts / counts.sum() == pytest.approx(np.full(7, 1 / 7), abs=0.02)
    two = asked(magnified=[0.5, 0.5])
    one, same, rank, network = (
        Crops(store, fields, train, two, *which)[2] for which in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert all(torch.equal(a, b) for a, b in zip(one, same))
    assert not torch.equal(one[0], rank[0]) and not torch.equal(one[0], network[0])


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_what_is_stained_is_learnt_and_the_same_again(precision):
    store, fields = Fields(NAMES), NAMES[:7]
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        net = build_stain(SMALL, FACTS)
        train = training(precision=precision)
        runs.append(fit_stain(net, store, fields, train, asked(), lambda row, epoch: None))
    (state, rows, last), (again, *_) = runs
    assert last == 11 and rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert all(torch.equal(state[k], again[k]) for k in state)  # a repeated training is the same
    net.load_state_dict(state)
    for name in ("field/0", "field/7"):  # one of training and one that was never seen
        maps = predict_stain(net.eval(), store.brightfield(name))
        stained = np.kron(store.pi_ratio(name) > 2, np.ones((4, 4))) > 0
        assert maps[0][stained].mean() > 1.5 * maps[0][~stained].mean()


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 19, 99])  # with a tenth or 1% one step warms up
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
def test_a_short_training_has_a_schedule(steps, warmup):
    [net] = build_stain(SMALL, FACTS).networks
    train = training(warmup_fraction=warmup)
    module = StainModule(net, train, asked(), steps, 0, lambda row, epoch: None)
    made = module.configure_optimizers()
    schedule, rates = made["lr_scheduler"]["scheduler"], []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[1])
        made["optimizer"].step()
        schedule.step()
    assert min(rates) > 0 and max(rates) <= train.lr


def test_the_networks_of_an_ensemble_learn_in_turn():
    told, store = [], Fields(NAMES)
    net = build_stain(SMALL, StainFacts(2, 2, 2))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    two, train = asked(magnified=[0.5, 0.0]), training(epochs=2)
    state, rows, last = fit_stain(
        net, store, NAMES, train, two, lambda row, epoch: told.append(epoch)
    )
    assert [row["epoch"] for row in rows] == told == [0, 1, 2, 3] and last == 3
    first, second = (f"networks.{n}.out.weight" for n in (0, 1))
    assert not torch.equal(state[first], before[first])
    assert not torch.equal(state[second], before[second])
    assert not torch.equal(state[first], state[second])


@pytest.mark.parametrize("arch", ["resnet18", "tf_efficientnet_lite0", "inception_v3"])
def test_frozen_stages_stay_as_pretrained_and_the_later_ones_learn(arch):
    [net] = build_stain(arch, FACTS).networks
    freeze(net, 0)
    assert all(parameter.requires_grad for parameter in net.parameters())
    freeze(net, 2)
    first, second, third, _ = net.stages
    assert not any(p.requires_grad for stage in (first, second) for p in stage.parameters())
    assert any(p.requires_grad for p in third.parameters())
    names = [name for name, p in net.body.layers.named_parameters() if p.requires_grad]
    kept = [name for name, _ in net.body.layers.named_parameters() if name not in names]
    assert kept[0] == next(net.body.layers.named_parameters())[0], "what lies before stays as well"
