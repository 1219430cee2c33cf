"""``data``: what is there, what is wrong with it, how it is fetched, and drawn faces in each real layout."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from helpers import cli, datasets
from helpers.cli import data
from helpers.datasets import layouts


def do(*words: object) -> int:
    arguments = cli.parse(["data", *map(str, words)])
    return arguments.perform(arguments)


def refused(capsys, *words: object) -> str:
    try:
        status = do(*words)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    return capsys.readouterr().err.strip().split("\n")[-1]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder with sixty drawn faces in every layout that can be written, AffectNet's in one of its own."""
    top = tmp_path_factory.mktemp("sets")
    for name in ("ferplus", "muxspace", "affectnet_fused"):
        do("write", name, "--out", top, "--faces", 60)
    do("write", "affectnet", "--out", top / "plain", "--faces", 60)
    return top


# --- write, list ---


@pytest.mark.parametrize("name", data.WRITERS)
def test_what_is_written_is_read_again(name, written):
    if name not in datasets.LAYOUTS:
        pytest.skip(f"no reader of {name} here")
    faces = datasets.load(name, written / "plain" if name == "affectnet" else written)
    assert len(faces) + len(faces.rejected) == 60
    assert {faces.classes[label] for label in faces.labels} >= {"happiness", "neutral"}
    if name in ("fer2013", "affectnet"):
        drawn = datasets.load("synthetic", written, num_faces=60)
        parts = dict(zip(("train", "validation", "test"), drawn.splits(), strict=True))
        there = {split: int((faces.split == split).sum()) for split in parts}
        assert there == {split: len(part) for split, part in parts.items()}
    if name == "fer2013":
        assert np.array_equal(np.sort(faces.images.sum((1, 2))), np.sort(drawn.images.sum((1, 2))))


def test_nothing_is_written_over_what_stands(written, capsys):
    before = (written / "fer2013.csv").read_bytes()
    assert "fer2013 stands in" in refused(capsys, "write", "fer2013", "--out", written, "--seed", 7)
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


# --- check ---


def test_planted_leaks_are_named(tmp_path, capsys):
    drawn = data.with_splits(datasets.load("synthetic", tmp_path / "drawn", num_faces=80))
    images, labels = drawn.images.copy(), drawn.labels.copy()
    test, train = np.flatnonzero(drawn.split == "test")[0], np.flatnonzero(drawn.split == "train")[0]
    images[test], labels[test] = images[train], (labels[train] + 1) % 7
    layouts.write_fer2013(
        datasets.FaceSet("d", images, labels, drawn.classes, drawn.split, drawn.source), tmp_path
    )
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
    for title in ("Faces of each class", "1 pictures with different labels", "1 rows or pictures left out"):
        assert title in text


def test_options_reach_the_reader(tmp_path, capsys):
    assert do("check", "synthetic", "--root", tmp_path, "--option", "num_faces", 40, "--json") == 0
    assert json.loads(capsys.readouterr().out)["faces"] == 40


# --- get ---


class Server(BaseHTTPRequestHandler):
    """Serves ``content`` by range; the first answer to each path is cut in the middle."""

    content: dict[str, bytes] = {}
    asked: list[tuple[str, str]] = []

    def do_GET(self) -> None:
        start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].split("-")[0])
        first = self.path not in [path for path, _ in self.asked]
        self.asked.append((self.path, self.headers.get("Range", "")))
        body = self.content[self.path]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", '"one"')
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        self.wfile.write(body[start : start + (len(body) - start) // 2] if first else body[start:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[type[Server]]:
    monkeypatch.setattr(Server, "asked", [])
    serving = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    Server.address = f"http://127.0.0.1:{serving.server_port}"
    yield Server
    serving.shutdown()
    serving.server_close()
    thread.join()


def test_a_cut_download_is_taken_up_and_proved(server, tmp_path, capsys, written):
    content = (written / "fer2013new.csv").read_bytes() * 50
    server.content = {"/votes.csv": content}
    told = ["get", "ferplus", "--root", tmp_path, "--url", f"{server.address}/votes.csv"]
    right = hashlib.sha256(content).hexdigest()
    assert do(*told, "--sha256", right) == 0
    assert (tmp_path / "fer2013new.csv").read_bytes() == content
    assert len(server.asked) == 2
    assert "fer2013.csv" in capsys.readouterr().out  # the other half of this set


def test_other_bytes_than_the_hash_says_are_not_kept(server, tmp_path, capsys):
    server.content = {"/votes.csv": b"Usage,Image name\n" * 100}
    told = ["get", "ferplus", "--root", tmp_path, "--url", f"{server.address}/votes.csv"]
    line = refused(capsys, *told, "--sha256", "0" * 64)
    assert line.startswith("python3 -m helpers data: error: ")
    assert not (tmp_path / "fer2013new.csv").exists()


def test_an_archive_is_unpacked_where_the_reader_looks(server, tmp_path, capsys, written):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted((written / "muxspace").rglob("*")):
            if path.is_file():
                inside = path.relative_to(written / "muxspace").as_posix()
                archive.write(path, f"facial_expressions-master/{inside}")
    server.content = {"/master.zip": packed.getvalue()}
    assert do("get", "muxspace", "--root", tmp_path, "--url", f"{server.address}/master.zip") == 0
    assert len(datasets.load("muxspace", tmp_path)) == 60
    assert "61 files" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.archive"))


def test_what_needs_a_login_says_so(tmp_path, capsys):
    assert do("get", "fer2013", "--root", tmp_path) == 1
    assert "log in at https://www.kaggle.com" in capsys.readouterr().out
    assert do("get", "affectnet", "--root", tmp_path) == 1
    assert "mohammadmahoor.com" in capsys.readouterr().out
    assert do("get", "synthetic", "--root", tmp_path) == 0


def test_the_addresses_are_those_of_the_page_on_data(root):
    text = (root / "data" / "README.md").read_text(encoding="utf-8")
    assert "github.com/microsoft/FERPlus" in text
    assert "github.com/muxspace/facial_expressions" in text
    for source in data.SOURCES.values():
        for word in source.instead.split():
            if word.startswith("http"):
                assert word.rstrip(",") in text


# --- mistakes ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lits"], "unknown action 'lits'; did you mean 'list'"),
        (["check", "fer2031"], "did you mean 'fer2013'"),
        (["check"], "check needs the name of a set"),
        (["list", "fer2013"], "list takes no name"),
        (["write", "fer2013"], "write needs --out"),
        (["write", "synthetic", "--out", "x"], "unknown set 'synthetic'"),
        (["check", "fer2013", "--root", "nowhere"], "nowhere"),
        (["check", "synthetic", "--option", "num_facess", "3"], "did you mean 'num_faces'"),
        (["write", "fer2013", "--out", "x", "--faces", "3"], "--faces must be at least 10"),
        (["list", "--jsn"], "unknown option '--jsn'"),
    ],
)
def test_what_cannot_be_meant_is_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *words)
    assert not list(tmp_path.glob("x/*"))
