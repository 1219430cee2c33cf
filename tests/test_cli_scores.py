"""``evaluate``, ``compare``, ``ensemble`` and ``report`` on small runs, against independent libraries."""

from __future__ import annotations

import html
import itertools
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import special, stats
from sklearn import metrics as theirs

from helpers import cli, datasets, plotting, training
from helpers.cli import report, scoring
from helpers.cli.evaluate import How

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


def refused(capsys, *words: object) -> str:
    capsys.readouterr()
    assert cli.main([*map(str, words)]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert "\x1b" not in said
    return said


def outputs(folder: Path, split: int = 2) -> tuple[np.ndarray, datasets.FaceSet]:
    """Return what a run's network predicts, and for whom, without the room that is tested."""
    faces = datasets.load("synthetic", folder.parent / "data", num_faces=210).splits()[split]
    found = training.predict(training.Run.open(folder).model, faces, device="cpu", precision="float32")
    return (found["labels"] if isinstance(found, dict) else found), faces


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
    for name, value in expected.items():
        score = found["scores"][name]
        assert score["value"] == pytest.approx(value, rel=1e-5), name
        assert score["low"] <= score["value"] <= score["high"]
    train = datasets.load("synthetic", runs / "data", num_faces=210).splits()[0]
    majority, prior = stats.mode(train.labels).mode, np.bincount(train.labels, minlength=7) / len(train)
    floors = {name: found["scores"][name]["floor"] for name in ("accuracy", "log loss")}
    assert floors["accuracy"] == found["majority"]["value"] == pytest.approx((truth == majority).mean())
    assert floors["log loss"] == pytest.approx(-np.log(prior[truth]).mean())
    assert found["confusion"] == theirs.confusion_matrix(truth, given, labels=range(7)).tolist()
    assert found["best_possible"]["value"] == pytest.approx((faces.distribution.argmax(1) == truth).mean())


def test_valence_arousal_and_distributions_are_scored_in_every_way(runs, capsys):
    found = told(capsys, "evaluate", runs / "tasks")["scores"]
    faces, train = outputs(runs / "tasks")[1], outputs(runs / "tasks", 0)[1]
    said = pd.read_csv(runs / "tasks" / "test" / "predictions.csv")["arousal"].to_numpy()
    truth = faces.valence_arousal[:, 1]
    expected = {"RMSE": theirs.root_mean_squared_error(truth, said), "R2": theirs.r2_score(truth, said)}
    expected |= {"MAE": theirs.mean_absolute_error(truth, said), "Pearson": stats.pearsonr(truth, said)[0]}
    for name, value in expected.items():
        assert found[f"{name} arousal"]["value"] == pytest.approx(value, abs=1e-3)
    assert found["CCC arousal"]["floor"] == pytest.approx(0, abs=1e-6)  # a constant agrees with nothing
    mean = np.full(len(truth), train.valence_arousal[:, 1].mean())
    assert found["MAE arousal"]["floor"] == pytest.approx(theirs.mean_absolute_error(truth, mean), abs=1e-4)

    found, (logits, faces) = told(capsys, "evaluate", runs / "shares")["scores"], outputs(runs / "shares")
    divergence = stats.entropy(faces.distribution, special.softmax(logits.astype(float), 1), axis=1)
    assert found["KL"]["value"] == pytest.approx(divergence.mean(), rel=1e-4)
    each = pd.read_csv(runs / "shares" / "test" / "distribution_scores.csv")
    assert each["KL"].to_numpy() == pytest.approx(divergence, rel=1e-3)
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
    errors, predicted = (pd.read_csv(folder / f"{name}.csv") for name in ("errors", "predictions"))
    assert errors["confidence"].is_monotonic_decreasing
    assert set(errors["source"]) == set(predicted["source"][predicted["label"] != predicted["predicted"]])
    shares = predicted[[f"p_{name}" for name in outputs(runs / "tasks")[1].classes]]
    assert np.allclose(shares.sum(axis=1), 1)
    assert np.allclose(shares.max(axis=1), predicted["confidence"])


def test_the_mirror_image_is_averaged_when_asked(runs):
    logits, faces = outputs(runs / "one")
    mirrored = replace(faces, images=np.ascontiguousarray(faces.images[..., ::-1]))
    how = {"device": "cpu", "precision": "float32"}
    other = training.predict(training.Run.open(runs / "one").model, mirrored, **how)
    averaged = scoring.predict(runs / "one", "test", How(tta="flip")).outputs["labels"]
    assert np.allclose(averaged, (logits + other) / 2, atol=1e-5)


def test_what_was_predicted_is_kept_until_weights_or_data_change(runs, monkeypatch, tmp_path):
    shutil.copytree(runs / "two", run := tmp_path / "two")
    before = scoring.predict(run, "validation", How())
    monkeypatch.setattr(training, "predict", lambda *_, **__: pytest.fail("predicted again"))
    again = scoring.predict(run, "validation", How())
    assert np.array_equal(again.outputs["labels"], before.outputs["labels"])

    def is_predicted_again(how: How) -> None:
        with pytest.raises(pytest.fail.Exception, match="predicted again"):
            scoring.predict(run, "validation", how)

    is_predicted_again(How(options={"seed": 3}))
    shutil.copy(runs / "one" / "best.safetensors", run)
    is_predicted_again(How())
    shutil.copy(runs / "two" / "best.safetensors", run)
    kept = run / "validation" / "outputs-none.npz"
    kept.write_bytes(kept.read_bytes()[:-40])  # damaged
    is_predicted_again(How())


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


def predictions(right: np.ndarray, leaked: np.ndarray | None = None, **columns) -> scoring.Predictions:
    """Return predictions for faces of two classes that are right where ``right`` says so."""
    labels, num = np.arange(len(right)) % 2, len(right)
    images, source = np.zeros((num, 8, 8), np.uint8), np.arange(num).astype(str)
    faces = datasets.FaceSet("x", images, labels, ("anger", "fear"), np.full(num, "test"), source, **columns)
    given = {"labels": np.eye(2)[np.where(right, labels, 1 - labels)] * 4.0}
    leaked, floor = np.zeros(num, bool) if leaked is None else leaked, {"labels": np.log([0.6, 0.4])}
    return scoring.Predictions("a", Path(), "expression", "test", faces, {}, given, leaked, floor, True, "")


def test_leaked_images_are_scored_apart_and_people_are_sampled_whole():
    found = scoring.scored(predictions(np.arange(100) < 60, leaked=np.arange(100) < 30), 50)
    assert (found["leaked"], found["scores"]["accuracy"]["value"]) == (30, 0.6)
    assert found["without_leaked"]["accuracy"]["value"] == pytest.approx(30 / 70)
    right = np.repeat(np.arange(20) % 2 == 0, 10)  # everybody is always right or always wrong
    alone = scoring.scores(predictions(right))["accuracy"]
    people = scoring.scores(predictions(right, subject=np.repeat(np.arange(20), 10)))["accuracy"]
    assert people["high"] - people["low"] > 2 * (alone["high"] - alone["low"])


def test_runs_stand_in_order_with_mcnemar(runs, capsys, tmp_path):
    path = tmp_path / "all.png"
    words = ["compare", runs / "one", runs / "two", runs / "svm", "--split", "test", "--out", path]
    found = told(capsys, *words)["runs"]
    values = [row["scores"]["accuracy"]["value"] for row in found]
    assert values == sorted(values, reverse=True)
    right = {name: outputs(runs / name)[0].argmax(1) for name in ("one", "two")}
    svm, truth = scoring.predict(runs / "svm", "test", How()), outputs(runs / "one")[1].labels
    right["svm"] = svm.predictions
    best = right[found[0]["run"]] == truth
    for row in found[1:]:
        other = right[row["run"]] == truth
        only = int((best & ~other).sum()), int((other & ~best).sum())
        chance = stats.binomtest(only[0], sum(only), 0.5).pvalue if sum(only) else 1.0
        assert row["mcnemar"] == pytest.approx(chance)
        assert row["accuracy_to_best"]["value"] == pytest.approx(other.mean() - best.mean())
    assert Image.open(path).size[0] > 600
    table = pd.read_csv(path.with_suffix(".csv"), index_col="run")
    assert list(table["accuracy"]) == values
    assert (table.loc["one", "parameters"], table.loc["one", "epochs"]) == (483, 1)
    assert table.loc["one", "seconds_per_epoch"] > 0
    for word, name, sign in (("log_loss", "log loss", 1), ("Weighted-F1", "weighted F1", -1)):
        rows = told(capsys, "compare", runs / "one", runs / "two", "--score", word)["runs"]
        values = [sign * row["scores"][name]["value"] for row in rows]
        assert values == sorted(values)
    assert do("compare", runs / "one", runs / "two") == 0
    assert "accuracy_to_best low" in capsys.readouterr().out


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


def read(path: Path) -> tuple[str, list[str]]:
    """Return the text of a page and the sources of its images."""
    page = path.read_text(encoding="utf-8")
    return html.unescape(re.sub("<[^>]+>", "", page)), re.findall('src="([^"]+)"', page)


def three_digits(value):
    return "-" if value is None else f"{round(value, 3) + 0.0:.3f}".replace("-", "−")  # no -0.000


def test_every_score_interval_floor_and_class_is_in_the_report(runs):
    pytest.importorskip("typst", reason="typst, which sets the report, is not installed")
    assert do("report", runs / "tasks", runs / "svm", "--out", runs / "report") == 0
    text, sources = read(runs / "report.html")
    for name in ("tasks", "svm"):
        found = json.loads((runs / name / "test" / "evaluation.json").read_text())
        for score in found["scores"].values():
            assert f"{three_digits(score['value'])} [{three_digits(score['low'])}, " in text
            assert score["floor"] is None or three_digits(score["floor"]) in text
        for share in found["per_class"]["f1"]:
            assert three_digits(share) in text
        record = json.loads((runs / name / "config.json").read_text())
        assert record["command"] in text
        assert f"torch {record['machine']['torch']}" in text
        assert f"{record['sizes']['train']:,} train" in text
        assert f"{found['scores']['accuracy']['value']:.1%}" in text or name == "tasks"
    assert "McNemar's exact test" in text
    assert "duplicates" in text
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    figures = sum(len(list((runs / name / "test").glob("*.png"))) for name in ("tasks", "svm"))
    assert len(sources) == 1 + 1 + figures >= 10  # the accuracies, the curves of the network
    pdf = (runs / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert len(re.findall(rb"/Subtype\s*/Image", pdf)) >= len(sources)


def test_a_run_that_was_not_evaluated_is_and_the_page_alone_will_do(runs, tmp_path, capsys, monkeypatch):
    pytest.importorskip("typst", reason="typst, which sets the report, is not installed")
    shutil.copytree(runs / "svm", tmp_path / "copy", ignore=shutil.ignore_patterns("validation"))
    words = ["report", tmp_path / "copy", "--root", runs / "data", "--split", "validation"]
    assert do(*words, "--no-pdf") == 0
    assert "they are too good" in read(tmp_path / "report.html")[0]
    assert (tmp_path / "copy" / "validation" / "evaluation.json").exists()
    assert not (tmp_path / "report.pdf").exists()
    (tmp_path / "copy" / "audit.json").write_text("[")
    assert "audit.json is damaged" in refused(capsys, *words)
    monkeypatch.setitem(sys.modules, "typst", None)  # what an import of something missing meets
    assert "pip install typst" in refused(capsys, "report", runs / "svm", "--out", tmp_path / "alone")
    assert not list(tmp_path.glob("alone*"))


def test_what_a_run_says_is_text_and_never_markup(tmp_path):
    pytest.importorskip("typst", reason="typst, which sets the report, is not installed")
    hostile, score = 'a<b>"c\\d#e*f_g$h`i@j[k]', {"value": 0.5, "low": 0.4, "high": None, "floor": None}
    run = dict.fromkeys(("name", "about", "errors", "machine"), hostile) | {"files": {}, "split": "test"}
    run |= {"settings": [[hostile, hostile]], "scores": {hostile: score}, "majority": score}
    run |= {"audit": {"rejects": {"columns": [hostile], "data": [[hostile]]}}, "classes": [hostile]}
    run["per_class"] = {"precision": [0.5], "recall": [1], "f1": [-0.25], "support": [7]}
    about = dict.fromkeys(("opening", "headline"), hostile) | {"tests": [[hostile] * 5], "runs": [run]}
    about |= dict.fromkeys(("fast", "commands", "short"), [hostile])
    (tmp_path / "accuracy.png").write_bytes(plotting.png(lambda ax: ax.plot([1, 2])))
    (tmp_path / "page.html").write_bytes(report.typeset(about, tmp_path, "html"))
    text, _ = read(tmp_path / "page.html")
    assert text.count(hostile) >= 20
    for shown in ("0.500 [0.400, -]", "−0.250", "7"):
        assert shown in text
    assert report.typeset(about, tmp_path, "pdf").startswith(b"%PDF-")


def test_the_headline_says_what_the_intervals_allow(runs):
    found = predictions(np.arange(20) < 12)
    score, floor = {"value": 0.6, "low": 0.5, "high": 0.7}, {"value": 0.4, "low": 0.3, "high": 0.45}
    content = {"faces": 20, "scores": {"accuracy": score}, "majority": floor}
    assert ", clearly above the 40.0%" in report.headline([(found, content)])
    close = {"value": 0.45, "low": 0.35, "high": 0.55}
    assert ", not clearly above" in report.headline([(found, content | {"majority": close})])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "thre"], "no trained network in"),
        (["evaluate", "one", "--split", "tets"], "unknown split 'tets'; did you mean 'test'"),
        (["evaluate", "one", "--device", "gpu"], "unknown device 'gpu'"),
        (["evaluate", "one", "--resamples", "3"], "--resamples must be at least 10"),
        (["compare", "one"], "needs two runs"),
        (["ensemble", "one", "one"], "none named twice"),
        (["report", "one", "one"], "a run is named twice"),
        (["compare", "one", "four"], "other validation faces or classes"),
        (["compare", "one", "tasks"], "learned the task expression"),
        (["compare", "one", "two", "--score", "acuracy"], "did you mean 'accuracy'"),
        (["ensemble", "one", "svm"], "svm gives votes"),
    ],
)
def test_what_cannot_be_done_is_one_line(words, message, runs, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    assert message in refused(capsys, *words)


@pytest.mark.parametrize("kind", ["one", "svm"])
@pytest.mark.parametrize(
    "record",
    [
        "[]",
        '{"settings": 3, "model": {}, "faces": {}}',
        '{"settings": {"image_size": 60000}, "model": {}, "faces": {"classes": [], "channels": 1}}',
        '{"settings": {"data": "\\u001b[31m"}, "model": {}, "faces": {"classes": ["\\u001b[2J"]}}',
    ],
)
def test_a_strangers_record_is_one_line_without_escapes(kind, record, runs, capsys, tmp_path):
    shutil.copytree(runs / kind, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(record)
    refused(capsys, "evaluate", tmp_path / "run")
