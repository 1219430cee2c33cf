"""Several trainings at once: independent networks side by side, one on each idle core.

A small network on a small batch keeps one core busy; a second thread saves it a fifth of its time. Two
trainings on two cores save half. And as each of them has one thread, however many cores there are, they end
with the same numbers on any number of them.
"""

from __future__ import annotations

import io
import multiprocessing
import sys
import traceback
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any, TypeVar

import torch
from torch import nn

from helpers import runtime
from helpers.training import shortcuts
from helpers.training.config import Config, make_optimizer
from helpers.training.progress import Progress

Key = TypeVar("Key", bound=Hashable)


def side_by_side(
    work: Callable[[Key, nn.Module], Any], nets: Mapping[Key, nn.Module], progress: bool = True
) -> dict[Key, Any]:
    """Train independent networks, as many at a time as cores are idle; the result is that of a loop.

    On Linux without a GPU each is trained by a process of its own that begins as a copy of this one, so that
    ``work`` may be any function and need not hand over data. What it changes but the network's weights is
    changed in the copy alone. Anywhere else, and where one core is idle, they are trained one by one.

    Args:
        work: is given a key and its network, trains it in place and returns anything plain (no tensors).
        nets: the networks by key, each with weights of its own.
        progress: show a line that grows.

    Returns:
        What ``work`` returned, by key, in the order of ``nets``.

    Raises:
        Exception: what ``work`` raised first; trainings that are under way are ended.
        RuntimeError: a process was killed; the message says whose.
    """
    bar = Progress(len(nets), shown=progress)
    alone = sys.platform != "linux" or runtime.device().type != "cpu"
    at_once = 1 if alone else min(len(nets), runtime.idle_threads())
    if at_once > 1:
        found = _in_processes(work, nets, at_once, bar)
    else:
        found = {}
        with runtime.threads(torch.get_num_threads() if alone else 1):
            for key, net in nets.items():
                found[key] = work(key, net)
                bar.step()
    bar.close(f"{len(nets)} trained" + (f", {at_once} at a time" if at_once > 1 else ""))
    return {key: found[key] for key in nets}


def _in_processes(
    work: Callable[[Key, nn.Module], Any], nets: Mapping[Key, nn.Module], at_once: int, bar: Progress
) -> dict[Key, Any]:
    # PyTorch imports seconds' worth of itself at the first optimiser: once, here; no random number is drawn
    make_optimizer(nn.BatchNorm1d(1), Config())
    shortcuts.load(nets.values())
    found, left, running = {}, list(nets), {}
    try:
        while left or running:
            while left and len(running) < at_once:
                pipe, process = _begun(work, left[0], nets[left[0]])
                running[pipe] = left.pop(0), process
            for pipe in wait(list(running)):
                key, process = running[pipe]
                found[key] = _taken(pipe, key, nets[key])
                process.join()
                del running[pipe]  # one that brings an error stays, and is ended with the others
                bar.step()
    finally:
        for pipe, (_, process) in running.items():
            process.terminate()
            process.join()
            pipe.close()
    return found


def _begun(work: Callable[[Key, nn.Module], Any], key: Key, net: nn.Module) -> tuple[Connection, ForkProcess]:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, work, key, net), daemon=True)
    process.start()
    there.close()
    return here, process


def _answer(pipe: Connection, work: Callable[[Key, nn.Module], Any], key: Key, net: nn.Module) -> None:
    """Train in the copy, and send what came of it: an error, or what was returned and the weights."""
    runtime.hold_to_one_thread()
    weights = io.BytesIO()
    with suppress(KeyboardInterrupt, BrokenPipeError):  # nobody waits for it any more
        try:
            answer = None, work(key, net)
            torch.save(net.state_dict(), weights)
        except Exception as error:
            error.add_note(f"while {key} was trained:\n{traceback.format_exc()}")
            answer = error, None
        try:
            pipe.send(answer)
        except Exception as error:  # what cannot be copied says so in many ways
            told = f"what came of {key} cannot be handed over ({error}); let work return plain numbers"
            pipe.send((TypeError(told), None))
        pipe.send_bytes(weights.getvalue())


def _taken(pipe: Connection, key: Key, net: nn.Module) -> Any:
    try:
        error, answer = pipe.recv()
        weights = pipe.recv_bytes()
    except EOFError:
        what = f"the process that trained {key} was ended from outside, perhaps for want of memory"
        raise RuntimeError(f"{what}; train fewer at a time: OMP_NUM_THREADS=1 is one") from None
    finally:
        pipe.close()
    if error is not None:
        raise error
    net.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True))
    return answer
