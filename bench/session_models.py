"""The linear model of session_trials.py, what its windows weigh, and its features with mixed
statistics: x (n, D) features, live (n,) bool, session (n,), c the inverse regularisation.
"""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def equal_classes(live: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights (n,) with the same sum in both classes, and mean 1."""
    sums = np.where(live, weights[live].sum(), weights[~live].sum())
    return weights / sums * len(live) / 2


def by_windows(x, live, session, c) -> np.ndarray:
    """Every window weighs the same in its class."""
    return np.ones(len(live))


def by_sessions(x, live, session, c) -> np.ndarray:
    """Every session weighs the same."""
    return 1 / pd.Series(session).groupby(session).transform("size").to_numpy()


def by_worst_session(x, live, session, c, rounds: int = 20, rate: float = 1.0) -> np.ndarray:
    """Group DRO (Sagawa et al. 2020) for a convex model: a session's weight grows with its loss."""
    equal = by_sessions(x, live, session, c)
    log_weight = np.zeros(len(live))
    for _ in range(rounds):
        model = linear(x, live, equal * np.exp(log_weight), c)
        loss = np.logaddexp(0, np.where(live, -1, 1) * model.decision_function(x))
        log_weight += rate * pd.Series(loss).groupby(session).transform("mean").to_numpy()
        log_weight -= log_weight.max()
    return equal * np.exp(log_weight)


def linear(x: np.ndarray, live: np.ndarray, weights: np.ndarray, c: float):
    """The product's head: a logistic regression on standardised features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000))
    weights = equal_classes(live, weights)
    return model.fit(x, live, logisticregression__sample_weight=weights)


def mixed_styles(x: np.ndarray, session: np.ndarray, random) -> np.ndarray:
    """Features with mean and deviation of their session mixed with another's (after MixStyle: Zhou
    et al. 2021).
    """
    names, codes = np.unique(session, return_inverse=True)
    mean, sd = (
        np.stack([f(x[codes == k], 0) for k in range(len(names))]) for f in (np.mean, np.std)
    )
    other = (np.arange(len(names)) + random.integers(1, len(names), len(names))) % len(names)
    own = random.beta(0.1, 0.1, (len(names), 1))
    means, sds = (own * v + (1 - own) * v[other] for v in (mean, sd))
    return (x - mean[codes]) / (sd[codes] + 1e-3) * sds[codes] + means[codes]
