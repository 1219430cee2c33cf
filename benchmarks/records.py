"""What the records of these measurements have in common: options, circumstances, scores with intervals."""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from helpers import datasets, files, metrics, runtime

RESULTS = Path("data/results")


def parser(text: str, **defaults: object) -> argparse.ArgumentParser:
    """Return a parser with ``--data``, ``--seed``, ``--threads`` and a flag for each default."""
    found = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--data", default="data", help="folder that holds the sets and the cache")
    for name, value in {"seed": 0, "threads": torch.get_num_threads(), **defaults}.items():
        found.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return found


def circumstances(options: argparse.Namespace) -> dict:
    """Return date, command and machine; the folder of the data is no part of a record."""
    words = ["FOLDER" if word == options.data else word for word in sys.argv[1:]]
    return {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *words]),
        "seed": options.seed,
        "machine": runtime.machine(),
    }


def write(name: str, record: dict) -> None:
    """Write a record into data/results."""
    files.write(RESULTS / f"{name}.json", json.dumps(record, indent=1))


def interval(statistic: Callable, *arrays: np.ndarray, groups: np.ndarray | None = None) -> dict[str, float]:
    """Return a score with its 95 % bootstrap interval; whole groups are resampled where they are known."""
    found = metrics.bootstrap(statistic, *arrays, groups=groups)
    return {"value": found.value, "low": found.low, "high": found.high}


def test_scores(
    test: datasets.FaceSet, predicted: np.ndarray, learned: Sequence[datasets.FaceSet]
) -> dict[str, object]:
    """Return the scores on all test faces, and on those that no learned image equals pixel for pixel."""
    labels = np.concatenate([part.labels for part in learned])
    majority = np.full(len(test), np.bincount(labels).argmax())
    copied = np.any([datasets.leaked(test, part) for part in learned], axis=0)
    f1 = metrics.per_class(test.labels, predicted, len(test.classes)).f1
    return {
        "test": _scores(test, predicted, majority),
        "test_without_leaked": _scores(test.select(~copied), predicted[~copied], majority[~copied]),
        "leaked": int(copied.sum()),
        "per_class_f1": dict(zip(test.classes, f1.round(4).tolist(), strict=True)),
    }


def _scores(test: datasets.FaceSet, predicted: np.ndarray, majority: np.ndarray) -> dict[str, object]:
    found: dict[str, object] = {"faces": len(test)}
    for name, score in {"accuracy": metrics.accuracy, "macro_f1": metrics.macro_f1}.items():
        found[name] = interval(score, test.labels, predicted, groups=test.subject)
        found[f"majority_{name}"] = interval(score, test.labels, majority, groups=test.subject)
    return found | {"mcnemar_p_against_majority": metrics.mcnemar(test.labels, predicted, majority)}
