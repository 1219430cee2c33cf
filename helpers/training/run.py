"""The folder that a training leaves: record, history, best weights, and the state to go on from."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import filelock
import numpy as np
import pandas as pd
from torch import Tensor, nn

from helpers import did_you_mean, files, models, runtime
from helpers.batches import MEAN, STD, TARGETS, Faces
from helpers.training.config import Config
from helpers.training.tracking import History, TensorBoard
from helpers.weights import load_weights, read, save_weights

if TYPE_CHECKING:  # a training that draws nothing need not load it
    from matplotlib.axes import Axes

MAY_CHANGE = ("epochs", "patience", "precision", "compile")
"""Settings with which a training goes on although they differ from those it was begun with."""

LEFT = ("finished.json", "state.safetensors", "best.safetensors", "history.csv", "predictions.npz")
"""What a training leaves to go on from, or to be taken for finished, beside ``config.json``."""

State = tuple[dict[str, Tensor], dict[str, Any]]
"""What a training goes on from: tensors by name, and plain types."""


class Run:
    """A folder ``runs/<name>``: config.json, history.csv, best.safetensors, predictions.npz, curves.png,
    state.safetensors (to go on from), tensorboard/, and finished.json, the mark of the end, written last.

    Args:
        folder: the folder; made at the first write.
        about: what else ``config.json`` is to say, plain types by name: the data, the command, a note.
        trackers: who is told how it goes, beside :class:`TensorBoard`.
    """

    def __init__(
        self, folder: str | Path, about: Mapping[str, Any] | None = None, trackers: Sequence[Any] = ()
    ) -> None:
        self.folder, self.about = Path(folder), dict(about or {})
        self.best, self.state = self.folder / "best.safetensors", self.folder / "state.safetensors"
        self.trackers = [TensorBoard(self.folder / "tensorboard"), *trackers]
        self.record: dict[str, Any] = {}
        self._drawn: dict[str, Path] = {}

    # ------------------------------------------------------------ to read

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Return a training that was kept, to read: the folder, or a file of weights that a training kept.

        Raises:
            FileNotFoundError: there is no training; the message says what lies there.
            ValueError: the record is damaged, or does not say what was learned.
        """
        path = Path(path).expanduser()
        is_folder = path.is_dir()
        run = cls(path if is_folder else path.parent)
        run.best = run.best if is_folder else path
        if not run.best.is_file():
            here = sorted(each.parent.name for each in path.parent.glob("*/best.safetensors"))
            there = f"trained ones there: {', '.join(here)}" if here else "training.fit(run=...) leaves one"
            raise FileNotFoundError(f"no trained network in {path}{did_you_mean(path.name, here)}; {there}")
        file = run.folder / "config.json" if is_folder else path
        metadata = {} if is_folder else read(path, "restore a copy")[1]
        try:
            run.record = json.loads(file.read_bytes() if is_folder else metadata["record"])
            faces = run.record["faces"]
            names, size, channels = (faces[name] for name in ("classes", "image_size", "channels"))
            fits = isinstance(run.record["model"], dict) and isinstance(names, list) and channels in (0, 1, 3)
            fits = fits and isinstance(size, int) and 0 <= size <= 4096
            fits = fits and all(isinstance(name, str) and name.isprintable() for name in names)
        except (OSError, KeyError, TypeError, ValueError, RecursionError):
            fits = False
        if not fits:
            raise ValueError(f"{file} does not say what was learned; train it again")
        return run

    def load(self, model: nn.Module) -> nn.Module:
        """Return the network with the best weights, in evaluation mode."""
        load_weights(model, self.best)
        return model.eval()

    @property
    def model(self) -> nn.Module:
        """The network with the best weights, made again from the record."""
        spec = {k: v for k, v in self.record["model"].items() if k not in ("class", "weights")}
        if "name" not in spec:
            kind = f"a {self.record['model'].get('class', 'network')} that models.create did not make"
            raise ValueError(f"{self.folder} holds {kind}; use run.load(model)")
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
        """The record of the best epoch, "epoch" its number and the scores; empty without a history."""
        config = {"monitor": "loss", "minimise": False} | self.record.get("config", {})
        lower, rows = config["minimise"] or config["monitor"] == "loss", self.history.to_dict("records")
        return History(config["monitor"], lower, rows).best or {}

    def load_state(self) -> State:
        """Return what was kept to go on from, empty without any."""
        if not self.state.is_file():
            return {}, {}
        tensors, metadata = read(self.state, "delete it to train anew")
        return tensors, json.loads(metadata["record"])

    # ------------------------------------------------------------ to begin, to go on

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep a second training out of the folder, and take away what a killed one left half written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.folder / ".lock", blocking=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            line = f"another training is under way in {self.folder}; give another folder"
            raise RuntimeError(line) from None
        except (OSError, NotImplementedError) as error:
            warnings.warn(f"{self.folder} cannot be locked ({_line(error)}); train once there", stacklevel=2)
        try:
            files.sweep(self.folder)
            yield
        finally:
            lock.release()

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
        other, made = (differences(about[part], now[part]) for part in ("config", "identity"))
        changed = [each for each in other if each.split(" ")[0] in MAY_CHANGE]
        news = [each for each in other + made if each not in changed and each != "start"]
        finished = self.finished is not None and not changed
        # finished, and begun from other weights: another training, unless these are the ones it ended with
        if finished and made == ["start"] and now["identity"]["start"] != digest(read(self.best, "")[0]):
            news += made
        if news:
            what = f"another training stands in {self.folder} ({'; '.join(news)})"
            warnings.warn(f"{what}: starts anew, and moves that one to replaced/", stacklevel=3)
            return {}, {}, False
        if changed:
            warnings.warn(f"{self.folder} goes on with other settings: {'; '.join(changed)}", stacklevel=3)
        elsewhere = differences(about["machine"] | {"threads": 0}, now["machine"] | {"threads": 0})
        if elsewhere and not finished:
            where = f"{self.folder} was begun on another machine ({'; '.join(elsewhere)})"
            warnings.warn(f"{where}; the last digits may differ from a run on one", stacklevel=3)
        record["identity"]["start"] = about["identity"]["start"]
        return tensors, about, finished

    def begin(self, record: dict[str, Any], anew: bool) -> None:
        """Write the record, and take the mark of the end away; another training goes to ``replaced/``."""
        for name in (*LEFT, "config.json") if anew else ():
            if (self.folder / name).exists():
                (self.folder / "replaced").mkdir(exist_ok=True)
                os.replace(self.folder / name, self.folder / "replaced" / name)
        (self.folder / "finished.json").unlink(missing_ok=True)
        self.save_config(record)
        self._tell("begin", plain(self.record))

    def forget(self) -> None:
        """Take away what a training left to go on from, or to be taken for finished."""
        for name in LEFT:
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / "tensorboard", ignore_errors=True)

    # ------------------------------------------------------------ to write

    def save_config(self, record: dict[str, Any]) -> None:
        """Write ``config.json``: plain types that say what is trained, with :attr:`about`."""
        self.record = json.loads(json.dumps({**record, **self.about}))
        self._write("config.json", lambda file: file.write(json.dumps(self.record, indent=2).encode()))

    def save_best(
        self,
        model: nn.Module,
        arrays: Mapping[str, np.ndarray],
        figures: Mapping[str, Callable[[Axes], object]],
    ) -> None:
        """Write the best weights so far, with what makes the network again, predictions and figures."""
        about = {name: self.record[name] for name in ("model", "faces")}
        save_weights(model, self.best, record=json.dumps(about))
        self._write("predictions.npz", lambda file: np.savez_compressed(file, **arrays))
        for name, draw in figures.items():
            self._draw(name, draw, (6, 5))

    def keep_epoch(self, history: History, state: State) -> None:
        """Keep an epoch: history, trackers, and the state last."""
        text = history.frame().to_csv(index=False)
        self._write("history.csv", lambda file: file.write(text.encode()))
        self._tell("epoch", int(history.epochs[-1]["epoch"]), history.epochs[-1], self._drawn)
        self._drawn = {}
        self.save_state(state)

    def save_state(self, state: State) -> None:
        """Write what to go on from."""
        save_weights(state[0], self.state, record=json.dumps(state[1]))

    def end(self, history: History, state: State) -> None:
        """Keep the state; of one that was not stopped, draw the curves and write the mark, last of all."""
        self.save_state(state)
        if history.stopped:
            self._tell("pause")
            return
        from helpers import plotting

        frame, best = history.frame(), history.best_epoch

        def draw(ax: Axes) -> None:
            figure = ax.figure
            ax.remove()
            for place, name in zip(figure.subplots(1, 2), ("loss", history.monitor), strict=True):
                plotting.curves(frame, [name], best, place)

        self._draw("curves", draw, (11, 4))
        self._tell("end", plain(self.record), history.best, (self.best, self.folder / "config.json"))
        done = {"epochs": len(frame), "best_epoch": best, "monitor": history.monitor, "ended": history.ended}
        self.mark_finished({**done, "scores": history.best})

    def mark_finished(self, content: dict[str, Any]) -> None:
        """Write ``finished.json``, the one mark that a training has ended."""
        self._write("finished.json", lambda file: file.write(json.dumps(content, indent=1).encode()))

    def _draw(self, name: str, draw: Callable[[Axes], object], size: tuple[int, int]) -> None:
        from helpers import plotting

        if self._write(f"{name}.png", lambda file: file.write(plotting.png(draw, size, dpi=80))):
            self._drawn[name] = self.folder / f"{name}.png"

    def _write(self, name: str, write: Callable[[BinaryIO], object]) -> bool:
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
                getattr(tracker, call, lambda *_: None)(*given)
            except Exception as error:  # a network that is down must not cost a training
                self.trackers.remove(tracker)
                name = type(tracker).__name__
                warnings.warn(f"{name} is told no more ({_line(error)}); the training goes on", stacklevel=2)


def _line(error: Exception) -> str:
    return str(error).split("\n", 1)[0] or type(error).__name__


# ---------------------------------------------------------------- what a training is made of


def record_of(
    model: nn.Module, train: Faces, validation: Faces, loss: Callable, config: Config
) -> dict[str, Any]:
    """Return what the folder says of a training, in plain types, with digests of all it is made from."""
    shape = train.images.shape
    size, channels = (shape[-1], 1 if len(shape) == 3 else shape[1]) if len(shape) > 2 else (0, 0)
    faces = {"train": len(train.images), "validation": len(validation.images)}
    faces |= {"classes": list(getattr(train, "classes", ())), "image_size": size, "channels": channels}
    made = {"train": train, "validation": validation, "network": network_parts(model), "loss": loss}
    return {
        "model": {"class": type(model).__name__, **getattr(model, "spec", {})},
        "config": asdict(config),
        "faces": faces | {"normalisation": {"mean": MEAN, "std": STD}},
        "identity": {name: digest(part) for name, part in (made | {"start": model.state_dict()}).items()},
        "machine": runtime.machine(),
    }


def digest(*things: Any) -> str:
    """Return the SHA-256 of all that things are made of, by which it is told whether they have changed.

    Of face sets (of many images evenly spread rows, 256 MB), arrays, tensors, networks (as
    :func:`network_parts`, with what is not learned), functions with what they use, containers, plain values.
    """
    found, left, seen = hashlib.sha256(), list(things), {}
    while left:
        thing = left.pop()
        inside: Sequence[Any] = []
        if isinstance(thing, Tensor):
            thing = (thing.detach().float() if thing.is_floating_point() else thing).cpu().numpy()
        if thing is None or isinstance(thing, bool | int | float | complex | str | bytes | Path | np.generic):
            found.update(repr(thing).encode())
        elif isinstance(thing, np.ndarray | files.Rows):
            found.update(f"{thing.dtype} {thing.shape}".encode())
            rows, step = thing if thing.ndim else thing.reshape(1), max(1, thing.nbytes >> 28)
            for start in range(0, len(rows), 128 * step):
                block = np.asarray(rows[start : start + 128 * step : step])
                found.update(block.tobytes() if block.dtype != object else repr(block.tolist()).encode())
        elif id(thing) not in seen:  # what refers to itself would never end
            seen[id(thing)] = thing  # kept alive, or another thing could come to its address
            inside = _parts(thing)
        kind = "" if isinstance(thing, Mapping | list | tuple) else type(thing).__qualname__
        found.update(f" {kind} {len(inside)};".encode())
        left += inside
    return found.hexdigest()


def _parts(thing: Any) -> Sequence[Any]:
    if hasattr(thing, "images") and hasattr(thing, "labels"):
        return [getattr(thing, name, None) for name in (*TARGETS, "images", "classes")]
    if isinstance(thing, nn.Module):
        own = {name: value for name, value in vars(thing).items() if name[0] != "_" and name != "training"}
        frozen = [weights for weights in thing.parameters() if not weights.requires_grad]
        return [network_parts(thing), own, frozen, list(thing.buffers())]
    if isinstance(thing, Mapping):
        return [each for item in sorted(thing.items(), key=lambda item: repr(item[0])) for each in item]
    if isinstance(thing, list | tuple):
        return thing
    if isinstance(thing, set | frozenset):
        return sorted(thing, key=repr)
    if isinstance(thing, types.CodeType):  # no lines: a comment changes nothing
        return [thing.co_code, thing.co_names, thing.co_consts]
    if isinstance(thing, functools.partial | types.MethodType):
        return [getattr(thing, name, None) for name in ("func", "args", "keywords", "__func__", "__self__")]
    if isinstance(thing, types.FunctionType):
        code = thing.__code__
        closed = [cell.cell_contents for cell in thing.__closure__ or ()]
        parts = [thing.__qualname__, closed, thing.__defaults__, thing.__kwdefaults__, code]
        for name in sorted(set(code.co_names) & thing.__globals__.keys()):  # functions and values beside it
            value = thing.__globals__[name]
            near = isinstance(value, types.FunctionType) and value.__module__ == thing.__module__
            if near or isinstance(value, bool | int | float | str | Tensor | np.ndarray):
                parts += [name, value]
        return parts
    known = hasattr(thing, "__dict__") and not isinstance(thing, type | types.ModuleType)
    return [vars(thing)] if known else []


def network_parts(model: nn.Module) -> list[Any]:
    """Return how a network computes: layers, code, shapes, what is frozen; not weights."""
    kinds = {type(part) for part in model.modules() if not type(part).__module__.startswith("torch.")}
    shapes = [(name, tuple(p.shape), p.requires_grad) for name, p in model.named_parameters()]
    return [repr(model), [kind.forward for kind in sorted(kinds, key=repr)], shapes]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two records: names, with both values where these can be read."""
    was, here, found = plain(before), plain(now), []
    for name in sorted(was.keys() | here.keys()):
        old, new = was.get(name), here.get(name)
        if old != new:
            is_digest = any(isinstance(value, str) and len(value) == 64 for value in (old, new))
            found.append(name if is_digest else f"{name} {old}, now {new}")
    return found


def plain(record: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Return a nested record as one level: ``{"augment": {"flip": True}}`` becomes "augment.flip"."""
    [flat] = pd.json_normalize(dict(record)).to_dict("records")
    return {k: v if isinstance(v, str | int | float | bool) else str(v) for k, v in flat.items()}
