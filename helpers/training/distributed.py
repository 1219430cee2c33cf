"""More than one process: one training shared by several, and several trainings side by side.

``python -m torch.distributed.run --nproc_per_node 2 ...`` starts the processes of one training, on one or
more machines; each calls :func:`start` and then ``training.fit`` as ever. All end with the same weights.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import joblib
import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn

from helpers import runtime

Key = TypeVar("Key", bound=Hashable)


def share() -> tuple[int, int]:
    """Return (rank, world): which of how many processes this is; the first, 0, writes and shows."""
    started = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if started else (0, 1)


def start() -> torch.device:
    """Join the processes that a launcher started, and return the device to train on; alone, do nothing."""
    device = runtime.device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def average(tensors: list[Tensor]) -> None:
    """Replace tensors by their mean over all processes."""
    for tensor in tensors:
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()


def gathered(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of all processes, one after the other along their first axis."""
    parts: list = [None] * dist.get_world_size()
    dist.all_gather_object(parts, {name: values.cpu() for name, values in tensors.items()})
    return {name: torch.cat([part[name] for part in parts]) for name in tensors}


def anyone(says: bool, where: torch.device) -> bool:
    """Return whether any process says so; they speak through the device."""
    said = torch.tensor(float(says), device=where)
    dist.all_reduce(said)
    return bool(said > 0)


@contextmanager
def shared_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch normalisation take mean and variance over the batches of all processes while it lasts."""
    # nn.SyncBatchNorm does this on GPUs only, and leaves other modules behind
    own = [part for part in model.modules() if type(part) is nn.BatchNorm2d]
    for part in own:
        part.__class__ = _SharedBatchNorm2d
    try:
        yield
    finally:
        for part in own:
            part.__class__ = nn.BatchNorm2d


class _SharedBatchNorm2d(nn.BatchNorm2d):
    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return super().forward(images)
        from torch.distributed.nn.functional import all_reduce  # not there where PyTorch is built without it

        world, values = dist.get_world_size(), images.float()
        sums = torch.stack([values.mean((0, 2, 3)), values.square().mean((0, 2, 3))])
        mean, square = all_reduce(sums).div(world)
        variance = (square - mean.square()).clamp(min=0)
        with torch.no_grad():
            num = world * images.numel() / images.shape[1]
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * num / (num - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (values * scale[:, None, None] + shift[:, None, None]).to(images.dtype)


def side_by_side(
    work: Callable[[Key, nn.Module], Any], nets: Mapping[Key, nn.Module], progress: bool = True
) -> dict[Key, Any]:
    """Train independent networks, on a CPU as many at a time as cores are there; it is what a loop gives.

    A small network keeps one core busy: a second thread saves a fifth of its time, a second training half.
    Each has one thread, so that they end with the same numbers on any number of cores. What ``work`` changes
    but the network's weights is changed in another process alone. On a GPU they are trained one by one.

    Args:
        work: is given a key and its network, trains it in place and returns anything plain (no tensors); an
            error in one ends the others.
        nets: the networks by key, each with weights of its own.
        progress: show how many are done.

    Returns:
        What ``work`` returned, by key, in the order of ``nets``.
    """
    on_cpu, threads, found = runtime.device().type == "cpu", torch.get_num_threads(), {}
    at_once = min(len(nets), joblib.cpu_count()) if on_cpu else 1
    jobs = (joblib.delayed(_trained)(work, key, net, os.getpid()) for key, net in nets.items())
    try:
        torch.set_num_threads(1 if on_cpu else threads)
        results = joblib.Parallel(at_once, return_as="generator")(jobs)
        for key, (answer, weights) in zip(nets, results, strict=True):
            nets[key].load_state_dict(weights)
            found[key] = answer
            if progress:
                print(f"{len(found)} of {len(nets)} trained", flush=True)
    finally:
        torch.set_num_threads(threads)
    return found


def _trained(work: Callable, key: Hashable, net: nn.Module, parent: int) -> tuple[Any, dict[str, Tensor]]:
    def end_with_parent() -> None:  # which may be killed
        while psutil.pid_exists(parent) and os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    if os.getpid() != parent:
        torch.set_num_threads(1)
        threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        return work(key, net), net.state_dict()
    except Exception as error:
        error.add_note(f"while {key} was trained")
        raise
