"""What comes from the web: whole or not at all, the right bytes, and nothing outside its folder."""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from helpers.datasets import download

CONTENT = bytes(range(256)) * 500
HASH = hashlib.sha256(CONTENT).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Serves by the name of the path; "cut" breaks off in the middle the first two times."""

    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = {"/page": b"<!DOCTYPE html><html>log in</html>", "/empty": b""}.get(self.path, CONTENT)
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        breaks = self.path == "/always-cut" or (self.path == "/cut" and len(self.asked) < 3)
        self.wfile.write(body[: len(body) // 2] if breaks else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[str]:
    monkeypatch.setattr(Server, "asked", [])
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


@pytest.mark.parametrize(("name", "sha256"), [("plain", HASH.upper()), ("cut", HASH), ("cut", None)])
def test_a_file_arrives_whole_and_alone(server, tmp_path, name, sha256):
    path = download.fetch(f"{server}/{name}", tmp_path / "new" / "set.zip", sha256, progress=False)
    assert path.read_bytes() == CONTENT
    assert [each.name for each in path.parent.iterdir()] == ["set.zip"]


def test_what_is_there_is_not_asked_for_again_and_what_differs_is_replaced(server, tmp_path):
    path = tmp_path / "set.csv"
    path.write_bytes(b"older")
    assert download.fetch(f"{server}/plain", path, progress=False).read_bytes() == b"older"
    for _ in range(2):
        download.fetch(f"{server}/plain", path, HASH, progress=False)
    assert path.read_bytes() == CONTENT
    assert Server.asked == ["/plain"]


@pytest.mark.parametrize(
    ("name", "sha256", "error", "message"),
    [
        ("plain", "0" * 64, ValueError, "does not match the known hash"),
        ("page", None, ValueError, "is a web page, not the data itself; log in"),
        ("empty", None, ValueError, "is empty; download it again"),
        ("missing", None, OSError, "404"),
        ("always-cut", None, OSError, "IncompleteRead|Connection broken"),
    ],
)
def test_what_is_something_else_leaves_nothing_and_says_so(server, tmp_path, name, sha256, error, message):
    with pytest.raises(error, match=message) as caught:
        download.fetch(f"{server}/{name}", tmp_path / "set.zip", sha256, progress=False)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no address that starts with https"):
        download.fetch("file:///etc/passwd", tmp_path / "x")


def packed(members: dict[str, bytes], mode: int = 0o100644, **options: int) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", **options) as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, content in members.items():
            info = zipfile.ZipInfo(name.removesuffix("#2"))
            info.external_attr, info.compress_type = mode << 16, archive.compression
            archive.writestr(info, content)
    return stream.getvalue()


def test_an_honest_archive_comes_out_whole_without_the_folder_around_it(tmp_path):
    members = {"set-master/data/legend.csv": b"1,2\n", "set-master/images/ä b.jpg": CONTENT}
    (tmp_path / "a.zip").write_bytes(packed(members))
    out = tmp_path / "out"
    (out / "data").mkdir(parents=True)
    (out / "data" / "legend.csv").write_text("old")
    (out / "mine.txt").write_text("stays")
    found = download.extract(tmp_path / "a.zip", out)
    names = {each.relative_to(out).as_posix(): each.read_bytes() for each in found}
    assert names == {"data/legend.csv": b"1,2\n", "images/ä b.jpg": CONTENT}
    assert sorted(each.name for each in out.iterdir()) == ["data", "images", "mine.txt"]
    (tmp_path / "b.zip").write_bytes(packed({"a/b": b"x", "c": b"y"}))  # nothing is around these
    assert {each.relative_to(out).as_posix() for each in download.extract(tmp_path / "b.zip", out)} == {
        "a/b",
        "c",
    }
    with pytest.raises(FileNotFoundError):
        download.extract(tmp_path / "nowhere.zip", out)


NAMES = ["../up", "a/../../up", "/absolute", "C:/x", "c:x", "//host/share/x", "..\\up", "a/.."]
HOSTILE = {name: packed({name: b"x", "good": b"x"}) for name in NAMES} | {
    "link": packed({"link": b"/etc/passwd"}, mode=0o120777),
    "device": packed({"null": b""}, mode=0o020666),
    "bomb": packed({f"{i}": bytes(30_000_000) for i in range(3)}, compression=zipfile.ZIP_DEFLATED),
    "twice": packed({"a": b"1", "a#2": b"2"}),
    "no zip": CONTENT,
    "cut": packed({"a": CONTENT})[:-30],
    "damaged": packed({"a": b"good", "b": CONTENT}).replace(CONTENT[:64], CONTENT[1:65], 1),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_whole(tmp_path, case):
    (tmp_path / "deep" / "out").mkdir(parents=True)
    archive = tmp_path / "deep" / "a.zip"
    archive.write_bytes(HOSTILE[case])
    with pytest.raises(ValueError, match=r"a\.zip: cannot be unpacked") as caught:
        download.extract(archive, tmp_path / "deep" / "out")
    assert "\n" not in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]
