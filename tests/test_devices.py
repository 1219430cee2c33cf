"""The GPU path, on a device made of CPU memory: nothing is mixed, nothing waits within a step."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from emulated_device import Refused, emulated

from helpers.batches import Augment, Batches

KINDS = ("cuda", "mps")


def some(num=60, size=16, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (num, size, size), dtype=np.uint8)
    labels, numbers = np.arange(num) % 7, rng.uniform(-1, 1, (num, 2))
    return SimpleNamespace(
        images=images, labels=labels, valence_arousal=numbers, distribution=np.eye(7)[labels]
    )


def lines(device):
    """Return the lines of the package that made the program wait."""
    return [f"{what} at {line}" for what, line in device.syncs]


# --- the emulated device itself ---


@pytest.mark.parametrize("kind", KINDS)
def test_it_refuses_what_a_device_refuses(kind):
    with emulated(kind) as device:
        there = torch.ones(3, device=kind)
        assert there.device == torch.device(kind, 0)
        with pytest.raises(Refused, match="same device"):
            there + torch.ones(3)
        with pytest.raises(TypeError, match="can't convert"):
            there.numpy()
        if kind == "mps":
            with pytest.raises(TypeError, match="float64"):
                there.double()
        device.syncs.clear()
        assert there.sum().item() == 3
        assert sum(device.syncs.values()) == 1


def test_a_copy_that_nobody_waits_for_has_not_arrived():
    with emulated("cuda"):
        there = torch.ones(3, device="cuda")
        here = there.to("cpu", non_blocking=True)
        assert here.tolist() == [0, 0, 0]
        torch.cuda.Event().synchronize()
        assert here.tolist() == [1, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_cpu(kind):
    torch.manual_seed(0)
    net, images = torch.nn.Conv2d(1, 2, 3), torch.randn(4, 1, 8, 8)
    net(images).square().mean().backward()
    expected = net.weight.grad.clone()
    with emulated(kind):
        there = torch.nn.Conv2d(1, 2, 3).to(kind)
        there.load_state_dict(net.state_dict())
        there(images.to(kind)).square().mean().backward()
        torch.testing.assert_close(there.weight.grad.cpu(), expected)


# --- batches ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resident", [True, False])
def test_batches_wait_once_an_epoch_and_are_those_of_the_cpu(kind, resident, tmp_path):
    faces, settings = some(), {"seed": 3, "augment": Augment(perspective=0.1), "shuffle": True}
    np.save(tmp_path / "images.npy", faces.images)
    faces.images = np.load(tmp_path / "images.npy", mmap_mode="r")
    expected = [batch.images for batch in Batches(faces, 8, **settings).epoch(1)]
    with emulated(kind) as device:
        data = Batches(faces, 8, **settings, device=kind, resident=resident)
        device.syncs.clear()
        found = list(data.epoch(1))
        # from a disk Apple's GPUs wait for each copy: PyTorch does not, and would read it before it is there
        assert sum(device.syncs.values()) == (1 + len(data) if kind == "mps" and not resident else 1)
        assert not device.lacking
        for batch, images in zip(found, expected, strict=True):
            torch.testing.assert_close(batch.images.cpu(), images, rtol=0, atol=1e-5)
            assert batch.targets["valence_arousal"].dtype == torch.float32
