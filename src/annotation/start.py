"""Brings together what a sitting needs from the workspace: windows, network, parameters and the
annotation file.
"""

from pathlib import Path

import numpy as np

from ..common.patches.store import PatchStore
from ..common.scoring.emptiness import detail
from ..common.workspace.errors import MissingInput
from ..common.workspace.params import load
from ..common.workspace.paths import MODELS, PATCHES, WORKSPACE
from ..common.workspace.records import read_json
from .features import FeatureCache
from .sampling import candidates, diverse_order
from .session import Session
from .store import AnnotationFile, Refused
from .study import Study


def begin(
    file: Path | None, annotator: str, pool: int, batch: int, order: str
) -> tuple[Session, str, bool]:
    """A session over data/patches, a title for its page, and whether the images are synthetic.

    file: default filter.annotations; pool: most windows to choose from; order: uncertain or random.
    Raises MissingInput where `tile` or `weights@filter` did not run, and Refused for an order or
    file that cannot be used.
    """
    if order not in ("uncertain", "random"):
        raise Refused(f"--order {order} is neither uncertain nor random")
    dataset, params = load("dataset", "filter")
    weights = MODELS / "weights" / "filter"
    for path in (PATCHES / "patches.parquet", weights / "model.safetensors"):
        if not path.exists():
            raise MissingInput(
                f"{path} does not exist: run `dvc repro tile weights@filter` first, or `dvc pull`"
            )
    if (arch := read_json(weights / "source.json")["arch"]) != params.arch:
        raise MissingInput(
            f"{weights} is for {arch}, filter.arch is {params.arch}: run `dvc repro weights@filter`"
        )
    csv = AnnotationFile(file or WORKSPACE / params.annotations, annotator)
    store = PatchStore(PATCHES)
    patches = store.patches(dataset.partitions)
    chosen = candidates(patches, params.max_border, pool, params.seed)
    if chosen.empty:
        raise MissingInput(
            "every window of data/patches has more border than filter.max_border: "
            "nothing to ask about"
        )
    cache = FeatureCache(store, params.arch, weights / "model.safetensors", params.sees)
    study = Study(store, patches, chosen, cache, params)
    places = np.random.default_rng(params.seed).permutation(len(chosen))
    if order == "uncertain":
        places = diverse_order(detail(chosen), params.seed)
    session = Session(study, csv, places, order == "uncertain", batch)
    print(
        f"annotate: {len(chosen)} of {len(patches)} windows to choose from; "
        f"answers go to {csv.path}"
    )
    if csv.path != (WORKSPACE / params.annotations).resolve():
        print(
            f"annotate: the filter reads {params.annotations}; "
            "set filter.annotations in params.yaml for this file"
        )
    return session, f"{csv.path.name} · {annotator}", dataset.source == "synthetic"
