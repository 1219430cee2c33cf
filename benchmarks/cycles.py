"""How near to the best possible a network comes on drawn faces, given hundreds of thousands of them.

    python -m benchmarks.cycles --data FOLDER --runs FOLDER [--faces 400000] [--epochs 4] [--seeds 4]
    python -m benchmarks.cycles [--anew 20000]

One network learns from votes by KL and foretells the action units beside them. It is trained in cycles: the
learning rate rises and falls as often as there are seeds, each time a little lower (warm restarts; Loshchilov
and Hutter 2017, arXiv 1608.03983). Then once more on the same faces, all upright and of one size, by
landmarks that a second network finds. And at last in cycles on as many new faces each, every one of another
person: after its convolutions were doubled, for the upper and for the lower part of a face, and again after
each part was given two more where the map is still fine.

A cycle whose folder has all its epochs is not trained again, so the record can be made anew, and what broke
off goes on. Writes data/results/distributions_cycles.json after each cycle, and at the end beside it the
networks, as distributions_cycles.safetensors: :func:`recorded` brings them back.

The 4,000 faces that are judged after each cycle were looked at while the network was built. So at the end the
networks judge faces drawn for that alone, each of another person; without ``--runs`` nothing else is done.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from benchmarks import distributions, multitask
from helpers import datasets, emotions, faces, losses, metrics, models, runtime, training

CONFIG = replace(
    distributions.CONFIG,
    epochs=4,
    lr=3e-3,
    augment=distributions.CONFIG.augment.scaled(0),  # among so many faces none comes often
)
UPRIGHT = replace(CONFIG, epochs=3, lr=CONFIG.lr / 2)
COOLER = 2 / 3  # highest learning rate of a cycle, as a share of that of the cycle before
FOUND_ON = 100_000  # faces from which a network learns to find landmarks

STRAIGHT = (0.0, 0.0)
LOOKS = (STRAIGHT, (0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5))
"""Shifts of an upright face, in pixels, over which answers are averaged. Half a pixel each way was as good as
also turning and scaling, and as eight shifts, on 4,000 faces of seed 77, each of another person."""
ANEW_SEED = 1_000_003  # of faces that are drawn to judge what is recorded, and for nothing else

RECORD = Path("data/results/distributions_cycles.json")

Parts = tuple[datasets.FaceSet, ...]


class TwoParts(nn.Module):
    """A trained CNN whose convolutions come twice, for the upper and the lower two thirds of the picture.

    Both start from the trained weights, and either may then learn what its part of the face asks for. Of the
    map of features the upper half is the one's and the lower half the other's, so the third that both see
    keeps the edges of their views out of it, all but a little.

    Args:
        net: a ``FaceCNN`` for 48 pixels, read on a grid. Its layers become part of this one.
    """

    def __init__(self, net: models.FaceCNN) -> None:
        super().__init__()
        self.stem, self.dense, self.head = net.stem, net.dense, net.head
        self.upper, self.lower = net.blocks, copy.deepcopy(net.blocks)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what the heads put out, ``[B, outputs]`` each.

        Args:
            images: ``[B, 1, 48, 48]``.
        """
        pixels = self.stem(images)
        third = pixels.shape[2] // 3
        upper, lower = self.upper(pixels[:, :, :-third]), self.lower(pixels[:, :, third:])
        half = upper.shape[2] * 3 // 4
        maps = torch.cat([upper[:, :, :half], lower[:, :, -half:]], dim=2)
        return self.head(self.dense(maps.flatten(1)))


class Residual(nn.Module):
    """Two convolutions whose result is added to what came in (He et al. 2016, arXiv 1512.03385).

    The second starts at zero, so a network that is given one answers at first as it did before.

    Args:
        channels: of the maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, last = (nn.Conv2d(channels, channels, 3, padding=1, bias=bias) for bias in (False, True))
        self.added = nn.Sequential(first, nn.BatchNorm2d(channels), nn.ReLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps of the same shape.

        Args:
            maps: ``[B, channels, H, W]``.
        """
        return maps + self.added(maps)


def look_closer(model: TwoParts) -> TwoParts:
    """Return the network with two more convolutions in either part, before the first pooling.

    Args:
        model: is changed.
    """
    for blocks in (model.upper, model.lower):
        blocks[0].insert(1, Residual(blocks[0][0].out_channels))  # behind the first convolution
    return model


GROWN = {"two parts": (TwoParts, (1, 2)), "closer": (look_closer, (3,))}
"""How the network grows, and the seeds of the drawn faces of the cycles that follow: each of new people."""


class Reader(nn.Module):
    """What reads drawn faces in the end: it finds landmarks, turns the face upright by them, and then looks.

    Args:
        finder: finds them, as :func:`finder` returns it.
        net: learned from upright faces.
        where: 68 landmarks of an upright face, in pixels ``[68, 2]``.
    """

    def __init__(self, finder: nn.Module, net: nn.Module, where: np.ndarray) -> None:
        super().__init__()
        self.finder, self.net = finder, net
        self.register_buffer("where", torch.tensor(where))

    def upright(self, faces: datasets.FaceSet) -> datasets.FaceSet:
        """Return the faces upright and of one size.

        Args:
            faces: drawn, grey, 48 by 48.
        """
        return distributions.placed(faces, found(self.finder, faces), self.where.numpy())

    def answers(
        self, faces: datasets.FaceSet, looks: Sequence[tuple[float, float]] = LOOKS
    ) -> dict[str, np.ndarray]:
        """Return logits "labels" ``[N, 7]`` and "units" ``[N, 17]``: means over looks and mirror images.

        Args:
            faces: drawn, grey, 48 by 48, as they are.
            looks: how far the upright face is shifted for each, in pixels to the right and down.
        """
        landmarks, where = found(self.finder, faces), self.where.numpy()
        shifted = (where + np.array(look, where.dtype) for look in looks)
        placed = (distributions.placed(faces, landmarks, to) for to in shifted)
        seen = [training.predict(self.net, upright, tta="flip") for upright in placed]
        return {name: np.mean([outputs[name] for outputs in seen], axis=0) for name in seen[0]}


def recorded(path: str | Path = RECORD) -> Reader:
    """Return the reader that a record tells of, as it was trained.

    Args:
        path: of the record; its weights lie beside it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or belongs to other networks.
    """
    net = distributions.better(emotions.FER7, 0, **multitask.DEEP)
    for grow, _ in GROWN.values():
        net = grow(net)
    reader = Reader(_finder(), net, np.zeros((68, 2), np.float32)).half()
    training.load_weights(reader, Path(path).with_suffix(".safetensors"))
    return reader.float().eval()


def judged_anew(reader: Reader, num_faces: int, prior: np.ndarray) -> dict:
    """Return how far a reader goes on faces that nobody has seen before, each of another person.

    Args:
        reader: looks at each face once, and then five times.
        num_faces: to draw.
        prior: class shares, ``[K]``.
    """
    new = datasets.load("synthetic", num_faces=num_faces, seed=ANEW_SEED, faces_per_person=1)
    far = {"faces": num_faces, "seed": ANEW_SEED, "best possible": multitask.ceiling(new)}
    for name, looks in (("one look", (STRAIGHT,)), ("five looks", LOOKS)):
        far[name] = how_far(reader.answers(new, looks), new, prior)
        tell(name, far[name])
    return far


def cycles(options: argparse.Namespace, record: dict) -> None:
    """Train, and write how far the network gets after each cycle.

    Args:
        options: of the command line.
        record: to which the results are added.
    """
    every = datasets.load("synthetic", options.data, num_faces=options.faces)
    judged = datasets.load("synthetic", options.data, num_faces=4000, seed=distributions.JUDGED_SEED)
    train, validation = every.select(slice(-4000)), every.select(slice(-4000, None))  # whole people
    prior = distributions.learned_from_votes(train).distribution.mean(axis=0, dtype=np.float64)
    model = distributions.better(every.classes, 0, **multitask.DEEP)
    record |= {"network": multitask.DEEP, "parameters": models.num_parameters(model)}
    record["faces"] = {"train": len(train), "validation": len(validation), "judged": len(judged)}
    record |= {"class shares": prior.tolist(), "best possible": multitask.ceiling(judged), "cycles": []}
    folder = Path(options.runs)

    def judge(outputs: Mapping[str, np.ndarray]) -> dict:
        far = how_far(outputs, judged, prior)
        tell("judged", far)
        return far

    for number in range(options.seeds):
        config = replace(CONFIG, epochs=options.epochs, lr=CONFIG.lr * COOLER**number, seed=number)
        took = cycle(model, lambda: (train, validation), config, folder / f"cycle_{number}")
        record["cycles"].append(took | judge(training.predict(model, judged, tta="flip")))
        distributions.write(options, record)

    net = finder((train.select(slice(FOUND_ON)), validation), training.Run(folder / "landmarks"))
    reader = Reader(net, model, train.landmarks[:FOUND_ON].mean(axis=0))
    config = replace(UPRIGHT, seed=options.seeds)
    took = cycle(model, lambda: tuple(map(reader.upright, (train, validation))), config, folder / "upright")
    record["upright"] = took | judge(reader.answers(judged, [STRAIGHT]))
    record["upright"]["pixels_off"] = missed_by(judged.landmarks, found(net, judged))
    distributions.write(options, record)

    def strangers(seed: int) -> Parts:
        drawn = {"num_faces": options.faces, "faces_per_person": 1, "seed": seed}
        new = datasets.load("synthetic", options.data, **drawn)
        return reader.upright(new), reader.upright(validation)

    record["strangers"] = []
    for name, (grow, seeds) in GROWN.items():
        reader.net = grow(reader.net)
        for number, seed in enumerate(seeds):
            config = replace(UPRIGHT, lr=UPRIGHT.lr * COOLER**number, seed=options.seeds + seed)
            took = cycle(reader.net, partial(strangers, seed), config, folder / f"strangers_{seed}")
            stage = {"network": name, "faces": options.faces, "parameters": models.num_parameters(reader.net)}
            record["strangers"].append(stage | took | judge(reader.answers(judged, [STRAIGHT])))
            distributions.write(options, record)
    training.save_weights(copy.deepcopy(reader).half(), Path(options.out).with_suffix(".safetensors"))


def cycle(model: nn.Module, parts: Callable[[], Parts], config: training.Config, folder: Path) -> dict:
    """Train a network, or take the weights of its best epoch from the folder where it was trained before.

    Args:
        model: starts with the weights it has.
        parts: returns training and validation faces; not called where the training is there.
        config: how to train.
        folder: keeps the training.

    Returns:
        the highest learning rate, and the seconds that the training took.
    """
    run = training.Run(folder)
    history = folder / "history.csv"
    if not history.exists() or len(pd.read_csv(history)) < config.epochs:
        learned = map(distributions.learned_from_votes, parts())
        distributions.learn(model, learned, losses.kl_divergence, config, run)
    training.load_weights(model, run.best)
    return {"lr": config.lr, "seconds": float(pd.read_csv(history)["seconds"].sum())}


def finder(parts: Parts, run: training.Run) -> nn.Module:
    """Return a network that finds landmarks, trained once; :func:`found` asks it.

    Args:
        parts: training and validation faces, drawn.
        run: keeps the training.
    """
    half = parts[0].images.shape[-1] / 2

    def from_the_middle(faces: datasets.FaceSet) -> datasets.FaceSet:
        places = (faces.landmarks / half - 1).reshape(len(faces), -1)
        return replace(faces, valence_arousal=places.astype(np.float32))  # any number a batch may bring

    def loss(outputs: losses.Outputs, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return 100 * (outputs["landmarks"] - targets["valence_arousal"]).square().mean()

    torch.manual_seed(0)
    model = _finder()
    if not run.best.exists():
        still = replace(CONFIG.augment, flip=False)  # a mirrored face has its landmarks elsewhere
        config = replace(CONFIG, epochs=2, augment=still)
        training.fit(model, *map(from_the_middle, parts), loss, {}, config, run=run, progress=False)
    training.load_weights(model, run.best)
    return model


def _finder() -> nn.Module:
    return models.create("face-cnn-fast", {"landmarks": 2 * 68}, **{"contrast": 4} | multitask.DEEP)


def found(model: nn.Module, faces: datasets.FaceSet) -> np.ndarray:
    """Return the 68 landmarks of faces, in pixels ``[N, 68, 2]``.

    Args:
        model: from :func:`finder`.
        faces: drawn.
    """
    half = faces.images.shape[-1] / 2
    return (training.predict(model, faces)["landmarks"].reshape(-1, 68, 2) + 1) * half


def missed_by(landmarks: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Return the mean distance in pixels between landmarks and what was found: all, and of eyes and nose.

    Args:
        landmarks: ``[N, 68, 2]``.
        found: the same.
    """
    apart = np.linalg.norm(landmarks - found, axis=-1)
    eyes_and_nose = apart[:, distributions.EYES_AND_NOSE]
    return {"all": float(apart.mean()), "eyes and nose": float(eyes_and_nose.mean())}


def how_far(outputs: Mapping[str, np.ndarray], judged: datasets.FaceSet, prior: np.ndarray) -> dict:
    """Return how far a network goes: way, accuracy, CCC of what its units say of valence and arousal.

    "below Bayes" is how much less often a rater gives that answer than the likeliest one. It is taken from p
    itself, so that the luck of a single label has no part in it.

    Args:
        outputs: of its heads "labels" and "units", about those faces.
        judged: the faces, with the exact p.
        prior: class shares, ``[K]``.
    """
    q, units = metrics.softmax(outputs["labels"]), outputs["units"]
    who, p, said = judged.subject, judged.distribution, q.argmax(axis=1)
    missed = p.max(axis=1) - p[np.arange(len(p)), said]
    numbers = faces.valence_arousal(torch.tensor(units).clamp(0, 1)).numpy()
    scores = {
        "way": distributions.way(p.astype(np.float64), q, prior, who),
        "accuracy": metrics.bootstrap(np.mean, 1.0 * (said == judged.labels), groups=who),
        "below Bayes": metrics.bootstrap(np.mean, missed, groups=who),
    }
    for i, name in enumerate(("valence", "arousal")):
        both = judged.valence_arousal[:, i], numbers[:, i]
        scores[f"CCC {name}"] = metrics.bootstrap(metrics.ccc, *both, groups=who)
    named = {name: list(astuple(score)) for name, score in scores.items()}
    return named | {"units_explained": distributions.explained(judged.action_units, units)}


def tell(name: str, far: Mapping[str, list]) -> None:
    """Print the two figures that matter most, with their intervals.

    Args:
        name: of what was judged.
        far: from :func:`how_far`.
    """
    print(name, {figure: np.round(far[figure], 4).tolist() for figure in ("way", "below Bayes")}, flush=True)


def main() -> None:
    """Train in cycles, and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data", help="folder with the cache of drawn faces")
    parser.add_argument("--runs", help="folder that keeps each cycle; without it nothing is trained")
    parser.add_argument("--anew", type=int, default=20_000, help="faces drawn to judge the recorded networks")
    parser.add_argument("--faces", type=int, default=400_000, help="drawn, and as many for each last cycle")
    parser.add_argument("--epochs", type=int, default=CONFIG.epochs, help="of a cycle")
    parser.add_argument("--seeds", type=int, default=4, help="cycles on the faces as they are drawn")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", default=str(RECORD), help="file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    words = ["FOLDER" if word in (options.data, options.runs) else word for word in sys.argv[1:]]
    record = {
        "set": "synthetic",
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", "benchmarks.cycles", *words]),
        "machine": runtime.machine(),
        "config": asdict(replace(CONFIG, epochs=options.epochs)),
        "targets": "shares of the votes",
        "loss": "kl",
    }
    if options.runs:
        cycles(options, record)
    else:
        record = json.loads(Path(options.out).read_text())
    prior = np.array(record["class shares"])
    record["judged anew"] = judged_anew(recorded(options.out), options.anew, prior)
    distributions.write(options, record)


if __name__ == "__main__":
    main()
