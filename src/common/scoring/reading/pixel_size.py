"""Pixel size and channel names from a TIFF's metadata: OME, ImageJ, Micro-Manager, or the
resolution tags. Ships inside registered models.
"""

import re

import tifffile

_PREFIXES = {"": 1e6, "centi": 1e4, "milli": 1e3, "micro": 1.0, "nano": 1e-3}
UM = {
    f"{prefix}met{end}": um
    for prefix, um in _PREFIXES.items()
    for end in ("er", "ers", "re", "res")
}
UM |= {"m": 1e6, "cm": 1e4, "mm": 1e3, "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "nm": 1e-3}
UM |= {"micron": 1.0, "microns": 1.0, "inch": 25400.0, "angstrom": 1e-4}
# um per pixel; outside it a tag is a printing resolution (72 dpi = 353 um, 2400 dpi = 10.6 um)
PLAUSIBLE = (0.005, 10.0)
PIXEL_SIZE_TOLERANCE = 0.1  # a window may show a tenth more or less than others that a model sees
MICRO_MANAGER = 51123


def pixel_size(tif: tifffile.TiffFile) -> float | None:
    """Pixel size in um, or None where the file does not say.

    Raises ValueError for pixels that are not square.
    """
    size = _ome(tif) or _micro_manager(tif) or _tags(tif)
    if size is None or not all(PLAUSIBLE[0] <= side <= PLAUSIBLE[1] for side in size):
        return None
    x, y = size
    if abs(x - y) > 0.01 * x:
        raise ValueError(f"pixels are not square: {x:g} x {y:g} um")
    return round(x, 6)


def channel_names(tif: tifffile.TiffFile) -> tuple[str, ...]:
    """The channels' names in OME metadata, in order; empty where there are none. Of a single plane
    of a series of files its own, where the metadata say by file which it is.
    """
    pixels = _pixels(tif)
    names = tuple(str(one.get("Name", "")).strip() for one in _elements(pixels.get("Channel")))
    parts = [one for one in _elements(pixels.get("TiffData")) if _elements(one.get("UUID"))]
    own = {one["UUID"].get("FileName"): one.get("FirstC", 0) for one in parts}.get(tif.filename)
    return names[own:][:1] if len(tif.pages) == 1 and own is not None else names


def _pixels(tif: tifffile.TiffFile) -> dict:
    """The Pixels element of the first image of OME metadata."""
    if not tif.ome_metadata:
        return {}
    images = _elements(tifffile.xml2dict(tif.ome_metadata).get("OME", {}).get("Image"))
    return images[0].get("Pixels", {}) if images else {}


def _elements(value: object) -> list[dict]:
    """The XML elements of one name that state something: none, one or several."""
    every = value if isinstance(value, list) else [value]
    return [one for one in every if isinstance(one, dict)]


def _ome(tif: tifffile.TiffFile) -> tuple[float, float] | None:
    pixels = _pixels(tif)
    if "PhysicalSizeX" not in pixels:
        return None
    names = [str(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XY"]
    if not set(names) <= UM.keys():
        return None
    units = [UM[name] for name in names]
    across, down = (_stated(tif.ome_metadata or "", f"PhysicalSize{axis}") for axis in "XY")
    return (across * units[0], (down or across) * units[1]) if across else None


def _stated(xml: str, name: str) -> float | None:
    """The first number of that name in OME metadata, None for what is none; some programs write the
    decimal comma of their user.
    """
    match = re.search(rf"""\b{name}=["']([0-9]+[.,]?[0-9]*([eE][+-]?[0-9]+)?)["']""", xml)
    return float(match[1].replace(",", ".")) if match else None


def _micro_manager(tif: tifffile.TiffFile) -> tuple[float, float] | None:
    tag = tif.pages.first.tags.get(MICRO_MANAGER)
    size = tag.value.get("PixelSizeUm") if tag is not None and isinstance(tag.value, dict) else None
    return (float(size), float(size)) if size else None


def _tags(tif: tifffile.TiffFile) -> tuple[float, float] | None:
    """From pixels per unit; ImageJ names the unit in its description, plain TIFF in a tag."""
    tags = tif.pages.first.tags
    if "XResolution" not in tags or "YResolution" not in tags:
        return None
    unit = (tif.imagej_metadata or {}).get("unit") or {2: "inch", 3: "cm"}.get(
        int(tags.valueof("ResolutionUnit", 1))
    )
    per_unit = [_ratio(tags[f"{axis}Resolution"].value) for axis in "XY"]
    um = UM.get(str(unit).lower())
    return (um / per_unit[0], um / per_unit[1]) if um and all(per_unit) else None


def _ratio(value: tuple[int, int]) -> float:
    return value[0] / value[1] if value[1] else 0.0
