"""The command line: what ``python3 -m helpers`` understands; a file for each command.

Only the standard library is imported at the top of these files, so that help and mistakes are answered at
once, before anything is installed; a command imports what it works with when it starts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from helpers import did_you_mean
from helpers.cli import compare, data, ensemble, evaluate, predict, report, run, site, testing, train, webcam

ABOUT = """\
Reading Faces: notebooks on facial expression recognition.

  python3 -m helpers run                 all notebooks, top to bottom, on drawn faces
  python3 -m helpers run 03              one of them
  python3 -m helpers run 03 -p DATASET fer2013 -p EPOCHS 20
                                         one of them, on your own FER2013 in data/, for twenty epochs
  python3 -m helpers test                every test, the notebooks included
  python3 -m helpers train --fast        train a network, here a small one for a minute
  python3 -m helpers predict me.jpg      what a trained network reads in a picture

On a fresh machine both first make an environment in .venv (once, about 100 s). To work in the notebooks:
.venv/bin/python -m jupyterlab           (on Windows: .venv\\Scripts\\python -m jupyterlab)
"""


@dataclass(frozen=True)
class Command:
    """A word of the command line.

    Args:
        summary: a few words for the list of commands.
        text: its help text.
        declare: adds its options to a parser.
        check: completes the parsed words before anything is installed or run; a ValueError refuses them.
        perform: does it, and returns an exit status.
    """

    summary: str
    text: str
    declare: Callable[[argparse.ArgumentParser], None]
    check: Callable[[argparse.Namespace], None]
    perform: Callable[[argparse.Namespace], int]


ROOMS = {
    "run": (run, "run notebooks, as they are or with other parameters"),
    "test": (testing, "run every test, the notebooks included"),
    "data": (data, "which sets are there, and what is wrong with one"),
    "train": (train, "train a network and keep it"),
    "evaluate": (evaluate, "score a training, with intervals and pictures"),
    "compare": (compare, "several trainings side by side"),
    "ensemble": (ensemble, "what several trainings know together"),
    "report": (report, "a page and a PDF about trainings"),
    "predict": (predict, "read the faces in pictures"),
    "webcam": (webcam, "read the faces before a camera, or in a video"),
    "site": (site, "make web pages of the notebooks"),
}
COMMANDS = {
    name: Command(summary, room.TEXT, room.declare, room.check, room.perform)
    for name, (room, summary) in ROOMS.items()
}


def parse(words: list[str]) -> argparse.Namespace:
    """Return what the words ask for, checked as far as it can be without running anything.

    Args:
        words: the command line behind ``python3 -m helpers``.

    Returns:
        With ``command``, its name, and ``perform``, the function that takes this namespace and returns an
        exit status.

    Raises:
        SystemExit: with 0 after a help text, with 2 after a mistake, which is explained on stderr.
    """
    parser, rooms = _parsers()
    if words in ([], ["help"]):
        parser.print_help()
        parser.exit()
    name = words[0]
    if not name.startswith("-") and name not in COMMANDS:
        parser.error(f"unknown command {name!r}{did_you_mean(name, COMMANDS)}; known: {', '.join(COMMANDS)}")
    arguments, rest = parser.parse_known_args(words)
    arguments.rest, arguments.words = rest, words
    try:
        COMMANDS[name].check(arguments)
    except ValueError as error:
        rooms[name].error(str(error))
    return arguments


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    as_written = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = argparse.ArgumentParser("python3 -m helpers", description=ABOUT, **as_written)
    add = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", required=True).add_parser
    rooms = {}
    for name, command in COMMANDS.items():
        rooms[name] = add(name, help=command.summary, description=command.text, **as_written)
        command.declare(rooms[name])
        rooms[name].set_defaults(perform=command.perform)
    return parser, rooms
