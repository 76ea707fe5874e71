"""An image file as a stack of 2-D planes: its axes, how a plane is taken, why a file is refused.

Axes are letters: Y, X, C channel, Z focus plane, T time. What a file states is followed; what
nothing states is refused, never guessed. Ships inside registered models.
"""

import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import ScoringError

MOST_PIXELS = 100_000_000  # of one plane: a camera has 65 million at most; more is a stitched slide
SHADES = {  # photometric interpretations whose pixels are no counts
    0: "says that 0 is white (WhiteIsZero), so whether its counts are inverted cannot be told: "
    "save it again with 0 as black (Fiji: Image > Lookup Tables > Grays, and Edit > Invert "
    "if bright cells look dark)",
    3: "holds colours of a palette, not counts: save the raw counts",
}

OTHERS = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a named pipe", stat.S_ISSOCK: "a socket",
          stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}  # fmt: skip


class ImageError(ScoringError):
    """A file that cannot be used as an image of counts: the kind of reason, and what is wrong."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


@dataclass(frozen=True)
class Stack:
    """An open file: the axes and shape of what it holds, and how to take one 2-D plane of it by
    index.
    """

    axes: str
    shape: tuple[int, ...]
    take: Callable[[tuple[int, ...]], np.ndarray]
    names: tuple[str, ...] = ()
    pixel_size_um: float | None = None
    lossy: str = ""  # how its pixels are compressed, where that may lose texture

    def length(self, axis: str) -> int:
        """How many steps the file has along an axis; 1 for an axis it does not have."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1


def no_file(path: Path) -> str:
    """What a path is if it is no regular file, else ''; a named pipe would be waited for without
    end, a device be read so. Raises OSError.
    """
    mode = path.stat().st_mode
    return next((kind for is_one, kind in OTHERS.items() if is_one(mode)), "")


def refuse_large(height: int, width: int) -> None:
    """Raises ImageError for more pixels than a field has, before they are unpacked."""
    if height * width > MOST_PIXELS:
        most = f"more than {MOST_PIXELS // 10**6} million pixels are no field"
        raise ImageError("too large", f"{height} x {width} px: {most}; cut it into fields")


def axis_order(axes: str, stated: str, shape: tuple[int, ...], setting: str) -> str:
    """The axis order to read by.

    Raises ImageError when none is stated, or the given one does not fit.
    """
    if len(shape) == 2:
        return stated if set(stated) == {"Y", "X"} else "YX"
    if axes and len(axes) != len(shape):
        shown = f"the file has shape {shape} ({stated})"
        raise ImageError("axes", f"{setting} {axes} names {len(axes)} axes, {shown}")
    if axes:
        return axes
    if {axis for axis, length in zip(stated, shape) if length > 1} <= set("TZCYX"):
        return stated  # an axis of one step needs no name
    colours = stated.endswith("S")
    example = "YXC" if colours else "CYX" if len(shape) == 3 else "TCZYX"[-len(shape) :]
    mend = f"set {setting}, for example {example}" if setting else "give one plane a file"
    raise ImageError("axes", f"shape {shape} without a stated axis order: {mend}")


def one_grey(image: np.ndarray, axes: str) -> tuple[int, ...]:
    """The shape of a colour image, 1 along its samples (S) where all colours are one grey, as many
    programs save it; an alpha of one value is no colour.
    """
    samples = np.moveaxis(image, axes.index("S"), 0)
    colours, alpha = np.split(samples, [len(samples) - (len(samples) % 2 == 0)])
    grey = (colours == colours[0]).all() and (alpha == samples[-1, 0, 0]).all()
    return tuple(1 if grey and axis == "S" else n for axis, n in zip(axes, image.shape))


def sliced(image: np.ndarray, axes: str, index: tuple[int, ...]) -> np.ndarray:
    """One plane of an array of all axes, by its steps along the others."""
    steps = iter(index)
    return image[tuple(slice(None) if axis in "YX" else next(steps) for axis in axes)]
