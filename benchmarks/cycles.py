"""How near to the best possible a network comes on drawn faces, given hundreds of thousands of them.

    python -m benchmarks.cycles --data FOLDER --runs FOLDER [--faces 400000] [--epochs 4] [--seeds 4]
    python -m benchmarks.cycles [--anew 20000]

One network learns from votes by KL and predicts the action units beside them. It is trained in cycles: the
learning rate rises and falls as often as there are seeds, each time a little lower (warm restarts; Loshchilov
and Hutter 2017, arXiv 1608.03983). Then once more on the same faces, all upright and of one size, by
landmarks that a second network finds. At last in cycles on as many new faces each, every one of another
person: after its convolutions were doubled, for the upper and for the lower part of a face, and again after
each part was given two more where the map is still fine.

A cycle whose folder has all its epochs is not trained again, so what broke off goes on. Writes
data/results/distributions_cycles.json after each cycle, and at the end the networks beside it, as
distributions_cycles.safetensors: :func:`recorded` brings them back. The 4,000 faces that are judged after
each cycle were looked at while the network was built; so at the end the networks judge faces drawn for that
alone, each of another person. Without ``--runs`` nothing else is done.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from benchmarks import distributions, multitask, records
from helpers import datasets, emotions, faces, gradcam, losses, metrics, models, training

# among so many faces none comes often: no augmentation but the mirror
CONFIG = replace(distributions.CONFIG, epochs=4, lr=3e-3, augment=distributions.AUGMENT.scaled(0))
UPRIGHT = replace(CONFIG, epochs=3, lr=CONFIG.lr / 2)
COOLER = 2 / 3  # highest learning rate of a cycle, as a share of that of the cycle before
UNITS = 20.0  # weight of the squared error of the action units beside the divergence
FOUND_ON = 100_000  # faces from which a network learns to find landmarks
EYES_AND_NOSE = slice(27, 48)  # of the 68 landmarks: what expressions hardly move
STRAIGHT = (0.0, 0.0)
LOOKS = (STRAIGHT, (0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5))
"""Shifts of an upright face, in pixels, over which predictions are averaged. Half a pixel each way was as
good as also turning and scaling, and as eight shifts, on 4,000 faces of seed 77, each of another person."""
ANEW_SEED = 1_000_003  # of faces that are drawn to judge what is recorded, and for nothing else
RECORD = records.RESULTS / "distributions_cycles.json"

Parts = tuple[datasets.FaceSet, ...]


class TwoParts(nn.Module):
    """A trained CNN whose convolutions come twice, for the upper and the lower two thirds of the image.

    Both start from the trained weights. Of the map of features the upper half is the one's and the lower half
    the other's; the third that both see keeps the edges of their views out of it, all but a little.
    """

    def __init__(self, net: models.FaceCNN) -> None:
        super().__init__()
        self.stem, self.dense, self.head = net.stem, net.dense, net.head
        self.upper, self.lower = net.blocks, copy.deepcopy(net.blocks)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the outputs of the heads, ``[B, outputs]`` each, for images ``[B, 1, 48, 48]``."""
        pixels = self.stem(images)
        third = pixels.shape[2] // 3
        upper, lower = self.upper(pixels[:, :, :-third]), self.lower(pixels[:, :, third:])
        half = upper.shape[2] * 3 // 4
        maps = torch.cat([upper[:, :, :half], lower[:, :, -half:]], dim=2)
        return self.head(self.dense(maps.flatten(1)))


class Residual(nn.Module):
    """Two convolutions whose result is added to what came in (He et al. 2016, arXiv 1512.03385).

    The second starts at zero, so a network that is given one predicts at first as it did before.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, last = (nn.Conv2d(channels, channels, 3, padding=1, bias=bias) for bias in (False, True))
        self.added = nn.Sequential(first, nn.BatchNorm2d(channels), nn.ReLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps of the same shape."""
        return maps + self.added(maps)


def look_closer(model: TwoParts) -> TwoParts:
    """Return the network with two more convolutions in either part, before the first pooling."""
    for blocks in (model.upper, model.lower):
        blocks[0].insert(1, Residual(blocks[0][0].out_channels))  # behind the first convolution
    return model


GROWN = {"two parts": (TwoParts, (1, 2)), "closer": (look_closer, (3,))}
"""How the network grows, and the seeds of the drawn faces of the cycles that follow: each of new people."""


def better(classes: tuple[str, ...], seed: int, **options: object) -> nn.Module:
    """Return a network with a head for the distribution and one for the action units."""
    torch.manual_seed(seed)
    heads = {"labels": len(classes), "units": len(faces.ACTION_UNITS)}
    return models.create("face-cnn-fast", heads, **{"contrast": 4} | options)


def landmark_finder() -> nn.Module:
    """Return an untrained network that finds the 68 landmarks."""
    return models.create("face-cnn-fast", {"landmarks": 2 * 68}, **{"contrast": 4} | multitask.DEEP)


def learn(
    model: nn.Module, parts: Iterable[datasets.FaceSet], config: training.Config, run: training.Run
) -> None:
    """Train a network on votes by KL, and on the action units, which the batches bring as valence_arousal."""

    def loss(outputs: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        missed = (outputs["units"] - targets["valence_arousal"]).square().mean()
        return losses.kl_divergence(outputs["labels"], targets["distribution"]) + UNITS * missed

    with_units = (replace(part, valence_arousal=part.action_units) for part in parts)
    training.fit(model, *with_units, loss, {}, config, run=run, progress=False)


def placed(some: datasets.FaceSet, landmarks: np.ndarray, reference: np.ndarray) -> datasets.FaceSet:
    """Return faces turned, shifted and scaled so that eyes and nose lie as near as can be to ``reference``.

    ``landmarks`` are theirs, in pixels ``[N, 68, 2]``; ``reference`` is where they are to lie, ``[68, 2]``.
    """
    goal, moved = torch.tensor(reference[EYES_AND_NOSE]), []
    for rows in torch.arange(len(some)).split(1000):
        images, theirs = torch.tensor(some.images[rows.numpy()]), torch.tensor(landmarks[rows.numpy()])
        turned = gradcam.aligned(images, theirs[:, EYES_AND_NOSE], goal, similar=True, mode="bicubic")
        moved.append(turned.round().clamp(0, 255).to(torch.uint8).numpy())
    return replace(some, images=np.concatenate(moved))


def found(model: nn.Module, some: datasets.FaceSet) -> np.ndarray:
    """Return the 68 landmarks of faces, in pixels ``[N, 68, 2]``."""
    half = some.images.shape[-1] / 2
    return (training.predict(model, some)["landmarks"].reshape(-1, 68, 2) + 1) * half


class Reader(nn.Module):
    """What reads drawn faces in the end: it finds landmarks, turns the face upright by them, and then looks.

    ``finder`` finds them, ``net`` learned from upright faces, ``where`` is where the 68 landmarks of an
    upright face lie, in pixels ``[68, 2]``.
    """

    def __init__(self, finder: nn.Module, net: nn.Module, where: np.ndarray) -> None:
        super().__init__()
        self.finder, self.net = finder, net
        self.register_buffer("where", torch.tensor(where))

    def upright(self, some: datasets.FaceSet) -> datasets.FaceSet:
        """Return the faces upright and of one size."""
        return placed(some, found(self.finder, some), self.where.numpy())

    def predict(
        self, some: datasets.FaceSet, looks: Sequence[tuple[float, float]] = LOOKS
    ) -> dict[str, np.ndarray]:
        """Return logits "labels" ``[N, 7]`` and "units" ``[N, 17]``: means over looks and mirror images."""
        landmarks, where = found(self.finder, some), self.where.numpy()
        shifted = (where + np.array(look, where.dtype) for look in looks)
        seen = [training.predict(self.net, placed(some, landmarks, to), tta="flip") for to in shifted]
        return {name: np.mean([outputs[name] for outputs in seen], axis=0) for name in seen[0]}


def recorded(path: str | Path = RECORD) -> Reader:
    """Return the reader that a record tells of, as it was trained; its weights lie beside the record."""
    net = better(emotions.FER7, 0, **multitask.DEEP)
    for grow, _ in GROWN.values():
        net = grow(net)
    reader = Reader(landmark_finder(), net, np.zeros((68, 2), np.float32)).half()
    training.load_weights(reader, Path(path).with_suffix(".safetensors"))
    return reader.float().eval()


def way(p: np.ndarray, q: np.ndarray, prior: np.ndarray, who: np.ndarray | None = None) -> metrics.Interval:
    """Return how much of the way from the class shares (0) to p itself (1) a prediction q goes.

    It is 1 - KL(p || q) / KL(p || class shares), for exact p.
    """
    left, whole = (metrics.kl_divergence(p, each) for each in (q, np.broadcast_to(prior, p.shape)))
    return metrics.bootstrap(lambda some, every: 1 - some.mean() / every.mean(), left, whole, groups=who)


def how_far(outputs: Mapping[str, np.ndarray], judged: datasets.FaceSet, prior: np.ndarray) -> dict:
    """Return how far a network goes: way, accuracy, CCC of the valence and arousal that its units make.

    "below Bayes" is how much less often a rater gives that class than the likeliest one; it is taken from p
    itself, so that the luck of a single label has no part in it.
    """
    q, units = metrics.softmax(outputs["labels"]), outputs["units"]
    who, p, predicted = judged.subject, judged.distribution, q.argmax(axis=1)
    missed = p.max(axis=1) - p[np.arange(len(p)), predicted]
    numbers = faces.valence_arousal(torch.tensor(units).clamp(0, 1)).numpy()
    scores = {
        "way": way(p.astype(np.float64), q, prior, who),
        "accuracy": metrics.bootstrap(np.mean, 1.0 * (predicted == judged.labels), groups=who),
        "below Bayes": metrics.bootstrap(np.mean, missed, groups=who),
    }
    for i, name in enumerate(("valence", "arousal")):
        both = judged.valence_arousal[:, i], numbers[:, i]
        scores[f"CCC {name}"] = metrics.bootstrap(metrics.ccc, *both, groups=who)
    explained = metrics.r2(judged.action_units, units)
    by_unit = {name: float(share) for name, share in zip(faces.ACTION_UNITS, explained, strict=True)}
    return {name: list(astuple(score)) for name, score in scores.items()} | {"units_explained": by_unit}


def judged_anew(reader: Reader, num_faces: int, prior: np.ndarray) -> dict:
    """Return how far a reader goes on faces that nobody has seen before, with one look and with five."""
    new = datasets.load("synthetic", num_faces=num_faces, seed=ANEW_SEED, faces_per_person=1)
    far = {"faces": num_faces, "seed": ANEW_SEED, "best possible": multitask.ceiling(new)}
    for name, looks in (("one look", (STRAIGHT,)), ("five looks", LOOKS)):
        far[name] = how_far(reader.predict(new, looks), new, prior)
    return far


def cycles(options: argparse.Namespace, record: dict) -> None:
    """Train, and write how far the network gets after each cycle."""
    every = datasets.load("synthetic", options.data, num_faces=options.faces)
    judged = datasets.load("synthetic", options.data, num_faces=4000, seed=distributions.JUDGED_SEED)
    train, validation = every.select(slice(-4000)), every.select(slice(-4000, None))  # whole people
    prior = distributions.learned_from_votes(train).distribution.mean(axis=0, dtype=np.float64)
    model, folder = better(every.classes, 0, **multitask.DEEP), Path(options.runs)
    record |= {"network": multitask.DEEP, "parameters": models.num_parameters(model)}
    record["faces"] = {"train": len(train), "validation": len(validation), "judged": len(judged)}
    record |= {"class shares": prior.tolist(), "best possible": multitask.ceiling(judged), "cycles": []}

    def keep(took: dict, outputs: Mapping[str, np.ndarray]) -> dict:
        far = took | how_far(outputs, judged, prior)
        print({name: far[name] for name in ("way", "below Bayes", "seconds")}, flush=True)
        return far

    for number in range(options.seeds):
        config = replace(CONFIG, epochs=options.epochs, lr=CONFIG.lr * COOLER**number, seed=number)
        took = cycle(model, lambda: (train, validation), config, folder / f"cycle_{number}")
        record["cycles"].append(keep(took, training.predict(model, judged, tta="flip")))
        records.write(RECORD.stem, record)

    net = finder((train.select(slice(FOUND_ON)), validation), training.Run(folder / "landmarks"))
    reader = Reader(net, model, train.landmarks[:FOUND_ON].mean(axis=0))
    config = replace(UPRIGHT, seed=options.seeds)
    took = cycle(model, lambda: tuple(map(reader.upright, (train, validation))), config, folder / "upright")
    record["upright"] = keep(took, reader.predict(judged, [STRAIGHT]))

    def strangers(seed: int) -> Parts:
        drawn = {"num_faces": options.faces, "faces_per_person": 1, "seed": seed}
        return reader.upright(datasets.load("synthetic", options.data, **drawn)), reader.upright(validation)

    record["strangers"] = []
    for name, (grow, seeds) in GROWN.items():
        reader.net = grow(reader.net)
        for number, seed in enumerate(seeds):
            config = replace(UPRIGHT, lr=UPRIGHT.lr * COOLER**number, seed=options.seeds + seed)
            took = cycle(reader.net, partial(strangers, seed), config, folder / f"strangers_{seed}")
            stage = {"network": name, "parameters": models.num_parameters(reader.net)}
            record["strangers"].append(keep(stage | took, reader.predict(judged, [STRAIGHT])))
            records.write(RECORD.stem, record)
    training.save_weights(copy.deepcopy(reader).half(), RECORD.with_suffix(".safetensors"))


def cycle(model: nn.Module, parts: Callable[[], Parts], config: training.Config, folder: Path) -> dict:
    """Train a network, or take the weights of its best epoch from the folder where it was trained before."""
    run, history = training.Run(folder), folder / "history.csv"
    if not history.exists() or len(pd.read_csv(history)) < config.epochs:
        learn(model, map(distributions.learned_from_votes, parts()), config, run)
    training.load_weights(model, run.best)
    return {"lr": config.lr, "seconds": float(pd.read_csv(history)["seconds"].sum())}


def finder(parts: Parts, run: training.Run) -> nn.Module:
    """Return a network that finds landmarks, trained once; :func:`found` calls it."""
    half = parts[0].images.shape[-1] / 2

    def from_the_middle(some: datasets.FaceSet) -> datasets.FaceSet:
        points = (some.landmarks / half - 1).reshape(len(some), -1)
        return replace(some, valence_arousal=points.astype(np.float32))  # any number a batch may bring

    def loss(outputs: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return 100 * (outputs["landmarks"] - targets["valence_arousal"]).square().mean()

    torch.manual_seed(0)
    model = landmark_finder()
    if not run.best.exists():
        still = replace(CONFIG.augment, flip=False)  # a mirrored face has its landmarks elsewhere
        config = replace(CONFIG, epochs=2, augment=still)
        training.fit(model, *map(from_the_middle, parts), loss, {}, config, run=run, progress=False)
    training.load_weights(model, run.best)
    return model


def main() -> None:
    """Train in cycles, and write the record."""
    parser = records.parser(__doc__, runs="", anew=20_000, faces=400_000, epochs=CONFIG.epochs, seeds=4)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.runs:
        config = asdict(replace(CONFIG, epochs=options.epochs))
        record = {"set": "synthetic", **records.circumstances(options), "config": config, "loss": "kl"}
        cycles(options, record)
    else:
        record = json.loads(RECORD.read_text())
    started = time.process_time()
    record["judged anew"] = judged_anew(recorded(), options.anew, np.array(record["class shares"]))
    print(record["judged anew"], f"{time.process_time() - started:.0f} CPU-s")
    records.write(RECORD.stem, record)


if __name__ == "__main__":
    main()
