"""The commands ``evaluate`` and ``compare``: how good runs are, and where they go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Any, Literal

from helpers import cli
from helpers.cli import says

Split = Literal["validation", "test"]
SHORT = ("accuracy", "macro F1", "log loss", "KL", "EMD", "CCC valence", "CCC arousal", "RMSE valence")
SHORT = (*SHORT, "RMSE arousal")
"""The scores that the terminal shows; the files have all."""


@dataclass(frozen=True)
class How:
    """Flags of whatever scores runs."""

    tta: Literal["none", "flip", "shift"] = says("none", "average over views: flip, or shift (18 an image)")
    data: str = says("", "the data set, where a run does not say it")
    root: str = says("", "where the data is, if not where it was")
    options: dict[str, Any] = says(dict, "an option of the data set")
    device: Literal["auto", "cpu", "cuda", "mps"] = says("auto", "where to compute")
    resamples: int = says(1000, "bootstrap samples")

    def __post_init__(self) -> None:
        if self.resamples < 10:
            raise ValueError(f"--resamples must be at least 10, not {self.resamples}")


def evaluate(run: Path, *, split: Split = "test", json: bool = False, **flags: How) -> int:
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
        json: print all numbers as JSON
        flags: of :class:`How`
    """
    how = How(**flags)
    import pandas as pd

    from helpers.cli import scoring

    found, content = scoring.evaluated(run, split, how)
    if json:
        print(dumps(content))
        return 0
    rows = {name: score for name, score in content["scores"].items() if name in SHORT}
    rows |= {"best possible accuracy": content["best_possible"]} if "best_possible" in content else {}
    if "without_leaked" in content:
        rows["accuracy, images not in training too"] = content["without_leaked"]["accuracy"]
    print(f"{cli.short(run)}: {content['faces']:,} {split} images; scores with 95 % interval, and floor\n")
    for table in (pd.DataFrame(rows).T.astype(float), found.by_class()):
        print(f"{table.round(3).to_string(na_rep='-')}\n")
    print(f"All scores and figures are in {cli.short(found.folder / split)}.")
    return 0


def compare(
    runs: list[Path],
    *,
    score: str = "accuracy",
    ensemble: bool = False,
    out: Path | None = None,
    split: Split = "validation",
    json: bool = False,
    **flags: How,
) -> int:
    """Compare trainings on the same images, or average them.

    A table, and a figure of one score; model_comparison.csv holds all scores, the time of an epoch and the
    parameters. McNemar's exact test is of each run against the best one: the probability that two equally
    good networks differ this much in accuracy (mcnemar_holm: corrected for the number of runs, after Holm).
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
        json: print all numbers as JSON
        flags: of :class:`How`
    """
    how = How(**flags)
    if len(runs) < 2 or len(set(runs)) < len(runs):
        raise ValueError(f"needs two runs or more, none named twice; not {', '.join(map(str, runs))}")
    from helpers.cli import scoring

    found = scoring.predict_all(runs, split, how)
    known = sorted(set.intersection(*(set(scoring.statistics(each)) for each in found)))
    score = cli.choose(f"score of the task {found[0].task}", score, known)
    content: dict[str, Any] = {"split": split, "tta": how.tta, "score": score}
    if ensemble:
        choosing = scoring.predict_all(runs, "validation", how)
        mean, gained = scoring.together(found, choosing, how.resamples)
        content |= gained
        found.append(mean)
    every = [scoring.scores(each, how.resamples) for each in found]
    content["runs"] = rows = scoring.compared(found, every, score, how.resamples)
    path = (out or runs[0].parent / "model_comparison").with_suffix(".png")
    table = scoring.keep_comparison(rows, score, f"{score} on {split} images", path)
    if json:
        print(dumps(content))
        return 0
    short = dict.fromkeys((score, *SHORT, "accuracy_to_best"))
    columns = [f"{name}{bound}" for name in short for bound in ("", " low", " high")]
    shown = table[[name for name in (*columns, "mcnemar", "mcnemar_holm") if name in table]].T
    print(shown.to_string(float_format="{:.3g}".format, na_rep=""))
    if ensemble:
        told = f"{scoring.interval(gained['gain'])}, McNemar p = {gained['mcnemar']:.3g}"
        print(f"\nThe ensemble gains over {gained['best']}, in accuracy: {told}")
    print(f"\nAll scores are in {cli.short(path.with_suffix('.csv'))}, the figure is {cli.short(path)}")
    return 0
