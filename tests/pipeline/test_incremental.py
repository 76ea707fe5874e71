"""A plate that grows: the stages compute what is new alone, and what they write is what they write
from nothing.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import tifffile
import yaml

from src.assay.model import Model
from src.common.workspace import entries
from tests.conftest import ARCH, REPO, default_params
from tests.pipeline.test_acquire import image, tree
from tests.pipeline.test_assay_score import contents, frame, run, save_model

EMBED = """
from pathlib import Path
import numpy as np, pandas as pd
from src.common.filter.features import features
root = Path.cwd()
windows = pd.read_parquet(root / "data/patches/patches.parquet")
found = features({arch!r}, root / "model.safetensors", "windows", root / "data/patches", windows)
np.save(root / "data/features.npy", found)
"""


class Plate:
    """A tree with a folder of fields, and a cache of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.rows = root, []
        shutil.copytree(REPO / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(REPO / "dvc.yaml", root / "dvc.yaml")
        (root / "sources").mkdir()
        (root / "sources" / "folder.csv").write_text("file,bytes,sha256\n")
        (root / "images").mkdir()
        (root / "embed.py").write_text(EMBED.format(arch=ARCH))
        self.set()

    def set(self, **tile) -> None:
        dataset = {"source": "folder", "path": "images", "partitions": ["arm"]}
        tile = {"window": 64, "stride": 32, "workers": 1} | tile
        changes = default_params(dataset=dataset, acquire={"workers": 1}, tile=tile)
        (self.root / "params.yaml").write_text(yaml.safe_dump(changes))

    def add(self, *numbers: int, day: int = 1) -> None:
        for number in numbers:
            row = {"image_id": f"f{number}", "experiment": "one", "day": day}
            for channel, seed in (("brightfield", 2 * number), ("pi", 2 * number + 1)):
                row[channel] = f"{row['image_id']}_{channel}.tif"
                pixels = image(seed, shape=(96, 128)) * 100
                tifffile.imwrite(self.root / "images" / row[channel], pixels)
            self.rows = [one for one in self.rows if one["image_id"] != row["image_id"]] + [row]
        pd.DataFrame(self.rows).to_csv(self.root / "images" / "images.csv", index=False)

    def run(self, *arguments: str, gb: str = "1") -> str:
        env = os.environ | {"PYTHONPATH": str(self.root), "UNSTAINED_CACHE_GB": gb}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.root, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def make(self, stage: str, gb: str = "1") -> str:
        """What a stage says."""
        return self.run("-m", "src.stages", stage, gb=gb)

    def written(self) -> dict[str, str]:
        return tree(self.root / "data")


@pytest.fixture
def plate(tmp_path) -> Plate:
    return Plate(tmp_path / "tree")


def from_cache(said: str, name: str) -> str:
    """How many of how many, as a stage says."""
    return re.search(rf"^{name}: (\d+ of \d+) \w+ as they were, from the cache", said, re.M)[1]


def test_a_grown_plate_costs_what_is_new_and_is_the_same_bytes_as_from_nothing(plate):
    from safetensors.torch import save_file

    from src.common.scoring.networks.backbones import facts
    from src.common.scoring.networks.net import library_model

    save_file(library_model(facts(ARCH)).state_dict(), plate.root / "model.safetensors")
    plate.add(0, 1, 2, 3)
    for work in (["-m", "src.stages", "acquire"], ["-m", "src.stages", "tile"], ["embed.py"]):
        assert "from the cache" not in plate.run(*work)
    plate.add(7, 8, 9, day=2)
    plate.rows.reverse()  # what is new comes first
    plate.add()
    assert from_cache(plate.make("acquire"), "acquire") == "4 of 7"
    assert from_cache(plate.make("tile"), "tile") == "4 of 7"
    assert from_cache(plate.run("embed.py"), "embed") == "4 of 7"
    grown = plate.written()
    shutil.rmtree(plate.root / "data")
    for work in (["-m", "src.stages", "acquire"], ["-m", "src.stages", "tile"], ["embed.py"]):
        assert "from the cache" not in plate.run(*work, gb="0")
    assert plate.written() == grown


def test_other_pixels_parameters_and_code_are_computed_and_metadata_are_not(plate):
    plate.add(0, 1, 2)
    plate.make("acquire")
    plate.make("tile")
    tifffile.imwrite(plate.root / "images" / "f1_pi.tif", image(99, shape=(96, 128)))
    assert from_cache(plate.make("acquire"), "acquire") == "2 of 3"
    assert from_cache(plate.make("tile"), "tile") == "2 of 3"
    plate.rows[0]["day"] = 5
    plate.add()
    assert from_cache(plate.make("acquire"), "acquire") == "2 of 3"
    assert from_cache(plate.make("tile"), "tile") == "3 of 3"
    assert set(pd.read_parquet(plate.root / "data/patches/patches.parquet")["day"]) == {5, 1}
    plate.set(background=10)
    assert "from the cache" not in plate.make("tile")
    plate.set(workers=2)
    assert from_cache(plate.make("tile"), "tile") == "3 of 3"
    measures = plate.root / "src" / "common" / "tile" / "measures.py"
    measures.write_text(measures.read_text() + "\n# other code\n")
    assert "from the cache" not in plate.make("tile")
    assert from_cache(plate.make("acquire"), "acquire") == "3 of 3"


def test_a_refused_field_is_read_again(plate):
    plate.add(0, 1)
    (plate.root / "images" / "f1_pi.tif").write_bytes(b"no image")
    plate.set(workers=1)
    params = yaml.safe_load((plate.root / "params.yaml").read_text())
    params["acquire"]["max_rejected_fraction"] = 1.0
    (plate.root / "params.yaml").write_text(yaml.safe_dump(params))
    plate.make("acquire")
    assert from_cache(plate.make("acquire"), "acquire") == "1 of 2"
    assert pd.read_csv(plate.root / "data/raw/rejected.csv")["image_id"].tolist() == ["f1"]


def test_damaged_entries_and_a_damaged_folder_change_nothing_but_time(plate):
    plate.add(0, 1, 2)
    plate.make("acquire")
    before = plate.written()
    for path in (plate.root / ".cache").rglob("*.val"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    plate.make("acquire")
    assert plate.written() == before
    assert from_cache(plate.make("acquire"), "acquire") == "3 of 3"  # mended
    (plate.root / ".cache" / "cache.db").write_bytes(b"no database" * 1000)
    said = plate.make("acquire")
    assert said.count("note: goes on without") == 1 and "unstained cache --clear" in said
    assert plate.written() == before
    assert ": 0 entries" in plate.run("-m", "src.cli", "cache", "--clear")
    assert "goes on" not in plate.make("acquire")
    said = plate.run("-m", "src.cli", "cache")
    assert re.search(r"\.cache: [1-9]\d* entries, 0\.000 GB of at most 1 \(UNSTAINED", said), said


def test_the_bound_is_kept_and_what_does_not_fit_is_computed(plate):
    plate.add(*range(8))
    plate.make("acquire", gb="0.0003")  # of 8 fields of 50 kB
    before = plate.written()
    assert sum(p.stat().st_size for p in (plate.root / ".cache").rglob("*.val")) < 3e5
    plate.make("acquire", gb="0.0003")
    assert plate.written() == before


@pytest.fixture
def kept(tmp_path, monkeypatch) -> Path:
    """A cache of this test's own, turned on."""
    monkeypatch.setenv(entries.BOUND, "1")
    monkeypatch.setattr(entries, "FOLDER", tmp_path / "cache")
    return tmp_path / "cache"


def test_a_grown_plate_scored_into_the_same_folder_reads_and_scores_what_is_new(
    kept, tmp_path, monkeypatch, capsys
):
    plate, names = tmp_path / "plate", [f"f{n:02d}" for n in range(12)]
    plate.mkdir()
    model = save_model(tmp_path / "package", "a" * 64)

    def lay_out(count: int) -> None:
        rows = [{"image_id": n, "brightfield": f"{n}.tif", "well": "B02", "pixel_size_um": 0.5}
                for n in names[:count]]  # fmt: skip
        pd.DataFrame(rows).to_csv(plate / "images.csv", index=False)

    for seed, name in enumerate(names):
        tifffile.imwrite(plate / f"{name}.tif", frame(seed))
    lay_out(10)
    run(plate, model, tmp_path / "out")
    lay_out(12)
    scored, predict = [], Model.predict
    monkeypatch.setattr(Model, "predict", lambda *args: scored.append(1) or predict(*args))
    capsys.readouterr()
    run(plate, model, tmp_path / "out")
    assert len(scored) == 2
    assert from_cache(capsys.readouterr().out, "check") == "10 of 12"
    monkeypatch.setenv(entries.BOUND, "0")
    run(plate, model, tmp_path / "alone")
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
