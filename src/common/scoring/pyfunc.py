"""The registered model's face to MLflow: a table of frames in, a table of windows out. Ships inside
the model.
"""

import base64
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel

from .reading.reader import single_plane
from .reading.stacks import ImageError
from .scorer import WINDOW_COLUMNS, RefusedFrame, Scorer


class LiveDeadModel(PythonModel):
    """Scores bright-field frames; see `predict`."""

    # Else MLflow tells everybody who loads the model that `predict` lacks type hints, from which it
    # would make the signature that the package states
    _skip_type_hint_validation = True

    def load_context(self, context) -> None:
        """Loads weights, filter and contract from the model's artifacts; nothing is unpickled."""
        self.scorer = Scorer.load(Path(context.artifacts["scorer"]))

    def predict(self, context, model_input, params=None) -> pd.DataFrame:
        """One row per window: image_id, y, x, size, verdict, live_probability, novelty, call.

        `model_input`: a DataFrame with a row per frame. image: the raw bright-field counts, as a
        (H, W) uint8 or uint16 array, as nested lists, or as the bytes of a PNG or TIFF file (over
        HTTP: those bytes in base64). pixel_size_um: micrometres per pixel; else what the file says.
        image_id (optional): a name; else the row number.
        """
        tables = []
        for number, row in enumerate(model_input.to_dict("records")):
            name = row.get("image_id")
            name = str(number) if pd.isna(name) or name == "" else name
            try:
                frame, size = decode(row["image"])
                table = self.scorer.score(frame, _number(row.get("pixel_size_um")) or size)
            except RefusedFrame as error:
                raise RefusedFrame(f"image {name}: {error}") from None
            tables.append(table.assign(image_id=str(name)))
        if not tables:
            return pd.DataFrame(columns=["image_id", *WINDOW_COLUMNS])
        return pd.concat(tables, ignore_index=True)[["image_id", *WINDOW_COLUMNS]]


def decode(image) -> tuple[np.ndarray, float | None]:
    """A frame from an array, nested lists, the bytes of an image file, or those bytes in base64;
    and um per pixel where a file says.

    Bytes are read as the stages read files (reader.py). Raises RefusedFrame.
    """
    if isinstance(image, str):
        try:
            image = base64.b64decode("".join(image.split()), validate=True)
        except ValueError as error:
            raise RefusedFrame(
                f"the text is not base64 ({error}): "
                "send the bytes of a PNG or TIFF file in base64, without any prefix"
            ) from None
    if not isinstance(image, bytes | bytearray):
        return np.asarray(image), None
    if not image:
        raise RefusedFrame("there are no bytes: give those of a PNG or TIFF file")
    try:
        return single_plane(bytes(image))
    except ImageError as error:
        raise RefusedFrame(str(error)) from None


def _number(value) -> float | None:
    return None if value is None or value != value else float(value)
