"""The report on small runs: every number that was scored stands in it, and no text of a run is markup."""

from __future__ import annotations

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import cli, report
from helpers.report import content, page, sheet
from helpers.report.blocks import Code, Heading, Picture, Row, Table, Text

QUICK = ["--option", "num_faces", "210", "--device", "cpu", "--no-amp", "--batch-size", "32", "--lr", "1e-2"]
SMALL = ["--model-option", "widths", "(4,8)", "--model-option", "head_width", "8", "--epochs", "2"]
HOSTILE = 'a<b>"c\\d#e*f_g$h`i@j\u0007\n= k'


class Reader(HTMLParser):
    """Gathers the text, the pictures and the addresses of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.sources, self.links, self.tags = "", [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        named = dict(attributes)
        self.sources += [named["src"]] if "src" in named else []
        self.links += [named["href"]] if "href" in named else []

    def handle_data(self, data):
        self.text += data


def do(*words: object) -> int:
    arguments = cli.parse([*map(str, words)])
    return arguments.perform(arguments)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with three runs and the report on them."""
    top = tmp_path_factory.mktemp("top")
    for name, words in {
        "one": SMALL,
        "two": [*SMALL, "--task", "multitask", "--frozen-epochs", "1"],
        "svm": ["--model", "hog-svm"],
    }.items():
        assert do("train", "--root", top / "data", "--out", top / name, *QUICK, *words) == 0
    runs = [top / name for name in ("one", "two", "svm")]
    assert do("report", *runs, "--out", top / "report", "--resamples", 50, "--no-pdf") == 0
    return top


@pytest.fixture(scope="module")
def read_page(made) -> Reader:
    return Reader((made / "report.html").read_text(encoding="utf-8"))


def test_every_score_and_class_is_in_the_page(made, read_page):
    for name in ("one", "two", "svm"):
        found = json.loads((made / name / "evaluation-test.json").read_text())
        assert f"{found['scores']['accuracy']['value']:.3f} [" in read_page.text
        assert f"{found['majority']['low']:.3f}, {found['majority']['high']:.3f}]" in read_page.text
        for share in found["per_class"]["f1"]:
            assert f"{share:.3f}" in read_page.text
        record = json.loads((made / name / "config.json").read_text())
        assert record["command"] in read_page.text
    balance = json.loads((made / "one" / "audit.json").read_text())["balance"]
    assert f"{sum(row[1] for row in balance['data']):,} for train" in read_page.text
    assert "McNemar's exact test, p = " in read_page.text
    assert record["machine"]["torch"] in read_page.text


def test_the_page_needs_no_other_file(read_page):
    assert all(source.startswith("data:image/png;base64,") for source in read_page.sources)
    assert all(link.startswith("#") for link in read_page.links)
    assert "script" not in read_page.tags
    # a forest plot, a class balance; of a network: curves, confusion, two threshold curves, mistakes, heat
    assert len(read_page.sources) == 2 + 6 + (6 + 2) + 4


def test_the_links_lead_to_headings(made):
    source = (made / "report.html").read_text(encoding="utf-8")
    for link in Reader(source).links:
        assert f'id="{link[1:]}"' in source


def test_what_a_run_says_is_text_and_never_markup():
    blocks = [Heading(HOSTILE, 1), Text(HOSTILE), Code(HOSTILE), Table([HOSTILE], [[HOSTILE]], HOSTILE)]
    text = Reader(report.as_html(blocks)).text
    assert text.count('a<b>"c\\d#e*f_g$h`i@j') >= 5
    assert sheet.quoted(HOSTILE) == '"a<b>\\"c\\\\d#e*f_g$h`i@j\\n= k"'


def test_the_pdf_is_set(made):
    pytest.importorskip("typst", reason="typst, which sets the PDF, is not installed")
    kept = [report.read(made / name) for name in ("one", "two", "svm")]
    blocks = [*report.blocks_of(kept), Text(HOSTILE), Code(HOSTILE), Table([HOSTILE, "b"], [[HOSTILE, "1"]])]
    found = report.as_pdf(blocks)
    assert found.startswith(b"%PDF-")
    pictures = sum(isinstance(block, Picture) for block in blocks)
    pictures += sum(len(block.pictures) for block in blocks if isinstance(block, Row))
    assert len(re.findall(rb"/Subtype\s*/Image", found)) >= pictures
    assert len(re.findall(rb"/Type\s*/Page\b", found)) >= 4


def test_without_typst_the_page_is_there_and_one_line_says_why_the_pdf_is_not(made, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "typst", None)  # what an import of something missing meets
    assert do("report", made / "one", "--out", made / "alone", "--resamples", 50) == 2
    assert "pip install typst" in capsys.readouterr().err
    assert (made / "alone.html").exists()
    assert not (made / "alone.pdf").exists()


def test_a_run_that_was_not_evaluated_is(made, tmp_path):
    shutil.copytree(made / "one", tmp_path / "copy")
    for path in (tmp_path / "copy").glob("evaluation-*"):
        path.unlink()
    told = ["report", tmp_path / "copy", "--root", made / "data", "--no-pdf", "--resamples", 50]
    assert do(*told, "--split", "validation") == 0
    assert "they are too good" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "copy" / "evaluation-validation.json").exists()


# --- sentences ---


def kept(**changes) -> report.Kept:
    confusion = [[8, 2, 0], [5, 4, 1], [0, 0, 0]]
    interval = {"value": 0.6, "low": 0.5, "high": 0.7}
    found = {
        "split": "test",
        "faces": 20,
        "classes": ["anger", "fear", "joy"],
        "confusion": confusion,
        "scores": {"accuracy": interval},
        "majority": {"value": 0.4, "low": 0.3, "high": 0.45},
    }
    record = {"settings": {"data": "synthetic"}}
    return report.Kept(Path("runs/one"), record, pd.DataFrame(), {}, {**found, **changes})


def test_the_sentences_say_what_the_numbers_say():
    assert content._errors(kept()) == (
        "It finds anger best (80% of its faces) and fear worst (40%). The commonest mistake: "
        "fear taken for anger, 5 of 10 faces."
    )
    right = np.diag([3, 4, 0]).tolist()
    assert content._errors(kept(confusion=right, faces=7)) == "Every one of the 7 faces was given its class."
    assert "clearly above the 40.0%" in content._headline([kept()])
    close = {"value": 0.55, "low": 0.45, "high": 0.65}
    assert "not clearly above" in content._headline([kept(majority=close)])


@pytest.mark.parametrize(("chance", "verdict"), [(0.001, "hardly makes"), (0.4, "may well make")])
def test_a_difference_is_called_what_its_test_allows(chance, verdict):
    behind = {"accuracy_to_best": {"value": -0.021}, "mcnemar": chance, "mcnemar_holm": chance}
    [sentence] = content._tested([{"run": "a"}, {"run": "b", **behind}])
    start = "a reads 2.1% more of the faces rightly than b, a difference that chance alone "
    assert sentence.startswith(start + verdict)


def test_copies_and_people_in_two_parts_are_told():
    counts = [("train", "train", 3), ("test", "train", 2), ("train", "test", 0)]
    pairs = pd.DataFrame(counts, columns=["split", "other", "faces"])
    people = pd.DataFrame({"subjects": [4, 4]})
    told = " ".join(content._audited({"duplicates": pairs, "subjects": people}, "keep"))
    assert "2 test faces have the very pixels of a face in train." in told
    assert "Within the parts 3 faces are copies." in told
    assert "4 people stand in two parts." in told


# --- mistakes ---


def test_what_cannot_be_reported_is_one_line(made, tmp_path, capsys):
    assert do("report", made / "tow") == 2
    assert "did you mean 'two'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        cli.parse(["report", str(made / "one"), str(made / "one")])
    assert ended.value.code == 2
    assert "named twice" in capsys.readouterr().err
    shutil.copytree(made / "one", tmp_path / "one")
    (tmp_path / "one" / "audit.json").write_text("[")
    assert do("report", tmp_path / "one", "--root", made / "data", "--no-pdf", "--resamples", 50) == 2
    assert "audit.json is damaged" in capsys.readouterr().err


def test_an_anchor_is_made_of_letters():
    assert page.anchor("How it was done: 2 ways!") == "how-it-was-done-2-ways"
