"""The loop: batches in, the best weights by validation out; stopped and resumed without a trace."""

from __future__ import annotations

import copy
import hashlib
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from helpers import runtime
from helpers.batches import MEAN, STD, Batch, Batches, Faces, random_number
from helpers.training import distributed, guard
from helpers.training.config import Config, lr_factor, make_optimizer
from helpers.training.evaluation import Arrays, Metric, autocast, by_name, predict, targets_of
from helpers.training.history import History
from helpers.training.progress import Progress, Watch
from helpers.training.run import Run, load_weights, save_weights

Loss = Callable[[Any, dict[str, Tensor]], Tensor]
"""A loss of (outputs, targets): what the network put out, and the batch's targets by name.

One that is a module learns along: its parameters are trained and kept with the network's.
"""

Figure = Callable[[Any, dict[str, np.ndarray], Any], Any]
"""Draws (outputs, targets) of the validation set on a Matplotlib ``Axes``."""

_STEP = 15  # which random number of a step seeds dropout; batches use 0 to 14 of a sample's


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
    figures: Mapping[str, Figure] | None = None,
    device: str = "auto",
    progress: bool | Watch = True,
    stop: Stop | None = None,
    on_epoch: Callable[[History], None] | None = None,
) -> History:
    """Train a network; it ends with the weights of the epoch that did best on the validation set.

    With a ``run`` folder, every epoch is kept there. A training that was stopped or killed goes on exactly
    where it was when it is called again with the same network, data and configuration: the weights it ends
    with are, on a CPU, the same to the bit. A training that was finished starts anew.

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
            is "loss".
        config: how to train.
        run: the folder to keep the training in, or a :class:`Run` that says more; None to keep nothing.
        figures: name to a function that draws (outputs, targets) of the validation set on an axes; each is
            kept in the run's folder.
        device: "auto", "cpu", "cuda" or "mps".
        progress: show a line that grows; or a function that is told the share done, several times a second.
        stop: asks the training to end; an interrupt does so too.
        on_epoch: called with the history after each epoch.

    Returns:
        The history, an entry an epoch.

    Raises:
        ValueError: ``config.monitor`` is not among the metrics, a set is empty, or a batch cannot be shared
            evenly.
        FloatingPointError: the loss, a gradient or an output is not finite; the message names the samples.
            The network is left with the best weights so far, and what is in the folder stays.
    """
    config = config or Config()
    if config.monitor not in {"loss", *metrics}:
        raise ValueError(f"monitor {config.monitor!r} is not among the metrics: {', '.join(metrics)}")
    stop = stop or Stop()
    with stop.on_interrupt():  # from here on: PyTorch imports parts of itself late, and must not be cut there
        loop = _Loop(model, train, validation, loss, metrics, config, runtime.device(device))
        kept = run if run is None or isinstance(run, Run) else Run(run)
        keeper = None if kept is None else _Keeper(kept, loop, figures or {})
        shown = progress if loop.share.rank == 0 else False
        bar = Progress(config.epochs * len(loop.train), loop.steps_done, shown)
        own = _own_random_numbers(loop.where)
        with own, runtime.threads(loop.threads), distributed.shared_statistics(model):
            # asked first: one that was killed after its last epoch has none left to train
            while not loop.finished and loop.train_epoch(stop, bar):
                outputs = loop.validate()
                if keeper and keeper.writes:
                    keeper.keep_epoch(outputs)
                if on_epoch:
                    on_epoch(loop.history)
        if keeper and keeper.writes:
            keeper.keep_end()
        loop.take_best_weights()
        bar.close(loop.summary())
    return loop.history


class _Loop:
    """The training at one moment: what must be kept to go on from here, and how to go one step on."""

    def __init__(
        self,
        model: nn.Module,
        train: Faces,
        validation: Faces,
        loss: Loss,
        metrics: Mapping[str, Metric],
        config: Config,
        where: torch.device,
    ) -> None:
        self.model = model.to(where, memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(model) if config.ema else model
        self.share = distributed.share()
        self.parallel = distributed.parallel(self.model)
        kind = {"seed": config.seed, "augment": config.augment, "shuffle": True, "device": where}
        self.train = Batches(train, config.batch_size, **kind, share=(self.share.rank, self.share.world))
        self.validation = Batches(validation, 512, device=where)
        self.faces = _described(train, self.train, self.validation)
        self.loss, self.metrics, self.config, self.where = loss, metrics, config, where
        self.learned = loss.to(where) if isinstance(loss, nn.Module) else nn.Module()  # of the loss
        self.optimizer = make_optimizer(model, config, self.learned)
        half = autocast(where, config.precision)
        self.scaler = torch.amp.GradScaler(
            where.type, enabled=half.fast_dtype is torch.float16 and where.type == "cuda"
        )
        self.history = History(config.monitor, config.lower_is_better)
        self.epoch = self.step = 0
        self.lr_cut = 1.0  # what the plateau schedule has taken off
        self.loss_sum = torch.zeros((), device=where)
        self.best_weights: dict[str, Tensor] | None = None
        self.seconds = 0.0
        # kept with the state: on another number of threads the last digits would differ
        self.threads = torch.get_num_threads()
        self.parts = 1  # of a batch that go through the network one after the other, for want of memory
        self.asked: tuple[guard.Answer, Tensor, str] | None = None  # whether a step was finite, and which one

    @property
    def steps_done(self) -> int:
        return self.epoch * len(self.train) + self.step

    @property
    def finished(self) -> bool:
        patience = self.config.patience
        tired = patience > 0 and self.history.epochs_since_best >= patience
        return tired or self.epoch >= self.config.epochs

    def train_epoch(self, stop: Stop, bar: Progress) -> bool:
        """Train to the end of the epoch; return False where a stop was asked for before it."""
        started = time.perf_counter()
        self.model.train()
        for batch in self.train.epoch(self.epoch, start=self.step):
            if distributed.anyone(stop.requested, self.where):
                self.history.stopped = True
                return False
            loss = self.train_step(batch)
            bar.step(**self._shown(loss, started))
        self.seconds = time.perf_counter() - started
        return True

    def train_step(self, batch: Batch) -> Tensor:
        lr = self._set_lr()
        try:
            loss = self._gradients(batch)
        except ValueError as error:  # a loss may refuse targets itself, but knows no names
            self._explain(error, batch)
            raise
        if self.config.grad_clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self._check(loss, batch, lr)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self.loss_sum += loss
        if self.config.ema:
            self._average()
        return self.loss_sum

    def _gradients(self, batch: Batch) -> Tensor:
        """Return the loss of a batch and leave its gradients, in as many parts as memory asks for."""
        while True:
            self.optimizer.zero_grad()
            try:
                return self._backward(batch)
            except (MemoryError, RuntimeError) as error:
                enough = 4 * self.parts <= len(batch.images) and self.share.world == 1
                if not (enough and guard.is_out_of_memory(error)):
                    raise
            self._halve(len(batch.images))  # here, where the error and what it holds are gone

    def _backward(self, batch: Batch) -> Tensor:
        images = batch.images
        if images.ndim == 4:  # features have no channels
            images = images.contiguous(memory_format=torch.channels_last)
        if self.parts > 1:
            scaled = guard.backward_in_parts(
                self._forward,
                lambda outputs: self.scaler.scale(self.loss(outputs, batch.targets)),
                images,
                self.parts,
                self.model,
            )
            return scaled / self.scaler.get_scale()
        loss = self.loss(self._forward(images), batch.targets)
        self.scaler.scale(loss).backward()
        distributed.average([p.grad for p in self.learned.parameters() if p.grad is not None])
        return loss.detach()

    def _forward(self, images: Tensor, part: int = 0) -> Any:
        self._seed_dropout(part)
        with autocast(self.where, self.config.precision):
            outputs = self.parallel(images)
        # the loss in float32: half precision loses what a confident prediction is worth
        return _in_float32(outputs)

    def _halve(self, num_images: int) -> None:
        self.optimizer.zero_grad()
        guard.release(self.where)
        self.parts *= 2
        size = -(-num_images // self.parts)
        warnings.warn(
            f"out of memory: batches of {num_images} go through the network in parts of {size} from here on"
            " (the same gradient, but batch norm sees one part); a smaller batch_size would be faster",
            stacklevel=2,
        )

    def validate(self) -> Arrays:
        """Score the epoch, keep its weights if it is the best so far, and go on to the next one."""
        outputs = predict(self.averaged, self.validation, precision=self.config.precision)
        distributed.average([self.loss_sum])
        targets = targets_of(self.validation)
        self._check_validated(outputs)
        record = {
            "epoch": self.epoch + 1,
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            "train_loss": float(self.loss_sum) / self.step,
            "loss": self._validation_loss(outputs),
            **{name: float(metric(outputs, targets)) for name, metric in self.metrics.items()},
            "seconds": self.seconds,
            "images_per_second": self.step * self.config.batch_size / self.seconds,
        }
        self.history.epochs.append(record)
        if self.history.best is record:
            self.best_weights = copy.deepcopy(self.averaged.state_dict())
        self._cut_lr_on_plateau()
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum.zero_()
        return outputs

    def take_best_weights(self) -> None:
        if self.best_weights is not None:
            self.model.load_state_dict(self.best_weights)

    def summary(self) -> str:
        best = self.history.best
        if best is None:
            return "stopped before the end of the first epoch"
        end = f"stopped in epoch {self.epoch + 1}" if self.history.stopped else f"{self.epoch} epochs"
        return f"{end} · best {self.config.monitor} {best[self.config.monitor]:.4f} in epoch {best['epoch']}"

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on from here, as tensors and plain types."""
        return {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "learned": self.learned.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epochs": self.history.epochs,
            "epoch": self.epoch,
            "step": self.step,
            "lr_cut": self.lr_cut,
            "loss_sum": self.loss_sum,
            "parts": self.parts,
            "threads": self.threads,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        for name in ("model", "averaged", "learned", "optimizer", "scaler"):
            getattr(self, name).load_state_dict(state[name])
        self.history.epochs = state["epochs"]
        self.epoch, self.step, self.lr_cut = state["epoch"], state["step"], state["lr_cut"]
        self.loss_sum = state["loss_sum"].to(self.where)
        self.parts = state.get("parts", 1)
        self.threads = min(state.get("threads", self.threads), os.cpu_count() or 1)

    def fingerprint(self) -> str:
        """Return a digest of configuration, data and network: a state goes on only where it came from."""
        digest = hashlib.sha256(repr(asdict(self.config)).encode())
        for name, tensor in (*self.model.state_dict().items(), *self.learned.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
        frozen = [name for name, weights in self.model.named_parameters() if not weights.requires_grad]
        digest.update(repr(frozen).encode())
        for batches in (self.train, self.validation):
            some = torch.as_tensor(batches.images[:: max(1, batches.num_samples // 256)])
            digest.update(f"{batches.shape}".encode() + some.cpu().numpy().tobytes())
            for name, values in batches.targets.items():
                digest.update(name.encode() + values.cpu().numpy().tobytes())
        return digest.hexdigest()

    def _set_lr(self) -> float:
        progress = (self.steps_done + 0.5) / (self.config.epochs * len(self.train))
        lr = self.config.lr * self.lr_cut * lr_factor(self.config.schedule, progress, self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["share"]
        return lr

    def _seed_dropout(self, part: int) -> None:
        runtime.seed_device(random_number(self.config.seed, self.epoch, self.step, _STEP + part), self.where)

    def _check(self, loss: Tensor, batch: Batch, lr: float) -> None:
        """Raise before a step that would spoil the weights; on a GPU, where nothing waits, a step later."""
        # the scaler of float16 looks for infinite gradients itself, and leaves out their steps
        groups = [] if self.scaler.is_enabled() else self.optimizer.param_groups
        finite = guard.all_finite(loss, [p for group in groups for p in group["params"]])
        asked = (
            guard.Answer(finite),
            batch.index,
            f"epoch {self.epoch + 1}, step {self.step + 1}, lr {lr:.2g}",
        )
        if self.where.type == "cuda":
            self.asked, asked = asked, self.asked
        self._expect(asked)

    def _expect(self, asked: tuple[guard.Answer, Tensor, str] | None) -> None:
        if asked is None or asked[0]:
            return
        batch = self.train.batch(asked[1], self.epoch)
        self._end_not_finite(f"the loss or a gradient is not finite at {asked[2]}", self._culprits(batch))

    def _culprits(self, batch: Batch) -> list[int]:
        self.model.eval()
        with torch.no_grad():
            like = _in_float32(self.model(batch.images[:2]))
        return guard.culprits(batch, self.loss, like)

    def _explain(self, error: ValueError, batch: Batch) -> None:
        samples = self._culprits(batch)
        if len(samples) < len(batch.index):
            reason = str(error).split("\n", 1)[0]
            self._end_not_finite(f"{reason} at epoch {self.epoch + 1}, step {self.step + 1}", samples)

    def _check_validated(self, outputs: Arrays) -> None:
        self._expect(self.asked)
        self.asked = None
        finite = [np.isfinite(values).reshape(len(values), -1).all(1) for values in by_name(outputs).values()]
        bad = np.flatnonzero(~np.logical_and.reduce(finite)).tolist()
        if bad:
            self._end_not_finite(
                f"outputs on the validation set are not finite after epoch {self.epoch + 1}", bad
            )

    def _end_not_finite(self, what: str, samples: list[int]) -> None:
        self.take_best_weights()
        more = "…" if len(samples) > 8 else ""
        raise FloatingPointError(
            f"{what} (samples {samples[:8]}{more}): look at these samples, then try a lower lr or grad_clip=1"
        )

    def _average(self) -> None:
        decay = min(self.config.ema, (1 + self.steps_done) / (10 + self.steps_done))
        with torch.no_grad():
            pairs = zip(self.averaged.state_dict().values(), self.model.state_dict().values(), strict=True)
            floating, counts = [], []
            for pair in pairs:
                (floating if pair[0].is_floating_point() else counts).append(pair)
            get_ema_multi_avg_fn(decay)(*map(list, zip(*floating, strict=True)), None)
            for mine, theirs in counts:
                mine.copy_(theirs)

    def _validation_loss(self, outputs: Arrays) -> float:
        tensors = {name: torch.as_tensor(a, device=self.where) for name, a in by_name(outputs).items()}
        with torch.no_grad():
            return float(self.loss(tensors.get("", tensors), self.validation.targets))

    def _cut_lr_on_plateau(self) -> None:
        waited = self.history.epochs_since_best
        if self.config.schedule == "plateau" and waited and waited % self.config.plateau_patience == 0:
            self.lr_cut /= 2

    def _shown(self, loss_sum: Tensor, started: float) -> dict[str, float | str]:
        seen = self.step * self.config.batch_size / (time.perf_counter() - started)
        shown: dict[str, float | str] = {"epoch": f"{self.epoch + 1}/{self.config.epochs}"}
        if self.where.type == "cpu":
            shown["loss"] = float(loss_sum) / self.step
        if best := self.history.best:
            shown["best " + self.config.monitor] = best[self.config.monitor]
        return shown | {"images/s": f"{seen:,.0f}"}


class _Keeper:
    """Keeps a training in its folder, and takes up there what was left unfinished."""

    def __init__(self, run: Run, loop: _Loop, figures: Mapping[str, Figure]) -> None:
        self.run, self.loop, self.figures = run, loop, figures
        self.fingerprint = loop.fingerprint()
        self._resume()
        distributed.wait()  # no process may write while another still reads
        self.writes = loop.share.rank == 0
        if self.writes:
            self._describe()

    def _describe(self) -> None:
        loop = self.loop
        model = {"class": type(loop.model).__name__, **getattr(loop.model, "spec", {})}
        record = {"model": model, "config": asdict(loop.config), "faces": loop.faces}
        machine = runtime.machine() | {"threads": loop.threads}
        self.run.save_config({**record, "machine": machine})

    def _resume(self) -> None:
        state = self.run.load_state()
        if state is None or state.pop("fingerprint") != self.fingerprint:
            return
        self.loop.load_state(state)
        if self.run.best.exists():
            best = copy.deepcopy(self.loop.averaged)
            load_weights(best, self.run.best)
            self.loop.best_weights = best.state_dict()

    def keep_epoch(self, outputs: Arrays) -> None:
        history = self.loop.history
        if history.epochs_since_best == 0:
            # before the state: what the state speaks of must already be there
            save_weights(self.loop.averaged, self.run.best)
            targets = targets_of(self.loop.validation)
            self.run.save_predictions(_for_file("output", outputs) | _for_file("target", targets))
            self._draw(outputs, targets)
        self.run.save_history(history)
        self.run.log(history.epochs[-1])
        self._save_state()

    def keep_end(self) -> None:
        if self.loop.history.stopped:
            self._save_state()
            self.run.pause()
        else:
            self.run.finish(self.loop.history)

    def _save_state(self) -> None:
        self.run.save_state({**self.loop.state(), "fingerprint": self.fingerprint})

    def _draw(self, outputs: Arrays, targets: dict[str, np.ndarray]) -> None:
        for name, draw in self.figures.items():
            self.run.save_figure(name, lambda ax, draw=draw: draw(outputs, targets, ax))


def _described(faces: Faces, train: Batches, validation: Batches) -> dict[str, Any]:
    """Return what must be known of the faces to show the network others: their names, size and channels."""
    channels, size = (train.shape[1], train.shape[-1]) if len(train.shape) == 4 else (0, 0)
    sizes = {"train": train.num_samples, "validation": validation.num_samples}
    classes = list(getattr(faces, "classes", ()))
    scale = {"mean": MEAN, "std": STD}
    return {**sizes, "classes": classes, "image_size": size, "channels": channels, "normalisation": scale}


def _in_float32(outputs: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
    if isinstance(outputs, dict):
        return {name: values.float() for name, values in outputs.items()}
    return outputs.float()


def _for_file(kind: str, arrays: Arrays) -> dict[str, np.ndarray]:
    return {f"{kind} {name}".strip(): values for name, values in by_name(arrays).items()}


@contextmanager
def _own_random_numbers(where: torch.device) -> Iterator[None]:
    """Leave the caller's random numbers as they were: dropout is seeded at every step."""
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        yield
