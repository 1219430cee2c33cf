"""Files that are damaged, strange, or cannot be written: each is named, good ones load, nothing runs."""

from __future__ import annotations

import ast
import errno
import io
import itertools
import json
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import READERS, SETS, WEIGHTS, check_set, mutant, network, put, tried, write_set
from test_images import REFUSED

from helpers import datasets, files, training


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_image_is_named_in_every_set_and_the_good_ones_load(tmp_path, case):
    data, reason, remedy = REFUSED[case]
    for name in ("folder", "muxspace", "rafdb", "affectnet", "affectnet_fused"):
        place = next(file for file in SETS[name][0] if file.endswith((".png", ".jpg")))
        faces = datasets.load(name, write_set(name, tmp_path / name, **{place: data}))
        [rejection] = faces.rejected
        assert rejection.file == place
        assert reason in rejection.reason
        assert remedy in rejection.remedy
        assert len(faces) >= 1


@pytest.mark.parametrize("name", READERS)
def test_what_is_damaged_is_taken_or_refused_and_what_is_whole_is_taken(tmp_path, name):
    wholes, read = READERS[name][0], itertools.count()
    assert all(tried(name, whole, tmp_path / f"whole{i}") for i, whole in enumerate(wholes))
    damaged = st.builds(
        lambda whole, seed: mutant(whole, np.random.default_rng(seed)),
        st.sampled_from(wholes),
        st.integers(0, 2**32 - 1),
    )

    @hypothesis.seed(0)
    @settings(max_examples=25, derandomize=False)
    @given(data=damaged | st.binary(max_size=300))
    def fed(data):
        tried(name, data, tmp_path / str(next(read)))

    fed()
    assert next(read) >= 20


def test_every_layout_has_whole_files_here(tmp_path):
    assert set(SETS) == set(datasets.LAYOUTS) - {"synthetic"}
    assert all(check_set(name, write_set(name, tmp_path / name)) for name in SETS)


def test_every_flipped_byte_of_weights_is_found(tmp_path):
    """In the header too: the name of the checksum itself, or the type that the bytes are read as."""
    path, random = tmp_path / "best.safetensors", np.random.default_rng(0)
    for place in range(0, len(WEIGHTS), 7):
        data = bytearray(WEIGHTS)
        data[place] ^= 1 << int(random.integers(8))
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"is damaged|of another network"):
            training.load_weights(network(), path)


@pytest.mark.parametrize(("room", "error"), [(0, errno.EROFS), (300, errno.ENOSPC), (2000, errno.EIO)])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, room, error):
    path, fdopen = tmp_path / "state", os.fdopen
    put(path, b"old")

    class Disk(io.BytesIO):
        def write(self, data) -> int:
            if self.tell() + len(data) > room:
                raise OSError(error, os.strerror(error))
            return super().write(data)

    def opened(descriptor, mode):
        fdopen(descriptor, mode).close()
        return Disk()

    monkeypatch.setattr(files.os, "fdopen", opened)

    def write():
        with files.replacing(path) as stream:
            for _ in range(30):
                stream.write(bytes(100))

    with pytest.raises(OSError, match=r"what was there before stays; make room.*state") as raised:
        write()
    assert raised.value.errno == error
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


class Payload:
    """Unpickled, it would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def payloads(mark: Path) -> dict[str, bytes]:
    stream, torched, zipped = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(stream, np.array([Payload(mark)], dtype=object), allow_pickle=True)
    torch.save({"weights": Payload(mark)}, torched)
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("labels.npy", stream.getvalue())
    header = f"{{'descr': __import__('pathlib').Path({str(mark)!r}).touch(), 'shape': ()}}\n".encode()
    return {
        "pickle": pickle.dumps(Payload(mark)),
        "array of objects": stream.getvalue(),
        "arrays of objects": zipped.getvalue(),
        "torch": torched.getvalue(),
        "code in a header": b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header,
        "yaml": f"!!python/object/apply:pathlib.Path.touch ['{mark}']\n".encode(),
        "postscript": f"%!PS-Adobe-3.0\n({mark}) (w) file closefile\n".encode(),
        "svg": f"<!DOCTYPE s [<!ENTITY x SYSTEM 'file://{mark}'>]><svg>&x;</svg>".encode(),
    }


def test_nothing_that_is_read_is_executed(tmp_path):
    mark = tmp_path / "executed"
    for name, (kind, data) in itertools.product(READERS, payloads(mark).items()):
        tried(name, data, tmp_path / str(hash((name, kind))))
        assert not mark.exists(), (name, kind)
    pickle.loads(payloads(mark)["pickle"])  # which would leave its mark
    assert mark.exists()


UNSAFE = {  # beside what test_structure looks for
    "torchvision.io": "its decoders kill the process on one bad byte",
    "torch.hub.load": "it runs what it downloads",
    "torch.jit.load": "it runs what it loads",
    "os.system": "a file's name becomes a command",
    "yaml.load": "it makes any object",
    "extractall": "it writes wherever the archive says",
}


def unsafe(code: str) -> set[str]:
    """Return which unsafe names a program uses, however it imports them."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
        if isinstance(node, ast.Attribute):
            found |= {ast.unparse(node), node.attr}
    return {name for name in UNSAFE if any(f"{each}.".startswith(f"{name}.") for each in found)}


def test_no_unsafe_reader_is_used_and_the_search_finds_them(root):
    notebooks = [json.loads(path.read_text(encoding="utf-8")) for path in root.glob("0*.ipynb")]
    cells = (cell for notebook in notebooks for cell in notebook["cells"] if cell["cell_type"] == "code")
    # a line for the shell, as Colab needs one, is no Python
    programs = [re.sub(r"^( *)[!%].*", r"\1pass", "".join(cell["source"]), flags=re.M) for cell in cells]
    programs += [path.read_text(encoding="utf-8") for path in (root / "helpers").rglob("*.py")]
    assert {name for program in programs for name in unsafe(program)} == set()
    calls = ("from torchvision import io", "torchvision.io.decode_image(f)", "yaml.load(f)", "z.extractall()")
    assert all(unsafe(call) for call in (*calls, "torch.hub.load(r)", "torch.jit.load(f)", "os.system(c)"))
