"""The loop: batches in, the best weights by validation out; stopped and resumed without a trace."""

from __future__ import annotations

import copy
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from helpers import runtime
from helpers.batches import MEAN, STD, Batch, Batches, Faces, random_number
from helpers.training import distributed
from helpers.training.config import Config, lr_factor, make_optimizer
from helpers.training.evaluation import (
    Metric,
    autocast,
    by_name,
    half_precision,
    is_out_of_memory,
    predict,
    release,
    targets_of,
)  # fmt: skip
from helpers.training.run import History, Run, digest, load_weights, network_identity

Loss = Callable[[Any, dict[str, Tensor]], Tensor]
"""A loss of (outputs, targets): those of the network, and the batch's targets by name.

One that is a module learns along: its parameters are trained and kept with the network's.
"""

Figure = Callable[[Any, dict[str, np.ndarray], Any], Any]
"""Draws (outputs, targets) of the validation set on a Matplotlib ``Axes``."""

Watch = Callable[[float, dict[str, float | str]], None]
"""Is told the share of the training that is done, from 0 to 1, and what there is to show beside it."""

_DROPOUT = 15  # which random number of a step seeds dropout; batches use 0 to 14 of a sample's
_LOOK = 64  # steps after which an accelerator is asked whether all were finite: to ask makes the CPU wait


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


def fit(
    model: nn.Module,
    train: Faces,
    validation: Faces,
    loss: Loss,
    metrics: Mapping[str, Metric],
    config: Config | None = None,
    *,
    run: str | Path | Run | None = None,
    start: str | Path | Run | None = None,
    start_state: bool = True,
    figures: Mapping[str, Figure] | None = None,
    device: str = "auto",
    progress: bool | Watch = True,
    stop: Stop | None = None,
    on_epoch: Callable[[History], None] | None = None,
) -> History:
    """Train a network; it ends with the weights of the epoch that did best on the validation set.

    With a ``run`` folder, every epoch is kept there. Called again with the same network, data, loss and
    configuration, a training that was stopped or killed goes on exactly where it was: on a CPU it ends with
    the same weights to the bit; one that is finished is not trained again. With more ``epochs`` it goes on.
    Where anything else differs a warning says what, and the training starts anew.

    Where memory does not suffice for a batch, its gradient is added up over halves, or quarters, of it, and a
    warning says so. It is still the gradient of the batch, but batch norm sees a part of it at a time.

    Where ``distributed.start`` joined processes, each batch is shared among them; the first one writes and
    shows. The mean of the shares' losses takes the place of the batch's loss: the same for a mean over faces,
    not for a loss of the whole batch, such as the CCC.

    Args:
        model: the network, trained in place and left on the device. What asks for no gradient stays
            (:func:`models.freeze`); a head can be trained alone on :func:`features` of the faces.
        train: the faces to learn from.
        validation: the faces that pick the best epoch; never the test set.
        loss: function of (outputs, targets); a module's parameters are trained in place too.
        metrics: name to function of (outputs, targets) as arrays; must hold ``config.monitor``, unless that
            is "loss". Each is also taken of the outputs of the training steps.
        config: how to train.
        run: the folder to keep the training in, or a :class:`Run` that says more; None to keep nothing.
        start: a run or a file of weights to begin with: those that agree in name and shape are taken, a line
            names the rest. Where all agree, the state of the optimiser comes along.
        start_state: whether it does.
        figures: name to a function that draws (outputs, targets) of the validation set on an axes; each is
            kept in the run's folder.
        device: "auto", "cpu", "cuda" or "mps".
        progress: show a line an epoch; or a function that is told the share done, several times a second.
        stop: asks the training to end; an interrupt does so too.
        on_epoch: called with the history after each epoch.

    Returns:
        The history, an entry an epoch.

    Raises:
        ValueError: ``config.monitor`` is not among the metrics, a set is empty, a label is no class, or a
            batch cannot be shared evenly.
        FloatingPointError: the loss, a gradient or an output is not finite; the message names the samples.
            The network is left with the best weights so far, and what is in the folder stays.
        RuntimeError: another training is under way in the folder.
    """
    config, stop = config or Config(), stop or Stop()
    watched = config.plateau_monitor or config.monitor
    for name in (config.monitor, watched):
        if name not in {"loss", *metrics}:
            raise ValueError(f"monitor {name!r} is not among the metrics: {', '.join(metrics)}")
    with ExitStack() as during:
        # first of all: PyTorch imports parts of itself late, and must not be interrupted there
        during.enter_context(stop.on_interrupt())

        # ---------------------------------------------------------------- set-up
        where, (rank, world) = runtime.device(device), distributed.share()
        how = {"seed": config.seed, "augment": config.augment, "shuffle": True, "device": where}
        data = Batches(train, config.batch_size, **how, share=(rank, world))
        held_out = Batches(validation, 512, device=where)
        _check_labels(train, validation)
        truth = targets_of(held_out)
        begun = Run.open(start) if isinstance(start, str | Path) else start
        rest = load_weights(model, begun.best, matching=True) if begun else []
        if rest:
            warnings.warn(f"{begun.best} has no weights for {', '.join(rest)}", stacklevel=2)
        model.to(where, memory_format=torch.channels_last)
        averaged = copy.deepcopy(model) if config.ema else model
        learned = loss.to(where) if isinstance(loss, nn.Module) else nn.Module()
        modules = {"model": model, "learned": learned} | ({"averaged": averaged} if config.ema else {})
        network = distributed.parallel(model)  # the first process's weights go to all
        optimizer = make_optimizer(model, config, learned)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        scaled = where.type == "cuda" and half_precision(where, config.precision) is torch.float16
        scaler = torch.amp.GradScaler(where.type, enabled=scaled)
        if config.compile:
            network = torch.compile(network, mode="reduce-overhead" if where.type == "cuda" else None)
        history = History(config.monitor, config.lower_is_better)
        best_weights: dict[str, Tensor] | None = None
        loss_sum = torch.zeros((), device=where)
        so_far: list[dict[str, Tensor]] = []  # outputs of this epoch's steps: the training scores are theirs
        finite: list[tuple[int, Tensor]] = []  # whether each step was, in booleans nobody has waited for
        # Where it is, in plain numbers. parts: that a batch goes through the network in, for want of memory;
        # threads: on another number of them the last digits would differ; since: patience counts from there.
        at = SimpleNamespace(epoch=0, step=0, lr_cut=1.0, parts=1, since=0, threads=torch.get_num_threads())

        # ---------------------------------------------------------------- resume
        kept = Run(run) if isinstance(run, str | Path) else run
        told, record, finished = "", {}, False
        if kept:
            if rank == 0:
                during.enter_context(kept.alone())
            record = _record(model, train, validation, data, loss, config)
            tensors, about, finished = kept.state_for(record)
            distributed.wait()  # no process may write while another still reads
            if about:
                for name, module in modules.items():
                    module.load_state_dict(_part(tensors, name))
                _load_optimizer(optimizer, _part(tensors, "optimizer"))
                if scaled and about["scaler"]:  # empty where it was begun in another precision
                    scaler.load_state_dict(about["scaler"])
                vars(at).update(about["at"])
                at.threads = min(at.threads, os.cpu_count() or 1)
                history.epochs, history.ended = about["epochs"], about["ended"]
                loss_sum.copy_(tensors["loss_sum"])
                so_far += [{k: v.to(where) for k, v in _part(tensors, "so_far").items()}] if at.step else []
                if kept.best.is_file():
                    best = copy.deepcopy(averaged)
                    load_weights(best, kept.best)
                    best_weights = best.state_dict()
                if history.ended and not finished:
                    at.since = at.epoch
                told = f"goes on: epoch {at.epoch + 1} of {config.epochs}, step {at.step + 1}"
                record["identity"]["start"] = about["identity"]["start"]
            if rank == 0 and not finished:
                if not about:
                    kept.set_aside()
                kept.begin(record)
        if begun and start_state and not rest and not at.epoch + at.step and begun.state.is_file():
            _load_optimizer(optimizer, _part(begun.load_state()[0], "optimizer"))

        # ---------------------------------------------------------------- a step, in parts
        def forward(images: Tensor, part: int = 0) -> dict[str, Tensor]:
            # seeded by (seed, epoch, step): a resumed training drops out what it would have dropped out
            runtime.seed_device(random_number(config.seed, at.epoch, at.step, _DROPOUT + part), where)
            if images.ndim == 4:  # features have no channels
                images = images.contiguous(memory_format=torch.channels_last)
            with autocast(where, config.precision):
                outputs = by_name(network(images))
            # the loss in float32: half precision loses what a confident prediction is worth
            return {name: values.float() for name, values in outputs.items()}

        def gradients(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            """Return loss and outputs of a batch, and leave its gradients; in parts for want of memory."""
            nonlocal network
            while True:
                optimizer.zero_grad()
                try:
                    if at.parts > 1:
                        return _in_parts(forward, loss, batch, at.parts, model, scaler)
                    outputs = forward(batch.images)
                    value = loss(outputs.get("", outputs), batch.targets)
                    scaler.scale(value).backward()
                    return value.detach(), outputs
                except ValueError as error:  # a loss may refuse targets itself, but knows no names
                    samples = _bad_samples(model, loss, batch)
                    if len(samples) == len(batch.index):
                        raise
                    reason = str(error).split("\n", 1)[0]
                    fail(f"{reason} at epoch {at.epoch + 1}, step {at.step + 1}", samples)
                except (MemoryError, RuntimeError) as error:
                    short = is_out_of_memory(error)
                    if short and (4 * at.parts > len(batch.index) or world > 1):
                        raise
                    if not short and (network is model or not config.compile):
                        raise
                    reason = str(error).split("\n", 1)[0]
                # here, where the error and what it holds are gone
                if short:
                    optimizer.zero_grad()
                    release(where)
                    at.parts *= 2
                    warnings.warn(
                        f"out of memory: batches of {len(batch.index)} go through the network in parts of"
                        f" {-(-len(batch.index) // at.parts)} from here on (the same gradient, but batch norm"
                        " sees one part); a smaller batch_size would be faster",
                        stacklevel=2,
                    )
                else:
                    network = model
                    warnings.warn(
                        f"torch.compile does not take this network ({reason}): not compiled", stacklevel=2
                    )

        def look() -> None:
            """Raise if a step since the last look was not finite."""
            flags, steps = torch.stack([flag for _, flag in finite]).tolist(), [step for step, _ in finite]
            finite.clear()
            if not all(flags):
                step = steps[flags.index(False)]
                batch = next(data.epoch(at.epoch, start=step))
                moment = f"epoch {at.epoch + 1}, step {step + 1}, lr {lr:.2g}"
                fail(f"the loss or a gradient is not finite at {moment}", _bad_samples(model, loss, batch))

        def fail(what: str, samples: list[int]) -> None:
            if best_weights is not None:
                model.load_state_dict(best_weights)
            some = f"{samples[:8]}{'…' if len(samples) > 8 else ''}"
            raise FloatingPointError(
                f"{what} (samples {some}): look at these samples, then try a lower lr or grad_clip=1"
            )

        def state() -> tuple[dict[str, Tensor], dict[str, Any]]:
            """Return all that is needed to go on from here, as tensors and as plain types."""
            tensors = {
                f"{name}/{k}": v for name, part in modules.items() for k, v in part.state_dict().items()
            }
            for index, values in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer/{index}/{k}": v for k, v in values.items() if isinstance(v, Tensor)}
            tensors |= {f"so_far/{name}": values for name, values in _joined(so_far).items()}
            about = {"at": vars(at), "epochs": history.epochs, "ended": history.ended}
            about |= {name: record[name] for name in ("config", "identity", "machine")}
            return tensors | {"loss_sum": loss_sum}, about | {"scaler": scaler.state_dict()}

        # ---------------------------------------------------------------- epochs
        steps = len(data)
        shown = _Display(progress if rank == 0 else False, config.epochs * steps, at.epoch * steps + at.step)
        if told and not finished:
            shown.say(told)
        during.enter_context(_own_random_numbers(where))
        during.enter_context(runtime.threads(at.threads))
        during.enter_context(distributed.shared_statistics(model))
        while not finished:
            # asked first: one that was killed after its last epoch has none left to train
            tired = 0 < config.patience <= len(history.epochs) - max(history.best_epoch, at.since)
            history.ended = "early stopping" if tired else "all epochs" if at.epoch >= config.epochs else ""
            if history.ended:
                break
            model.train()
            started, first = time.perf_counter(), at.step
            for batch in data.epoch(at.epoch, start=at.step):
                # several processes agree to stop, which makes each wait for all: not at every step
                if (world == 1 or at.step % 16 == 0) and distributed.anyone(stop.requested, where):
                    history.ended = "stopped"
                    break
                done = (at.epoch * steps + at.step + 0.5) / (config.epochs * steps)
                shape = (config.warmup_share, config.step_size / config.epochs, config.gamma)
                lr = config.lr * at.lr_cut * lr_factor(config.schedule, done, *shape)
                for group in optimizer.param_groups:
                    group["lr"] = lr * group["share"]
                value, outputs = gradients(batch)
                distributed.average([p.grad for p in learned.parameters() if p.grad is not None])
                scaler.unscale_(optimizer)  # before anybody looks at the gradients
                norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
                if config.grad_clip:
                    clip_grads_with_norm_(parameters, config.grad_clip, norm)
                # the scaler itself leaves out a step whose float16 gradients overflow
                finite.append((at.step, torch.isfinite(value) & (torch.isfinite(norm) | scaled)))
                if where.type == "cpu" or len(finite) == _LOOK:
                    look()  # on a CPU before a step is taken that would spoil the weights
                scaler.step(optimizer)
                scaler.update()
                at.step += 1
                loss_sum += value
                so_far.append(
                    {"index": batch.index, **{f"/{k}": v.detach().clone() for k, v in outputs.items()}}
                )
                if config.ema:
                    done = at.epoch * steps + at.step
                    _average(averaged, model, min(config.ema, (1 + done) / (10 + done)))
                shown.step(at, config, history, loss_sum, (at.step - first) / (time.perf_counter() - started))
            if finite:
                look()
            if history.ended:
                break
            seconds = time.perf_counter() - started

            # ------------------------------------------------------------ validate
            outputs = predict(averaged, held_out, precision=config.precision)
            rows = [np.isfinite(v).reshape(len(v), -1).all(1) for v in by_name(outputs).values()]
            if bad := np.flatnonzero(~np.logical_and.reduce(rows)).tolist():
                fail(f"outputs on the validation set are not finite after epoch {at.epoch + 1}", bad)
            distributed.average([loss_sum])
            on_device = {name: torch.as_tensor(a, device=where) for name, a in by_name(outputs).items()}
            with torch.no_grad():
                validation_loss = float(loss(on_device.get("", on_device), held_out.targets))
            epoch = {
                "epoch": at.epoch + 1,
                "lr": max(group["lr"] for group in optimizer.param_groups),
                "train_loss": float(loss_sum) / at.step,
                "loss": validation_loss,
                **{name: float(metric(outputs, truth)) for name, metric in metrics.items()},
                **_training_scores(metrics, _joined(so_far), data),
                "seconds": seconds,
                "images_per_second": (at.step - first) * config.batch_size / seconds,
            }
            history.epochs.append(epoch)
            is_best = history.best is epoch
            if is_best:
                best_weights = copy.deepcopy(averaged.state_dict())
            least = config.lower_is_better if watched == config.monitor else watched == "loss"
            waited = at.epoch + 1 - int(history.best_by(watched, least)["epoch"])
            if config.schedule == "plateau" and waited and waited % config.plateau_patience == 0:
                at.lr_cut *= config.plateau_factor
            at.epoch, at.step = at.epoch + 1, 0
            loss_sum.zero_()
            so_far.clear()
            shown.epoch(config, epoch, is_best)

            # ------------------------------------------------------------ keep
            if kept and rank == 0:
                if is_best:  # before the state: what the state speaks of must already be there
                    arrays = {f"output {name}".strip(): values for name, values in by_name(outputs).items()}
                    kept.save_best(averaged, arrays | {f"target {k}": v for k, v in truth.items()})
                    for name, draw in (figures or {}).items():
                        kept.save_figure(name, partial(draw, outputs, truth))
                kept.keep_epoch(history, *state())
            if on_epoch:
                on_epoch(history)

        # ---------------------------------------------------------------- the end
        history.stopped = history.ended == "stopped"
        if kept and rank == 0 and not finished:
            kept.save_state(*state())
            kept.pause() if history.stopped else kept.finish(history)
        if best_weights is not None:
            model.load_state_dict(best_weights)
        shown.close(_summary(history, at.epoch, finished))
    return history


# ---------------------------------------------------------------- what a training is, and what is said of it


def _record(
    model: nn.Module, train: Faces, validation: Faces, data: Batches, loss: Loss, config: Config
) -> dict[str, Any]:
    """Return what the folder says of a training, in plain types, with digests of all it is made from."""
    channels, size = (data.shape[1], data.shape[-1]) if len(data.shape) == 4 else (0, 0)
    faces = {"train": len(train.images), "validation": len(validation.images)}
    faces |= {"classes": list(getattr(train, "classes", ())), "image_size": size, "channels": channels}
    identity = {
        "train": digest(train),
        "validation": digest(validation),
        "network": network_identity(model),
        "loss": digest(loss),
        "start": digest(model.state_dict()),
    }
    return {
        "model": {"class": type(model).__name__, **getattr(model, "spec", {})},
        "config": asdict(config),
        "faces": {**faces, "normalisation": {"mean": MEAN, "std": STD}},
        "identity": identity,
        "machine": runtime.machine(),
    }


def _check_labels(*sets: Faces) -> None:
    """Refuse labels that are no class: on a GPU they would end the process, not this call."""
    for faces in sets:
        num, labels = len(getattr(faces, "classes", ())), np.asarray(faces.labels)
        if num and np.issubdtype(labels.dtype, np.integer) and not 0 <= labels.min() <= labels.max() < num:
            found = f"labels go from {labels.min()} to {labels.max()}, and there are {num} classes"
            raise ValueError(f"{found}: a label must be from 0 to {num - 1}, an index into the classes")


def _summary(history: History, epochs: int, finished: bool) -> str:
    best, monitor = history.best, history.monitor
    if best is None:
        return "stopped before the end of the first epoch; the same call goes on from here"
    how = {
        "early stopping": f"early stopping after {epochs} epochs",
        "stopped": f"stopped in epoch {epochs + 1}",
    }
    end = ("finished already: " if finished else "") + how.get(history.ended, f"{epochs} epochs")
    again = " · the same call goes on from here" if history.stopped else ""
    return f"{end} · best {monitor} {best[monitor]:.4f} in epoch {int(best['epoch'])}{again}"


class _Display:
    """Says how far a training is: a line an epoch, and a bar where somebody looks; all of it on stdout."""

    def __init__(self, shown: bool | Watch, total: int, done: int) -> None:
        self.shown, self.watch, self.told = shown is True, shown if callable(shown) else None, 0.0
        shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
        self.cell = _Cell() if self.shown and hasattr(shell, "kernel") else None
        quiet = not self.shown or not (self.cell or sys.stdout.isatty())
        form = "{percentage:3.0f}% |{bar:20}| {remaining} left{postfix}"
        how = {"file": self.cell or sys.stdout, "bar_format": form, "ascii": "░█", "leave": False}
        self.bar = tqdm(total=total, initial=done, disable=quiet, **how)
        self.total, self.done = total, done

    def step(self, at: Any, config: Config, history: History, loss_sum: Tensor, speed: float) -> None:
        """Count a step; show it several times a second."""
        self.done += 1
        if (self.bar.disable and not self.watch) or time.perf_counter() - self.told < 0.2:
            return
        self.told = time.perf_counter()
        values: dict[str, float | str] = {"epoch": f"{at.epoch + 1}/{config.epochs}"}
        if loss_sum.device.type == "cpu":  # elsewhere to read it would wait for it
            values["loss"] = float(loss_sum) / at.step
        if best := history.best:
            values[f"best {history.monitor}"] = best[history.monitor]
        values["images/s"] = f"{speed * config.batch_size:,.0f}"
        if self.watch:
            self.watch(self.done / self.total, values)
        words = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
        self.bar.set_postfix_str(" · ".join(words), refresh=False)
        self.bar.n = self.done
        self.bar.refresh()

    def epoch(self, config: Config, record: Mapping[str, float], is_best: bool) -> None:
        """Say how an epoch went."""
        score, name = "", config.monitor
        if name != "loss":
            score = f" · {name} {record[name]:.4f} (train {record[f'train_{name}']:.4f})"
        losses = f"train loss {record['train_loss']:.4f} · loss {record['loss']:.4f}"
        speed = f"{record['images_per_second']:,.0f} images/s{' · best' if is_best else ''}"
        self.say(
            f"epoch {record['epoch']}/{config.epochs} · lr {record['lr']:.2g} · {losses}{score} · {speed}"
        )

    def say(self, line: str) -> None:
        """Write a line that stays."""
        if self.shown:
            self.bar.clear()
            print(line, flush=True)

    def close(self, line: str) -> None:
        """Write the last line in place of the bar."""
        self.bar.close()
        if self.cell:
            self.cell.write(line)
        else:
            self.say(line)


class _Cell:
    """One output of a notebook, plain text, that is written over: what is saved is its last state."""

    def __init__(self) -> None:
        from IPython.display import display

        self.handle = display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str) -> None:
        """Show the text in place of what was there."""
        if text.strip():
            self.handle.update({"text/plain": text.strip()}, raw=True)

    def flush(self) -> None:
        """Do nothing: all of it is shown."""


# ---------------------------------------------------------------- parts of a step


def _in_parts(
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


def _bad_samples(model: nn.Module, loss: Loss, batch: Batch) -> list[int]:
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


def _average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the running mean of the weights towards those of now; counts are taken as they are."""
    pairs = list(zip(averaged.state_dict().values(), model.state_dict().values(), strict=True))
    floating = [pair for pair in pairs if pair[0].is_floating_point()]
    with torch.no_grad():
        get_ema_multi_avg_fn(decay)(*map(list, zip(*floating, strict=True)), None)
        for mine, theirs in pairs:
            if not mine.is_floating_point():
                mine.copy_(theirs)


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return what was kept of each step as one tensor by name."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _training_scores(
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


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a name and a slash, by the rest of theirs."""
    return {key.split("/", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{name}/")}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split("/")
        p = parameters[int(index)]
        if value.shape == p.shape:  # in the order of the weights in memory, by which fused optimisers go
            value = torch.empty_like(p, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


@contextmanager
def _own_random_numbers(where: torch.device) -> Iterator[None]:
    """Leave the caller's random numbers as they were: dropout is seeded at every step."""
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        yield
