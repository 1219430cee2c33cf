"""``data``: what is there, what is wrong with it, how it is fetched, and drawn faces in each real layout."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from helpers import cli, datasets
from helpers.cli import data
from helpers.datasets import layouts


def do(*words: object) -> int:
    return cli.main(["data", *map(str, words)])


def refused(capsys, *words: object) -> str:
    assert do(*words) == 2
    return capsys.readouterr().err.strip().split("\n")[-1]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder with sixty drawn faces in every layout that can be written, AffectNet's in one of its own."""
    top = tmp_path_factory.mktemp("sets")
    for name in ("ferplus", "muxspace", "affectnet_fused"):
        do("write", name, "--out", top, "--faces", 60)
    do("write", "affectnet", "--out", top / "plain", "--faces", 60)
    return top


@pytest.mark.parametrize("name", data.WRITERS)
def test_what_is_written_is_read_again(name, written):
    faces = datasets.load(name, written / "plain" if name == "affectnet" else written)
    assert len(faces) + len(faces.rejected) == 60
    assert {faces.classes[label] for label in faces.labels} >= {"happiness", "neutral"}
    if name == "fer2013":
        drawn = datasets.load("synthetic", written, num_faces=60)
        assert [(faces.split == split).sum() for split in ("train", "validation", "test")] == [
            len(part) for part in drawn.splits()
        ]
        assert np.array_equal(np.sort(faces.images.sum((1, 2))), np.sort(drawn.images.sum((1, 2))))


def test_nothing_is_written_over_what_stands(written, capsys):
    before = (written / "fer2013.csv").read_bytes()
    assert "fer2013 is in" in refused(capsys, "write", "fer2013", "--out", written, "--seed", 7)
    assert (written / "fer2013.csv").read_bytes() == before


def test_the_list_says_what_is_there_and_how_to_get_the_rest(written, tmp_path, capsys):
    assert do("list", "--root", written, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {name for name in rows if rows[name]["here"]} >= {"synthetic", "fer2013", "ferplus", "muxspace"}
    assert do("list", "--root", tmp_path) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "kaggle.com" in lines["fer2013"]
    assert "data get muxspace" in lines["muxspace"]
    assert "here" in lines["synthetic"]


def test_planted_leaks_are_named(tmp_path, capsys):
    drawn = datasets.load("synthetic", tmp_path / "drawn", num_faces=80)
    split = np.array(["train"] * 50 + ["validation"] * 15 + ["test"] * 15)
    images, labels = drawn.images.copy(), drawn.labels.copy()
    images[70], labels[70] = images[0], (labels[0] + 1) % 7
    layouts.write_fer2013(replace(drawn, split=split, images=images, labels=labels), tmp_path)
    with open(tmp_path / "fer2013.csv", "a") as file:
        file.write("9,1 2 3,Training\n")
    assert do("check", "fer2013", "--root", tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["faces"] == 80
    pairs = {(row["split"], row["other"]): row["faces"] for row in found["duplicates"]}
    assert pairs["test", "train"] == pairs["train", "test"] == 1
    assert len(found["conflicts"]) == 2
    assert len(found["rejects"]) == 1
    assert do("check", "fer2013", "--root", tmp_path) == 0
    text = capsys.readouterr().out
    for title in ("balance: 7 rows", "conflicts: 2 rows", "1 of 81 rows or images"):
        assert title in text


@pytest.fixture
def served(tmp_path_factory) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which a web server serves it."""
    folder = tmp_path_factory.mktemp("served")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_download_is_kept_when_it_has_the_hash(served, tmp_path, capsys, written):
    shutil.copy(written / "fer2013new.csv", served[0] / "votes.csv")
    told = ["get", "ferplus", "--root", tmp_path, "--url", f"{served[1]}/votes.csv", "--sha256"]
    assert do(*told, "0" * 64) == 2
    assert not (tmp_path / "fer2013new.csv").exists()
    assert do(*told, hashlib.sha256((served[0] / "votes.csv").read_bytes()).hexdigest()) == 0
    assert (tmp_path / "fer2013new.csv").exists()
    assert "fer2013.csv" in capsys.readouterr().out  # the other half of this set


def test_an_archive_is_unpacked_where_the_reader_looks(served, tmp_path, capsys, written):
    shutil.copytree(written / "muxspace", served[0] / "in" / "facial_expressions-master")
    shutil.make_archive(str(served[0] / "master"), "zip", served[0] / "in")
    assert do("get", "muxspace", "--root", tmp_path, "--url", f"{served[1]}/master.zip") == 0
    assert len(datasets.load("muxspace", tmp_path)) == 60
    assert "61 files" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.archive"))


def test_what_needs_a_login_says_so_as_the_page_on_data_does(root, tmp_path, capsys):
    for name, advice in (("fer2013", "log in at https://"), ("affectnet_fused", "_prob_rank.txt")):
        assert do("get", name, "--root", tmp_path) == 1
        assert advice in capsys.readouterr().out
    text = (root / "data" / "README.md").read_text(encoding="utf-8")
    for word in " ".join(data.ADVICE.values()).split():
        assert not word.startswith("http") or word.rstrip(",") in text
    assert "github.com/microsoft/FERPlus" in text
    assert "github.com/muxspace/facial_expressions" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lits"], "unknown action 'lits'; did you mean 'list'"),
        (["check", "fer2031"], "did you mean 'fer2013'"),
        (["check"], "check needs the name of a set"),
        (["write", "fer2013"], "write needs --out"),
        (["write", "synthetic", "--out", "x"], "unknown set 'synthetic'"),
        (["check", "fer2013", "--root", "nowhere"], "nowhere"),
        (["check", "synthetic", "--option", "num_facess", "3"], "did you mean 'num_faces'"),
        (["write", "fer2013", "--out", "x", "--faces", "3"], "--faces must be at least 10"),
        (["list", "--jsn"], "did you mean '--json'"),
    ],
)
def test_what_cannot_be_meant_is_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *words)
    assert not list(tmp_path.glob("x/*"))
