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
    if dataset.source == "synthetic":
        return synthetic.find(dataset.partitions, **plate.model_dump())
    layout = layout_of(dataset)
    if dataset.source == "folder":
        return folder.find(folder_of(dataset), layout)
    # What is downloaded lies beside the data, also for temporary copies
    listed, cache = list_of(dataset), REPO / "data" / "cache" / dataset.source
    if dataset.source == "jimt1":
        parts = folder_of(dataset) if dataset.path else None
        return jimt1.find(listed, cache, parts, dataset.repository, layout)
    clone = from_repo(dataset.repository)
    mirror = dataset.repository and clone.is_dir()
    return mcf7.find(listed, cache, str(clone) if mirror else dataset.repository)


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
