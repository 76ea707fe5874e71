"""A stain network that goes on learning, for one session, from a few stained fields of it.

It sees crops of these fields alone, altered as those of its training were, for STEPS steps at a
third of the rate; the weights then are the mean of those before and after (WiSE-FT: Wortsman et al.
2022, who take a half where nothing is there to choose by), which keeps what sessions have in
common. Fields are also judged by a network that learnt from the others only: that is what the
operating point is set from and what is reported (docs/accuracy.md has the trial).
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from ..common.exposure.background import backgrounds
from ..common.images.field import Field, Frame
from ..common.images.files import bits, check_frame
from ..common.scoring.frames.imaging import scaling_range, to_uint8
from ..common.scoring.scorer import Scorer
from ..common.tile.measures import ratio
from ..common.train.stain import fit_stain
from ..common.workspace.sections import Stain, Train

STEPS, BATCH, RATE = 60, 8, 3e-4
SEEN = 224  # pixels a side of a crop, as the network sees it
FOLDS = 5  # of the fields, at most: a network is trained for each to judge it
TRAIN = Train(
    layers="all", C=1.0, optimizer="adamw", epochs=1, samples_per_epoch=STEPS * BATCH,
    batch_size=BATCH, lr=RATE, weight_decay=1e-2, betas=[0.9, 0.999], schedule="cosine",
    warmup_fraction=0.1, intensity_augmentation=0, frozen_epochs=0, frozen_stages=1, patience=0,
    precision="auto", devices=1, nodes=1, strategy="auto", workers=0, seed=1,
)  # fmt: skip


@dataclass(frozen=True)
class Tuned:
    """The network that learnt from all fields (state dict), and windows (image_id, y, x, p: live
    probability) of every field by a network that learnt from the others.
    """

    state: dict[str, torch.Tensor]
    windows: pd.DataFrame


class StainedFields:
    """Stained fields in memory, as a training reads them from a PatchStore."""

    def __init__(self, entries: Sequence[Field], contract: dict, pixel_size_um: float | None):
        self.frames: dict[str, tuple[np.ndarray, float | None]] = {}  # raw counts, um a pixel
        self._grey, self._ratio = {}, {}
        for entry in entries:
            frame = entry.read()
            size = frame.pixel_size_um or entry.pixel_size_um or pixel_size_um
            self.frames[entry.image_id] = frame.brightfield, size
            self._grey[entry.image_id] = grey(frame, contract)
            self._ratio[entry.image_id] = over_background(frame, entry, contract)

    def brightfield(self, image_id: str) -> np.ndarray:
        """As of PatchStore: (H, W) uint8."""
        return self._grey[image_id]

    def pi_ratio(self, image_id: str) -> np.ndarray:
        """As of PatchStore: (ceil(H/4), ceil(W/4)) float32."""
        return np.abs(self._ratio[image_id]).astype(np.float32)

    def nuclei(self, image_id: str) -> None:
        """As of PatchStore: no mask is read."""

    def pi_clipped(self, image_id: str) -> np.ndarray:
        """As of PatchStore: (ceil(H/4), ceil(W/4)) bool."""
        return self._ratio[image_id] < 0


def grey(frame: Frame, contract: dict) -> np.ndarray:
    """The bright-field (H, W) uint8 as the network sees it."""
    low, high = scaling_range(frame.brightfield, **contract["scaling"])
    return to_uint8(frame.brightfield, low, high)


def over_background(frame: Frame, entry: Field, contract: dict) -> np.ndarray:
    """PI over the field's background (see `tile.measures.ratio`)."""
    _, pi = check_frame(frame, entry, smallest=1)
    [background] = backgrounds(pi, [contract["label"]["background"]])
    return ratio(pi, background, bits(frame.pi))


def tuned(scorer: Scorer, entries: Sequence[Field], pixel_size_um: float | None) -> Tuned:
    """Trains a scorer's stain network on, from two stained fields or more.

    It takes about half a minute on two cores for each network of an ensemble, and as long again for
    each of up to FOLDS parts of the fields. Raises Refused for a field that cannot be read (any
    more).
    """
    fields = StainedFields(entries, scorer.contract, pixel_size_um)
    names = np.array(list(fields.frames))
    part = np.arange(len(names)) % min(FOLDS, len(names))
    judged = []
    for held in range(part.max() + 1):
        print(f"adapt: part {held + 1} of {part.max() + 1}: a network for it learns from the rest")
        judge = replaced(scorer, learnt(scorer, fields, names[part != held]))
        judged += [windows(judge, fields, name) for name in names[part == held]]
    print("adapt: the network learns from all fields")
    return Tuned(learnt(scorer, fields, names), pd.concat(judged))


def learnt(scorer: Scorer, fields: StainedFields, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """State of the scorer's network halfway to where STEPS more steps on the named fields lead."""
    contract = scorer.contract
    net, before, facts = deepcopy(scorer.net), scorer.net.state_dict(), scorer.net.stain
    pretrained = contract["weights"]["weights"] != "random"
    for network in net.networks:
        network.pretrained = pretrained
    net.train()
    stain = Stain(
        reduction=facts.reduction, crop=SEEN, magnified=[0.0] * facts.networks,
        augmentation=1.0, place=0, nuclei=0, orientations=facts.orientations,
    )  # fmt: skip
    train = TRAIN.model_copy(update={"frozen_stages": 1 if pretrained else 0})
    after, *_ = fit_stain(net, fields, list(names), train, stain, lambda row, epoch: None)
    return {
        k: torch.lerp(before[k], v, 0.5) if v.is_floating_point() else v for k, v in after.items()
    }


def replaced(scorer: Scorer, state: dict[str, torch.Tensor]) -> Scorer:
    """The same scorer with other weights of its network."""
    net = deepcopy(scorer.net)
    net.load_state_dict(state)
    return replace(scorer, net=net.eval(), last={})


def windows(scorer: Scorer, fields: StainedFields, name: str) -> pd.DataFrame:
    """Windows with cells of a field: image_id, y, x, p."""
    frame, size = fields.frames[name]
    table = scorer.score(frame, size).dropna(subset="live_probability")
    return table[["y", "x"]].assign(image_id=name, p=table["live_probability"])
