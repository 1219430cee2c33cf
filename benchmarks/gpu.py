"""Everything to measure on the day a GPU is at hand; some ten minutes on a large one.

    python -m benchmarks.gpu [--data FOLDER] [--minutes 10] [--tiny]

The training loop against the one that everybody writes (with 16 workers), with and without torch.compile; the
share of the chip's speed at matrix products; FER2013 from scratch to 70 % of PublicTest; several seeds one
after the other; drawn faces a second; peak memory. Before that the GPU path is checked: weights after 20
steps against the CPU's, resume, half precision. Parts that do not fit into the minutes
are left out and named; ``--tiny`` runs all but FER2013 in seconds on any device, to see that they work.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from benchmarks import records, training
from benchmarks.real import CONFIG, fitted
from helpers import datasets, faces, losses, metrics, runtime
from helpers import training as loop

NETWORKS = ("face-cnn", "resnet18", "resnet18/small")  # 7 x 7 stem of stride 2, and 3 x 3 of stride 1
GOAL = 0.70  # accuracy on PublicTest


def checks(args: argparse.Namespace, some: datasets.FaceSet) -> dict:
    """Return how far weights after 20 steps are from the CPU's, and a resumed run's from the whole one's."""
    train, validation = some.select(slice(0, min(640, len(some) - 64))), some.select(slice(-64, None))
    plain = loop.Config(epochs=2, batch_size=64, precision="float32", monitor="loss", augment=None)
    accuracy, loss = {"accuracy": metrics.on_labels(metrics.accuracy)}, losses.on_labels()
    torch.manual_seed(args.seed)
    net = training.network("face-cnn-fast")

    def trained(device: str, config: loop.Config = plain, **more: object) -> torch.nn.Module:
        model = copy.deepcopy(net)
        loop.fit(model, train, validation, loss, accuracy, config, device=device, progress=False, **more)
        return model.cpu()

    def apart(one: torch.nn.Module, other: torch.nn.Module) -> float:
        pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-9)) for a, b in pairs)

    whole, stop = trained(args.device), loop.Stop()
    with tempfile.TemporaryDirectory() as folder:
        trained(args.device, run=folder, stop=stop, on_epoch=stop.request)
        resumed = trained(args.device, run=folder)
    half = replace(plain, precision="auto", grad_clip=1.0, ema=0.9)
    return {
        "furthest weight from the CPU's, relative": apart(whole, trained("cpu")),
        "furthest weight of a resumed run": apart(whole, resumed),
        "half precision is finite": all(
            bool(p.isfinite().all()) for p in trained(args.device, half).parameters()
        ),
    }


def speeds(args: argparse.Namespace, some: datasets.FaceSet) -> dict:
    """Return images a second of the common loop and of ours, eager and compiled, for each network."""
    products, rows = training.machine_speed(args.device), {"products_per_second": None}
    rows["products_per_second"] = products
    for name in (training.DATA, *NETWORKS[: 1 if args.tiny else None]):
        rows[name] = row = training.compared(name, some, args)
        if name != training.DATA:
            if not args.tiny:
                row["compiled"] = training.our_rate(name, some, args, compile=True)
            work = 3 * training.models.flops(training.network(name), some.images.shape[-1])
            row["share_of_products"] = work * row["ours"][0] / products
        print(name, row, flush=True)
    return rows


def drawing(args: argparse.Namespace, _: datasets.FaceSet) -> dict:
    """Return drawn faces a second on the device, after one call that warms up."""
    num, seconds = 64 if args.tiny else 20_000, []
    for seed in range(3):
        start = time.perf_counter()
        faces.sample(num_faces=num, size=48, seed=seed, device=args.device)
        training.synchronize(args.device)
        seconds.append(time.perf_counter() - start)
    return {"faces_per_second": num / float(np.median(seconds[1:]))}


def accuracy(args: argparse.Namespace, _: datasets.FaceSet) -> dict:
    """Train FER2013 from scratch with each seed: seconds, accuracy, how many reached the goal."""
    *learned, test = datasets.load("fer2013", args.data).splits(seed=args.seed, leaks="keep")
    rows = []
    for seed in range(args.seeds):
        config = replace(CONFIG, epochs=args.epochs, seed=seed)
        model, made = fitted(tuple(learned), config, {"widths": (64, 128, 256), "dropout": 0.3})
        predicted = loop.predict(model, test, tta="flip").argmax(axis=1)
        score = records.interval(metrics.accuracy, test.labels, predicted)
        rows.append({"seed": seed, "seconds": made["seconds"], "accuracy": score})
        print(rows[-1], flush=True)
    reached = [row["seconds"] for row in rows if row["accuracy"]["value"] >= GOAL]
    return {"rows": rows, "reached": len(reached), "median_seconds": float(np.median(reached or [np.nan]))}


def main() -> None:
    """Check, measure and record, part by part."""
    numbers = {"batch_size": 512, "steps": 40, "rounds": 3, "workers": 16, "epochs": 30, "seeds": 5}
    parser = records.parser(__doc__, device=str(runtime.device()), minutes=10.0, **numbers)
    parser.add_argument("--tiny", action="store_true", help="all parts in seconds, to see that they work")
    args = parser.parse_args()
    if args.tiny:
        args.batch_size, args.steps, args.rounds, args.workers, args.epochs, args.seeds = 16, 2, 1, 0, 1, 1
    some = datasets.load("synthetic", args.data, num_faces=200 if args.tiny else 28_000)
    parts: dict[str, Callable] = {"checks": checks, "speeds": speeds, "drawing": drawing}
    try:
        datasets.load("fer2013", args.data)
        parts |= {} if args.tiny else {"accuracy": accuracy}
    except FileNotFoundError:
        print("no FER2013 here: the part on accuracy is left out")
    record, began = records.circumstances(args), time.perf_counter()
    for name, part in parts.items():
        if time.perf_counter() - began > 60 * args.minutes:
            print(f"{name} does not fit into {args.minutes:g} minutes: left out")
            continue
        if args.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        record[name] = part(args, some)
        if args.device.startswith("cuda"):
            record[name]["peak_gigabytes"] = torch.cuda.max_memory_allocated() / 2**30
        print(name, record[name], flush=True)
        records.write("gpu", record)


if __name__ == "__main__":
    main()
