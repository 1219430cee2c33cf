"""The commands ``train``, one training by flags, a file or a configuration, and ``reproduce``, a project."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from json import dumps, loads
from pathlib import Path
from typing import Any

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
    named, layers = "configuration (a file ends in .yaml)", []
    for word in config or []:
        is_file = word.endswith((".yaml", ".yml")) or "/" in word
        known = {} if is_file else CONFIGURATIONS[cli.choose(named, word, CONFIGURATIONS)]
        layers.append(from_file(Path(word).expanduser()) if is_file else known)
    if out is not None and not layers and not anew:
        record = cli.recorded(out / "config.json")  # "train --out RUN --epochs 60": the rest stays as it was
        layers, fast = [record.get("settings", {})], fast or bool(record.get("fast"))
    settings = merged(*layers, given)
    name = Path(config[-1]).stem if config else f"{settings.data}-{settings.model}-{settings.task}"
    begin = {} if start is None else {"start": start, "start_state": state}
    folder, told = out or Path("runs") / (f"{name}-fast" if fast else name), (wandb, tag or [], online)
    return _train(settings, folder, told, begin, fast=fast, anew=anew, json=json)


def _train(settings: Settings, folder: Path, wandb: tuple, begin: dict, **flags: bool) -> int:
    from helpers import training
    from helpers.cli import experiment

    experiment.make_config(settings)  # refuses values outside their range before any data is read
    faces, left_out = experiment.load_faces(settings, flags["fast"])
    about = {"settings": loads(dumps(asdict(settings))), "fast": flags["fast"]}
    about |= {"data": {name: training.digest(part) for name, part in faces.items()}}
    sizes = {name: len(part) for name, part in faces.items()}
    command = shlex.join(["python3", "-m", "helpers", *sys.argv[1:]])
    trackers = [training.WandB(folder, *wandb)] if wandb[0] else []
    run = training.Run(folder, about | {"sizes": sizes, "command": command}, trackers)
    if flags["anew"]:
        run.forget()
        training.Run(folder / "head").forget()
    else:
        _refuse_another(folder, about)
    if not flags["json"]:
        what = f"{settings.task}, {len(faces['train'].classes)} classes, {settings.loss}"
        print(f"{settings.model} on {settings.data}: {what}")
        images = ", ".join(f"{number:,} {name}" for name, number in sizes.items())
        print(f"{images} images of {settings.image_size} pixels; kept in {cli.short(folder)}")
        print(left_out, end="\n" if left_out else "")
    history = None
    if settings.model != "hog-svm":
        history = experiment.train(settings, faces, run, flags["fast"], not flags["json"], **begin)
    elif run.finished:
        print("finished already")
    else:
        experiment.train_svm(settings, faces, run)
    experiment.keep_audit(faces, folder)
    stopped = history is not None and history.stopped
    if flags["json"]:
        print(dumps({"run": folder.as_posix(), "stopped": stopped, "best": history and history.best}))
    elif not stopped:
        print(f"Next: python3 -m helpers evaluate {cli.short(folder)}")
    return 130 if stopped else 0


def _refuse_another(folder: Path, about: dict[str, Any]) -> None:
    """Refuse to replace another training without being asked to."""
    from helpers import training

    if there := cli.recorded(folder / "config.json"):
        both = [{**each.get("settings", {}), "fast": each.get("fast")} for each in (there, about)]
        other = training.differences(*({n: v for n, v in one.items() if n not in MAY_CHANGE} for one in both))
        other += [] if there.get("data") == about["data"] else ["the data changed"]
        if other:
            raise ValueError(
                f"another training is in {folder} ({'; '.join(other[:4])}); name another folder with --out, "
                "or replace it with --anew"
            )


def reproduce(project: str, *, root: Path = Path("data"), out: Path | None = None, fast: bool = False) -> int:
    """Do a whole project: baseline, networks, comparison, report, Grad-CAM figures.

    It calls train, evaluate, compare and report, and prints each command. The same command goes on where it
    was stopped.

      python3 -m helpers reproduce muxspace --fast     a rehearsal on drawn faces in the layout of that set
      python3 -m helpers reproduce muxspace            on the images in data/; hours without a GPU

    Args:
        project: muxspace, fer2013, 4class, affectnet or fused
        root: the data folder
        out: where to keep it all (default: runs/ and the project's name)
        fast: one epoch with a few hundred drawn faces of 48 pixels, randomly initialised networks
    """
    project = cli.choose("project", project, PROJECTS)
    score, *names = PROJECTS[project]
    folder, given = out or Path("runs") / (f"{project}-fast" if fast else project), []
    if fast:
        from helpers.cli import data

        root, given = folder / "data", ["--fast", "--image-size", "48", "--no-pretrained"]
        layout = CONFIGURATIONS[names[0]]["data"]
        if not data.there(layout, root):
            data.write(layout, root, 512)
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
