"""A test set as all of an evaluation takes it: rows, resamples of its groups, and settings."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..metrics.intervals import Resamples, Statistic, bootstrap, draw, draw_patches, percentile
from ..workspace.sections import Evaluate

UNITS = {"image": "image_id", "group": "group", "experiment": "experiment"}


@dataclass(frozen=True)
class TestSet:
    """Scored test patches.

    rows, per patch: live (bool), logit, score (the calibrated logit, for ranking), probability (the
    calibrated live probability), called (bool, live at the operating threshold), call (live, dead
    or abstain), covered (bool, the conformal set holds the truth), group, experiment, mean_pi and
    intensity. draws: of their groups, the same for everything that is compared on them.
    """

    __test__ = False  # no class of tests

    rows: pd.DataFrame
    draws: Resamples
    settings: Evaluate

    @classmethod
    def of(cls, rows: pd.DataFrame, settings: Evaluate) -> "TestSet":
        """With resamples of the groups of the rows."""
        groups, live = rows["group"].to_numpy(), rows["live"].to_numpy()
        return cls(rows, draw(groups, live, settings.bootstrap, settings.seed), settings)

    def column(self, name: str) -> np.ndarray:
        """A column of the rows."""
        return self.rows[name].to_numpy()

    @property
    def knows_experiments(self) -> bool:
        """Whether the experiment of every patch is known."""
        return not self.rows["experiment"].eq("").any()

    def over_groups(self, statistic: Statistic, by_patch: bool = True) -> dict[str, np.ndarray]:
        """A statistic over all resamples of groups (see `bootstrap`)."""
        return bootstrap(statistic, self.draws, by_patch)

    def over_patches(self, statistic: Statistic) -> dict[str, np.ndarray]:
        """A statistic over as many resamples of single patches, as if they were independent."""
        single = draw_patches(self.column("live"), self.settings.bootstrap, self.settings.seed)
        return bootstrap(statistic, single)

    def patch_interval(self, values: np.ndarray | None) -> list[float] | None:
        """The percentile interval of values over resamples of patches."""
        return percentile(values, self.settings.confidence)

    def group_interval(self, values: np.ndarray | None) -> list[float] | None:
        """The percentile interval of values over resamples of groups, expanded for few of them."""
        return percentile(values, self.settings.confidence, self.draws.groups)

    def counts(self) -> dict[str, int]:
        """Sizes: patches, classes, images, groups and experiments."""
        live = int(self.rows["live"].sum())
        sizes = {f"n_{name}s": int(self.rows[column].nunique()) for name, column in UNITS.items()}
        patches = len(self.rows)
        return {"n_patches": patches, "n_live": live, "n_dead": patches - live} | sizes


def of_width(interval: list[float] | None) -> list[float] | None:
    """None for an interval without width: every resample gives the same value, as where nothing was
    called wrong, and that says nothing of the error.
    """
    return interval if interval and interval[0] < interval[1] else None
