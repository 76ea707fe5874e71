"""What dvc.yaml says of a stage agrees with what its code imports, and data never depends on
models.
"""

import ast
from pathlib import Path

import pytest
import yaml

from src.common.workspace.sections import SECTIONS

ROOT = Path(__file__).resolve().parents[2]
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
DATA_STAGES = {
    "acquire",
    "tile",
    "filter",
    "label",
    "split",
    "check@raw",
    "check@patches",
    "check@labels",
    "check@splits",
}
# A change here is a change of how stages are run, not of what they make: parameters are tracked as
# parameters, paths and readers of tables are the same for all, and tracking and reading MLflow
# leaves no trace in an output.
EVERYWHERE = {"workspace", "tracking"}
SHARED = {
    "workspace", "scoring", "images", "exposure", "figures", "metrics", "patches", "tracking"
}  # fmt: skip
# What a room may import besides itself: shared rooms, and rooms upstream of it
ROOMS = {
    "workspace": set(), "scoring": set(), "images": {"exposure", "workspace", "scoring"},
    "exposure": set(),
    "figures": {"workspace", "scoring"}, "metrics": {"workspace", "scoring"},
    "patches": {"workspace", "scoring"}, "tracking": {"workspace"},
    "acquire": {"exposure", "images", "scoring"},
    "tile": {"exposure", "patches", "scoring"},
    "weights": {"scoring"}, "filter": {"figures", "metrics", "patches", "scoring"},
    "label": {"figures", "metrics", "patches"}, "split": {"patches"},
    "describe": {"figures", "metrics", "patches"}, "check": {"exposure", "patches", "tile"},
    "train": {"patches", "scoring", "tracking"},
    "evaluate": {"images", "patches", "scoring", "metrics", "figures"},
    "explain": {"figures", "metrics", "patches", "scoring"},
    "compare": {"evaluate", "metrics", "figures", "tracking"},
    "register": {"patches", "scoring", "metrics", "tracking"},
}  # fmt: skip


def imported(path: Path) -> set[Path]:
    """Files of this project that a file imports, directly."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1]
            base = base.joinpath(*(node.module or "").split(".")) if node.module else base
            names = [base.with_suffix(".py")] + [base / f"{alias.name}.py" for alias in node.names]
            found |= {name for name in [*names, base / "__init__.py"] if name.exists()}
    return found


def reachable(path: Path) -> set[Path]:
    """All files of this project that a file imports, directly or not; those used everywhere are not
    followed.
    """
    seen, todo = set(), [path]
    while todo:
        for found in imported(todo.pop()) - seen:
            if found.parent.name not in EVERYWHERE and found.stem != "__init__":
                seen.add(found)
                todo.append(found)
    return seen


@pytest.mark.parametrize("stage", GRAPH)
def test_code_is_among_the_dependencies(stage):
    deps = [ROOT / dep for dep in GRAPH[stage]["deps"]]
    lacking = [
        str(found.relative_to(ROOT))
        for found in reachable(ROOT / "src" / "stages" / f"{stage}.py")
        if not any(found == dep or dep in found.parents for dep in deps)
    ]
    assert not lacking, f"dvc.yaml: add to deps of {stage}: {sorted(lacking)}"


@pytest.mark.parametrize("stage", GRAPH)
def test_code_dependencies_are_used(stage):
    used = reachable(ROOT / "src" / "stages" / f"{stage}.py") | {
        ROOT / "src" / "stages" / f"{stage}.py"
    }
    named = [ROOT / dep for dep in GRAPH[stage]["deps"] if dep.startswith("src/")]
    idle = [
        str(dep.relative_to(ROOT))
        for dep in named
        if not any(dep == u or dep in u.parents for u in used)
    ]
    assert not idle, f"dvc.yaml: {stage} does not import {idle}"


def test_what_ships_in_the_model_is_a_dependency_of_register_and_imports_nothing_else():
    assert "src/common/scoring" in GRAPH["register"]["deps"]
    folder = ROOT / "src" / "common" / "scoring"
    for path in folder.rglob("*.py"):
        assert all(folder in found.parents for found in imported(path)), path


def test_register_depends_on_the_very_models_that_it_registers():
    """Not on their common folder: that holds other partitions' too, and files that are none of
    DVC's, so that it would differ after a wipe and a `dvc pull`.
    """
    found = {dep for dep in GRAPH["register"]["deps"] if dep.startswith(("models", "reports/eval"))}
    of_the_item = {
        "models/${item.partition}",
        "reports/evaluate/${item.partition}/predictions.parquet",
    }
    assert found == {"models/filter", "models/weights/filter"} | of_the_item


@pytest.mark.parametrize("room", ROOMS)
def test_data_flows_one_way(room):
    common = ROOT / "src" / "common"
    found = {found for path in (common / room).rglob("*.py") for found in imported(path)}
    used = {path.relative_to(common).parts[0] for path in found if common in path.parents}
    used -= {"__init__.py"}
    assert used <= ROOMS[room] | {room, "workspace"}, (
        f"{room} imports {used - ROOMS[room] - {room, 'workspace'}}"
    )


def test_every_room_is_known_and_the_top_stands_above_the_stages():
    assert {
        path.name for path in (ROOT / "src" / "common").iterdir() if (path / "__init__.py").exists()
    } == set(ROOMS)
    for path in [
        *(ROOT / "src" / "assay").glob("*.py"),
        *(ROOT / "src" / "annotation").glob("*.py"),
    ]:
        assert "stages" not in {found.parent.name for found in imported(path)}, path


def loaded_sections(stage: str) -> set[str]:
    """Sections of params.yaml that a stage's code asks for by `load("...")`."""
    calls = [
        n
        for n in ast.walk(ast.parse((ROOT / "src" / "stages" / f"{stage}.py").read_text()))
        if isinstance(n, ast.Call)
    ]
    names = [n for n in calls if getattr(n.func, "id", "") == "load"]
    return {a.value for n in names for a in n.args if isinstance(a, ast.Constant)}


@pytest.mark.parametrize("stage", GRAPH)
def test_parameters_read_are_declared(stage):
    declared = {str(name).split(".")[0] for name in GRAPH[stage].get("params", [])}
    missing = loaded_sections(stage) - declared - {"dataset"}
    assert not missing, f"dvc.yaml: {stage} reads {missing} without naming it under params"


def test_every_parameter_belongs_to_some_stage():
    declared = {
        str(name).split(".")[0] for stage in GRAPH.values() for name in stage.get("params", [])
    }
    assert set(SECTIONS) - declared - {"filter", "model"} == set()


def test_model_parameters_are_not_parameters_of_data_stages():
    for stage in DATA_STAGES:
        names = [str(name).split(".")[0] for name in GRAPH[stage.split("@")[0]].get("params", [])]
        assert not {"model", "train"} & set(names), stage
