"""Training throughput: this workbook's loop against the one that everybody writes, same network, same run.

    python -m benchmarks.training [--data FOLDER] [--networks face-cnn resnet18/small] [--record]

The common loop is a ``Dataset`` of Pillow images, torchvision transforms, a ``DataLoader`` with two workers
and Adam, eager, in float32, in a process of its own. Both train on the same faces at the same batch size with
augmentation of the same kinds; rounds alternate between the two, so that a busy neighbour hits both. Prints
images a second (median and range over rounds), the ratio, where the time of our loop goes, and what share of
the machine's own speed at matrix products it reaches; the first row is data alone, without a network. With
``--record`` writes data/results/training_speed.json.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import multiprocessing
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from helpers import datasets, files, losses, models, runtime, training
from helpers.batches import Augment, Batches
from helpers.training.config import make_optimizer
from helpers.training.evaluation import autocast

DATA = "data alone"
NETWORKS = ("face-cnn", "face-cnn-fast", "resnet18", "resnet18/small")
"""Name, or name/stem."""
START = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
REST = 1.0
"""Seconds before our loop is timed: the other's workers first fill their queue, and keep the cores busy."""


class Pictures(Dataset):
    """One face at a time, as tutorials do it."""

    def __init__(self, faces: datasets.FaceSet) -> None:
        self.images, self.labels = np.array(faces.images), faces.labels
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomAffine(10, (0.08, 0.08), (0.9, 1.1)),
                transforms.ColorJitter(0.1, 0.2),
                transforms.ToTensor(),
                transforms.Normalize([0.5], [0.25]),
                transforms.RandomErasing(0.25, (0.02, 0.2)),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[i])), int(self.labels[i])


def network(name: str) -> nn.Module:
    """Return an untrained network.

    Args:
        name: of ``NETWORKS``, or any that ``models.create`` knows.
    """
    kind, _, stem = name.partition("/")
    return models.create(kind, 7, **({"stem": stem} if stem else {}))


def common_step(
    name: str, faces: datasets.FaceSet, args: argparse.Namespace, model: nn.Module | None = None
) -> Callable[[], object]:
    """Return one step of the common loop.

    Args:
        name: the network's, or ``DATA`` for the next batch alone.
        faces: to learn from.
        args: of the command line.
        model: the network to train, where it is wanted afterwards.
    """
    options = {"shuffle": True, "num_workers": args.workers, "drop_last": True}
    if args.workers:  # started once, and as Linux does it: this process was spawned, and so would they be
        options |= {"persistent_workers": True, "multiprocessing_context": START}
    loader = DataLoader(Pictures(faces), args.batch_size, **options)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    if name == DATA:
        return lambda: next(batches)
    model = (model or network(name)).to(args.device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    criterion = nn.CrossEntropyLoss()

    def step() -> None:
        images, labels = (t.to(args.device) for t in next(batches))
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()  # as everybody does, for the progress bar

    return step


def our_step(name: str, faces: datasets.FaceSet, args: argparse.Namespace) -> Callable[[], object]:
    """Return one step of ``training.fit``.

    Args:
        name: the network's, or ``DATA`` for the next batch alone.
        faces: to learn from.
        args: of the command line.
    """
    if name == DATA:
        data = Batches(faces, args.batch_size, augment=Augment(), shuffle=True, device=args.device)
        batches = itertools.chain.from_iterable(map(data.epoch, itertools.count()))
        return lambda: next(batches)
    config = training.Config(epochs=10**6, batch_size=args.batch_size, schedule="constant")
    few, where = faces.select(slice(0, 64)), torch.device(args.device)
    loop = training.loop._Loop(network(name), faces, few, losses.on_labels(), {}, config, where)
    batches = itertools.chain.from_iterable(map(loop.train.epoch, itertools.count()))
    return lambda: loop.train_step(next(batches))


def rounds(step: Callable[[], object], args: argparse.Namespace) -> Iterator[float]:
    """Yield the seconds of ``args.steps`` steps, again and again; three steps before each are not counted.

    They warm up, and use what a loader's workers had made ready while the other side was timed.

    Args:
        step: does one.
        args: of the command line.
    """
    while True:
        for _ in range(3):
            step()
        synchronize(args)
        start = time.perf_counter()
        for _ in range(args.steps):
            step()
        synchronize(args)
        yield time.perf_counter() - start


def synchronize(args: argparse.Namespace) -> None:
    """Wait until a GPU has done what it was asked.

    Args:
        args: of the command line.
    """
    if args.device.startswith("cuda"):
        torch.cuda.synchronize()


def apart(name: str, faces: datasets.FaceSet, args: argparse.Namespace) -> Iterator[float]:
    """Yield the rounds of the common loop, run by a process of its own.

    Args:
        name: as for :func:`common_step`.
        faces: to learn from.
        args: of the command line.
    """
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_answer, args=(there, name, faces, args))
    process.start()
    try:
        while True:
            here.send(True)
            yield here.recv()
    finally:
        here.send(False)
        process.join()


def _answer(pipe: Connection, name: str, faces: datasets.FaceSet, args: argparse.Namespace) -> None:
    seconds = rounds(common_step(name, faces, args), args)
    while pipe.recv():
        pipe.send(next(seconds))


def compare(name: str, faces: datasets.FaceSet, args: argparse.Namespace) -> dict:
    """Return one row of the table: images a second of both loops, and their ratio.

    Args:
        name: as for :func:`common_step`.
        faces: to learn from.
        args: of the command line.
    """
    common, ours = apart(name, faces, args), rounds(our_step(name, faces, args), args)
    seconds = []
    for _ in range(args.rounds):
        theirs = next(common)
        time.sleep(REST)
        seconds.append((theirs, next(ours)))
    common.close()
    seconds = np.array(seconds)
    speed = args.steps * args.batch_size / seconds
    columns = {"common": speed[:, 0], "ours": speed[:, 1], "ratio": speed[:, 1] / speed[:, 0]}
    return {key: [float(f(values)) for f in (np.median, np.min, np.max)] for key, values in columns.items()}


def breakdown(name: str, faces: datasets.FaceSet, args: argparse.Namespace) -> dict[str, float]:
    """Return the share of a step of our loop that each stage takes, medians over steps.

    Args:
        name: the network's.
        faces: to learn from.
        args: of the command line.
    """
    device = torch.device(args.device)
    model = network(name).to(device, memory_format=torch.channels_last).train()
    optimizer = make_optimizer(model, training.Config())
    data = Batches(faces, args.batch_size, augment=Augment(), shuffle=True, device=device)
    times: dict[str, list[float]] = {"data": [], "forward": [], "backward": [], "optimizer": []}
    order, size = data.order(0), args.batch_size
    for i in range(min(len(data), args.steps)):
        marks = [time.perf_counter()]

        def mark(marks: list[float] = marks) -> None:
            synchronize(args)
            marks.append(time.perf_counter())

        batch = data.batch(order[i * size : (i + 1) * size])
        mark()
        with autocast(device, "auto"):
            outputs = model(batch.images.contiguous(memory_format=torch.channels_last))
        loss = nn.functional.cross_entropy(outputs.float(), batch.targets["labels"])
        mark()
        loss.backward()
        mark()
        optimizer.step()
        optimizer.zero_grad()
        mark()
        for stage, seconds in zip(times, np.diff(marks), strict=True):
            times[stage].append(seconds)
    medians = {stage: float(np.median(values)) for stage, values in times.items()}
    return {stage: value / sum(medians.values()) for stage, value in medians.items()}


def machine_speed(args: argparse.Namespace) -> dict[str, float]:
    """Return what the machine does at best: operations of a matrix product, and bytes copied, a second.

    Args:
        args: of the command line.
    """
    device = torch.device(args.device)
    kind = runtime.autocast_dtype(device) or torch.float32
    a = torch.randn(2048, 2048, device=device).to(kind)
    source = torch.empty(2**27, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    work = {"products": (lambda: a @ a, 2 * 2048**3), "copies": (lambda: target.copy_(source), 2 * 2**27)}
    best = argparse.Namespace(**vars(args) | {"steps": 3})
    return {
        name: 3 * amount / min(itertools.islice(rounds(f, best), 5)) for name, (f, amount) in work.items()
    }


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data", help="folder with fer2013.csv; without it, drawn faces")
    parser.add_argument("--networks", nargs="*", default=NETWORKS, help="names, or name/stem")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default=str(runtime.device()))
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


def tell(name: str, row: dict) -> None:
    """Print one row.

    Args:
        name: of the network, or ``DATA``.
        row: from :func:`compare`, and what is known of our step.
    """
    median, low, high = row["ratio"]
    print(f"{name:>15}: {row['common'][0]:7,.0f} -> {row['ours'][0]:7,.0f} images/s", end="")
    print(f"  {median:6.2f} x ({low:.2f} to {high:.2f})", end="")
    print("".join(f"  {stage} {share:.0%}" for stage, share in row.get("stages", {}).items()), flush=True)


def main() -> None:
    """Print a row for the data alone and for each network."""
    args = arguments()
    try:
        faces = datasets.load("fer2013", args.data)
    except FileNotFoundError:
        faces = datasets.load("synthetic")
    faces = faces.select(slice(0, 8192))
    speed, rows = machine_speed(args), {}
    print(f"{faces.name}, batch {args.batch_size}, {runtime.machine()}")
    print(f"the machine: {speed['products'] / 1e9:,.0f} GFLOP/s, copies {speed['copies'] / 1e9:.1f} GB/s")
    for name in (DATA, *args.networks):
        longer = argparse.Namespace(**vars(args) | {"steps": 25 * args.steps})  # a batch alone takes 2 ms
        rows[name] = compare(name, faces, longer if name == DATA else args)
        if name != DATA:
            work = 3 * models.flops(network(name), faces.images.shape[-1])  # backward counts twice
            share = work * rows[name]["ours"][0] / speed["products"]
            rows[name]["stages"] = breakdown(name, faces, args) | {"of the products' speed": share}
        tell(name, rows[name])
    if args.record:
        words = ["FOLDER" if word == args.data else word for word in sys.argv[1:]]
        circumstances = {
            "date": datetime.date.today().isoformat(),
            "command": shlex.join(["python", "-m", "benchmarks.training", *words]),
            "machine": runtime.machine(),
            "set": faces.name,
            "batch_size": args.batch_size,
            "median, lowest, highest of": args.rounds,
        }
        with files.replacing("data/results/training_speed.json") as file:
            file.write(json.dumps({**circumstances, "speed": speed, "rows": rows}, indent=1).encode())


if __name__ == "__main__":
    main()
