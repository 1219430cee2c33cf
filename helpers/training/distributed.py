"""One training on several processes: each takes its share of every batch, and all end with the same weights.

``python -m torch.distributed.run --nproc_per_node 2 ...`` starts the processes on one machine or on several;
each calls :func:`start` and then ``training.fit`` as ever.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


@dataclass(frozen=True)
class Share:
    """Which of how many processes this is.

    Args:
        rank: from 0; the first one writes files and shows progress.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1


def share() -> Share:
    """Return this process's share; all of it where nothing was started."""
    if not (dist.is_available() and dist.is_initialized()):
        return Share()
    return Share(dist.get_rank(), dist.get_world_size())


def start() -> torch.device:
    """Join the processes that a launcher started, and return the device to train on; alone, do nothing.

    Of several GPUs each process takes the one of its local rank.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def parallel(model: nn.Module) -> nn.Module:
    """Return the network such that its gradients are averaged over all processes; alone, the network itself.

    Args:
        model: the network on its device.
    """
    if share().world == 1:
        return model
    where = next(model.parameters()).device
    return nn.parallel.DistributedDataParallel(model, [where] if where.type == "cuda" else None)


def average(tensors: list[Tensor]) -> None:
    """Replace tensors by their mean over all processes.

    Args:
        tensors: on the device; the same shapes everywhere.
    """
    world = share().world
    for tensor in tensors if world > 1 else ():
        dist.all_reduce(tensor)
        tensor /= world


def anyone(says: bool, where: torch.device) -> bool:
    """Return whether any process says so.

    Args:
        says: what this one says.
        where: the device that the processes speak through.
    """
    if share().world == 1:
        return says
    said = torch.tensor(float(says), device=where)
    dist.all_reduce(said)
    return bool(said > 0)


def wait() -> None:
    """Go on when every process has come here; alone, at once."""
    if share().world > 1:
        dist.barrier()


@contextmanager
def shared_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch normalisation take mean and variance over the batches of all processes while it lasts.

    ``nn.SyncBatchNorm`` does this on GPUs only, and leaves other modules behind.

    Args:
        model: the network.
    """
    own = [part for part in model.modules() if type(part) is nn.BatchNorm2d and share().world > 1]
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
        world, values = share().world, images.float()
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
