"""The commands ``evaluate`` and ``compare``: how good runs are, and where they go wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from helpers import cli
from helpers.cli import says

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from helpers.cli.scoring import Predictions

Split = Literal["validation", "test"]
Views = Literal["none", "flip", "shift"]
Device = Literal["auto", "cpu", "cuda", "mps"]
SHORT = ("accuracy", "macro F1", "log loss", "KL", "EMD", "CCC valence", "CCC arousal", "RMSE valence")
SHORT = (*SHORT, "RMSE arousal")
"""The scores that the terminal shows; the files have all."""
SHOWN = 12
"""Images in a figure of mistakes, or of heat maps."""


@dataclass(frozen=True)
class How:
    """Flags that both commands have."""

    tta: Views = says("none", "average over views: flip, or shift (18 of each image)")
    data: str = says("", "the data set, where a run does not say it")
    root: str = says("", "where the data is, if not where it was")
    options: dict[str, Any] = says(dict, "an option of the data set")
    device: Device = says("auto", "where to compute")
    resamples: int = says(1000, "bootstrap samples")
    json: bool = says(False, "print all numbers as JSON")


def named(resamples: int, data: str, root: str, options: dict[str, Any] | None) -> dict[str, Any]:
    """Return the settings that name the faces, where they are given; ValueError for too few samples."""
    if resamples < 10:
        raise ValueError(f"--resamples must be at least 10, not {resamples}")
    return {name: value for name, value in {"data": data, "root": root, "options": options}.items() if value}


def evaluate(run: Path, *, split: Split = "test", **flags: How) -> int:
    """Score a training, with intervals and figures.

    Every score with its 95 % interval (bootstrap over images, over people where they are known) and its
    floor: what is reached without looking; with and without images that are in training, too. RUN/test (or
    RUN/validation) gets metrics.csv with all scores, classification_report.txt, predictions.csv, errors.csv
    and figures.

      python3 -m helpers evaluate runs/fer2013-cnn                       on the test images
      python3 -m helpers evaluate runs/fer2013-cnn --split validation    while you still choose

    The test images are for the end: whoever chooses by them no longer knows how good the choice is.

    Args:
        run: a folder that a training left, or a weights file
        split: validation or test
        flags: of :class:`How`
    """
    from json import dumps

    how = How(**flags)
    given = named(how.resamples, how.data, how.root, how.options)
    from helpers.cli import scoring

    found, content = scoring.evaluated(run, split, how.tta, how.device, given, resamples=how.resamples)
    if how.json:
        print(dumps(content))
        return 0
    print(f"{cli.short(run)}: {content['faces']:,} {split} images\n")
    print(f"{'':20}{'score with interval':24}  floor")
    for name, score in content["scores"].items():
        if name in SHORT:
            print(f"{name:20}{shown(score):24}  {_number(score['floor'])}")
    if "best_possible" in content:
        print(f"{'best possible':20}{shown(content['best_possible'])}")
    if "without_leaked" in content:
        print(f"{'not in training too':20}{shown(content['without_leaked']['accuracy'])} (accuracy)")
    print("\n" + _by_class(content).round(3).to_string())
    print(f"\nAll scores and figures are in {cli.short(found.folder / split)}.")
    return 0


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

    from helpers import files, plotting
    from helpers.cli import scoring

    content, names = scoring.evaluate(found, resamples), np.array(found.classes)
    rows = {"source": found.faces.source, "label": names[found.labels], "predicted": names[found.predictions]}
    rows |= {"confidence": found.confidence}
    shares = {f"p_{name}": found.probabilities[:, k] for k, name in enumerate(found.classes)}
    others = {n: v[:, 0] for n, v in found.outputs.items() if n != "labels" and v.shape[1] == 1}
    tables = {
        "metrics": pd.DataFrame(content["scores"]).T.rename_axis("score").reset_index(),
        "per_class": _by_class(content).reset_index(),
        "predictions": pd.DataFrame(rows | shares | others),
        "errors": pd.DataFrame(rows).iloc[worst(found)],
    }
    if found.task == "distribution":
        each = {n: score(found.outputs, found.targets) for n, score in scoring.statistics(found).items()}
        each = {name: each[name] for name in each if name in scoring.OF_SHARES}
        tables["distribution_scores"] = pd.DataFrame({"source": found.faces.source} | each)
    texts = {f"{name}.csv": table.to_csv(index=False).encode() for name, table in tables.items()}
    how = {"labels": range(len(names)), "target_names": names, "digits": 3, "zero_division": 0}
    report = classification_report(found.labels, found.predictions, **how)
    texts |= {"classification_report.txt": report.encode()}
    images = {f"{name}.png": plotting.png(draw, size, 150) for name, size, draw in figures(found, content)}
    # evaluation.json last: by it the evaluation is taken for complete
    for name, text in (texts | images | {"evaluation.json": json.dumps(content, indent=1).encode()}).items():
        with files.replacing(found.folder / found.split / name) as file:
            file.write(text)
    return content


def worst(found: Predictions) -> Any:
    """Return the positions of the mistakes, the most confident first."""
    import numpy as np

    wrong = np.flatnonzero(found.predictions != found.labels)
    return wrong[np.argsort(-found.confidence[wrong], kind="stable")]


def figures(
    found: Predictions, content: dict[str, Any]
) -> Iterator[tuple[str, tuple[float, float], Callable[[Axes], object]]]:
    """Yield name, size in inches and plot of each figure of a run's predictions."""
    from functools import partial

    import numpy as np

    from helpers import metrics, plotting

    names, size, images = np.array(found.classes), len(found.classes), found.faces.images
    confusion = partial(plotting.confusion, np.array(content["confusion"]), found.classes)
    yield "confusion", (2.4 + 0.62 * size, 1.4 + 0.5 * size), confusion
    by_class = _by_class(content).drop(columns="support")
    yield "per_class", (6.4, 1.2 + 0.4 * size), partial(plotting.class_scores, by_class)
    there = {found.classes[k]: k for k in range(size) if 0 < (found.labels == k).sum() < len(found.labels)}
    on = {name: (found.labels == k, found.probabilities[:, k]) for name, k in there.items()}
    yield "roc", (6.4, 4.0), partial(plotting.roc, {name: metrics.roc(*on[name]) for name in on})
    curves = {name: metrics.precision_recall(*on[name]) for name in on}
    yield "pr", (6.4, 4.0), partial(plotting.precision_recall, curves)
    for column, name in enumerate(("valence", "arousal")):
        if name in found.outputs:
            both = found.targets["valence_arousal"][:, column], found.outputs[name][:, 0]
            yield name, (6.0, 4.4), partial(plotting.agreement, *both, found.labels, found.classes, name)
    if found.task == "distribution":
        some = np.linspace(0, len(found.labels) - 1, 6).astype(int)
        shares = found.targets["distribution"][some], found.probabilities[some]

        def beside(ax: Axes) -> None:
            for true, given, place in zip(*shares, panels(ax, 2, 3), strict=True):
                plotting.beside(true, {"predicted": given}, found.classes, place)

        yield "distributions", (14.0, 2.0 + 0.5 * size), beside
    wrong = worst(found)[:SHOWN]
    true, predicted = names[found.labels], names[found.predictions]
    if len(wrong):
        seen = images[wrong], true[wrong], predicted[wrong], found.confidence[wrong]
        yield "mistakes", _grid(len(wrong)), partial(plotting.mistakes, *seen, 6)
    if found.probable:
        right = np.flatnonzero(found.predictions == found.labels)
        some = np.unique(np.linspace(0, max(0, len(right) - 1), SHOWN // 2).astype(int))[: len(right)]
        chosen = np.concatenate([right[some], wrong[: SHOWN // 2]]).astype(int)
        seen = heat(found, chosen), true[chosen], predicted[chosen], found.confidence[chosen]
        yield "gradcam", _grid(len(chosen)), partial(plotting.mistakes, *seen, 6)


def panels(ax: Axes, rows: int, columns: int, **options: Any) -> list[Axes]:
    """Return axes in a grid that takes the place of ``ax``."""
    grid, figure = ax.get_subplotspec().subgridspec(rows, columns, **options), ax.figure
    ax.remove()
    return [figure.add_subplot(grid[place]) for place in range(rows * columns)]


def _grid(num: int) -> tuple[float, float]:
    return 1.4 * min(6, num), 1.4 * 1.48 * -(-num // 6)


def heat(found: Predictions, chosen: Any) -> Any:
    """Return some faces under Grad-CAM of their predicted class."""
    import numpy as np
    import torch

    from helpers import batches, gradcam, plotting, training

    model, images = training.Run.open(found.weights).model, np.asarray(found.faces.images[chosen])
    inputs = batches.normalise(torch.tensor(images if images.ndim == 4 else images[:, None]))
    head = "labels" if found.task == "multitask" else None
    maps = gradcam.grad_cam(model, gradcam.last_map(model), inputs, head=head)
    return plotting.heated(images, maps.cpu().numpy())


# ---------------------------------------------------------------- several runs


def compare(
    runs: list[Path],
    *,
    score: str = "accuracy",
    ensemble: bool = False,
    out: Path | None = None,
    split: Split = "validation",
    **flags: How,
) -> int:
    """Compare trainings on the same images, or average them.

    A table, and a figure of one score; model_comparison.csv holds all scores, the time of an epoch and the
    parameters. McNemar's exact test is of each run against the best one: the probability that two equally
    good networks differ this much in accuracy (in brackets: after Holm's correction for the number of runs).
    With --ensemble (python3 -m helpers ensemble RUN RUN) the mean of their probabilities is one more row.

      python3 -m helpers compare runs/fer2013-cnn runs/fer2013-resnet18
      python3 -m helpers compare runs/fused-* --score KL

    On the validation images, where choices belong; --split test for the end.

    Args:
        runs: folders that trainings left, or weights files; two or more
        score: what is plotted and sorted by, any score of the task
        ensemble: average the probabilities, too
        out: the figure; the table goes beside it (default: model_comparison.png beside the runs)
        split: validation or test
        flags: of :class:`How`
    """
    from json import dumps

    how = How(**flags)
    given = named(how.resamples, how.data, how.root, how.options)
    repeated = [run for run in runs if runs.count(run) > 1]
    if len(runs) < 2 or repeated:
        raise ValueError(f"{repeated[0]} is named twice" if repeated else "needs two runs or more, not 1")
    from helpers import metrics
    from helpers.cli import scoring

    found = scoring.predict_all(runs, split, how.tta, how.device, given)
    known = sorted(set.intersection(*(set(scoring.statistics(each)) for each in found)))
    score = cli.choose(f"score of the task {found[0].task}", score, known)
    content: dict[str, Any] = {"split": split, "tta": how.tta, "score": score}
    if ensemble:
        choosing = scoring.predict_all(runs, "validation", how.tta, how.device, given)
        right = [(each.predictions == each.labels).mean() for each in choosing]
        best, mean = found[right.index(max(right))], scoring.together(found)
        chance = metrics.mcnemar(mean.labels, mean.predictions, best.predictions)
        gain = scoring.plain(scoring.gain(mean, best, how.resamples))
        content |= {"best": best.name, "gain": gain, "mcnemar": chance}
        found.append(mean)
    content["runs"] = rows = scoring.compared(found, score, how.resamples)
    path = (out or runs[0].parent / "model_comparison").with_suffix(".png")
    _keep_comparison(rows, {each.name: each for each in found}, score, path)
    if how.json:
        print(dumps(content))
        return 0
    print(_as_text(rows, score))
    if ensemble:
        print(f"\nThe ensemble gains over {best.name}, in accuracy: {shown(gain)}, McNemar p = {chance:.3g}")
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


def _keep_comparison(rows: list[dict], found: dict[str, Predictions], score: str, path: Path) -> None:
    """Write the table of all scores, and beside it one score of all runs and the confusions of the best."""
    import numpy as np
    import pandas as pd

    from helpers import files, metrics, plotting, training

    table, scored, first = [], {}, next(iter(found.values()))
    for row in rows:
        numbers, each = {"run": row["run"]}, found[row["run"]]
        if each.probable and each.name != "ensemble":
            run = training.Run.open(each.weights)
            numbers |= {"parameters": run.record.get("num_parameters"), "epochs": len(run.history)}
            numbers["seconds_per_epoch"] = run.history.get("seconds", pd.Series(dtype=float)).median()
        for name, one in row["scores"].items():
            numbers |= {name: one["value"], f"{name} low": one["low"], f"{name} high": one["high"]}
        table.append(numbers | {"mcnemar": row.get("mcnemar"), "mcnemar_holm": row.get("mcnemar_holm")})
        bounds = (row["scores"][score][bound] for bound in ("value", "low", "high"))
        scored[row["run"]] = metrics.Interval(*(np.nan if bound is None else bound for bound in bounds))

    def draw(ax: Axes) -> None:
        upper, lower = panels(ax, 2, 1, height_ratios=[1.6 + 0.4 * len(rows), 4.8])
        plotting.scores(scored, label=f"{score} on {first.split} images", ax=upper)
        for row, place in zip(rows, panels(lower, 1, min(4, len(rows))), strict=False):
            each = found[row["run"]]
            counts = metrics.confusion(each.labels, each.predictions, len(each.classes))
            plotting.confusion(counts, each.classes, place).set_title(row["run"])

    figure = plotting.png(draw, (5.2 * min(4, len(rows)), 6.6 + 0.4 * len(rows)), 100)
    for name, content in (
        (path.with_suffix(".csv"), pd.DataFrame(table).to_csv(index=False)),
        (path, figure),
    ):
        with files.replacing(name) as file:
            file.write(content if isinstance(content, bytes) else content.encode())
