"""The pointing game of notebook 07 over several trainings, and more networks with random weights.

    python -m benchmarks.gradcam

Faces are drawn twice, at rest and with one part moved; a map hits where its highest place has changed. For
each training: the hits of Grad-CAM, the lead over random maps and over the same network's maps of the faces
at rest, with intervals and one-sided t-tests over people; the same for random weights over networks. And how
much of it hangs on what counts as changed. Writes data/results/gradcam_pointing.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import records
from helpers import (
    batches,
    datasets,
    emotions,
    faces,
    files,
    gradcam,
    losses,
    metrics,
    models,
    runtime,
    training,
)

PARTS = {
    "surprise": {"AU1": 1.0, "AU2": 1.0},
    "anger": {"AU4": 1.0},
    "fear": {"AU5": 1.0},
    "disgust": {"AU9": 1.0},
    "happiness": {"AU12": 1.0},
    "sadness": {"AU15": 1.0, "AU17": 0.5},
}
GRID = {"blocks.1": (12, 12), "blocks.2": (6, 6)}
TRUTHS = {"as in the notebook": (12, 0.1), "fainter, smaller": (6, 0.05), "stronger, larger": (24, 0.25)}
"""What counts as changed: more than so many grey levels, in at least that share of a place's pixels."""


def network() -> nn.Module:
    """Return the network of notebook 07 with weights drawn by chance."""
    return models.create("face-cnn-fast", 7, widths=(32, 64, 128), dropout=0.1)


def trained(parts: tuple[datasets.FaceSet, ...], seed: int, epochs: int) -> tuple[nn.Module, float]:
    """Return a network trained as in notebook 07, and its accuracy on validation.

    Args:
        parts: training and validation faces.
        seed: of weights, order and augmentation.
        epochs: passes over the training faces.
    """
    augment = batches.Augment().scaled(0.5)
    config = training.Config(epochs=epochs, batch_size=64, lr=4e-3, augment=augment, seed=seed)
    runtime.seed_everything(seed)
    model, scores = network(), {"accuracy": metrics.on_labels(metrics.accuracy)}
    loss = losses.on_distribution(losses.soft_cross_entropy)
    history = training.fit(model, *parts, loss, scores, config, progress=False)
    return model, history.best["accuracy"]


class Game:
    """People at rest and with one part moved, and the maps that point at what has changed.

    Args:
        num_people: how many.
        seed: which people.
    """

    def __init__(self, num_people: int, seed: int) -> None:
        number = torch.arange(num_people)
        looks = faces.people.identities(seed, number), faces.people.views(seed, number)

        def portraits(units: dict[str, float]) -> Tensor:
            row = torch.tensor([units.get(name, 0.0) for name in faces.ACTION_UNITS])
            return faces.render(row.expand(num_people, -1), *looks)

        moved = torch.cat([portraits(units) for units in PARTS.values()])
        rest = portraits({}).repeat(len(PARTS), 1, 1)
        self.change = (moved.int() - rest.int()).abs()
        self.pictures = [batches.normalise(each)[:, None] for each in (moved, rest)]
        self.sought = torch.tensor([emotions.FER7.index(name) for name in PARTS]).repeat_interleave(
            num_people
        )
        self.num_people = num_people

    def hits(self, maps: Tensor, truth: str = "as in the notebook") -> np.ndarray:
        """Return the share of hits, ``[parts, people]``.

        Args:
            maps: ``[parts * people, h, w]``.
            truth: which of ``TRUTHS``.
        """
        levels, share = TRUTHS[truth]
        masks = functional.adaptive_avg_pool2d((self.change > levels).float(), maps.shape[1:]) >= share
        return gradcam.pointing_hits(maps, masks).double().reshape(len(PARTS), self.num_people).numpy()

    def maps(self, model: nn.Module, layer: str) -> tuple[Tensor, Tensor]:
        """Return a network's maps of the faces with a part moved, and of those at rest.

        Args:
            model: the network.
            layer: whose maps.
        """
        moved, rest = (gradcam.grad_cam(model, layer, x, self.sought, upsample=False) for x in self.pictures)
        return moved, rest

    def chance(self, layer: str, truth: str = "as in the notebook") -> np.ndarray:
        """Return the hits of random maps, the mean of fifty draws, ``[parts, people]``.

        Args:
            layer: as coarse as its maps.
            truth: which of ``TRUTHS``.
        """
        draws = (gradcam.random_maps(len(self.sought), GRID[layer], seed) for seed in range(50))
        return np.mean([self.hits(maps, truth) for maps in draws], axis=0)


def lead(units: np.ndarray) -> dict:
    """Return a mean lead with its interval, and the p-value of a lead above 0 (one-sided t-test).

    Args:
        units: ``[N]``, one lead an independent unit.
    """
    found = metrics.bootstrap(np.mean, units)
    p = stats.ttest_1samp(units, 0, alternative="greater").pvalue
    return {"value": found.value, "low": found.low, "high": found.high, "p": float(p)}


def judged(game: Game, model: nn.Module, layer: str) -> dict:
    """Return how a trained network does in the game; the units are people.

    Args:
        game: the faces.
        model: the network.
        layer: whose maps.
    """
    moved, rest = game.maps(model, layer)
    hits, at_rest, chance = game.hits(moved), game.hits(rest), game.chance(layer)
    return {
        "hits": float(hits.mean()),
        "over_random_maps": lead((hits - chance).mean(0)),
        "over_its_maps_at_rest": lead((hits - at_rest).mean(0)),
        "hits_by_part": dict(zip(PARTS, hits.mean(1).round(3).tolist(), strict=True)),
        "at_rest_by_part": dict(zip(PARTS, at_rest.mean(1).round(3).tolist(), strict=True)),
        "by_truth": {
            name: {"hits": game.hits(moved, name).mean(), "random_maps": game.chance(layer, name).mean()}
            for name in TRUTHS
        },
    }


def forgetful(game: Game, layer: str, num_networks: int) -> dict:
    """Return how networks with random weights do in the game; the units are networks.

    Args:
        game: the faces.
        layer: whose maps.
        num_networks: how many draws of weights.
    """
    hits, at_rest = [], []
    for seed in range(num_networks):
        runtime.seed_everything(seed)
        moved, rest = game.maps(network(), layer)
        hits.append(game.hits(moved).mean())
        at_rest.append(game.hits(rest).mean())
    chance = game.chance(layer).mean()
    return {
        "hits": float(np.mean(hits)),
        "standard_deviation": float(np.std(hits, ddof=1)),
        "random_maps": float(chance),
        "over_random_maps": lead(np.array(hits) - chance),
        "over_its_maps_at_rest": lead(np.array(hits) - at_rest),
    }


def main() -> None:
    """Train, play, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data", help="folder where the drawn faces are cached")
    parser.add_argument("--faces", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--trainings", type=int, default=5)
    parser.add_argument("--networks", type=int, default=100, help="with random weights")
    parser.add_argument("--people", type=int, default=120)
    parser.add_argument("--seed", type=int, default=2, help="which people")
    options = parser.parse_args()
    options.name = "synthetic"
    *parts, _ = datasets.load("synthetic", options.data, num_faces=options.faces).splits(seed=0)
    game, record = Game(options.people, options.seed), records.circumstances(options)
    record |= {
        "settings": {key: value for key, value in vars(options).items() if key not in ("data", "name")}
    }
    record["random_weights"] = {layer: forgetful(game, layer, options.networks) for layer in GRID}
    record["trainings"] = []
    for seed in range(options.trainings):
        model, accuracy = trained(tuple(parts), seed, options.epochs)
        played = {layer: judged(game, model, layer) for layer in GRID}
        record["trainings"].append({"seed": seed, "validation_accuracy": accuracy, **played})
        print(seed, accuracy, played["blocks.2"], flush=True)
    with files.replacing(Path("data/results/gradcam_pointing.json")) as file:
        file.write(json.dumps(record, indent=1).encode())


if __name__ == "__main__":
    main()
