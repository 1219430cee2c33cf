"""Feed every reader with damaged files for as long as it is asked to, and count.

``python -m benchmarks.fuzz --files 1000000`` shares the number among the readers, half of it to pictures and
a quarter to rows of pixels. Each block of files is read in a process of its own, so that one that dies of a
signal is counted; a file that makes a reader raise what it does not list is printed. ``--record`` keeps the
counts in ``data/results/robustness.json``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from helpers import files, runtime
from tests import mutants

BLOCK = 2000
"""Files a process."""
SHARES = {"picture": 0.5, "pixels of a row": 0.25}
"""Of all files; the other readers share the rest evenly."""
MOST_MB = 1000
"""Memory that no process may need more of."""
RECORD = Path("data/results/robustness.json")


def block(name: str, seed: int, num_files: int) -> None:
    """Read damaged files in this process, then end it; counts go to standard output.

    Args:
        name: the reader.
        seed: of the damage.
        num_files: how many.
    """
    random, seeds = np.random.default_rng(seed), mutants.READERS[name].seeds
    counts = {"taken": 0, "refused": 0, "unlisted": 0}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(num_files):
            data = mutants.mutant(seeds[int(random.integers(len(seeds)))], random)
            try:
                counts["taken" if mutants.tried(name, data, Path(folder)) else "refused"] += 1
            except BaseException as error:
                counts["unlisted"] += 1
                print(mutants.explained(name, data, error))
    counts["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(counts), flush=True)


def forked(name: str, seed: int, num_files: int) -> tuple[dict[str, int], int]:
    """Read a block in a fork of this process; return its counts, and the signal that ended it or 0."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.dup2(writing, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where the decoders complain of damage
        block(name, seed, num_files)
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    *unlisted, last = said.splitlines() or ["{}"]
    for line in unlisted:
        print(line)
    return json.loads(last), os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def fuzz(num_files: int, seconds: float, seed: int) -> dict:
    """Read damaged files with every reader; return the counts by reader.

    Args:
        num_files: in all.
        seconds: after which no new block is begun.
        seed: of the damage.
    """
    rest = (1 - sum(SHARES.values())) / (len(mutants.READERS) - len(SHARES))
    left = {name: round(num_files * SHARES.get(name, rest)) for name in mutants.READERS}
    names = ("taken", "refused", "unlisted", "signals", "peak_mb")
    counts = {name: dict.fromkeys(names, 0) for name in mutants.READERS}
    until, number = time.monotonic() + seconds, 0
    while any(left.values()) and time.monotonic() < until:
        for name in [name for name, num in left.items() if num]:
            num = min(BLOCK, left[name])
            found, signal = forked(name, seed * 1_000_000 + number, num)
            number, left[name] = number + 1, left[name] - num
            peak = max(counts[name]["peak_mb"], found.pop("peak_mb", 0))
            for key, value in found.items():
                counts[name][key] += value
            counts[name]["signals"] += signal > 0
            counts[name]["peak_mb"] = peak
    return counts


def main() -> int:
    """Read the options, feed the readers, show and keep the counts; return 1 if anything went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    counts = fuzz(given.files, given.seconds, given.seed)
    total = {
        key: sum(each[key] for each in counts.values()) for key in ("taken", "refused", "unlisted", "signals")
    }
    total |= {"files": total["taken"] + total["refused"] + total["unlisted"]}
    total |= {"peak_mb": max(each["peak_mb"] for each in counts.values())}
    print(json.dumps({"total": total, "readers": counts}, indent=1))
    if given.record:
        command = f"python -m benchmarks.fuzz --files {given.files} --seed {given.seed}"
        keep("fuzz", {"command": command, **total, "readers": counts})
    return int(total["unlisted"] + total["signals"] > 0 or total["peak_mb"] > MOST_MB)


def keep(name: str, result: dict) -> None:
    """Put one count beside the others in the record.

    Args:
        name: of the count.
        result: plain types.
    """
    record = json.loads(RECORD.read_bytes()) if RECORD.exists() else {}
    about = {"date": datetime.date.today().isoformat(), "machine": runtime.machine()}
    record[name] = {**about, **result}
    with files.replacing(RECORD) as stream:
        stream.write(json.dumps(record, indent=1).encode())


if __name__ == "__main__":
    sys.exit(main())
