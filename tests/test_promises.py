"""What five student projects promise, a row each: a command or call, and the file or score that it leaves.

All on drawn faces in the layouts of the real sets; networks as small as they come.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import cli, datasets, losses, metrics, models, training
from helpers.cli import data

TINY = ["--model", "face-cnn", "--model-option", "widths", "(4,8)", "--model-option", "head_width", "8"]
TINY += ["--image-size", "48", "--epochs", "2", "--frozen-epochs", "0", "--batch-size", "16"]
TINY += ["--dropout", "0.1", "--no-pretrained", "--device", "cpu", "--no-amp"]
FEW = ["--resamples", "20"]
PLATEAU = ["--schedule", "ReduceLROnPlateau", "--plateau-patience", "1"]
TRAININGS = {
    "hog": ["--config", "muxspace-hog-svm"],
    "muxspace": ["--config", "muxspace-cnn", *TINY, *PLATEAU],
    "fer2013": ["--config", "fer2013-cnn", *TINY, "--early_stopping", "5", "--grad_clip", "1", "--ema", ".9"],
    "again": ["--config", "fer2013-cnn", *TINY, "--seed", "1"],
    "four": ["--config", "resnet18-4class", *TINY, "--step-size", "1", "--gamma", "0.5"],
    "affectnet": ["--config", "resnet50-e34", *TINY, "--balance", "learned", "--optimizer", "AdamW"],
    "fused": ["--config", "fused-kl+emd", *TINY, "--learning_rate", "1e-3"],
}


def do(*words: object) -> None:
    assert cli.main([*map(str, words)]) == 0


@pytest.fixture(scope="module")
def top(tmp_path_factory) -> Path:
    """A folder with a small training of each project, evaluated, compared and reported."""
    top = tmp_path_factory.mktemp("projects")
    for name in ("fer2013", "muxspace", "affectnet_fused"):  # and AffectNet with it
        data.write(name, top, 90, balance="uniform", faces_per_person=2)
    for name, words in TRAININGS.items():
        do("train", "--root", top, "--out", top / name, *words)
        do("evaluate", top / name, *FEW)
    two = [top / "fer2013", top / "again"]
    do("compare", *two, "--score", "weighted F1", *FEW)
    do("ensemble", *two, "--tta", "flip", "--out", top / "mean.png", *FEW)
    do("report", *two, "--out", top / "report", *FEW)
    image = next(path for path in (top / "muxspace").rglob("*.*") if path.suffix in (".jpg", ".png"))
    do("predict", image, "--whole", "--run", top / "fer2013", "--annotate", top / "seen")
    return top


ALWAYS = ("evaluation.json", "metrics.csv", "per_class.csv", "classification_report.txt", "predictions.csv")
ALWAYS += ("errors.csv", "confusion.png", "per_class.png", "roc.png", "pr.png", "mistakes.png")
KEPT = ("config.json", "history.csv", "best.safetensors", "finished.json", "curves.png", "audit.json")
KEPT += ("tensorboard", "confusion.png", "test/gradcam.png")
ONCE = ["hog/svm.npz", "affectnet/test/valence.png", "affectnet/test/arousal.png", "seen"]
ONCE += ["fused/test/distributions.png", "fused/test/distribution_scores.csv", "report.html", "report.pdf"]
ONCE += ["model_comparison.png", "model_comparison.csv", "mean.csv"]


def test_the_files_are_there(top):
    promised = [f"{name}/test/{file}" for name in TRAININGS for file in ALWAYS]
    promised += [f"{name}/{file}" for name in TRAININGS if name != "hog" for file in KEPT]
    assert [path for path in promised + ONCE if not (top / path).exists()] == []


LABELS = ("accuracy", "balanced accuracy", "macro F1", "weighted F1", "Cohen's kappa", "Krippendorff's alpha")
LABELS += ("log loss", "calibration error")
TITLES = ("RMSE", "MAE", "R2", "Pearson", "SAGR", "CCC")
DIMENSIONS = tuple(f"{title} {name}" for title in TITLES for name in ("valence", "arousal"))
SHARES = ("KL", "JS", "EMD", "MSE", "L1", "TV")
SCORES = {"muxspace": LABELS, "fer2013": LABELS, "four": LABELS, "hog": LABELS[:6]}
SCORES |= {"affectnet": LABELS + DIMENSIONS, "fused": LABELS + SHARES}


@pytest.mark.parametrize("run", SCORES)
def test_the_scores_are_there_with_interval_and_floor(run, top):
    table = pd.read_csv(top / run / "test" / "metrics.csv", index_col="score")
    for name in SCORES[run]:
        assert {"value", "low", "high", "floor"} <= set(table.columns)
        assert name in table.index
    shown = table[["value", "low", "high"]].dropna()
    assert (shown["low"] <= shown["high"] + 1e-9).all()
    if run != "hog":
        history = pd.read_csv(top / run / "history.csv")
        for name in set(SCORES[run]) - {"EMD"}:  # which takes too long to be counted each epoch
            assert {name, f"train_{name}"} <= set(history.columns)


ASKED = [
    ("four", "faces", "classes", ["anger+disgust", "fear+sadness", "happiness", "neutral+surprise"]),
    ("four", "config", "step_size", 1),
    ("four", "config", "optimizer", "adam"),
    ("muxspace", "config", "schedule", "plateau"),
    ("muxspace", "settings", "class_weights", 0.5),
    ("fer2013", "config", "patience", 5),
    ("fer2013", "settings", "label_smoothing", 0.1),
    ("affectnet", "config", "monitor", "mean score"),
    ("affectnet", "faces", "channels", 3),
    ("affectnet", "model", "dropout", 0.1),
    ("fused", "config", "monitor", "KL"),
    ("fused", "settings", "loss", "kl+emd"),
    ("fused", "config", "lr", 1e-3),
]


@pytest.mark.parametrize(("run", "part", "name", "value"), ASKED)
def test_what_was_asked_is_what_was_trained(run, part, name, value, top):
    assert json.loads((top / run / "config.json").read_text())[part][name] == value


def test_steplr_halves_the_rate_at_each_epoch(top):
    rates = pd.read_csv(top / "four" / "history.csv")["lr"]
    assert rates[1] == pytest.approx(rates[0] / 2)


def test_a_run_is_opened_from_python(top):
    run = training.Run.open(top / "muxspace")
    assert 1 <= run.scores["epoch"] <= 2
    assert run.scores["accuracy"] == pytest.approx(run.history["accuracy"].max())
    assert not run.model.training


def test_runs_of_a_notebook_and_weights_files_are_compared(top, tmp_path, capsys):
    train, validation, _ = datasets.load("fer2013", top).splits()
    for seed in (0, 1):
        config = training.Config(epochs=1, batch_size=16, augment=None, seed=seed)
        model = models.create("face-cnn", 7, widths=(4, 8), head_width=8)
        scores = {"accuracy": metrics.on_labels(metrics.accuracy)}
        about = {"run": tmp_path / f"seed{seed}", "progress": False, "device": "cpu"}
        training.fit(model, train, validation, losses.on_labels(), scores, config, **about)
    assert cli.main(["evaluate", str(tmp_path / "seed0")]) == 2
    assert "add --data NAME" in capsys.readouterr().err
    both = [tmp_path / "seed0", tmp_path / "seed1" / "best.safetensors"]
    do("compare", *both, "--data", "fer2013", "--root", top, *FEW, "--json")
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)["runs"]}
    for seed, name in enumerate(("seed0", "best")):
        seen = float(pd.read_csv(tmp_path / f"seed{seed}" / "history.csv")["accuracy"].iloc[0])
        assert rows[name]["scores"]["accuracy"]["value"] == pytest.approx(seen, abs=1e-6)


def test_a_project_is_reproduced_by_one_command_and_resumed(top, monkeypatch, capsys):
    out = top / "project"
    words = ["reproduce", "4class", "--fast", "--out", str(out)]
    assert cli.main(words) == 0
    kept = {path: path.stat().st_mtime for path in out.rglob("*.safetensors")}
    assert (out / "report.html").exists()
    assert (out / "resnet18-4class" / "test" / "gradcam.png").exists()
    capsys.readouterr()
    assert cli.main(words) == 0
    assert capsys.readouterr().out.count("finished already") == 2
    assert {path: path.stat().st_mtime for path in kept} == kept


@pytest.mark.real
def test_the_scores_of_the_real_sets_have_their_floors(workbook_data, tmp_path):
    do("train", "--data", "fer2013", "--root", workbook_data, "--fast", "--out", tmp_path / "run", *TINY)
    do("evaluate", tmp_path / "run", *FEW)
    table = pd.read_csv(tmp_path / "run" / "test" / "metrics.csv", index_col="score")
    assert np.isfinite(table.loc["accuracy", "floor"])
