"""Numbers, intervals and tables as people read them."""

from collections.abc import Iterable, Sequence

UNKNOWN = "n/a"


def number(value: float | None, form: str = ".3f") -> str:
    """A number in a format of Python's; n/a where it is not known."""
    return UNKNOWN if value is None else format(value, form)


def interval(bounds: Sequence[float] | None, form: str = ".3f") -> str:
    """Lower to upper bound; n/a where there is no interval."""
    return UNKNOWN if bounds is None else f"{bounds[0]:{form}} to {bounds[1]:{form}}"


def with_interval(value: float | None, bounds: Sequence[float] | None) -> str:
    """A number, and its interval in brackets where there is one."""
    return number(value) + (f" ({interval(bounds)})" if bounds else "")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], rule: str = "---") -> list[str]:
    """A table in Markdown, line by line. rule: `---:` aligns all columns but the first right."""
    spaced = ([f" {cell} " if cell else " " for cell in cells] for cells in (heads, *rows))
    head, *lines = (f"|{'|'.join(cells)}|" for cells in spaced)
    return [head, "|---|" + f"{rule}|" * (len(heads) - 1), *lines]
