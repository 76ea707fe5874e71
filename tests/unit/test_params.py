"""params.yaml: what is committed parses, and what is wrong is named."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from src.common.workspace.backbone import BACKBONES
from src.common.workspace.overrides import OverrideError, applied, quoted
from src.common.workspace.params import ParamsError, load, parse
from src.common.workspace.sections import SECTIONS

REPO = Path(__file__).resolve().parents[2]
COMMITTED = (REPO / "params.yaml").read_text()


def _with(section: str, **changes) -> str:
    raw = yaml.safe_load(COMMITTED)
    raw[section] |= changes
    return yaml.safe_dump(raw)


def test_the_committed_file_parses_and_names_every_section():
    assert set(parse(COMMITTED)) == set(SECTIONS) == set(yaml.safe_load(COMMITTED))


def _after(*presets: str) -> dict:
    """The parameters when presets are given one after another, as `dvc exp run -S` leaves them in
    params.yaml.
    """
    raw = yaml.safe_load(COMMITTED)
    for preset in presets:
        words = (REPO / "presets" / f"{preset}.txt").read_text().split()
        assert words and set(words[::2]) == {"-S"}, preset
        for assignment in words[1::2]:
            (section, key), value = (
                assignment.partition("=")[0].split("."),
                assignment.partition("=")[2],
            )
            assert key in raw[section]
            raw[section][key] = yaml.safe_load(value)
    return parse(yaml.safe_dump(raw))


@pytest.mark.parametrize("preset", sorted(path.stem for path in (REPO / "presets").glob("*.txt")))
def test_presets_change_known_parameters_to_allowed_values(preset):
    assert set(_after(preset)) == set(SECTIONS)  # it parses: an unknown key or a wrong value raises


@pytest.mark.parametrize("earlier", ["head", "modern", "paper", "stain"])
@pytest.mark.parametrize("recipe", ["modern", "paper", "stain"])
def test_a_recipe_is_whole_whatever_ran_before_it(recipe, earlier):
    assert _after(earlier, recipe) == _after(recipe)


@pytest.mark.parametrize("earlier", ["modern", "paper"])
def test_the_head_recipe_states_what_it_reads(earlier):
    found, alone = _after(earlier, "head"), _after("head")
    assert found["model"] == alone["model"]
    assert [(each["train"].layers, each["train"].C) for each in (found, alone)] == [
        ("head", 1e-3)
    ] * 2


def test_the_papers_recipe():
    found = _after("head", "paper")
    train, model = found["train"], found["model"]
    assert (train.optimizer, train.betas, train.lr, train.weight_decay) == (
        "adam",
        [0.5, 0.999],
        1e-5,
        1e-5,
    )
    assert (train.batch_size, train.epochs, train.samples_per_epoch, train.schedule) == (
        4,
        30,
        0,
        "constant",
    )
    assert (train.intensity_augmentation, train.frozen_epochs, train.patience, train.precision) == (
        0,
        0,
        0,
        "32",
    )
    assert (train.layers, model.pooling) == ("all", "last")
    assert found["filter"].arch == "resnet18"


def test_an_unknown_key_is_named():
    with pytest.raises(ParamsError, match=r"train\.learning_rate"):
        parse(_with("train", learning_rate=0.1))


def test_an_unknown_section_is_named():
    with pytest.raises(ParamsError, match="unknown section 'trian'"):
        parse(COMMITTED + "\ntrian: {}\n")


def test_a_missing_section_is_named():
    raw = yaml.safe_load(COMMITTED)
    del raw["tile"]
    with pytest.raises(ParamsError, match=r"tile\.window"):
        parse(yaml.safe_dump(raw))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", "many"),
        ("epochs", 0),
        ("lr", -1e-3),
        ("optimizer", "sgd"),
        ("betas", [0.9]),
        ("betas", [0.9, 1.0]),
        ("lr", float("inf")),
        ("weight_decay", float("nan")),
        ("batch_size", 1),
        ("seed", True),
        ("epochs", "3"),
        ("lr", True),
    ],
)
def test_a_wrong_type_or_value_is_named_with_what_was_found(key, value):
    with pytest.raises(ParamsError, match=rf"train\.{key}.*found"):
        parse(_with("train", **{key: value}))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("label", "seed", -1), ("split", "seed", 2**32), ("dataset", "axes", True)],
)
def test_what_only_a_library_would_refuse_is_named(section, key, value):
    with pytest.raises(ParamsError, match=rf"{section}\.{key}.*found"):
        parse(_with(section, **{key: value}))


def test_a_channel_is_never_true():
    with pytest.raises(ParamsError, match=r"dataset\.channels\.pi.*not True"):
        parse(_with("dataset", channels={"pi": True}))


@pytest.mark.parametrize("content", [COMMITTED.encode("utf-16"), b"# \xb5\n", None])
def test_a_file_that_is_no_text_is_named(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ParamsError, match=r"params\.yaml cannot be read as UTF-8 text"):
        load("tile", path=path)


@pytest.mark.parametrize("key,value", [("reduction", 3), ("crop", 100), ("magnified", [])])
def test_the_stain_network_is_shown_what_it_can_take(key, value):
    with pytest.raises(ParamsError, match=rf"stain\.{key}.*found"):
        parse(_with("stain", **{key: value}))


@pytest.mark.parametrize(
    "changes,said",
    [
        ({"magnified": 0.5}, r"stain\.magnified.*list"),
        ({"magnified": [0.5, 2]}, r"stain\.magnified\.1"),
        ({"magnified": [0.5, 0, 0], "orientations": 2}, "2 are too few for the 3 networks"),
    ],
)
def test_every_network_has_a_share_of_magnified_crops_and_an_orientation(changes, said):
    assert parse(_with("stain", magnified=[0, 1], orientations=2))["stain"].magnified == [0, 1]
    with pytest.raises(ParamsError, match=said):
        parse(_with("stain", **changes))


def test_all_problems_are_listed_at_once():
    with pytest.raises(ParamsError) as error:
        parse(_with("train", epochs=0, lr="fast"))
    assert "train.epochs" in str(error.value)
    assert "train.lr" in str(error.value)


def test_an_exponent_without_a_dot_is_a_number():
    text = _with("train").replace("lr: 0.001", "lr: 1e-3")
    assert yaml.safe_load(text)["train"]["lr"] == "1e-3"  # what PyYAML makes of it
    assert parse(text)["train"].lr == 0.001


@pytest.mark.parametrize("key", ["train.epochs", "train.lr", "dataset.z", "split.fractions"])
@pytest.mark.parametrize(
    "text", ["1_0", "0x10", "0o7", "1:30", ".inf", ".nan", "'3'", "\uff11", "true", "2026-01-01"]
)
def test_only_digits_are_a_number(key, text):
    section, name = key.split(".")
    value = f"[0.8, 0.1, {text}]" if name == "fractions" else text
    raw = yaml.safe_load(COMMITTED)
    raw[section][name] = "here"
    written = yaml.safe_dump(raw).replace(f"{name}: here", f"{name}: {value}")
    with pytest.raises(ParamsError, match=rf"{key}.*found"):
        parse(written)


@pytest.mark.parametrize(
    "name", ["no", "on", "y", "Yes", "off", "1e3", "010", "2026-01-01", "null", "1_0", "12"]
)
def test_a_name_that_dvc_writes_is_read_as_that_name(tmp_path, name):
    """DVC writes YAML 1.2, where `no` is a word: YAML 1.1 has it for false."""
    changes = [f"dataset.partitions=[{quoted(name)}]", f"dataset.path={quoted(name)}"]
    found = parse(applied(COMMITTED, changes))["dataset"]
    assert found.partitions == [name] and found.path == name


def test_a_number_with_a_leading_zero_is_the_one_that_dvc_reads():
    assert parse(_with("train").replace("epochs: 3", "epochs: 010"))["train"].epochs == 10


@pytest.mark.parametrize("value", ["1_0", "-1_0", "[1_0,2]", "{a: 1_0.5}", "1_0e-3"])
def test_a_change_has_no_underscore_in_a_number(value):
    """Hydra, which reads `-S`, takes 1_0 for 10."""
    with pytest.raises(OverrideError, match="without '_'"):
        applied("s: {k: 0}\n", [f"s.k={value}"])


@pytest.mark.parametrize("value", ["a_1_0", "'1_0'", "'plate, 1_0 x'", '"it\'s 1_0, y"', "1_a"])
def test_an_underscore_in_a_text_stays(value):
    assert "_" in yaml.safe_load(applied("s: {k: ''}\n", [f"s.k={value}"]))["s"]["k"]


def test_precision_is_a_word_however_dvc_writes_it():
    assert parse(_with("train", precision="32"))["train"].precision == "32"
    assert parse(_with("train", precision=32))["train"].precision == "32"


def test_fractions_must_add_up():
    with pytest.raises(ParamsError, match="add up to 1"):
        parse(_with("split", fractions=[0.8, 0.1, 0.2]))


def test_what_is_wrong_anywhere_is_told_whichever_section_is_asked_for(tmp_path):
    (tmp_path / "params.yaml").write_text(_with("train", epochs="many"))
    with pytest.raises(ParamsError, match=r"params\.yaml .*\n  train\.epochs"):
        load("tile", path=tmp_path / "params.yaml")


def test_sections_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        parse(COMMITTED)["train"].epochs = 3


@pytest.mark.parametrize("section", ["model", "filter"])
@pytest.mark.parametrize(
    "arch, near", [("resnet-18", "resnet18"), ("Inception_V3", "inception_v3")]
)
def test_an_unknown_backbone_is_refused_with_key_value_choices_and_the_nearest(section, arch, near):
    with pytest.raises(ParamsError) as error:
        parse(_with(section, arch=arch))
    said = str(error.value)
    assert (
        f"{section}.arch" in said and f"found '{arch}'" in said and f"did you mean {near}" in said
    )
    assert all(name in said for name in BACKBONES) and "timm:NAME" in said


@pytest.mark.parametrize("arch", ["", "vit", "timm:", "timm"])
def test_names_near_nothing_are_refused_too(arch):
    with pytest.raises(ParamsError, match="no such backbone: allowed are resnet18"):
        parse(_with("model", arch=arch))


@pytest.mark.parametrize("arch", [*BACKBONES, "timm:test_efficientnet"])
def test_registered_backbones_and_those_of_timm_are_allowed(arch):
    assert parse(_with("model", arch=arch))["model"].arch == arch


def test_params_are_read_without_torch():
    program = (
        "import sys; from src.common.workspace.params import load; "
        "load(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=REPO).returncode == 0
