"""Sliding-window geometry: which windows a frame has. Pure functions of sizes; no pixels, no files.

Contract: windows are square and lie wholly inside the frame, in row-major order. Under `drop` they
start at multiples of the stride, and a remainder narrower than the stride may stay uncovered at the
right and bottom edge; under `anchor` further windows lie flush with those edges, so that every
pixel is in some window.
"""

from dataclasses import dataclass

from .. import ScoringError


class WindowError(ScoringError):
    """A window or stride that no frame can have."""


@dataclass(frozen=True)
class Window:
    """A square window: its place in the grid and its upper left corner and size, in pixels."""

    row: int
    col: int
    y: int
    x: int
    size: int


def starts(length: int, size: int, stride: int, edge: str = "drop") -> list[int]:
    """First pixels of the windows along one axis of `length` pixels; empty if the axis is shorter
    than a window.
    """
    if size < 1 or stride < 1:
        raise WindowError(f"window and stride must be at least 1 pixel, not {size} and {stride}")
    places = list(range(0, length - size + 1, stride))
    if edge == "anchor" and places and places[-1] + size < length:
        places.append(length - size)
    return places


def windows(height: int, width: int, size: int, stride: int, edge: str = "drop") -> list[Window]:
    """All windows of a (height, width) frame; 88 for the paper's 1024 x 1344 frame, 224 px windows
    and stride 112.
    """
    rows, cols = starts(height, size, stride, edge), starts(width, size, stride, edge)
    return [Window(r, c, y, x, size) for r, y in enumerate(rows) for c, x in enumerate(cols)]


def remainder(length: int, size: int, stride: int, edge: str = "drop") -> int:
    """How many pixels at the far end of an axis are in no window (narrower than the stride if any
    window fits).

    With a stride wider than the window there are further gaps between windows, which this does not
    count.
    """
    places = starts(length, size, stride, edge)
    return length - (places[-1] + size) if places else length


def in_pixels(extent: float, unit: str, pixel_size_um: float | None) -> int:
    """A window or stride in whole pixels of a frame, from pixels (`px`) or micrometres (`um`).

    Raises WindowError when micrometres are asked of a frame whose pixel size is not known.
    """
    if unit == "px":
        if extent != int(extent):
            raise WindowError(f"a window or stride in pixels must be whole, not {extent}")
        return int(extent)
    if pixel_size_um is None or not pixel_size_um > 0:
        raise WindowError(
            "the pixel size is not known: give pixel_size_um in the manifest, "
            "or set tile.unit to px"
        )
    return max(1, round(extent / pixel_size_um))
