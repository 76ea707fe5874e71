"""params.yaml as typed sections; an unknown key or a wrong type stops with its name.

A stage calls `load("tile")` and gets one frozen object. PyYAML reads `1e-3` as a string (YAML
1.1); pydantic turns it into the number that DVC (YAML 1.2) sees.
"""

from pathlib import Path

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .errors import UserError
from .paths import WORKSPACE
from .sections import SECTIONS, Section


class ParamsError(UserError):
    """params.yaml cannot be used as it stands."""


def parse(text: str, name: str = "params.yaml") -> dict[str, Section]:
    """All sections of a params file's text.

    Raises ParamsError naming the key, what was found and what is wanted.
    """
    try:
        raw = yaml.safe_load(text)
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
    sections = parse(path.read_text(), path.name)
    wanted = tuple(sections[name] for name in names)
    return wanted[0] if len(wanted) == 1 else wanted


def _problem(section: str, item: ErrorDetails) -> str:
    where = ".".join([section, *(str(part) for part in item["loc"])])
    value = "" if item["type"] in ("missing", "extra_forbidden") else f" (found {item['input']!r})"
    return f"{where}: {item['msg']}{value}"
