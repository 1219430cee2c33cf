"""What a training on the command line can be told: one frozen record, the flags and files that fill it."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from helpers import did_you_mean

LOSSES = {
    "expression": ("cross-entropy",),
    "multitask": ("mse", "ccc"),
    "distribution": ("kl", "reverse-kl", "cross-entropy", "js", "mse", "l1", "emd", "kl+emd", "js+l1"),
}
"""Task to the losses that it can be trained with, the usual one first."""

SETS = ("synthetic", "fer2013", "ferplus", "muxspace", "affectnet", "affectnet_fused", "folder")
NETWORKS = (
    "face-cnn",
    "face-cnn-fast",
    "resnet18",
    "resnet34",
    "resnet50",
    "efficientnet_b0",
    "efficientnet_lite0",
    "vit_b_16",
    "hog-svm",
)
CHOICES = {
    "data": SETS,
    "model": NETWORKS,
    "task": tuple(LOSSES),
    "augment": ("none", "v1", "v2"),
    "balance": ("fixed", "learned"),
    "leaks": ("drop", "keep"),
    "merge": ("none", "4"),
    "optimizer": ("adamw", "adam", "sgd", "muon"),
    "schedule": ("one-cycle", "cosine", "step", "plateau", "constant"),
    "device": ("auto", "cpu", "cuda", "mps"),
}


def _says(default: Any, text: str) -> Any:
    metadata = {"help": text}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """All that decides how a training goes; each field's ``help`` says what it is."""

    data: str = _says("synthetic", "the data set")
    root: str = _says("data", "the folder that holds it")
    image_size: int = _says(48, "side of the pictures, in pixels")
    options: dict = _says({}, "options of the data set, such as num_faces 8000 or color True")
    merge: str = _says("none", "4: anger+disgust, fear+sadness, happiness, neutral+surprise")
    leaks: str = _says("drop", "test faces that stand in training too: drop the copies, or keep as published")
    split_seed: int = _says(0, "which of the possible splits, where the set has no official one")
    task: str = _says("expression", "what is learned")
    model: str = _says("face-cnn", "the network, or hog-svm")
    model_options: dict = _says({}, "options of the network, such as stem small or weights DEFAULT")
    loss: str = _says("", "what is made small; the task's usual one where none is named")
    balance: str = _says("fixed", "multitask: losses added as they are, or with learned weights")
    label_smoothing: float = _says(0.0, "share of the target spread over all classes")
    class_weights: float = _says(0.0, "1: rare classes count as much as common ones; 0: faces count alike")
    augment: str = _says("v1", "v1: shift, flip, turn, zoom, light; v2: with erasing and perspective too")
    epochs: int = _says(10, "passes over the training faces")
    frozen_epochs: int = _says(0, "epochs before these, in which only the head learns")
    frozen_lr: float = _says(1e-3, "highest learning rate in those")
    batch_size: int = _says(128, "faces a step")
    lr: float = _says(1e-3, "highest learning rate")
    lr_decay: float = _says(1.0, "learning rate of each stage as a share of that of the stage after it")
    optimizer: str = _says("adamw", "what takes the steps")
    weight_decay: float = _says(0.01, "pull of the weights towards zero")
    momentum: float = _says(0.9, "of SGD and Muon")
    schedule: str = _says("one-cycle", "how the learning rate goes; step divides it by 10 at 50 and 75 %%")
    warmup: float = _says(0.2, "share of the training in which the learning rate rises")
    ema: float = _says(0.0, "decay a step of a running mean of the weights, which then is the result")
    patience: int = _says(0, "epochs without progress after which training ends; 0: never")
    monitor: str = _says("", "the validation score that picks the best epoch; the task's where none is named")
    grad_clip: float = _says(0.0, "largest norm of the gradient; 0: no limit")
    amp: bool = _says(True, "half precision, where the machine is faster with it")
    seed: int = _says(0, "of weights, order, augmentation and dropout")
    device: str = _says("auto", "where to compute")


@dataclass(frozen=True)
class _Flag:
    name: str
    kind: type
    default: Any
    text: str

    @property
    def flag(self) -> str:
        word = "--" + self.name.replace("_", "-")
        return word.removesuffix("s") if self.kind is dict else word


FLAGS = {
    each.name: _Flag(each.name, type(getattr(Settings(), each.name)), each.default, each.metadata["help"])
    for each in fields(Settings)
}


def declare(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; one that is not given leaves no trace among the parsed words.

    Args:
        parser: the command's own.
    """
    for name, flag in FLAGS.items():
        about: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": flag.text}
        if flag.kind is dict:
            about |= {"nargs": 2, "action": "append", "metavar": ("NAME", "VALUE")}
            parser.add_argument(flag.flag, **about)
        elif flag.kind is bool:
            parser.add_argument(flag.flag, action=argparse.BooleanOptionalAction, **about)
        else:
            usual = f" (default: {flag.default})" if flag.default != "" else ""
            words = "{" + ",".join(CHOICES[name]) + "}" if name in CHOICES else flag.kind.__name__.upper()
            about |= {"metavar": words, "help": flag.text + usual}
            parser.add_argument(flag.flag, **about)


def words() -> list[str]:
    """Return the flags as they are typed."""
    return [flag.flag for flag in FLAGS.values()]


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that the words name, of the right kind.

    Args:
        arguments: as :func:`declare` has them parsed.

    Raises:
        ValueError: a value of the wrong kind.
    """
    found = {name: getattr(arguments, name) for name in FLAGS if hasattr(arguments, name)}
    return {name: _from_words(name, value) for name, value in found.items()}


def _from_words(name: str, value: Any) -> Any:
    if FLAGS[name].kind is dict:
        return {key: literal(text) for key, text in value}
    return value if FLAGS[name].kind in (str, bool) else _like(name, literal(value), FLAGS[name].flag)


def literal(text: str) -> Any:
    """Return what a text stands for as Python reads it (a number, True, None, a tuple), else the text.

    Args:
        text: one word of the command line.
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def merged(*layers: Mapping[str, Any]) -> Settings:
    """Return the settings that several layers make, a later one over an earlier one, and check them.

    Args:
        layers: names to values; of options the single ones are replaced, not all of them.

    Raises:
        ValueError: a name, a kind of value or a word that does not exist; the message gives the nearest.
    """
    settings = Settings()
    for layer in layers:
        values = {name: _like(name, value, name) for name, value in _known(layer).items()}
        for name in ("options", "model_options"):
            if name in values:
                values[name] = {**getattr(settings, name), **values[name]}
        settings = replace(settings, **values)
    return _checked(settings)


def _known(layer: Mapping[str, Any]) -> dict[str, Any]:
    named = {str(name).replace("-", "_"): value for name, value in layer.items()}
    for name in named:
        if name not in FLAGS:
            raise ValueError(f"no setting {name!r}{did_you_mean(name, FLAGS)}; known: {', '.join(FLAGS)}")
    return named


def _like(name: str, value: Any, shown: str) -> Any:
    kind = FLAGS[name].kind
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and isinstance(value, int) and name == "merge":
        return str(value)  # YAML reads 4 as a number
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
        raise ValueError(f"{shown} is {words.get(kind, 'names with values')}, not {value!r}")
    return value


def _checked(settings: Settings) -> Settings:
    for name, known in CHOICES.items():
        _choose(name, getattr(settings, name), known)
    if settings.loss:
        _choose(f"loss for the task {settings.task}", settings.loss, LOSSES[settings.task])
    if settings.model == "hog-svm" and settings.task != "expression":
        raise ValueError(f"hog-svm learns expressions alone, not the task {settings.task}")
    if settings.frozen_epochs < 0 or settings.epochs < 1:
        raise ValueError("epochs must be at least 1 and frozen_epochs at least 0")
    return replace(settings, loss=settings.loss or LOSSES[settings.task][0])


def _choose(what: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise ValueError(f"unknown {what} {word!r}{did_you_mean(word, known)}; known: {', '.join(known)}")


def from_file(path: Path) -> dict[str, Any]:
    """Return what a YAML file sets.

    Args:
        path: the file: ``name: value`` lines, with the names of the flags.

    Raises:
        ValueError: the file cannot be read, or is no such list.
    """
    import yaml  # not before the set-up

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ValueError(f"{path}{place}: {problem}; write 'name: value' lines") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no 'name: value' lines")
    return found


def record(settings: Settings) -> dict[str, Any]:
    """Return the settings as plain types.

    Args:
        settings: the settings.
    """
    return asdict(settings)
