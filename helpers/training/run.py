"""The folder that a training leaves: configuration, history, best weights, and the state to go on from."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from helpers import files, plotting
from helpers.training.history import History
from helpers.training.tracking import TensorBoard, Tracker, plain


class Run:
    """A folder ``runs/<name>``.

    It holds ``config.json``, ``history.csv``, ``best.safetensors``, ``state.pt`` (to resume from),
    ``predictions.npz`` (on the validation set), ``curves.png`` and ``tensorboard/``.

    Args:
        folder: the folder; made at the first write.
        about: what else ``config.json`` is to say, plain types by name: the data, the command, a note.
        trackers: who is told how it goes, beside TensorBoard.
    """

    def __init__(
        self, folder: str | Path, about: Mapping[str, Any] | None = None, trackers: Sequence[Tracker] = ()
    ) -> None:
        self.folder, self.about = Path(folder), dict(about or {})
        self.trackers = (TensorBoard(self.folder / "tensorboard"), *trackers)
        self._record: dict[str, Any] = {}
        self._drawn: dict[str, Figure] = {}
        files.sweep(self.folder)

    @property
    def best(self) -> Path:
        """The weights of the best epoch."""
        return self.folder / "best.safetensors"

    def save_config(self, record: dict[str, Any]) -> None:
        """Write ``config.json``: all that is needed to make the network again and to know where it is from.

        Where a training goes on that was begun on another machine, a warning says so.

        Args:
            record: plain types only; :attr:`about` is added.
        """
        self._record = {**record, **self.about}
        text = json.dumps(self._record, indent=2)
        if (self.folder / "state.pt").exists():
            self._compare_machines(json.loads(text))
        with files.replacing(self.folder / "config.json") as file:
            file.write(text.encode())

    def _compare_machines(self, now: dict[str, Any]) -> None:
        try:
            begun = json.loads((self.folder / "config.json").read_bytes())
            was, here = dict(begun["machine"]), dict(now["machine"])
        except (OSError, ValueError, KeyError, TypeError):
            return  # nothing to compare with
        other = [f"{name} {was.get(name)}, now {here[name]}" for name in here if here[name] != was.get(name)]
        if other and begun.get("config") == now.get("config"):
            where = f"{self.folder} was begun on another machine ({'; '.join(other)})"
            warnings.warn(f"{where}; the last digits may differ from a run on one", stacklevel=2)

    def save_history(self, history: History) -> None:
        """Write ``history.csv``, a row an epoch.

        Args:
            history: the epochs so far.
        """
        with files.replacing(self.folder / "history.csv") as file:
            file.write(history.frame().to_csv(index=False).encode())

    def save_predictions(self, arrays: dict[str, np.ndarray]) -> None:
        """Write ``predictions.npz``.

        Args:
            arrays: numbers and strings, one row a face.
        """
        with files.replacing(self.folder / "predictions.npz") as file:
            np.savez_compressed(file, **arrays)

    def save_figure(self, name: str, draw: Callable[[Axes], object]) -> None:
        """Write ``<name>.png``.

        Args:
            name: the file's name without ending.
            draw: draws on an axes.
        """
        with plotting.styled(), files.replacing(self.folder / f"{name}.png") as file:
            figure = Figure(figsize=(6, 5), dpi=80, layout="constrained")
            draw(figure.subplots())
            figure.savefig(file, format="png")
        self._drawn[name] = figure

    def log(self, record: dict[str, float]) -> None:
        """Tell the trackers of an epoch, and show them what was drawn since the last one.

        Args:
            record: numbers by name, with "epoch" among them.
        """
        for tracker in self.trackers:
            tracker.epoch(int(record["epoch"]), record, self._drawn)
        self._drawn = {}

    def finish(self, history: History) -> None:
        """Draw the curves, tell the trackers what was reached, and remove the state: it is all done.

        Args:
            history: all epochs.
        """
        self.save_figure(
            "curves", lambda ax: plotting.curves(history.frame(), best=history.best_epoch, ax=ax)
        )
        settings = {name: part for name, part in self._record.items() if name != "machine"}
        for tracker in self.trackers:
            tracker.end(plain(settings), history.best, (self.best, self.folder / "config.json"))
        (self.folder / "state.pt").unlink(missing_ok=True)

    def pause(self) -> None:
        """Tell the trackers that it ends for now."""
        for tracker in self.trackers:
            tracker.pause()

    def save_state(self, state: dict[str, Any]) -> None:
        """Write ``state.pt``: the SHA-256 of what follows, then a file of ``torch.save``.

        Args:
            state: tensors and plain types.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        with files.replacing(self.folder / "state.pt") as file:
            file.write(hashlib.sha256(buffer.getbuffer()).digest())
            file.write(buffer.getbuffer())

    def load_state(self) -> dict[str, Any] | None:
        """Return what ``save_state`` wrote, or None where there is nothing to go on from.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.folder / "state.pt"
        if not path.exists():
            return None
        content = memoryview(path.read_bytes())
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            raise ValueError(f"{path} is damaged (its checksum does not match); delete it to train anew")
        return torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write a network's weights as safetensors, whole or not at all, with a SHA-256 in the file's metadata.

    Args:
        model: the network.
        path: the file.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    with files.replacing(path) as file:
        file.write(safetensors.torch.save(tensors, metadata={"sha256": _digest(tensors)}))


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load weights that ``save_weights`` wrote.

    Args:
        model: a network of the same shape; it stays as it is when anything is wrong.
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or belongs to another network.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            recorded = (file.metadata() or {}).get("sha256")
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); train again or restore a copy") from None
    if recorded != _digest(tensors):
        raise ValueError(f"{path} is damaged (its checksum does not match); train again or restore a copy")
    wanted = {name: (t.shape, t.dtype) for name, t in model.state_dict().items()}
    if {name: (t.shape, t.dtype) for name, t in tensors.items()} != wanted:
        raise ValueError(f"{path} holds the weights of another network than this {type(model).__name__}")
    model.load_state_dict(tensors)


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
