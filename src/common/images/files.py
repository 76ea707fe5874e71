"""A field whose channels lie in files, and the checks every field passes before it enters data/raw."""

from dataclasses import dataclass, replace

import numpy as np

from .field import Field, Frame, Refused
from .planes import Plane, read_plane, time_points

SATURATED = 0.5  # of the pixels at full scale: the exposure says nothing any more
FULL_SCALE = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16-bit cameras


@dataclass(frozen=True, kw_only=True)
class FileField(Field):
    """One field of view in one multi-channel file or in one file a channel."""

    brightfield: Plane | None
    pi: Plane | None
    sha256: tuple[str, str] | None = (
        None  # of the two channels' pixels as uint16, where the source states them
    )

    def expand(self) -> list[Field]:
        """Itself, or one field for each time point of a time stack, which share a position.

        Raises Refused.
        """
        if self.problem:
            raise Refused(*self.problem, self.name)
        counts = {time_points(plane) for plane in (self.brightfield, self.pi)}
        if len(counts) > 1:
            raise Refused(
                "shapes",
                f"the channels hold different numbers of time points: {sorted(counts)}",
                self.name,
            )
        (count,) = counts
        return [self] if count == 1 else [self._at(step) for step in range(count)]

    def _at(self, step: int) -> "FileField":
        return replace(
            self,
            image_id=f"{self.image_id}_t{step:03d}",
            position=self.position or self.image_id,
            time=float(step),
            brightfield=replace(self.brightfield, time=step),
            pi=replace(self.pi, time=step),
        )

    def read(self) -> Frame:
        """Read both channels; the pixel size is the field's own, else what the files say. Raises
        Refused.
        """
        brightfield, size = read_plane(self.brightfield)
        pi, other = read_plane(self.pi)
        if size and other and abs(size - other) > 0.01 * size:
            raise Refused(
                "pixel size", f"bright-field has {size:g} um per pixel, PI {other:g}", self.name
            )
        return Frame(brightfield, pi, self.pixel_size_um or size or other)


def check(frame: Frame, field: Field, smallest: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Both channels as uint16 with their counts kept, and the bits of the source. Raises Refused.

    `smallest` is the window in pixels: a field narrower than one patch is refused.
    """
    names = _names(field)
    for channel, image in (("bright-field", frame.brightfield), ("PI", frame.pi)):
        check_channel(image, channel, names[channel])
    height, width = frame.brightfield.shape
    if frame.pi.shape != (height, width):
        seen = (
            f"bright-field is {height} x {width} px, PI {frame.pi.shape[0]} x {frame.pi.shape[1]}"
        )
        raise Refused("shapes", f"{seen}: the channels must be registered on one grid", field.name)
    if min(height, width) < smallest:
        raise Refused(
            "too small", f"{height} x {width} px holds no patch of {smallest} px", field.name
        )
    if np.array_equal(frame.brightfield, frame.pi):
        raise Refused("same channel", "bright-field and PI hold the same pixels", field.name)
    bits = 8 * max(frame.brightfield.dtype.itemsize, frame.pi.dtype.itemsize)
    return frame.brightfield.astype(np.uint16), frame.pi.astype(np.uint16), bits


def _names(field: Field) -> dict[str, str]:
    if not isinstance(field, FileField):
        return {"bright-field": field.name, "PI": field.name}
    return {"bright-field": field.brightfield.name, "PI": field.pi.name}


def check_channel(image: np.ndarray, channel: str, name: str) -> None:
    """Raises Refused for an image (H, W) that holds no usable counts: of another type, constant, or
    saturated.
    """
    if image.dtype not in (np.uint8, np.uint16):
        advice = (
            "save the raw counts as unsigned 8 or 16 bit (Fiji: Image > Type > 16-bit, unscaled)"
        )
        raise Refused("pixel type", f"{channel} is {image.dtype}: {advice}", name)
    top = int(image.max())
    if top == int(image.min()):
        raise Refused("constant", f"every {channel} pixel is {top}", name)
    share = float((image == top).mean()) if top in FULL_SCALE else 0.0
    if share > SATURATED:
        raise Refused(
            "saturated", f"{share:.0%} of the {channel} pixels are at full scale ({top})", name
        )
