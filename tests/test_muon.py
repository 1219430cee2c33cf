"""Muon: its matrix iteration against the singular value decomposition, its steps against PyTorch's own."""

import copy
import math

import pytest
import torch
from torch import nn

from helpers import training
from helpers.training.config import Muon, make_optimizer, orthogonal

SHAPES = [(16, 16), (24, 200), (200, 24)]


def spread(shape, seed=0, least=1e-3):
    """Return a matrix whose singular values fall to a thousandth, as those of gradients do."""
    random = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=random), full_matrices=False)
    return u * torch.logspace(0, math.log10(least), min(shape)) @ v


def weight(*shape):
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(7)) / 20)


def compared(shape, theirs, least=1e-3, **how):
    """Return a weight after six steps of ours, after six of another optimiser, and before."""
    common = {"lr": 0.01, "weight_decay": 0.1}
    pair = weight(*shape), weight(*shape)
    optimizers = Muon([pair[0]], momentum=0.9, **common), theirs([pair[1]], **common, **how)
    for seed in range(6):
        for each, optimizer in zip(pair, optimizers, strict=True):
            each.grad = spread((shape[0], each[0].numel()), seed, least).view(shape)
            optimizer.step()
    return *pair, weight(*shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_come_near_one_and_their_vectors_stay(shape):
    matrix = spread(shape)
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ orthogonal(matrix) @ v.T
    found = inside.diagonal()
    assert found[values > 0.02 * values.norm()].min() > 0.65  # five rounds bring these up
    assert 0 < found.min() < found.max() < 1.25
    torch.testing.assert_close(inside, found.diag(), rtol=0, atol=2e-3)
    assert torch.equal(orthogonal(torch.zeros(shape)), torch.zeros(shape))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon of its own")
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_its_steps_are_those_of_pytorchs(shape):
    how = {"momentum": 0.9, "adjust_lr_fn": "match_rms_adamw", "least": 0.1}
    ours, theirs, start = compared(shape, torch.optim.Muon, **how)
    moved = (theirs - start).norm()
    assert moved > 0.01
    assert (ours - theirs).norm() < 0.02 * moved  # PyTorch's iterates in bfloat16, too coarse for 0.001


@pytest.mark.parametrize("shape", [(40,), (7, 64), (64, 7), (32, 1, 3, 3), (1, 197, 768)])
def test_vectors_heads_and_first_layers_go_by_adamw(shape):
    ours, theirs, start = compared(shape, torch.optim.AdamW)
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, start)


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (64, 16, 1, 1)])
def test_a_kernel_is_a_matrix_whose_rows_are_its_outputs(shape):
    kernel, matrix = weight(*shape), nn.Parameter(weight(*shape).detach().flatten(1))
    kernel.data = kernel.data.contiguous(memory_format=torch.channels_last)
    for each in (kernel, matrix):
        each.grad = spread(matrix.shape).view_as(each)
        Muon([each], lr=0.01).step()
    torch.testing.assert_close(kernel.flatten(1), matrix)


def test_a_state_that_was_kept_goes_on_to_the_same_bit():
    whole, half = nn.Linear(64, 32), nn.Linear(64, 32)
    half.load_state_dict(whole.state_dict())
    for net, kept_after in ((whole, 9), (half, 3)):
        optimizer = make_optimizer(net, training.Config(optimizer="muon", momentum=0.8))
        for seed in range(6):
            if seed == kept_after:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = make_optimizer(net, training.Config(optimizer="muon"))
                optimizer.load_state_dict(state)
            net.weight.grad, net.bias.grad = spread((32, 64), seed), spread((1, 32), seed)[0]
            optimizer.step()
    assert all(map(torch.equal, whole.parameters(), half.parameters()))
    assert {group["momentum"] for group in optimizer.param_groups} == {0.8}


def test_a_step_whose_float16_gradients_overflow_is_left_out_on_the_device():
    kernel, twin, before = weight(24, 200), weight(24, 200), weight(24, 200)
    muon = Muon([kernel], 0.01, fused=True)
    for overflow in (1.0, 0.0):
        kernel.grad = spread((24, 200)) if overflow == 0 else torch.full((24, 200), math.inf)
        muon.found_inf = torch.tensor(overflow)
        muon.step()
        assert torch.isfinite(muon.state[kernel]["momentum_buffer"]).all()
        assert torch.equal(kernel, before) == bool(overflow)
    twin.grad = spread((24, 200))
    Muon([twin], 0.01).step()
    torch.testing.assert_close(kernel, twin)
