"""The headline on real images, from the raw fields: the whole graph once for each seed.

`python bench/accuracy.py FOLDER [--recipe stain] [--seeds 1 2 3]` runs `unstained real` with other
folds and other first weights of what learns for each seed, and prints the figures of each run and
their mean. Every score is of a session that its network did not see; no seed is chosen by another.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).resolve().parents[1]


def figures(partition: str) -> dict[str, float]:
    """What tells recipes apart, of the run that is in the workspace."""
    record = json.loads((ROOT / "metrics" / "evaluate" / f"{partition}.json").read_text())
    within, nuclei = record["within_experiment"] or {}, record.get("nuclei") or {}
    inside = nuclei.get("within_experiment") or {}
    return {
        "AUC": record["overall"]["auc"]["value"],
        "AUC within sessions, by pairs": (within.get("pair_weighted") or {}).get("value"),
        "mean of sessions": (within.get("mean") or {}).get("value"),
        "called": 1 - record["conformal"]["abstention"],
        "wrong among called": record["conformal"]["error_among_called"],
        "nuclei: AUC": (nuclei.get("overall") or {}).get("auc", {}).get("value"),
        "nuclei: mean of sessions": (inside.get("mean") or {}).get("value"),
    }


def main() -> None:
    """Runs the seeds, one after another, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", default="stain")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    asked = parser.parse_args()
    runs: dict[int, dict[str, dict]] = {}
    for seed in asked.seeds:
        command = [sys.executable, "-m", "src.cli", "real", str(asked.folder.resolve())]
        command += ["--recipe", asked.recipe, "--name", f"accuracy-{asked.recipe}-{seed}"]
        changes = [f"split.seed={seed}", f"train.seed={seed}"]
        subprocess.run(
            [*command, *(part for c in changes for part in ("-S", c))], cwd=ROOT, check=True
        )
        names = sorted(p.stem for p in (ROOT / "metrics" / "evaluate").glob("*.json"))
        runs[seed] = {name: figures(name) for name in names}
    for name in runs[asked.seeds[0]]:
        print(f"\n{name}, recipe {asked.recipe}, {asked.folder.name}")
        for figure in runs[asked.seeds[0]][name]:
            values = [runs[seed][name][figure] for seed in asked.seeds]
            shown = ", ".join("n/a" if v is None else f"{v:.3f}" for v in values)
            known = [v for v in values if v is not None]
            print(f"  {figure}: {shown}" + (f"; mean {fmean(known):.3f}" if known else ""))


if __name__ == "__main__":
    main()
