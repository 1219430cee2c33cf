"""Get a file from the web: whole or not at all, from where a broken download stopped, known by its sha256.

``fetch`` writes ``<name>.part`` beside the target, which gets its name when all bytes are there and are the
right ones. ``extract`` unpacks an archive without trusting it.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from helpers import files, images
from helpers.datasets.archives import extract

__all__ = ["extract", "fetch"]

TIMEOUT = 30
"""Seconds without a byte after which a connection counts as broken."""
ATTEMPTS = 4
"""How often a connection may break in a row without a byte gained."""
PAUSE = 1.0
"""Seconds before the second attempt; doubled for each further one."""
MAX_BYTES = 200 * 10**9
"""A server that does not say how much it sends is not listened to any longer."""

_BLOCK = 2**18
_WORTH_ANOTHER_TRY = {408, 429, 500, 502, 503, 504}
_LOGIN = {401: "log in on its page", 403: "log in, or accept its terms, on its page"}


def fetch(url: str, path: str | Path, sha256: str | None = None, progress: bool = True) -> Path:
    """Download a file, unless it is there already.

    A download that broke goes on where it stopped, if the server says that the file is still the same.

    Args:
        url: http or https.
        path: the file to write; its folder is made.
        sha256: of the file's bytes in hexadecimal. A file that stands at ``path`` with these is not asked for
            again; one with others is replaced.
        progress: show a line that grows on a terminal, and say what was fetched.

    Returns:
        the path.

    Raises:
        ValueError: what came is something else: other bytes than ``sha256`` says, a git-lfs pointer, a web
            page, nothing; or the address is of another kind.
        OSError: the server does not answer or does not have it, or the disk is full.
    """
    path, wanted = Path(path), _checked(url, sha256)
    if path.exists() and (wanted is None or files.sha256(path) == wanted):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _Part(url, path)
    resumed = part.size > 0
    _download(part, wanted, progress)
    if wanted and resumed and files.sha256(part.file) != wanted:
        part.drop()  # the server changed the file without a word: what was there before does not fit
        _download(part, wanted, progress)
    _judge(part, wanted)
    os.replace(part.file, path)
    part.drop()
    if progress:
        print(f"{path.name}: {path.stat().st_size / 1e6:,.1f} MB from {urllib.parse.urlsplit(url).netloc}")
    return path


def _checked(url: str, sha256: str | None) -> str | None:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url!r} is no address that starts with https:// or http://")
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ValueError(f"sha256 must be 64 hexadecimal digits, not {sha256!r}")
    return sha256 and sha256.lower()


class _Part:
    """What has come of a file so far, and of which version of it.

    Args:
        url: where it is from.
        path: what it is to become.
    """

    def __init__(self, url: str, path: Path) -> None:
        self.url, self.path = url, path
        self.file, self.note = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json")
        self.version = self._noted()
        if self.version is None:
            self.drop()

    @property
    def size(self) -> int:
        """How many bytes are there."""
        return self.file.stat().st_size if self.file.exists() else 0

    def _noted(self) -> str | None:
        try:
            note = json.loads(self.note.read_bytes())
            return str(note["version"]) if note["url"] == self.url else None
        except (OSError, ValueError, KeyError, TypeError):  # none, or damaged: it is fetched anew
            return None

    def begin(self, version: str | None) -> None:
        """Forget what is there, and note of which version the next bytes are."""
        self.drop()
        self.version = version
        if version:
            with files.replacing(self.note) as stream:
                stream.write(json.dumps({"url": self.url, "version": version}).encode())

    def drop(self) -> None:
        """Remove what is there."""
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.version = None


class _BrokenOff(Exception):
    """A connection ended before its time."""


def _download(part: _Part, wanted: str | None, progress: bool) -> None:
    """Fill the part, over as many connections as it takes."""
    fruitless, line = 0, _Line(part.path.name, progress)
    try:
        while True:
            before = part.size
            try:
                return _connect(part, wanted, line)
            except _BrokenOff as broken:
                fruitless = 0 if part.size > before else fruitless + 1
                if fruitless >= ATTEMPTS:
                    kept = f"{part.size:,} bytes are kept"
                    text = f"{part.url}: {broken} ({kept}); ask again, it goes on there"
                    raise ConnectionError(text) from None
            time.sleep(PAUSE * 2 ** max(0, fruitless - 1))
    finally:
        line.end()


def _connect(part: _Part, wanted: str | None, line: _Line) -> None:
    headers = {"User-Agent": "reading-faces", "Accept-Encoding": "identity"}
    if part.size and part.version:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.version}
    try:
        with _OPENER.open(urllib.request.Request(part.url, headers=headers), timeout=TIMEOUT) as answer:
            _copy(part, answer, _take_up(part, answer, wanted), wanted, line)
    except urllib.error.HTTPError as error:
        _refused(part, error)
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError) as error:
        raise _BrokenOff(f"the connection broke ({getattr(error, 'reason', None) or error!r})") from None
    except (ConnectionError, TimeoutError) as error:
        raise _BrokenOff(f"the connection broke ({error})") from None


def _refused(part: _Part, error: urllib.error.HTTPError) -> None:
    if error.code == 416:
        if error.headers.get("Content-Range") == f"bytes */{part.size}":
            return  # all of it is here: last time, only the name was missing
        part.drop()
        raise _BrokenOff("the server has a shorter file") from None
    if error.code in _WORTH_ANOTHER_TRY:
        raise _BrokenOff(f"the server answered {error.code} {error.reason}") from None
    reason, remedy = str(error.reason).split("\n", 1)[0], _LOGIN.get(error.code, "check the address")
    raise OSError(f"{part.url}: the server answered {error.code} {reason}; {remedy}") from None


def _take_up(part: _Part, answer: http.client.HTTPResponse, wanted: str | None) -> int | None:
    """Make the part ready for an answer's bytes; return how many the whole file has, None where unsaid."""
    if answer.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if match and int(match[1]) == part.size:
            return None if match[2] == "*" else int(match[2])
        part.drop()
        raise _BrokenOff("the server sent another part than it was asked for")
    part.begin(_version(answer))
    length = answer.headers.get("Content-Length")
    if length is None and not answer.chunked and wanted is None:
        raise ValueError(f"{part.url}: the server does not say how long the file is; give its sha256")
    _check_room(part, int(length or 0))
    return None if length is None else int(length)


def _version(answer: http.client.HTTPResponse) -> str | None:
    """Return what names this version of the file to the byte, None where nothing does."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified")


def _check_room(part: _Part, needed: int) -> None:
    free = shutil.disk_usage(part.path.parent).free
    if needed > free:
        text = f"{part.path.name} has {needed:,} bytes, {free:,} are free; make room and ask again"
        raise OSError(errno.ENOSPC, text, str(part.path))


def _copy(
    part: _Part, answer: http.client.HTTPResponse, total: int | None, wanted: str | None, line: _Line
) -> None:
    with open(part.file, "ab") as stream:
        while data := answer.read1(_BLOCK):
            if wanted is None and stream.tell() == 0:
                _refuse_stand_in(part, data)
            _append(part, stream, data)
            line.show(stream.tell(), total)
        size = stream.tell()
        os.fsync(stream.fileno())
    if total is not None and size < total:
        raise _BrokenOff(f"it ended after {size:,} of {total:,} bytes")
    if total is not None and size > total:
        part.drop()
        raise _BrokenOff("more came than the server said")


def _append(part: _Part, stream, data: bytes) -> None:
    if stream.tell() + len(data) > MAX_BYTES:
        raise ValueError(f"{part.url}: sends more than {MAX_BYTES:,} bytes; check the address")
    try:
        stream.write(data)
        stream.flush()
    except OSError as error:
        text = f"{error.strerror} after {part.size:,} bytes, which are kept; make room and ask again"
        raise OSError(error.errno, text, str(part.path)) from None


def _refuse_stand_in(part: _Part, head: bytes) -> None:
    found = images.stand_in(head)
    if found:
        part.drop()
        raise ValueError(f"{part.url}: {found[0]}; {found[1]}")


def _judge(part: _Part, wanted: str | None) -> None:
    """Refuse what is not the file that was asked for; nothing of it stays."""
    found = files.sha256(part.file) if wanted else None
    if found is None or found != wanted:
        with open(part.file, "rb") as stream:
            head = stream.read(200)
        _refuse_stand_in(part, head)
    if found != wanted:
        part.drop()
        which = f"its sha256 is {found[:12]}..., not {wanted[:12]}..."
        raise ValueError(f"{part.url}: {which}; it is another file, or was changed: do not use it")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server that sends elsewhere, but never from https to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # noqa: D102
        old, new = (urllib.parse.urlsplit(url).scheme for url in (req.full_url, newurl))
        if new not in ("http", "https") or (old, new) == ("https", "http"):
            raise ValueError(f"{req.full_url}: sends on to {newurl!r}, which is not safe; check the address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens http and https alone: no file of this machine, no ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
        _Redirects,
    ):
        opener.add_handler(handler())
    return opener


_OPENER = _opener()


class _Line:
    """A line that says on a terminal how much has come."""

    def __init__(self, name: str, shown: bool) -> None:
        self.name, self.shown, self.drawn = name, shown and sys.stderr.isatty(), 0.0

    def show(self, done: int, total: int | None) -> None:
        if self.shown and time.monotonic() - self.drawn > 0.2:
            self.drawn = time.monotonic()
            of = f" of {total / 1e6:,.1f}" if total else ""
            print(f"\r\x1b[K{self.name}: {done / 1e6:,.1f}{of} MB", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.shown and self.drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
