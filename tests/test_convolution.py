"""Convolutions that a training takes as matrix products are those of PyTorch, in both directions."""

import itertools
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from test_training import same, stop_at
from torch import nn
from torch.nn.functional import conv2d
from torch.overrides import TorchFunctionMode

from helpers import datasets, losses, models, runtime, training
from helpers.training import winograd
from helpers.training.convolution import matrix_products

# The gradient on small maps


SMALL = {  # (in, out) channels, side, kernel, stride, padding
    "a kernel of three": (3, 5, 3, 3, 1, 1),
    "a stride of two": (4, 8, 5, 3, 2, 1),
    "single pixels": (6, 2, 2, 1, 1, 0),
    "one pixel left": (6, 2, 2, 2, 2, 0),
    "sides that differ": (3, 4, 7, 7, 3, (3, 2)),
    "a flat kernel": (5, 6, 3, (1, 3), 1, (0, 1)),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", SMALL)
def test_a_small_map_gives_the_gradients_that_pytorch_gives(case, layout):
    inputs, outputs, side, *how = SMALL[case]
    torch.manual_seed(0)
    layer = nn.Conv2d(inputs, outputs, *how, bias=False).double().to(memory_format=layout)
    images = torch.randn(4, inputs, side, side, dtype=torch.float64).contiguous(memory_format=layout)
    images.requires_grad_()
    wanted, slope = layer(images), torch.randn_like(layer(images))
    with matrix_products():
        got = layer(images)
    assert "_Convolution" in type(got.grad_fn).__name__  # the shortcut was taken
    assert torch.equal(got, wanted)
    pairs = [torch.autograd.grad(out, (images, layer.weight), slope) for out in (got, wanted)]
    for ours, theirs in zip(*pairs, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, bias=False, groups=2),
        nn.Conv2d(4, 4, 3, padding=2, bias=False, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same", bias=False),
        nn.Conv2d(4, 4, 1, padding=1, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, bias=False).requires_grad_(False),
    ],
    ids=["bias", "groups", "dilation", "same", "large map", "frozen"],
)
def test_what_is_no_small_map_is_left_to_pytorch(layer):
    images = torch.randn(2, 4, 3, 3, requires_grad=True)
    with matrix_products():
        outputs = layer(images)
    assert "_Convolution" not in type(outputs.grad_fn).__name__
    assert torch.equal(outputs, layer(images))


def test_a_stride_that_is_one_number_is_left_to_pytorch():
    images, weight = torch.randn(2, 4, 3, 3), torch.randn(4, 4, 3, 3, requires_grad=True)
    with matrix_products():
        outputs = conv2d(images, weight, None, 2, (1, 1), (1, 1))
    assert "_Convolution" not in type(outputs.grad_fn).__name__


def test_a_small_map_keeps_to_half_precision():
    layer, images = nn.Conv2d(64, 32, 3, padding=1, bias=False), torch.randn(8, 64, 2, 2)
    with matrix_products(), torch.autocast("cpu", torch.bfloat16):
        outputs = layer(images)
    assert outputs.dtype == torch.bfloat16
    outputs.float().square().sum().backward()
    ours, layer.weight.grad = layer.weight.grad, None
    layer(images).square().sum().backward()
    assert ours.dtype == torch.float32
    assert torch.allclose(ours, layer.weight.grad, atol=0.02 * float(layer.weight.grad.abs().max()))


# Winograd's way


def pair(pictures, inputs, outputs, height, width, dtype=torch.float64, seed=0):
    """Return pictures and a weight that ask for gradients."""
    torch.manual_seed(seed)
    images = torch.randn(pictures, inputs, height, width, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(outputs, inputs, 3, 3, dtype=dtype) / (3 * inputs**0.5)
    return images.requires_grad_(), weight.requires_grad_()


@pytest.mark.parametrize("tile", [2, 3, 4, 5, 6])
def test_a_tile_is_the_sums_of_its_definition(tile):
    to_outputs, of_inputs, of_kernel = winograd.matrices(tile)
    random = np.random.default_rng(tile)
    line, kernel = random.normal(size=tile + 2), random.normal(size=3)
    wanted = np.correlate(line, kernel, "valid")
    assert np.allclose(to_outputs.T @ (of_inputs @ line * (of_kernel @ kernel)), wanted, atol=1e-12)


@pytest.mark.parametrize(("side", "points"), [(1, 1), (2, 3), (3, 5), (4, 6), (5, 7), (6, 8)])
def test_a_whole_side_is_the_sums_with_zeros_beyond_it(side, points):
    to_outputs, of_inputs, of_kernel = winograd.whole(side)
    random = np.random.default_rng(side)
    line, kernel = random.normal(size=side), random.normal(size=3)
    wanted = np.correlate(np.pad(line, 1), kernel, "valid")
    assert len(of_inputs) == points
    assert np.allclose(to_outputs.T @ (of_inputs @ line * (of_kernel @ kernel)), wanted, atol=1e-12)


@pytest.mark.parametrize(
    ("side", "tile"), [(7, 4), (8, 4), (9, 5), (10, 5), (12, 6), (13, 5), (24, 6), (48, 6)]
)
def test_a_side_is_cut_so_that_it_takes_the_fewest_products(side, tile):
    assert winograd.tile_of(side) == tile


SIZES = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 6), (6, 2), (1, 9), (7, 12), (9, 3), (13, 8)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("parts", ["at once", "one by one"])
@pytest.mark.parametrize("kept", ["kept", "again"])
def test_winograd_gives_what_pytorch_gives(size, parts, kept, monkeypatch):
    monkeypatch.setattr(winograd, "CACHE", 1 if parts == "one by one" else 2**30)
    monkeypatch.setattr(winograd, "KEPT", 0 if kept == "again" else 2**30)
    images, weight = pair(3, 4, 5, *size)
    wanted, slope = conv2d(images, weight, padding=1), torch.randn(3, 5, *size, dtype=torch.float64)
    got = winograd.convolve(images, weight)
    assert torch.allclose(got, wanted, atol=1e-12)
    pairs = [torch.autograd.grad(out, (images, weight), slope) for out in (got, wanted)]
    for ours, theirs in zip(*pairs, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels"])
def test_the_layout_of_memory_does_not_matter(layout):
    images, weight = pair(2, 3, 4, 6, 7)
    got = winograd.convolve(images.to(memory_format=layout), weight.to(memory_format=layout))
    assert torch.allclose(got, conv2d(images, weight, padding=1), atol=1e-12)
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("side", [2, 3, 6, 12, 24])
def test_in_single_precision_little_is_lost(side):
    images, weight = pair(8, 128, 128, side, side, torch.float32)
    slope = torch.randn(8, 128, side, side)
    outputs = winograd.convolve(images, weight)
    ours = (outputs, *torch.autograd.grad(outputs, (images, weight), slope))
    exact = [images.detach().double().requires_grad_(), weight.detach().double().requires_grad_()]
    wanted = conv2d(*exact, padding=1)
    for got, true in zip(ours, (wanted, *torch.autograd.grad(wanted, exact, slope.double())), strict=True):
        assert float((got - true).detach().abs().max() / true.detach().abs().max()) < 3e-5


def test_pictures_that_ask_for_no_gradient_get_none():
    images, weight = pair(2, 3, 4, 6, 6)
    winograd.convolve(images.detach(), weight).sum().backward()
    assert images.grad is None
    ours, weight.grad = weight.grad, None
    conv2d(images.detach(), weight, padding=1).sum().backward()
    assert torch.allclose(ours, weight.grad, atol=1e-12)


def way(layer, images):
    """Return by which way the layer goes in the context: "winograd", "im2col" or "pytorch"."""
    with matrix_products():
        node = layer(images).grad_fn
    if node is None or type(node).__name__ != "_ConvolutionBackward":
        return "pytorch"
    return "winograd" if type(node)._forward_cls is winograd._Convolution else "im2col"


@pytest.mark.parametrize(
    ("layer", "side", "wanted"),
    [
        (nn.Conv2d(64, 64, 3, padding=1, bias=False), 12, "winograd"),
        (nn.Conv2d(48, 96, 3, padding=1, bias=False), 3, "winograd"),
        (nn.Conv2d(32, 63, 3, padding=1, bias=False), 12, "winograd"),
        (nn.Conv2d(32, 60, 3, padding=1, bias=False), 12, "pytorch"),
        (nn.Conv2d(32, 60, 3, padding=1, bias=False), 3, "im2col"),
        (nn.Conv2d(64, 64, 3, padding=1, stride=2, bias=False), 12, "pytorch"),
        (nn.Conv2d(64, 64, 3, padding=0, bias=False), 12, "pytorch"),
        (nn.Conv2d(64, 64, 5, padding=1, bias=False), 12, "pytorch"),
        (nn.Conv2d(64, 64, 3, padding=1, bias=True), 12, "pytorch"),
        (nn.Conv2d(128, 128, 3, padding=1, bias=False, groups=2), 12, "pytorch"),
        (nn.Conv2d(64, 64, 3, padding=1, bias=False).requires_grad_(False), 12, "pytorch"),
    ],
    ids=[
        "many",
        "small map",
        "just enough",
        "few",
        "few, small map",
        "stride",
        "no padding",
        "kernel of five",
    ]
    + ["bias", "groups", "frozen"],
)
def test_winograd_is_taken_where_it_saves_products(layer, side, wanted):
    images = torch.randn(2, layer.in_channels, side, side, requires_grad=True)
    assert way(layer, images) == wanted


def test_what_is_left_to_pytorch_is_handed_over_as_it_came():
    layer, images, got = nn.Conv2d(64, 64, 3, padding=1, bias=False), torch.randn(2, 64, 12, 12), []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            got.append(func)
            return func(*args, **(kwargs or {}))

    with torch.autocast("cpu", torch.bfloat16), Watch(), matrix_products():
        layer(images)
    assert torch.Tensor.to not in got, "autocast would convert it once more"
    assert got.count(torch.conv2d) == 1


def test_half_precision_never_goes_by_winograd():
    layer, images = nn.Conv2d(64, 64, 3, padding=1, bias=False), torch.randn(2, 64, 12, 12)
    with torch.autocast("cpu", torch.bfloat16):
        assert way(layer, images) == "pytorch"
    assert way(layer.bfloat16(), images.bfloat16()) == "pytorch"


@pytest.mark.parametrize("images", [torch.randn(2, 63, 12, 12), torch.randn(2, 64, 12, 12).double()])
def test_pictures_that_do_not_fit_are_refused_as_pytorch_refuses_them(images):
    layer = nn.Conv2d(64, 64, 3, padding=1, bias=False)
    with pytest.raises(RuntimeError) as wanted:
        layer(images)
    with pytest.raises(RuntimeError) as said, matrix_products():
        layer(images)
    assert str(said.value) == str(wanted.value)


def test_without_numba_pytorch_does_it(monkeypatch):
    monkeypatch.setattr(runtime, "has_numba", lambda: False)
    layer, images = nn.Conv2d(64, 64, 3, padding=1, bias=False), torch.randn(2, 64, 12, 12)
    assert way(layer, images) == "pytorch"


LOSS = losses.on_labels()


def learned(loss=LOSS, **how):
    """Return how a short training went, of a network with one layer that goes by Winograd's way."""
    faces = datasets.load("synthetic", num_faces=320, seed=3)
    torch.manual_seed(0)
    net = models.create("face-cnn", 7, widths=(16, 64, 64), stem="unshuffle", dropout=0)
    config = training.Config(epochs=2, batch_size=32, precision="float32", monitor="loss")
    parts = faces.select(slice(0, 256)), faces.select(slice(256, 320))
    history = training.fit(net, *parts, loss, {}, config, device="cpu", progress=False, **how)
    return history.epochs, net


def test_a_training_by_products_loses_what_the_plain_one_loses(monkeypatch):
    taken, found = itertools.count(), []
    convolve = winograd.convolve
    monkeypatch.setattr(winograd, "convolve", lambda *pair: (next(taken), convolve(*pair))[1])
    for context in (training.loop.shortcuts, lambda model: nullcontext()):
        monkeypatch.setattr(training.loop, "shortcuts", context)
        found.append(learned()[0])
    assert next(taken) == 2 * 8, "two epochs of eight batches have one such layer"
    for ours, theirs in zip(*found, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-3)
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-2)


def test_a_training_by_products_that_goes_on_ends_with_the_same_bits(tmp_path):
    stop = training.Stop()
    broken_off = stop_at(11, stop.request, LOSS)
    assert len(learned(broken_off, run=tmp_path, stop=stop)[0]) == 1
    assert same(learned(run=tmp_path)[1], learned()[1])
