"""Describes the data beside the paper's Table 1, with its biological check and sample figures.

Reads data/raw, data/patches, data/filtered, data/labels and data/splits; writes reports/data.md and
reports/data.
"""

from pathlib import Path

from ..common.workspace.params import load
from ..common.workspace.paths import WORKSPACE


def main() -> Path:
    """Runs the stage; returns the page's path."""
    dataset, settings = load("dataset", "evaluate")
    from ..common.describe.report import write_data_report  # matplotlib: after params are judged

    page = write_data_report(WORKSPACE, dataset.partitions, settings.seed)
    print(f"describe: {page}")
    return page
