"""How a logit becomes a probability, a forced call, and a call that may abstain; fitted in
calibration.py.

A logit is z_live - z_dead, so the uncalibrated live probability is its logistic function. This file
ships inside registered models: numpy only.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Operating:
    """How logits become probabilities, forced calls, and calls that may abstain (see the functions
    that apply it).
    """

    temperature: float
    threshold: float
    live_from: float  # the conformal set holds live from this probability up
    dead_to: float  # and dead up to this one
    shift: float = 0.0  # of the logit: what a stain network's evidence is measured from


def evidence(logit: np.ndarray, temperature: float, shift: float = 0.0) -> np.ndarray:
    """Calibrated logit (n,) float64: what windows are ranked by."""
    return (np.asarray(logit, float) - shift) / temperature


def calibrate(logit: np.ndarray, temperature: float, shift: float = 0.0) -> np.ndarray:
    """Live probability (n,) of logits (n,), rounded to 6 decimals as it is saved."""
    scaled = np.clip(evidence(logit, temperature, shift), -700, 700)
    return np.round(1 / (1 + np.exp(-scaled)), 6)


def called_live(probability: np.ndarray, threshold: float) -> np.ndarray:
    """The forced call (n,) bool: live from the threshold up."""
    return np.asarray(probability) >= threshold


def conformal_call(probability: np.ndarray, live_from: float, dead_to: float) -> np.ndarray:
    """live, dead or abstain (n,): the conformal set's member if it has just one."""
    live, dead = np.asarray(probability) >= live_from, np.asarray(probability) <= dead_to
    return np.where(live == dead, "abstain", np.where(live, "live", "dead"))
