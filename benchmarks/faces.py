"""How fast faces are drawn, and how much memory that takes.

    python -m benchmarks.faces                     grey, 48 pixels
    python -m benchmarks.faces --size 112 --color --device cuda

Drawing in blocks is compared with the loop over faces, the same renderer asked for one face at a time; they
take turns, so that a busy machine slows both. Memory is the highest that a fresh process reaches.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import torch

from helpers import faces, runtime


def arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=48, help="pixels along a side")
    parser.add_argument("--color", action="store_true", help="RGB instead of grey")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--faces", type=int, default=2048, help="faces a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--memory", type=int, default=10_000, help="faces whose memory is measured; 0 for none"
    )
    return parser.parse_args()


def seconds(num_faces: int, options: argparse.Namespace) -> tuple[float, float]:
    """Return how long a set took, by the clock and in CPU time.

    Args:
        num_faces: how many faces to draw.
        options: the command line's.
    """
    start, busy = time.perf_counter(), time.process_time()
    faces.sample(num_faces, 0, options.size, options.color, options.device)
    if options.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - busy


def seconds_one_by_one(num_faces: int, options: argparse.Namespace) -> tuple[float, float]:
    """Return how long the loop over faces took, by the clock and in CPU time.

    Args:
        num_faces: how many faces to draw.
        options: the command line's.
    """
    block, faces.BLOCK = faces.BLOCK, 1
    try:
        return seconds(num_faces, options)
    finally:
        faces.BLOCK = block


def peak_memory(options: argparse.Namespace) -> tuple[float, float]:
    """Return the highest memory of a fresh process in MB: after import, and after drawing.

    Args:
        options: the command line's.
    """
    code = (
        "import resource, torch; from helpers import faces\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        f"torch.set_num_threads({options.threads}); before = peak()\n"
        f"faces.sample({options.memory}, 0, {options.size}, {options.color}); print(before, peak())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, after = map(float, out.split())
    return before, after


def main() -> None:
    """Print the figures."""
    options = arguments()
    torch.set_num_threads(options.threads)
    loop_faces = max(16, options.faces // 32)
    seconds(faces.BLOCK, options)
    ratios, rates = [], []
    for _ in range(options.turns):
        clock, busy = seconds(options.faces, options)
        loop_clock, _ = seconds_one_by_one(loop_faces, options)
        rates.append((options.faces / clock, options.faces / busy))
        ratios.append(loop_clock / loop_faces * options.faces / clock)
    machine = runtime.machine()
    print(f"{machine['system']}, {options.threads} threads, torch {machine['torch']}, GPU {machine['gpu']}")
    print(f"{options.size} pixels, {'RGB' if options.color else 'grey'}, on {options.device}")
    for name, several in zip(("faces/s", "faces/CPU-s"), zip(*rates, strict=True), strict=True):
        print(f"{name:12} {statistics.median(several):8.0f}   ({min(several):.0f} to {max(several):.0f})")
    print(f"{'against loop':12} {statistics.median(ratios):8.1f}   ({min(ratios):.1f} to {max(ratios):.1f})")
    if options.memory and options.device == "cpu":
        before, after = peak_memory(options)
        drawn = f"for {options.memory} faces, {before:.0f} MB of it before the first"
        print(f"{'peak memory':12} {after:8.0f} MB {drawn}")


if __name__ == "__main__":
    main()
