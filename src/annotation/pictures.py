"""The three views of a window: itself, its surroundings, and where it lies in its field, as encoded
images.
"""

import cv2
import numpy as np

from ..common.patches.store import PatchStore

SIDES_SHOWN = 3  # sides of a window
OUTLINE = (0, 190, 255)  # BGR
FIELD_PX = 480


def window(store: PatchStore, image_id: str, y: int, x: int, size: int) -> bytes:
    """The window as PNG, pixel by pixel."""
    return _encoded(np.ascontiguousarray(store.window(image_id, y, x, size)), ".png")


def surroundings(store: PatchStore, image_id: str, y: int, x: int, size: int) -> bytes:
    """The window outlined in the part of its field around it, as JPEG, shifted where the field
    ends.
    """
    frame = store.brightfield(image_id)
    side = min(SIDES_SHOWN * size, *frame.shape)
    top = int(np.clip(y + size // 2 - side // 2, 0, frame.shape[0] - side))
    left = int(np.clip(x + size // 2 - side // 2, 0, frame.shape[1] - side))
    crop = np.ascontiguousarray(frame[top : top + side, left : left + side])
    return _encoded(_outlined(crop, y - top, x - left, size, max(2, side // 200)), ".jpg")


def field(store: PatchStore, image_id: str, y: int, x: int, size: int) -> bytes:
    """The whole field, reduced, with the window outlined, as JPEG."""
    frame = np.ascontiguousarray(store.brightfield(image_id))
    scale = min(1.0, FIELD_PX / max(frame.shape))
    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return _encoded(_outlined(small, *(round(v * scale) for v in (y, x, size)), 2), ".jpg")


VIEWS = {"window": window, "surroundings": surroundings, "field": field}


def _outlined(grey: np.ndarray, y: int, x: int, size: int, thickness: int) -> np.ndarray:
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    return cv2.rectangle(picture, (x, y), (x + size - 1, y + size - 1), OUTLINE, thickness)


def _encoded(picture: np.ndarray, kind: str) -> bytes:
    return cv2.imencode(kind, picture)[1].tobytes()
