"""Get a file from the web, known by its sha256, and unpack what came without trusting it."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from pathlib import Path, PureWindowsPath

from helpers import images


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
                _judge(opened.infolist(), limit=max(10**7, 200 * archive.stat().st_size))
                for info in opened.infolist():
                    opened.extract(info, hidden)  # no more than the size it was judged by
            [*tops] = Path(hidden).iterdir()
            base = tops[0] if len(tops) == 1 and tops[0].is_dir() else Path(hidden)
            found = [folder / path.relative_to(base) for path in sorted(base.rglob("*")) if path.is_file()]
            shutil.copytree(base, folder, copy_function=os.replace, dirs_exist_ok=True)
        except Exception as error:  # a damaged archive can make zipfile raise anything at all
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = str(error).split("\n", 1)[0] or type(error).__name__
            remedy = "download it again, or unpack it by hand"
            raise ValueError(f"{archive}: cannot be unpacked ({reason}); {remedy}") from None
    return found


def _judge(members: list[zipfile.ZipInfo], limit: int) -> None:
    """Refuse an archive before a byte is written."""
    if sum(info.file_size for info in members) > limit:
        raise ValueError("claims to hold more than an archive of its size does")
    if len({info.filename for info in members}) < len(members):
        raise ValueError("holds two files of one name")
    for info in members:
        path = PureWindowsPath(info.orig_filename)  # it knows both slashes
        if path.anchor or ".." in path.parts:
            raise ValueError(f"{info.filename!a} leads out of its folder")
        if info.external_attr >> 28 not in (0, 4, 8):  # the upper bits of a Unix mode: folder, file
            raise ValueError(f"{info.filename!a} is a link or a device, no file")
