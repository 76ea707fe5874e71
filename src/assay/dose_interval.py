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

from collections.abc import Callable
from dataclasses import dataclass

import lmfit
import numpy as np
from lmfit.confidence import f_compare
from lmfit.minimizer import MinimizerResult
from scipy import optimize, stats

NAME = "log_ic50"
CONFIDENCE = 0.95
LEAST_STEP = 0.02  # decades, of the search for an end
SLOPES = (1.0, 4.0)  # from which a fit starts, beside the one that was found
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

    def rejected(value: float) -> float:
        held = _held(minimizer, result, value)
        f = max(0.0, held.chisqr - result.chisqr) / spread.ratio
        return min(f_compare(result, held), stats.f.cdf(f, 1, spread.freedom)) - CONFIDENCE

    step = max(LEAST_STEP, np.sqrt(spread.variance))
    low = _end(rejected, best.value, best.min, -step)
    high = _end(rejected, best.value, best.max, step)
    return 10**low, 10**high, "profile likelihood"


def _held(minimizer: lmfit.Minimizer, result: MinimizerResult, value: float) -> MinimizerResult:
    """The best fit with the IC50 held, from several slopes: the surface has local minima."""
    tried = []
    for hill in (result.params["hill"].value, *SLOPES):
        params = result.params.copy()
        params[NAME].set(value=value, vary=False)
        params["hill"].value = hill
        tried.append(lmfit.Minimizer(minimizer.userfcn, params).minimize(method="leastsq"))
    return min(tried, key=lambda one: one.chisqr)


def _end(rejected: Callable, inside: float, bound: float, step: float) -> float:
    """Where values begin to be rejected on the way to a bound; infinite where none is."""
    while inside != bound:
        outside = inside + step
        if (bound - outside) * step <= 0:
            outside = bound
        if rejected(outside) > 0:
            return optimize.brentq(rejected, inside, outside, xtol=1e-3)
        inside, step = outside, 1.5 * step
    return np.copysign(np.inf, step)


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
