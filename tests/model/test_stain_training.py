"""Training the stain network: its loss, its views and draws, and stain that anybody can see."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from src.common.scoring.stain import StainFacts, build_stain, predict_stain
from src.common.train.stain import Draws, fit_stain, stain_loss
from src.common.train.views import altered, at_stride, read_view, view_file, write_views

SMALL = "timm:test_efficientnet"
FACTS = StainFacts(reduction=2, members=2, orientations=1)


def target(excess: float, weight: float = 1.0) -> torch.Tensor:
    return torch.tensor([excess, float(excess > 0.5), weight]).view(3, 1, 1)


def out(excess: float, logit: float = 0.0) -> torch.Tensor:
    return torch.tensor([np.log(excess), logit]).float().view(2, 1, 1)


def test_the_loss_is_least_at_the_mean_excess():
    two = torch.cat([target(0.2), target(1.0)], 2)
    losses = [float(stain_loss(out(e).expand(2, 1, 2), two)) for e in (0.3, 0.6, 1.0)]
    assert min(losses) == losses[1]  # Poisson: the mean, so that window means are unbiased


def test_a_clipped_block_is_a_lower_bound_and_an_unknown_one_counts_nothing():
    assert float(stain_loss(out(4.0), target(2.0, -1.0))) == 0
    assert float(stain_loss(out(0.5), target(2.0, -1.0))) > 0
    assert float(stain_loss(out(0.5), target(2.0, 0.0))) == 0


class Fields:
    """A store of fields of grain with bright, stained squares; the last column has no PI counts."""

    def __init__(self, names: list[str], side: int = 256):
        self.frames = {}
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


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(network, store, folder of three views of each of eight fields)."""
    names = [f"field/{i}" for i in range(8)]  # not a file name as it is
    net, store = build_stain(SMALL, FACTS), Fields(names)
    folder = tmp_path_factory.mktemp("views")
    write_views(net, store, names, 3, 0.3, 1, folder)
    return net, store, folder


def test_views_are_kept_and_the_first_is_what_prediction_sees(made):
    net, store, folder = made
    file = view_file(folder, "field/3")
    before = file.stat().st_mtime_ns
    write_views(net, store, ["field/3"], 3, 0.3, 1, folder)
    assert file.stat().st_mtime_ns == before
    plain, other = read_view(file, 0), read_view(file, 1)
    assert plain.maps[0].dtype == torch.float16 and len(plain.maps) == 3
    assert plain.target.shape[-2:] == plain.maps[0].shape[-2:]
    assert not torch.equal(plain.maps[0], other.maps[0])
    ratio = store.pi_ratio("field/3")
    assert float(plain.target[0].mean()) == pytest.approx(np.nanmean(ratio) - 1, abs=0.1)
    assert float(plain.target[2, :, -1].max()) < 1  # beside the column without counts


def test_views_do_not_depend_on_the_order_of_the_fields(made, tmp_path):
    net, store, folder = made
    write_views(net, store, ["field/5"], 3, 0.3, 1, tmp_path)
    assert view_file(tmp_path, "field/5").read_bytes() == view_file(folder, "field/5").read_bytes()


def test_the_target_stays_under_the_image_it_belongs_to():
    rng = np.random.default_rng(0)
    squares = torch.from_numpy(np.kron(rng.random((8, 8)) < 0.4, np.ones((32, 32)))).float()
    image, known = squares[None, None] * 2 - 1, torch.ones_like(squares)
    stain = torch.stack([squares, squares, known])[None]
    for _ in range(8):
        turned, moved = altered(image, stain, 0.5, rng)
        both = at_stride(
            torch.cat([turned, moved], 1), torch.Size([n // 8 for n in turned.shape[-2:]])
        )
        inside, outside = both[0][both[1] > 0.99], both[0][(both[1] < 0.01) & (both[3] > 0.99)]
        assert inside.mean() > outside.mean() + 0.5


def test_no_alteration_at_strength_nought():
    image = torch.randn(1, 1, 64, 96).clamp(-1, 1)
    same, _ = altered(image, torch.zeros(1, 3, 64, 96), 0.0, np.random.default_rng(0))
    assert torch.equal(same, image)


def test_a_step_draws_the_same_again_and_balance_draws_groups_alike(made):
    files = [("many", view_file(made[2], f"field/{i}")) for i in range(7)]
    files.append(("one", view_file(made[2], "field/7")))
    for balance, share in ((1.0, 0.5), (0.0, 0.125)):
        draws = Draws(files, 3, 4, balance, seed=5)
        drawn = np.concatenate([draws.draw(np.random.default_rng(i)) for i in range(300)])
        assert (drawn == 7).mean() == pytest.approx(share, abs=0.05)
    again = Draws(files, 3, 4, 0.0, seed=5)[2]
    assert all(
        torch.equal(a.target, b.target) for a, b in zip(again, Draws(files, 3, 4, 0.0, seed=5)[2])
    )


def test_what_is_stained_is_learnt_and_the_same_again(made):
    train = SimpleNamespace(
        lr=1e-2, betas=[0.9, 0.999], weight_decay=0.01, warmup_fraction=0.1, epochs=12, devices=1,
        samples_per_epoch=64, batch_size=8, nodes=1, seed=1, strategy="auto", frozen_epochs=0,
        precision="32",
    )  # fmt: skip
    stain = SimpleNamespace(views=3, balance=0.5)
    net, store, folder = made  # views are those of this network's own body
    fields = [(f"g{i}", view_file(folder, f"field/{i}")) for i in range(7)]
    state, rows, last = fit_stain(net, fields, train, stain, lambda row, epoch: None)
    assert last == 11 and rows[-1]["train_loss"] < rows[0]["train_loss"]
    again, *_ = fit_stain(net, fields, train, stain, lambda row, epoch: None)
    assert all(torch.equal(state[k], again[k]) for k in state)  # a repeated training is the same
    one, two = (state[f"decoders.{member}.out.weight"] for member in (0, 1))
    assert not torch.equal(one, two)
    for name in ("field/0", "field/3"):  # of training: random features need not hold in another
        maps = predict_stain(net.eval(), store.brightfield(name))
        stained = np.kron(store.pi_ratio(name) > 2, np.ones((4, 4))) > 0
        assert maps[0][stained].mean() > 1.5 * maps[0][~stained].mean()
