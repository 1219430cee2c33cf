"""A download is whole or not there, whatever the server does; an archive writes nothing outside a folder."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import io
import lzma
import multiprocessing
import os
import re
import shutil
import signal
import stat
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.datasets import archives, download

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 301072766\n"
HTML = b"<!DOCTYPE html>\n<html><title>Sign in</title></html>\n"


class Server(ThreadingHTTPServer):
    """Serves CONTENT with the manners that the first part of the address names.

    ``requests`` holds (manner, Range) of each request, ``limit`` the bytes after which it hangs up.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []
        self.content, self.tag, self.limit, self.pace, self.broken = CONTENT, '"1"', None, 0.0, 0
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, manner: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{manner}/file.bin"

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients that hang up are what is tested."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        manner, asked = self.path.split("/")[1], self.headers.get("Range")
        self.server.requests.append((manner, asked))
        self.close_connection = True
        getattr(self, f"do_{manner.replace('-', '_')}", self.do_plain)(asked)

    def head(self, status: int, length: int | None, **fields: str) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()

    def send(self, data: bytes) -> None:
        limit = self.server.limit
        for start in range(0, len(data[:limit]), 8192):
            self.wfile.write(data[start : min(start + 8192, len(data[:limit]))])
            time.sleep(self.server.pace)

    def do_plain(self, asked: str | None) -> None:
        data, same = self.server.content, self.headers.get("If-Range") == self.server.tag
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and same else 0
        if start >= len(data):
            self.head(416, 0, Content_Range=f"bytes */{len(data)}")
        elif start:
            extent = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.head(206, len(data) - start, Content_Range=extent, ETag=self.server.tag)
            self.send(data[start:])
        else:
            self.head(200, len(data), ETag=self.server.tag)
            self.send(data)

    def do_nameless(self, _: str | None) -> None:  # nothing to know a version by
        self.head(200, len(self.server.content))
        self.send(self.server.content)

    def do_wrong_part(self, asked: str | None) -> None:
        if not asked or len(self.server.requests) > 2:
            return self.do_plain(None)
        self.head(206, 10, Content_Range="bytes 0-9/10", ETag=self.server.tag)
        return self.send(b"0123456789")

    def do_liar(self, asked: str | None) -> None:  # says that nothing changed, and sends other bytes
        if not asked:
            return self.do_plain(None)
        self.server.tag = self.headers["If-Range"]
        return self.do_plain(asked)

    def do_chunked(self, _: str | None) -> None:
        self.head(200, None, Transfer_Encoding="chunked")
        for start in range(0, len(self.server.content), 60_000):
            block = self.server.content[start : start + 60_000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
            if self.server.broken and start:
                self.server.broken -= 1
                return
        self.wfile.write(b"0\r\n\r\n")

    def do_unsaid(self, _: str | None) -> None:
        self.head(200, None)
        self.send(self.server.content)

    def do_html(self, _: str | None) -> None:
        self.head(200, len(HTML), Content_Type="text/html")
        self.wfile.write(HTML)

    def do_to_html(self, _: str | None) -> None:
        self.head(302, 0, Location="/html/login")

    def do_elsewhere(self, _: str | None) -> None:
        self.head(302, 0, Location="/plain/file.bin")

    def do_circle(self, _: str | None) -> None:
        self.head(302, 0, Location="/circle/file.bin")

    def do_to_disk(self, _: str | None) -> None:
        self.head(302, 0, Location="file:///etc/hostname")

    def do_lfs(self, _: str | None) -> None:
        self.head(200, len(LFS))
        self.wfile.write(LFS)

    def do_empty(self, _: str | None) -> None:
        self.head(200, 0)

    def do_missing(self, _: str | None) -> None:
        self.head(404, 0)

    def do_forbidden(self, _: str | None) -> None:
        self.head(403, 0)

    def do_busy(self, asked: str | None) -> None:
        if len(self.server.requests) < 3:
            return self.head(503, 0)
        return self.do_plain(asked)

    def do_garbage(self, _: str | None) -> None:
        self.wfile.write(b"\x00\xff\x00 this is no HTTP\r\n\r\n")

    def do_hang_up(self, _: str | None) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    yield running
    running.shutdown()
    running.server_close()


def fetch(server: Server, manner: str, folder: Path, sha256: str | None = None) -> Path:
    return download.fetch(server.url(manner), folder / "file.bin", sha256, progress=False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- what arrives is whole


@pytest.mark.parametrize("sha256", [None, DIGEST, DIGEST.upper()])
@pytest.mark.parametrize("manner", ["plain", "nameless", "chunked", "elsewhere", "busy"])
def test_a_file_arrives_whole_and_alone(server, tmp_path, manner, sha256):
    assert fetch(server, manner, tmp_path / "new", sha256).read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["file.bin"]


def test_what_is_there_is_not_asked_for_again_and_what_differs_is_replaced(server, tmp_path):
    fetch(server, "plain", tmp_path, DIGEST)
    fetch(server, "plain", tmp_path, DIGEST)
    fetch(server, "plain", tmp_path)
    assert len(server.requests) == 1
    (tmp_path / "file.bin").write_bytes(b"rotten")
    assert fetch(server, "plain", tmp_path, DIGEST).read_bytes() == CONTENT


def test_a_server_that_hangs_up_again_and_again_is_asked_for_the_rest(server, tmp_path):
    server.limit = 70_000
    assert fetch(server, "plain", tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [
        None,
        *(f"bytes={n}-" for n in range(70000, 300000, 70000)),
    ]


def test_a_file_that_changed_in_between_is_fetched_anew(server, tmp_path):
    server.limit = 0
    part = tmp_path / "file.bin.part"
    part.write_bytes(b"x" * 1000)
    Path(f"{part}.json").write_text(f'{{"url": "{server.url("plain")}", "version": "\\"0\\""}}')
    server.limit = None
    assert fetch(server, "plain", tmp_path).read_bytes() == CONTENT
    assert server.requests == [("plain", "bytes=1000-")]


@pytest.mark.parametrize("note", ["", "{torn", "[1]", '{"url": "http://other/", "version": "\\"1\\""}'])
def test_a_part_of_unknown_origin_is_not_gone_on_with(server, tmp_path, note):
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    (tmp_path / "file.bin.part.json").write_text(note)
    assert fetch(server, "plain", tmp_path).read_bytes() == CONTENT
    assert server.requests == [("plain", None)]


@pytest.mark.parametrize("manner", ["wrong-part", "liar"])
def test_a_server_that_answers_wrongly_spoils_nothing(server, tmp_path, manner):
    part = tmp_path / "file.bin.part"
    part.write_bytes(b"x" * 1000)
    Path(f"{part}.json").write_text(f'{{"url": "{server.url(manner)}", "version": "\\"1\\""}}')
    assert fetch(server, manner, tmp_path, DIGEST).read_bytes() == CONTENT


def test_all_but_the_name_was_there(server, tmp_path):
    part = tmp_path / "file.bin.part"
    part.write_bytes(CONTENT)
    Path(f"{part}.json").write_text(f'{{"url": "{server.url("plain")}", "version": "\\"1\\""}}')
    assert fetch(server, "plain", tmp_path).read_bytes() == CONTENT
    assert server.requests == [("plain", f"bytes={len(CONTENT)}-")]


def test_a_chunked_answer_that_breaks_is_noticed(server, tmp_path):
    server.broken = 2
    assert fetch(server, "chunked", tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 3


# --- what is not the file is named, and nothing of it stays


@pytest.mark.parametrize(
    ("manner", "sha256", "message"),
    [
        ("html", None, "is a web page, not the data itself; log in"),
        ("html", DIGEST, "is a web page, not the data itself; log in"),
        ("to-html", None, "is a web page, not the data itself; log in"),
        ("to-html", DIGEST, "is a web page, not the data itself; log in"),
        ("lfs", None, "is a git-lfs pointer, not the data itself; run `git lfs pull`"),
        ("lfs", DIGEST, "is a git-lfs pointer, not the data itself; run `git lfs pull`"),
        ("empty", None, "is empty; download it again"),
        ("plain", "0" * 64, r"its sha256 is \w{12}\.\.\., not 000000000000\.\.\.; it is another file"),
        ("unsaid", None, "does not say how long the file is; give its sha256"),
    ],
)
def test_what_is_something_else_is_refused_in_one_line(server, tmp_path, manner, sha256, message):
    with pytest.raises(ValueError, match=message) as caught:
        fetch(server, manner, tmp_path, sha256)
    assert "\n" not in str(caught.value)
    assert "file.bin" not in names(tmp_path)


def test_a_length_that_is_not_said_is_no_matter_where_the_hash_is_known(server, tmp_path):
    assert fetch(server, "unsaid", tmp_path, DIGEST).read_bytes() == CONTENT
    server.limit = 1000
    with pytest.raises(ValueError, match="its sha256 is"):
        fetch(server, "unsaid", tmp_path / "cut", DIGEST)


@pytest.mark.parametrize(
    ("manner", "message"),
    [
        ("missing", "answered 404 .*; check the address"),
        ("forbidden", "answered 403 .*; log in, or accept its terms"),
        ("garbage", r"the connection broke .*\(0 bytes are kept\); ask again"),
        ("hang-up", r"the connection broke .*\(0 bytes are kept\); ask again"),
        ("circle", "infinite loop.*check the address"),
        ("to-disk", "Redirection to url 'file:///etc/hostname' is not allowed; check the address"),
    ],
)
def test_a_server_that_does_not_give_it_is_named(server, tmp_path, manner, message):
    with pytest.raises(OSError, match=message) as caught:
        fetch(server, manner, tmp_path)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_a_server_that_is_not_there_is_named(server, tmp_path):
    url = server.url("plain")
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError, match=r"the connection broke .*refused.*; ask again, it goes on there"):
        download.fetch(url, tmp_path / "file.bin", progress=False)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "/etc/hostname", "data:,x", ""])
def test_only_the_web_is_asked(tmp_path, url):
    with pytest.raises(ValueError, match="is no address that starts with https"):
        download.fetch(url, tmp_path / "x")


def test_a_digest_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="sha256 must be 64 hexadecimal digits, not 'abc'"):
        download.fetch("https://example.org/x", tmp_path / "x", sha256="abc")


def test_https_is_not_left_for_http():
    request = download.urllib.request.Request("https://example.org/x")
    with pytest.raises(ValueError, match="sends on to 'http://example.org/x', which is not safe"):
        download._Redirects().redirect_request(request, None, 302, "", {}, "http://example.org/x")


def test_too_little_room_is_said_before_a_byte_is_written(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    with pytest.raises(OSError, match="file.bin has 300,000 bytes, 1,000 are free; make room and ask again"):
        fetch(server, "plain", tmp_path)


def test_a_disk_that_fills_up_keeps_what_came_and_goes_on_after(server, tmp_path, monkeypatch):
    class Full:
        def __init__(self, stream):
            self.stream = stream

        def __getattr__(self, name):
            return getattr(self.stream, name)

        def write(self, data):
            if self.stream.tell() + len(data) > 100_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.stream.write(data)

    append = download._append
    monkeypatch.setattr(download, "_append", lambda part, stream, data: append(part, Full(stream), data))
    with pytest.raises(
        OSError, match=r"No space left on device after [\d,]+ bytes, which are kept; make room"
    ):
        fetch(server, "plain", tmp_path)
    kept = (tmp_path / "file.bin.part").stat().st_size
    monkeypatch.setattr(download, "_append", append)
    assert fetch(server, "plain", tmp_path).read_bytes() == CONTENT
    assert server.requests[-1] == ("plain", f"bytes={kept}-" if kept else None)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes as POSIX has them")


def size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def serve(port) -> None:
    running = Server()
    running.pace = 0.002
    port.send(running.url("plain"))
    signal.pause()


@needs_fork
@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_download_goes_on_and_ends_whole(tmp_path, kills):
    """Each process is killed some bytes after where the one before was; that one's bytes stay.

    The server is a process too: a fork beside a thread may find that thread's locks taken for good.
    """
    context, random = multiprocessing.get_context("fork"), np.random.default_rng(kills)
    mine, its = context.Pipe()
    serving = context.Process(target=serve, args=(its,), daemon=True)
    serving.start()
    url, part, gone_on = mine.recv(), tmp_path / "file.bin.part", 0
    for _ in range(5 * kills):
        (tmp_path / "file.bin").unlink(missing_ok=True)
        kept, until = size(part), time.monotonic() + 20
        much = kept + int(random.integers(1, 80_000))
        process = context.Process(target=download.fetch, args=(url, tmp_path / "file.bin", DIGEST, False))
        process.start()
        while process.is_alive() and size(part) < much and time.monotonic() < until:
            time.sleep(0.001)
        process.kill()
        process.join()
        if (tmp_path / "file.bin").exists():  # never under its name before it is whole
            assert (tmp_path / "file.bin").read_bytes() == CONTENT
        else:
            assert size(part) >= kept
            gone_on += process.exitcode == -signal.SIGKILL and size(part) > kept > 0
        if gone_on == kills:
            break
    assert download.fetch(url, tmp_path / "file.bin", DIGEST, False).read_bytes() == CONTENT
    serving.kill()
    assert names(tmp_path) == ["file.bin"]
    assert gone_on == kills


# --- honest archives


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def tarred(*members: tuple[str, bytes] | tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return stream.getvalue()


def entry(name: str, kind: bytes, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


GOOD = {"set/a.csv": b"1,2\n" * 500, "set/train/b.png": CONTENT[:5000], "set/empty": b"", "c é.txt": b"c"}
WRITTEN = {
    "zip": zipped(GOOD),
    "stored zip": zipped(GOOD, zipfile.ZIP_STORED),
    "tar": tarred(*GOOD.items()),
    "gnu tar": tarred(*GOOD.items(), format=tarfile.GNU_FORMAT),
    "tar.gz": gzip.compress(tarred(*GOOD.items())),
    "tar.bz2": bz2.compress(tarred(*GOOD.items())),
    "tar.xz": lzma.compress(tarred(*GOOD.items())),
    "with folders": tarred(entry("./", tarfile.DIRTYPE), entry("set", tarfile.DIRTYPE), *GOOD.items()),
    "with dots": tarred(*((f"./{name}", data) for name, data in GOOD.items())),
    "with backslashes": zipped({name.replace("/", "\\"): data for name, data in GOOD.items()}),
}


def put(folder: Path, data: bytes) -> Path:
    (folder / "data.archive").write_bytes(data)
    return folder / "data.archive"


@pytest.mark.parametrize("kind", WRITTEN)
def test_an_honest_archive_comes_out_whole(tmp_path, kind):
    found = download.extract(put(tmp_path, WRITTEN[kind]), tmp_path / "out")
    assert found == [tmp_path / "out" / name for name in GOOD]
    assert {name: (tmp_path / "out" / name).read_bytes() for name in GOOD} == GOOD
    assert sum(path.is_file() for path in (tmp_path / "out").rglob("*")) == len(GOOD)


def test_what_stands_there_is_replaced_and_what_is_beside_it_stays(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.csv").write_bytes(b"old")
    (tmp_path / "set" / "mine.txt").write_bytes(b"mine")
    (tmp_path / ".unpacking-killed").mkdir()
    download.extract(put(tmp_path, WRITTEN["zip"]), tmp_path)
    assert (tmp_path / "set" / "a.csv").read_bytes() == GOOD["set/a.csv"]
    assert (tmp_path / "set" / "mine.txt").read_bytes() == b"mine"
    assert not (tmp_path / ".unpacking-killed").exists()


@given(
    members=st.dictionaries(st.from_regex(r"[a-z]{1,8}\.[a-z]{1,3}", fullmatch=True), st.binary(max_size=600))
)
def test_any_honest_archive_gives_back_what_was_put_in(tmp_path_factory, members):
    members = {name: data for name, data in members.items() if not archives._DEVICES.fullmatch(name)}
    folder = tmp_path_factory.mktemp("a")
    for data in (zipped(members), gzip.compress(tarred(*members.items()))):
        download.extract(put(folder, data), folder / "out")
        assert {path.name: path.read_bytes() for path in (folder / "out").glob("*")} == members


# --- hostile ones


def zip_entry(name: str, data: bytes = b"x", mode: int = 0o100644, flags: int = 0) -> bytes:
    info = zipfile.ZipInfo("n")
    info.filename, info.external_attr, info.create_system = name, mode << 16, 3
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("good.txt", b"good")
        archive.writestr(info, data)
    packed = bytearray(stream.getvalue())
    if flags:
        packed[packed.rindex(b"PK\x01\x02") + 8] |= flags
    return bytes(packed)


def claiming(size: int) -> bytes:
    """A zip whose directory says that its file has another size."""
    packed = bytearray(zipped({"a.txt": b"a" * 1000}))
    place = packed.rindex(b"PK\x01\x02") + 24
    packed[place : place + 4] = size.to_bytes(4, "little")
    return bytes(packed)


def tar_claiming(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    return entry("a", kind, size=size).tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def overlapping(num: int, size: int) -> bytes:
    """Fifield's bomb: a directory of many names for the same bytes."""
    one = zipped({"0": bytes(size)})
    place = one.rindex(b"PK\x01\x02")
    listed = one[place : one.rindex(b"PK\x05\x06")]
    names = b"".join(listed[:46] + chr(97 + i).encode() for i in range(num))
    end = b"PK\x05\x06" + bytes(4) + num.to_bytes(2, "little") * 2
    return (
        one[:place] + names + end + len(names).to_bytes(4, "little") + place.to_bytes(4, "little") + bytes(2)
    )


def in_one_tar(*names: str) -> bytes:
    return tarred(("good.txt", b"good"), *((name, b"x") for name in names))


NO_NAME = "is no name below a folder"
STRANGE = "means something else on another system"
HOSTILE = {
    "parent, zip": (zip_entry("../evil"), NO_NAME),
    "parent, tar": (in_one_tar("../evil"), NO_NAME),
    "parent in the middle": (zip_entry("a/../../evil"), NO_NAME),
    "parent at the end": (zip_entry("a/.."), NO_NAME),
    "parent by backslash": (zip_entry("..\\evil"), NO_NAME),
    "absolute, zip": (zip_entry("/tmp/evil"), NO_NAME),
    "absolute, tar": (in_one_tar("/tmp/evil"), NO_NAME),
    "drive": (zip_entry("C:/evil"), NO_NAME),
    "drive and backslash": (zip_entry("C:\\evil"), NO_NAME),
    "share": (zip_entry("\\\\server\\share\\evil"), NO_NAME),
    "another stream of a file": (zip_entry("good.txt:evil"), NO_NAME),
    "a NUL": (in_one_tar("good.png\x01evil"), NO_NAME),
    "a new line": (in_one_tar("good\nevil"), NO_NAME),
    "right to left": (in_one_tar("good\u202egnp.exe"), NO_NAME),
    "an asterisk": (in_one_tar("good*"), NO_NAME),
    "no name": (in_one_tar("."), NO_NAME),
    "device": (zip_entry("CON"), STRANGE),
    "device with ending": (in_one_tar("set/nul.txt"), STRANGE),
    "another device": (in_one_tar("Com1.csv"), STRANGE),
    "a dot at the end": (in_one_tar("good.txt."), STRANGE),
    "a space at the end": (in_one_tar("good.txt "), STRANGE),
    "our hidden folder": (in_one_tar(".unpacking-1/x"), STRANGE),
    "a name too long": (in_one_tar("n" * 300), "too long a name"),
    "link, zip": (zip_entry("link", b"/etc", mode=0o120777), "is a link or a device"),
    "device, zip": (zip_entry("dev", mode=0o020666), "is a link or a device"),
    "link, tar": (
        tarred(entry("a", tarfile.SYMTYPE, linkname="/etc"), ("a/x", b"x")),
        "is a link or a device",
    ),
    "hard link": (tarred(entry("a", tarfile.LNKTYPE, linkname="/etc/passwd")), "is a link or a device"),
    "link to a link": (
        tarred(
            entry("a", tarfile.SYMTYPE, linkname="b"),
            entry("b", tarfile.SYMTYPE, linkname=".."),
            ("a/../evil", b"x"),
        ),
        "is a link or a device",
    ),
    "device, tar": (tarred(entry("a", tarfile.CHRTYPE, devmajor=1)), "is a link or a device"),
    "pipe": (tarred(entry("a", tarfile.FIFOTYPE)), "is a link or a device"),
    "sparse file": (tar_claiming(0, tarfile.GNUTYPE_SPARSE), "is a link or a device|is damaged"),
    "same name twice": (in_one_tar("good.txt"), "is there twice"),
    "casing": (in_one_tar("GOOD.TXT"), "is there twice, or differs from another by its casing"),
    "casing of folders": (in_one_tar("set/a", "SET/b"), "folders that differ by their casing"),
    "casing beyond ASCII": (in_one_tar("STRASSE", "straße"), "is there twice"),
    "two spellings": (in_one_tar("caf\u00e9", "cafe\u0301"), "is there twice"),
    "file and folder": (in_one_tar("good.txt/evil"), "is a file and a folder"),
    "bomb, zip": (zipped({"zeros": bytes(60_000_000)}), "claim to hold more than"),
    "bomb, tar.gz": (gzip.compress(tarred(("zeros", bytes(60_000_000)))), "claim to hold more than"),
    "bomb, tar.xz": (lzma.compress(tarred(("zeros", bytes(60_000_000)))), "claim to hold more than"),
    "bomb, many names for one": (overlapping(26, 3_000_000), "claim to hold more than|is damaged"),
    "bomb, in a header": (gzip.compress(tar_claiming(2**33, tarfile.GNUTYPE_LONGNAME)), "of header"),
    "bomb, in zeros at the end": (gzip.compress(tarred(("a", b"a")) + bytes(60_000_000)), "unpacks to more"),
    "claims much": (claiming(2**32 - 2), "claim to hold more than"),
    "claims little": (claiming(10), "is damaged"),
    "claims a little more": (claiming(2000), "is damaged"),
    "tar claims much": (tar_claiming(2**40), "claim to hold more than"),
    "password": (zip_entry("a", flags=1), r"cannot be unpacked \(it has a password\)"),
    "cut zip": (WRITTEN["zip"][:-30], "is damaged"),
    "cut tar": (WRITTEN["tar"][:3000], "is damaged"),
    "tar cut between files": (WRITTEN["tar"][: -tarfile.RECORDSIZE], "is damaged"),
    "cut tar.gz": (WRITTEN["tar.gz"][:-40], "is damaged"),
    "cut tar.xz": (WRITTEN["tar.xz"][:-40], "is damaged"),
    "changed zip": (
        WRITTEN["stored zip"].replace(b"1,2\n1,2", b"1,2\n9,2", 1),
        r"is damaged \(Bad CRC-32",
    ),
    "changed tar.gz": (WRITTEN["tar.gz"][:-8] + b"\0\0\0\0" + WRITTEN["tar.gz"][-4:], "is damaged"),
    "git-lfs pointer": (LFS, "is a git-lfs pointer"),
    "web page": (HTML, "is a web page"),
    "nothing": (b"", "is empty"),
    "no archive": (CONTENT[:5000], "is damaged"),
    "rar": (b"Rar!\x1a\x07\x01\x00" + bytes(100), "is packed as rar or 7z; unpack it by hand"),
}


def everything(folder: Path) -> dict[str, bytes | None]:
    """What lies below a folder, hidden or not."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() or path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
    }


def test_enough_hostile_archives():
    assert len(HOSTILE) >= 30


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_whole(tmp_path, case):
    data, reason = HOSTILE[case]
    archive = put(tmp_path, data)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "good.txt").write_bytes(b"mine")
    before = everything(tmp_path)
    with pytest.raises(ValueError, match=reason) as caught:
        download.extract(archive, tmp_path / "out")
    assert str(caught.value).startswith(f"{archive}: ")
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)
    assert everything(tmp_path) == before


@needs_fork
def test_a_link_that_lies_in_the_folder_is_not_written_through(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "set").symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="stands where a folder of it belongs; move that elsewhere"):
        download.extract(put(tmp_path, WRITTEN["zip"]), tmp_path / "out")
    assert names(tmp_path / "outside") == []


def test_a_file_or_folder_in_the_way_is_named(tmp_path):
    (tmp_path / "set").write_bytes(b"a file")
    with pytest.raises(ValueError, match="set stands where a folder of it belongs"):
        download.extract(put(tmp_path, WRITTEN["zip"]), tmp_path)
    (tmp_path / "out" / "set" / "a.csv").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"a\.csv stands where a file of it belongs"):
        download.extract(put(tmp_path, WRITTEN["zip"]), tmp_path / "out")


def test_too_little_room_is_said_before_anything_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    with pytest.raises(OSError, match=r"data\.archive unpacks to [\d,]+ bytes, 1,000 are free; make room"):
        download.extract(put(tmp_path, WRITTEN["zip"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unpacked_files_are_plain_and_readable(tmp_path):
    made = entry("tool", tarfile.REGTYPE, mode=0o6777)
    download.extract(put(tmp_path, tarred(made)), tmp_path / "out")
    mode = (tmp_path / "out" / "tool").stat().st_mode
    assert not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR | stat.S_IWOTH)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@given(
    whole=st.sampled_from([WRITTEN[kind] for kind in ("zip", "tar", "tar.gz", "tar.xz")]),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4
    ),
)
def test_a_changed_archive_is_unpacked_or_refused_and_nothing_else(tmp_path_factory, whole, changes):
    data = bytearray(whole)
    for place, byte in changes:
        data[int(place * len(data))] = byte
    folder = tmp_path_factory.mktemp("a")
    found, said = [], ""
    try:
        found = download.extract(put(folder, bytes(data)), folder / "out")
    except ValueError as error:
        said = str(error)
    assert "\n" not in said
    assert sorted(found) == sorted(p for p in (folder / "out").rglob("*") if p.is_file())
    assert set(names(folder)) <= {"data.archive", "out"}
