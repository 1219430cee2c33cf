"""What every record of a measurement on real faces holds, and how the test faces are scored in it."""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from pathlib import Path

import numpy as np

from helpers import datasets, files, metrics, runtime


def options(doc: str, sets: tuple[str, ...] = ("fer2013", "muxspace")) -> argparse.ArgumentParser:
    """Return a parser with what these measurements have in common.

    Args:
        doc: the script's docstring.
        sets: which ones it knows; where there is but one it need not be named.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    named = {} if len(sets) > 1 else {"nargs": "?", "default": sets[0]}
    parser.add_argument("name", choices=sets, **named)
    parser.add_argument("--data", required=True, help="folder that holds the set")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def circumstances(given: argparse.Namespace) -> dict:
    """Return set, date, command, seed and machine; the folder of the data is no part of a record.

    Args:
        given: the parsed options.
    """
    words = ["FOLDER" if word == given.data else word for word in sys.argv[1:]]
    return {
        "set": given.name,
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *words]),
        "seed": given.seed,
        "machine": runtime.machine(),
    }


def test_scores(test: datasets.FaceSet, predicted: np.ndarray, learned: list[datasets.FaceSet]) -> dict:
    """Return the scores on all test faces and on those without an identical twin among the learned ones.

    Args:
        test: the test faces.
        predicted: their predicted classes.
        learned: training and validation faces.
    """
    labels = np.concatenate([part.labels for part in learned])
    majority = int(np.bincount(labels).argmax())
    copied = np.any([datasets.leaked(test, part) for part in learned], axis=0)
    f1 = metrics.per_class(test.labels, predicted, len(test.classes)).f1
    return {
        "test": _scores(test, predicted, majority),
        "test_without_leaked": _scores(test.select(~copied), predicted[~copied], majority),
        "leaked": int(copied.sum()),
        "per_class_f1": dict(zip(test.classes, f1.round(4).tolist(), strict=True)),
    }


def _scores(test: datasets.FaceSet, predicted: np.ndarray, majority: int) -> dict:
    always = np.full(len(test), majority)

    def interval(statistic, answers: np.ndarray) -> dict:
        # where people are known, whole people are drawn
        found = metrics.bootstrap(statistic, test.labels, answers, groups=test.subject)
        return {"value": found.value, "low": found.low, "high": found.high}

    return {
        "faces": len(test),
        "accuracy": interval(metrics.accuracy, predicted),
        "macro_f1": interval(metrics.macro_f1, predicted),
        "majority_accuracy": interval(metrics.accuracy, always),
        "majority_macro_f1": interval(metrics.macro_f1, always),
        "mcnemar_p_against_majority": metrics.mcnemar(test.labels, predicted, always),
    }


def write(name: str, record: dict) -> None:
    """Write a record under data/results and show its scores.

    Args:
        name: the file's name without ending.
        record: plain types.
    """
    with files.replacing(f"data/results/{name}.json") as file:
        file.write(json.dumps(record, indent=1).encode())
    print(json.dumps({key: record[key] for key in record if key.startswith("test")}, indent=1))
