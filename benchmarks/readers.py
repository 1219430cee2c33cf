"""Reading FER2013's csv: this workbook, the loop that everybody writes, and the cache; time and peak memory.

    python -m benchmarks.readers                    a csv of 3,000 random faces, made for the purpose
    python -m benchmarks.readers --data FOLDER      fer2013.csv in FOLDER

The common way is pandas with ``str.split`` on each row. Each reading happens in a process of its own, which
also gives its peak memory (imports included), and the ways take turns, so that a busy machine slows all of
them; the file is written just before, so that the disk slows none. Time for imports is not counted. The cache
that is used is made for the purpose and removed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import datasets
from helpers.datasets import fer2013

NAMES = {
    "common": "pandas, split row by row",
    "parse": "this workbook: the csv alone",
    "first": "this workbook: first load, cache written",
    "fresh": "the same again at once, all hashes checked",
    "cached": "the same again, two seconds later",
}


def common(folder: Path) -> None:
    """Read the csv as tutorials do."""
    table = pd.read_csv(fer2013.csv_file(folder))
    faces = [np.array(row.split(" "), dtype=np.uint8).reshape(48, 48) for row in table["pixels"]]
    np.stack(faces), table["emotion"].to_numpy(), table["Usage"].to_numpy()


def first(folder: Path) -> None:
    """Load as if never before."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    datasets.load("fer2013", folder, layout="csv")


WAYS = {
    "common": common,
    "parse": lambda folder: fer2013.read_csv(fer2013.csv_file(folder)),
    "first": first,
    "fresh": lambda folder: datasets.load("fer2013", folder, layout="csv"),
    "cached": lambda folder: datasets.load("fer2013", folder, layout="csv"),
}


def one(way: str, folder: Path) -> None:
    """Print seconds and peak memory in MB of one reading in this process."""
    start = time.perf_counter()
    WAYS[way](folder)
    print(json.dumps({"way": way, "seconds": time.perf_counter() - start, "peak": peak_memory()}))


def peak_memory() -> float:
    """Return the most memory this process ever held, in MB; NaN where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def in_turns(folder: Path, repeats: int) -> pd.DataFrame:
    """Return one row each reading: turn, way, seconds, peak.

    Args:
        folder: holds the csv.
        repeats: turns.
    """
    rows = []
    for turn in range(repeats):
        for way in WAYS:
            if way == "cached":
                time.sleep(2.5)  # from then on unchanged files are known by their dates
                one_in_a_process("cached", folder)  # checks the arrays once more, and remembers
            rows.append({"turn": turn, **one_in_a_process(way, folder)})
    return pd.DataFrame(rows)


def one_in_a_process(way: str, folder: Path) -> dict:
    """Return what one reading took in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.readers", "--data", str(folder), "--one", way]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return for each way the median and range of seconds, the ratio to the common way, and memory."""
    seconds = table.pivot(index="turn", columns="way", values="seconds")[list(WAYS)]
    ratio = seconds[["common"]].to_numpy() / seconds
    return pd.DataFrame(
        {
            "seconds": seconds.median(),
            "from": seconds.min(),
            "to": seconds.max(),
            "times as fast": ratio.median(),
            "at least": ratio.min(),
            "peak MB": table.groupby("way")["peak"].max(),
        }
    ).loc[list(WAYS)]


def write_random(folder: Path, num_faces: int = 3000) -> None:
    """Write a csv of random pixels.

    Args:
        folder: where.
        num_faces: rows.
    """
    rng = np.random.default_rng(0)
    with open(folder / "fer2013.csv", "w", encoding="utf-8") as file:
        file.write("emotion,pixels,Usage\n")
        for i, pixels in enumerate(rng.integers(0, 256, (num_faces, 48 * 48))):
            usage = "Training" if i % 9 else "PublicTest"
            file.write(f"{i % 7},{' '.join(map(str, pixels.tolist()))},{usage}\n")


def main() -> None:
    """Measure in a temporary folder, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder that holds fer2013.csv")
    parser.add_argument("--repeats", type=int, default=5, help="turns")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return one(options.one, options.data)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.data:
            shutil.copyfile(fer2013.csv_file(options.data), folder / "fer2013.csv")
        else:
            write_random(folder)
        size = (folder / "fer2013.csv").stat().st_size / 1e6
        print(f"fer2013.csv of {size:.0f} MB, {options.repeats} turns")
        table = summary(in_turns(folder, options.repeats))
        print(table.rename(index=NAMES).to_string(float_format=lambda x: f"{x:.3g}"))
    return None


if __name__ == "__main__":
    main()
