"""What a training step costs alone and beside other work, by how long waiting threads hold a core.

`python bench/threads.py [--steps 8]`: steps of the default backbone (16 windows of 224 px, float32,
random weights and pixels) with a thread for each core, alone and beside the same in one thread,
with libgomp's own GOMP_SPINCOUNT and with that of src/run; and of one network a core, in one thread
each, as rounds train side by side. Prints medians in seconds, and their ratios.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def steps(count: int) -> float:
    """Median seconds of a step."""
    import torch

    from src.common.scoring.networks.net import build

    net = build("tf_efficientnet_lite0").to(memory_format=torch.channels_last).train()
    images = torch.rand(16, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(count + 1):  # the first one warms up
        start = time.perf_counter()
        net.zero_grad()
        net(images).sum().backward()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def measured(count: int, spin: str, others: int = 0, threads: str = "") -> float:
    """The same in a process of its own, beside others in one thread each; spin and threads:
    GOMP_SPINCOUNT and OMP_NUM_THREADS, '' for the libraries' own.
    """
    left_out = ("GOMP_SPINCOUNT", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    env["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, __file__, "--here", "--steps"]
    one = env | {"OMP_NUM_THREADS": "1"}
    beside = [subprocess.Popen([*command, "100000"], env=one) for _ in range(others)]
    try:
        own = {"GOMP_SPINCOUNT": spin, "OMP_NUM_THREADS": threads}
        env |= {name: value for name, value in own.items() if value}
        done = subprocess.run([*command, str(count)], env=env, stdout=subprocess.PIPE, check=True)
        return float(done.stdout)
    finally:
        for process in beside:
            process.kill()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--here", action="store_true", help="one measurement, in this process")
    given = parser.parse_args()
    if given.here:
        print(steps(given.steps))
        return
    chosen = re.search(r"GOMP_SPINCOUNT:-(\d+)", (ROOT / "src" / "run").read_text()).group(1)
    for name, spin in (("libgomp's own", ""), (f"src/run's {chosen}", chosen)):
        alone, beside = (measured(given.steps, spin, others) for others in (0, 1))
        ratio = beside / alone
        print(f"{name}: {alone:.2f} s alone, {beside:.2f} s beside another, {ratio:.1f} x")
    cores = os.cpu_count()
    by_turns, at_once = cores * alone, measured(given.steps, chosen, cores - 1, "1")
    print(
        f"a step of each of {cores} networks: {by_turns:.2f} s in turn, {at_once:.2f} s side by "
        f"side, {by_turns / at_once:.2f} x"
    )


if __name__ == "__main__":
    main()
