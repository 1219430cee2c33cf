"""The folder that a training leaves: record, history, best weights, and the state to go on from."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
import os
import shutil
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd
import safetensors
import safetensors.torch
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from helpers import did_you_mean, files, models, plotting
from helpers.training.tracking import TensorBoard, Tracker

MAY_CHANGE = ("epochs", "patience", "precision", "compile")
"""Settings with which a training goes on although they differ from those it was begun with."""

LEFT = (
    "finished.json",
    "state.safetensors",
    "best.safetensors",
    "history.csv",
    "predictions.npz",
    "curves.png",
)
"""What a training leaves to go on from, or to be taken for finished, beside ``config.json``."""


@dataclass
class History:
    """The epochs of one training.

    Args:
        monitor: the metric that picks the best epoch.
        lower_is_better: whether less of it is better.
        epochs: one record an epoch: "epoch" (from 1), "lr", "train_loss", "loss" and the metrics (on the
            validation set), the metrics on the training steps ("train_accuracy"), "seconds",
            "images_per_second".
        stopped: whether it was stopped before its end.
        ended: why it ended: "all epochs", "early stopping" or "stopped"; "" as long as it has not.
    """

    monitor: str
    lower_is_better: bool = False
    epochs: list[dict[str, float]] = field(default_factory=list)
    stopped: bool = False
    ended: str = ""

    @property
    def best(self) -> dict[str, float] | None:
        """The record of the best epoch, the earliest where several are equal; None before the first."""
        return self.best_by(self.monitor, self.lower_is_better)

    @property
    def best_epoch(self) -> int:
        """The number of the best epoch, from 1; 0 before the first."""
        return int(self.best["epoch"]) if self.best else 0

    @property
    def epochs_since_best(self) -> int:
        """How many epochs have passed since the best one."""
        return len(self.epochs) - self.best_epoch

    def best_by(self, name: str, lower_is_better: bool) -> dict[str, float] | None:
        """Return the first record with the best of a score; NaN is worse than any other."""
        sign = 1 if lower_is_better else -1
        rank = lambda record: (math.isnan(record[name]), sign * record[name])  # noqa: E731
        return min(self.epochs, key=rank, default=None)

    def frame(self) -> pd.DataFrame:
        """Return one row an epoch."""
        return pd.DataFrame(self.epochs)


class Run:
    """A folder ``runs/<name>``: config.json, history.csv, best.safetensors, predictions.npz, curves.png,
    state.safetensors (to go on from), tensorboard/, and finished.json, the mark of the end, written last.

    Args:
        folder: the folder; made at the first write.
        about: what else ``config.json`` is to say, plain types by name: the data, the command, a note.
        trackers: who is told how it goes, beside TensorBoard.
    """

    def __init__(
        self, folder: str | Path, about: Mapping[str, Any] | None = None, trackers: Sequence[Tracker] = ()
    ) -> None:
        self.folder, self.about = Path(folder), dict(about or {})
        self.best, self.state = self.folder / "best.safetensors", self.folder / "state.safetensors"
        self.trackers = [TensorBoard(self.folder / "tensorboard"), *trackers]
        self.record: dict[str, Any] = {}
        self._drawn: dict[str, Figure] = {}

    # ------------------------------------------------------------ to read

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Return a training that was kept, to read: its ``record``, ``model``, ``epoch`` and ``scores``.

        Args:
            path: the folder, or a file of weights that a training kept.

        Raises:
            FileNotFoundError: there is no training; the message says what lies there.
            ValueError: the record is damaged, or does not say what was learned.
        """
        path = Path(path).expanduser()
        run = cls(path if path.is_dir() else path.parent)
        run.best = run.best if path.is_dir() else path
        if not run.best.is_file():
            here = sorted(each.parent.name for each in path.parent.glob("*/best.safetensors"))
            there = f"trained ones there: {', '.join(here)}" if here else "training.fit(run=...) leaves one"
            raise FileNotFoundError(f"no trained network in {path}{did_you_mean(path.name, here)}; {there}")
        file = run.folder / "config.json"
        text = file.read_bytes() if path.is_dir() and file.is_file() else _metadata(path).get("record", "{}")
        run.record = checked_record(text, file if path.is_dir() else path)
        return run

    def load(self, model: nn.Module) -> nn.Module:
        """Return the network with the best weights, in evaluation mode."""
        load_weights(model, self.best)
        return model.eval()

    @functools.cached_property
    def model(self) -> nn.Module:
        """The network with the best weights, made again from the record."""
        spec = {k: v for k, v in self.record["model"].items() if k not in ("class", "weights")}
        if "name" not in spec:
            kind = self.record["model"].get("class", "network")
            raise ValueError(
                f"{self.folder} holds a {kind} that models.create did not make; give it as model="
            )
        return self.load(models.create(**spec))

    @property
    def finished(self) -> dict[str, Any] | None:
        """What the mark of the end says; None where the training has not ended."""
        try:
            return json.loads((self.folder / "finished.json").read_bytes())
        except (OSError, ValueError):
            return None

    @property
    def history(self) -> pd.DataFrame:
        """A row an epoch; empty where the folder has no history."""
        path = self.folder / "history.csv"
        return pd.read_csv(path) if path.is_file() else pd.DataFrame()

    @property
    def scores(self) -> dict[str, float]:
        """The scores of the best epoch, by name; empty where the folder has no history."""
        config = self.record.get("config", {})
        rows, monitor = self.history.to_dict("records"), config.get("monitor", "loss")
        if not rows or monitor not in rows[0]:
            return {}
        return History(monitor, config.get("minimise", False) or monitor == "loss", rows).best

    @property
    def epoch(self) -> int:
        """The number of the best epoch, from 1; 0 where the folder has no history."""
        return int(self.scores.get("epoch", 0))

    # ------------------------------------------------------------ to write

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep a second training out of the folder, and take away what a killed one left half written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.folder / ".lock", blocking=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise RuntimeError(
                f"another training is under way in {self.folder}; give another folder"
            ) from None
        except (OSError, NotImplementedError):  # a drive that knows no locks
            pass
        try:
            files.sweep(self.folder)
            yield
        finally:
            lock.release()

    def load_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors and the plain types that ``save_state`` wrote, both empty where there are none.

        Raises:
            ValueError: the file is damaged.
        """
        if not self.state.is_file():
            return {}, {}
        tensors, metadata = _read(self.state, "delete it to train anew")
        return tensors, json.loads(metadata["record"])

    def state_for(self, record: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any], bool]:
        """Return the state to go on from, empty where there is none, and whether that training is finished.

        What is different from a training that stands here, or goes on with other settings, is said.
        """
        tensors, about = self.load_state()
        if not about:
            if self.best.is_file():
                warnings.warn(f"{self.folder} has no state to go on from: starts anew", stacklevel=3)
            return {}, {}, False
        now = json.loads(json.dumps(record))
        other = [differences(about[part], now[part]) for part in ("config", "identity")]
        changed = [each for each in other[0] if each.split(" ")[0] in MAY_CHANGE]
        news = [each for each in sum(other, []) if each not in changed and each != "start"]
        finished = self.finished is not None and not changed
        # finished, and begun from other weights: another training, unless these are the ones it ended with
        if (
            finished
            and not news
            and other[1] == ["start"]
            and now["identity"]["start"] != digest(_read(self.best, "")[0])
        ):
            news = other[1]
        if news:
            what = f"another training stands in {self.folder} ({'; '.join(news)})"
            warnings.warn(f"{what}: starts anew, and moves that one to replaced/", stacklevel=3)
            return {}, {}, False
        if changed:
            warnings.warn(f"{self.folder} goes on with other settings: {'; '.join(changed)}", stacklevel=3)
        here = [
            each for each in differences(about["machine"], now["machine"]) if not each.startswith("threads ")
        ]
        if here and not finished:
            where = f"{self.folder} was begun on another machine ({'; '.join(here)})"
            warnings.warn(f"{where}; the last digits may differ from a run on one", stacklevel=3)
        return tensors, about, finished

    def begin(self, record: dict[str, Any]) -> None:
        """Write the record, take the mark of the end away, and tell the trackers."""
        (self.folder / "finished.json").unlink(missing_ok=True)
        self.save_config(record)
        self._tell("begin", plain(self.record))

    def set_aside(self) -> None:
        """Move what another training left into ``replaced/``; what lay there before is gone."""
        aside = self.folder / "replaced"
        for path in (self.folder / name for name in (*LEFT, "config.json")):
            if path.exists():
                aside.mkdir(exist_ok=True)
                os.replace(path, aside / path.name)

    def forget(self) -> None:
        """Take away what a training left to go on from, or to be taken for finished."""
        for name in LEFT:
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / "tensorboard", ignore_errors=True)

    def save_config(self, record: dict[str, Any]) -> None:
        """Write ``config.json``: plain types that say what is trained, with :attr:`about`."""
        self.record = json.loads(json.dumps({**record, **self.about}))
        self._write("config.json", json.dumps(self.record, indent=2).encode())

    def save_best(self, model: nn.Module, arrays: dict[str, np.ndarray]) -> None:
        """Write the best weights so far, with what makes the network again, and the predictions."""
        about = {name: self.record[name] for name in ("model", "faces")}
        save_weights(model, self.best, {"record": json.dumps(about)})
        self._try("predictions.npz", lambda file: np.savez_compressed(file, **arrays))

    def save_figure(self, name: str, draw: Callable[[Axes], object]) -> None:
        """Write ``<name>.png``, drawn on an axes, and show it to the trackers at the next epoch."""
        figure = Figure(figsize=(6, 5), dpi=80, layout="constrained")

        def write(file: Any) -> None:
            with plotting.styled():
                draw(figure.subplots())
                figure.savefig(file, format="png")

        if self._try(f"{name}.png", write):
            self._drawn[name] = figure

    def keep_epoch(self, history: History, state: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Keep an epoch: history, trackers, and the state last."""
        self._write("history.csv", history.frame().to_csv(index=False).encode())
        self._tell("epoch", int(history.epochs[-1]["epoch"]), history.epochs[-1], self._drawn)
        self._drawn = {}
        self.save_state(state, about)

    def save_state(self, state: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Write the state to go on from: tensors, and plain types beside them."""
        _save(state, self.state, {"record": json.dumps(about)})

    def finish(self, history: History) -> None:
        """Draw the curves, tell the trackers what was reached, and write the mark of the end, last of all."""
        frame, best, monitor = history.frame(), history.best_epoch, history.monitor

        def write(file: Any) -> None:
            with plotting.styled():
                figure = Figure(figsize=(11, 4), dpi=80, layout="constrained")
                for ax, name in zip(figure.subplots(1, 2), ("loss", monitor), strict=True):
                    names = [each for each in (f"train_{name}", name) if each in frame]
                    plotting.curves(frame, names, best=best, ax=ax).set_ylabel(name)
                figure.savefig(file, format="png")

        self._try("curves.png", write)
        self._tell("end", plain(self.record), history.best, (self.best, self.folder / "config.json"))
        done = {"epochs": len(history.epochs), "best_epoch": best, "monitor": monitor, "ended": history.ended}
        self.mark_finished({**done, "scores": history.best})

    def mark_finished(self, content: dict[str, Any]) -> None:
        """Write ``finished.json``, the one mark that a training has ended."""
        self._write("finished.json", json.dumps(content, indent=1).encode())

    def pause(self) -> None:
        """Tell the trackers that it ends for now."""
        self._tell("pause")

    def _write(self, name: str, content: bytes) -> None:
        self._try(name, lambda file: file.write(content))

    def _try(self, name: str, write: Callable[[Any], object]) -> bool:
        # only state and weights may end a training: a csv that is open in Excel must not cost an hour of it
        try:
            with files.replacing(self.folder / name) as file:
                write(file)
        except Exception as error:
            warnings.warn(f"{name} was not written ({_line(error)}); the training goes on", stacklevel=2)
            return False
        return True

    def _tell(self, call: str, *given: Any) -> None:
        for tracker in list(self.trackers):
            try:
                getattr(tracker, call)(*given)
            except Exception as error:  # a network that is down must not cost a training
                self.trackers.remove(tracker)
                name = type(tracker).__name__
                warnings.warn(f"{name} is told no more ({_line(error)}); the training goes on", stacklevel=2)


def checked_record(text: str | bytes, path: Path) -> dict[str, Any]:
    """Return what a ``config.json`` says, when it says what a network needs to be used.

    Raises:
        ValueError: it is damaged, or a value in it is of another type or out of range.
    """
    try:
        record = json.loads(text)
        model, faces = record["model"], record["faces"]
        classes, size, channels = (faces[name] for name in ("classes", "image_size", "channels"))
        fits = isinstance(model, dict) and isinstance(classes, list) and channels in (0, 1, 3)
        fits = fits and all(isinstance(name, str) and name.isprintable() for name in classes)
        fits = fits and isinstance(size, int) and 0 <= size <= 4096
    except (ValueError, KeyError, TypeError, RecursionError):
        fits = False
    if not fits:
        raise ValueError(f"{path} does not say what was learned, or is damaged; train it again")
    return record


# ---------------------------------------------------------------- weights


def save_weights(model: nn.Module, path: str | Path, about: Mapping[str, str] | None = None) -> None:
    """Write a network's weights as safetensors, whole or not at all, with a SHA-256 in the file's metadata.

    Args:
        model: the network.
        path: the file.
        about: what else the metadata are to say.
    """
    _save(model.state_dict(), Path(path), dict(about or {}))


def load_weights(model: nn.Module, path: str | Path, matching: bool = False) -> list[str]:
    """Load weights that ``save_weights`` wrote.

    Args:
        model: a network of the same shape; it stays as it is when anything is wrong.
        path: the file.
        matching: take what agrees in name and shape, and leave the rest of the network as it is.

    Returns:
        The names of the network's weights that stayed as they were.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or belongs to another network.
    """
    tensors, _ = _read(Path(path), "train again or restore a copy")
    wanted = {name: (t.shape, t.dtype) for name, t in model.state_dict().items()}
    fitting = {name: t for name, t in tensors.items() if wanted.get(name) == (t.shape, t.dtype)}
    same = len(fitting) == len(wanted) == len(tensors)
    if not same and not (matching and fitting):
        raise ValueError(f"{path} holds the weights of another network than this {type(model).__name__}")
    model.load_state_dict(fitting, strict=same)
    return [name for name in wanted if name not in fitting]


def _save(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    whole, places = {}, set()
    for name, tensor in tensors.items():
        whole[name] = tensor.detach().cpu().contiguous()
        place = whole[name].untyped_storage().data_ptr()
        if place in places:  # safetensors refuses what two names share
            whole[name] = whole[name].clone()
        places.add(place)
    checksum = _checksum(whole, metadata)
    with files.replacing(path) as file:
        file.write(safetensors.torch.save(whole, metadata={**metadata, "sha256": checksum}))


def _read(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a file that ``_save`` wrote."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); {remedy}") from None
    if metadata.pop("sha256", None) != _checksum(tensors, metadata):
        raise ValueError(f"{path} is damaged (its checksum does not match); {remedy}")
    return tensors, metadata


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); train again or restore a copy") from None


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode() if metadata else b"")
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].flatten().view(torch.uint8).numpy())
    return found.hexdigest()


# ---------------------------------------------------------------- identity


def digest(*things: Any) -> str:
    """Return the SHA-256 of all that things are made of, by which it is told whether they have changed.

    Of a face set: images (of a large one evenly spread rows, 256 MB), targets and classes. Of a network: its
    layers, with the shapes of the weights that it learns and the values of those it does not. Of a function:
    its code and what it closes over.

    Args:
        things: face sets, arrays, tensors, networks, functions, dataclasses, containers, plain values.
    """
    found = hashlib.sha256()
    for part in _parts(things, set()):
        found.update(part)
    return found.hexdigest()


def _parts(thing: Any, seen: set[int]) -> Iterator[bytes]:
    yield b"," if isinstance(thing, Mapping | list | tuple) else type(thing).__qualname__.encode()
    if thing is None or isinstance(thing, bool | int | float | str | bytes | complex | Path | np.generic):
        yield repr(thing).encode()
        return
    if id(thing) in seen:  # what refers to itself
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        thing = thing.detach().cpu().float().numpy() if thing.is_floating_point() else thing.cpu().numpy()
    if isinstance(thing, np.ndarray | files.Rows):
        yield f"{thing.dtype} {thing.shape}".encode()
        for block in _blocks(thing):
            yield block.tobytes() if block.dtype != object else repr(block.tolist()).encode()
    elif hasattr(thing, "images") and hasattr(thing, "labels"):
        named = ("images", "labels", "valence_arousal", "distribution", "classes")
        yield from _parts([getattr(thing, name, None) for name in named], seen)
    elif isinstance(thing, nn.Module):
        fixed = [weights for weights in thing.parameters() if not weights.requires_grad]
        own = {name: value for name, value in vars(thing).items() if name[0] != "_" and name != "training"}
        yield network_identity(thing).encode()
        yield from _parts([own, fixed, list(thing.buffers())], seen)
    elif isinstance(thing, Mapping):
        yield from _parts(sorted(thing.items(), key=lambda item: repr(item[0])), seen)
    elif isinstance(thing, list | tuple | set | frozenset):
        for each in sorted(thing, key=repr) if isinstance(thing, set | frozenset) else thing:
            yield from _parts(each, seen)
    elif isinstance(thing, functools.partial):
        yield from _parts([thing.func, thing.args, thing.keywords], seen)
    elif isinstance(thing, types.MethodType):
        yield from _parts([thing.__func__, thing.__self__], seen)
    elif isinstance(thing, types.FunctionType):
        yield f"{thing.__module__}.{thing.__qualname__}".encode()
        closed = inspect.getclosurevars(thing).nonlocals
        yield from _parts([closed, thing.__defaults__, thing.__kwdefaults__, thing.__code__], seen)
    elif isinstance(thing, types.CodeType):
        yield thing.co_code  # and what it names: a comment that was changed changes nothing
        yield from _parts([thing.co_names, thing.co_consts], seen)
    elif is_dataclass(thing):
        yield from _parts({each.name: getattr(thing, each.name) for each in fields(thing)}, seen)
    elif hasattr(thing, "__dict__") and not isinstance(thing, type | types.ModuleType):
        yield from _parts(vars(thing), seen)


def network_identity(model: nn.Module) -> str:
    """Return the digest of how a network computes: layers, code, shapes, what is frozen; not weights."""
    kinds = {type(part) for part in model.modules() if not type(part).__module__.startswith("torch.")}
    code = [kind.forward for kind in sorted(kinds, key=repr)]
    return digest(
        repr(model), code, [(n, tuple(p.shape), p.requires_grad) for n, p in model.named_parameters()]
    )


def _blocks(array: Any) -> Iterator[np.ndarray]:
    """Yield the rows of an array a megabyte or so at a time; of one above 256 MB some, evenly spread."""
    if array.ndim == 0:
        yield np.asarray(array)
        return
    step = max(1, array.nbytes >> 28)
    rows = max(1, 2**20 * len(array) // max(1, array.nbytes)) * step
    for start in range(0, len(array), rows):
        yield np.ascontiguousarray(array[start : start + rows : step])


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two records: names, with both values where these can be read.

    Args:
        before: plain values by name, perhaps nested.
        now: the same, of today.
    """
    was, here = plain(before), plain(now)
    found = []
    for name in sorted(was.keys() | here.keys()):
        old, new = was.get(name), here.get(name)
        if old != new:
            is_digest = any(isinstance(value, str) and len(value) == 64 for value in (old, new))
            found.append(name if is_digest else f"{name} {old}, now {new}")
    return found


def plain(record: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Return a nested record as one level: ``{"augment": {"flip": True}}`` becomes "augment.flip"."""
    found = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found |= plain(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value if isinstance(value, str | int | float | bool) else str(value)
    return found


def _line(error: Exception) -> str:
    return str(error).split("\n", 1)[0] or type(error).__name__
