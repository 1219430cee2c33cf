"""Batch norm, ReLU and pooling as one operation are those of PyTorch, in both directions."""

import copy

import pytest
import torch
from torch import nn

from helpers import models, runtime
from helpers.training import blocks, compiled
from helpers.training.shortcuts import shortcuts


def block(channels, dtype=torch.float64, **pool):
    """Return the three modules, with scales of either sign and one of zero."""
    torch.manual_seed(1)
    modules = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2, **pool)).to(dtype)
    nn.init.normal_(modules[0].weight)
    nn.init.normal_(modules[0].bias)
    modules[0].weight.data[0] = 0
    return modules


def maps(channels, height, width, dtype=torch.float64, mean=3.0):
    """Return maps that ask for gradients; in the first picture a corner where all is equal."""
    torch.manual_seed(0)
    images = torch.randn(5, channels, height, width, dtype=dtype) + mean
    images[0, :, :3, :3] = 1
    return images.requires_grad_()


def both_ways(modules, images):
    """Return what the modules make of the images, and all that a training then knows of them."""
    slope = torch.randn(modules(images).shape, dtype=images.dtype, generator=torch.Generator().manual_seed(2))
    answers = []
    for context in (lambda model: shortcuts(model), None):
        mine, seen = copy.deepcopy(modules), images.detach().clone().requires_grad_()
        if context:
            with context(mine):
                outputs = mine(seen)
        else:
            outputs = mine(seen)
        outputs.backward(slope)
        parameters = {name: value.grad for name, value in mine.named_parameters()}
        found = {"outputs": outputs.detach(), "images": seen.grad, **parameters, **dict(mine.named_buffers())}
        answers.append((found, outputs.grad_fn))
    return answers


def taken(node):
    return type(node).__name__ == "_BlockBackward"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 2, 2), (3, 8, 4), (33, 6, 6), (70, 2, 12)])
def test_one_operation_gives_what_three_give(channels, height, width, threads, layout):
    with runtime.threads(threads):
        images = maps(channels, height, width).detach().contiguous(memory_format=layout)
        (ours, node), (theirs, _) = both_ways(block(channels), images.requires_grad_())
    assert taken(node)
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        assert torch.allclose(ours[name], values, atol=1e-12), name


def test_in_single_precision_little_is_lost_however_far_the_mean_is_from_zero():
    (ours, _), (single, _) = both_ways(block(8, torch.float32), maps(8, 24, 24, torch.float32, 100.0))
    _, (exact, _) = both_ways(block(8), maps(8, 24, 24, torch.float32, 100.0).detach().double())
    for name, true in exact.items():
        off, theirs = (float((each[name].double() - true).abs().max()) for each in (ours, single))
        assert off <= max(4 * theirs, 1e-4 * float(true.abs().max())), name


def test_the_number_of_threads_changes_no_bit():
    found = []
    for threads in (1, 2):
        with runtime.threads(threads):
            found.append(both_ways(block(16, torch.float32), maps(16, 12, 12, torch.float32))[0][0])
            assert torch.get_num_threads() == threads, "Numba left PyTorch's number alone"
    assert all(torch.equal(found[0][name], found[1][name]) for name in ("outputs", "0.running_mean"))


def test_what_is_not_finite_stays_so():
    images = maps(4, 4, 4).detach()
    images[2, 1, 3, 3] = float("nan")
    with shortcuts(modules := block(4)):
        outputs = modules(images)
    assert outputs[:, 1].isnan().all()
    assert outputs[:, [0, 2, 3]].isfinite().all()


def test_maps_that_ask_for_no_gradient_get_none():
    modules, images = block(4), maps(4, 4, 4).detach()
    with shortcuts(modules):
        modules(images).sum().backward()
    assert images.grad is None
    assert modules[0].weight.grad is not None


def test_a_second_derivative_is_refused_in_one_line():
    modules, images = block(4), maps(4, 4, 4)
    with shortcuts(modules):
        outputs = modules(images).square().sum()
    (slope,) = torch.autograd.grad(outputs, images, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def hooked(modules):
    modules[1].register_forward_hook(lambda *_: None)
    return modules


def with_a_way_of_its_own(modules):
    modules.forward = lambda images: modules[2](modules[1](modules[0](images)))
    return modules


LEFT = {
    "odd sides": (block(4), maps(4, 5, 4)),
    "overlap": (block(4, stride=1), maps(4, 4, 4)),
    "padding": (block(4, padding=1), maps(4, 4, 4)),
    "evaluation": (block(4).eval(), maps(4, 4, 4)),
    "somebody looks": (hooked(block(4)), maps(4, 4, 4)),
    "a way of its own": (with_a_way_of_its_own(block(4)), maps(4, 4, 4)),
    "no scale": (nn.Sequential(nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.MaxPool2d(2)), maps(4, 4, 4)),
    "no ReLU": (nn.Sequential(nn.BatchNorm2d(4), nn.Identity(), nn.MaxPool2d(2)).double(), maps(4, 4, 4)),
    "half precision": (block(4, torch.bfloat16), maps(4, 4, 4, torch.bfloat16)),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_does_not_fit_is_left_to_pytorch(case):
    modules, images = LEFT[case]
    with shortcuts(modules.to(images.dtype)):
        assert not taken(modules(images).grad_fn)


@pytest.mark.parametrize("images", [maps(6, 4, 4), maps(4, 4, 4, torch.float32)], ids=["channels", "kind"])
def test_maps_of_another_network_are_refused_as_pytorch_refuses_them(images):
    with pytest.raises(RuntimeError, match="running_mean|type|dtype"), shortcuts(modules := block(4)):
        modules(images)


def test_without_numba_all_is_left_to_pytorch(monkeypatch):
    monkeypatch.setattr(runtime, "has_numba", lambda: False)
    with shortcuts(modules := block(4)):
        assert not taken(modules(maps(4, 4, 4)).grad_fn)


def test_numba_is_asked_for_only_where_there_is_something_to_compile(monkeypatch):
    monkeypatch.setattr(runtime, "has_numba", lambda: pytest.fail("asked"))
    model = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.MaxPool2d(2))
    with shortcuts(model):
        model(torch.randn(2, 1, 8, 8))


def test_a_network_has_its_blocks_taken_and_is_left_as_it_was(monkeypatch):
    count, apply = [], blocks.norm_relu_pool
    monkeypatch.setattr(blocks, "norm_relu_pool", lambda *pair: (count.append(1), apply(*pair))[1])
    model, images = models.create("face-cnn", 7), torch.randn(4, 1, 48, 48)
    with shortcuts(model):
        model(images)
    assert len(count) == 4
    with pytest.raises(ValueError, match="input"), shortcuts(model):
        model(images[0, 0])
    assert not any("forward" in vars(module) for module in model.modules())
    model(images)
    assert len(count) == 4


def test_what_comes_before_and_behind_a_block_is_done_too():
    layer, head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(16, 2)
    chain = nn.Sequential(layer, *block(4, torch.float32), nn.Flatten(), head)
    images = maps(1, 4, 4, torch.float32)
    (ours, _), (theirs, _) = both_ways(chain, images)
    for name, values in theirs.items():
        assert torch.allclose(ours[name], values, atol=1e-4), name


def test_a_place_to_keep_what_is_compiled_is_not_needed(monkeypatch):
    def nowhere(*_, cache=False, **how):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return "compiled"

    monkeypatch.setattr(compiled, "njit", nowhere)
    assert compiled._compiled(len) == "compiled"
