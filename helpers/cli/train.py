"""The commands ``train``, one training by flags, a file or a configuration, and ``reproduce``, a project."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from helpers import cli
from helpers.cli.settings import CONFIGURATIONS, Settings, from_file, merged

MAY_CHANGE = ("epochs", "patience", "amp", "compile", "device", "root")
"""Settings with which a training goes on."""
PROJECTS = {
    "muxspace": ("accuracy", "muxspace-hog-svm", "muxspace-cnn", "muxspace-resnet18"),
    "fer2013": ("accuracy", "fer2013-hog-svm", "fer2013-cnn", "fer2013-resnet18", "fer2013-efficientnet"),
    "4class": ("macro F1", "4class-hog-svm", "resnet18-4class"),
    "affectnet": ("mean score", "resnet50-e34", "efficientnet-e34", "resnet50-v2-e15", "resnet50-v2-e10"),
    "fused": ("KL", "fused-kl", "fused-js", "fused-emd", "fused-kl+emd", "fused-kl-efficientnet"),
}
"""Project to the score that it compares by, and its configurations."""


def train(
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
        given: the settings
    """
    if configs:
        for name, values in CONFIGURATIONS.items():
            print(f"{name:36}{'  '.join(f'{key}={value}' for key, value in values.items())}")
        return 0
    named = "configuration (a file ends in .yaml)"
    layers = [
        from_file(Path(word).expanduser())
        if word.endswith((".yaml", ".yml")) or "/" in word
        else CONFIGURATIONS[cli.choose(named, word, CONFIGURATIONS)]
        for word in config or []
    ]
    if out is not None and not layers and not anew and (out / "config.json").is_file():
        record = recorded(out)  # "train --out RUN --epochs 60": what is not named stays as it was
        layers, fast = [record.get("settings", {})], fast or bool(record.get("fast"))
    settings = merged(*layers, given)
    name = Path(config[-1]).stem if config else f"{settings.data}-{settings.model}-{settings.task}"
    folder = out or Path("runs") / (f"{name}-fast" if fast else name)
    begin = {} if start is None else {"start": start, "start_state": state}
    return _train(settings, folder, fast, anew, begin, (wandb, tag or [], online), json)


def _train(
    settings: Settings, folder: Path, fast: bool, anew: bool, begin: dict, wandb: tuple, json: bool
) -> int:
    import shlex
    import sys
    from dataclasses import asdict
    from json import dumps, loads

    from helpers import training
    from helpers.cli import experiment

    experiment.make_config(settings)  # refuses values outside their range before any data is read
    faces, left_out = experiment.load_faces(settings, fast)
    about = {"settings": loads(dumps(asdict(settings))), "fast": fast}
    about |= {"data": {name: training.digest(part) for name, part in faces.items()}}
    run = training.Run(folder, about, [training.WandB(folder, *wandb)] if wandb[0] else [])
    for each in (run, training.Run(folder / "head")) if anew else ():
        each.forget()
    if not anew:
        _refuse_another(folder, about)
    sizes = run.about["sizes"] = {name: len(part) for name, part in faces.items()}
    run.about["command"] = shlex.join(["python3", "-m", "helpers", *sys.argv[1:]])
    if not json:
        what = f"{settings.task}, {len(faces['train'].classes)} classes, {settings.loss}"
        print(f"{settings.model} on {settings.data}: {what}")
        images = ", ".join(f"{number:,} {name}" for name, number in sizes.items())
        print(f"{images} images of {settings.image_size} pixels; kept in {cli.short(folder)}")
        print(left_out, end="\n" if left_out else "")
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
        print(dumps({"run": folder.as_posix(), "stopped": stopped, "best": history and history.best}))
    elif not stopped:
        print(f"Next: python3 -m helpers evaluate {cli.short(folder)}")
    return 130 if stopped else 0


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
    both = [each.get("settings", {}) | {"fast": each.get("fast")} for each in (there, about)]
    before, now = ({name: each[name] for name in each if name not in MAY_CHANGE} for each in both)
    other = training.differences(before, now)
    other += [] if there.get("data") == about["data"] else ["the data changed"]
    if other:
        raise ValueError(
            f"another training is in {folder} ({'; '.join(other[:4])}); name another folder with --out, or "
            "replace it with --anew"
        )


def reproduce(
    project: Literal["muxspace", "fer2013", "4class", "affectnet", "fused"],
    *,
    root: Path = Path("data"),
    out: Path | None = None,
    fast: bool = False,
) -> int:
    """Do a whole project: baseline, networks, comparison, report, Grad-CAM figures.

    It calls train, evaluate, compare and report, and prints each command. The same command goes on where it
    was stopped.

      python3 -m helpers reproduce muxspace --fast     a rehearsal on drawn faces in the layout of that set
      python3 -m helpers reproduce muxspace            on the images in data/; hours without a GPU

    Args:
        project: which one
        root: the data folder
        out: where to keep it all (default: runs/ and the project's name)
        fast: one epoch with a few hundred drawn faces of 48 pixels, randomly initialised networks
    """
    import shlex

    score, *names = PROJECTS[project]
    folder, given = out or Path("runs") / (f"{project}-fast" if fast else project), []
    if fast:
        from helpers import datasets
        from helpers.cli import data

        root, given = folder / "data", ["--fast", "--image-size", "48", "--no-pretrained"]
        layout = CONFIGURATIONS[names[0]]["data"]
        if not data.there(layout, root):
            data.write(layout, datasets.load("synthetic", root, num_faces=512), root)
    runs = {name: str(folder / name) for name in names}
    given += ["--root", str(root)]
    steps = [["train", "--config", name, "--out", run, *given] for name, run in runs.items()]
    steps += [["evaluate", run] for run in runs.values()]
    steps.append(["compare", *runs.values(), "--score", score])
    steps.append(["report", *runs.values(), "--out", str(folder / "report")])
    for words in steps:
        print(f"\n$ python3 -m helpers {shlex.join(words)}", flush=True)
        status = cli.main(words)
        if status:
            return status
    print(f"\nAll of it is in {cli.short(folder)}.")
    return 0
