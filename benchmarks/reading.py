"""Reading files: FER2013's csv against the loop everybody writes, and every reader fed with damaged files.

    python -m benchmarks.reading csv                    a csv of 3,000 random faces, made for the purpose
    python -m benchmarks.reading csv --data FOLDER      fer2013.csv in FOLDER
    python -m benchmarks.reading fuzz --files 100000    half of them images, a quarter rows of pixels

The common way is pandas with ``str.split`` on each row. Each reading happens in a process of its own, which
also gives its peak memory (imports included); the ways take turns, so that a busy machine slows all of them;
imports are not counted. Damaged files are read in blocks, each in a process of its own, so that one that dies
of a signal is counted; ``--record`` keeps the counts in ``data/results/robustness.json``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import datasets, files, runtime
from helpers.datasets import fer2013, reading

BLOCK = 2000  # files a process
SHARES = {"image": 0.5, "fer2013.csv": 0.25}  # of all files; the other readers share the rest evenly
RECORD = Path("data/results/robustness.json")


def common(folder: Path) -> None:
    """Read the csv as tutorials do."""
    table = pd.read_csv(fer2013.csv_file(folder))
    faces = [np.array(row.split(" "), dtype=np.uint8).reshape(48, 48) for row in table["pixels"]]
    np.stack(faces), table["emotion"].to_numpy(), table["Usage"].to_numpy()


def parse(folder: Path) -> None:
    """Read the csv alone."""
    pixels = reading.Pixels(48)
    fer2013.read_csv(fer2013.csv_file(folder), pixels)
    pixels.close()


def first(folder: Path) -> None:
    """Load as if never before."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    datasets.load("fer2013", folder, layout="csv")


def cached(folder: Path) -> None:
    """Load as at any later time."""
    datasets.load("fer2013", folder, layout="csv")


WAYS = {way.__name__: way for way in (common, parse, first, cached)}


def peak_memory() -> float:
    """Return the most memory this process ever held, in MB; NaN where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    )


def in_a_process(*words: object) -> subprocess.CompletedProcess:
    """Run a part of this program in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.reading", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def read_csv(options: argparse.Namespace) -> int:
    """Time each way in turns; print medians, ranges and ratios to the common way."""
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), []
        if options.data:
            shutil.copyfile(fer2013.csv_file(options.data), folder / "fer2013.csv")
        else:
            write_random(folder / "fer2013.csv")
        for turn in range(options.repeats):
            for way in WAYS:
                ran = in_a_process("csv", "--data", folder, "--one", way)
                rows.append({"turn": turn, **json.loads(ran.stdout)})
    table = pd.DataFrame(rows)
    seconds = table.pivot(index="turn", columns="way", values="seconds")[list(WAYS)]
    ratio = seconds[["common"]].to_numpy() / seconds
    summary = {"seconds": seconds.median(), "from": seconds.min(), "to": seconds.max()}
    summary |= {
        "times as fast": ratio.median(),
        "at least": ratio.min(),
        "peak MB": table.groupby("way")["peak"].max(),
    }
    print(pd.DataFrame(summary).loc[list(WAYS)].to_string(float_format=lambda x: f"{x:.3g}"))
    return 0


def write_random(path: Path, num_faces: int = 3000) -> None:
    """Write a csv of random pixels."""
    with open(path, "w", encoding="utf-8") as file:
        file.write("emotion,pixels,Usage\n")
        for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (num_faces, 48 * 48))):
            usage = "Training" if i % 9 else "PublicTest"
            file.write(f"{i % 7},{' '.join(map(str, pixels.tolist()))},{usage}\n")


def read_damaged(name: str, seed: int, num_files: int) -> dict[str, int]:
    """Read damaged files in this process; return how many were taken, refused, or raised the unlisted."""
    from tests import mutants

    random, (wholes, _) = np.random.default_rng(seed), mutants.READERS[name]
    counts = {"taken": 0, "refused": 0, "unlisted": 0}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(num_files):
            data = mutants.mutant(wholes[int(random.integers(len(wholes)))], random)
            try:
                counts["taken" if mutants.tried(name, data, Path(folder) / str(number)) else "refused"] += 1
            except Exception as error:
                counts["unlisted"] += 1
                print(json.dumps({"error": repr(error)[:300], "file": data.hex()[:4000]}), file=sys.stderr)
            shutil.rmtree(Path(folder) / str(number), ignore_errors=True)
    return counts | {"peak_mb": int(peak_memory())}


def fuzz(options: argparse.Namespace) -> int:
    """Feed every reader; return 1 if one raised what it does not list, or its process died."""
    from tests import mutants

    rest, counts = (1 - sum(SHARES.values())) / (len(mutants.READERS) - len(SHARES)), {}
    for name in mutants.READERS:
        found = dict.fromkeys(("taken", "refused", "unlisted", "signals", "peak_mb"), 0)
        num = round(options.files * SHARES.get(name, rest))
        for start in range(0, num, BLOCK):
            ran = in_a_process(
                "fuzz", "--one", name, "--seed", options.seed + start, "--files", min(BLOCK, num - start)
            )
            sys.stderr.write("".join(line for line in ran.stderr.splitlines(True) if line.startswith("{")))
            found["signals"] += ran.returncode < 0
            for key, value in json.loads(ran.stdout or "{}").items():
                found[key] = max(found[key], value) if key == "peak_mb" else found[key] + value
        counts[name] = found
    total = {
        key: sum(each[key] for each in counts.values()) for key in ("taken", "refused", "unlisted", "signals")
    }
    print(json.dumps({"total": total, "readers": counts}, indent=1))
    if options.record:
        record = json.loads(RECORD.read_bytes()) if RECORD.exists() else {}
        command = f"python -m benchmarks.reading fuzz --files {options.files} --seed {options.seed}"
        about = {"date": datetime.date.today().isoformat(), "machine": runtime.machine(), "command": command}
        record["fuzz"] = {**about, **total, "readers": counts}
        files.write(RECORD, json.dumps(record, indent=1))
    return int(total["unlisted"] + total["signals"] > 0)


def main() -> int:
    """Read the options and do what they ask for."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("what", choices=("csv", "fuzz"))
    parser.add_argument("--data", type=Path, help="csv: folder that holds fer2013.csv")
    parser.add_argument("--repeats", type=int, default=5, help="csv: turns")
    parser.add_argument("--files", type=int, default=100_000, help="fuzz: how many")
    parser.add_argument("--seed", type=int, default=0, help="fuzz: of the damage")
    parser.add_argument("--record", action="store_true", help="fuzz: keep the counts")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one and options.what == "fuzz":
        print(json.dumps(read_damaged(options.one, options.seed, options.files)))
        return 0
    if options.one:
        start = time.perf_counter()
        WAYS[options.one](options.data)
        print(json.dumps({"way": options.one, "seconds": time.perf_counter() - start, "peak": peak_memory()}))
        return 0
    return read_csv(options) if options.what == "csv" else fuzz(options)


if __name__ == "__main__":
    sys.exit(main())
