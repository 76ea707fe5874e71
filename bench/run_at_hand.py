"""Which run a bench reads: the arguments that those of them share."""

import argparse
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def asked(about: str) -> tuple[Path, str, dict]:
    """Workspace and partition from the command line, and the partition's evaluation record."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("workspace", type=Path, nargs="?", default=ROOT)
    parser.add_argument("--partition", default="mcf7")
    given = parser.parse_args()
    record = given.workspace / "metrics" / "evaluate" / f"{given.partition}.json"
    return given.workspace, given.partition, json.loads(record.read_text())
