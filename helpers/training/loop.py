"""The loop: batches in, the best weights by validation out; stopped and resumed without a trace."""

from __future__ import annotations

import copy
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from helpers import runtime
from helpers.batches import Batch, Batches, Faces, random_bits
from helpers.training import distributed, evaluation
from helpers.training.config import Config, average_weights, lr_factor, make_optimizer
from helpers.training.evaluation import by_name
from helpers.training.run import Run, State, record_of
from helpers.training.tracking import Display, History, Stop, Watch
from helpers.weights import load_weights

Loss = Callable[[Any, dict[str, Tensor]], Tensor]
"""A loss of (outputs, targets): those of the network, and the batch's targets by name.

One that is a module learns along: its parameters are trained and kept with the network's.
"""

Figure = Callable[[Any, dict[str, np.ndarray], Any], Any]
"""Draws (outputs, targets) of the validation set on a Matplotlib ``Axes``."""

_DROPOUT = 15  # which random number of a step seeds dropout; batches use 0 to 14 of a sample's
_LOOK = 64  # steps after which an accelerator is asked whether all were finite: to ask makes the CPU wait


def fit(
    model: nn.Module,
    train: Faces,
    validation: Faces,
    loss: Loss,
    metrics: Mapping[str, evaluation.Metric],
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

    Called again with the same ``run`` folder, network, data, loss and configuration, a training that was
    stopped or killed goes on where it was, on a CPU to the same bits; with more ``epochs`` it goes on, too.
    Where anything else differs a warning says what, and the training starts anew. Where memory does not
    suffice for a batch, its gradient is added up over parts of it. Under ``torchrun`` each batch is shared
    among the processes, and the mean of the shares' losses takes the place of the batch's loss.

    Args:
        model: the network, trained in place and left on the device; what asks for no gradient stays.
        train: the faces to learn from.
        validation: the faces that pick the best epoch; never the test set.
        loss: function of (outputs, targets); a module's parameters are trained in place too.
        metrics: name to function of (outputs, targets) as arrays; must hold ``config.monitor``, unless that
            is "loss". Each is also taken of the outputs of the training steps.
        config: how to train.
        run: the folder to keep the training in, or a :class:`Run` that says more; None to keep nothing.
        start: a run or a file of weights to begin with: those that agree in name and shape are taken, a line
            names the rest. Where all agree, the state of the optimiser comes along, unless ``start_state``
            is False.
        start_state: see ``start``.
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
        how = {"seed": config.seed, "augment": config.augment, "shuffle": True, "share": (rank, world)}
        data = Batches(train, config.batch_size, device=where, **how)
        held_out = Batches(validation, 512, device=where)
        known, truth = ({k: v.cpu().numpy() for k, v in part.targets.items()} for part in (data, held_out))
        for faces in (train, validation):  # on a GPU a label that is no class would end the process
            num, labels = len(getattr(faces, "classes", ())), np.asarray(faces.labels)
            if num and labels.dtype.kind in "iu" and not 0 <= labels.min() <= labels.max() < num:
                found = f"labels go from {labels.min()} to {labels.max()}, and there are {num} classes"
                raise ValueError(f"{found}: a label must be from 0 to {num - 1}, an index into the classes")
        begun = Run.open(start) if isinstance(start, str | Path) else start
        if missing := load_weights(model, begun.best, matching=True) if begun else []:
            warnings.warn(f"{begun.best} has no weights for {', '.join(missing)}", stacklevel=2)
        model.to(where, memory_format=torch.channels_last)
        averaged = copy.deepcopy(model) if config.ema else model
        learned = loss.to(where) if isinstance(loss, nn.Module) else nn.Module()
        modules = {"model": model, "learned": learned} | ({"averaged": averaged} if config.ema else {})
        optimizer = make_optimizer(model, config, learned)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        half = runtime.autocast_dtype(where, config.precision)
        scaled = where.type == "cuda" and half is torch.float16
        scaler = torch.amp.GradScaler(where.type, enabled=scaled)
        plain = model
        if world > 1:  # averages gradients; the first process's weights go to all
            plain = nn.parallel.DistributedDataParallel(model, [where] if where.type == "cuda" else None)
            during.enter_context(distributed.shared_statistics(model))
        network = plain
        if config.compile:
            network = torch.compile(plain, mode="reduce-overhead" if where.type == "cuda" else None)
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
        record, finished = {}, False
        if kept:
            if rank == 0:
                during.enter_context(kept.alone())
            record = record_of(model, train, validation, loss, config)
            tensors, about, finished = kept.state_for(record)
            if world > 1:
                torch.distributed.barrier()  # no process may write while another still reads
            if about:
                for name, module in modules.items():
                    module.load_state_dict(_part_of(tensors, name))
                _load_optimizer(optimizer, tensors)
                if scaled and about["scaler"]:  # empty where it was begun in another precision
                    scaler.load_state_dict(about["scaler"])
                vars(at).update(about["at"])
                at.threads = min(at.threads, os.cpu_count() or 1)
                history.epochs, history.ended = about["epochs"], about["ended"]
                loss_sum.copy_(tensors["loss_sum"])
                if at.step:
                    so_far.append({k: v.to(where) for k, v in _part_of(tensors, "so_far").items()})
                if kept.best.is_file():
                    best_weights = kept.load(copy.deepcopy(averaged)).state_dict()
                if history.ended and not finished:
                    at.since = at.epoch
            if rank == 0 and not finished:
                kept.begin(record, anew=not about)
        if begun and start_state and not missing and not at.epoch + at.step and begun.state.is_file():
            _load_optimizer(optimizer, begun.load_state()[0])

        # ---------------------------------------------------------------- a step, in parts
        def forward(images: Tensor, part: int = 0) -> dict[str, Tensor]:
            # seeded by (seed, epoch, step): a resumed training drops out what it would have dropped out
            runtime.seed_device(random_bits(config.seed, at.epoch, at.step, _DROPOUT + part), where)
            if images.ndim == 4:  # features have no channels
                images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(where.type, half, half is not None):
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
                        return evaluation.in_parts(forward, loss, batch, at.parts, model, scaler)
                    outputs = forward(batch.images)
                    value = loss(outputs.get("", outputs), batch.targets)
                    scaler.scale(value).backward()
                    return value.detach(), outputs
                except ValueError as error:  # a loss may refuse targets itself, but knows no names
                    if len(samples := evaluation.bad_samples(model, loss, batch)) == len(batch.index):
                        raise
                    reason = str(error).split("\n", 1)[0]
                    fail(f"{reason} at epoch {at.epoch + 1}, step {at.step + 1}", samples)
                except (MemoryError, RuntimeError) as error:
                    short = evaluation.is_out_of_memory(error)
                    if (4 * at.parts > len(batch.index) or world > 1) if short else network is plain:
                        raise
                    reason = str(error).split("\n", 1)[0]
                # here, where the error and what it holds are gone
                if not short:
                    network = plain
                    warnings.warn(f"not compiled: torch.compile says {reason}", stacklevel=2)
                    continue
                optimizer.zero_grad()
                evaluation.release(where)
                at.parts *= 2
                size, part = len(batch.index), -(-len(batch.index) // at.parts)
                line = f"out of memory: batches of {size} go through the network in parts of {part} from"
                line += " here on (the same gradient, but batch norm sees one part); a smaller batch_size"
                warnings.warn(f"{line} would be faster", stacklevel=2)

        def look() -> None:
            """Raise if a step since the last look was not finite."""
            steps, flags = zip(*finite, strict=True)
            finite.clear()
            if False in (flags := torch.stack(flags).tolist()):
                step = steps[flags.index(False)]
                samples = evaluation.bad_samples(model, loss, next(data.epoch(at.epoch, start=step)))
                moment = f"epoch {at.epoch + 1}, step {step + 1}, lr {lr:.2g}"
                fail(f"the loss or a gradient is not finite at {moment}", samples)

        def fail(what: str, samples: list[int]) -> None:
            if best_weights is not None:
                model.load_state_dict(best_weights)
            some = f"{samples[:8]}{'…' if len(samples) > 8 else ''}"
            advice = "look at these samples, then try a lower lr or grad_clip=1"
            raise FloatingPointError(f"{what} (samples {some}): {advice}")

        def shown_values() -> dict[str, float | str]:
            speed = (at.step - first) * config.batch_size / (time.perf_counter() - started)
            values: dict[str, float | str] = {"epoch": f"{at.epoch + 1}/{config.epochs}"}
            if where.type == "cpu":  # elsewhere to read it would wait for it
                values["loss"] = float(loss_sum) / at.step
            best = {f"best {config.monitor}": history.best[config.monitor]} if history.best else {}
            return values | best | {"images/s": f"{speed:,.0f}"}

        def state() -> State:
            """Return all that is needed to go on from here, as tensors and as plain types."""
            tensors = {f"{name}/{k}": v for name, m in modules.items() for k, v in m.state_dict().items()}
            for index, values in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer/{index}/{k}": v for k, v in values.items() if isinstance(v, Tensor)}
            if so_far:
                tensors |= {f"so_far/{name}": torch.cat([e[name] for e in so_far]) for name in so_far[0]}
            about = {"at": vars(at), "epochs": history.epochs, "ended": history.ended}
            about |= {name: record[name] for name in ("config", "identity", "machine")}
            return tensors | {"loss_sum": loss_sum}, about | {"scaler": scaler.state_dict()}

        # ---------------------------------------------------------------- epochs
        steps = len(data)
        shown = Display(progress if rank == 0 else False, config.epochs * steps, at.epoch * steps + at.step)
        if at.epoch + at.step and not finished:
            shown.say(f"goes on: epoch {at.epoch + 1} of {config.epochs}, step {at.step + 1}")
        # the caller's random numbers, and threads, stay as they were
        during.enter_context(torch.random.fork_rng(devices=[where] if where.type == "cuda" else []))
        during.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(at.threads)
        while not finished:
            # asked first: one that was killed after its last epoch has none left to train
            tired = 0 < config.patience <= len(history.epochs) - max(history.best_epoch, at.since)
            history.ended = "early stopping" if tired else "all epochs" if at.epoch >= config.epochs else ""
            if history.ended:
                break
            model.train()
            started, first = time.perf_counter(), at.step
            for batch in data.epoch(at.epoch, start=at.step):
                wanted = stop.requested
                if world > 1:  # all stop at one step; to agree makes each wait for all, so not at every step
                    wanted = at.step % 16 == 0 and distributed.anyone(wanted, where)
                if wanted:
                    history.ended = "stopped"
                    break
                done = (at.epoch * steps + at.step + 0.5) / (config.epochs * steps)
                shape = (config.warmup_share, config.step_size / config.epochs, config.gamma)
                lr = config.lr * at.lr_cut * lr_factor(config.schedule, done, *shape)
                for group in optimizer.param_groups:
                    group["lr"] = lr * group["share"]
                value, outputs = gradients(batch)
                if world > 1:
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
                named = {f"/{name}": values.detach().clone() for name, values in outputs.items()}
                so_far.append({"index": batch.index, **named})
                if config.ema:
                    done = at.epoch * steps + at.step
                    average_weights(averaged, model, min(config.ema, (1 + done) / (10 + done)))
                shown.step(shown_values)
            if finite:
                look()
            if history.ended:
                break
            seconds = time.perf_counter() - started

            # ------------------------------------------------------------ validate
            outputs = evaluation.predict(averaged, held_out, precision=config.precision)
            rows = [np.isfinite(v).reshape(len(v), -1).all(1) for v in by_name(outputs).values()]
            if bad := np.flatnonzero(~np.logical_and.reduce(rows)).tolist():
                fail(f"outputs on the validation set are not finite after epoch {at.epoch + 1}", bad)
            on_device = {name: torch.as_tensor(a, device=where) for name, a in by_name(outputs).items()}
            with torch.no_grad():
                validation_loss = float(loss(on_device.get("", on_device), held_out.targets))
            seen = {name: torch.cat([each[name] for each in so_far]) for name in so_far[0]}
            if world > 1:
                distributed.average([loss_sum])
                seen = distributed.gathered(seen)
            seen = {name: values.cpu().numpy() for name, values in seen.items()}
            targets = {name: values[seen["index"]] for name, values in known.items()}
            steps_gave = {name: seen[f"/{name}"] for name in by_name(outputs)}
            epoch = {
                "epoch": at.epoch + 1,
                "lr": max(group["lr"] for group in optimizer.param_groups),
                "train_loss": float(loss_sum) / at.step,
                "loss": validation_loss,
                **{name: float(metric(outputs, truth)) for name, metric in metrics.items()},
            }
            for name, metric in metrics.items():
                try:
                    epoch[f"train_{name}"] = float(metric(steps_gave.get("", steps_gave), targets))
                except Exception as error:  # it may have been written for the validation set alone
                    warnings.warn(f"{name} cannot be taken of the training steps ({error})", stacklevel=2)
                    epoch[f"train_{name}"] = math.nan
            speed = (at.step - first) * config.batch_size / seconds
            history.epochs.append(epoch | {"seconds": seconds, "images_per_second": speed})
            is_best = history.best_epoch == at.epoch + 1
            if is_best:
                best_weights = copy.deepcopy(averaged.state_dict())
            least = config.lower_is_better if watched == config.monitor else watched == "loss"
            waited = at.epoch + 1 - int(history.best_by(watched, least)["epoch"])
            if config.schedule == "plateau" and waited and waited % config.plateau_patience == 0:
                at.lr_cut *= config.plateau_factor
            at.epoch, at.step = at.epoch + 1, 0
            loss_sum.zero_()
            so_far.clear()
            line = f"epoch {at.epoch}/{config.epochs} · lr {epoch['lr']:.2g}"
            line += f" · train loss {epoch['train_loss']:.4f} · loss {validation_loss:.4f}"
            if (name := config.monitor) != "loss":
                line += f" · {name} {epoch[name]:.4f} (train {epoch[f'train_{name}']:.4f})"
            shown.say(f"{line} · {speed:,.0f} images/s{' · best' if is_best else ''}")

            # ------------------------------------------------------------ keep
            if kept and rank == 0:
                if is_best:  # before the state: what the state speaks of must already be there
                    arrays = {f"output {name}".strip(): values for name, values in by_name(outputs).items()}
                    arrays |= {f"target {name}": values for name, values in truth.items()}
                    draw = {name: partial(each, outputs, truth) for name, each in (figures or {}).items()}
                    kept.save_best(averaged, arrays, draw)
                kept.keep_epoch(history, state())
            if on_epoch:
                on_epoch(history)

        # ---------------------------------------------------------------- the end
        history.stopped = history.ended == "stopped"
        if kept and rank == 0 and not finished:
            kept.end(history, state())
        if best_weights is not None:
            model.load_state_dict(best_weights)
        best = history.best or {"epoch": 0, config.monitor: math.nan}
        why = "" if history.ended == "all epochs" else f"{history.ended}: "
        reached = f"best {config.monitor} {best[config.monitor]:.4f} in epoch {best['epoch']}"
        again = " · the same call goes on from here" if history.stopped else ""
        line = f"{'finished already: ' if finished else why}{at.epoch} epochs · {reached}{again}"
        shown.say(line, last=True)
    return history


def _part_of(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a name and a slash, by the rest of theirs."""
    return {key.split("/", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{name}/")}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser its state back: tensors by "optimizer/<number of the parameter>/<name>"."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    kept: dict[int, dict[str, Tensor]] = {}
    for name, value in _part_of(tensors, "optimizer").items():
        index, key = name.split("/")
        p = parameters[int(index)]
        if value.shape == p.shape:  # in the order of the weights in memory, by which fused optimisers go
            value = torch.empty_like(p, dtype=value.dtype).copy_(value)
        kept.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": kept, "param_groups": optimizer.state_dict()["param_groups"]})
