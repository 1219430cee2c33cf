"""``evaluate``, ``compare`` and ``ensemble`` on small runs, against independent libraries."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import special, stats
from sklearn import metrics as theirs

from helpers import cli, datasets, training
from helpers.cli import evaluate, scoring

SMALL = ["--model-option", "widths", "(4,8)", "--model-option", "head_width", "8", "--batch-size", "32"]
QUICK = ["--option", "num_faces", "210", "--device", "cpu", "--no-amp", "--epochs", "1", "--lr", "1e-2"]
RUNS = {
    "one": SMALL,
    "two": [*SMALL, "--seed", "1"],
    "svm": ["--model", "hog-svm"],
    "tasks": [*SMALL, "--task", "multitask"],
    "shares": [*SMALL, "--task", "distribution"],
    "four": [*SMALL, "--merge", "4"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with six runs on the same drawn faces."""
    top = tmp_path_factory.mktemp("runs")
    for name, words in RUNS.items():
        known = ["train", "--root", str(top / "data"), "--out", str(top / name), "--json"]
        assert cli.main([*known, *QUICK, *words]) == 0
    return top


def do(*words: object) -> int:
    return cli.main([*map(str, words), "--resamples", "50"])


def told(capsys, *words: object) -> dict:
    capsys.readouterr()
    assert do(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def outputs(folder: Path, split: int = 2) -> tuple[np.ndarray, datasets.FaceSet]:
    """Return what a run's network predicts, and for whom, without the room that is tested."""
    faces = datasets.load("synthetic", folder.parent / "data", num_faces=210).splits()[split]
    found = training.predict(training.Run.open(folder).model, faces, device="cpu", precision="float32")
    return (found["labels"] if isinstance(found, dict) else found), faces


# --- evaluate ---


def test_the_scores_are_those_of_scikit_learn(runs, capsys):
    found = told(capsys, "evaluate", runs / "one")
    logits, faces = outputs(runs / "one")
    given, truth, shares = logits.argmax(1), faces.labels, special.softmax(logits.astype(float), 1)
    there = {"labels": np.unique(truth), "zero_division": 0}
    expected = {
        "accuracy": theirs.accuracy_score(truth, given),
        "balanced accuracy": theirs.recall_score(truth, given, average="macro", **there),
        "macro F1": theirs.f1_score(truth, given, average="macro", **there),
        "weighted F1": theirs.f1_score(truth, given, average="weighted", zero_division=0),
        "Cohen's kappa": theirs.cohen_kappa_score(truth, given),
        "log loss": theirs.log_loss(truth, shares, labels=range(7)),
    }
    train = datasets.load("synthetic", runs / "data", num_faces=210).splits()[0]
    commonest = stats.mode(train.labels).mode
    for name, value in expected.items():
        score = found["scores"][name]
        assert score["value"] == pytest.approx(value, rel=1e-5), name
        assert score["low"] <= score["value"] <= score["high"]
    assert found["scores"]["accuracy"]["floor"] == pytest.approx((truth == commonest).mean())
    prior = np.tile(np.bincount(train.labels, minlength=7) / len(train), (len(truth), 1))
    assert found["scores"]["log loss"]["floor"] == pytest.approx(
        theirs.log_loss(truth, prior, labels=range(7))
    )
    assert found["confusion"] == theirs.confusion_matrix(truth, given, labels=range(7)).tolist()
    assert found["best_possible"]["value"] == pytest.approx((faces.distribution.argmax(1) == truth).mean())


def test_valence_and_arousal_are_scored_in_every_way(runs, capsys):
    found = told(capsys, "evaluate", runs / "tasks")["scores"]
    faces = outputs(runs / "tasks")[1]
    said = pd.read_csv(runs / "tasks" / "test" / "predictions.csv")["arousal"].to_numpy()
    truth = faces.valence_arousal[:, 1]
    assert found["RMSE arousal"]["value"] == pytest.approx(
        theirs.root_mean_squared_error(truth, said), rel=1e-4
    )
    assert found["MAE arousal"]["value"] == pytest.approx(theirs.mean_absolute_error(truth, said), rel=1e-4)
    assert found["R2 arousal"]["value"] == pytest.approx(theirs.r2_score(truth, said), rel=1e-3)
    assert found["Pearson arousal"]["value"] == pytest.approx(stats.pearsonr(truth, said)[0], abs=1e-3)
    assert {"SAGR arousal", "CCC arousal", "CCC valence", "mean score"} <= set(found)
    assert found["CCC arousal"]["floor"] == pytest.approx(0, abs=1e-6)  # a constant agrees with nothing


def test_distributions_are_judged_by_their_divergences_image_by_image(runs, capsys):
    found = told(capsys, "evaluate", runs / "shares")["scores"]
    logits, faces = outputs(runs / "shares")
    shares = special.softmax(logits.astype(float), 1)
    divergence = stats.entropy(faces.distribution, shares, axis=1)
    assert found["KL"]["value"] == pytest.approx(divergence.mean(), rel=1e-4)
    assert {"JS", "EMD", "MSE", "L1", "TV"} <= set(found)
    each = pd.read_csv(runs / "shares" / "test" / "distribution_scores.csv")
    assert each["KL"].to_numpy() == pytest.approx(divergence, rel=1e-3)
    train = datasets.load("synthetic", runs / "data", num_faces=210).splits()[0]
    prior = stats.entropy(faces.distribution, train.distribution.mean(0)[None], axis=1).mean()
    assert found["KL"]["floor"] == pytest.approx(prior, rel=1e-4)


def test_the_folder_gets_tables_and_figures(runs, capsys):
    assert do("evaluate", runs / "tasks", "--split", "validation") == 0
    text = capsys.readouterr().out
    assert "CCC valence" in text
    assert "SAGR" not in text  # the terminal shows a choice
    folder = runs / "tasks" / "validation"
    figures = {"confusion", "per_class", "roc", "pr", "mistakes", "gradcam", "valence", "arousal"}
    assert {path.stem for path in folder.glob("*.png")} == figures
    for path in folder.glob("*.png"):
        assert np.ptp(np.asarray(Image.open(path).convert("L"))) > 100  # something is drawn
    metrics = pd.read_csv(folder / "metrics.csv", index_col="score")
    assert list(metrics.columns) == ["value", "low", "high", "floor"]
    assert "SAGR valence" in metrics.index
    errors = pd.read_csv(folder / "errors.csv")
    assert (errors["label"] != errors["predicted"]).all()
    assert errors["confidence"].is_monotonic_decreasing
    assert "macro avg" in (folder / "classification_report.txt").read_text()


def test_the_mirror_image_is_averaged_when_asked(runs):
    logits, faces = outputs(runs / "one")
    model = training.Run.open(runs / "one").model
    mirrored = replace(faces, images=np.ascontiguousarray(faces.images[..., ::-1]))
    other = training.predict(model, mirrored, device="cpu", precision="float32")
    averaged = scoring.predict(runs / "one", "test", "flip").outputs["labels"]
    assert np.allclose(averaged, (logits + other) / 2, atol=1e-5)


def test_what_was_predicted_is_kept_until_weights_or_data_change(runs, monkeypatch):
    before = scoring.predict(runs / "two", "validation")
    monkeypatch.setattr(training, "predict", lambda *_, **__: pytest.fail("predicted again"))
    again = scoring.predict(runs / "two", "validation")
    assert np.array_equal(again.outputs["labels"], before.outputs["labels"])
    with pytest.raises(pytest.fail.Exception, match="predicted again"):
        scoring.predict(runs / "two", "validation", given={"options": {"seed": 3}})
    kept = runs / "two" / "validation" / "outputs-none.npz"
    kept.write_bytes(kept.read_bytes()[:-40])  # damaged
    with pytest.raises(pytest.fail.Exception, match="predicted again"):
        scoring.predict(runs / "two", "validation")


def test_other_data_get_other_scores(tmp_path, capsys):
    for part, label, i in itertools.product(("train", "test"), (0, 1), range(20)):
        image = (np.indices((48, 48))[label] % 8 < 4).astype(np.uint8) * 120
        folder = tmp_path / "a" / "mine" / part / ("happy", "sad")[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image + np.uint8(i + 30 * (part == "test"))).save(folder / f"{i}.png")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    test = tmp_path / "b" / "mine" / "test"
    for old, new in (("happy", "x"), ("sad", "happy"), ("x", "sad")):  # every test label exchanged
        (test / old).rename(test / new)
    words = ["train", "--data", "folder", "--root", str(tmp_path / "a"), "--option", "path", "mine"]
    assert cli.main([*words, "--model", "hog-svm", "--out", str(tmp_path / "run")]) == 0
    for root, accuracy in (("a", 1), ("b", 0), ("a", 1)):
        found = told(capsys, "evaluate", tmp_path / "run", "--root", tmp_path / root)
        assert found["scores"]["accuracy"]["value"] == accuracy


def test_runs_of_a_notebook_and_weights_files_are_taken(runs, capsys, tmp_path):
    shutil.copytree(runs / "one", tmp_path / "one")
    record = json.loads((tmp_path / "one" / "config.json").read_text())
    for name in ("settings", "fast", "data", "sizes", "command"):  # what training.fit alone does not say
        del record[name]
    (tmp_path / "one" / "config.json").write_text(json.dumps(record))
    assert do("evaluate", tmp_path / "one") == 2
    assert "add --data NAME" in capsys.readouterr().err
    faces = ["--data", "synthetic", "--root", runs / "data", "--option", "num_faces", 210]
    expected = told(capsys, "evaluate", runs / "one")["scores"]["accuracy"]
    for run in (tmp_path / "one", tmp_path / "one" / "best.safetensors"):
        assert told(capsys, "evaluate", run, *faces)["scores"]["accuracy"] == expected


def predictions(right: np.ndarray, name: str = "a", **columns) -> scoring.Predictions:
    """Return predictions for faces of two classes that are right where ``right`` says so."""
    labels, subject = np.arange(len(right)) % 2, columns.pop("subject", None)
    images, split = np.zeros((len(right), 8, 8), np.uint8), np.full(len(right), "test")
    source = np.arange(len(right)).astype(str)
    faces = datasets.FaceSet("x", images, labels, ("anger", "fear"), split, source, subject=subject)
    outputs = {"labels": np.eye(2)[np.where(right, labels, 1 - labels)] * 4.0}
    leaked, floor = columns.pop("leaked", np.zeros(len(right), bool)), {"labels": np.log([0.6, 0.4])}
    return scoring.Predictions(name, Path(), "expression", "test", faces, outputs, leaked, floor, True, name)


def test_leaked_images_are_scored_apart():
    found = scoring.evaluate(predictions(np.arange(100) < 60, leaked=np.arange(100) < 30), resamples=50)
    assert found["leaked"] == 30
    assert found["scores"]["accuracy"]["value"] == 0.6
    assert found["without_leaked"]["accuracy"]["value"] == pytest.approx(30 / 70)


def test_people_are_sampled_whole_where_they_are_known():
    right = np.repeat(np.arange(20) % 2 == 0, 10)  # everybody is always right or always wrong
    alone = scoring.scores(predictions(right), only="accuracy")["accuracy"]
    known = predictions(right, subject=np.repeat(np.arange(20), 10))
    people = scoring.scores(known, only="accuracy")["accuracy"]
    assert people["high"] - people["low"] > 2 * (alone["high"] - alone["low"])


# --- compare ---


def test_runs_stand_in_order_with_mcnemar(runs, capsys, tmp_path):
    path = tmp_path / "all.png"
    words = ["compare", runs / "one", runs / "two", runs / "svm", "--split", "test", "--out", path]
    found = told(capsys, *words)["runs"]
    values = [row["scores"]["accuracy"]["value"] for row in found]
    assert values == sorted(values, reverse=True)
    right = {name: outputs(runs / name)[0].argmax(1) for name in ("one", "two")}
    right["svm"], truth = scoring.predict(runs / "svm").predictions, outputs(runs / "one")[1].labels
    best = right[found[0]["run"]] == truth
    for row in found[1:]:
        other = right[row["run"]] == truth
        only = int((best & ~other).sum()), int((other & ~best).sum())
        chance = stats.binomtest(only[0], sum(only), 0.5).pvalue if sum(only) else 1.0
        assert row["mcnemar"] == pytest.approx(chance)
        assert row["accuracy_to_best"]["value"] == pytest.approx(other.mean() - best.mean())
    assert Image.open(path).size[0] > 600
    table = pd.read_csv(path.with_suffix(".csv"), index_col="run")
    assert list(table.index) == [row["run"] for row in found]
    assert table.loc["one", "parameters"] == 483
    assert table.loc["one", "seconds_per_epoch"] > 0


@pytest.mark.parametrize(
    ("word", "name", "sign"),
    [("log_loss", "log loss", 1), ("cohens kappa", "Cohen's kappa", -1), ("Weighted-F1", "weighted F1", -1)],
)
def test_any_score_sorts_and_less_is_better_where_it_is(word, name, sign, runs, capsys):
    rows = told(capsys, "compare", runs / "one", runs / "two", "--score", word)["runs"]
    values = [row["scores"][name]["value"] for row in rows]
    assert values == sorted(values, key=lambda value: sign * value)


def test_holms_correction_is_that_of_the_textbook():
    assert scoring.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert scoring.holm([0.9, 0.8]) == [1.0, 1.0]


def test_an_ensemble_averages_probabilities_and_its_gain_is_paired(runs, capsys):
    found = told(capsys, "ensemble", runs / "one", runs / "two", "--split", "test")
    truth = outputs(runs / "one")[1].labels
    shares = np.mean([special.softmax(outputs(runs / n)[0], 1) for n in ("one", "two")], axis=0)
    accuracy = {row["run"]: row["scores"]["accuracy"]["value"] for row in found["runs"]}
    assert accuracy["ensemble"] == pytest.approx((shares.argmax(1) == truth).mean())
    validation = {n: outputs(runs / n, 1) for n in ("one", "two")}
    chosen = {n: (logits.argmax(1) == faces.labels).mean() for n, (logits, faces) in validation.items()}
    assert chosen[found["best"]] == max(chosen.values())
    assert found["gain"]["value"] == pytest.approx(accuracy["ensemble"] - accuracy[found["best"]])


# --- mistakes ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "thre"], "no trained network in"),
        (["evaluate", "one", "--split", "tets"], "unknown split 'tets'; did you mean 'test'"),
        (["evaluate", "one", "--device", "gpu"], "unknown device 'gpu'"),
        (["evaluate", "one", "--resamples", "3"], "--resamples must be at least 10"),
        (["compare", "one"], "needs two runs"),
        (["ensemble", "one", "one"], "is named twice"),
        (["compare", "one", "four"], "other validation faces or classes"),
        (["compare", "one", "tasks"], "learned the task expression"),
        (["compare", "one", "two", "--score", "acuracy"], "did you mean 'accuracy'"),
        (["ensemble", "one", "svm"], "svm gives votes"),
    ],
)
def test_what_cannot_be_done_is_one_line(words, message, runs, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    assert cli.main(words) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "record",
    [
        "[]",
        '{"settings": 3, "model": {}, "faces": {}}',
        '{"settings": {"image_size": 60000}, "model": {}, "faces": {"classes": [], "channels": 1}}',
        '{"settings": {"data": "\\u001b[31m"}, "model": {}, "faces": {"classes": ["\\u001b[2J"]}}',
    ],
)
def test_a_strangers_record_is_one_line_without_escapes(record, runs, capsys, tmp_path):
    shutil.copytree(runs / "one", tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(record)
    assert do("evaluate", tmp_path / "run") == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert "\x1b" not in said


def test_a_score_that_is_no_number_is_shown_as_none():
    assert evaluate.shown({"value": 0.5, "low": None, "high": 1.0}) == "0.500 [-, 1.000]"
