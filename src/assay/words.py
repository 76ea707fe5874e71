"""Numbers in words, for pages and figures: one rule for every number that may be absent.

A number that is None, NaN or infinite is a dash, and an interval without both its ends is one too.
"""

import math

import pandas as pd

DASH = "–"  # noqa: RUF001
LONGEST = 30  # letters of an image's name; the rest is in the tables
FEWEST_CALLS = 5  # below, no percentage is shown: a single call would move it by 20 points or more


def known(value) -> bool:
    """Whether a value is there: not None, empty, NaN, NA or infinite."""
    if isinstance(value, str):
        return value != ""
    return not pd.isna(value) and math.isfinite(value)


def number(value, digits: int = 3) -> str:
    """A number with that many significant digits, or a dash."""
    return f"{value:.{digits}g}" if known(value) else DASH


def decimals(value, digits: int = 3, sign: str = "") -> str:
    """A number with that many decimals (sign '+': always signed), or a dash."""
    return f"{value:{sign}.{digits}f}" if known(value) else DASH


def percent(value, digits: int = 0) -> str:
    """A fraction as percent, or a dash."""
    return f"{100 * value:.{digits}f}%" if known(value) else DASH


def points(value, digits: int = 1) -> str:
    """A difference of fractions as signed percentage points, or a dash."""
    return decimals(100 * value, digits, "+") if known(value) else DASH


def between(interval, form=decimals, *arguments) -> str:
    """Both ends of an interval by `form`, joined by 'to'; a dash unless both are known."""
    if interval is None or not all(known(end) for end in interval):
        return DASH
    low, high = (form(end, *arguments) for end in interval)
    return f"{low} to {high}"


def share(row: dict, digits: int = 0, name: str = "live_patch_fraction") -> str:
    """A fraction of the calls of an image or well; a dash where too few are made."""
    enough = row["live"] + row["dead"] >= FEWEST_CALLS
    return percent(row[name], digits) if enough else DASH


def short(text: str) -> str:
    """A long name with its middle left out."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}…{text[1 - half :]}"


FILTERS = {
    "known": known,
    "number": number,
    "decimals": decimals,
    "percent": percent,
    "points": points,
    "span": lambda interval, digits=3, sign="": between(interval, decimals, digits, sign),
    "percents": lambda interval, digits=0: between(interval, percent, digits),
    "point_span": lambda interval: between(interval, points),
    "share": share,
    "short": short,
}
