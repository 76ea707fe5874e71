"""DVC experiments beside each other: one table of all their models, and their ROC curves (the
paper's Fig. 4a).
"""

import io
from collections.abc import Sequence
from pathlib import Path

import dvc.api
import pandas as pd

from ..evaluate.curves import roc_together
from ..metrics import paired
from ..metrics.intervals import draw
from ..tracking.origin import require_repository
from ..workspace.errors import UserError
from ..workspace.params import load
from ..workspace.params import read as read_yaml
from ..workspace.paths import REPO
from ..workspace.records import parse
from .rows import differ_in_first_weights, gain_row
from .table import markdown


class ExperimentError(UserError):
    """An experiment does not exist, or its outputs are not at hand."""


def compare_experiments(names: Sequence[str], folder: Path) -> Path:
    """Writes FOLDER/compare.md and FOLDER/roc-PARTITION.png of the named experiments; returns the
    page's path.

    A name is anything git or DVC resolves: an experiment, a branch, a commit. Raises
    ExperimentError naming what lacks.
    """
    require_repository()
    records, curves, sides = {}, {}, {}
    for name in names:
        for partition in read_yaml(_read(name, "params.yaml"))["dataset"]["partitions"]:
            file = f"metrics/evaluate/{partition}.json"
            record = parse(_read(name, file).decode(errors="replace"), f"{name}: {file}")
            title = f"{name} {record['model']['arch']}"
            records[f"{partition}, {title}"] = record
            read = _read(name, f"reports/evaluate/{partition}/predictions.parquet")
            curves.setdefault(partition, {})[title] = predictions = pd.read_parquet(
                io.BytesIO(read)
            )
            sides[f"{partition}, {title}"] = paired.side(predictions, record)
    folder.mkdir(parents=True, exist_ok=True)
    for partition, named in curves.items():
        kind = " (synthetic)" if records[f"{partition}, {next(iter(named))}"]["synthetic"] else ""
        roc_together(named, f"{partition}{kind}").savefig(folder / f"roc-{partition}.png", dpi=120)
    page = folder / "compare.md"
    figures = "".join(
        f"\n![ROC curves of {partition}](roc-{partition}.png)\n" for partition in curves
    )
    pairs = differ_in_first_weights(records)
    gains = [gain_row(records[a], a, b, pretraining(sides[a], sides[b])) for a, b in pairs]
    page.write_text(markdown(records, gains) + figures)
    return page


def pretraining(pretrained: pd.DataFrame, random: pd.DataFrame) -> dict[str, dict]:
    """What pretrained weights gain in each main metric over random ones, with paired intervals over
    groups.

    Both tables have the columns of `paired.PAIRED`, of the same patches.
    """
    both = paired.pair(pretrained, random)
    tables = [
        both.assign(score=both[f"probability{of}"], called=both[f"called{of}"])
        for of in ("", "_champion")
    ]
    settings = load("evaluate")
    groups, live = both["group"].to_numpy(), both["live"].to_numpy()
    draws = draw(groups, live, settings.bootstrap, settings.seed)
    return paired.difference(*tables, draws, settings.confidence)


def _read(revision: str, path: str) -> bytes:
    try:
        return dvc.api.read(path, repo=str(REPO), rev=revision, mode="rb")
    except Exception as error:  # each kind of remote fails in its own way
        raise ExperimentError(
            f"{revision}: {path} cannot be read ({error}); `dvc exp show` lists the experiments, "
            "`dvc exp pull` and `dvc pull` bring those of others"
        ) from None
