"""The command line: ``python3 -m helpers COMMAND``. A command is one function, and its signature its options.

Only the standard library is imported here and at the top of the commands, so that help and mistakes are
answered at once, before anything is installed.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import math
import os
import re
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from helpers import did_you_mean, one_of

ABOUT = """\
Reading Faces: notebooks on facial expression recognition.

  python3 -m helpers run                 all notebooks, top to bottom, on drawn faces
  python3 -m helpers run 03 -p DATASET fer2013 -p EPOCHS 20
                                         one of them, on your own FER2013 in data/, for twenty epochs
  python3 -m helpers test                every test, the notebooks included
  python3 -m helpers train --fast        train a network, here a small one for a minute
  python3 -m helpers predict me.jpg      what a trained network predicts for the faces in an image

On a fresh machine the first command makes an environment in .venv (once, about 100 s). To work in the
notebooks: .venv/bin/python -m jupyterlab           (on Windows: .venv\\Scripts\\python -m jupyterlab)

Commands (python3 -m helpers COMMAND --help says more):
"""
COMMANDS = {
    "run": "run", "test": "run", "data": "data", "train": "train", "evaluate": "evaluate",
    "compare": "evaluate", "report": "report", "reproduce": "train", "predict": "predict",
    "webcam": "predict", "grade": "grade", "solutions": "grade",
}  # fmt: skip
"""Command to the file that holds its function."""
FLAGS = {
    "option": "options", "modeloption": "modeloptions", "dataset": "data", "dataroot": "root",
    "backbone": "model", "arch": "model", "network": "model", "imgsize": "imagesize", "numepochs": "epochs",
    "learningrate": "lr", "wd": "weightdecay", "scheduler": "schedule", "earlystopping": "patience",
    "output": "out", "outputdir": "out",
}  # fmt: skip
VALUES = {
    "steplr": "step", "reducelronplateau": "plateau", "cosineannealing": "cosine", "onecyclelr": "onecycle",
    "cosineannealinglr": "cosine", "ce": "crossentropy", "vit": "vitb16", "efficientnet": "efficientnetb0",
    "hog": "hogsvm", "svm": "hogsvm",
}  # fmt: skip
"""Usual synonyms of flags, and of what stands behind them; all as :func:`key` has them."""


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    return importlib.import_module(f"{__name__}.{name}")


def says(default: Any, text: str) -> Any:
    """Return a field of a dataclass whose fields are flags, with its help; ``dict`` for an empty one."""
    how = {"default_factory": dict} if default is dict else {"default": default}
    return field(**how, metadata={"help": text})


@dataclass(frozen=True)
class Call:
    """What the words ask for: a command and the arguments of its function."""

    command: str
    function: Callable[..., int]
    arguments: dict[str, Any]
    words: list[str]

    def perform(self) -> int:
        """Do it; return the exit status, after one line on stderr where the user can put something right."""
        try:
            return self.function(*self.words, **self.arguments)
        except (ValueError, OSError, ImportError, FloatingPointError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "another training is under way" not in str(error):
                raise  # PyTorch's own are not for the user to put right
            line = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
            print(f"python3 -m helpers {self.command}: error: {line}", file=sys.stderr)
            return 1 if isinstance(error, FloatingPointError) else 2
        except KeyboardInterrupt:
            print("Stopped.", file=sys.stderr)
            return 130


def main(words: list[str]) -> int:
    """Do what the words behind ``python3 -m helpers`` say, and return the exit status."""
    try:
        return parse(words).perform()
    except SystemExit as ended:
        return int(ended.code or 0)


def parse(words: list[str]) -> Call:
    """Return the :class:`Call` that the words ask for; SystemExit(0) after help, (2) after a mistake."""
    for stream in (sys.stdout, sys.stderr):  # a code page that lacks a character never ends a command
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    name, *rest = words or ["help"]
    if name == "ensemble":
        name, rest = "compare", ["--ensemble", *rest]
    if name in ("help", "-h", "--help"):
        lines = {each: documented(_function(each))[0].split("\n")[0].rstrip(".") for each in COMMANDS}
        print(ABOUT + "\n".join(f"  {each:12}{line[:1].lower()}{line[1:]}" for each, line in lines.items()))
        raise SystemExit(0)
    try:
        return read(one_of("command", name, COMMANDS), _function(name), rest)
    except ValueError as error:
        print(f"python3 -m helpers{f' {name}' if name in COMMANDS else ''}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _function(name: str) -> Callable[..., int]:
    return getattr(importlib.import_module(f"helpers.cli.{COMMANDS[name]}"), name)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise ValueError(message)


def read(name: str, function: Callable[..., int], words: list[str]) -> Call:
    """Read the words of a command by the signature of its function."""
    text, helps = documented(function)
    how = {"formatter_class": argparse.RawDescriptionHelpFormatter, "argument_default": argparse.SUPPRESS}
    parser = _Parser(f"python3 -m helpers {name}", "%(prog)s [words and options]", text, **how)
    kinds, flags, takes_all = {}, [], False
    for each in inspect.signature(function, eval_str=True).parameters.values():
        if each.kind is each.VAR_POSITIONAL:
            takes_all = True
        elif each.kind is each.VAR_KEYWORD:  # a dataclass, each field of which is a flag
            kinds |= inspect.get_annotations(each.annotation, eval_str=True)
            for one in fields(each.annotation):
                flags += _add_flag(parser, one.name, kinds[one.name], one.default, one.metadata["help"])
        else:
            kinds[each.name], free = each.annotation, each.default is not each.empty
            if each.kind is each.KEYWORD_ONLY:
                flags += _add_flag(parser, each.name, each.annotation, each.default, helps[each.name])
            else:
                several = get_origin(bare(each.annotation)) is list
                number = ("*" if free else "+") if several else "?" if free else None
                parser.add_argument(each.name, nargs=number, metavar=each.name.upper(), help=helps[each.name])
    known, spelled = {key(flag): flag for flag in flags}, []
    for word in words:  # a flag as it was declared, however it is spelled
        flag, *value = word.split("=", 1) if word.startswith("--") else [word]
        synonym = FLAGS.get(key(flag), key(flag))
        spelled.append("=".join([known.get(synonym, flag) if word.startswith("--") else flag, *value]))
    found, rest = parser.parse_known_args(spelled)
    if rest and not takes_all:
        near = did_you_mean(rest[0], flags)
        raise ValueError(f"unknown option {rest[0]!r}{near}; python3 -m helpers {name} --help lists them")
    arguments = {n: convert(value, kinds[n], "--" + n.replace("_", "-")) for n, value in vars(found).items()}
    return Call(name, function, arguments, rest)


def documented(function: Callable) -> tuple[str, dict[str, str]]:
    """Return the text of a docstring in Google's form, and what it says of each argument."""
    text, _, rest = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    found = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", rest, re.MULTILINE)
    return text, {name: " ".join(about.split()) for name, about in found}


def _add_flag(parser: _Parser, name: str, kind: Any, default: Any, text: str) -> list[str]:
    """Declare a flag, and return its spellings."""
    kind, flag = bare(kind), "--" + name.replace("_", "-")
    origin, about = get_origin(kind) or kind, {"dest": name, "help": text.replace("%", "%%")}
    if origin is bool:
        about["action"] = argparse.BooleanOptionalAction
    elif origin is dict:
        about |= {"nargs": 2, "action": "append", "metavar": ("NAME", "VALUE")}
    elif origin is list:
        about |= {"action": "append", "metavar": "WORD"}
    else:
        words = {str: "NAME", int: "N", float: "X", Path: "PATH"}
        about["metavar"] = words.get(kind) or "{" + ",".join(get_args(kind)) + "}"
        about["help"] += "" if default in (None, "", False) else f" (default: {default})"
    return parser.add_argument(*(["-p"] if name == "parameter" else []), flag, **about).option_strings


def bare(kind: Any) -> Any:
    """Return the type in ``type | None``."""
    return get_args(kind)[0] if isinstance(kind, UnionType) else kind


def key(word: object) -> str:
    """Return a name as names are compared: letters and digits, without case."""
    return re.sub(r"[\W_]", "", str(word).lower())


def choose(what: str, word: object, known: Collection[str]) -> str:
    """Return the known name that a word means; ValueError with the nearest one where it means none."""
    by_key, word = {key(name): name for name in known}, str(word)
    return by_key.get(VALUES.get(key(word))) or by_key.get(key(word)) or one_of(what, word, known)


def convert(value: Any, kind: Any, what: str) -> Any:
    """Return a word of the command line, or a value of a YAML file, as the type that is declared."""
    kind = bare(kind)
    origin, of = get_origin(kind) or kind, get_args(kind)
    if origin is Literal:
        return choose(what.lstrip("-"), value, of)
    if origin is dict:
        with suppress(TypeError, ValueError):
            read_as = str if of[1] is str else literal
            return {str(name).replace("-", "_"): read_as(each) for name, each in dict(value).items()}
    if origin is list and isinstance(value, list):
        return [convert(each, of[0], what) for each in value]
    if origin is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if origin in (str, Path) and isinstance(value, (str, int, float)):
        return Path(str(value)).expanduser() if origin is Path else str(value)
    if origin in (int, float) and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            number = origin(value)
            if math.isfinite(number) and number == float(value):
                return number
    names = {int: "a whole number", float: "a number", bool: "true or false", dict: "names with values"}
    raise ValueError(f"{what} is {names.get(origin, 'a word')}, not {value!r}")


def literal(value: Any) -> Any:
    """Return what a text stands for (a number, true, false, none, a tuple), else the value as it is."""
    words = {"true": True, "false": False, "none": None, "null": None}
    if isinstance(value, str):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            return words[value.lower()] if value.lower() in words else ast.literal_eval(value)
    return value


def recorded(path: Path) -> dict[str, Any]:
    """Return what a JSON file of a run says; {} where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("settings", {}), dict):
        raise ValueError(f"{path} is damaged; make it again (train --anew)")
    return found


def short(path: str | Path) -> str:
    """Return a path as it is shortest to type in the working directory."""
    try:
        return min(str(path), os.path.relpath(path), key=len)
    except ValueError:  # on Windows: another drive
        return str(path)
