"""Outside of this project: the package of the BioImage Model Zoo gives what the model gives."""

import json
import zipfile

import numpy as np
import pytest
import torch

from src.assay.model import load
from src.common.scoring.emptiness import EmptyFilter
from src.common.scoring.networks.net import build
from src.common.scoring.networks.stain import StainFacts, build_stain
from src.common.scoring.scorer import Scorer
from src.export.frames import ExportError
from src.export.package import export, exported, run
from tests.conftest import ARCH
from tests.kill import on_a_disk
from tests.pipeline.test_assay_score import save_model

CONTRACT = {
    "synthetic": True, "arch": ARCH, "partition": "p", "digest": "0" * 64, "pixel_size_um": 0.3225,
    "tile": {"window": 64, "stride": 32, "unit": "px", "edge": "anchor"},
    "scaling": {"method": "percentile", "low": 0.5, "high": 99.5},
    "operating": {"temperature": 1.3, "threshold": 0.5, "live_from": 0.6, "dead_to": 0.4},
}  # fmt: skip
FACTS = {"name": "unstained-p", "version": "1"}
FIXED = {"method": "fixed", "low": 100.0, "high": 2000.0}


STAIN = CONTRACT | {"target": "stain"}
NO_FILTER = EmptyFilter({"method": "rules"})


@pytest.fixture(scope="module", params=["levels", "last", "stain"])
def scorer(request):
    torch.manual_seed(0)
    if request.param == "stain":
        net = build_stain("timm:mobilenetv3_small_050", StainFacts(2, 4, 2)).eval()
        return Scorer(STAIN, net, NO_FILTER)
    net = build(ARCH, pooling=request.param).eval()
    torch.nn.init.normal_(net.head.weight, std=2.0)  # probabilities that differ between windows
    return Scorer(CONTRACT, net, NO_FILTER)


@pytest.fixture(scope="module")
def package(scorer, tmp_path_factory):
    return export(scorer, FACTS, tmp_path_factory.mktemp("zoo") / "p.zip")


def test_the_formats_own_library_takes_the_package(scorer, package):
    from bioimageio.spec import InvalidDescr, load_description

    found = load_description(package, perform_io_checks=True)
    assert not isinstance(found, InvalidDescr) and found.validation_summary.status != "failed"
    stain = "target" in scorer.contract
    sides = found.inputs[0].axes[2].size.min, found.outputs[0].axes[2].scale
    assert sides == ((256, 1) if stain else (64, 32))
    with zipfile.ZipFile(package) as files:
        text = files.read("README.md").decode()
        assert json.loads(files.read("contract.json")) == scorer.contract
    assert "SYNTHETIC" in text and "0.3225 um per pixel" in text
    assert ("PI over background" if stain else "nothing\nabstains") in text


@pytest.mark.parametrize("steps", [(0, 0), (2, 3), (6, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_it_gives_what_the_model_gives_on_frames_of_any_size(scorer, package, steps, dtype):
    made, rng = exported(scorer), np.random.default_rng(1)
    shape, top = [made.least + n * made.step for n in steps], np.iinfo(dtype).max
    frame = rng.gamma(2.0, top / 20, shape).clip(0, top).astype(dtype)
    frame[: shape[0] // 8] = 0  # a border left by registration
    expected, found = made.native(frame), run(package, frame)
    assert found.shape == expected.shape
    assert list(found.shape[1:]) == [n // made.scale + made.offset for n in shape]
    assert np.abs(found - expected).max() <= made.tolerance
    assert steps == (0, 0) or np.ptp(expected) > 0.01


def test_windows_need_no_frame_of_whole_steps_and_nothing_is_warned_of(tmp_path, recwarn):
    torch.manual_seed(0)
    scorer = Scorer(CONTRACT, build(ARCH).eval(), NO_FILTER)
    package = export(scorer, FACTS, tmp_path / "p.zip")
    unseen = (ResourceWarning, DeprecationWarning)  # Python shows none of them by itself
    assert not [one.message for one in recwarn if not issubclass(one.category, unseen)]
    frame = np.random.default_rng(2).integers(1, 4000, (300, 171)).astype(np.uint16)
    expected = exported(scorer).native(frame)
    assert np.abs(run(package, frame) - expected).max() <= 1e-4


def test_fixed_counts_scale_too(tmp_path):
    torch.manual_seed(0)
    scorer = Scorer(CONTRACT | {"scaling": FIXED}, build(ARCH).eval(), NO_FILTER)
    package = export(scorer, FACTS, tmp_path / "fixed.zip")
    frame = np.random.default_rng(2).integers(0, 4000, (128, 128)).astype(np.uint16)
    assert np.abs(run(package, frame) - exported(scorer).native(frame)).max() <= 1e-4


def test_a_packaged_model_whose_code_is_its_own_is_exported(tmp_path):
    loaded = load(str(save_model(tmp_path / "model", "a" * 64)), allow_synthetic=True)
    scorer = loaded.pyfunc.unwrap_python_model().scorer
    assert type(scorer) is not Scorer
    assert export(scorer, loaded.facts, tmp_path / "p.zip").exists()


def test_a_full_disk_is_said_and_no_part_of_a_package_stays_there(scorer, tmp_path):
    def refused():
        with pytest.raises(OSError, match="No space left"):
            export(scorer, FACTS, tmp_path / "disk" / "p.zip")
        assert not list((tmp_path / "disk").iterdir())

    assert on_a_disk(tmp_path / "disk", refused, "300k") == 0


def test_what_cannot_be_exported_is_said_and_leaves_no_file(tmp_path, monkeypatch):
    net, kept = build(ARCH).eval(), tmp_path / "kept.zip"
    kept.write_text("somebody's")
    with pytest.raises(ExportError, match="exists"):
        export(Scorer(CONTRACT, net, NO_FILTER), FACTS, kept)
    odd = CONTRACT | {"tile": CONTRACT["tile"] | {"stride": 48}}
    with pytest.raises(ExportError, match="divides the window"):
        export(Scorer(odd, net, NO_FILTER), FACTS, tmp_path / "odd.zip")
    for wrong in (1, np.nan):
        native = np.full((1, 3, 3), wrong)
        monkeypatch.setattr("src.export.windows.native", lambda *_, native=native: native)
        with pytest.raises(ExportError, match="differs"):
            export(Scorer(CONTRACT, net, NO_FILTER), FACTS, tmp_path / "wrong.zip")
    monkeypatch.setattr("src.export.package.run", lambda *_: 1 / 0)  # ended while it is checked
    with pytest.raises(ZeroDivisionError):
        export(Scorer(CONTRACT, net, NO_FILTER), FACTS, tmp_path / "wrong.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["kept.zip"]
