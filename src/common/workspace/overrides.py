"""Changes of params.yaml as `dvc exp run -S section.key=value` takes them, tried before DVC writes
them.
"""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .csv_table import number_of
from .errors import UserError


class OverrideError(UserError):
    """A change of params.yaml that DVC would refuse."""


def quoted(text: str) -> str:
    """A text as a value of Hydra's grammar, whatever characters it holds.

    Backslashes count only before a quote, where they are doubled:
    https://hydra.cc/docs/1.3/advanced/override_grammar/basic/#quoted-values
    Not for texts with '${': DVC cannot read them back.
    """
    inner = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + m[2].replace("'", r"\'"), text)
    return f"'{inner}'"


def applied(text: str, changes: Sequence[str]) -> str:
    """A params file's text with `section.key=value` changes, as DVC would write it.

    Raises OverrideError for one that DVC would refuse.
    """
    from dvc.exceptions import DvcException  # takes seconds to import
    from dvc.utils.hydra import apply_overrides, to_hydra_overrides
    from hydra.errors import HydraException

    if others := [change for change in changes if ":" in change.partition("=")[0]]:
        raise OverrideError(f"-S {others[0]}: only params.yaml is changed, by section.key=value")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "params.yaml"
        copy.write_text(text, encoding="utf-8")
        try:
            read = to_hydra_overrides(list(changes))
            if several := [change.input_line for change in read if change.is_sweep_override()]:
                raise OverrideError(f"-S {several[0]}: give one value; a list stands in [ ]")
            _check_numbers(changes)
            apply_overrides(copy, list(changes))
        except (DvcException, HydraException) as error:
            reason = str(error.__cause__ or error).partition("\n")[0]
            raise OverrideError(f"these changes cannot be made: {reason}") from None
        return copy.read_text(encoding="utf-8")


def _check_numbers(changes: Sequence[str]) -> None:
    """Raises OverrideError for a number such as 1_0, which Hydra takes for 10, outside quotes."""
    for change in changes:
        bare = re.sub(r"'(\\.|[^'\\])*'|\"(\\.|[^\"\\])*\"", "", change.partition("=")[2])
        for word in re.split(r"[\s,:\[\]{}()]+", bare):
            if "_" in word and number_of(word.replace("_", "")) is not None:
                raise OverrideError(
                    f"-S {change}: write the number {word} without '_', or a text as '{word}'"
                )
