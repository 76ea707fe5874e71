"""Where fields come from: dataset.source names a module here, which finds fields; `intake` reads
and checks them.
"""

from collections.abc import Sequence
from pathlib import Path

from ..images import folder
from ..images.field import Field, Found, SourceError
from ..images.layout import Layout
from ..workspace.paths import RAW, REPO, WORKSPACE, from_repo
from ..workspace.sections import Dataset, Synthetic
from . import jimt1, mcf7, synthetic


def find(dataset: Dataset, plate: Synthetic) -> Found:
    """Every field of the source that params name. Raises SourceError."""
    return SOURCES[dataset.source](dataset, plate)


def _synthetic(dataset: Dataset, plate: Synthetic) -> Found:
    return synthetic.find(dataset.partitions, **plate.model_dump())


def _folder(dataset: Dataset, _: Synthetic) -> Found:
    return folder.find(folder_of(dataset), layout_of(dataset))


def _mcf7(dataset: Dataset, _: Synthetic) -> Found:
    local = from_repo(dataset.repository)
    mirror = dataset.repository and local.is_dir()
    address = str(local) if mirror else dataset.repository
    return mcf7.find(list_of(dataset), cache_of(dataset), address)


def _jimt1(dataset: Dataset, _: Synthetic) -> Found:
    parts = folder_of(dataset) if dataset.path else None
    listed, cache, layout = list_of(dataset), cache_of(dataset), layout_of(dataset)
    return jimt1.find(listed, cache, parts, dataset.repository, layout)


SOURCES = {"synthetic": _synthetic, "folder": _folder, "mcf7": _mcf7, "jimt1": _jimt1}


def cache_of(dataset: Dataset) -> Path:
    """Where what a source downloads is kept: beside the data, also for temporary copies."""
    return REPO / "data" / "cache" / dataset.source


def list_of(dataset: Dataset) -> Path:
    """The git-tracked list of the source's files, which is acquire's dependency."""
    return WORKSPACE / "sources" / f"{dataset.source}.csv"


def folder_of(dataset: Dataset) -> Path:
    """The source folder, refused where this stage's own outputs lie. Raises SourceError."""
    if not dataset.path:
        raise SourceError("dataset.path is empty: set it to the folder of images")
    path = from_repo(dataset.path).resolve()
    if path == RAW or RAW in path.parents or path in RAW.parents:
        raise SourceError(
            f"dataset.path {path} overlaps with data/raw, which this stage writes: "
            "keep images elsewhere"
        )
    return path


def layout_of(dataset: Dataset) -> Layout:
    """The settings of `dataset` that say how to read files."""
    channels = dataset.channels.model_dump()
    return Layout(dataset.partitions, dataset.pattern, axes=dataset.axes, z=dataset.z, **channels)


def of_partitions(source: Found, partitions: Sequence[str]) -> tuple[list[Field], list[str]]:
    """The fields of the named partitions, and the source's other partitions.

    Raises SourceError if one has no field.
    """
    present = {entry.partition for entry in source.fields}
    if missing := [name for name in partitions if name not in present]:
        raise SourceError(
            f"the source has no partition {', '.join(missing)}; it has "
            f"{', '.join(sorted(present)) or 'no fields'}. Set dataset.partitions to what it holds."
        )
    return [entry for entry in source.fields if entry.partition in partitions], sorted(
        present - set(partitions)
    )
