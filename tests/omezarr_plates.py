"""Small OME-Zarr plates, with metadata made by ome-zarr-models and pixels written by zarr, and the
same pixels as OME-TIFFs with a manifest.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import zarr
from ome_zarr_models import v04, v05

MODELS = {"0.4": v04, "0.5": v05}
CHANNELS = ("BF", "PI")
PIXEL_SIZE_UM = 0.5
AXES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def _put(group: zarr.Group, metadata: dict, version: str) -> None:
    group.attrs.update(metadata if version == "0.4" else {"ome": metadata | {"version": version}})


def write_image(group: zarr.Group, pixels: np.ndarray, axes: str, version: str, **array) -> None:
    """One image (such as axes tcyx) in two levels, its pixel size in nm at full resolution."""
    spatial = {"type": "space", "unit": "nanometer"}
    stated = [{"name": a, "type": AXES[a]} | (spatial if a in "yx" else {}) for a in axes]
    levels = []
    for level, factor in enumerate((1, 2)):
        scale = [1e3 * PIXEL_SIZE_UM * factor if axis in "yx" else 1.0 for axis in axes]
        steps = [{"type": "scale", "scale": scale}]
        levels.append({"path": str(level), "coordinateTransformations": steps})
        chunks = (1,) * (len(axes) - 2) + (48, 64)
        options = {"config": {"write_empty_chunks": True}, "chunks": chunks} | array
        group.create_array(str(level), data=pixels[..., ::factor, ::factor], **options)
    scales = {"axes": stated, "datasets": levels, "name": "field"}
    if version == "0.4":
        scales["version"] = "0.4"
    model = MODELS[version].multiscales.Multiscale.model_validate(scales)
    names = [{"label": name} for name in CHANNELS]
    metadata = {"multiscales": [model.model_dump(mode="json", exclude_none=True)]}
    _put(group, metadata | {"omero": {"channels": names}}, version)


def write_plate(
    store: Path, fields: dict[str, np.ndarray], version: str = "0.5", axes: str = "cyx", **array
) -> Path:
    """A plate in the HCS layout: pixels of each field by its path, such as A/1/0."""
    root = zarr.open_group(store, mode="w", zarr_format=2 if version == "0.4" else 3)
    wells = sorted({path.rsplit("/", 1)[0] for path in fields})
    rows, columns = (sorted({well.split("/")[axis] for well in wells}) for axis in (0, 1))
    places = [
        {"path": well, "rowIndex": rows.index(well.split("/")[0]),
         "columnIndex": columns.index(well.split("/")[1])}
        for well in wells
    ]  # fmt: skip
    plate = {"name": "screen7", "version": version, "wells": places}
    plate |= {"rows": [{"name": n} for n in rows], "columns": [{"name": n} for n in columns]}
    model = MODELS[version].plate.Plate.model_validate(plate)
    _put(root, {"plate": model.model_dump(mode="json", exclude_none=True)}, version)
    for well in wells:
        images = [{"path": p.rsplit("/", 1)[1]} for p in fields if p.startswith(f"{well}/")]
        _put(root.require_group(well), {"well": {"images": images, "version": version}}, version)
    for path, pixels in fields.items():
        write_image(root.require_group(path), pixels, axes, version, **array)
    return store


def write_tiffs(folder: Path, fields: dict[str, np.ndarray]) -> Path:
    """The same fields (C, H, W) as OME-TIFFs, and images.csv that says what the plate's metadata
    say.
    """
    folder.mkdir()
    rows = []
    for path, pixels in fields.items():
        row, column, position = path.split("/")
        name = f"{row}{column}_{position}"
        size = {"PhysicalSizeX": PIXEL_SIZE_UM, "PhysicalSizeY": PIXEL_SIZE_UM}
        about = {"axes": "CYX", "Channel": {"Name": list(CHANNELS)}} | size
        tifffile.imwrite(folder / f"{name}.ome.tif", pixels, ome=True, metadata=about)
        rows.append({
            "image_id": name, "experiment": "screen7", "well": f"{row}{column}",
            "position": position, "brightfield": f"{name}.ome.tif", "pi": f"{name}.ome.tif",
        })  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "images.csv", index=False)
    return folder
