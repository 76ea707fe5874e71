"""A field whose channels lie in files, and the checks a field passes to enter data/raw."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from .field import TITLES, Field, Frame, Refused
from .planes import Plane, header, read_plane

# Pixels at the image's own maximum, whatever the camera's full scale; of the real bright-field
# fields at most 0.3%, and PI of a field of dead cells may be clipped in all of them
SATURATED = {"bright-field": 0.1, "PI": 0.5}
PIECES = 2  # that a number of an instance mask may lie in, on average


@dataclass(frozen=True, kw_only=True)
class FileField(Field):
    """One field of view in one multi-channel file or in one file a channel; for the assay, without
    PI.
    """

    brightfield: Plane | None
    pi: Plane | None = None
    nuclei: Plane | None = None  # an instance mask of nuclei or cells
    # Of the two channels' pixels as uint16, where the source states them
    sha256: tuple[str, str] | None = None

    def expand(self) -> list["FileField"]:
        """Itself, or one field for each time point of a time stack, which share a position and are
        counted on from the field's own time.

        Raises Refused.
        """
        if self.problem:
            raise Refused(*self.problem, self.name)
        stacks = [header(plane) for plane in (self.brightfield, self.pi) if plane]
        counts = {stack.length("T") for stack in stacks}
        if self.nuclei:
            with _of_mask(self.nuclei):
                counts.add(header(self.nuclei).length("T"))
        if len(counts) > 1:
            held = f"hold different numbers of time points: {sorted(counts)}"
            what = "the channels, or the nuclei mask," if self.nuclei else "the channels"
            raise Refused("shapes", f"{what} {held}", self.name)
        size = next((stack.pixel_size_um for stack in stacks if stack.pixel_size_um), None)
        lossy = next((stack.lossy for stack in stacks if stack.lossy), "")
        one = replace(self, file_um=size, lossy=lossy)
        [count] = counts
        return [one] if count == 1 else [one._at(step) for step in range(count)]

    def _at(self, step: int) -> "FileField":
        return replace(
            self,
            image_id=f"{self.image_id}_t{step:03d}",
            position=self.position or self.image_id,
            time=(self.time or 0.0) + step,
            brightfield=replace(self.brightfield, time=step),
            pi=self.pi and replace(self.pi, time=step),
            nuclei=self.nuclei and replace(self.nuclei, time=step),
        )

    def read(self) -> Frame:
        """Read both channels; the pixel size is the field's own, else what the files say. Raises
        Refused.
        """
        brightfield, size = read_plane(self.brightfield)
        pi, other = read_plane(self.pi)
        if size and other and abs(size - other) > 0.01 * size:
            detail = f"bright-field has {size:g} um per pixel, PI {other:g}"
            raise Refused("pixel size", detail, self.name)
        return Frame(brightfield, pi, self.pixel_size_um or size or other)

    def pixels(self) -> tuple[np.ndarray, float | None]:
        """Bright-field counts (H, W) uint8 or uint16, and um per pixel: the manifest's, else the
        file's. Raises Refused.
        """
        if self.problem:
            raise Refused(*self.problem, self.name)
        image, size = read_plane(self.brightfield)
        check_channel(image, "bright-field", self.name)
        return image, self.pixel_size_um or size

    def mask(self, shape: tuple[int, int] | None = None) -> np.ndarray | None:
        """The instance mask (H, W), 0 is background, or None where there is none. Raises Refused,
        also for one of another shape than its image, and for what is no instance mask.
        """
        if self.nuclei is None:
            return None
        with _of_mask(self.nuclei):
            mask, _ = read_plane(self.nuclei)
            if shape is not None and mask.shape != shape:
                sides = (*mask.shape, *shape)
                raise Refused("shapes", "{} x {} px, its image {} x {} px".format(*sides))
            return _instances(mask)


@contextmanager
def _of_mask(plane: Plane) -> Iterator[None]:
    """Why a mask cannot be used becomes a reason that names it as one."""
    try:
        yield
    except Refused as refused:
        why = str(refused)
        if refused.kind in ("axes", "channel"):  # the options for those are for its image
            why = f"{refused.kind}: it holds colours, channels or planes. Save the numbers of the "
            why += "nuclei alone, in one plane of unsigned 16 bit"
        raise Refused("nuclei mask", f"{plane.name}: {why}", plane.name) from None


def _instances(mask: np.ndarray) -> np.ndarray:
    """Numbers of instances (H, W) int32; of a mask of one value, each connected piece is one.

    Raises Refused for what is no mask: other numbers than whole ones from 0, as probabilities are;
    most pixels of another number than 0, as of inverted masks and ilastik's (1 is background); or
    most numbers in several pieces, as the counts of an image are.
    """
    from skimage.measure import label  # slow: brings scipy.stats

    numbers = np.nan_to_num(mask).clip(0, np.iinfo(np.int32).max).astype(np.int32)
    if not np.array_equal(numbers, mask):
        whole = "an instance mask holds whole numbers from 0, for each nucleus its own"
        raise Refused("pixel type", f"{whole}: save it as unsigned 16 bit")
    values, areas = np.unique(numbers, return_counts=True)
    most, share = values[areas.argmax()], areas.max() / numbers.size
    if most and (share > 0.5 or values[0]):  # cells that touch may leave little background
        detail = f"most pixels are {most}: 0 must be the background; 1, 2, ... the nuclei"
        raise Refused("background", detail)
    pieces, count = label(numbers, return_num=True)
    held = np.count_nonzero(values)
    if held > 1 and count > PIECES * held:
        seen = f"its {held} numbers lie in {count} pieces"
        raise Refused("an image", f"{seen}, and in an instance mask each nucleus has its own")
    return pieces.astype(np.int32) if held == 1 else numbers


def check_frame(frame: Frame, field: Field, smallest: int) -> tuple[np.ndarray, np.ndarray]:
    """Both channels as uint16 with their counts kept. Raises Refused.

    `smallest` is the window in pixels: a field narrower than one patch is refused.
    """
    for role, channel in TITLES.items():
        own_file = getattr(field, role, field)  # a simulated field has none
        check_channel(getattr(frame, role), channel, own_file.name)
    height, width = frame.brightfield.shape
    if frame.pi.shape != (height, width):
        pi = f"{frame.pi.shape[0]} x {frame.pi.shape[1]}"
        seen = f"bright-field is {height} x {width} px, PI {pi}"
        raise Refused("shapes", f"{seen}: the channels must be registered on one grid", field.name)
    if min(height, width) < smallest:
        detail = f"{height} x {width} px holds no patch of {smallest} px"
        raise Refused("too small", detail, field.name)
    if np.array_equal(frame.brightfield, frame.pi):
        raise Refused("same channel", "bright-field and PI hold the same pixels", field.name)
    return frame.brightfield.astype(np.uint16), frame.pi.astype(np.uint16)


def bits(image: np.ndarray) -> int:
    """Bits of an image's counts in its file, 8 or 16; each channel has its own."""
    return 8 * image.dtype.itemsize


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
    share = float((image == top).mean())
    if share > SATURATED[channel]:
        detail = f"{share:.0%} of the {channel} pixels are at its maximum ({top}): expose shorter"
        raise Refused("saturated", detail, name)
