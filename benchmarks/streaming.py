"""A set too large for memory: steps read from disk against steps from memory, in one run.

    python -m benchmarks.streaming --folder FOLDER [--faces 300000] [--size 112] [--steps 40] [--rounds 5]

Writes a file of images as a cached set has it (a few drawn faces, again and again: only their number and size
matter here), then trains the same network on it, streamed, and on its first thousands, resident. Rounds
alternate. Prints images a second of both, the ratio, and the largest memory of the process while it streams.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from helpers import faces, losses, models, runtime, training
from helpers.batches import Batches


def written(options: argparse.Namespace) -> np.memmap:
    """Return the images as a memory map of a file that is written once."""
    path = Path(options.folder) / f"faces_{options.faces}_{options.size}.npy"
    shape = (options.faces, options.size, options.size)
    if not path.exists():
        some = np.asarray(faces.sample(num_faces=500, size=options.size, seed=options.seed).images)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        with open(path, "wb") as file:  # a memory map's pages would count as this process's memory
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, options.faces, len(some)):
                file.write(some[: options.faces - start].tobytes())
    return np.load(path, mmap_mode="r")


def steps(images: np.ndarray, resident: bool, options: argparse.Namespace) -> Callable[[], float]:
    """Return a function that trains some steps and returns the seconds they took."""
    labels = np.arange(len(images)) % 7
    set_ = SimpleNamespace(images=images, labels=labels, valence_arousal=None, distribution=None)
    config = training.Config(epochs=10**6, batch_size=options.batch_size, schedule="constant")
    model = models.create(options.network, 7)
    few = SimpleNamespace(**{**vars(set_), "images": images[:64], "labels": labels[:64]})
    where = torch.device(options.device)
    loop = training.loop._Loop(model, few, few, losses.on_labels(), {}, config, where)
    kind = {"augment": config.augment, "shuffle": True, "device": where, "resident": resident}
    loop.train = Batches(set_, options.batch_size, **kind)

    def forever() -> Iterator:
        for epoch in range(10**6):
            yield from loop.train.epoch(epoch)

    batches = forever()

    def some() -> float:
        start = time.perf_counter()
        for _ in range(options.steps):
            loop.train_step(next(batches))
        if where.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return some


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", required=True, help="where the file of images goes; 3.8 GB by default")
    parser.add_argument("--faces", type=int, default=300_000)
    parser.add_argument("--size", type=int, default=112, help="side of the images, in pixels")
    parser.add_argument("--network", default="resnet18", choices=models.NAMES)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default=str(runtime.device()))
    options = parser.parse_args()
    images = written(options)
    streamed = steps(images, False, options)
    streamed()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    resident = steps(np.array(images[:4096]), True, options)
    resident()
    seconds = np.array([(streamed(), resident()) for _ in range(options.rounds)])
    speed = options.steps * options.batch_size / seconds
    print(f"{options.faces:,} faces of {options.size} px, {options.network}, {runtime.machine()}")
    for name, column in zip(("from disk", "from memory"), speed.T, strict=True):
        print(f"{name:>12}: {np.median(column):8,.0f} images/s  ({column.min():,.0f} to {column.max():,.0f})")
    ratio = seconds[:, 0] / seconds[:, 1]
    print(f" time a step: {np.median(ratio):8.2f} x          ({ratio.min():.2f} to {ratio.max():.2f})")
    print(f"the process held {memory:,.0f} MB while streaming, of images of {images.nbytes / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
