"""The interval of an IC50: by profile likelihood, set to how much the wells really differ.

Only the wells on the slope tell of the IC50: where it is steep these are few and differ more than
those of the plateaus, and the dispersion of all wells is then too small for them. So the likelihood
ratio is scaled by the variance that the wells' own residuals give the IC50 (Royall and Tsou,
Journal of the Royal Statistical Society B 65, 2003; HC2: MacKinnon and White, Journal of
Econometrics 29, 1985), and set against F with the degrees of freedom that this variance has
(Satterthwaite's: Bell and McCaffrey, Survey Methodology 28, 2002). Of few wells that variance may
come out too small by chance, so the F test with one dispersion for all wells must reject, too
(Angrist and Pischke, Mostly Harmless Econometrics, 2009: the larger of both).
"""

import warnings
from dataclasses import dataclass

import lmfit
import numpy as np
from lmfit.confidence import f_compare
from lmfit.minimizer import MinimizerResult
from scipy import optimize, stats

NAME = "log_ic50"
CONFIDENCE = 0.95
AT_BOUND = 1e-4  # of a parameter's range: one that lies there is not free


@dataclass(frozen=True)
class Spread:
    """How sure the wells make the IC50: the variance of its logarithm, its degrees of freedom, and
    how many times the variance is the one that unit residuals would give.
    """

    variance: float
    freedom: float
    ratio: float


def limits(minimizer: lmfit.Minimizer, result: MinimizerResult) -> tuple[float, float, str]:
    """Both ends of the IC50's 95% interval (infinite or zero: open, NaN: not known) and the method
    that gave them. The residuals are those of single wells, weighted to a common variance.
    """
    best, spread = result.params[NAME], spread_of(minimizer, result)
    if spread is None:
        return np.nan, np.nan, ""
    best.stderr = np.sqrt(spread.variance)  # where the search begins

    def accepted(found: MinimizerResult, held: MinimizerResult) -> float:
        f = (held.chisqr - found.chisqr) / spread.ratio
        return min(f_compare(found, held), float(stats.f.cdf(f, 1, spread.freedom)))

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no crossing: the limit is infinite, which is said
            ends = lmfit.conf_interval(
                minimizer, result, p_names=[NAME], sigmas=[CONFIDENCE], prob_func=accepted
            )[NAME]
        low, high = ends[0][1], ends[-1][1]
        if not (np.isnan(low) or np.isnan(high)):
            return 10**low, 10**high, "profile likelihood"
    except (lmfit.MinimizerException, ValueError, ZeroDivisionError):
        pass
    tail = (1 + CONFIDENCE) / 2
    pooled = spread.variance / spread.ratio * result.chisqr / result.nfree
    half = max(
        stats.t.ppf(tail, freedom) * np.sqrt(variance)
        for freedom, variance in (
            (spread.freedom, spread.variance), (result.nfree, pooled)
        )
    )  # fmt: skip
    return 10 ** (best.value - half), 10 ** (best.value + half), "standard error"


def spread_of(minimizer: lmfit.Minimizer, result: MinimizerResult) -> Spread | None:
    """The variance of the logarithm of the IC50 from the wells' residuals; None where the wells do
    not tell it from the other parameters.
    """
    free = [name for name, one in result.params.items() if name == NAME or not _at_bound(one)]
    slopes = _slopes(minimizer, result, free)
    inverse = np.linalg.pinv(slopes.T @ slopes)
    effect = inverse[free.index(NAME)] @ slopes.T  # of each well's residual on the logarithm
    left = np.eye(len(slopes)) - slopes @ inverse @ slopes.T  # of the errors in the residuals
    each = effect**2 / np.maximum(np.diag(left), 1e-6)
    variance = float(each @ result.residual**2)
    if variance <= 0:
        return None
    form = (left * each) @ left  # the variance as a quadratic form of the wells' errors
    freedom = np.trace(form) ** 2 / (form**2).sum()
    return Spread(variance, max(1.0, float(freedom)), variance / float(effect @ effect))


def _slopes(minimizer: lmfit.Minimizer, result: MinimizerResult, names: list[str]) -> np.ndarray:
    """How the weighted residuals (wells,) move with each of the parameters: (wells, names)."""

    def residual(values: np.ndarray) -> np.ndarray:
        params = result.params.copy()
        for name, value in zip(names, values):
            params[name].set(value=value, min=-np.inf, max=np.inf)
        return minimizer.userfcn(params)

    return optimize.approx_fprime([result.params[name].value for name in names], residual)


def _at_bound(one: lmfit.Parameter) -> bool:
    near = AT_BOUND * (one.max - one.min)
    return min(one.value - one.min, one.max - one.value) < near
