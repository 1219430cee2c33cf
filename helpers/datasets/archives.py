"""Unpack what came from the web without trusting it: every name and size is judged before a byte is written.

The whole archive is refused for one bad member: whoever put it there, it is not the set it claims to be.
Only plain files come out. They are unpacked into a hidden folder and moved to their places when all are
whole, so a process that is killed leaves nothing that looks like data.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import re
import shutil
import tarfile
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from helpers import images

MAX_BYTES = 200 * 10**9
"""What all members may hold together."""
MAX_MEMBERS = 2_000_000
MAX_RATIO = 200
"""How many times its own size an archive may hold: pictures 1, FER2013's csv 3, a bomb 1,000 and more."""
ALWAYS = 10 * 10**6
"""Bytes that every archive may hold, however small it is."""

_HIDDEN = ".unpacking-"
_LONGEST = 2**24  # bytes read at once: a header may ask tarfile to take gigabytes into memory
_UNWRAP = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\ud800-\udfff\u202a-\u202e\u2066-\u2069]')


@dataclass(frozen=True)
class _Member:
    """A file in an archive: its name with forward slashes, its size in bytes, and what opens it."""

    name: str
    size: int
    open: partial


class _Refused(Exception):
    """The archive is not to be unpacked.

    Args:
        reason: why.
        remedy: what to do; None where the archive holds what no honest one does.
    """

    def __init__(self, reason: str, remedy: str | None = None) -> None:
        remedy = remedy or "nothing was unpacked: get it from its owner's page"
        super().__init__(f"{reason}; {remedy}")


def extract(archive: str | Path, folder: str | Path) -> list[Path]:
    """Unpack a zip or a tar (plain, gz, bz2, xz), all of it or nothing.

    Args:
        archive: the file; what it is shows in its content, not its name.
        folder: where to; it is made. A file that stands there under the same name is replaced.

    Returns:
        the files, in the archive's order.

    Raises:
        ValueError: it is no archive, is damaged, or holds what could do harm: names that lead out of the
            folder or that some system cannot have, links, devices, two names for one file, far more bytes
            than it should.
        OSError: there is no such file, or no room for what it holds.
    """
    archive, folder = Path(archive), Path(folder)
    with _in_one_line(archive):
        _refuse_stand_in(archive)
        with _members(archive) as members:
            listed = [(member.name, member.size) for member in _judged(archive, members)]
        _check_places([name for name, _ in listed], folder)
        _check_room(sum(size for _, size in listed), archive, folder)
        with _members(archive) as members:
            return _unpack(members, folder)


@contextmanager
def _in_one_line(archive: Path) -> Iterator[None]:
    """Say what is wrong with an archive, whichever way the library found it."""
    try:
        yield
    except _Refused as error:
        raise ValueError(f"{archive}: {error}") from None
    except Exception as error:  # a damaged archive can make zipfile and tarfile raise anything at all
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: seeks before 0
            raise
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        if isinstance(error, RuntimeError):  # zipfile's, for a password and for methods it does not know
            raise ValueError(f"{archive}: cannot be unpacked ({reason}); unpack it by hand") from None
        raise ValueError(f"{archive}: is damaged ({reason}); download it again") from None


def _refuse_stand_in(archive: Path) -> None:
    with open(archive, "rb") as stream:
        head = stream.read(200)
    found = images.stand_in(head)
    if found:
        raise _Refused(*found)
    if head.startswith((b"Rar!", b"7z\xbc\xaf")):
        raise _Refused("is packed as rar or 7z", "unpack it by hand")


# ---------------------------------------------------------------- what is in it


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    """Open an archive and yield its files one after the other, folders left out."""
    with ExitStack() as stack:
        stream = stack.enter_context(open(archive, "rb"))
        if zipfile.is_zipfile(stream):
            yield _in_zip(stack.enter_context(zipfile.ZipFile(stream)))
        else:
            plain = _unwrapped(archive, stream)
            yield _in_tar(stack.enter_context(tarfile.open(fileobj=plain, mode="r:")), plain)


def _unwrapped(archive: Path, stream: BinaryIO) -> _Bounded:
    stream.seek(0)
    head = stream.read(6)
    stream.seek(0)
    for magic, kind in _UNWRAP.items():
        if head.startswith(magic):
            return _Bounded(kind(stream), _allowed(archive))
    return _Bounded(stream, _allowed(archive))


def _allowed(archive: Path) -> int:
    return min(MAX_BYTES, max(ALWAYS, MAX_RATIO * archive.stat().st_size))


class _Bounded:
    """A stream that gives no more than it should, neither at once nor in all.

    Args:
        stream: what is read.
        allowed: bytes in all; the headers of a tar come on top of its members.
    """

    def __init__(self, stream: BinaryIO, allowed: int) -> None:
        self.stream, self.allowed = stream, 2 * allowed + _LONGEST

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST:
            raise _Refused(f"asks for {size:,} bytes of header")
        data = self.stream.read(size)
        self._check(self.stream.tell())
        return data

    def seek(self, place: int, whence: int = 0) -> int:
        if whence == 0:
            self._check(place)
        return self.stream.seek(place, whence)

    def tell(self) -> int:
        return self.stream.tell()

    def _check(self, place: int) -> None:
        if place > self.allowed:
            raise _Refused(f"unpacks to more than {self.allowed:,} bytes")


def _in_zip(opened: zipfile.ZipFile) -> Iterator[_Member]:
    for info in opened.infolist():
        kind = info.external_attr >> 28  # the upper bits of a Unix mode: 4 folder, 8 file, 10 link
        if kind not in (0, 4, 8):
            raise _Refused(f"{_shown(info.filename)} is a link or a device, no file")
        if info.flag_bits & 1:
            raise RuntimeError("it has a password")
        is_folder = info.filename.endswith(("/", "\\"))
        name = _name(info.orig_filename, is_folder)
        if not is_folder:
            yield _Member(name, info.file_size, partial(opened.open, info))


def _in_tar(opened: tarfile.TarFile, stream: _Bounded) -> Iterator[_Member]:
    while (info := opened.next()) is not None:
        if not (info.isreg() or info.isdir()) or info.issparse():
            raise _Refused(f"{_shown(info.name)} is a link or a device, no file")
        name = _name(info.name, info.isdir())
        opened.members.clear()  # it would keep every header of a set of 300,000 pictures
        if info.isreg():
            yield _Member(name, info.size, partial(opened.extractfile, info))
    stream.seek(opened.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile ends at damage without a word
        raise EOFError("it ends before its end")
    while stream.read(2**20):  # to where gzip compares its checksum
        pass


# ---------------------------------------------------------------- judged by name and size


def _judged(archive: Path, members: Iterable[_Member]) -> Iterator[_Member]:
    """Yield the members while they are few and small enough for their archive."""
    allowed, total = _allowed(archive), 0
    for number, member in enumerate(members, start=1):
        total += member.size
        if member.size < 0 or total > allowed:
            raise _Refused(f"its {archive.stat().st_size:,} bytes claim to hold more than {allowed:,}")
        if number > MAX_MEMBERS:
            raise _Refused(f"holds more than {MAX_MEMBERS:,} files")
        yield member


def _name(name: str, is_folder: bool = False) -> str:
    """Return a member's name with forward slashes, if it means one place below a folder on every system."""
    parts = name.replace("\\", "/").split("/")
    if is_folder and parts[-1] == "":
        parts.pop()
    parts = [part for part in parts if part != "."]
    if not (parts or is_folder):
        raise _Refused(f"{_shown(name)} is no name below a folder")
    for part in parts:
        if part in ("", "..") or _FORBIDDEN.search(part):
            raise _Refused(f"{_shown(name)} is no name below a folder")
        if part[-1] in ". " or _DEVICES.fullmatch(part) or part.startswith(_HIDDEN):
            raise _Refused(f"{_shown(name)} means something else on another system")
        if len(part.encode()) > 255:
            raise _Refused(f"{_shown(name)} is too long a name")
    return "/".join(parts)


def _check_places(names: list[str], folder: Path) -> None:
    """Refuse two names for one file, a file that is another's folder, and what lies behind a link."""
    seen: set[str] = set()
    for name in names:
        if _folded(name) in seen:
            raise _Refused(f"{_shown(name)} is there twice, or differs from another by its casing alone")
        seen.add(_folded(name))
    parents = {parent for name in names for parent in _above(name)}
    if len({_folded(parent) for parent in parents}) < len(parents):
        raise _Refused("holds folders that differ by their casing alone")
    for parent in parents:
        if _folded(parent) in seen:
            raise _Refused(f"{_shown(parent)} is a file and a folder in it")
        place = folder / parent
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise _Refused(f"{place} stands where a folder of it belongs", "move that elsewhere")
    for name in names:
        if (folder / name).is_dir():
            raise _Refused(f"the folder {folder / name} stands where a file of it belongs", "move it")


def _above(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _check_room(needed: int, archive: Path, folder: Path) -> None:
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed > free:
        text = f"{archive.name} unpacks to {needed:,} bytes, {free:,} are free; make room"
        raise OSError(errno.ENOSPC, text, str(folder))


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 80 else name[:77] + "...")


# ---------------------------------------------------------------- to their places


def _unpack(members: Iterable[_Member], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    hidden = Path(tempfile.mkdtemp(prefix=_HIDDEN, dir=folder))
    try:
        names = [_write(member, hidden) for member in members]
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(hidden / name, folder / name)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return [folder / name for name in names]


def _write(member: _Member, hidden: Path) -> str:
    path = hidden / member.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as source, open(path, "xb") as target:
        left = member.size
        while left and (data := source.read(min(left, 2**20))):
            target.write(data)
            left -= len(data)
        if left or source.read(1):  # to the end, where a zip's checksum is compared
            raise EOFError(f"{_shown(member.name)} is not as long as it says")
    return member.name


def _sweep(folder: Path) -> None:
    """Remove what an unpacking that was killed left."""
    for left in folder.glob(_HIDDEN + "*"):
        shutil.rmtree(left, ignore_errors=True)
