"""Muon: its matrix iteration against the singular value decomposition, its steps against PyTorch's own."""

import copy
import math

import pytest
import torch
from torch import nn

from helpers import training
from helpers.training.config import Muon, make_optimizer, orthogonal

SHAPES = [(16, 16), (24, 200), (200, 24), (64, 64)]


def spread(shape, seed=0, least=1e-3):
    """Return a matrix whose singular values fall to a thousandth, as those of gradients do."""
    random = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=random), full_matrices=False)
    return u * torch.logspace(0, math.log10(least), min(shape)) @ v


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


def weight(*shape):
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(7)) / 20)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon of its own")
@pytest.mark.parametrize("shape", [(24, 200), (200, 24)])
def test_its_steps_are_those_of_pytorchs(shape):
    ours, theirs, start = weight(*shape), weight(*shape), weight(*shape)
    common = {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.9}
    optimizers = Muon([ours], **common), torch.optim.Muon([theirs], **common, adjust_lr_fn="match_rms_adamw")
    for seed in range(6):
        ours.grad, theirs.grad = (spread(shape, seed, least=0.1) for _ in range(2))
        for each in optimizers:
            each.step()
    moved = (theirs - start).norm()
    assert moved > 0.01
    assert (ours - theirs).norm() < 0.02 * moved  # PyTorch's iterates in bfloat16, too coarse for 0.001


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (64, 16, 1, 1)])
def test_a_kernel_is_a_matrix_whose_rows_are_its_outputs(shape):
    kernel, matrix = weight(*shape), nn.Parameter(weight(*shape).detach().flatten(1))
    kernel.data = kernel.data.contiguous(memory_format=torch.channels_last)
    for each in (kernel, matrix):
        each.grad = spread(matrix.shape).view_as(each)
        Muon([each], lr=0.01).step()
    torch.testing.assert_close(kernel.flatten(1), matrix)


@pytest.mark.parametrize("shape", [(40,), (7, 64), (64, 7), (32, 1, 3, 3), (1, 197, 768)])
def test_vectors_heads_and_first_layers_go_by_adamw(shape):
    ours, theirs = weight(*shape), weight(*shape)
    common = {"lr": 0.01, "weight_decay": 0.1}
    optimizers = Muon([ours], **common), torch.optim.AdamW([theirs], **common)
    for seed in range(3):
        ours.grad, theirs.grad = (spread((shape[0], theirs[0].numel()), seed).view(shape) for _ in range(2))
        for each in optimizers:
            each.step()
    assert torch.equal(ours, theirs)


def test_a_state_that_was_kept_goes_on_to_the_same_bit():
    def steps(net, optimizer, seeds):
        for seed in seeds:
            net.weight.grad = spread(net.weight.shape, seed)
            net.bias.grad = spread((1, 32), seed)[0]
            optimizer.step()

    config = training.Config(optimizer="muon", lr=0.02, momentum=0.8)
    whole = nn.Linear(64, 32)
    half = copy.deepcopy(whole)
    steps(whole, make_optimizer(whole, config), range(6))
    first, second = make_optimizer(half, config), make_optimizer(half, config)
    steps(half, first, range(3))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(half, second, range(3, 6))
    assert all(map(torch.equal, whole.parameters(), half.parameters()))
    assert {(group["lr"], group["momentum"]) for group in second.param_groups} == {(0.02, 0.8)}
    assert {group["weight_decay"] for group in second.param_groups} == {0.01, 0.0}


def test_a_step_whose_float16_gradients_overflow_is_left_out_on_the_device():
    kernel = weight(24, 200)
    muon, before = Muon([kernel], 0.01, fused=True), kernel.detach().clone()
    for overflow in (1.0, 0.0):
        kernel.grad = spread((24, 200)) if overflow == 0 else torch.full((24, 200), math.inf)
        muon.found_inf = torch.tensor(overflow)
        muon.step()
        assert torch.isfinite(muon.state[kernel]["momentum_buffer"]).all()
        assert torch.equal(kernel, before) == bool(overflow)
    twin = nn.Parameter(before.clone())
    twin.grad = spread((24, 200))
    Muon([twin], 0.01).step()
    torch.testing.assert_close(kernel, twin)
