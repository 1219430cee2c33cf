"""Parts of a training: what ends it, what shows it, and what a step does when not all goes well."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from helpers.batches import Batch, Batches
from helpers.training import distributed
from helpers.training.evaluation import Metric, by_name

Loss = Callable[[Any, dict[str, Tensor]], Tensor]
"""A loss of (outputs, targets): those of the network, and the batch's targets by name.

One that is a module learns along: its parameters are trained and kept with the network's.
"""

Watch = Callable[[float, dict[str, float | str]], None]
"""Is told the share of the training that is done, from 0 to 1, and what there is to show beside it."""


class Stop:
    """A request to end a training at the next batch; a Stop button calls :meth:`request`."""

    def __init__(self) -> None:
        self.requested = False

    def request(self, *_: object) -> None:
        """Ask the training to end after the batch it is at."""
        self.requested = True

    @contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """Let Ctrl-C, or a notebook's interrupt button, ask for the stop instead of raising anywhere."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self.request)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


class Display:
    """Says how far a training is: a line an epoch, and a bar where somebody looks; all of it on stdout."""

    def __init__(self, shown: bool | Watch, total: int, done: int) -> None:
        self.watch, self.lines = shown if callable(shown) else None, shown is True
        self.total, self.first, self.done, self.told = total, done, done, 0.0
        self.started, self.cell = time.perf_counter(), None
        shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
        if self.lines and hasattr(shell, "kernel"):  # one output that is written over, and saved as it ends
            from IPython.display import display

            self.cell = display({"text/plain": ""}, raw=True, display_id=True)

    def step(self, values: Callable[[], dict[str, float | str]]) -> None:
        """Count a step; show what there is to show several times a second."""
        self.done, now = self.done + 1, time.perf_counter()
        if now - self.told < 0.2 or not (self.watch or self.cell or (self.lines and sys.stdout.isatty())):
            return
        self.told, shown = now, values()
        if self.watch:
            self.watch(self.done / self.total, shown)
            return
        words = " · ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
        form = "{percentage:3.0f}% |{bar:20}| {remaining} left · {postfix}"
        how = {"initial": self.first, "bar_format": form, "postfix": words, "ncols": 110}
        bar = tqdm.format_meter(self.done, self.total, now - self.started, **how)
        if self.cell:
            self.cell.update({"text/plain": bar}, raw=True)
        else:
            print(f"\r\x1b[K{bar}", end="", flush=True)

    def say(self, line: str, last: bool = False) -> None:
        """Write a line that stays."""
        if self.cell and last:
            self.cell.update({"text/plain": line}, raw=True)
        elif self.lines:
            print(("\r\x1b[K" if sys.stdout.isatty() else "") + line, flush=True)


def in_parts(
    forward: Callable, loss: Loss, batch: Batch, parts: int, model: nn.Module, scaler: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Add up the gradient of a whole batch with the memory of a part of it; return the loss and the outputs.

    The loss may tie samples together, as 1 - CCC does, so it is taken of all outputs at once: they are
    computed without a graph first, then part by part with one, which carries the loss's gradient on (Gao et
    al. 2021, arXiv 2101.06983). It costs a second forward pass. The gradient is that of the whole batch up to
    rounding, except that batch norm takes its statistics over a part, and dropout draws for each part anew.
    """
    pieces = batch.images.chunk(parts)
    before = [buffer.clone() for buffer in model.buffers()]
    with torch.no_grad():
        first = [forward(piece, part) for part, piece in enumerate(pieces)]
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)  # running means are to move once, not twice
    whole = {name: torch.cat([each[name] for each in first]).requires_grad_() for name in first[0]}
    value = loss(whole.get("", whole), batch.targets)
    scaler.scale(value).backward()
    slopes = {name: t.grad.split([len(p) for p in pieces]) for name, t in whole.items() if t.grad is not None}
    for part, piece in enumerate(pieces):
        outputs = forward(piece, part)
        torch.autograd.backward(
            [outputs[name] for name in slopes], [slope[part] for slope in slopes.values()]
        )
    return value.detach(), whole


def bad_samples(model: nn.Module, loss: Loss, batch: Batch) -> list[int]:
    """Return which samples make a loss that is not finite; all of them where none stands out.

    Those with pixels that are not finite or targets that are infinite, and those for which the loss of zeros
    is not finite or is refused.
    """
    model.eval()
    bad = ~torch.isfinite(batch.images).flatten(1).all(dim=1)
    for values in batch.targets.values():
        bad |= torch.isinf(values).reshape(len(values), -1).any(dim=1)
    with torch.no_grad():
        zeros = {k: torch.zeros_like(v[:1]).float() for k, v in by_name(model(batch.images[:2])).items()}
        for row in range(len(batch.index)):
            targets = {name: values[row : row + 1] for name, values in batch.targets.items()}
            try:
                bad[row] |= ~torch.isfinite(loss(zeros.get("", zeros), targets))
            except ValueError:
                bad[row] = True
    return (batch.index[bad] if bad.any() else batch.index).tolist()


def average_weights(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the running mean of the weights towards those of now; counts are taken as they are."""
    pairs = list(zip(averaged.state_dict().values(), model.state_dict().values(), strict=True))
    floating = [pair for pair in pairs if pair[0].is_floating_point()]
    with torch.no_grad():
        get_ema_multi_avg_fn(decay)(*map(list, zip(*floating, strict=True)), None)
        for mine, theirs in pairs:
            if not mine.is_floating_point():
                mine.copy_(theirs)


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return what was kept of each step as one tensor by name."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}


def training_scores(
    metrics: Mapping[str, Metric], so_far: dict[str, Tensor], data: Batches
) -> dict[str, float]:
    """Return each metric of the outputs of an epoch's steps, NaN where it cannot be taken of them."""
    so_far = distributed.gathered(so_far)
    index = so_far.pop("index")
    outputs = {name[1:]: values.cpu().numpy() for name, values in so_far.items()}
    targets = {name: values[index].cpu().numpy() for name, values in data.targets.items()}
    scores = {}
    for name, metric in metrics.items():
        try:
            scores[f"train_{name}"] = float(metric(outputs.get("", outputs), targets))
        except Exception as error:  # it may have been written for the validation set alone
            warnings.warn(f"{name} cannot be taken of the training steps ({error})", stacklevel=2)
            scores[f"train_{name}"] = math.nan
    return scores


def part_of(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a name and a slash, by the rest of theirs."""
    return {key.split("/", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{name}/")}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split("/")
        p = parameters[int(index)]
        if value.shape == p.shape:  # in the order of the weights in memory, by which fused optimisers go
            value = torch.empty_like(p, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
