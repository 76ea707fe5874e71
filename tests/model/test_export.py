"""Outside of this project: the package of the BioImage Model Zoo gives what the model gives."""

import json
import zipfile

import numpy as np
import pytest
import torch

from src.common.scoring.networks import build
from src.common.scoring.scorer import Scorer
from src.export.package import TOLERANCE, export, native, run
from src.export.torchscript import ExportError
from tests.conftest import ARCH

CONTRACT = {
    "synthetic": True, "arch": ARCH, "partition": "p", "digest": "0" * 64, "pixel_size_um": 0.3225,
    "tile": {"window": 64, "stride": 32, "unit": "px", "edge": "anchor"},
    "scaling": {"method": "percentile", "low": 0.5, "high": 99.5},
    "operating": {"temperature": 1.3, "threshold": 0.5, "live_from": 0.6, "dead_to": 0.4},
}  # fmt: skip
FACTS = {"name": "unstained-p", "version": "1"}
FIXED = {"method": "fixed", "low": 100.0, "high": 2000.0}


@pytest.fixture(scope="module", params=["levels", "last"])
def net(request):
    torch.manual_seed(0)
    net = build(ARCH, pooling=request.param).eval()
    torch.nn.init.normal_(net.head.weight, std=2.0)  # probabilities that differ between windows
    return net


@pytest.fixture(scope="module")
def package(net, tmp_path_factory):
    return export(Scorer(CONTRACT, net, None), FACTS, tmp_path_factory.mktemp("zoo") / "p.zip")


def test_the_formats_own_library_takes_the_package(package):
    from bioimageio.spec import InvalidDescr, load_description

    found = load_description(package, perform_io_checks=True)
    assert not isinstance(found, InvalidDescr) and found.validation_summary.status != "failed"
    assert found.inputs[0].axes[2].size.min == 64 and found.outputs[0].axes[2].scale == 32
    with zipfile.ZipFile(package) as files:
        text = files.read("README.md").decode()
        assert json.loads(files.read("contract.json")) == CONTRACT
    assert "SYNTHETIC" in text and "nothing abstains" in text and "0.3225 um per pixel" in text


@pytest.mark.parametrize("shape", [(64, 64), (160, 208), (300, 171)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_it_gives_what_the_model_gives_on_frames_of_any_size(net, package, shape, dtype):
    rng = np.random.default_rng(1)
    top = np.iinfo(dtype).max
    frame = (rng.gamma(2.0, top / 20, shape)).clip(0, top).astype(dtype)
    frame[: shape[0] // 8] = 0  # a border left by registration
    expected = native(Scorer(CONTRACT, net, None), frame, 64, 32)
    found = run(package, frame)
    assert found.shape == expected.shape and np.abs(found - expected).max() <= TOLERANCE
    assert shape == (64, 64) or np.ptp(expected) > 0.01


def test_fixed_counts_scale_too(net, tmp_path):
    contract = CONTRACT | {"scaling": FIXED}
    scorer = Scorer(contract, net, None)
    package = export(scorer, FACTS, tmp_path / "fixed.zip")
    frame = np.random.default_rng(2).integers(0, 4000, (128, 128)).astype(np.uint16)
    assert np.abs(run(package, frame) - native(scorer, frame, 64, 32)).max() <= TOLERANCE


def test_what_cannot_be_exported_is_said_and_leaves_no_file(net, tmp_path, monkeypatch):
    kept = tmp_path / "kept.zip"
    kept.write_text("somebody's")
    with pytest.raises(ExportError, match="exists"):
        export(Scorer(CONTRACT, net, None), FACTS, kept)
    with pytest.raises(ExportError, match="target=label"):
        export(Scorer(CONTRACT, torch.nn.Identity(), None), FACTS, tmp_path / "other.zip")
    odd = CONTRACT | {"tile": CONTRACT["tile"] | {"stride": 48}}
    with pytest.raises(ExportError, match="divides the window"):
        export(Scorer(odd, net, None), FACTS, tmp_path / "odd.zip")
    monkeypatch.setattr("src.export.package.native", lambda *_: np.ones((3, 3)))
    with pytest.raises(ExportError, match="differs"):
        export(Scorer(CONTRACT, net, None), FACTS, tmp_path / "wrong.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["kept.zip"]
