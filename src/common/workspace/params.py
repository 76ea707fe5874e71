"""params.yaml as typed sections; an unknown key or a wrong type stops with its name.

A stage calls `load("tile")` and gets one frozen object.
"""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .csv_table import NUMBER
from .errors import UserError
from .paths import WORKSPACE
from .sections import SECTIONS, Section


class ParamsError(UserError):
    """params.yaml cannot be used as it stands."""


class Reader(yaml.SafeLoader):
    """What a plain word is, as YAML 1.2 says and so DVC, which writes the file, means it.

    PyYAML by itself reads YAML 1.1: 1e-3 is text there, `no` is false, 010 is 8, 1:30 is 90 and 1_0
    is 10. Numbers are here what they are in tables, digits alone; what else looks like one is text.
    """

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 (of the class, as PyYAML wants it)


for kind, pattern in {
    "bool": re.compile("(true|True|TRUE|false|False|FALSE)$"),
    "null": re.compile("(~|null|Null|NULL|)$"),
    "int": re.compile("[+-]?[0-9]+$"),
    "float": re.compile(f"({NUMBER.pattern})$"),
    "merge": re.compile("<<$"),
}.items():
    Reader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", pattern, None)
Reader.add_constructor("tag:yaml.org,2002:int", lambda reader, node: int(node.value))
Reader.add_constructor("tag:yaml.org,2002:float", lambda reader, node: float(node.value))


def read(text: str) -> Any:
    """What a YAML text holds. Raises yaml.YAMLError."""
    return yaml.load(text, Reader)


def parse(text: str, name: str = "params.yaml") -> dict[str, Section]:
    """All sections of a params file's text.

    Raises ParamsError naming the key, what was found and what is wanted.
    """
    try:
        raw = read(text)
    except yaml.YAMLError as error:
        raise ParamsError(f"{name} is not YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ParamsError(f"{name} must be a mapping of sections: {', '.join(SECTIONS)}")
    problems = [
        f"unknown section '{key}' (known: {', '.join(SECTIONS)})"
        for key in raw
        if key not in SECTIONS
    ]
    sections = {}
    for key, kind in SECTIONS.items():
        try:
            sections[key] = kind.model_validate(raw.get(key) or {})
        except ValidationError as error:
            problems += [_problem(key, item) for item in error.errors()]
    if problems:
        raise ParamsError(f"{name} cannot be used:\n  " + "\n  ".join(problems))
    return sections


def load(*names: str, path: Path | None = None):
    """The named sections of params.yaml in the workspace: one object, or a tuple of them.

    Every section is checked, whichever are asked for. Raises ParamsError with the problems listed
    if there are any, or if there is no such file.
    """
    path = path or WORKSPACE / "params.yaml"
    if not path.exists():
        raise ParamsError(f"{path} does not exist")
    sections = parse(path.read_text(encoding="utf-8"), path.name)
    wanted = tuple(sections[name] for name in names)
    return wanted[0] if len(wanted) == 1 else wanted


def _problem(section: str, item: ErrorDetails) -> str:
    where = ".".join([section, *(str(part) for part in item["loc"])])
    value = "" if item["type"] in ("missing", "extra_forbidden") else f" (found {item['input']!r})"
    return f"{where}: {item['msg']}{value}"
