"""Labels from the stain: a 2-component Gaussian mixture of the patches' mean PI and its one-sigma
thresholds.

Paper, step 3: live below mean_live + sd_live, dead above mean_dead - sd_dead, what lies between is
discarded. On the paper's plates that is 258.97 and 396.89 counts.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from ..metrics.intervals import percentile, resample
from ..workspace.errors import UserError
from ..workspace.tables import CLASS_NAMES

INITIALISATIONS, RESAMPLES = 10, 200
INTENSITY_BINS, EM_STEPS = 500, 200  # of the bootstrap
MAX_OVERLAP = 0.1  # reached by two Gaussians of one width and weight with means 2.56 sd apart
# Dead over live intensity from which on it is a stain: 2.5 on the paper's plates, 1.9 on the real
# MCF-7 fields; fields of noise alone differ by parts in a thousand
MIN_RATIO = 1.2
MIN_FIT = 20  # values below which two components with two parameters each are not worth fitting


class MixtureError(UserError):
    """The stain does not give two classes; the message says what was found and what to change."""


@dataclass(frozen=True)
class Mixture:
    """Two Gaussian components (live is lower), in the intensity's unit or, if `log`, its ln."""

    mean: tuple[float, float]
    sd: tuple[float, float]
    weight: tuple[float, float]
    log: bool
    # BIC of one component minus BIC of two: above zero, two describe the values better
    bic_gain: float

    @property
    def live_below(self) -> float:
        """Upper bound of live, in the intensity's own unit."""
        return self._own(self.mean[0] + self.sd[0])

    @property
    def dead_above(self) -> float:
        """Lower bound of dead, in the intensity's own unit."""
        return self._own(self.mean[1] - self.sd[1])

    @property
    def centres(self) -> tuple[float, float]:
        """Mean of live and of dead (the median under `log`), in the intensity's own unit."""
        return self._own(self.mean[0]), self._own(self.mean[1])

    @property
    def overlap(self) -> float:
        """Share of patches that the likelier component gets wrong, were the mixture the truth: its
        Bayes error.
        """
        mean, sd, weight = (np.reshape(v, (2, 1)) for v in (self.mean, self.sd, self.weight))
        x = np.sort((mean + sd * np.linspace(-8, 8, 4001)).ravel())
        density = weight * np.exp(-0.5 * ((x - mean) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
        return float(np.trapezoid(density.min(axis=0), x))

    def _own(self, value: float) -> float:
        return float(np.exp(value)) if self.log else float(value)


def intensities(patches: pd.DataFrame, kind: str) -> pd.Series:
    """Intensity of each patch: `counts`, mean PI in 16-bit counts; `background_ratio`, that over
    the field's background.

    Rounded to 6 decimals. Raises MixtureError for fields whose PI background is zero.
    """
    if kind == "counts":
        return patches["mean_pi"].round(6)
    if len(dark := patches.loc[patches["pi_background"] <= 0, "image_id"].unique()):
        raise MixtureError(
            f"label.intensity background_ratio: {len(dark)} images have no PI background to divide "
            f"by, since each 8 x 8 px of them holds a zero ({', '.join(dark[:5])}); use counts, "
            "or remove these images"
        )
    return (patches["mean_pi"] / patches["pi_background"]).round(6)


def fit(values: np.ndarray, log: bool, seed: int) -> Mixture:
    """The mixture of intensities (N,), of their logarithm if `log`; the best of several seeded
    initialisations.

    Raises MixtureError for too few values, or values at or below zero under `log`.
    """
    if len(values) < MIN_FIT:
        raise MixtureError(
            f"a mixture needs at least {MIN_FIT} patches with cells, and there are {len(values)}"
        )
    if not np.isfinite(values).all():
        raise MixtureError(
            f"{np.count_nonzero(~np.isfinite(values))} of {len(values)} intensities are not finite"
        )
    if log and values.min() <= 0:
        raise MixtureError(
            f"label.log: {np.count_nonzero(values <= 0)} of {len(values)} intensities are not "
            "above zero; set label.log to false"
        )
    column = (np.log(values) if log else values).reshape(-1, 1)
    if np.ptp(column) == 0:
        raise MixtureError(
            f"all {len(values)} intensities are {values[0]:g}: the PI channel holds no signal"
        )
    two = _gaussian(column, n_components=2, n_init=INITIALISATIONS, random_state=seed)
    one = _gaussian(column, n_components=1)
    return _mixture(two, log, one.bic(column) - two.bic(column))


def interval(
    values: np.ndarray, groups: np.ndarray, mixture: Mixture, seed: int
) -> dict[str, list[float]]:
    """95% bootstrap interval of both thresholds: whole groups drawn with replacement, refitted from
    the found mixture.

    Patches of a group share a field and its exposure, so drawing patches would promise too much.
    The values (N,) are binned finely, so that all resamples are fitted at once, at a cost that does
    not grow with N.
    """
    column = np.log(values) if mixture.log else values
    order = np.argsort(column, kind="stable")
    bins = np.empty(len(column), int)
    bins[order] = np.arange(len(column)) * min(INTENSITY_BINS, len(column)) // len(column)
    centres = np.bincount(bins, weights=column) / np.bincount(bins)
    counts = pd.crosstab(np.asarray(groups), bins).to_numpy(np.float64)  # (groups, bins)
    random = np.random.default_rng(seed)
    draws = resample(len(counts), RESAMPLES, random)
    mean, sd = _refit(centres, draws @ counts, mixture)
    bounds = {"live_below": mean[0] + sd[0], "dead_above": mean[1] - sd[1]}
    if mixture.log:
        bounds = {name: np.exp(drawn) for name, drawn in bounds.items()}
    return {name: percentile(drawn, 0.95, len(counts)) for name, drawn in bounds.items()}


def classify(values: np.ndarray, live_below: float, dead_above: float) -> np.ndarray:
    """live below the one threshold, dead above the other, discarded between them or on them: (N,)
    of str.
    """
    return np.select([values < live_below, values > dead_above], ["live", "dead"], "discarded")


def problems(mixture: Mixture, step: float = 0.0) -> list[str]:
    """Why the mixture does not separate two classes: empty if it does.

    `step`: one count of the camera in the intensity's unit, which the thresholds must lie apart.
    """
    reasons = []
    live, dead = mixture.centres
    gap = mixture.dead_above - mixture.live_below
    if dead < MIN_RATIO * live:
        reasons.append(
            f"dead patches are {dead / live:.4g} times as bright as live ones, less than "
            f"{MIN_RATIO:g}: that is noise, exposure, or a stain too dim beside the background"
        )
    if 0 < gap <= step:
        reasons.append(
            f"the thresholds lie {gap:.3g} apart, not more than one count of the camera "
            f"({step:.3g})"
        )
    if gap <= 0:
        reasons.append(
            f"the thresholds cross: live below {mixture.live_below:.6g}, "
            f"dead above {mixture.dead_above:.6g}"
        )
    if mixture.overlap > MAX_OVERLAP:
        reasons.append(
            f"the components overlap: {mixture.overlap:.0%} of the patches lie on the wrong "
            f"component's side, more than {MAX_OVERLAP:.0%}"
        )
    if mixture.bic_gain <= 0:
        reasons.append(
            "one component describes the intensities better than two (BIC by "
            f"{-mixture.bic_gain:.1f})"
        )
    return reasons


def describe(mixture: Mixture) -> str:
    """The components in one line, for messages."""
    unit = " (log)" if mixture.log else ""
    parts = zip(CLASS_NAMES, mixture.mean, mixture.sd, mixture.weight, strict=True)
    return "; ".join(
        f"{name} {mean:.4g} +- {sd:.3g}{unit}, weight {weight:.2f}"
        for name, mean, sd, weight in parts
    )


def _refit(
    centres: np.ndarray, counts: np.ndarray, start: Mixture
) -> tuple[np.ndarray, np.ndarray]:
    """Expectation-maximisation of R weighted samples at once: counts (R, B) at centres (B,); means
    and sds (2, R).
    """
    mean, sd, weight = (
        np.repeat(np.reshape(v, (2, 1)), len(counts), axis=1)
        for v in (start.mean, start.sd, start.weight)
    )
    least = 1e-9 * centres.var()
    for _ in range(EM_STEPS):
        density = (weight / sd)[..., None] * np.exp(
            -0.5 * ((centres - mean[..., None]) / sd[..., None]) ** 2
        )
        share = counts * density / np.maximum(density.sum(axis=0), 1e-300)
        mass = np.maximum(share.sum(axis=2), 1e-300)
        mean = (share * centres).sum(axis=2) / mass
        sd = np.sqrt((share * (centres - mean[..., None]) ** 2).sum(axis=2) / mass + least)
        weight = mass / mass.sum(axis=0)
    return mean, sd


def _gaussian(column: np.ndarray, **options) -> GaussianMixture:
    with warnings.catch_warnings():
        # At max_iter it is near enough; `problems` judges the result
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(
            reg_covar=1e-9 * float(column.var()), tol=1e-6, max_iter=1000, **options
        ).fit(column)


def _mixture(model: GaussianMixture, log: bool, bic_gain: float) -> Mixture:
    order = np.argsort(model.means_[:, 0])
    mean, weight = model.means_[order, 0], model.weights_[order]
    sd = np.sqrt(model.covariances_[order, 0, 0])
    return Mixture(
        *(tuple(float(v) for v in part) for part in (mean, sd, weight)), log, float(bic_gain)
    )
