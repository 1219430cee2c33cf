"""The command ``evaluate``: how good a run is, and where it goes wrong."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import did_you_mean
from helpers.cli.mistakes import in_one_line
from helpers.cli.settings import CHOICES
from helpers.cli.status import short

if TYPE_CHECKING:
    from helpers.cli.scoring import Answers

SPLITS = ("validation", "test")
VIEWS = ("none", "flip", "shift")  # the names of training.TTA, which need not be loaded to refuse a word

TEXT = """\
Score a training that was kept: every score with its 95 % interval (bootstrap over faces, over people where
they are known), beside what the commonest class alone would get; by class; with and without the faces that
stand in training too, where there are any. The run's folder gets pictures: confusion, ROC and
precision-recall curves, the most confident mistakes, and where the network looked (Grad-CAM).

  python3 -m helpers evaluate runs/fer2013-cnn                       on the test faces
  python3 -m helpers evaluate runs/fer2013-cnn --split validation    while you still choose

The test faces are for the end: whoever chooses by them no longer knows how good the choice is.
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``evaluate``.

    Args:
        parser: the command's own.
    """
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder that train left")
    add_faces(parser, "test")
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON")


def add_faces(parser: argparse.ArgumentParser, split: str) -> None:
    """Add the options that say which faces a run is asked about, and how.

    Args:
        parser: the command's own.
        split: the part of the faces where none is named.
    """
    add = parser.add_argument
    add("--split", default=split, metavar="PART", help="validation or test (default: %(default)s)")
    add("--tta", default="none", metavar="HOW", help="average over views: flip, or shift (18 of each face)")
    add("--root", metavar="FOLDER", help="where the data is, if not where it was")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--resamples", type=int, default=1000, metavar="N", help="bootstrap samples (default: %(default)s)")


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be meant.

    Args:
        arguments: as :func:`declare` has them parsed.

    Raises:
        ValueError: an unknown option, part of the faces or way to average.
    """
    if arguments.rest:
        raise ValueError(
            f"unknown option {arguments.rest[0]!r}; python3 -m helpers {arguments.command} --help lists them"
        )
    for name, known in (("split", SPLITS), ("tta", VIEWS), ("device", CHOICES["device"])):
        word = getattr(arguments, name)
        if word not in known:
            raise ValueError(f"unknown {name} {word!r}{did_you_mean(word, known)}; known: {', '.join(known)}")
    if arguments.resamples < 10:
        raise ValueError(f"--resamples must be at least 10, not {arguments.resamples}")


@in_one_line
def perform(arguments: argparse.Namespace) -> int:
    """Score the run, keep numbers and pictures in its folder, and print them; return the exit status.

    Args:
        arguments: as :func:`check` completed them.
    """
    from helpers.cli import scoring

    folder = arguments.run
    scoring.check([folder])
    asked = (arguments.tta, arguments.root, arguments.device)
    answers = scoring.ask(folder, arguments.split, *asked)
    found = keep(folder, answers, arguments.tta, arguments.resamples, arguments.root)
    print(json.dumps(found) if arguments.json else as_text(folder, found))
    return 0


def keep(
    folder: Path, answers: Answers, tta: str = "none", resamples: int = 1000, root: str | None = None
) -> dict:
    """Score answers, write ``evaluation-<split>.json`` and the pictures beside it, and return the numbers.

    Args:
        folder: of the run.
        answers: what it said.
        tta: how it was asked.
        resamples: bootstrap samples.
        root: where the data is, if not where it was.
    """
    from helpers import files
    from helpers.cli import pictures, scoring

    found = {"run": folder.name, "tta": tta, **scoring.numbers(answers, resamples)}
    with files.replacing(folder / f"evaluation-{answers.split}.json") as file:
        file.write(json.dumps(found, indent=1).encode())
    pictures.keep(folder, answers, root)
    return found


def as_text(folder: Path, found: dict) -> str:
    """Return what was scored as lines for a terminal.

    Args:
        folder: of the run.
        found: as :func:`keep` returns it.
    """
    lines = [f"{short(folder)}: {found['faces']:,} {found['split']} faces", ""]
    lines += [f"{name:20}{shown(score)}" for name, score in found["scores"].items()]
    lines += [f"{'majority, accuracy':20}{shown(found['majority'])}"]
    if "best_possible" in found:
        lines += [f"{'best possible':20}{shown(found['best_possible'])}"]
    if "without_leaked" in found:
        lines += ["", f"without the {found['leaked']:,} faces that stand in training too:"]
        lines += [f"{name:20}{shown(score)}" for name, score in found["without_leaked"].items()]
    columns = found["per_class"]
    lines += ["", f"{'':20}{'precision':>10}{'recall':>10}{'F1':>10}{'faces':>10}"]
    for i, name in enumerate(found["classes"]):
        shares = "".join(f"{columns[key][i]:10.3f}" for key in ("precision", "recall", "f1"))
        lines.append(f"{name:20}{shares}{columns['support'][i]:10,}")
    return "\n".join([*lines, "", f"Numbers and pictures are in {short(folder)}."])


def shown(score: dict) -> str:
    """Return a score with its interval, as "0.652 [0.636, 0.667]".

    Args:
        score: "value", "low" and "high"; None where it is not a number.
    """
    texts = {name: "-" if number is None else f"{number:.3f}" for name, number in score.items()}
    return f"{texts['value']} [{texts['low']}, {texts['high']}]"
