"""`unstained adapt`: a registered model for a new session, from stained fields or from control
wells alone, registered as a version of its own.

Of stained fields a stain network may learn on (`tuning`); all else sets the operating point only.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..common.images.entries import pixel_digest
from ..common.images.field import Field
from ..common.register.adapted import register_adapted
from ..common.scoring.scorer import Scorer
from ..common.workspace.records import write_json
from . import images as inputs
from . import nuclei, output, stained
from .checked import check
from .controls import (
    LEAST_WINDOWS,
    ControlsError,
    calls,
    expected,
    intercept,
    moved_by_others,
    of_control,
    shift,
)
from .heldout import evidence
from .model import Model, load
from .report import clean

if TYPE_CHECKING:
    from .tuning import Tuned

FILE = "adaptation.json"
STAINED = "stained fields"


@dataclass(frozen=True)
class Known:
    """Windows of known class (image_id, y, x, p: live probability, live), their images' digests,
    and what became of the images, in words; the stained fields, and the nuclei of their masks.
    """

    windows: pd.DataFrame
    digests: list[str]
    what: str
    told: str
    fields: list[Field] = field(default_factory=list)
    nuclei: list[pd.DataFrame] = field(default_factory=list)


def adapt(
    images: Path, uri: str, out: Path, options: stained.Options, controls: bool,
    learn: bool = False,
) -> dict:  # fmt: skip
    """Registers the model as this session wants it; returns and writes to OUT/adaptation.json what
    it was adapted on, whether its network learnt on, the shift, and calls before and after.

    controls: from wells whose control is negative or positive, without stain. learn: a
    stain network learns on from stained fields as well. `after` is of each image under what the
    others taught. Raises ValueError naming what is wrong: a model that is not registered or cannot
    learn, too few windows of known class or fields, for controls no own test in the store.
    """
    images, out = Path(images), Path(out)
    output.refuse([images], out)
    model = load(uri, allow_synthetic=True)
    if model.version is None:
        raise ControlsError(
            f"{uri} is not registered: give models:/NAME@ALIAS or models:/NAME/VERSION"
        )
    if learn:
        refuse_to_learn(model, controls)
    _say(adapted_before(model))
    # As it was loaded: scoring many images has it compiled, which no other weights would change
    scorer = model.pyfunc.unwrap_python_model().scorer
    move = by_class(model) if controls else by_stain
    with output.claimed(out, model.facts, "adapt"):
        known = (of_controls if controls else of_stain)(images, model, options, out)
        print(f"adapt: {known.told}")
        refuse_too_few(known, controls)
        _say(one_class(known))
        tuned = learnt_on(scorer, known, options.pixel_size_um) if learn else None
        seen = judged(known.windows, tuned.windows) if tuned else known.windows
        at, by = model.contract["operating"], move(seen)
        about = clean(described(images, known) | {
            "network": "learnt on" if tuned else "as it was", "shift": by,
            "before": calls(evidence(known.windows["p"]), known.windows, at),
            "after": calls(*moved_by_others(seen, move), at),
        })  # fmt: skip
        operating = at | {"shift": round(at.get("shift", 0.0) - by * at["temperature"], 6)}
        # a network that learnt on says other things of nuclei, which then follow the windows
        changes, told = nuclei.moved([] if tuned else known.nuclei, model.contract, operating)
        _say(told)
        state = tuned.state if tuned else None
        number = register_adapted(model.version, changes, about, known.digests, state)
        record = about | {"model": model.facts["name"], "from_version": model.facts["version"]}
        record |= {"version": number} | changes
        output.whole(out / FILE, lambda path: write_json(path, record))
    return record


def adapted_before(model: Model) -> list[str]:
    """What is to be said of a model that is one session's own already."""
    if not (before := model.contract.get("adapted")):
        return []
    origin = model.version.tags.get("adapted_from")
    return [
        f"{model.facts['uri']} is adapted already, to {before['folder']}: right for that session "
        f"alone; for another, adapt version {origin}"
    ]


def refuse_to_learn(model: Model, controls: bool) -> None:
    """Raises ControlsError unless the network can learn on from what is given."""
    if controls:
        raise ControlsError("--learn wants stained fields, and --controls uses none: give one")
    if not model.predicts_stain:
        raise ControlsError("--learn is for models that predict the stain; this one calls windows")


def learnt_on(scorer: Scorer, known: Known, pixel_size_um: float | None) -> "Tuned":
    """The network after learning from stained fields. Raises ControlsError for a single one."""
    if len(known.fields) < 2:
        raise ControlsError(f"--learn takes two stained fields or more: {known.told}")
    from .tuning import tuned  # slow: brings Lightning

    return tuned(scorer, known.fields, pixel_size_um)


def refuse_too_few(known: Known, controls: bool) -> None:
    """Raises ControlsError unless there are windows enough to set an operating point by."""
    least = LEAST_WINDOWS if controls else 1
    if len(known.windows) < least:
        raise ControlsError(
            f"{len(known.windows)} windows of known class: it takes {least}; {known.told}"
        )
    if controls and not known.windows["live"].any():
        raise ControlsError("only all-dead controls: it takes windows of untreated ones too")


def one_class(known: Known) -> list[str]:
    """What is to be said of stained fields that hold one class only."""
    live = known.windows["live"]
    if known.what != STAINED or live.any() != live.all():
        return []
    kind = "live" if live.all() else "dead"
    return [
        f"all {len(live)} windows are {kind}, and the model will take other fields for {kind} more "
        "easily: right only if these were drawn at random among the fields to be scored"
    ]


def described(images: Path, known: Known) -> dict:
    """What a model is adapted on."""
    live = known.windows["live"]
    return {
        "folder": images.name, "by": known.what,
        "images": int(known.windows["image_id"].nunique()),
        "live_windows": int(live.sum()), "dead_windows": int((~live).sum()),
    }  # fmt: skip


def judged(known: pd.DataFrame, seen: pd.DataFrame) -> pd.DataFrame:
    """The windows of known class as networks that did not learn from them see them."""
    return known.drop(columns="p").merge(seen, on=["image_id", "y", "x"])


def of_stain(images: Path, model: Model, options: stained.Options, out: Path) -> Known:
    """Windows whose class PI tells, by the model's own rule and thresholds."""
    entries, notes = stained.find(images, options)
    _say(notes)
    scored = stained.score(model, entries, options, out)
    cells, _ = stained.label(scored.patches, model.contract["label"], own=False)
    told = cells[cells["label"].isin(["live", "dead"])]
    rows = told[["image_id", "y", "x"]].assign(p=told["live_probability"])
    rows["live"] = told["label"] == "live"
    became = scored.told() + _first(one["reason"] for one in scored.refused)
    return Known(rows, sorted(scored.digests), STAINED, became, scored.fields, scored.nuclei)


def of_controls(images: Path, model: Model, options: stained.Options, out: Path) -> Known:
    """Windows with cells of control wells: untreated ones are live, all-dead ones are not."""
    entries, notes = inputs.find([images], options.layout, options.manifest)
    _say(notes)
    checked = check([one for one in entries if one.control], model, options.pixel_size_um)
    reasons = [f"{one.image.image_id}: {one.reason}" for one in checked if one.reason]
    told = f"of {len(entries)} images {len(checked)} of control wells (column control)"
    told += f", {len(reasons)} refused"
    tables, digests = [], []
    for one in (each for each in checked if not each.reason):
        frame = one.pixels()
        windows = output.part(
            out, one.key, lambda f=frame, o=one: model.predict(f, o.pixel_size_um)
        )
        tables.append(of_control(windows, one.image.control).assign(image_id=one.image.image_id))
        digests.append(pixel_digest(frame.astype(np.uint16)))
    empty = pd.DataFrame({"image_id": [], "p": [], "live": np.empty(0, bool)})
    windows = pd.concat(tables) if tables else empty
    return Known(windows, digests, "control wells", told + _first(reasons))


def _say(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"adapt: {note}")


def _first(reasons: Iterable[str]) -> str:
    """The first of the reasons for which images were refused, if there is one."""
    first = next(iter(reasons), "")
    return f" (the first: {first})" if first else ""


def by_stain(rows: pd.DataFrame) -> float:
    """The shift from windows of stained fields (image_id, p, live)."""
    return intercept(rows["p"].to_numpy(), rows["live"].to_numpy(bool), rows["image_id"].to_numpy())


def by_class(model: Model) -> Callable[[pd.DataFrame], float]:
    """The shift from windows of controls (p, live), by what the model's own test says of each
    class.
    """
    means = expected(model)
    return lambda rows: shift(rows["p"].to_numpy(), rows["live"].to_numpy(bool), means)
