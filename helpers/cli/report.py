"""The command ``report``: what there is to say about some runs, as a page for the browser and as PDF."""

from __future__ import annotations

import datetime
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import cli
from helpers.cli.evaluate import SHORT, How, Split

if TYPE_CHECKING:
    from helpers.cli.scoring import Predictions


def report(
    runs: list[Path], *, out: Path | None = None, pdf: bool = True, split: Split = "test", **flags: How
) -> int:
    """Write a report on one training or several, as HTML in one file and as PDF.

    The faces and what is wrong with them, the networks, curves, all scores with interval and floor,
    confusions, mistakes, heat maps, the method, the machine, and the commands that do it again. A run that
    was not evaluated yet is evaluated first.

      python3 -m helpers report runs/fer2013-cnn runs/fer2013-resnet18 --out reports/fer2013

    Args:
        runs: folders that trainings left, or weights files
        out: file without ending (default: report beside the runs)
        pdf: write the PDF, too
        split: validation or test
        flags: of :class:`How`
    """
    how = How(**flags)
    if len(set(runs)) < len(runs):
        raise ValueError(f"a run is named twice: {', '.join(map(str, runs))}")
    from helpers import files
    from helpers.cli import scoring

    every, out = [scoring.evaluated(run, split, how) for run in runs], out or runs[0].parent / "report"
    with tempfile.TemporaryDirectory() as folder:
        about = gathered(every, Path(folder), how.resamples)
        about["commands"].append(f"python3 -m helpers report {' '.join(map(str, runs))}")
        for ending in ("html", "pdf")[: 1 + pdf]:
            path = out.with_name(f"{out.name}.{ending}")
            files.write(path, typeset(about, Path(folder), ending))
            print(f"Open {cli.short(path)}")
    return 0


def typeset(about: dict[str, Any], folder: Path, ending: str) -> bytes:
    """Return the report as "html" or "pdf"; its figures are in the folder."""
    try:
        import typst
    except ImportError:
        raise ImportError("typst is missing, which sets the report: pip install typst") from None
    (folder / "report.json").write_text(json.dumps(about), encoding="utf-8")
    source = shutil.copy(Path(__file__).with_suffix(".typ"), folder)
    return typst.compile(source, format=ending, sys_inputs={"format": ending})


def gathered(every: list[tuple[Predictions, dict]], folder: Path, resamples: int) -> dict[str, Any]:
    """Return what the runs' folders say, as report.typ takes it; figures go into a folder."""
    from helpers.cli import scoring

    alike: dict[tuple, list] = {}  # runs on the same images are tested against the best of them
    for each in every:
        alike.setdefault((each[0].classes, tuple(each[0].faces.source)), []).append(each)
    tests = []
    for found, contents in (zip(*group, strict=True) for group in alike.values()):
        scores = [content["scores"] for content in contents]
        best, *others = scoring.compared(list(found), scores, "accuracy", resamples)
        for row in others:
            gap, chances = scoring.interval(row["accuracy_to_best"]), (row["mcnemar"], row["mcnemar_holm"])
            tests.append([row["run"], best["run"], str(gap), *(f"{p:.2g}" for p in chances)])
    content, names = every[0][1], [found.name for found, _ in every]
    rows = dict(zip(names, (numbers["scores"]["accuracy"] for _, numbers in every), strict=True))
    rows |= {"majority class": content["majority"], "best possible": content.get("best_possible")}
    seen = {name: scoring.interval(row) for name, row in rows.items() if row}
    best = [name for name in seen if name == "best possible"]
    drawn = scoring.drawn(seen, f"accuracy on {content['split']} images", ["majority class"], best)
    (folder / "accuracy.png").write_bytes(drawn)
    return {
        "opening": f"Trainings: {', '.join(names)}. Made on {datetime.date.today()}.",
        "headline": headline(every),
        "short": [name for name in SHORT if all(name in numbers["scores"] for _, numbers in every)],
        "tests": tests,
        "runs": [_run(*each, folder) for each in every],
        "fast": [found.name for found, _ in every if found.record.get("fast")],
        "commands": [found.record["command"] for found, _ in every if "command" in found.record],
    }


def headline(every: list[tuple[Predictions, dict]]) -> str:
    """Return which run is best, and whether it is clearly above the majority class."""
    found, content = max(every, key=lambda pair: pair[1]["scores"]["accuracy"]["value"])
    score, floor = content["scores"]["accuracy"], content["majority"]
    above = "clearly above" if score["low"] > floor["high"] else "not clearly above"
    share = f"{score['value']:.1%} of {content['faces']:,} {found.split} images of {found.faces.name}"
    what = f"{above} the {floor['value']:.1%} of always naming the majority class"
    return f"{found.name} predicts the labelled expression of {share}, {what}."


def _run(found: Predictions, content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what there is to say about one run: faces, settings, evaluation; its figures are copied."""
    import numpy as np

    record, shape, copied = found.record, found.faces.images.shape, {}
    audit, ended = (cli.recorded(found.folder / f"{name}.json") for name in ("audit", "finished"))
    settings = record.get("config", {}) | record.get("settings", {})
    sizes = record.get("sizes", {found.split: len(found.faces)})
    parts = ", ".join(f"{num:,} {name}" for name, num in sizes.items())
    kind = "RGB" if len(shape) > 3 else "grey"
    about = [f"{found.faces.name}: {parts} images; {kind}, {shape[-1]} pixels."]
    model = settings.get("model") or record["model"].get("name", "network")
    size = f", {record['num_parameters']:,} parameters" if "num_parameters" in record else ""
    about.append(f"{model}{size}: {found.task}, {len(found.classes)} classes.")
    if "best_epoch" in ended:
        about.append(f"{ended['epochs']} epochs, epoch {ended['best_epoch']} kept.")
    wrong = np.array(content["confusion"])
    num = wrong.sum(axis=1)
    np.fill_diagonal(wrong, 0)
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    taken = f"{found.classes[row]} taken for {found.classes[column]}, {wrong[row, column]:,} of {num[row]:,}"
    for path in [found.folder / "curves.png", *(found.folder / found.split).glob("*.png")]:
        if path.is_file():
            copied[path.stem] = shutil.copy(path, folder / f"{len(list(folder.iterdir()))}-{path.name}").name
    return content | {
        "name": found.name,
        "about": " ".join(about),
        "errors": f"The commonest mistake: {taken} images." if wrong.any() else "There is no mistake.",
        "settings": [[key, str(value)] for key, value in settings.items() if value or key == "seed"],
        "machine": ", ".join(f"{key} {value}" for key, value in record.get("machine", {}).items()),
        "audit": {name: table for name, table in audit.items() if table["data"]},
        "files": copied,
    }
