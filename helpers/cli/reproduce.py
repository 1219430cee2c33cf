"""The command ``reproduce``: a whole student project, step by step, by the other commands."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

from helpers import cli
from helpers.cli.settings import CONFIGURATIONS

PROJECTS = {
    "muxspace": ("accuracy", "muxspace-hog-svm", "muxspace-cnn", "muxspace-resnet18"),
    "fer2013": ("accuracy", "fer2013-hog-svm", "fer2013-cnn", "fer2013-resnet18", "fer2013-efficientnet"),
    "4class": ("macro F1", "4class-hog-svm", "resnet18-4class"),
    "affectnet": ("mean score", "resnet50-e34", "efficientnet-e34", "resnet50-v2-e15", "resnet50-v2-e10"),
    "fused": ("KL", "fused-kl", "fused-js", "fused-emd", "fused-kl+emd", "fused-kl-efficientnet"),
}
"""Project to the score that it compares by, and its configurations."""


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
    score, *names = PROJECTS[project]
    folder = out or Path("runs") / (f"{project}-fast" if fast else project)
    given = ["--root", str(root)]
    if fast:
        from helpers import datasets
        from helpers.cli import data

        root = folder / "data"
        if not data.there(CONFIGURATIONS[names[0]]["data"], root):
            drawn = datasets.load("synthetic", root, num_faces=512)
            data.write(CONFIGURATIONS[names[0]]["data"], drawn, root)
        given = ["--root", str(root), "--fast", "--image-size", "48", "--no-pretrained"]
    runs = [str(folder / name) for name in names]
    steps = [["train", "--config", name, "--out", run, *given] for name, run in zip(names, runs, strict=True)]
    steps += [["evaluate", run] for run in runs]
    steps += [["compare", *runs, "--score", score], ["report", *runs, "--out", str(folder / "report")]]
    for words in steps:
        print(f"\n$ python3 -m helpers {shlex.join(words)}", flush=True)
        status = cli.main(words)
        if status:
            return status
    print(f"\nAll of it is in {cli.short(folder)}.")
    return 0
