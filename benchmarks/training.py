"""The workbook's training loop against the one that everybody writes: same network, same faces, same run.

    python -m benchmarks.training speed [--data FOLDER] [--networks face-cnn resnet18/small]
    python -m benchmarks.training accuracy --data FOLDER [--budget 1320] [--epochs 3]

The common loop is a ``Dataset`` of Pillow images, torchvision's transforms, a ``DataLoader`` with workers and
Adam, eager, in float32. "speed" trains both on the same faces in turn, so that a busy neighbour hits both:
images a second (median and range over rounds), their ratio, and the share of the machine's own speed at
matrix products; the first row is data alone. "accuracy" gives the common loop a budget of CPU seconds on
FER2013, one thread, and asks how many ours needs for the same accuracy; both keep the epoch that is best on
the same validation faces, and PublicTest is read once. Writes data/results/training_<what>.json.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks import records
from benchmarks.real import fitted
from helpers import datasets, losses, metrics, models, runtime, training
from helpers.batches import Augment, Batches

DATA = "data alone"
NETWORKS = ("face-cnn", "face-cnn-fast", "resnet18", "resnet18/small")  # name, or name/stem
REST = 1.0  # seconds before our loop is timed: the other's workers first fill their queue
QUICK = {"widths": (32, 64, 128), "readout": "grid", "head_width": 256, "dropout": 0.2}  # of face-cnn-fast
# in a few epochs no face comes often
SLIGHT = Augment(rotation=0, translation=0.04, scale=0, brightness=0, contrast=0, erasing=0)
QUICK_CONFIG = training.Config(batch_size=128, lr=8e-3, optimizer="muon", weight_decay=0.05, augment=SLIGHT)


class Images(Dataset):
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
    """Return an untrained network by name, or name/stem."""
    kind, _, stem = name.partition("/")
    return models.create(kind, 7, **({"stem": stem} if stem else {}))


def common_step(
    name: str, faces: datasets.FaceSet, args: argparse.Namespace, model: nn.Module | None = None
) -> Callable[[], object]:
    """Return one step of the common loop, or the next batch alone."""
    options = {"shuffle": True, "num_workers": args.workers, "drop_last": True}
    loader = DataLoader(Images(faces), args.batch_size, persistent_workers=args.workers > 0, **options)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    if name == DATA:
        return lambda: next(batches)
    model = (model or network(name)).to(args.device)
    optimizer, criterion = torch.optim.Adam(model.parameters(), 1e-3), nn.CrossEntropyLoss()

    def step() -> None:
        images, labels = (t.to(args.device) for t in next(batches))
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()  # as everybody does, for the progress bar

    return step


def rate(step: Callable[[], object], steps: int, args: argparse.Namespace) -> float:
    """Return images a second over some steps; three before them are not counted, they warm up."""
    for i in range(steps + 3):
        if i == 3:
            synchronize(args.device)
            start = time.perf_counter()
        step()
    synchronize(args.device)
    return steps * args.batch_size / (time.perf_counter() - start)


def synchronize(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def our_rate(name: str, faces: datasets.FaceSet, args: argparse.Namespace, **config: object) -> float:
    """Return images a second of the last of three short epochs of ``training.fit``, or of batches alone."""
    if name == DATA:
        data = Batches(faces, args.batch_size, augment=Augment(), shuffle=True, device=args.device)
        batches = itertools.chain.from_iterable(map(data.epoch, itertools.count()))
        return rate(lambda: next(batches), 25 * args.steps, args)  # a batch alone takes 2 ms
    config = training.Config(3, args.batch_size, schedule="constant", monitor="loss", **config)
    few, loss = faces.select(slice(0, 64)), losses.on_labels()
    some = faces.select(slice(0, args.steps * args.batch_size))
    history = training.fit(network(name), some, few, loss, {}, config, device=args.device, progress=False)
    return history.epochs[-1]["images_per_second"]


def compared(name: str, faces: datasets.FaceSet, args: argparse.Namespace) -> dict[str, list[float]]:
    """Return images a second of both loops, and their ratio: median, lowest, highest over rounds."""
    step, speed = common_step(name, faces, args), []
    for _ in range(args.rounds):
        theirs = rate(step, args.steps, args)
        time.sleep(REST)
        speed.append((theirs, our_rate(name, faces, args)))
    theirs, ours = np.array(speed).T
    columns = {"common": theirs, "ours": ours, "ratio": ours / theirs}
    return {key: [float(f(values)) for f in (np.median, np.min, np.max)] for key, values in columns.items()}


def machine_speed(device: str) -> float:
    """Return the operations a second of a matrix product in the machine's half precision, at best."""
    kind = runtime.autocast_dtype(torch.device(device)) or torch.float32
    a = torch.randn(2048, 2048, device=device).to(kind)
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        a @ a
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(seconds)


def speed(args: argparse.Namespace) -> dict:
    """Print and return a row for the data alone and for each network."""
    try:
        some = datasets.load("fer2013", args.data)
    except FileNotFoundError:
        some = datasets.load("synthetic", args.data)
    some, products, rows = some.select(slice(0, 8192)), machine_speed(args.device), {}
    print(f"{some.name}, batch {args.batch_size}, {runtime.machine()}, {products / 1e9:,.0f} GFLOP/s")
    for name in (DATA, *args.networks):
        rows[name] = row = compared(name, some, args)
        line = f"{name:>15}: {row['common'][0]:7,.0f} -> {row['ours'][0]:7,.0f} images/s"
        line += "  {:6.2f} x ({:.2f} to {:.2f})".format(*row["ratio"])
        if name != DATA:
            work = 3 * models.flops(network(name), some.images.shape[-1])  # backward counts twice
            row["share_of_products"] = work * row["ours"][0] / products
            line += f"  {row['share_of_products']:.0%} of the products' speed"
        print(line, flush=True)
    return {"set": some.name, "batch_size": args.batch_size, "products_per_second": products, "rows": rows}


def accuracy(args: argparse.Namespace) -> dict:
    """Train both, read the test faces once, and return the figures."""
    torch.set_num_threads(1)
    *learned, test = datasets.load("fer2013", args.data).splits(seed=args.seed, leaks="keep")
    theirs, their_cost = common(learned, args)
    config = replace(QUICK_CONFIG, epochs=args.epochs, seed=args.seed)
    ours, our_cost = fitted(tuple(learned), config, QUICK)
    rows = {}
    for name, model, cost, tta in (("common", theirs, their_cost, "none"), ("ours", ours, our_cost, "flip")):
        predicted = training.predict(model, test, tta=tta).argmax(1)
        rows[name] = {"training": cost, **records.test_scores(test, predicted, learned)}
        print(name, rows[name]["test"]["accuracy"], f"{cost['cpu_seconds']:.0f} CPU-s")
    return {"ratio": their_cost["cpu_seconds"] / our_cost["cpu_seconds"], **rows}


def common(parts: list[datasets.FaceSet], args: argparse.Namespace) -> tuple[nn.Module, dict]:
    """Return the network of the common loop at its best epoch, and what it took."""
    torch.manual_seed(args.seed)
    model, started = network("face-cnn"), time.process_time()
    args.batch_size, args.workers = 64, 0
    step = common_step("face-cnn", parts[0], args, model)
    best, weights, epochs = 0.0, model.state_dict(), 0
    while time.process_time() - started < args.budget:
        model.train()
        for _ in range(len(parts[0]) // args.batch_size):
            step()
        epochs += 1
        predicted = training.predict(model, parts[1], precision="float32").argmax(1)
        score = metrics.accuracy(parts[1].labels, predicted)
        print(f"epoch {epochs}: {score:.4f}, {time.process_time() - started:.0f} CPU-s", flush=True)
        if score > best:
            best, weights = score, {name: values.clone() for name, values in model.state_dict().items()}
    model.load_state_dict(weights)
    return model, {"epochs": epochs, "cpu_seconds": time.process_time() - started, "validation": best}


def main() -> None:
    """Measure, print and keep the figures."""
    numbers = {"batch_size": 128, "steps": 20, "rounds": 5, "workers": 2, "budget": 1320.0, "epochs": 3}
    parser = records.parser(__doc__, **numbers, device=str(runtime.device()))
    parser.add_argument("what", choices=("speed", "accuracy"))
    parser.add_argument("--networks", nargs="*", default=NETWORKS, help="names, or name/stem")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = {"speed": speed, "accuracy": accuracy}[args.what](args)
    print(found)
    records.write(f"training_{args.what}", records.circumstances(args) | found)


if __name__ == "__main__":
    main()
