"""The command ``train``: one training, by flags, a file or the name of a configuration."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import did_you_mean
from helpers.cli import settings as told
from helpers.cli.configurations import CONFIGURATIONS
from helpers.cli.mistakes import in_one_line
from helpers.cli.settings import LOSSES, Settings
from helpers.cli.status import short

if TYPE_CHECKING:
    from helpers import training
    from helpers.cli.experiment import Splits

RUNS = Path("runs")

TEXT = f"""\
Train one network and keep it in a folder: the weights that did best on the validation faces, the history,
and all that is needed to make the network again. The test faces are not looked at: "evaluate" does that,
once, at the end.

  python3 -m helpers train --fast                          does it run at all? one epoch, a few hundred faces
  python3 -m helpers train --data fer2013 --model resnet18 --model-option stem small --epochs 20
  python3 -m helpers train --config resnet18-4class        a named configuration
  python3 -m helpers train --config mine.yaml --lr 3e-4    a file of "name: value" lines, one changed
  python3 -m helpers train --configs                       the named configurations

The same command goes on where a training was stopped (Ctrl-C) or killed; on a CPU the result is the same to
the bit. A flag goes before the file, a file before what is usual.

Losses by task: {"; ".join(f"{task}: {', '.join(names)}" for task, names in LOSSES.items())}.

Exit status: 0 trained, 1 the loss is no number any more, 2 a mistake in the words, 130 stopped by Ctrl-C.
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``train``.

    Args:
        parser: the command's own.
    """
    parser.usage = "python3 -m helpers train [--config NAME|FILE.yaml] [--out FOLDER] [--fast] [settings]"
    add = parser.add_argument
    add("--config", action="append", default=[], metavar="NAME|FILE", help="a configuration or YAML file")
    add("--configs", action="store_true", help="list the named configurations and end")
    add("--out", type=Path, metavar="FOLDER", help="where to keep it (default: runs/ and a name)")
    add("--fast", action="store_true", help="one epoch with a few hundred faces, to see that it runs")
    add("--anew", action="store_true", help="train again what stands in the folder")
    add("--wandb", metavar="PROJECT", help="tell Weights & Biases too (pip install wandb)")
    add("--tag", action="append", default=[], metavar="WORD", help="for W&B; may be repeated")
    add("--online", action="store_true", help="send to W&B now; otherwise it stays here until wandb sync")
    add("--json", action="store_true", help="print the best epoch as JSON")
    told.declare(parser.add_argument_group("settings, each also a name in a YAML file"))


def check(arguments: argparse.Namespace) -> None:
    """Put the settings and the folder into the parsed words.

    Args:
        arguments: as :func:`declare` has them parsed.

    Raises:
        ValueError: an unknown option, configuration, file or word.
    """
    if arguments.rest:
        flags = [
            flag.flag.removesuffix("s") if flag.kind is dict else flag.flag for flag in told.FLAGS.values()
        ]
        near = did_you_mean(arguments.rest[0], [*flags, "--config", "--out", "--fast", "--anew", "--wandb"])
        raise ValueError(
            f"unknown option {arguments.rest[0]!r}{near}; python3 -m helpers train --help lists all"
        )
    named = [word for word in arguments.config if not _is_file(word)]
    for word in named:
        if word not in CONFIGURATIONS:
            raise ValueError(_unknown(word))
    for word in arguments.config:
        if _is_file(word) and not Path(word).is_file():
            raise ValueError(f"there is no file {word}")
    arguments.given = told.given(arguments)
    if len(named) == len(arguments.config):  # files are read after the set-up
        told.merged(*(CONFIGURATIONS[word] for word in named), arguments.given)


def _is_file(word: str) -> bool:
    return word.endswith((".yaml", ".yml")) or "/" in word


def _unknown(word: str) -> str:
    near = did_you_mean(word, CONFIGURATIONS)
    return f"no configuration {word!r}{near}; known: {', '.join(CONFIGURATIONS)}; a file ends in .yaml"


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings that configurations, files and flags make, in this order.

    Args:
        arguments: as :func:`check` completed them.

    Raises:
        ValueError: a file that cannot be read, or a name or value in it that does not exist.
    """
    layers: list[Mapping[str, Any]] = []
    for word in arguments.config:
        layers.append(told.from_file(Path(word)) if _is_file(word) else CONFIGURATIONS[word])
    return told.merged(*layers, arguments.given)


def folder_of(arguments: argparse.Namespace, settings: Settings) -> Path:
    """Return the folder to keep the training in.

    Args:
        arguments: as :func:`check` completed them.
        settings: what is trained.
    """
    if arguments.out:
        return arguments.out
    name = f"{settings.data}-{settings.model}-{settings.task}"
    if arguments.config:
        name = Path(arguments.config[-1]).stem
    return RUNS / (f"{name}-fast" if arguments.fast else name)


@in_one_line
def perform(arguments: argparse.Namespace) -> int:
    """Train, and say what was reached and what comes next; return the exit status.

    Args:
        arguments: as :func:`check` completed them.
    """
    if arguments.configs:
        for name, values in CONFIGURATIONS.items():
            print(f"{name:36}{'  '.join(f'{key}={value}' for key, value in values.items())}")
        return 0
    settings = settings_of(arguments)
    folder = folder_of(arguments, settings)
    about = {"settings": told.record(settings), "fast": arguments.fast}
    if arguments.anew:
        forget(folder)
    elif standing(folder, about):
        print(f"{short(folder)} is trained already; --anew trains it again.")
        return 0
    about["command"] = shlex.join(["python3", "-m", "helpers", *arguments.words])
    return _train(arguments, settings, folder, about)


def standing(folder: Path, about: Mapping[str, Any]) -> bool:
    """Return whether a training with these settings stands in a folder and is finished.

    Args:
        folder: the folder.
        about: "settings" and "fast", as they would be recorded.

    Raises:
        ValueError: another training stands there.
    """
    if not (folder / "config.json").exists():
        return False
    there = read_record(folder)
    theirs = {"fast": there.get("fast"), **there.get("settings", {})}
    ours = {"fast": about["fast"], **about["settings"]}
    other = [name for name in ours if theirs.get(name) != json.loads(json.dumps(ours[name]))]
    if other:
        raise ValueError(
            f"another training stands in {folder} (its {', '.join(other[:4])} differ); "
            "name another folder with --out, or replace it with --anew"
        )
    return (folder / "finished.json").exists() or (folder / "svm.npz").exists()


def forget(folder: Path) -> None:
    """Take away what an earlier training left to go on from, and what was read off it.

    Args:
        folder: the folder; other files in it stay.
    """
    kept = ("finished.json", "state.safetensors", "best.safetensors", "svm.npz", "evaluation-*", "outputs-*")
    for pattern in kept:
        for path in folder.glob(pattern):
            path.unlink()
    for name in ("tensorboard", "head"):
        shutil.rmtree(folder / name, ignore_errors=True)


def read_record(folder: Path) -> dict[str, Any]:
    """Return what ``config.json`` in a run's folder says.

    Args:
        folder: the folder.

    Raises:
        FileNotFoundError: there is no run; the message names those that are near.
        ValueError: the file is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        here = sorted(each.parent.name for each in folder.parent.glob("*/config.json"))
        beside = f"; there: {', '.join(here)}" if here else "; python3 -m helpers train makes one"
        raise FileNotFoundError(f"no run in {folder}{did_you_mean(folder.name, here)}{beside}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged; train it again with --anew")
    return found


def _train(arguments: argparse.Namespace, settings: Settings, folder: Path, about: dict[str, Any]) -> int:
    from helpers import training
    from helpers.cli import experiment

    faces = experiment.load_faces(settings, arguments.fast)
    about["sizes"] = {name: len(part) for name, part in faces.items()}
    if not arguments.json:
        print(_opening(settings, folder, faces))
    if settings.model == "hog-svm":
        history = None
        experiment.train_svm(settings, faces, folder, about)
    else:
        trackers = []
        if arguments.wandb:
            trackers = [training.WandB(folder, arguments.wandb, arguments.tag, arguments.online)]
        run = training.Run(folder, about, trackers)
        history = experiment.train(settings, faces, run, arguments.fast, progress=not arguments.json)
    experiment.keep_audit(faces, folder)
    return _closing(arguments, folder, history)


def _opening(settings: Settings, folder: Path, faces: Splits) -> str:
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in faces.items())
    classes = len(faces["train"].classes)
    what = f"{settings.model} on {settings.data}: {settings.task}, {classes} classes, {settings.loss}"
    return f"{what}\n{sizes} faces of {settings.image_size} pixels; kept in {short(folder)}"


def _closing(arguments: argparse.Namespace, folder: Path, history: training.History | None) -> int:
    stopped = history is not None and history.stopped
    if arguments.json:
        best = history.best if history else None
        print(json.dumps({"run": folder.as_posix(), "stopped": stopped, "best": best}))
    elif stopped:
        print("Stopped; the same command goes on from here.")
    else:
        print(f"Next: python3 -m helpers evaluate {short(folder)}")
    return 130 if stopped else 0
