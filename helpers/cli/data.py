"""The command ``data``: which sets are there, what is wrong with one, how to get it, how it is laid out."""

from __future__ import annotations

from dataclasses import replace
from json import dumps, loads
from pathlib import Path
from typing import Any, Literal, get_args

from helpers import cli
from helpers.cli.settings import Data

ADDRESSES = {
    "ferplus": "https://raw.githubusercontent.com/microsoft/FERPlus/master/fer2013new.csv",
    "muxspace": "https://codeload.github.com/muxspace/facial_expressions/zip/refs/heads/master",
}
_KAGGLE = "challenges-in-representation-learning-facial-expression-recognition-challenge"
ADVICE = {
    "synthetic": "it is drawn when it is needed; there is nothing to get",
    "fer2013": f"log in at https://www.kaggle.com/c/{_KAGGLE}/data, accept the rules, unpack fer2013.csv",
    "ferplus": "these are the votes; the pixels are fer2013.csv, see: data get fer2013",
    "muxspace": "it names no licence: for yourself, to learn",
    "rafdb": "its authors (Li, Deng and Du 2017) give it to members of universities who write to them",
    "affectnet": "ask for it at http://mohammadmahoor.com/affectnet/ (research groups, signed by their head)",
    "affectnet_fused": "it is AffectNet with a *_prob_rank.txt of 13 shares beside each annotation. Ask for "
    "AffectNet (data get affectnet) and its authors for the files, and put them into affectnet/annotations",
    "folder": "these are your own images, data/mine/<expression>/*.jpg: --option path mine",
}
WRITERS = ("fer2013", "ferplus", "muxspace", "affectnet", "affectnet_fused")


def data(
    action: Literal["list", "check", "get", "write"],
    name: str = "",
    *,
    root: Path = Path("data"),
    options: dict[str, Any] | None = None,
    near: bool = False,
    url: str = "",
    sha256: str = "",
    out: Path | None = None,
    faces: int = 100,
    seed: int = 0,
    json: bool = False,
) -> int:
    """Say which sets are there, and what is wrong with one.

      python3 -m helpers data list               which sets are in data/
      python3 -m helpers data check fer2013      leaks, copies, conflicting labels, balance, what was left out
      python3 -m helpers data get ferplus        download it, or say what its owner asks for
      python3 -m helpers data write muxspace --out somewhere --faces 200
                                                 drawn faces in the layout of a real set, to see it or to test

    With --sha256 a download is kept only if it has this hash; an archive is unpacked without trusting it.
    data/README.md says under which terms each set is given; they are its owner's.

    Args:
        action: list, check, get or write
        name: the set
        root: the data folder
        options: check: an option of the set
        near: check: also the same photograph in another crop
        url: get: another address of the file or archive
        sha256: get: what the file must hash to
        out: write: the data folder to write into
        faces: write: how many
        seed: write: which ones
        json: list, check: as JSON
    """
    if action == "list":
        return _list(root, json)
    known = WRITERS if action == "write" else get_args(Data)
    if not name:
        raise ValueError(f"{action} needs the name of a set; known: {', '.join(known)}")
    name = cli.choose("set", name, known)
    if action == "check":
        return _check(name, root, options or {}, near, json)
    if action == "get":
        return _get(name, root, url or ADDRESSES.get(name, ""), sha256)
    if out is None:
        raise ValueError("write needs --out FOLDER: nothing is written among your own data by mistake")
    if faces < 10:
        raise ValueError(f"--faces must be at least 10, not {faces}")
    if found := there(name, out):
        raise ValueError(f"{name} is in {out} already: {cli.short(found[0])}; name another folder")
    print(f"{faces} drawn faces in {cli.short(write(name, out, faces, seed=seed))}")
    print(f'datasets.load("{name}", root="{cli.short(out)}") reads them.')
    return 0


def there(name: str, root: Path) -> list[Path]:
    """Return the files of a set in a data folder; none where it is not there with its labels."""
    from helpers import datasets

    try:
        return list(datasets.LAYOUTS[name].files(root))
    except (OSError, ValueError):
        return []


def _said(name: str, root: Path) -> str:
    found = there(name, root)
    return f"{len(found):,} files, such as {cli.short(found[0])}" if found else ADVICE[name]


def _list(root: Path, json: bool) -> int:
    rows = {"synthetic": {"here": True, "what": "drawn when needed"}}
    for name in get_args(Data)[1:-1]:  # a folder of one's own has no fixed place
        here = bool(there(name, root))
        get = not here and name in ADDRESSES
        rows[name] = {"here": here, "what": f"data get {name}" if get else _said(name, root)}
    lines = [f"{n:17}{'here' if row['here'] else 'not here':10}{row['what']}" for n, row in rows.items()]
    print(dumps(rows) if json else "\n".join(lines))
    return 0


def _check(name: str, root: Path, options: dict[str, Any], near: bool, json: bool) -> int:
    from helpers import datasets

    faces = datasets.load(name, root, **options)
    tables = vars(datasets.audit(faces, near=near))
    if json:
        plain = {n: loads(table.reset_index().to_json(orient="records")) for n, table in tables.items()}
        print(dumps({"faces": len(faces), **plain}))
        return 0
    print(f"{str(faces)[1:-1]}\n{datasets.left_out(faces)}")
    for title, table in tables.items():
        if len(table) and title not in ("rejects", "copies"):
            text = table.head(13).round(3).to_string(index=table.index.name is not None)
            print(f"\n{title}: {len(table):,} rows\n{text}")
    return 0


def _get(name: str, root: Path, url: str, sha256: str) -> int:
    from helpers.datasets import download

    if not url:
        print(f"{name}: {ADVICE[name]}. data/README.md says how it must be laid out.")
        return int(name not in ("synthetic", "folder"))
    file = {"fer2013": "fer2013.csv", "ferplus": "fer2013new.csv"}.get(name)
    target = download.fetch(url, root / (file or f"{name}.archive"), sha256 or None)
    if file is None:
        download.extract(target, root / name.removesuffix("_fused"))
        target.unlink()
    print(f"{name}: {_said(name, root)}")
    return 0


def write(name: str, out: Path, num_faces: int, **options: Any) -> Path:
    """Write drawn faces in the layout of a real set, with its splits, and return what was written."""
    import numpy as np
    import torch

    from helpers import datasets
    from helpers import faces as drawing

    drawn = datasets.load("synthetic", out, num_faces=num_faces, **options)
    split = np.full(len(drawn), "train", dtype="U10")
    for name_of, part in zip(("validation", "test"), drawn.splits()[1:], strict=True):
        split[np.isin(drawn.source, part.source)] = name_of
    faces = replace(drawn, split=split)
    writer, given = getattr(datasets.layouts, f"write_{name}"), []
    if name == "affectnet_fused":
        units, shares = torch.from_numpy(faces.action_units), torch.from_numpy(faces.distribution)
        given = [np.asarray(drawing.fused_probabilities(units, shares))]
    return writer(faces, *given, out / "muxspace" if name == "muxspace" else out)
