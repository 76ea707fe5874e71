"""Describes the data beside the paper's Table 1, with its biological check and sample figures.

Reads data/raw, data/patches, data/filtered, data/labels and data/splits; writes reports/data.md and
reports/data.
"""

import sys
from pathlib import Path

from ..common.describe.report import write_data_report
from ..common.workspace.params import load
from ..common.workspace.paths import WORKSPACE


def main() -> Path:
    """Runs the stage; returns the page's path."""
    dataset, settings = load("dataset", "evaluate")
    try:
        page = write_data_report(WORKSPACE, dataset.partitions, settings.seed)
    except ValueError as error:
        sys.exit(f"error: describe: {error}")
    print(f"describe: {page}")
    return page


if __name__ == "__main__":
    main()
