"""A session's own operating point, from windows of known class: control wells, or stained ones.

The evidence of all windows of the plate moves by one number; ranking, temperature and band stay.
Control wells are not like the wells to be scored, so only how far their evidence lies from what the
model gave windows of their class on its own test is taken off (`shift`), shrunk by PRIOR windows;
all-dead wells alone move nothing. Stained fields drawn among those to be scored also tell how many
are live: they set the intercept at which their classes are likeliest (`intercept`). Both were tried
with sessions held out (docs/accuracy.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from ..common.scoring.operating import conformal_call
from ..common.workspace.errors import UserError
from . import heldout
from .cells import called, calling_point
from .heldout import evidence
from .model import Model
from .scored import Scored, flags

PRIOR = 4  # windows without a shift that are added to those of known class
LEAST_WINDOWS = 10  # of known class, to move an operating point at all
SHRINK = 1.0  # sd of the normal prior of an intercept, in the evidence's unit (logit)
# Windows that a stained field counts for at most: so many of the trial's do not overlap
PER_FIELD = 4
IS_LIVE = {"negative": True, "positive": False}  # control: untreated is live, all dead is not


class ControlsError(UserError):
    """An operating point cannot be set from these images; the message says why."""


@dataclass(frozen=True)
class Expected:
    """Mean evidence (calibrated logit) of live and of dead windows on the model's own test, each
    the mean over its groups.
    """

    live: float
    dead: float


def expected(model: Model) -> Expected:
    """What this model gives windows of known class. Raises ControlsError where its own test is not
    at hand.
    """
    test = heldout.patches(model.facts["run_id"])
    if test is None or test["live"].nunique() < 2:
        raise ControlsError(
            f"the own test of {model.facts['uri']} is not in the MLflow store, so how its live and "
            "dead windows score is not known: set MLFLOW_TRACKING_URI to the store that trained it"
        )
    return expected_of(test)


def expected_of(test: pd.DataFrame) -> Expected:
    """Of windows of known class (live, group, score: their evidence)."""
    by = test.groupby(["live", "group"])["score"].mean().groupby("live").mean()
    return Expected(float(by[True]), float(by[False]))


def shift(probability: np.ndarray, live: np.ndarray, means: Expected) -> float:
    """What to add to the evidence here: from the live probabilities (n,) of windows of known class
    (n,) bool; 0 for too few.
    """
    if len(live) < LEAST_WINDOWS:
        return 0.0
    wanted = np.where(live, means.live, means.dead)
    return float((wanted - evidence(probability)).sum() / (len(live) + PRIOR))


def intercept(probability: np.ndarray, live: np.ndarray, field: np.ndarray) -> float:
    """What to add to the evidence so that the classes of stained windows, (n,) bool, are likeliest.

    A logistic model with the evidence as offset (recalibration in the large: Steyerberg 2004), its
    intercept under a normal prior. field (n,): the windows of one count for PER_FIELD at most,
    since they resemble each other. The share of live ones goes in: the fields must be like those to
    be scored.
    """
    sizes = pd.Series(field).groupby(field).transform("size").to_numpy()
    weights, sign = np.minimum(1, PER_FIELD / sizes), np.where(live, -1, 1)
    z = evidence(probability)

    def loss(at: float) -> float:
        surprise = np.logaddexp(0, sign * (z + at))
        return float((weights * surprise).sum() + (at / SHRINK) ** 2 / 2)

    return float(minimize_scalar(loss).x)


def moved_by_others(
    rows: pd.DataFrame, move: Callable[[pd.DataFrame], float]
) -> tuple[np.ndarray, pd.DataFrame]:
    """Evidence (n,) of windows of known class (image_id, p, live), each image's under the shift of
    the others, and these windows: none of a single image.
    """
    rows = rows if len(rows["image_id"].unique()) > 1 else rows[:0]
    z = evidence(rows["p"])
    for name in rows["image_id"].unique():
        here = (rows["image_id"] == name).to_numpy()
        z[here] += move(rows[~here])
    return z, rows


def calls(z: np.ndarray, rows: pd.DataFrame, operating: dict) -> dict:
    """Share called of windows of known class with evidence z (n,), and wrong among called; None of
    none.
    """
    p, live = 1 / (1 + np.exp(-z)), rows["live"].to_numpy(bool)
    call = conformal_call(p, operating["live_from"], operating["dead_to"])
    made = call != "abstain"
    wrong = made & ((call == "live") != live)
    return {
        "called": float(made.mean()) if len(z) else None,
        "wrong": float(wrong.sum() / made.sum()) if made.any() else None,
    }


def moved(rows: pd.DataFrame, by: float, operating: dict) -> pd.DataFrame:
    """Windows or cells with their evidence moved: live_probability, and call where there is one."""
    probability = np.round(1 / (1 + np.exp(-(evidence(rows["live_probability"]) + by))), 6)
    call = conformal_call(probability, operating["live_from"], operating["dead_to"])
    known = rows["live_probability"].notna().to_numpy()
    return rows.assign(
        live_probability=np.where(known, probability, np.nan),
        call=np.where(known, call, rows["call"]),
    )


def by_controls(scored: Sequence[Scored], model: Model) -> tuple[list[Scored], list[str]]:
    """The images with the operating point of their plate (experiment and time) set from its control
    wells, and what was done, in words. Flagged images are of no well, and set nothing.
    """
    means, operating = expected(model), model.contract["operating"]
    by, told = {}, []
    for name in dict.fromkeys(map(plate, scored)):
        of_controls = [one for one in scored if one.checked.image.control and plate(one) == name]
        trusted = [one for one in of_controls if not flagged(one, model.contract)]
        windows = [of_control(one.windows, one.checked.image.control) for one in trusted]
        controls = pd.concat(windows) if windows else pd.DataFrame(columns=["p", "live"])
        live = controls["live"].to_numpy(bool)
        by[name] = shift(controls["p"].to_numpy(), live, means) if live.any() else 0.0
        left = len(of_controls) - len(trusted)
        out = f"; {left} images of controls flagged or refused, and left out" if left else ""
        few = f": not moved, it takes {LEAST_WINDOWS} windows with cells, and untreated ones"
        told.append(
            f"{name or 'the plate'}: operating point moved by {by[name]:+.2f} (logit) from "
            f"{live.sum()} windows of negative and {(~live).sum()} of positive controls{out}"
            f"{'' if by[name] else few}"
        )
    at = calling_point(model.contract)
    return [_moved(one, by[plate(one)], operating, at) for one in scored], told


def plate(one: Scored) -> str:
    """An image's experiment and time, in words: control wells serve their own."""
    image = one.checked.image
    time = next((f"{v:g}" for v in (image.time, image.day) if v is not None), "")
    return ", ".join(filter(None, [image.experiment, time]))


def flagged(one: Scored, contract: dict) -> bool:
    """Whether an image is refused, or flagged and so left out of its well."""
    return one.windows is None or bool(flags(one.checked, one.windows, contract))


def of_control(windows: pd.DataFrame, control: str) -> pd.DataFrame:
    """Live probability p and class of the windows with cells of a control well's image."""
    return pd.DataFrame({"p": windows["live_probability"].dropna(), "live": IS_LIVE[control]})


def _moved(one: Scored, by: float, operating: dict, cells: dict) -> Scored:
    if one.windows is None or not by:
        return one
    stain = one.stain
    if stain is not None and stain.cells is not None:
        own = moved(stain.cells, by * cells["weight"], cells)
        stain = replace(stain, cells=called(own, cells))
    return replace(one, windows=moved(one.windows, by, operating), stain=stain, shift=by)
