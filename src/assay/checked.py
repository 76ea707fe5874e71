"""The first look at the images: each is read once and held against the model's contract."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..common.images.entries import by_digest, pixel_digest
from ..common.images.field import Refused
from ..common.images.files import FileField, bits
from ..common.scoring.frames.imaging import scaling_range
from ..common.scoring.scorer import RefusedFrame
from ..common.workspace.cache import Kept
from . import output
from .model import Model

LOOK_CODE = ("src/assay", "src/common/images", "src/common/scoring")  # that a look rests on


@dataclass(frozen=True)
class Checked:
    """An image that was read once: why it is refused, or what is known of its counts and the key of
    its parts.
    """

    image: FileField
    reason: str = ""
    pixel_size_um: float | None = None
    digest: str = ""  # of the pixels
    bits: int = 0
    low: float = 0.0
    high: float = 0.0
    key: str = ""
    trained_on: bool = False

    def pixels(self) -> np.ndarray:
        """The counts (H, W) that were checked, read again. Raises Refused if the file holds others
        by now.
        """
        pixels, _ = self.image.pixels()
        if pixel_digest(pixels) != self.digest:
            detail = "the pixels are not those of the first look: was it being written?"
            raise Refused("changed", detail, self.image.name)
        return pixels


def check(entries: Sequence[FileField], model: Model, pixel_size_um: float | None) -> list[Checked]:
    """Reads every image once and holds it against the contract, before any is scored; same pixels
    count once.
    """
    first: dict[str, str] = {}
    jobs = [(image, model, pixel_size_um) for image in entries]
    looked = Kept(LOOK_CODE).each(_look, jobs, _rests_on, 1, "check", "image", _no_files)
    checked = []
    for image, facts in zip(entries, looked):
        digest = facts.get("digest")
        if digest in first:
            why = f"as image {first[digest]}: the list is wrong about one of them"
            facts = {"reason": str(Refused("same pixels", why))}
        elif digest:
            first[digest] = image.image_id
        checked.append(Checked(image, **facts))
    return checked


def _rests_on(image: FileField, model: Model, pixel_size_um: float | None) -> tuple | None:
    """What is known of an image rests on. Raises OSError."""
    if image.problem:
        return None
    of_model = model.facts["digest"], model.contract, model.many
    return by_digest(image), of_model, pixel_size_um


def _no_files(looked: dict) -> list | None:
    """Of a look; an image that was refused, perhaps for a passing fault, is read again."""
    return None if "reason" in looked else []


def _look(image: FileField, model: Model, pixel_size_um: float | None) -> dict:
    """What is known of an image, as arguments of Checked."""
    try:
        return _one(image, model, pixel_size_um)
    except (Refused, RefusedFrame) as error:
        kind = "" if isinstance(error, Refused) else "contract: "
        return {"reason": f"{kind}{error}"}


def _one(image: FileField, model: Model, pixel_size_um: float | None) -> dict:
    """The same of an image that is not refused. Raises Refused or RefusedFrame."""
    pixels, size = image.pixels()
    size = size or pixel_size_um
    model.check(pixels, size)
    image.mask(pixels.shape)
    digest = pixel_digest(pixels)
    low, high = scaling_range(pixels, **model.contract["scaling"])
    seen = pixel_digest(pixels.astype(np.uint16))  # as training data are kept
    return {
        "pixel_size_um": size, "digest": digest, "bits": bits(pixels), "low": low, "high": high,
        "key": output.part_key(model.facts["digest"], digest, size, model.many),
        "trained_on": seen in model.contract.get("training_images", []),
    }  # fmt: skip
