"""A lab's own folder of images, described by a manifest or by a pattern of file names: the one way
by which both the graph and the assay find fields.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from . import omezarr
from .field import TEXTS, Found, SourceError, clean_id, known, same_file
from .files import FileField
from .layout import BOTH, IMAGE_SUFFIX, Layout, brief, make_field, unify_spelling
from .listing import describe, image_files, printable, unread
from .manifest import MANIFEST, by_manifest
from .pattern import by_pattern

SPELLED = ("experiment", "position", "compound")  # texts that one may type in several ways


def find(
    folder: Path, layout: Layout, manifest: Path | None = None, roles: Sequence[str] = BOTH
) -> Found:
    """Every field of the folder, in the manifest's order or sorted by file name. Raises
    SourceError.

    manifest: instead of the folder's images.csv; its paths are relative to the folder all the same.
    roles: the channels that a field has; bright-field alone needs neither manifest nor pattern, nor
    do OME-Zarr plates.
    """
    known(folder, "the folder", layout.settings.path)
    if layout.pattern:
        source = by_pattern(folder, layout, roles)
    elif manifest or (folder / MANIFEST).is_file():
        source = by_manifest(folder, manifest or folder / MANIFEST, layout, roles)
    else:
        names = image_files(folder)
        if len(roles) > 1 and not omezarr.all_in_stores(folder / name for name in names):
            raise SourceError(_advice(folder, layout))
        source = each_file(folder, names, layout, roles)
        source = replace(source, notes=(*unread(folder), *_tables(folder)))
    fields, notes = list(source.fields), list(source.notes)
    for column in SPELLED:
        fields, more = unify_spelling(fields, column)
        notes += more
    return Found(fields, (*notes, *_same_place(fields)))


def _same_place(fields: Sequence[FileField]) -> list[str]:
    """A note on images that nothing tells apart, as of two acquisitions of a plate."""
    places: dict[tuple, list[str]] = {}
    for one in fields:
        if one.well and one.position and not one.problem:
            place = tuple(getattr(one, name) for name in (*TEXTS, "time", "day", "concentration"))
            places.setdefault(place, []).append(one.image_id)
    if not (same := [ids for ids in places.values() if len(ids) > 1]):
        return []
    first, second, *_ = same[0]
    return [
        f"{sum(map(len, same))} images are said to be of one position at one time, such as {first} "
        f"and {second}: they are pooled unless a manifest gives each its time or day"
    ]


def each_file(
    folder: Path, names: Sequence[str], layout: Layout, roles: Sequence[str] = BOTH[:1]
) -> Found:
    """A field of each file, named after it, and after its folders where two files have one name; of
    a field of an OME-Zarr plate, its well and position. Raises SourceError if there is none.
    """
    if not names:
        raise SourceError(f"no image to score (TIFF, PNG or OME-Zarr).\n{describe(folder)}")
    stated = omezarr.facts(folder / name for name in names)
    said = [stated.get(folder / name, {}) for name in names]
    short = [_of_plate(facts) or brief(printable(name)) for name, facts in zip(names, said)]
    count = Counter(map(same_file, short))
    fields = []
    for name, own, facts in zip(names, short, said):
        alone = count[same_file(own)] == 1
        image_id = own if alone else clean_id(IMAGE_SUFFIX.sub("", printable(name)))
        planes = {role: layout.plane(folder, name, getattr(layout, role)) for role in roles}
        field = make_field(planes, facts | {"image_id": image_id}, layout, name)
        outside = field.problem and field.problem[0] == "outside"  # named by hand: as it is meant
        fields.append(replace(field, problem=None) if outside else field)
    return Found(fields)


def _of_plate(facts: Mapping[str, str]) -> str:
    """The id of a field of a plate, such as A1_0; '' where no metadata say which it is."""
    return clean_id("_".join(filter(None, [facts.get("well"), facts.get("position")])))


def _tables(folder: Path) -> list[str]:
    """A note on a table that may have been meant as the manifest."""
    kinds = (".csv", ".xlsx", ".xls")
    names = [path.name for path in sorted(folder.glob("*")) if path.suffix.lower() in kinds]
    told = f"is not used: the manifest is {MANIFEST}, or what --manifest names (a CSV)"
    return [f"{names[0]} {told}"] if names else []


def _advice(folder: Path, layout: Layout) -> str:
    pattern = layout.settings.pattern
    example = r"(?P<well>[A-H]\d+)_(?P<position>\d+)_(?P<channel>BF|PI)\.tif"
    return (
        f"{folder} has no {MANIFEST} and {pattern} is empty. Write a manifest with columns "
        "brightfield and pi (and image_id, partition, experiment, ... where known), or set "
        f"{pattern} to a regular expression of the file names, for example {example}, or to the "
        "name of a preset\n"
        f"{describe(folder)}"
    )
