"""The command ``report``: what there is to say about some runs, as a page and as PDF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers import cli
from helpers.cli import evaluate


def report(
    runs: list[Path],
    *,
    out: Path | None = None,
    pdf: bool = True,
    split: evaluate.Split = "test",
    tta: evaluate.Views = "none",
    data: str = "",
    root: str = "",
    options: dict[str, Any] | None = None,
    device: evaluate.Device = "auto",
    resamples: int = 1000,
) -> int:
    """Write a report on one training or several, as HTML in one file and as PDF.

    The images and what is wrong with them, the networks, curves, scores with intervals, confusions, mistakes,
    heat maps, the method, the machine, and the commands that do it again.

      python3 -m helpers report runs/fer2013-cnn runs/fer2013-resnet18 --out reports/fer2013

    Args:
        runs: folders that trainings left
        out: file without ending (default: report beside the runs)
        pdf: the PDF, too, which needs typst
        split: validation or test
        tta: average over views: flip, or shift (18 of each image)
        data: the data set, where the runs do not say it
        root: where the data is, if not where it was
        options: an option of the data set
        device: where to compute
        resamples: bootstrap samples
    """
    given = evaluate.named(resamples, data, root, options)
    for folder in runs:
        if runs.count(folder) > 1:
            raise ValueError(f"{folder} is named twice")
    from helpers import files
    from helpers import report as room
    from helpers.cli import scoring

    found = [scoring.evaluated(run, split, tta, device, given, resamples=resamples)[0] for run in runs]
    groups: dict[tuple, list] = {}
    for each in found:
        groups.setdefault((each.classes, tuple(each.faces.source)), []).append(each)
    alike = [group for group in groups.values() if len(group) > 1]
    shared = [scoring.compared(group, "accuracy", resamples, "accuracy") for group in alike]
    blocks = room.blocks_of([room.read(folder, split) for folder in runs], shared)
    out = out or runs[0].parent / "report"
    setters = {".html": lambda: room.as_html(blocks).encode(), ".pdf": lambda: room.as_pdf(blocks)}
    for ending, setter in setters.items():
        if ending != ".pdf" or pdf:
            with files.replacing(out.with_name(out.name + ending)) as file:
                file.write(setter())
            print(f"Open {cli.short(out.with_name(out.name + ending))}")
    return 0
