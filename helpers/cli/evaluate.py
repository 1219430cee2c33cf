"""The commands ``evaluate`` and ``compare``: how good runs are, and where they go wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from helpers import cli

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from helpers.cli.scoring import Predictions

Split = Literal["validation", "test"]
Views = Literal["none", "flip", "shift"]
Device = Literal["auto", "cpu", "cuda", "mps"]
SHORT = (
    "accuracy",
    "macro F1",
    "log loss",
    "KL",
    "EMD",
    "CCC valence",
    "CCC arousal",
    "RMSE valence",
    "RMSE arousal",
)
"""The scores that the terminal shows; the files have all."""
SHOWN = 12
"""Images in a figure of mistakes, or of heat maps."""


def evaluate(
    run: Path,
    *,
    split: Split = "test",
    tta: Views = "none",
    data: str = "",
    root: str = "",
    options: dict[str, Any] | None = None,
    device: Device = "auto",
    resamples: int = 1000,
    json: bool = False,
) -> int:
    """Score a training, with intervals and figures.

    Every score with its 95 % interval (bootstrap over images, over people where they are known) and its
    floor: what is reached without looking. By class; with and without the images that are in training, too.
    The folder RUN/test (or RUN/validation) gets metrics.csv with all scores, classification_report.txt,
    predictions.csv, errors.csv and figures.

      python3 -m helpers evaluate runs/fer2013-cnn                       on the test images
      python3 -m helpers evaluate runs/fer2013-cnn --split validation    while you still choose

    The test images are for the end: whoever chooses by them no longer knows how good the choice is.

    Args:
        run: a folder that a training left, or a weights file
        split: validation or test
        tta: average over views: flip, or shift (18 of each image)
        data: the data set, where the run does not say it
        root: where the data is, if not where it was
        options: an option of the data set
        device: where to compute
        resamples: bootstrap samples
        json: print all numbers as JSON
    """
    from json import dumps

    given = named(resamples, data, root, options)
    from helpers.cli import scoring

    found, content = scoring.evaluated(run, split, tta, device, given, resamples=resamples)
    if json:
        print(dumps(content))
        return 0
    print(f"{cli.short(run)}: {content['faces']:,} {split} images\n")
    print(f"{'':20}{'score with interval':24}  floor")
    for name in SHORT:
        if name in content["scores"]:
            score = content["scores"][name]
            print(f"{name:20}{shown(score):24}  {_number(score['floor'])}")
    if "best_possible" in content:
        print(f"{'best possible':20}{shown(content['best_possible'])}")
    if "without_leaked" in content:
        accuracy = shown(content["without_leaked"]["accuracy"])
        print(f"\nwithout the {content['leaked']:,} images that are in training, too: accuracy {accuracy}")
    print("\n" + _by_class(content).round(3).to_string())
    print(f"\nAll scores and figures are in {cli.short(found.folder / split)}.")
    return 0


def named(resamples: int, data: str, root: str, options: dict[str, Any] | None) -> dict[str, Any]:
    """Return the settings that name the faces, where they are given; ValueError for too few samples."""
    if resamples < 10:
        raise ValueError(f"--resamples must be at least 10, not {resamples}")
    return {name: value for name, value in {"data": data, "root": root, "options": options}.items() if value}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def shown(score: dict) -> str:
    """Return a score with its interval, as "0.652 [0.636, 0.667]"."""
    return f"{_number(score['value'])} [{_number(score['low'])}, {_number(score['high'])}]"


def _by_class(content: dict) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(content["per_class"], index=pd.Index(content["classes"], name="class"))


# ---------------------------------------------------------------- what it leaves


def keep(found: Predictions, resamples: int = 1000) -> dict[str, Any]:
    """Score some predictions, write tables and figures into ``RUN/<split>/``, and return the numbers."""
    import json

    import numpy as np
    import pandas as pd
    from sklearn.metrics import classification_report

    from helpers import files
    from helpers.cli import scoring

    content, folder, names = (
        scoring.evaluate(found, resamples),
        found.folder / found.split,
        np.array(found.classes),
    )
    rows = {"source": found.faces.source, "label": names[found.labels], "predicted": names[found.predictions]}
    rows |= {"confidence": found.confidence}
    shares = {f"p_{name}": found.probabilities[:, k] for k, name in enumerate(found.classes)}
    others = {n: v[:, 0] for n, v in found.outputs.items() if n != "labels" and v.shape[1] == 1}
    wrong = worst(found)
    how = {"labels": range(len(names)), "target_names": names, "digits": 3, "zero_division": 0}
    report = classification_report(found.labels, found.predictions, **how)
    tables = {
        "metrics": pd.DataFrame(content["scores"]).T.rename_axis("score").reset_index(),
        "per_class": _by_class(content).reset_index(),
        "predictions": pd.DataFrame(rows | shares | others),
        "errors": pd.DataFrame(rows).iloc[wrong],
    }
    if found.task == "distribution":
        each = {n: score(found.outputs, found.targets) for n, score in scoring.statistics(found).items()}
        each = {name: values for name, values in each.items() if np.ndim(values) and name != "accuracy"}
        tables["distribution_scores"] = pd.DataFrame({"source": found.faces.source} | each)
    texts = {f"{name}.csv": table.to_csv(index=False) for name, table in tables.items()}
    texts |= {"classification_report.txt": report, "evaluation.json": json.dumps(content, indent=1)}
    draw(found, content)
    for name, text in texts.items():  # evaluation.json last: by it the evaluation is taken for complete
        with files.replacing(folder / name) as file:
            file.write(text.encode())
    return content


def worst(found: Predictions) -> Any:
    """Return the positions of the mistakes, the most confident first."""
    import numpy as np

    wrong = np.flatnonzero(found.predictions != found.labels)
    return wrong[np.argsort(-found.confidence[wrong], kind="stable")]


def draw(found: Predictions, content: dict[str, Any]) -> None:
    """Draw what a run predicts, into ``RUN/<split>/``."""
    import numpy as np

    from helpers import metrics, plotting

    names, size, images = np.array(found.classes), len(found.classes), found.faces.images
    wide = (2.4 + 0.62 * size, 1.4 + 0.5 * size)
    table = np.array(content["confusion"])
    _write(found, "confusion", wide, lambda ax: plotting.confusion(table, found.classes, ax))
    by_class = _by_class(content).drop(columns="support")
    _write(found, "per_class", (6.4, 1.2 + 0.4 * size), lambda ax: plotting.class_scores(by_class, ax))
    there = [k for k in range(size) if 0 < (found.labels == k).sum() < len(found.labels)]
    for name, curve, plot in (
        ("roc", metrics.roc, plotting.roc),
        ("pr", metrics.precision_recall, plotting.precision_recall),
    ):
        curves = {found.classes[k]: curve(found.labels == k, found.probabilities[:, k]) for k in there}
        _write(found, name, (6.4, 4.0), lambda ax, curves=curves, plot=plot: plot(curves, ax))
    for column, name in enumerate(("valence", "arousal")):
        if name in found.outputs:
            both = found.targets["valence_arousal"][:, column], found.outputs[name][:, 0]
            about = (found.labels, found.classes, name)
            _write(
                found,
                name,
                (6.0, 4.4),
                lambda ax, both=both, about=about: plotting.agreement(*both, *about, ax),
            )
    _draw_faces(found, names, images)
    if found.task == "distribution":
        some = np.linspace(0, len(found.labels) - 1, 6).astype(int)
        true, shares = found.targets["distribution"], found.probabilities
        plots = [
            lambda ax, i=i: plotting.beside(true[i], {"predicted": shares[i]}, found.classes, ax)
            for i in some
        ]
        _write(found, "distributions", (14.0, 2.0 + 0.5 * size), *plots)


def _draw_faces(found: Predictions, names: Any, images: Any) -> None:
    """Draw the most confident mistakes, and where the network looked in right and wrong predictions."""
    import numpy as np

    from helpers import plotting

    wrong = worst(found)[:SHOWN]
    if len(wrong):
        words = names[found.labels[wrong]], names[found.predictions[wrong]], found.confidence[wrong]
        _write(
            found, "mistakes", _grid(len(wrong)), lambda ax: plotting.mistakes(images[wrong], *words, ax=ax)
        )
    if found.probable:
        right = np.flatnonzero(found.predictions == found.labels)
        some = np.unique(np.linspace(0, max(0, len(right) - 1), SHOWN // 2).astype(int))[: len(right)]
        chosen = np.concatenate([right[some], wrong[: SHOWN // 2]]).astype(int)
        words = names[found.labels[chosen]], names[found.predictions[chosen]], found.confidence[chosen]
        hot = heat(found, chosen)
        _write(found, "gradcam", _grid(len(chosen)), lambda ax: plotting.mistakes(hot, *words, ax=ax))


def heat(found: Predictions, chosen: Any) -> Any:
    """Return some faces under Grad-CAM of their predicted class."""
    import numpy as np
    import torch

    from helpers import batches, gradcam, plotting, training

    model, images = training.Run.open(found.weights).model, np.asarray(found.faces.images[chosen])
    shown = torch.tensor(images)
    inputs = batches.normalise(shown if shown.ndim == 4 else shown[:, None])
    head = "labels" if found.task == "multitask" else None
    maps = gradcam.grad_cam(model, gradcam.last_map(model), inputs, head=head)
    return plotting.heated(images, maps.cpu().numpy())


def _grid(num: int) -> tuple[float, float]:
    columns = min(6, num)
    return 1.4 * columns, 1.4 * 1.48 * -(-num // columns)


def _write(
    found: Predictions, name: str, size: tuple[float, float], *plots: Callable[[Axes], object]
) -> None:
    """Write ``RUN/<split>/<name>.png``: one plot, or several in two rows."""
    from matplotlib.figure import Figure

    from helpers import files, plotting

    with plotting.styled(), files.replacing(found.folder / found.split / f"{name}.png") as file:
        figure = Figure(figsize=size, layout="constrained")
        rows = 1 if len(plots) == 1 else 2
        for plot, ax in zip(
            plots, figure.subplots(rows, len(plots) // rows, squeeze=False).flat, strict=True
        ):
            plot(ax)
        figure.savefig(file, format="png", bbox_inches="tight", dpi=150)


# ---------------------------------------------------------------- several runs


def compare(
    runs: list[Path],
    *,
    score: str = "accuracy",
    ensemble: bool = False,
    out: Path | None = None,
    split: Split = "validation",
    tta: Views = "none",
    data: str = "",
    root: str = "",
    options: dict[str, Any] | None = None,
    device: Device = "auto",
    resamples: int = 1000,
    json: bool = False,
) -> int:
    """Compare trainings on the same images, or average them.

    A table, and a figure of one score with its intervals; model_comparison.csv holds all scores, the time of
    an epoch and the parameters. The last columns are McNemar's exact test of each run against the best one:
    the probability that two equally good networks differ this much in accuracy, before and after Holm's
    correction for the number of runs. With --ensemble (python3 -m helpers ensemble RUN RUN) the mean of their
    probabilities is one more row, and what it gains over the run that is best on the validation images.

      python3 -m helpers compare runs/fer2013-cnn runs/fer2013-resnet18
      python3 -m helpers compare runs/fused-* --score KL

    On the validation images, where choices belong; --split test for the end.

    Args:
        runs: folders that trainings left, or weights files; two or more
        score: what is plotted and sorted by, any score of the task
        ensemble: average the probabilities, too
        out: the figure; the table goes beside it (default: model_comparison.png beside the runs)
        split: validation or test
        tta: average over views: flip, or shift (18 of each image)
        data: the data set, where the runs do not say it
        root: where the data is, if not where it was
        options: an option of the data set
        device: where to compute
        resamples: bootstrap samples
        json: print all numbers as JSON
    """
    from json import dumps

    given = named(resamples, data, root, options)
    repeated = [run for run in runs if runs.count(run) > 1]
    if len(runs) < 2 or repeated:
        raise ValueError(f"{repeated[0]} is named twice" if repeated else "needs two runs or more, not 1")
    from helpers.cli import scoring

    found = scoring.predict_all(runs, split, tta, device, given)
    score = scoring.shared_score(found, score)
    content: dict[str, Any] = {"split": split, "tta": tta, "score": score}
    if ensemble:
        choosing = scoring.predict_all(runs, "validation", tta, device, given)
        content |= scoring.ensemble_gain(found, choosing, resamples)
        found.append(scoring.together(found))
    content["runs"] = rows = scoring.compared(found, score, resamples)
    path = (out or runs[0].parent / "model_comparison").with_suffix(".png")
    _comparison(rows, found, score, path)
    if json:
        print(dumps(content))
        return 0
    print(_as_text(rows, score))
    if ensemble:
        gained = f"{shown(content['gain'])}, McNemar p = {content['mcnemar']:.3g}"
        print(f"\nThe ensemble gains in accuracy over {content['best']}: {gained}")
    print(f"\nAll scores are in {cli.short(path.with_suffix('.csv'))}, the figure is {cli.short(path)}")
    return 0


def _as_text(rows: list[dict], score: str) -> str:
    import pandas as pd

    short = [score, *(name for name in SHORT if name != score and name in rows[0]["scores"])][:4]
    table = [
        {name: shown(row["scores"][name]) for name in short}
        | {"accuracy to the best": shown(row["accuracy_to_best"]) if "mcnemar" in row else ""}
        | {"McNemar": f"{row['mcnemar']:.3g} ({row['mcnemar_holm']:.3g})" if "mcnemar" in row else ""}
        for row in rows
    ]
    return pd.DataFrame(table, index=[row["run"] for row in rows]).to_string()


def _comparison(rows: list[dict], found: list[Predictions], score: str, path: Path) -> None:
    """Write the table of all scores, and beside it one score of all runs and the confusion of the first."""
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

    from helpers import files, metrics, plotting, training

    by_name, table = {each.name: each for each in found}, []
    for row in rows:
        numbers = {"run": row["run"]}
        if by_name[row["run"]].probable and row["run"] != "ensemble":
            run = training.Run.open(by_name[row["run"]].weights)
            numbers |= {"parameters": run.record.get("num_parameters"), "epochs": len(run.history)}
            numbers |= {
                "seconds_per_epoch": run.history["seconds"].median() if "seconds" in run.history else np.nan
            }
        for name, each in row["scores"].items():
            numbers |= {name: each["value"], f"{name} low": each["low"], f"{name} high": each["high"]}
        table.append(numbers | {"mcnemar": row.get("mcnemar"), "mcnemar_holm": row.get("mcnemar_holm")})
    with files.replacing(path.with_suffix(".csv")) as file:
        file.write(pd.DataFrame(table).to_csv(index=False).encode())
    shown_rows, parts = rows[:4], ("value", "low", "high")
    scored = {row["run"]: metrics.Interval(*(_nan(row["scores"][score][n]) for n in parts)) for row in rows}
    with plotting.styled(), files.replacing(path) as file:
        figure = Figure(figsize=(5.2 * max(2, len(shown_rows)), 6.6 + 0.4 * len(rows)), layout="constrained")
        upper, lower = figure.subfigures(2, 1, height_ratios=[1.6 + 0.4 * len(rows), 4.8])
        plotting.scores(scored, label=f"{score} on {found[0].split} images", ax=upper.subplots())
        for ax, row in zip(lower.subplots(1, len(shown_rows), squeeze=False)[0], shown_rows, strict=True):
            each = by_name[row["run"]]
            counts = metrics.confusion(each.labels, each.predictions, len(each.classes))
            plotting.confusion(counts, each.classes, ax).set_title(row["run"])
        figure.savefig(file, format="png", bbox_inches="tight", dpi=100)


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value
