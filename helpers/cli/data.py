"""The command ``data``: which sets are there, what is wrong with one, how to get it, how it lies on disk."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import did_you_mean
from helpers.cli.mistakes import in_one_line
from helpers.cli.settings import SETS, literal
from helpers.cli.status import short

if TYPE_CHECKING:
    from helpers import datasets

TEXT = """\
  python3 -m helpers data list               which sets lie in data/
  python3 -m helpers data check fer2013      leaks, copies, conflicting labels, balance, what was left out
  python3 -m helpers data get ferplus        download it, or hear what its owner asks for
  python3 -m helpers data write muxspace --out somewhere --faces 200
                                             drawn faces in the layout of a real set, to see it or to test

A download that breaks is tried again. With --sha256 it is kept only if it has this hash; an archive is
unpacked without trusting it. data/README.md says under which terms each set is given; they are its owner's.
"""


@dataclass(frozen=True)
class Source:
    """Where a set comes from.

    Args:
        url: its address; empty where it takes more than an address.
        place: the file, or for an archive the folder, below the data folder.
        instead: what to do where it cannot simply be fetched, or has a second part.
    """

    url: str
    place: str
    instead: str


_KAGGLE = "challenges-in-representation-learning-facial-expression-recognition-challenge"
SOURCES = {
    "synthetic": Source("", "", "it is drawn when it is needed; there is nothing to get"),
    "fer2013": Source(
        "",
        "fer2013.csv",
        f"log in at https://www.kaggle.com/c/{_KAGGLE}/data, accept the rules, download, unpack fer2013.csv",
    ),
    "ferplus": Source(
        "https://raw.githubusercontent.com/microsoft/FERPlus/master/fer2013new.csv",
        "fer2013new.csv",
        "these are the votes; the pixels are fer2013.csv, see: data get fer2013",
    ),
    "muxspace": Source(
        "https://codeload.github.com/muxspace/facial_expressions/zip/refs/heads/master",
        "muxspace",
        "it names no licence: for yourself, to learn",
    ),
    "affectnet": Source(
        "",
        "affectnet",
        "ask for it at http://mohammadmahoor.com/affectnet/ (research groups, signed by their head)",
    ),
    "affectnet_fused": Source(
        "", "affectnet", "it is AffectNet (data get affectnet) with a *_prob_rank.txt beside each annotation"
    ),
    "folder": Source("", "", "these are your own pictures, data/mine/<expression>/*.jpg: --option path mine"),
}
"""Set to where it comes from, as data/README.md names it."""
WRITERS = ("fer2013", "ferplus", "muxspace", "affectnet", "affectnet_fused")
NAMES = {"list": (), "check": SETS, "get": tuple(SOURCES), "write": WRITERS}


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``data``.

    Args:
        parser: the command's own.
    """
    add = parser.add_argument
    add("action", metavar="ACTION", help="list, check, get or write")
    add("name", metavar="NAME", nargs="?", help="the set")
    add("--root", type=Path, default=Path("data"), metavar="FOLDER", help="the data folder (default: data)")
    add("--option", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="check: of the set")
    add("--near", action="store_true", help="check: also the same photograph in another crop")
    add("--json", action="store_true", help="list, check: as JSON")
    add("--url", help="get: another address of the file or archive")
    add("--sha256", metavar="HASH", help="get: what the file must hash to")
    add("--out", type=Path, metavar="FOLDER", help="write: the data folder to write into")
    add("--faces", type=int, default=100, metavar="N", help="write: how many (default: %(default)s)")
    add("--seed", type=int, default=0, help="write: which ones (default: %(default)s)")


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be meant.

    Args:
        arguments: as :func:`declare` has them parsed.

    Raises:
        ValueError: an unknown option, action or set, or one that is missing.
    """
    if arguments.rest:
        raise ValueError(f"unknown option {arguments.rest[0]!r}; python3 -m helpers data --help lists them")
    action, name = arguments.action, arguments.name
    if action not in NAMES:
        raise ValueError(f"unknown action {action!r}{did_you_mean(action, NAMES)}; known: {', '.join(NAMES)}")
    known = NAMES[action]
    if known and name not in known:
        near = f"unknown set {name!r}{did_you_mean(name, known)}"
        what = near if name else f"{action} needs the name of a set"
        raise ValueError(f"{what}; known: {', '.join(known)}")
    if not known and name:
        raise ValueError(f"list takes no name, not {name!r}; data check {name} looks at one set")
    if action == "write" and arguments.out is None:
        raise ValueError("write needs --out FOLDER: nothing is written among your own data by mistake")
    if arguments.faces < 10:
        raise ValueError(f"--faces must be at least 10, not {arguments.faces}")


@in_one_line
def perform(arguments: argparse.Namespace) -> int:
    """Do what the action says; return the exit status.

    Args:
        arguments: as :func:`check` completed them.
    """
    actions: dict[str, Callable] = {"list": _list, "check": _check, "get": _get, "write": _write}
    return actions[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    rows = {name: there(name, arguments.root) for name in SETS if name != "folder"}
    if arguments.json:
        print(json.dumps(rows))
    else:
        for name, row in rows.items():
            print(f"{name:17}{'here' if row['here'] else 'not here':10}{row['what']}")
    return 0


def there(name: str, root: Path) -> dict[str, Any]:
    """Return whether a set lies in a data folder, and what was found or how to get it.

    Args:
        name: of the set.
        root: the data folder.
    """
    from helpers import datasets

    if name == "synthetic":
        return {"here": True, "what": "drawn when needed"}
    layout = datasets.LAYOUTS.get(name)
    try:
        found = layout.files(root) if layout else []
    except (OSError, ValueError):
        found = []
    if found:
        return {"here": True, "what": f"{len(found):,} files, such as {short(found[0])}"}
    source = SOURCES[name]
    return {"here": False, "what": f"data get {name}" if source.url else source.instead}


def _check(arguments: argparse.Namespace) -> int:
    from helpers import datasets

    options = {name: literal(text) for name, text in arguments.option}
    faces = datasets.load(arguments.name, arguments.root, **options)
    found = datasets.audit(faces, near=arguments.near)
    if arguments.json:
        tables = {name: json.loads(table.to_json(orient="records")) for name, table in vars(found).items()}
        balance = json.loads(found.balance.reset_index().to_json(orient="records"))
        print(json.dumps({"faces": len(faces), **tables, "balance": balance}))
    else:
        print(as_text(faces, found))
    return 0


def as_text(faces: datasets.FaceSet, found: datasets.Audit) -> str:
    """Return what an audit found as lines for a terminal.

    Args:
        faces: the set.
        found: its audit.
    """
    parts = [str(faces)[1:-1], _table("Faces of each class", found.balance.round({"share": 3}))]
    leaks = found.duplicates[found.duplicates["faces"] > 0]
    parts.append(_table("Faces with the very pixels of another (of the same split: beyond the first)", leaks))
    many = found.conflicts["group"].nunique()
    parts.append(_table(f"{many} pictures with different labels, the first", found.conflicts.head(6)))
    shared = found.subjects[found.subjects["subjects"] > 0]
    parts.append(_table("People who stand in two splits", shared))
    parts.append(_table("Brightness (0 to 255)", found.brightness.round(1)))
    kinds = found.rejects.groupby("kind").agg(rows=("reason", "size"), remedy=("remedy", "first"))
    parts.append(_table(f"{len(found.rejects):,} rows or pictures left out", kinds))
    parts.append(_table("The first of them", found.rejects.head(6)[["file", "row", "reason"]]))
    if len(found.near_duplicates):
        parts.append(_table("Near twins across splits", found.near_duplicates.head(10).round(3)))
    return "\n\n".join(part for part in parts if part)


def _table(title: str, table: Any) -> str:
    if not len(table):
        return ""
    numbered = list(table.index) == list(range(len(table))) or table.index.name is None
    return f"{title}\n{table.to_string(index=not numbered)}"


def _get(arguments: argparse.Namespace) -> int:
    from helpers.datasets import download

    source = SOURCES[arguments.name]
    url = arguments.url or source.url
    if not url:
        print(f"{arguments.name}: {source.instead}. data/README.md says how it must lie on disk.")
        return 0 if arguments.name in ("synthetic", "folder") else 1
    place = arguments.root / source.place
    if place.suffix:
        download.fetch(url, place, arguments.sha256)
    else:
        packed = arguments.root / f"{arguments.name}.archive"
        download.fetch(url, packed, arguments.sha256)
        download.extract(packed, place)
        packed.unlink()
    found = there(arguments.name, arguments.root)
    print(f"{arguments.name}: {found['what'] if found['here'] else source.instead}")
    return 0


def _write(arguments: argparse.Namespace) -> int:
    from helpers import datasets

    name, out = arguments.name, arguments.out
    if there(name, out)["here"]:
        raise ValueError(f"{name} stands in {out} already: {there(name, out)['what']}; name another folder")
    path = write(name, datasets.load("synthetic", out, num_faces=arguments.faces, seed=arguments.seed), out)
    print(f"{arguments.faces} drawn faces in {short(path)}")
    print(f'datasets.load("{name}", root="{short(out)}") reads them.')
    return 0


def write(name: str, drawn: datasets.FaceSet, out: Path) -> Path:
    """Write drawn faces as a real set lies on disk, with its official splits where it has them.

    Args:
        name: of the set.
        drawn: faces without a split.
        out: the data folder.

    Returns:
        what was written: a file, or a folder.
    """
    from helpers.datasets import layouts

    faces = with_splits(drawn)
    if name == "affectnet_fused":
        return layouts.write_affectnet_fused(faces, _fused(faces), out)
    if name == "muxspace":
        return layouts.write_muxspace(faces, out / "muxspace")
    writers = {
        "fer2013": layouts.write_fer2013,
        "ferplus": layouts.write_ferplus,
        "affectnet": layouts.write_affectnet,
    }
    return writers[name](faces, out)


def with_splits(drawn: datasets.FaceSet) -> datasets.FaceSet:
    """Return the same faces, in the same order, each with the split that a cut gives it.

    Args:
        drawn: faces without a split.
    """
    from dataclasses import replace

    import numpy as np

    named = {}
    for name, part in zip(("train", "validation", "test"), drawn.splits(), strict=True):
        named |= dict.fromkeys(part.source.tolist(), name)
    return replace(drawn, split=np.array([named.get(source, "train") for source in drawn.source.tolist()]))


def _fused(faces: datasets.FaceSet) -> Any:
    import numpy as np
    import torch

    from helpers import faces as drawing

    units, shares = torch.from_numpy(faces.action_units), torch.from_numpy(faces.distribution)
    return np.asarray(drawing.fused_probabilities(units, shares))
