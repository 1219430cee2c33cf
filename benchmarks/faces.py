"""How fast faces are drawn, and how much memory that takes.

    python -m benchmarks.faces                     grey, 48 pixels
    python -m benchmarks.faces --size 112 --color --device cuda

Drawing in blocks is compared with the loop over faces, the same renderer asked for one face at a time; they
take turns, so that a busy machine slows both. Memory is the highest that a fresh process reaches. With
``--keep`` the figures go into data/results/faces_speed.json. A turn by the clock counts whatever else the
machine does, so the best of many turns says most about the renderer; a face a CPU second depends on it less.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import statistics
import subprocess
import sys
import time

import torch

from helpers import faces, files, runtime


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
    parser.add_argument("--keep", action="store_true", help="write the record")
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


def measured(options: argparse.Namespace) -> dict[str, list[float]]:
    """Return each turn's faces a second by the clock and in CPU time, and the ratio to the loop over faces.

    Args:
        options: the command line's.
    """
    loop_faces = max(16, options.faces // 32)
    seconds(faces.BLOCK, options)
    turns: dict[str, list[float]] = {"faces/s": [], "faces/CPU-s": [], "against loop": []}
    for _ in range(options.turns):
        clock, busy = seconds(options.faces, options)
        loop_clock, _ = seconds_one_by_one(loop_faces, options)
        turns["faces/s"].append(options.faces / clock)
        turns["faces/CPU-s"].append(options.faces / busy)
        turns["against loop"].append(loop_clock / loop_faces * options.faces / clock)
    return turns


def main() -> None:
    """Print the figures, and keep them if asked to."""
    options = arguments()
    torch.set_num_threads(options.threads)
    machine, on_cpu = runtime.machine(), options.device == "cpu"
    # before anything is drawn here: a new process begins with its parent's highest memory
    memory = peak_memory(options) if options.memory and on_cpu else None
    turns = measured(options)
    print(f"{machine['system']}, {options.threads} threads, torch {machine['torch']}, GPU {machine['gpu']}")
    print(f"{options.size} pixels, {'RGB' if options.color else 'grey'}, on {options.device}")
    for name, several in turns.items():
        print(f"{name:12} {statistics.median(several):8.1f}   ({min(several):.1f} to {max(several):.1f})")
    record = {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", "benchmarks.faces", *sys.argv[1:]]),
        "machine": machine,
        "median": {name: statistics.median(several) for name, several in turns.items()},
        "best": {name: max(several) for name, several in turns.items()},
        "turns": turns,
    }
    if memory:
        before, after = memory
        record["peak_memory_mb"] = {"faces": options.memory, "imported": before, "drawn": after}
        drawn = f"for {options.memory} faces, {before:.0f} MB of it before the first"
        print(f"{'peak memory':12} {after:8.0f} MB {drawn}")
    if options.keep:
        with files.replacing("data/results/faces_speed.json") as file:
            file.write(json.dumps(record, indent=1).encode())


if __name__ == "__main__":
    main()
