"""How long the default run takes: one stage after another, as `dvc repro` does, and side by side.

`python bench/repro.py`, from a clone whose environment is active: a fresh clone of its last commit
(2 GB in the temporary folder) for each. `dvc repro` with a thread for each core; `unstained repro`
in one thread a stage, as `make repro` runs it. Prints seconds, from nothing and with nothing to do,
and the ratio. Needs 10 minutes on two cores.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPRO = [sys.executable, "-m", "src.cli", "repro"]
WAYS = {"dvc repro": (["dvc", "repro"], str(os.cpu_count())), "unstained repro": (REPRO, "1")}


def seconds(command: list[str], clone: Path, threads: str) -> float:
    """How long a command takes in a clone."""
    env = os.environ | {"OMP_NUM_THREADS": threads}
    start = time.perf_counter()
    subprocess.run(command, cwd=clone, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Runs both ways and prints the ratio."""
    taken = {}
    for name, (command, threads) in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            clone = Path(folder) / "clone"
            subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
            (clone / ".venv").symlink_to(ROOT / ".venv")
            first, again = (seconds(command, clone, threads) for _ in range(2))
        taken[name] = first
        print(f"{name}: {first:.0f} s from nothing, {again:.1f} s with nothing to do", flush=True)
    print(f"dvc repro / unstained repro: {taken['dvc repro'] / taken['unstained repro']:.2f}")


if __name__ == "__main__":
    main()
