"""The command ``train``: one training, by flags, a file or the name of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers import cli, did_you_mean
from helpers.cli.settings import CONFIGURATIONS, Settings, from_file, merged


def train(  # noqa: D417 (the settings say what they are)
    *,
    config: list[str] | None = None,
    configs: bool = False,
    out: Path | None = None,
    fast: bool = False,
    anew: bool = False,
    start: Path | None = None,
    state: bool = True,
    wandb: str = "",
    tag: list[str] | None = None,
    online: bool = False,
    json: bool = False,
    **given: Settings,
) -> int:
    """Train a network and keep it in a folder.

    It holds the weights that did best on the validation images, the history, and all that is needed to make
    the network again. The test images are not looked at: "evaluate" does that, once, at the end.

      python3 -m helpers train --fast                          does it run at all? one epoch, few faces
      python3 -m helpers train --data fer2013 --model resnet18 --model-options stem small --epochs 20
      python3 -m helpers train --config resnet18-4class        a named configuration
      python3 -m helpers train --config mine.yaml --lr 3e-4    a file of "name: value" lines, one changed
      python3 -m helpers train --out RUN --epochs 60           a finished training goes on, to 60 epochs

    The same command goes on where a training was stopped (Ctrl-C) or killed; on a CPU the result is the same
    to the bit. A flag goes before the file, a file before what is usual.

    Exit status: 0 trained, 1 the loss is no number any more, 2 a mistake in the words, 130 stopped by Ctrl-C.

    Args:
        config: a named configuration or a YAML file; may be repeated
        configs: list the named configurations and end
        out: where to keep it (default: runs/ and a name)
        fast: one epoch with a few hundred faces, to see that it runs
        anew: train again what is in the folder
        start: a run or a weights file to start from: the weights that match are taken
        state: with --start, the optimiser's state, too
        wandb: tell this project of Weights & Biases, too (pip install wandb)
        tag: for W&B; may be repeated
        online: send to W&B now; otherwise it stays here until wandb sync
        json: print the best epoch as JSON
    """
    if configs:
        for name, values in CONFIGURATIONS.items():
            print(f"{name:36}{'  '.join(f'{key}={value}' for key, value in values.items())}")
        return 0
    layers = [_layer(word) for word in config or []]
    if out is not None and not layers and not anew and (out / "config.json").is_file():
        record = recorded(out)  # "train --out RUN --epochs 60": what is not named stays as it was
        layers, fast = [record.get("settings", {})], fast or bool(record.get("fast"))
    settings = merged(*layers, given)
    name = Path(config[-1]).stem if config else f"{settings.data}-{settings.model}-{settings.task}"
    folder = out or Path("runs") / (f"{name}-fast" if fast else name)
    begin = {} if start is None else {"start": start, "start_state": state}
    return _train(settings, folder, fast, anew, begin, (wandb, tag or [], online), json)


def _layer(word: str) -> dict[str, Any]:
    if word.endswith((".yaml", ".yml")) or "/" in word:
        return from_file(Path(word).expanduser())
    named = {cli.key(name): values for name, values in CONFIGURATIONS.items()}
    if cli.key(word) not in named:
        near = f"{did_you_mean(word, CONFIGURATIONS)}; known: {', '.join(CONFIGURATIONS)}"
        raise ValueError(f"no configuration {word!r}{near}; a file ends in .yaml")
    return named[cli.key(word)]


def _train(
    settings: Settings, folder: Path, fast: bool, anew: bool, begin: dict, wandb: tuple, json: bool
) -> int:
    import shlex
    import sys
    from dataclasses import asdict
    from json import dumps, loads

    from helpers import datasets, training
    from helpers.cli import experiment

    experiment.check(settings)
    whole = experiment.load_set(settings, fast)
    faces = experiment.split(settings, whole, fast)
    about = {"settings": loads(dumps(asdict(settings))), "fast": fast}
    about |= {"data": {name: training.digest(part) for name, part in faces.items()}}
    run = training.Run(folder, about, [training.WandB(folder, *wandb)] if wandb[0] else [])
    if anew:
        run.forget()
        training.Run(folder / "head").forget()
    else:
        _refuse_another(folder, about)
    run.about["sizes"] = {name: len(part) for name, part in faces.items()}
    run.about["command"] = shlex.join(["python3", "-m", "helpers", *sys.argv[1:]])
    if not json:
        _say_what(settings, folder, faces, datasets.left_out(whole))
    history = None
    if settings.model != "hog-svm":
        history = experiment.train(settings, faces, run, fast, progress=not json, **begin)
    elif run.finished and not anew:
        print("finished already")
    else:
        experiment.train_svm(settings, faces, run)
    experiment.keep_audit(faces, folder)
    stopped = history is not None and history.stopped
    if json:
        best = history.best if history else None
        print(dumps({"run": folder.as_posix(), "stopped": stopped, "best": best}))
    elif not stopped:
        print(f"Next: python3 -m helpers evaluate {cli.short(folder)}")
    return 130 if stopped else 0


def _say_what(settings: Settings, folder: Path, faces: dict[str, Any], left_out: str) -> None:
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in faces.items())
    classes = len(faces["train"].classes)
    print(f"{settings.model} on {settings.data}: {settings.task}, {classes} classes, {settings.loss}")
    print(f"{sizes} images of {settings.image_size} pixels; kept in {cli.short(folder)}")
    print(left_out, end="\n" if left_out else "")


MAY_CHANGE = ("epochs", "patience", "amp", "compile", "device", "root")
"""Settings with which a training goes on."""


def recorded(folder: Path) -> dict[str, Any]:
    """Return what a run's ``config.json`` says; {} where there is none."""
    from json import loads

    path = folder / "config.json"
    try:
        found = loads(path.read_bytes())
        if isinstance(found, dict) and isinstance(found.get("settings", {}), dict):
            return found
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        pass
    raise ValueError(f"{path} is damaged; train it again with --anew")


def _refuse_another(folder: Path, about: dict[str, Any]) -> None:
    """Refuse to replace another training without being asked to."""
    from helpers import training

    there = recorded(folder)
    if not there:
        return
    before, now = (
        {
            n: v
            for n, v in (each.get("settings", {}) | {"fast": each.get("fast")}).items()
            if n not in MAY_CHANGE
        }
        for each in (there, about)
    )
    other = training.differences(before, now)
    other += [] if there.get("data") == about["data"] else ["the data changed"]
    if other:
        raise ValueError(
            f"another training is in {folder} ({'; '.join(other[:4])}); name another folder with --out, or "
            "replace it with --anew"
        )
