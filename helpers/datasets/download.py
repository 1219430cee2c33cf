"""Get a file from the web, known by its sha256, and unpack what came without trusting it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path, PureWindowsPath

from helpers import images

_NO_NAME = re.compile(
    r'\.\.?|.*[. ]|.*[\x00-\x1f\x7f<>:"|?*].*|(con|prn|aux|nul|com\d|lpt\d)(\..*)?', re.I | re.S
)


def fetch(url: str, path: str | Path, sha256: str | None = None, progress: bool = True) -> Path:
    """Download a file, whole or not at all, unless it is there already (with this hash, if one is given)."""
    import pooch  # it brings requests along, which nothing else needs

    path, wanted = Path(path), sha256 and sha256.lower()
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"{url!r} is no address that starts with https:// or http://")
    if path.exists() and pooch.hashes.hash_matches(path, wanted):
        return path
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    known = {"registry": {part.name: wanted}, "urls": {part.name: url}, "retry_if_failed": 3}
    downloader = pooch.HTTPDownloader(progressbar=progress)
    pooch.create(path.parent, "", **known).fetch(part.name, downloader=downloader)
    with open(part, "rb") as stream:
        found = images.stand_in(stream.read(200))
    if found:
        part.unlink()
        raise ValueError(f"{url}: {found[0]}; {found[1]}")
    os.replace(part, path)
    return path


def extract(archive: str | Path, folder: str | Path) -> list[Path]:
    """Unpack a zip, all of it or nothing; a folder around everything is taken away.

    Raises:
        ValueError: it is no zip, is damaged, or holds what no data set does: names that lead out of the
            folder, links, two names for one file, more than two hundred times its own size.
        OSError: there is no such file, or no room for what it holds.
    """
    archive, folder = Path(archive), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as hidden:
        try:
            with zipfile.ZipFile(archive) as opened:
                members = _judged(opened, max(10**7, 200 * archive.stat().st_size), folder)
                for info, target in members.items():
                    Path(hidden, target).parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(info) as source, open(Path(hidden, target), "xb") as file:
                        shutil.copyfileobj(source, file)  # no more than the size it was judged by
            for target in members.values():
                (folder / target).parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(hidden, target), folder / target)
        except Exception as error:  # a damaged archive can make zipfile raise anything at all
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = str(error).split("\n", 1)[0] or type(error).__name__
            remedy = "download it again, or unpack it by hand"
            raise ValueError(f"{archive}: cannot be unpacked ({reason}); {remedy}") from None
    return [folder / target for target in members.values()]


def _judged(opened: zipfile.ZipFile, limit: int, folder: Path) -> dict[zipfile.ZipInfo, Path]:
    """Return where each file belongs, before a byte is written; or refuse the archive for one bad member."""
    members, seen = {}, set()
    for info in opened.infolist():
        path, limit = PureWindowsPath(info.orig_filename), limit - info.file_size  # it knows both slashes
        if info.external_attr >> 28 not in (0, 4, 8):  # the upper bits of a Unix mode: folder, file
            raise ValueError(f"{info.filename!a} is a link or a device, no file")
        if not path.parts or path.anchor or any(_NO_NAME.fullmatch(part) for part in path.parts):
            raise ValueError(f"{info.filename!a} is no name below a folder on every system")
        if limit < 0:
            raise ValueError("claims to hold more than an archive of its size does")
        if not info.filename.endswith(("/", "\\")):
            members[info] = path.parts
    tops = {parts[0] for parts in members.values()}
    bare = len(tops) == 1 and all(parts[1:] for parts in members.values())
    members = {info: Path(*parts[bare:]) for info, parts in members.items()}
    for target in members.values():
        above = [folder / parent for parent in [*target.parents][:-1]]
        if str(target).casefold() in seen or (folder / target).is_dir():
            raise ValueError(f"{target.as_posix()!a} is there twice, or a folder has its name")
        if any(parent.is_symlink() or parent.is_file() for parent in above):
            raise ValueError(f"a file or link stands where a folder around {target.as_posix()!a} belongs")
        seen.add(str(target).casefold())
    return members
