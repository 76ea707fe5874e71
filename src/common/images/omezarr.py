"""OME-Zarr (NGFF 0.4 and 0.5): an image as a stack of planes, and the fields of a plate.

A store is a folder named *.zarr: one image, or a plate in the HCS layout (row/column/field). Its
metadata are held against the models of ome-zarr-models, pixels are read by zarr, and of those the
chunks of one plane of full resolution alone. A store is never written.
"""

import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..scoring.reading.pixel_size import PLAUSIBLE, UM
from ..scoring.reading.stacks import ImageError, Stack, axis_order, no_file, refuse_large

if TYPE_CHECKING:  # slow to import, and most folders hold no store
    import zarr

ZARR_SUFFIX = ".zarr"
AnyPath = TypeVar("AnyPath", bound=PurePath)


def store_of(path: AnyPath) -> AnyPath | None:
    """The store that a path is or lies in, or None; nothing is opened."""
    places = *reversed(path.parents), path
    return next((place for place in places if place.suffix.lower() == ZARR_SUFFIX), None)


def unnamed(folder: Path) -> Path | None:
    """A store without the suffix that stores are known by, the folder itself or in it, or None."""
    marks = [*folder.glob("zarr.json"), *folder.glob("*/zarr.json")]
    marks += [*folder.glob(".zgroup"), *folder.glob("*/.zgroup")]
    return next((mark.parent for mark in marks if not store_of(mark)), None)


def all_in_stores(paths: Iterable[Path]) -> bool:
    """Whether there are paths, and every one lies in a store."""
    stores = [store_of(path) for path in paths]
    return bool(stores) and all(stores)


def fields(store: Path) -> dict[Path, dict[str, str]]:
    """The images of a store, with what a plate's metadata say of each: experiment (the plate's
    name), well, and position, counted from 0 within each acquisition of the well; of a series that
    bioformats2raw wrote, the store's name and the image's number.

    What cannot be listed stands there itself, to be refused when it is read.
    """
    try:
        metadata = _metadata(store)
    except ImageError:
        return {store: {}}
    plate, name = metadata.get("plate"), store.name.removesuffix(ZARR_SUFFIX).removesuffix(".ome")
    if not plate:
        series = metadata.get("bioformats2raw.layout") and _series(store, name)
        return series or {store: {}}
    name = plate.get("name") or name
    images = {}
    for well in plate["wells"]:
        row, column = well["path"].split("/")
        facts = {"experiment": name, "well": f"{row}{column}"}
        for path, position in _positions(store / well["path"]).items():
            images[path] = facts | {"position": position}
    return images


def _series(store: Path, name: str) -> dict[Path, dict[str, str]]:
    numbers = filter(str.isdecimal, os.listdir(store))
    return {store / number: {"experiment": name, "position": number} for number in numbers}


def _positions(well: Path) -> dict[Path, str]:
    try:
        images = _metadata(well)["well"]["images"]
    except (ImageError, KeyError):
        return {well: ""}
    number: defaultdict = defaultdict(count)
    return {well / one["path"]: str(next(number[one.get("acquisition")])) for one in images}


def facts(paths: Iterable[Path]) -> dict[Path, dict[str, str]]:
    """What plates' metadata say of those paths that lie in a store (see `fields`)."""
    stores = {store for store in map(store_of, paths) if store}
    return {path: said for store in sorted(stores) for path, said in fields(store).items()}


def files_of(image: Path) -> list[Path]:
    """Every file that an image of a store is made of, sorted, and the metadata above it."""
    store = store_of(image) or image
    above = [store / place for place in image.relative_to(store).parents]
    stated = [place / name for place in above for name in ("zarr.json", ".zgroup", ".zattrs")]
    inside = [path for path in sorted(image.rglob("*")) if path.is_file()]
    return [*(path for path in stated if path.is_file()), *inside]


@contextmanager
def opened(image: Path, axes: str, setting: str) -> Iterator[Stack]:
    """An image of a store as a stack at full resolution; axes and setting as in reader.opened.

    Raises ImageError for whatever keeps it from being read.
    """
    with _refused():
        _refuse_special(image.rglob("*"))
        metadata = _metadata(image)
        if not metadata.get("multiscales"):
            raise ImageError("format", "it is no OME-Zarr image: name a plate, or one image of it")
        scales = metadata["multiscales"][0]
        array = _group(image)[scales["datasets"][0]["path"]]
        stated = "".join(axis["name"].upper() for axis in scales["axes"])
        if len(stated) != len(array.shape):
            raise ImageError("axes", f"metadata name axes {stated}, the shape is {array.shape}")
        order = axis_order(axes, stated, array.shape, setting)
        refuse_large(*(array.shape[order.index(axis)] for axis in "YX"))
        channels = (metadata.get("omero") or {}).get("channels") or []
        names = tuple(str(channel.get("label") or "") for channel in channels)
        size = _pixel_size(scales)
        yield Stack(order, array.shape, lambda index: _take(array, order, index), names, size)


def _take(array: "zarr.Array", order: str, index: tuple[int, ...]) -> np.ndarray:
    """One plane, of whose array no chunk may be missing: zarr would read zeros."""
    there, wanted = array.nchunks_initialized, array.nchunks
    if there < wanted:
        why = f"{wanted - there} of {wanted} chunks are not there: was it copied in part?"
        raise ImageError("unreadable", f"{why} (zarr may leave out chunks of zeros: write those)")
    steps = iter(index)
    plane = array[tuple(slice(None) if axis in "YX" else next(steps) for axis in order)]
    return plane.astype(plane.dtype.newbyteorder("="), copy=False)


def _pixel_size(scales: Mapping) -> float | None:
    """um per pixel at full resolution, or None where the metadata do not say. Raises ImageError for
    pixels that are not square.
    """
    sides = {}
    steps = [*scales["datasets"][0]["coordinateTransformations"]]
    steps += scales.get("coordinateTransformations") or []
    for place, axis in enumerate(scales["axes"]):
        by = [step["scale"][place] for step in steps if "scale" in step]
        sides[axis["name"]] = UM.get(axis.get("unit"), np.nan) * np.prod(by)
    x, y = sides["x"], sides["y"]
    if not PLAUSIBLE[0] <= min(x, y) <= max(x, y) <= PLAUSIBLE[1]:
        return None
    if abs(x - y) > 0.01 * x:
        raise ImageError("pixel size", f"pixels are not square: {x:g} x {y:g} um")
    return round(float(x), 6)


def _group(path: Path) -> "zarr.Group":
    import zarr

    return zarr.open_group(path, mode="r", use_consolidated=False)


def _metadata(path: Path) -> dict:
    """A group's OME-Zarr metadata, valid where they describe a plate, a well or an image.

    Raises ImageError.
    """
    with _refused():
        _refuse_special(path.glob("*"))
        attributes = _group(path).attrs.asdict()
        _validate(attributes)
        return attributes.get("ome", attributes)


def _refuse_special(paths: Iterable[Path]) -> None:
    """Raises ImageError for a named pipe or the like, for which zarr would wait."""
    for path in paths:
        if path.exists() and not path.is_dir() and (other := no_file(path)):
            raise ImageError("unreadable", f"{path.name} in it is {other}, not a file")


def _validate(attributes: dict) -> None:
    """Raises ImageError for metadata of another version than NGFF 0.4 or 0.5, and pydantic's
    ValidationError for such that are not as those want it.
    """
    from ome_zarr_models import v04, v05

    version, metadata = (v05, attributes["ome"]) if "ome" in attributes else (v04, attributes)
    parts = [metadata, metadata.get("plate"), metadata.get("well")]
    for part in filter(None, [*parts, *metadata.get("multiscales", [])]):
        if (said := part.get("version", "0.4")) not in ("0.4", "0.5"):
            raise ImageError(
                "format", f"it is OME-Zarr {said}, and 0.4 and 0.5 are read: convert it"
            )
    models = {"plate": version.hcs.HCSAttrs, "well": version.well.WellAttrs}
    models["multiscales"] = version.image.ImageAttrs
    with warnings.catch_warnings(action="ignore"):  # what is recommended may be left out
        for name, model in models.items():
            if name in metadata:  # display settings (omero) differ between writers
                stated = {key: metadata[key] for key in (name, "version") if key in metadata}
                model.model_validate(stated)


@contextmanager
def _refused() -> Iterator[None]:
    """Every way in which a store cannot be read becomes ImageError."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError as error:  # zarr's GroupNotFoundError among them
        raise ImageError("missing file", "no OME-Zarr group is there") from error
    except PermissionError as error:
        detail = "this user may not read the store: mend its permissions"
        raise ImageError("not allowed", detail) from error
    except Exception as error:  # JSON, metadata, codecs: anything may be damaged
        said = " ".join(str(error).split())[:200]
        raise ImageError("unreadable", f"damaged or truncated OME-Zarr ({said})") from error
