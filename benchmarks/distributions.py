"""Every loss against a label distribution, trained alike and judged by every score.

    python -m benchmarks.distributions ferplus --data FOLDER [--faces 8000] [--epochs 4] [--seeds 3]
    python -m benchmarks.distributions synthetic [--faces 10000] [--epochs 8] [--seeds 3]
    python -m benchmarks.distributions longer [--faces 40000] [--epochs 4] [--seeds 3]
    python -m benchmarks.distributions limits [--faces 3000] [--epochs 4]

The first two parts compare the losses on real and on drawn faces: all networks learn from the shares of ten
people's votes, on the same faces, in the same order and number of steps; the epoch is chosen on validation
faces by the loss that was trained.

The others ask how much of the way from the class shares to the best possible divergence a network goes on
drawn faces. "longer" trains one loss for longer, with a better network that foretells the action units, too
(``benchmarks.cycles`` goes on from there). "limits" asks what holds it back: it trains the same network with
more and fewer faces, on faces that are easier to read, and on the exact p in place of votes, and one that is
told how far each face moves. Writes data/results/distributions_<part>.json, anew after each training.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, replace

import numpy as np
import torch
from scipy import stats

from helpers import datasets, emotions, faces, files, gradcam, losses, metrics, models, runtime, training
from helpers.batches import Augment
from helpers.faces import people, truth

NETWORK = {"stem": "unshuffle", "dropout": 0.1}
BETTER = {"dropout": 0.0, "widths": (24, 48, 96, 192)}  # of face-cnn-fast, behind local contrast
CONFIG = training.Config(
    batch_size=64,
    lr=4e-3,
    weight_decay=0.05,
    monitor="loss",
    augment=Augment(rotation=8, translation=0.06, scale=0.08, brightness=0.1, contrast=0.2, erasing=0),
)
LONGER = replace(CONFIG, augment=CONFIG.augment.scaled(0.5))
UNITS = 20.0  # weight of the squared error of the action units beside the divergence
JUDGED_SEED = 1_000_002  # of the drawn faces that are scored: other people than any trained or tried on
SAME = ("cross-entropy",)  # has the gradient of "kl", so the same network comes out
DEFAULTS = {
    "ferplus": (8000, 4, 3),
    "synthetic": (10_000, 8, 3),
    "longer": (40_000, 4, 3),
    "limits": (3000, 4, 1),
}
"""Faces to learn from (where they are drawn, a tenth of them for validation), epochs, seeds."""


def _usual(table: Mapping[str, people.Trait]) -> dict[str, float]:
    return {name: trait.mean if trait.share > 0.5 else 0.0 for name, trait in table.items()}


EASIER = {
    "all from the front in one light": {"fixed": _usual(faces.VIEW)},
    "all of one person": {"fixed": _usual(faces.IDENTITY)},
    "both": {"fixed": _usual(faces.VIEW) | _usual(faces.IDENTITY)},
    "96 pixels": {"size": 96},
}
"""Name to options of ``faces.sample`` under which faces are easier to read."""
EYES_AND_NOSE = slice(27, 48)  # of the 68 landmarks: what expressions hardly move


def learned_from_votes(faces: datasets.FaceSet) -> datasets.FaceSet:
    """Return the faces with the shares of their votes as their distribution.

    Args:
        faces: with votes.
    """
    shares = faces.votes / faces.votes.sum(axis=1, keepdims=True)
    return replace(faces, distribution=shares.astype(np.float32))


def parts_of(options: argparse.Namespace) -> tuple[datasets.FaceSet, ...]:
    """Return training, validation and judged faces.

    Args:
        options: of the command line.
    """
    if options.part == "ferplus":
        train, validation, judged = datasets.load("ferplus", options.data, rule="distribution").splits(seed=0)
        rows = np.random.default_rng(0).permutation(len(train))[: options.faces]
        return train.select(np.sort(rows)), validation, judged
    drawn = datasets.load("synthetic", options.data, num_faces=options.faces)
    judged = datasets.load("synthetic", options.data, num_faces=4000, seed=JUDGED_SEED)
    return tuple(map(learned_from_votes, drawn.splits(test=0.0)[:2])) + (learned_from_votes(judged),)


def terms(classes: tuple[str, ...]) -> dict[str, losses.Loss]:
    """Return the losses that are compared, and as the first the usual one: cross-entropy of one label.

    Args:
        classes: names in label order.
    """
    every = losses.divergences(classes)
    shared = {name: losses.on_distribution(every[name]) for name in every if name not in SAME}
    return {"labels": losses.on_labels()} | shared


def train(
    parts: tuple[datasets.FaceSet, ...], loss: losses.Loss, seed: int, epochs: int, network: Mapping
) -> tuple[torch.nn.Module, float]:
    """Return a trained network and the CPU seconds it took.

    Args:
        parts: training and validation faces.
        loss: function of outputs and targets.
        seed: of weights, order and augmentation.
        epochs: passes over the training faces.
        network: its options.
    """
    torch.manual_seed(seed)
    model = models.create("face-cnn", len(parts[0].classes), **network)
    started = time.process_time()
    training.fit(model, *parts, loss, {}, replace(CONFIG, epochs=epochs, seed=seed), progress=False)
    return model, time.process_time() - started


def judge(truth: np.ndarray, q: np.ndarray, distances: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of each face, ``[N]`` by name.

    Args:
        truth: p, ``[N, K]``.
        q: predicted, ``[N, K]``.
        distances: between the classes.
    """
    found = {name: score(truth, q) for name, score in metrics.distribution_scores(distances).items()}
    most = truth >= truth.max(axis=1, keepdims=True)  # of tied classes either is right
    return found | {"accuracy": most[np.arange(len(q)), q.argmax(axis=1)].astype(float)}


def of_a_set(truth: np.ndarray, q: np.ndarray) -> dict[str, float]:
    """Return the scores that only a whole set has.

    Args:
        truth: p, ``[N, K]``.
        q: predicted, ``[N, K]``.
    """
    labels = truth.argmax(axis=1)
    entropies = metrics.entropy(truth), metrics.entropy(q)
    constant = np.ptp(entropies[1]) == 0
    return {
        "hard calibration error": metrics.expected_calibration_error(labels, q),
        "soft calibration error": metrics.expected_calibration_error(truth, q),
        "entropy, mean": float(entropies[1].mean()),
        "entropy, rank correlation": 0.0 if constant else float(stats.spearmanr(*entropies).statistic),
    }


def row(
    truth: np.ndarray, answers: list[np.ndarray], distances: np.ndarray, people: np.ndarray | None
) -> dict:
    """Return the scores of several networks that differ in their seed: mean, and two kinds of interval.

    Args:
        truth: p, ``[N, K]``.
        answers: predicted, ``[N, K]`` a seed.
        distances: between the classes.
        people: who is in each face, or None.
    """
    each = [judge(truth, q, distances) for q in answers]
    sets = [of_a_set(truth, q) for q in answers]
    faces = {name: np.mean([one[name] for one in each], axis=0) for name in each[0]}
    found = {name: metrics.bootstrap(np.mean, values, groups=people) for name, values in faces.items()}
    return {
        "mean": {name: score.value for name, score in found.items()} | _mean(sets),
        "interval_over_faces": {name: [score.low, score.high] for name, score in found.items()},
        "seeds": [
            {name: float(values.mean()) for name, values in one.items()} | extra
            for one, extra in zip(each, sets, strict=True)
        ],
    }


def _mean(records: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([record[name] for record in records])) for name in records[0]}


def references(parts: tuple[datasets.FaceSet, ...], distances: np.ndarray, data: str) -> dict[str, dict]:
    """Return what knows nothing, what knows the class shares, and what people or the truth itself reach.

    Args:
        parts: training, validation and judged faces.
        distances: between the classes.
        data: folder of the drawn faces.
    """
    learned, _, judged = parts
    truth, people = judged.distribution.astype(np.float64), judged.subject
    prior = learned.distribution.mean(axis=0, dtype=np.float64)
    even = np.full_like(truth, 1 / truth.shape[1])
    rows = {"uniform": row(truth, [even], distances, people)}
    rows["class shares"] = row(truth, [np.tile(prior / prior.sum(), (len(truth), 1))], distances, people)
    if judged.name == "synthetic":
        known = datasets.load("synthetic", data, num_faces=4000, seed=JUDGED_SEED).distribution
        rows["best possible (Bayes)"] = row(truth, [known.astype(np.float64)], distances, people)
    return rows


def halves(judged: datasets.FaceSet, prior: np.ndarray, answers: Mapping[str, list], distances) -> dict:
    """Return how well five raters foretell the five others, and how well all else does the same task.

    Args:
        judged: faces with votes.
        prior: ``[K]``, mixed into the five votes with the weight of one.
        answers: name to the predictions of each seed.
        distances: between the classes.
    """
    enough = judged.votes.sum(axis=1) >= 2
    some, others = metrics.split_half(judged.votes[enough], seed=0)
    told = {"class shares": [np.tile(prior, (len(others), 1))]}
    told["five raters"] = [metrics.smoothed(some, prior, 5)]
    told |= {name: [q[enough] for q in each] for name, each in answers.items()}
    rows = {name: row(others, each, distances, None) for name, each in told.items()}
    return {
        name: {key: found[key] for key in ("mean", "interval_over_faces")} for name, found in rows.items()
    }


def compare(options: argparse.Namespace, record: dict) -> None:
    """Train every loss with every seed, and write the table after each training.

    Args:
        options: of the command line.
        record: to which the results are added.
    """
    parts = parts_of(options)
    judged, classes = parts[2], parts[0].classes
    distances, truth = emotions.distances(classes), judged.distribution.astype(np.float64)
    prior = parts[0].distribution.mean(axis=0, dtype=np.float64)
    prior /= prior.sum()
    known, answers, spent, rows = references(parts, distances, options.data), {}, {}, {}
    record["faces"] = dict(zip(("train", "validation", "judged"), map(len, parts), strict=True))
    for seed in range(options.seeds):
        for name, loss in terms(classes).items():
            model, seconds = train(parts[:2], loss, seed, options.epochs, NETWORK)
            logits, fitted = (training.predict(model, part) for part in (judged, parts[1]))
            heat = metrics.temperature(fitted, parts[1].distribution)
            spent.setdefault(name, []).append({"cpu_seconds": seconds, "temperature": heat})
            for key, divisor in ((name, 1.0), (f"{name}, T", heat)):
                answers.setdefault(key, []).append(metrics.softmax(logits / divisor))
                rows[key] = row(truth, answers[key], distances, judged.subject)
            found = {"references": known, "losses": rows, "trainings": spent}
            write(options, record | found)
            tell(f"{name} {seed}", rows[name]["seeds"][-1], seconds)
    raw = {name: each for name, each in answers.items() if not name.endswith(", T")}
    write(options, record | found | {"halves": halves(judged, prior, raw, distances)})


def way(p: np.ndarray, q: np.ndarray, prior: np.ndarray, who: np.ndarray | None = None) -> metrics.Interval:
    """Return how much of the way from the class shares (0) to p itself (1) a prediction goes.

    It is 1 - KL(p || q) / KL(p || class shares). With votes in place of p both divergences grow by what
    chance makes of ten votes, which drops out of the ratio when the least possible is taken off.

    Args:
        p: exact, ``[N, K]``.
        q: predicted, ``[N, K]``.
        prior: class shares, ``[K]``.
        who: is in each face, or None.
    """
    left, whole = (metrics.kl_divergence(p, each) for each in (q, np.broadcast_to(prior, p.shape)))
    return metrics.bootstrap(lambda some, every: 1 - some.mean() / every.mean(), left, whole, groups=who)


def with_units(faces: datasets.FaceSet) -> datasets.FaceSet:
    """Return faces whose batches bring the action units, in the place of valence and arousal.

    Args:
        faces: drawn.
    """
    return replace(faces, valence_arousal=faces.action_units)


def learn(
    model: torch.nn.Module,
    parts: Iterable[datasets.FaceSet],
    divergence: losses.Divergence,
    config: training.Config,
    run: training.Run | None = None,
) -> float:
    """Train a network that foretells the action units as well; return the CPU seconds it took.

    Args:
        model: with heads "labels" and "units".
        parts: training and validation faces, drawn.
        divergence: from the distribution.
        config: how to train.
        run: keeps the training, or None.
    """

    def loss(outputs: losses.Outputs, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        missed = (outputs["units"] - targets["valence_arousal"]).square().mean()
        return divergence(outputs["labels"], targets["distribution"]) + UNITS * missed

    started = time.process_time()
    training.fit(model, *map(with_units, parts), loss, {}, config, run=run, progress=False)
    return time.process_time() - started


def better(classes: tuple[str, ...], seed: int, **options: object) -> torch.nn.Module:
    """Return the better network, with a head for the distribution and one for the action units.

    Args:
        classes: names in label order.
        seed: of the weights.
        options: of "face-cnn-fast".
    """
    torch.manual_seed(seed)
    heads = {"labels": len(classes), "units": len(faces.ACTION_UNITS)}
    return models.create("face-cnn-fast", heads, **{"contrast": 4} | options)


def longer(options: argparse.Namespace, record: dict) -> None:
    """Train one loss for long, and write how much of the way to the best possible divergence it goes.

    Args:
        options: of the command line.
        record: to which the results are added.
    """
    parts = parts_of(options)
    judged, classes = parts[2], parts[0].classes
    exact = datasets.load("synthetic", options.data, num_faces=4000, seed=JUDGED_SEED).distribution
    exact, prior = exact.astype(np.float64), parts[0].distribution.mean(axis=0, dtype=np.float64)
    distances, said = emotions.distances(classes), judged.distribution.astype(np.float64)
    known = references(parts, distances, options.data)
    record |= {"references": known, "network": BETTER, "loss": options.loss, "cpu_seconds": [], "ways": []}
    record["faces"] = dict(zip(("train", "validation", "judged"), map(len, parts), strict=True))
    answers = []
    for seed in range(options.seeds):
        model, config = better(classes, seed, **BETTER), replace(LONGER, epochs=options.epochs, seed=seed)
        seconds = learn(model, parts[:2], losses.divergences(classes)[options.loss], config)
        outputs = training.predict(model, judged, tta="flip")
        answers.append(metrics.softmax(outputs["labels"]))
        record["cpu_seconds"].append(seconds)
        record["ways"].append(way(exact, answers[-1], prior, judged.subject).value)
        together = np.mean(answers, axis=0)
        for name, each in (("result", answers), ("together", [together])):
            record[name] = row(said, each, distances, judged.subject)
        record["way_together"] = list(astuple(way(exact, together, prior, judged.subject)))
        record["units_explained"] = explained(judged.action_units, outputs["units"])
        write(options, record)
        tell(f"{options.loss} {seed}: {record['ways'][-1]:.3f}", record["result"]["seeds"][-1], seconds)


def placed(faces: datasets.FaceSet, landmarks: np.ndarray, reference: np.ndarray) -> datasets.FaceSet:
    """Return faces turned, shifted and scaled so that eyes and nose lie as near as can be to those of one.

    Args:
        faces: of any number.
        landmarks: where theirs lie, in pixels ``[N, 68, 2]``.
        reference: where they are to lie, ``[68, 2]``.
    """
    goal, moved = torch.tensor(reference[EYES_AND_NOSE]), []
    for rows in torch.arange(len(faces)).split(1000):
        pictures, theirs = torch.tensor(faces.images[rows.numpy()]), torch.tensor(landmarks[rows.numpy()])
        some = gradcam.aligned(pictures, theirs[:, EYES_AND_NOSE], goal, similar=True, mode="bicubic")
        moved.append(some.round().clamp(0, 255).to(torch.uint8).numpy())
    return replace(faces, images=np.concatenate(moved))


def explained(units: np.ndarray, foretold: np.ndarray) -> dict[str, float]:
    """Return the share of the variance of each action unit that is foretold, R².

    Args:
        units: true, ``[N, 17]``.
        foretold: the same.
    """
    left = np.square(units - foretold).mean(axis=0) / units.var(axis=0)
    return {name: float(1 - share) for name, share in zip(faces.ACTION_UNITS, left, strict=True)}


# ---------------------------------------------------------------- what holds it back


def drawn(num: int, seed: int, **how: object) -> datasets.FaceSet:
    """Return drawn faces; their distribution is the exact p.

    Args:
        num: how many.
        seed: which.
        how: options of ``faces.sample``.
    """
    some = faces.sample(num, seed, **how)
    names = ("images", "labels", "action_units", "subject", "landmarks")
    named = {name: getattr(some, name).numpy() for name in names}
    return datasets.FaceSet(
        "drawn",
        classes=emotions.FER7,
        split=np.full(num, ""),
        source=np.arange(num).astype(str),
        distribution=some.class_probabilities.numpy(),
        votes=some.votes.numpy(),
        **named,
    )


def gone(train: datasets.FaceSet, judged: datasets.FaceSet, epochs: int, exact: bool = False) -> dict:
    """Train the better network on some faces; return how much of the way it goes on others.

    Args:
        train: drawn faces with the exact p; a tenth of them is for validation.
        judged: the same, of other people.
        epochs: passes over the training faces.
        exact: learn from p in place of the votes.
    """
    parts = train.splits(test=0.0)[:2]
    parts = parts if exact else tuple(map(learned_from_votes, parts))
    model = better(train.classes, 0, **BETTER)
    seconds = learn(model, parts, losses.kl_divergence, replace(LONGER, epochs=epochs))
    outputs = training.predict(model, judged, tta="flip")
    prior = train.distribution.mean(axis=0, dtype=np.float64)
    found = way(
        judged.distribution.astype(np.float64), metrics.softmax(outputs["labels"]), prior, judged.subject
    )
    return {"faces": len(train), "way": list(astuple(found)), "cpu_seconds": seconds}


def movement(num: int, seed: int) -> datasets.FaceSet:
    """Return faces of which nothing is seen but how far each part moves, exactly, on either side.

    How far a person's face moves for the same action unit is their own, so even this does not tell p.

    Args:
        num: how many.
        seed: which.
    """
    index = torch.arange(num)
    sides = truth.draw_action_units(seed, index, truth.balance_of("fer2013"))
    expressive = people.identities(seed, index)["expressive"][:, None, None]
    p = faces.class_probabilities(sides.mean(-1)).numpy()
    seen = (sides * expressive).clamp(0, 1.2).flatten(1).numpy()
    rest = {"split": np.full(num, ""), "source": index.numpy().astype(str)}
    return datasets.FaceSet("movement", seen, p.argmax(axis=1), emotions.FER7, distribution=p, **rest)


def told(num: int = 200_000) -> dict:
    """Return how much of the way goes who is told the movement of each face exactly.

    Args:
        num: faces to learn from; they need not be drawn.
    """
    train, judged = movement(num, 0), movement(4000, JUDGED_SEED)
    torch.manual_seed(0)
    layers = [torch.nn.BatchNorm1d(34), torch.nn.Linear(34, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256)]
    model = torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.Linear(256, 7))
    config = replace(LONGER, batch_size=512, lr=4e-3, augment=None, precision="float32", epochs=8)
    validation, started = train.select(slice(0, num // 20)), time.process_time()
    rest = train.select(slice(num // 20, None))
    training.fit(model, rest, validation, losses.on_distribution(), {}, config, progress=False)
    q, prior = metrics.softmax(training.predict(model, judged)), train.distribution.mean(axis=0)
    found = way(judged.distribution.astype(np.float64), q, prior.astype(np.float64))
    return {"faces": num, "way": list(astuple(found)), "cpu_seconds": time.process_time() - started}


def limits(options: argparse.Namespace, record: dict) -> None:
    """Train the same network on faces that are easier to read, and on more and fewer; write how far it gets.

    Args:
        options: of the command line.
        record: to which the results are added.
    """
    num, epochs, rows = options.faces, options.epochs, {}
    usual, judged = drawn(2 * num, 0), drawn(4000, JUDGED_SEED)

    def keep(name: str, found: dict) -> None:
        rows[name] = found
        print(f"{name:32}", {key: np.round(value, 3).tolist() for key, value in found.items()}, flush=True)
        write(options, record | {"network": BETTER, "rows": rows})

    keep("told the movement", told())
    for many in (num // 2, num, 2 * num):
        keep(f"as drawn, {many}", gone(usual.select(slice(0, many)), judged, epochs))
    keep("as drawn, exact p", gone(usual.select(slice(0, num)), judged, epochs, exact=True))
    where = usual.landmarks.mean(axis=0)
    some = usual.select(slice(0, num))
    keep(
        f"eyes and nose in one place, {num}",
        gone(*(placed(each, each.landmarks, where) for each in (some, judged)), epochs),
    )
    for name, how in EASIER.items():
        many = num // 2 if "size" in how else num  # four times the pixels, four times the work
        keep(f"{name}, {many}", gone(drawn(many, 0, **how), drawn(2000, JUDGED_SEED, **how), epochs))


def write(options: argparse.Namespace, record: dict) -> None:
    """Write the record.

    Args:
        options: of the command line.
        record: plain types.
    """
    with files.replacing(options.out) as file:
        file.write(json.dumps(record, indent=1).encode())


def tell(name: str, scores: Mapping[str, float], seconds: float) -> None:
    """Print one line.

    Args:
        name: of the training.
        scores: by name.
        seconds: of the CPU.
    """
    shown = {key: round(scores[key], 4) for key in ("KL", "EMD", "TV", "cosine", "accuracy")}
    print(f"{name:24} {seconds:5.0f} CPU-s", shown, flush=True)


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=DEFAULTS)
    parser.add_argument(
        "--data", default="data", help="folder that holds the set, or the cache of drawn faces"
    )
    parser.add_argument("--faces", type=int, help="to learn from")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--loss", default="kl", help="of the longer trainings")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", help="file to write")
    options = parser.parse_args()
    for name, value in zip(("faces", "epochs", "seeds"), DEFAULTS[options.part], strict=True):
        setattr(options, name, getattr(options, name) or value)
    options.out = options.out or f"data/results/distributions_{options.part}.json"
    return options


def main() -> None:
    """Compare the losses, or train one for longer."""
    options = arguments()
    torch.set_num_threads(options.threads)
    words = ["FOLDER" if word == options.data else word for word in sys.argv[1:]]
    base = {"longer": LONGER, "limits": LONGER}.get(options.part, CONFIG)
    record = {
        "set": "ferplus" if options.part == "ferplus" else "synthetic",
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", "benchmarks.distributions", *words]),
        "machine": runtime.machine(),
        "network": NETWORK,
        "config": asdict(replace(base, epochs=options.epochs)),
        "targets": "shares of the votes",
    }
    {"longer": longer, "limits": limits}.get(options.part, compare)(options, record)


if __name__ == "__main__":
    main()
