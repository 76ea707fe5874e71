"""How figures of a plate look, and how plates and times are named in them."""

import numpy as np
import pandas as pd

DPI = 130
LONGEST = 60  # letters of a name in a figure
INK = "#1d2733"
SOFT = "#6b7680"
FAINT = "#dfe4e8"
HUES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]  # Okabe and Ito 2008
STYLE = {
    "font.size": 9, "axes.edgecolor": SOFT, "axes.labelcolor": INK, "text.color": INK,
    "xtick.color": SOFT, "ytick.color": SOFT, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 10,
}  # fmt: skip


def label(experiment: str, time: float | None, column: str) -> str:
    """How a plate and time are named in titles."""
    when = "" if pd.isna(time) else f"{column or 'time'} {time:g}"
    return ", ".join(part for part in (plain(experiment), when) if part)


def evenly(count: int, most: int) -> np.ndarray:
    """At most so many of `count` places, evenly chosen, the first and the last among them: (n,)."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int))


def plain(text: str) -> str:
    """A text of the user's as it stands, cut where it would leave a figure no room: matplotlib
    reads what lies between two $ as a formula.
    """
    short = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return short.replace("$", r"\$")
