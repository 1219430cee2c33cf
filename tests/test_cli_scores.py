"""``evaluate``, ``compare`` and ``ensemble`` on small runs, against scikit-learn and SciPy."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import special, stats
from sklearn import metrics as theirs

from helpers import cli, datasets, training
from helpers.cli import compare, ensemble, evaluate, scoring
from helpers.predictor import Predictor

QUICK = ["--option", "num_faces", "210", "--device", "cpu", "--no-amp", "--batch-size", "32", "--epochs", "2"]
SMALL = ["--model-option", "widths", "(4,8)", "--model-option", "head_width", "8", "--lr", "1e-2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with runs on 210 drawn faces: two seeds, three heads, distributions, support vectors."""
    top = tmp_path_factory.mktemp("top")
    for name, words in {
        "one": SMALL,
        "two": [*SMALL, "--seed", "1"],
        "three": [*SMALL, "--task", "multitask"],
        "shares": [*SMALL, "--task", "distribution"],
        "svm": ["--model", "hog-svm"],
        "four": [*SMALL, "--merge", "4", "--split-seed", "1"],
    }.items():
        told = ["train", "--root", str(top / "data"), "--out", str(top / name), *QUICK, *words]
        arguments = cli.parse(told)
        assert arguments.perform(arguments) == 0
    return top


def do(*words: object) -> int:
    arguments = cli.parse([*map(str, words), "--resamples", "50"])
    return arguments.perform(arguments)


def refused(capsys, *words: object) -> str:
    try:
        status = do(*words)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    return capsys.readouterr().err.strip().split("\n")[-1]


def outputs(folder: Path, split: int = 2, flip: bool = False) -> tuple[np.ndarray, datasets.FaceSet]:
    """Return what a run's network says, and of whom, without the room that is tested."""
    faces = datasets.load("synthetic", folder.parent / "data", num_faces=210).splits()[split]
    predictor = Predictor.load(folder, device="cpu")
    views = [faces.images, np.ascontiguousarray(faces.images[..., ::-1])] if flip else [faces.images]
    return np.mean([predictor.outputs(view)["labels"] for view in views], axis=0), faces


# --- evaluate ---


def test_the_numbers_are_those_of_scikit_learn(runs, capsys):
    assert do("evaluate", runs / "one", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    logits, faces = outputs(runs / "one")
    given, truth = logits.argmax(1), faces.labels
    assert found["scores"]["accuracy"]["value"] == pytest.approx(theirs.accuracy_score(truth, given))
    f1 = theirs.f1_score(truth, given, labels=np.unique(truth), average="macro", zero_division=0)
    assert found["scores"]["macro F1"]["value"] == pytest.approx(f1)
    loss = theirs.log_loss(truth, special.softmax(logits.astype(float), 1), labels=range(7))
    assert found["scores"]["log loss"]["value"] == pytest.approx(loss, rel=1e-5)
    assert found["confusion"] == theirs.confusion_matrix(truth, given, labels=range(7)).tolist()
    train = datasets.load("synthetic", runs / "data", num_faces=210).splits()[0]
    commonest = stats.mode(train.labels).mode
    assert found["majority"]["value"] == pytest.approx((truth == commonest).mean())
    assert found["best_possible"]["value"] == pytest.approx((faces.distribution.argmax(1) == truth).mean())
    for score in found["scores"].values():
        assert score["low"] <= score["value"] <= score["high"]
    assert json.loads((runs / "one" / "evaluation-test.json").read_text()) == found


def test_the_folder_gets_pictures(runs, capsys):
    assert do("evaluate", runs / "three", "--split", "validation") == 0
    text = capsys.readouterr().out
    assert re.search(r"^CCC valence +-?\d\.\d{3} \[", text, re.MULTILINE)
    assert re.search(r"^majority, accuracy", text, re.MULTILINE)
    drawn = {path.stem for path in (runs / "three").glob("*-validation.png")}
    wanted = {"confusion", "roc", "precision-recall", "mistakes", "gradcam", "valence", "arousal"}
    assert drawn == {f"{name}-validation" for name in wanted}
    for path in (runs / "three").glob("*-validation.png"):
        assert np.ptp(np.asarray(Image.open(path).convert("L"))) > 100  # something is drawn


def test_the_mirror_image_is_averaged_when_asked(runs):
    plain = scoring.ask(runs / "one", "test")
    averaged = scoring.ask(runs / "one", "test", tta="flip")
    assert np.allclose(plain.outputs["labels"], outputs(runs / "one")[0], atol=1e-5)
    assert np.allclose(averaged.outputs["labels"], outputs(runs / "one", flip=True)[0], atol=1e-5)


def test_what_was_said_is_kept_until_the_weights_change(runs, monkeypatch):
    before = scoring.ask(runs / "two", "validation")
    monkeypatch.setattr(training, "predict", lambda *_a, **_k: pytest.fail("asked again"))
    assert np.array_equal(scoring.ask(runs / "two", "validation").outputs["labels"], before.outputs["labels"])
    kept = runs / "two" / "outputs-validation.npz"
    kept.write_bytes(kept.read_bytes()[:-40])  # damaged
    with pytest.raises(pytest.fail.Exception, match="asked again"):
        scoring.ask(runs / "two", "validation")


def test_a_machine_without_probabilities_has_no_score_of_them(runs, capsys):
    assert do("evaluate", runs / "svm", "--json") == 0
    assert set(json.loads(capsys.readouterr().out)["scores"]) == {"accuracy", "macro F1"}


def test_distributions_are_judged_by_their_divergence(runs, capsys):
    assert do("evaluate", runs / "shares", "--json") == 0
    found = json.loads(capsys.readouterr().out)["scores"]["KL"]["value"]
    logits, faces = outputs(runs / "shares")
    shares = special.softmax(logits.astype(float), 1)
    assert found == pytest.approx(stats.entropy(faces.distribution, shares, axis=1).mean(), rel=1e-4)


def answers(right: np.ndarray, name: str = "a", **columns) -> scoring.Answers:
    """Return answers about faces of two classes that are right where ``right`` says so."""
    labels = np.arange(len(right)) % 2
    given = np.where(right, labels, 1 - labels)
    blank = {"subject": np.full(len(right), -1), "leaked": np.zeros(len(right), bool)}
    about = {"source": np.arange(len(right)).astype(str), **blank, **columns}
    outputs = {"labels": np.eye(2)[given] * 4.0}
    targets = {"labels": labels}
    about |= {"majority": 0, "probabilities": True}
    return scoring.Answers(name, "expression", ("anger", "fear"), "test", outputs, targets, **about)


def test_leaked_faces_are_scored_apart():
    right, leaked = np.arange(100) < 60, np.arange(100) < 30
    found = scoring.numbers(answers(right, leaked=leaked), resamples=50)
    assert found["leaked"] == 30
    assert found["scores"]["accuracy"]["value"] == 0.6
    assert found["without_leaked"]["accuracy"]["value"] == pytest.approx(30 / 70)


def test_people_are_drawn_whole_where_they_are_known():
    right = np.repeat(np.arange(20) % 2 == 0, 10)  # everybody is always right or always wrong
    alone = scoring.judge(answers(right), only="accuracy")["accuracy"]
    people = answers(right, subject=np.repeat(np.arange(20), 10))
    together = scoring.judge(people, only="accuracy")["accuracy"]
    assert together.high - together.low > 2 * (alone.high - alone.low)


# --- compare ---


def test_runs_stand_in_order_with_mcnemar(runs, capsys, tmp_path):
    path = tmp_path / "all.png"
    words = ["compare", runs / "one", runs / "two", runs / "svm", "--split", "test", "--out", path, "--json"]
    assert do(*words) == 0
    found = json.loads(capsys.readouterr().out)["runs"]
    values = [row["scores"]["accuracy"]["value"] for row in found]
    assert values == sorted(values, reverse=True)
    logits = {name: outputs(runs / name)[0].argmax(1) for name in ("one", "two")}
    logits["svm"] = scoring.ask(runs / "svm", "test").predictions
    truth = outputs(runs / "one")[1].labels
    best = logits[found[0]["run"]] == truth
    for row in found[1:]:
        other = logits[row["run"]] == truth
        only = int((best & ~other).sum()), int((other & ~best).sum())
        chance = stats.binomtest(only[0], sum(only), 0.5).pvalue if sum(only) else 1.0
        assert row["mcnemar"] == pytest.approx(chance)
        assert row["accuracy_to_best"]["value"] == pytest.approx(other.mean() - best.mean())
    assert Image.open(path).size[0] > 600


def test_less_is_better_where_it_is(runs, capsys):
    assert do("compare", runs / "one", runs / "two", "--score", "log loss", "--json") == 0
    values = [row["scores"]["log loss"]["value"] for row in json.loads(capsys.readouterr().out)["runs"]]
    assert values == sorted(values)
    assert do("compare", runs / "one", runs / "three") == 0
    assert "McNemar" in capsys.readouterr().out


def test_holms_correction_is_that_of_the_textbook():
    assert compare.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert compare.holm([0.9, 0.8]) == [1.0, 1.0]
    assert compare.holm([]) == []


def test_runs_of_one_name_are_told_apart_by_their_paths(runs, tmp_path):
    (tmp_path / "else").mkdir()
    shutil.copytree(runs / "two", tmp_path / "else" / "one")
    both = scoring.ask_all([runs / "one", tmp_path / "else" / "one"], "test", "none", str(runs / "data"))
    assert [each.name for each in both] == [(runs / "one").as_posix(), (tmp_path / "else/one").as_posix()]


# --- ensemble ---


def test_probabilities_are_averaged_and_the_gain_is_paired(runs, capsys):
    assert do("ensemble", runs / "one", runs / "two", runs / "three", "--split", "test", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    truth = outputs(runs / "one")[1].labels
    shares = np.mean([special.softmax(outputs(runs / n)[0], 1) for n in ("one", "two", "three")], axis=0)
    right = (shares.argmax(1) == truth).mean()
    assert found["together"]["scores"]["accuracy"]["value"] == pytest.approx(right)
    chosen = {
        n: (outputs(runs / n, 1)[0].argmax(1) == outputs(runs / n, 1)[1].labels).mean()
        for n in ("one", "two", "three")
    }
    assert chosen[found["best"]] == max(chosen.values())
    alone = {row["run"]: row["scores"]["accuracy"]["value"] for row in found["runs"]}
    assert found["gain"]["value"] == pytest.approx(right - alone[found["best"]])
    assert found["gain"]["low"] <= found["gain"]["value"] <= found["gain"]["high"]


def test_three_that_err_in_different_places_are_right_together():
    right = np.arange(99) % 3 != np.arange(3)[:, None]  # each is wrong on another third
    everybody = [answers(row, name) for row, name in zip(right, "abc", strict=True)]
    assert scoring.right(ensemble.together(everybody)).mean() == 1.0
    found = ensemble.gained(everybody, everybody, resamples=50)
    assert found["gain"]["value"] == pytest.approx(1 / 3)
    assert found["mcnemar"] < 1e-9
    text = ensemble.as_text(found | {"split": "test", "tta": "none"})
    assert "Gain in accuracy over a: 0.333" in text
    text = ensemble.as_text(found | {"split": "test", "tta": "flip"})
    assert "over 3 runs, each of them over each face and its mirror image, on the test faces" in text


# --- mistakes ---


def test_what_cannot_be_done_is_one_line(runs, capsys, tmp_path):
    assert "did you mean 'three'" in refused(capsys, "evaluate", runs / "thre")
    assert "python3 -m helpers train makes one" in refused(capsys, "evaluate", tmp_path / "none")
    assert "unknown split 'tets'; did you mean 'test'" in refused(
        capsys, "evaluate", runs / "one", "--split", "tets"
    )
    assert "unknown tta 'flop'" in refused(capsys, "ensemble", runs / "one", runs / "two", "--tta", "flop")
    assert "unknown device 'gpu'" in refused(capsys, "evaluate", runs / "one", "--device", "gpu")
    assert "needs two runs" in refused(capsys, "compare", runs / "one")
    assert "is named twice" in refused(capsys, "ensemble", runs / "one", runs / "one")
    assert "other classes (7 and 4)" in refused(capsys, "compare", runs / "one", runs / "four")
    nothing = refused(capsys, "compare", runs / "one", runs / "two", "--score", "CCC valence")
    assert "has no score 'CCC valence'" in nothing
    assert "did you mean 'accuracy'" in refused(
        capsys, "compare", runs / "one", runs / "two", "--score", "acuracy"
    )
    assert "svm gives votes" in refused(capsys, "ensemble", runs / "one", runs / "svm")
    assert "unknown option '--jsn'" in refused(capsys, "evaluate", runs / "one", "--jsn")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is damaged"), ("[]", "is damaged"), ("{}", "was not made by python3 -m helpers train")],
)
def test_a_folder_that_is_no_run_is_one_line(content, message, capsys, tmp_path):
    (tmp_path / "config.json").write_text(content)
    assert message in refused(capsys, "evaluate", tmp_path)


def test_other_faces_cannot_be_compared():
    one, other = answers(np.ones(8, bool)), answers(np.ones(8, bool), "b")
    scoring.same_faces([one, other])
    with pytest.raises(ValueError, match="have other test faces"):
        scoring.same_faces([one, replace(other, source=other.source[::-1])])


def test_a_score_that_is_no_number_is_shown_as_none():
    assert evaluate.shown({"value": 0.5, "low": None, "high": 1.0}) == "0.500 [-, 1.000]"
