"""Training throughput: this workbook's loop against the one that everybody writes, same network, same run.

    python benchmarks/training.py [--data data] [--network face-cnn] [--steps 20] [--rounds 5] [--device cpu]

The common loop is a ``Dataset`` of Pillow images, torchvision transforms, a ``DataLoader`` with two workers
and Adam, eager, in float32. Both train on the same faces at the same batch size with augmentation of the same
kinds; rounds alternate between the two, so that a busy neighbour hits both. Prints images a second (median
and range over rounds), the ratio, and where the time of our loop goes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from helpers import datasets, losses, models, runtime, training
from helpers.batches import Augment, Batches
from helpers.training.config import make_optimizer
from helpers.training.evaluation import autocast


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


def common_loop(faces: datasets.FaceSet, args: argparse.Namespace) -> Iterator[float]:
    """Yield the seconds of each round of the common loop; its first batches warm up."""
    model = models.create(args.network, 7).to(args.device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    criterion = nn.CrossEntropyLoss()
    loader = DataLoader(
        Pictures(faces), args.batch_size, shuffle=True, num_workers=args.workers, drop_last=True
    )

    def forever() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from loader

    batches = forever()

    def step() -> None:
        images, labels = (t.to(args.device) for t in next(batches))
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()  # as everybody does, for the progress bar

    yield from rounds(step, args)


def our_loop(faces: datasets.FaceSet, args: argparse.Namespace) -> Iterator[float]:
    """Yield the seconds of each round of ``training``'s step."""
    loop = make_loop(faces, args)

    def forever() -> Iterator:
        epoch = 0
        while True:
            yield from loop.train.epoch(epoch)
            epoch += 1

    batches = forever()
    yield from rounds(lambda: loop.train_step(next(batches)), args)


def make_loop(faces: datasets.FaceSet, args: argparse.Namespace):
    """Return the loop of ``training.fit`` before its first step."""
    config = training.Config(epochs=10**6, batch_size=args.batch_size, schedule="constant")
    model = models.create(args.network, 7)
    few = faces.select(slice(0, 64))
    return training.loop._Loop(model, faces, few, losses.on_labels(), {}, config, torch.device(args.device))


def rounds(step: Callable[[], object], args: argparse.Namespace) -> Iterator[float]:
    """Yield the seconds of ``args.steps`` steps, again and again."""
    for _ in range(3):
        step()
    while True:
        synchronize(args)
        start = time.perf_counter()
        for _ in range(args.steps):
            step()
        synchronize(args)
        yield time.perf_counter() - start


def synchronize(args: argparse.Namespace) -> None:
    if args.device.startswith("cuda"):
        torch.cuda.synchronize()


def breakdown(faces: datasets.FaceSet, args: argparse.Namespace) -> dict[str, float]:
    """Return the seconds of one step of our loop by stage, medians over steps."""
    device = torch.device(args.device)
    model = models.create(args.network, 7).to(device, memory_format=torch.channels_last).train()
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
        for name, seconds in zip(times, np.diff(marks), strict=True):
            times[name].append(seconds)
    return {name: float(np.median(values)) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data", help="folder with fer2013.csv; without it, drawn faces")
    parser.add_argument("--network", default="face-cnn", choices=models.NAMES)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default=str(runtime.device()))
    args = parser.parse_args()
    try:
        faces = datasets.load("fer2013", args.data)
    except FileNotFoundError:
        faces = datasets.load("synthetic")
    faces = faces.select(slice(0, 8192))
    print(f"{faces.name}, {args.network}, batch {args.batch_size}, {runtime.machine()}")
    pairs = zip(common_loop(faces, args), our_loop(faces, args), range(args.rounds), strict=False)
    seconds = np.array([(theirs, ours) for theirs, ours, _ in pairs])
    speed = args.steps * args.batch_size / seconds
    for name, column in zip(("common loop", "training.fit"), speed.T, strict=True):
        print(f"{name:>13}: {np.median(column):8,.0f} images/s  ({column.min():,.0f} to {column.max():,.0f})")
    ratio = speed[:, 1] / speed[:, 0]
    print(f"        ratio: {np.median(ratio):8.2f} x         ({ratio.min():.2f} to {ratio.max():.2f})")
    stages = breakdown(faces, args)
    whole = sum(stages.values())
    print("    of a step: " + ", ".join(f"{name} {value / whole:.0%}" for name, value in stages.items()))


if __name__ == "__main__":
    main()
