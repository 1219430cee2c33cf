"""The report on small runs: every number that was scored stands in it, and no text of a run is markup."""

from __future__ import annotations

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import cli, plotting
from helpers.cli import report

pytest.importorskip("typst", reason="typst, which sets the report, is not installed")

QUICK = ["--option", "num_faces", "210", "--device", "cpu", "--no-amp", "--batch-size", "32", "--lr", "1e-2"]
SMALL = ["--model-option", "widths", "(4,8)", "--model-option", "head_width", "8", "--epochs", "2"]
RUNS = {"two": [*SMALL, "--task", "multitask"], "svm": ["--model", "hog-svm"]}
HOSTILE = 'a<b>"c\\d#e*f_g$h`i@j[k]'


class Reader(HTMLParser):
    """Gathers the text, the sources of images and the tags of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.sources, self.tags = "", [], []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name == "src"]

    def handle_data(self, data):
        self.text += data


def do(*words: object) -> int:
    return cli.main([*map(str, words)])


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with two runs and the report on them."""
    top = tmp_path_factory.mktemp("top")
    for name, words in RUNS.items():
        assert do("train", "--root", top / "data", "--out", top / name, *QUICK, *words) == 0
    assert do("report", *(top / name for name in RUNS), "--out", top / "report", "--resamples", 50) == 0
    return top


def three_digits(value):
    return "-" if value is None else f"{round(value, 3) + 0.0:.3f}".replace("-", "−")  # no -0.000


def test_every_score_interval_floor_and_class_is_in_the_page(made):
    page = Reader((made / "report.html").read_text(encoding="utf-8"))
    for name in RUNS:
        found = json.loads((made / name / "test" / "evaluation.json").read_text())
        for score in found["scores"].values():
            assert f"{three_digits(score['value'])} [{three_digits(score['low'])}, " in page.text
            assert score["floor"] is None or three_digits(score["floor"]) in page.text
        for share in found["per_class"]["f1"]:
            assert three_digits(share) in page.text
        record = json.loads((made / name / "config.json").read_text())
        assert record["command"] in page.text
        assert record["machine"]["torch"] in page.text
        assert f"{record['sizes']['train']:,} train" in page.text
    assert "McNemar's exact test, p = " in page.text


def test_the_page_and_the_pdf_need_no_other_file(made):
    page = Reader((made / "report.html").read_text(encoding="utf-8"))
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "script" not in page.tags
    figures = sum(len(list((made / name / "test").glob("*.png"))) for name in RUNS)
    assert figures >= 8
    assert len(page.sources) == 2 + 1 + figures  # scores and class balance, the curves of the network
    pdf = (made / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert len(re.findall(rb"/Subtype\s*/Image", pdf)) >= len(page.sources)


def test_what_a_run_says_is_text_and_never_markup(tmp_path):
    score = {"value": 0.5, "low": 0.4, "high": None, "floor": None}
    run = dict.fromkeys(("name", "model", "errors"), HOSTILE) | {
        "settings": [[HOSTILE, HOSTILE]],
        "files": {},
    }
    run |= {"split": "test", "scores": {HOSTILE: score}, "majority": score, "classes": [HOSTILE]}
    run["per_class"] = {"precision": [0.5], "recall": [1], "f1": [-0.25], "support": [7]}
    about = dict.fromkeys(("title", "opening", "headline"), HOSTILE)
    about |= dict.fromkeys(("tests", "cautions", "commands", "short"), [HOSTILE])
    about |= {"sets": [{"text": HOSTILE}], "machine": [[HOSTILE, HOSTILE]], "runs": [run]}
    (tmp_path / "accuracy.png").write_bytes(plotting.png(lambda ax: ax.plot([1, 2])))
    page = Reader(report.typeset(about, tmp_path, "html").decode())
    assert page.text.count(HOSTILE) >= 15
    for shown in ("0.500 [0.400, -]", "1.000", "−0.250", "7"):
        assert shown in page.text
    assert report.typeset(about, tmp_path, "pdf").startswith(b"%PDF-")


def test_without_typst_one_line_says_so_and_nothing_is_left(made, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "typst", None)  # what an import of something missing meets
    assert do("report", made / "svm", "--out", made / "alone", "--resamples", 50) == 2
    assert "pip install typst" in capsys.readouterr().err
    assert not list(made.glob("alone*"))


def test_a_run_that_was_not_evaluated_is_and_the_page_alone_will_do(made, tmp_path):
    shutil.copytree(made / "svm", tmp_path / "copy")
    words = ["report", tmp_path / "copy", "--root", made / "data", "--resamples", 50]
    assert do(*words, "--split", "validation", "--no-pdf") == 0
    assert "they are too good" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "copy" / "validation" / "evaluation.json").exists()
    assert not (tmp_path / "report.pdf").exists()


# --- sentences ---


def content(**changes):
    score = {"value": 0.6, "low": 0.5, "high": 0.7}
    confusion = [[8, 2, 0], [5, 4, 1], [0, 0, 0]]
    found = {"faces": 20, "classes": ["anger", "fear", "joy"], "confusion": confusion}
    found |= {"scores": {"accuracy": score}, "majority": {"value": 0.4, "low": 0.3, "high": 0.45}}
    return found | changes


def test_the_sentences_say_what_the_numbers_say():
    assert report.errors(content()) == (
        "It finds anger best (80% of its images) and fear worst (40%). The commonest mistake: "
        "fear taken for anger, 5 of 10 images."
    )
    right = content(confusion=np.diag([3, 4, 0]).tolist(), faces=7)
    assert report.errors(right) == "Every one of the 7 images was given its class."
    found = SimpleNamespace(name="one", split="test", faces=SimpleNamespace(name="synthetic"))
    assert "clearly above the 40.0%" in report.headline([(found, content())])
    close = {"value": 0.55, "low": 0.45, "high": 0.65}
    assert "not clearly above" in report.headline([(found, content(majority=close))])


@pytest.mark.parametrize(("chance", "verdict"), [(0.001, "hardly makes"), (0.4, "may well make")])
def test_a_difference_is_called_what_its_test_allows(chance, verdict):
    behind = {"accuracy_to_best": {"value": -0.021}, "mcnemar": chance, "mcnemar_holm": chance}
    [sentence] = report.tested([{"run": "a"}, {"run": "b", **behind}])
    start = "a predicts 2.1% more of the images correctly than b, a difference that chance alone "
    assert sentence.startswith(start + verdict)


def test_copies_and_people_in_two_splits_are_told():
    counts = [["train", "train", 3], ["test", "train", 2], ["train", "test", 0]]
    audit = {"duplicates": {"columns": ["split", "other", "faces"], "data": counts}}
    audit["subjects"] = {"columns": ["split", "subjects"], "data": [["train", 4], ["test", 4]]}
    told = report.audited(audit)
    assert "2 test images are copies of one in train." in told
    assert "Within the splits 3 are copies." in told
    assert "4 people are in two splits." in told


def test_what_cannot_be_reported_is_one_line(made, tmp_path, capsys):
    assert do("report", made / "svn") == do("report", made / "svm", made / "svm") == 2
    assert "named twice" in capsys.readouterr().err
    shutil.copytree(made / "svm", tmp_path / "one")
    (tmp_path / "one" / "audit.json").write_text("[")
    assert do("report", tmp_path / "one", "--root", made / "data", "--no-pdf", "--resamples", 50) == 2
    assert "audit.json is damaged" in capsys.readouterr().err
