"""The command ``report``: what there is to say about some runs, as a page for the browser and as PDF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.cli.evaluate import SHORT, Device, Split, Views, named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helpers.cli.scoring import Predictions


def report(
    runs: list[Path],
    *,
    out: Path | None = None,
    pdf: bool = True,
    split: Split = "test",
    tta: Views = "none",
    data: str = "",
    root: str = "",
    options: dict[str, Any] | None = None,
    device: Device = "auto",
    resamples: int = 1000,
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
        tta: average over views: flip, or shift (18 of each image)
        data: the data set, where the runs do not say it
        root: where the data is, if not where it was
        options: an option of the data set
        device: where to compute
        resamples: bootstrap samples
    """
    import tempfile

    given = named(resamples, data, root, options)
    for run in runs:
        if runs.count(run) > 1:
            raise ValueError(f"{run} is named twice")
    from helpers import cli, files
    from helpers.cli import scoring

    every = [scoring.evaluated(run, split, tta, device, given, resamples=resamples) for run in runs]
    alike: dict[tuple, list[Predictions]] = {}
    for found, _ in every:
        alike.setdefault((found.classes, tuple(found.faces.source)), []).append(found)
    groups = [group for group in alike.values() if len(group) > 1]
    tests = [scoring.compared(group, "accuracy", resamples, "accuracy") for group in groups]
    out = out or runs[0].parent / "report"
    with tempfile.TemporaryDirectory() as folder:
        about = gathered(every, Path(folder))
        about["tests"] = [sentence for rows in tests for sentence in tested(rows)]
        about["commands"].append(f"python3 -m helpers report {' '.join(map(str, runs))}")
        for ending in ("html", "pdf")[: 1 + pdf]:
            path = out.with_name(f"{out.name}.{ending}")
            with files.replacing(path) as file:
                file.write(typeset(about, Path(folder), ending))
            print(f"Open {cli.short(path)}")
    return 0


def typeset(about: dict[str, Any], folder: Path, ending: str) -> bytes:
    """Return the report as "html" or "pdf"; its figures are in the folder."""
    import json
    import shutil

    try:
        import typst
    except ImportError:
        raise ImportError("typst is missing, which sets the report: pip install typst") from None
    (folder / "report.json").write_text(json.dumps(about), encoding="utf-8")
    source = shutil.copy(Path(__file__).with_suffix(".typ"), folder)
    return typst.compile(source, format=ending, sys_inputs={"format": ending})


def gathered(every: Sequence[tuple[Predictions, dict]], folder: Path) -> dict[str, Any]:
    """Return what the runs' folders say, as report.typ takes it; figures go into a folder."""
    import datetime

    records = [_read(found.folder / "config.json") for found, _ in every]
    sets = [_faces(found, record, folder) for (found, _), record in zip(every, records, strict=True)]
    machines = [record.get("machine", {}) for record in records]
    keys = dict.fromkeys(key for machine in machines for key in machine)
    cautions = [
        f"{found.name} was trained with --fast, on few images: its scores have no meaning."
        for (found, _), record in zip(every, records, strict=True)
        if record.get("fast")
    ]
    if every[0][0].split == "validation":
        cautions.append("Scores are on the validation images, which chose the epochs: they are too good.")
    names = ", ".join(found.name for found, _ in every)
    draw_scores(every, folder / "accuracy.png")
    return {
        "title": "How well do these networks read faces?",
        "opening": f"Trainings: {names}. Made on {datetime.date.today()}.",
        "headline": headline(every),
        "short": [name for name in SHORT if all(name in content["scores"] for _, content in every)],
        "sets": list(
            {each["text"]: each for each in sets}.values()
        ),  # once, however many runs learned from it
        "runs": [_run(*each, record, folder) for each, record in zip(every, records, strict=True)],
        "cautions": cautions,
        "machine": [[key, ", ".join({str(each.get(key, "-")): 0 for each in machines})] for key in keys],
        "commands": [record["command"] for record in records if "command" in record],
    }


def draw_scores(every: Sequence[tuple[Predictions, dict]], path: Path) -> None:
    """Draw the accuracy of each run between the majority class and the best possible, where it is known."""
    from helpers import metrics, plotting

    content, how = every[0][1], {"baseline": ["majority class"], "ceiling": []}
    rows = {found.name: numbers["scores"]["accuracy"] for found, numbers in every}
    rows["majority class"] = content["majority"]
    if "best_possible" in content:
        how["ceiling"], rows["best possible"] = ["best possible"], content["best_possible"]
    bounds = ("value", "low", "high")
    scores = {name: metrics.Interval(*(row[key] for key in bounds)) for name, row in rows.items()}
    label, size = f"accuracy on {every[0][0].split} images", (7.4, 1.2 + 0.4 * len(rows))
    path.write_bytes(plotting.png(lambda ax: plotting.scores(scores, label=label, ax=ax, **how), size))


def headline(every: Sequence[tuple[Predictions, dict]]) -> str:
    """Return which run is best, and whether it is clearly above the majority class."""
    found, content = max(every, key=lambda pair: pair[1]["scores"]["accuracy"]["value"])
    score, floor = content["scores"]["accuracy"], content["majority"]
    above = "clearly above" if score["low"] > floor["high"] else "not clearly above"
    share = f"{score['value']:.1%} of {content['faces']:,} {found.split} images of {found.faces.name}"
    what = f"{above} the {floor['value']:.1%} of always naming the majority class"
    return f"{found.name} predicts the labelled expression of {share}, {what}."


def tested(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return what McNemar's test says of the best run against each other one on the same images."""
    sentences = []
    for row in rows[1:]:
        chance, gap = row["mcnemar_holm"], -row["accuracy_to_best"]["value"]
        verdict = "hardly makes" if chance < 0.05 else "may well make"
        more = f"{abs(gap):.1%} {'more' if gap >= 0 else 'less'} of the images correctly than {row['run']}"
        test = f"McNemar's exact test, p = {chance:.2g} after Holm's correction"
        said = f"{rows[0]['run']} predicts {more}, a difference that chance alone {verdict} ({test})."
        sentences.append(said)
    return sentences


def errors(content: dict[str, Any]) -> str:
    """Return which class is found best and worst, and the commonest mistake."""
    import numpy as np

    table, classes = np.array(content["confusion"]), np.array(content["classes"])
    wrong, num = table - np.diag(table.diagonal()), table.sum(axis=1)
    if not wrong.any():
        return f"Every one of the {content['faces']:,} images was given its class."
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    recall, names = (table.diagonal() / np.maximum(num, 1))[num > 0], classes[num > 0]
    best, worst = recall.argmax(), recall.argmin()
    return (
        f"It finds {names[best]} best ({recall[best]:.0%} of its images) and {names[worst]} worst "
        f"({recall[worst]:.0%}). The commonest mistake: {classes[row]} taken for {classes[column]}, "
        f"{wrong[row, column]:,} of {num[row]:,} images."
    )


def audited(audit: dict[str, Any]) -> str:
    """Return what the audit counted of copies and of people in two splits."""
    pairs = [
        dict(zip(audit["duplicates"]["columns"], row, strict=True)) for row in audit["duplicates"]["data"]
    ]
    within = sum(pair["faces"] for pair in pairs if pair["split"] == pair["other"])
    across = [pair for pair in pairs if pair["split"] != pair["other"] and pair["faces"]]
    told = [f"{p['faces']:,} {p['split']} images are copies of one in {p['other']}." for p in across]
    told = [*(told or ["No image is in two splits."]), f"Within the splits {within:,} are copies."]
    people, column = audit["subjects"]["data"], audit["subjects"]["columns"].index("subjects")
    shared = sum(row[column] for row in people) // 2
    unknown = "Who is in an image is not known, so one person may be in two splits."
    told.append(f"{shared or 'No'} people are in two splits." if people else unknown)
    return " ".join(told)


def _read(path: Path) -> dict[str, Any]:
    import json

    try:
        return dict(json.loads(path.read_bytes())) if path.is_file() else {}
    except (ValueError, TypeError):
        raise ValueError(f"{path} is damaged; make it again") from None


def _faces(found: Predictions, record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what there is to say about a set of faces; the shares of its classes are drawn into a file."""
    import pandas as pd

    from helpers import plotting

    shape, audit = found.faces.images.shape, _read(found.folder / "audit.json")
    sizes = record.get("sizes", {found.split: len(found.faces)})
    parts = ", ".join(f"{number:,} {name}" for name, number in sizes.items())
    kind = "RGB" if len(shape) > 3 else "grey"
    about = {"text": f"{found.faces.name}: {parts} images; {kind}, {shape[-1]} pixels."}
    if audit:
        about["text"] += " " + audited(audit)
        counts = pd.DataFrame(**audit["balance"]).set_index("class").drop(columns="share", errors="ignore")
        about["balance"], size = f"balance-{found.name}.png", (7.2, 1 + 0.4 * len(counts))
        drawn = plotting.png(lambda ax: plotting.class_balance(counts / counts.sum(), ax), size)
        (folder / about["balance"]).write_bytes(drawn)
        about |= {"rejects": audit["rejects"]} if audit["rejects"]["data"] else {}
    return about


def _run(found: Predictions, content: dict[str, Any], record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what there is to say about one run: its evaluation, and how it was trained; copy its figures."""
    import shutil

    settings = {**record.get("config", {}), **record.get("settings", {})}
    ended, size = _read(found.folder / "finished.json"), record.get("num_parameters")
    model = settings.get("model") or record.get("model", {}).get("name", "network")
    learned = f", {size / 1e6:,.2f} million parameters" if size else ""
    epochs = f" {ended['epochs']} epochs, epoch {ended['best_epoch']} kept." if "best_epoch" in ended else ""
    copied = {}
    for path in sorted([found.folder / "curves.png", *(found.folder / found.split).glob("*.png")]):
        if path.is_file():
            copied[path.stem] = shutil.copy(path, folder / f"{len(list(folder.iterdir()))}-{path.name}").name
    return content | {
        "name": found.name,
        "model": f"{model}{learned}: {found.task}, {len(found.classes)} classes.{epochs}",
        "settings": [[key, str(value)] for key, value in settings.items() if value or key == "seed"],
        "files": copied,
        "errors": errors(content),
    }
