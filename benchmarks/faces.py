"""How fast faces are drawn, and how much memory that takes.

    python -m benchmarks.faces                     grey, 48 pixels
    python -m benchmarks.faces --size 112 --color --device cuda

Drawing in blocks is compared in turns with one face at a time. Memory is the most that a fresh process holds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import torch

from benchmarks import records
from helpers import faces


def seconds(num_faces: int, options: argparse.Namespace, block: int = faces.BLOCK) -> tuple[float, float]:
    """Return how long a set took that is drawn in such blocks, by the clock and in CPU time."""
    before, faces.BLOCK = faces.BLOCK, block
    start, busy = time.perf_counter(), time.process_time()
    try:
        faces.sample(num_faces, 0, options.size, options.color, options.device)
        if options.device != "cpu":
            torch.cuda.synchronize()
    finally:
        faces.BLOCK = before
    return time.perf_counter() - start, time.process_time() - busy


def peak_memory(options: argparse.Namespace) -> tuple[float, float]:
    """Return the highest memory of a fresh process in MB: after import, and after drawing."""
    code = (
        "import resource, torch; from helpers import faces\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        f"torch.set_num_threads({options.threads}); before = peak()\n"
        f"faces.sample({options.memory}, 0, {options.size}, {options.color}); print(before, peak())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, after = map(float, out.split())
    return before, after


def measured(options: argparse.Namespace) -> dict[str, list[float]]:
    """Return each turn's faces a second by the clock and in CPU time, and the ratio to the loop."""
    one_by_one = max(16, options.faces // 32)
    seconds(faces.BLOCK, options)
    turns: dict[str, list[float]] = {"faces/s": [], "faces/CPU-s": [], "against loop": []}
    for _ in range(options.turns):
        clock, busy = seconds(options.faces, options)
        loop, _ = seconds(one_by_one, options, block=1)
        turns["faces/s"].append(options.faces / clock)
        turns["faces/CPU-s"].append(options.faces / busy)
        turns["against loop"].append(loop / one_by_one * options.faces / clock)
    return turns


def main() -> None:
    """Print the figures and keep them."""
    parser = records.parser(__doc__, size=48, device="cpu", faces=2048, turns=5, memory=10_000)
    parser.add_argument("--color", action="store_true", help="RGB instead of grey")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    record = records.circumstances(options)
    if options.memory and options.device == "cpu":
        # before anything is drawn here: a new process begins with its parent's highest memory
        before, after = peak_memory(options)
        record["peak_memory_mb"] = {"faces": options.memory, "imported": before, "drawn": after}
        print(f"peak memory {after:.0f} MB for {options.memory} faces, {before:.0f} MB before the first")
    record["turns"] = measured(options)
    for name, several in record["turns"].items():
        print(f"{name:12} {statistics.median(several):8.1f}   ({min(several):.1f} to {max(several):.1f})")
    record["median"] = {name: statistics.median(several) for name, several in record["turns"].items()}
    records.write("faces_speed", record)


if __name__ == "__main__":
    main()
