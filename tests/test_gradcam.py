"""Grad-CAM against Captum, against gradients taken by hand and against cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
import torchvision
from torch import nn

from helpers import gradcam, models


def images(num=3, channels=1, size=48, seed=0):
    return torch.randn(num, channels, size, size, generator=torch.Generator().manual_seed(seed))


def network(name="face-cnn", num_classes=7, size=48, **options):
    """Return a network in evaluation mode whose batch norms know its maps, so that those do not vanish."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = models.create(name, num_classes, **options)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        model.train()(images(16, size=size, seed=9))
    return model.eval()


@pytest.fixture(scope="module")
def small():
    return network(widths=(8, 12))


class Pooled(nn.Module):
    """A convolution, the mean of each map, a linear layer: here Grad-CAM is CAM (Zhou et al. 2016)."""

    def __init__(self):
        super().__init__()
        self.conv, self.side, self.head = nn.Conv2d(1, 5, 3), nn.Conv2d(1, 5, 3), nn.Linear(5, 3)
        self.pair = nn.LSTM(5, 5, batch_first=True)

    def forward(self, x):
        self.pair(self.side(x).mean((2, 3)))  # runs, and leads nowhere
        return self.head(self.conv(x).mean((2, 3)))


# a ReLU that works in place follows the last layer
@pytest.mark.parametrize(
    ("name", "layers"), [("face-cnn", ["blocks", "blocks.3.2"]), ("resnet18", ["layer1.0.bn1"])]
)
def test_it_is_what_captum_computes(name, layers):
    attr = pytest.importorskip("captum.attr", reason="needs Captum: pip install captum")
    model, x, targets = network(name, size=64), images(size=64), torch.tensor([0, 3, 6])
    for layer in layers:
        theirs = attr.LayerGradCam(model, model.get_submodule(layer)).attribute(x, target=targets)
        assert theirs.abs().max() > 1e-3, "a map of zeros proves nothing"
        ours = gradcam.grad_cam(model, layer, x, targets, signed=True, upsample=False)
        torch.testing.assert_close(ours, theirs[:, 0], rtol=1e-5, atol=1e-5)
        shown = attr.LayerAttribution.interpolate(theirs.relu(), (64, 64), "bilinear")[:, 0]
        ours = gradcam.grad_cam(model, layer, x, targets)
        torch.testing.assert_close(ours, shown.detach(), rtol=1e-5, atol=1e-5)


def test_over_pooled_maps_it_is_the_weights_of_the_last_layer():
    model, x = Pooled(), images(4, size=12)
    weights, maps = model.head.weight.detach().numpy()[2], model.conv(x).detach().numpy()
    expected = np.einsum("k,nkyx->nyx", weights, maps) / 100  # 10 x 10 places share each weight
    signed = gradcam.grad_cam(model, "conv", x, 2, signed=True, upsample=False)
    np.testing.assert_allclose(signed, expected, atol=1e-6)
    plain = gradcam.grad_cam(model, "conv", x, [2] * 4, upsample=False)
    np.testing.assert_allclose(plain, expected.clip(min=0), atol=1e-6)


def test_of_a_transformer_the_patches_are_put_back_in_their_places():
    model, x = network("vit_b_16", image_size=48), images(2)
    layer, kept = gradcam.last_map(model), []
    with torch.enable_grad():
        hook = model.get_submodule(layer).register_forward_hook(lambda *passed: kept.append(passed[2]))
        [slopes] = torch.autograd.grad(model(x)[:, 4].sum(), kept)
        hook.remove()
    weights = slopes[:, 1:].mean(1, keepdim=True)
    expected = (kept[0].detach()[:, 1:] * weights).sum(2).view(2, 3, 3)
    assert abs(expected).max() > 1e-3
    ours = gradcam.grad_cam(model, layer, x, 4, signed=True, upsample=False)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)
    twin = gradcam.randomised(model, ["encoder.layers.encoder_layer_11.self_attention"])
    mine, theirs = (net.encoder.layers[-1].self_attention.in_proj_weight.flatten() for net in (model, twin))
    assert not torch.equal(mine, theirs), "weights of an unknown kind are shuffled"
    assert torch.equal(mine.sort().values, theirs.sort().values)


@pytest.mark.parametrize("name", [name for name in models.NAMES if name not in ("vit_b_16", "resnet34")])
def test_every_network_has_a_last_map(name):
    model = network(name)
    maps = gradcam.grad_cam(model, gradcam.last_map(model), images(2), signed=True)
    assert maps.shape == (2, 48, 48)
    assert maps.abs().amax((1, 2)).min() > 0
    with pytest.raises(ValueError, match="name one"):
        gradcam.last_map(Pooled())


def test_without_a_target_the_likeliest_class_is_explained_however_images_are_cut_into_batches():
    model, x = network(widths=(8, 12)), images(8)
    with torch.no_grad():
        model.head.bias -= model(x).mean(0)  # else one class is the likeliest in all of them
        found = model(x).argmax(1)
    assert len(set(found.tolist())) > 1
    named = gradcam.grad_cam(model, "blocks", x, found)
    torch.testing.assert_close(gradcam.grad_cam(model, "blocks", x, batch_size=3), named)
    torch.testing.assert_close(gradcam.grad_cam(model, "blocks", x[5:6], int(found[5])), named[5:6])


def test_a_head_is_named_or_a_score_is_computed():
    two_heads = network(num_classes={"labels": 4, "valence_arousal": 2}, widths=(8, 12))

    def cam(targets, head=None):
        return gradcam.grad_cam(two_heads, "blocks", images(), targets, head=head, signed=True)

    torch.testing.assert_close(cam(1, "valence_arousal"), cam(lambda out: out["valence_arousal"][:, 1]))
    one, other = cam(1, "labels"), cam(0, "labels")
    difference = cam(lambda out: out["labels"][:, 1] - 2 * out["labels"][:, 0])
    torch.testing.assert_close(difference, one - 2 * other, rtol=1e-4, atol=1e-6)
    curve = gradcam.deletion(two_heads, images(), one.relu(), 1, head="labels", steps=4)
    torch.testing.assert_close(curve.scores[:, 0], two_heads(images())["labels"].softmax(1)[:, 1].detach())
    for head, why in (("label", r"unknown head 'label'; did you mean 'labels'\?; "), (None, "head None.*; ")):
        with pytest.raises(ValueError, match=why + "known: labels, valence_arousal"):
            cam(0, head)
    model = network(num_classes={"labels": 4}, widths=(8,))
    alone = gradcam.grad_cam(model, "blocks", images())  # the only head needs no name
    torch.testing.assert_close(alone, gradcam.grad_cam(model, "blocks", images(), head="labels"))


def state(model):
    modes = [(part.training, len(part._forward_hooks), len(part._backward_hooks)) for part in model.modules()]
    return modes, [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]


def test_the_network_is_left_as_it_was_even_after_an_error():
    model, x = network(widths=(8, 12)).train(), images()
    model.blocks[0].eval()  # a block that is kept as it is while the rest is trained
    model.blocks[0][0].weight.requires_grad_(False)
    model(x).sum().backward()
    before, numbers = state(model), {name: value.clone() for name, value in model.state_dict().items()}
    maps = gradcam.grad_cam(model, "blocks", x, 2)
    gradcam.deletion(model, x, maps)
    assert not maps.requires_grad
    assert not x.requires_grad
    score = {"targets": lambda outputs: {}["no such score"]}
    for judge, given in ((gradcam.grad_cam, ("blocks", x)), (gradcam.deletion, (x, x[:, 0]))):
        with pytest.raises(KeyError):
            judge(model, *given, **score)
    assert state(model)[0] == before[0]
    for (learns, grad), (learned, gradient) in zip(state(model)[1], before[1], strict=True):
        assert learns == learned
        assert gradient is grad is None or torch.equal(grad, gradient)
    torch.testing.assert_close(dict(model.state_dict()), numbers, rtol=0, atol=0)


@pytest.mark.parametrize("around", ["no_grad", "inference_mode", "autocast"])
def test_what_surrounds_it_changes_nothing(small, around):
    expected = gradcam.grad_cam(small, "blocks.0", images(), 3)
    curve = gradcam.insertion(small, images(), expected, 3)
    with getattr(torch, around)(*["cpu"] * (around == "autocast")):
        assert torch.equal(gradcam.grad_cam(small, "blocks.0", images(), 3), expected)
        assert torch.equal(gradcam.insertion(small, images(), expected, 3).scores, curve.scores)
    small.requires_grad_(False)  # nor that the network is frozen
    assert torch.equal(gradcam.grad_cam(small, "blocks.0", images(), 3), expected)
    small.requires_grad_(True)


def test_a_selection_without_images_gives_no_maps(small):
    """A network that names one class leaves other selections empty."""
    none, masks = gradcam.grad_cam(small, "blocks", images(0)), torch.zeros(0, 48, 48, dtype=torch.bool)
    assert none.shape == (0, 48, 48)
    assert gradcam.deletion(small, images(0), none, steps=4).scores.shape == (0, 5)
    assert gradcam.insertion(small, images(0), none, 1).area.shape == (0,)
    assert gradcam.pointing_hits(none, masks).shape == gradcam.energy_inside(none, masks).shape == (0,)
    assert gradcam.rank_correlation(none, none).shape == (0,)


def test_channels_last_maps_and_tokens_are_brought_into_place():
    last = torchvision.ops.Permute([0, 2, 3, 1])  # as a Swin transformer's layers
    linear, mean = nn.Linear(5, 3), nn.AdaptiveAvgPool2d((1, 3))
    layers = (nn.Conv2d(1, 5, 3, stride=2), last, nn.Flatten(1, 2), linear, mean, nn.Flatten())
    model, x = nn.Sequential(*layers), images(2, size=13)
    expected = gradcam.grad_cam(model, "0", x, 1, signed=True)
    for layer in ("1", "2"):
        torch.testing.assert_close(gradcam.grad_cam(model, layer, x, 1, signed=True), expected)


def changed(model, twin):
    pairs = zip(model.state_dict().items(), twin.state_dict().values(), strict=True)
    return {name for (name, mine), theirs in pairs if not torch.equal(mine, theirs)}


def test_only_the_layers_named_forget_and_a_cascade_goes_from_the_output_down(small):
    random_state = torch.get_rng_state()
    twin = gradcam.randomised(small, ["head", "blocks.1"], seed=5)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert {name[:8] for name in changed(small, twin)} == {"head.wei", "head.bia", "blocks.1"}
    assert changed(twin, gradcam.randomised(small, ["blocks.1", "head"], seed=6))
    assert not changed(twin, gradcam.randomised(small, ["head", "blocks.1"], seed=5))
    names = ["head", "dense", "blocks.1", "blocks.0"]
    steps = list(gradcam.cascade(small, names))
    assert [name for name, _ in steps] == names
    reached = [changed(small, twin) for _, twin in steps]
    assert all(a < b for a, b in zip(reached, reached[1:], strict=False))
    assert reached[0] == {"head.weight", "head.bias"}


def test_rank_correlation_is_scipys():
    a, b = images(6, size=9)[:, 0], images(6, size=9, seed=1)[:, 0]
    b[:3] = a[:3] + 0.5 * b[:3]
    a, b = a.relu(), (b * 2).round()  # with ties
    expected = [scipy.stats.spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(gradcam.rank_correlation(a, b), expected, atol=1e-12)
    assert gradcam.rank_correlation(torch.ones(1, 3, 3), a[:1, :3, :3]).isnan().all()


def test_a_map_points_at_the_centre_of_its_highest_cell():
    maps, masks = torch.zeros(4, 3, 2), torch.zeros(4, 48, 48, dtype=torch.bool)
    maps[:3, 1, 1] = 1
    masks[0, 24, 36] = True  # the cell covers rows 16 to 31, columns 24 to 47
    masks[1] = ~masks[0]
    masks[2:] = True  # the last map points nowhere, so it cannot hit
    assert gradcam.pointing_hits(maps, masks).tolist() == [True, False, True, False]


def test_energy_is_the_positive_share_inside():
    maps, masks = images(5, size=7)[:, 0], images(5, size=7, seed=2)[:, 0] > 0.3
    maps[4] = -1
    pairs = zip(maps.numpy().clip(min=0), masks.numpy(), strict=True)
    expected = [values[inside].sum() / values.sum() if values.sum() else 0 for values, inside in pairs]
    np.testing.assert_allclose(gradcam.energy_inside(maps, masks), expected, rtol=1e-5)


class Bright(nn.Module):
    """A network that believes in class 1 by how bright an image is."""

    def forward(self, x):
        total = x.flatten(1).mean(1)
        return torch.stack([torch.zeros_like(total), 4 * total], 1)


def by_hand(x, maps, blank, steps, insert):
    """The curves of the class 1 of :class:`Bright`, one image and one pixel after the other."""
    curves = np.empty((len(x), steps + 1))
    for (n, step), _ in np.ndenumerate(curves):
        image, order = x[n].numpy().ravel(), np.argsort(-maps[n].numpy().ravel())
        shown = np.full(image.size, blank) if insert else image.copy()
        taken = order[: round(step / steps * image.size)]
        shown[taken] = image[taken] if insert else blank
        curves[n, step] = 1 / (1 + np.exp(-4 * shown.mean()))
    return curves


@pytest.mark.parametrize("insert", [False, True])
def test_curves_are_those_taken_pixel_by_pixel_and_no_map_is_faster_than_the_true_one(insert):
    x, maps = images(5, size=10), images(5, size=10, seed=3)[:, 0]
    take = gradcam.insertion if insert else gradcam.deletion
    found = take(Bright(), x, maps, 1, blank=0.25, steps=8)
    expected = by_hand(x, maps, 0.25, 8, insert)
    np.testing.assert_allclose(found.shares, np.arange(9) / 8)
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)
    np.testing.assert_allclose(found.area, scipy.integrate.trapezoid(expected, dx=1 / 8, axis=1), atol=1e-6)
    guesses = gradcam.random_maps(5, (10, 10), seed=3)
    assert torch.equal(guesses, gradcam.random_maps(5, (10, 10), seed=3))
    assert not torch.equal(guesses, gradcam.random_maps(5, (10, 10)))
    truth, noise = (take(Bright(), x, m, 1).area for m in (x[:, 0], guesses))
    assert ((truth > noise) if insert else (truth < noise)).all()


def test_blank_images_may_be_given_and_the_class_is_settled_on_the_whole_image():
    x, blank = images(6, size=10), images(6, size=10).flip(0)
    curve = gradcam.insertion(Bright(), x, images(6, size=10, seed=3)[:, 0], 1, blank=blank)
    for column, shown in ((0, blank), (-1, x)):
        torch.testing.assert_close(curve.scores[:, column], Bright()(shown).softmax(1)[:, 1])
    likeliest = Bright()(x).argmax(1)
    assert 0 < likeliest.sum() < 6
    for take in (gradcam.deletion, gradcam.insertion):  # not on the blank image
        named = take(Bright(), x, x[:, 0], likeliest)
        torch.testing.assert_close(take(Bright(), x, x[:, 0]).scores, named.scores)


def test_equally_hot_places_go_in_a_random_order():
    rows = torch.linspace(1, -1, 20)[:, None].expand(1, 1, 20, 20).contiguous()  # bright above, dark below
    one, other = (
        gradcam.deletion(Bright(), rows, torch.zeros(1, 20, 20), lambda out: out[:, 1], steps=4, seed=seed)
        for seed in (0, 1)
    )
    assert one.scores.abs().max() < 0.5  # row by row it would reach -1
    assert not torch.equal(one.scores, other.scores)


@pytest.mark.parametrize("similar", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_faces_are_moved_until_their_landmarks_lie_on_the_reference(similar, mode):
    random = np.random.default_rng(0)
    reference = random.uniform(8, 36, (12, 2))
    turn = np.array([[1.1, 0.2], [-0.2, 1.1]] if similar else [[1.1, 0.2], [-0.15, 0.9]])
    landmarks = reference @ turn + [3, -2]
    y, x = np.mgrid[:48, :48]
    given = torch.as_tensor(np.stack([x, y])).float()  # images whose values are their own coordinates
    points = torch.as_tensor(np.stack([landmarks, landmarks])).float()
    moved = gradcam.aligned(given, points, torch.as_tensor(reference).float(), similar=similar, mode=mode)
    wanted = np.stack([x, y], -1) @ turn + [3, -2]
    inside = ((wanted > 1) & (wanted < 46)).all(-1)
    np.testing.assert_allclose(moved.permute(1, 2, 0)[inside], wanted[inside], atol=0.01)


REFUSED = [
    ("blocs", images(), None, r"no layer 'blocs' in the network; did you mean 'blocks'\?; its parts: stem,"),
    ("dense", images(), None, r"the layer puts out \[3, 128\], no map \[B, D, h, w\]: take an earlier one"),
    ("blocks", images() / torch.eye(3)[0][:, None, None, None], None, "2 images hold NaN or .* number 1"),
    ("blocks", images()[0], None, r"must be normalised float \[N, C, H, W\], not .*float32 \[1, 48, 48\]"),
    ("blocks", images().byte(), None, "must be normalised float .*uint8"),
    ("blocks", images(), 7, "there is no class 7: the network has 7, counted from 0"),
    ("blocks", images(), [0, -1, 6], "there is no class -1"),
    ("blocks", images(), [0, 1], r"a class for each of 3 images, not .*int64 \[2\]"),
    ("blocks", images(), torch.zeros(3), r"a class for each of 3 images, not .*float32 \[3\]"),
    ("blocks", images(), lambda outputs: outputs, r"one number for each image, not \[3, 7\]"),
]


@pytest.mark.parametrize(("layer", "x", "targets", "why"), REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line(small, layer, x, targets, why):
    with pytest.raises(ValueError, match=f"^.*{why}.*$"):
        gradcam.grad_cam(small, layer, x, targets)


def test_layers_that_cannot_be_explained_are_refused():
    model, x = Pooled(), images(2, size=12)
    model.unused = nn.Conv2d(1, 1, 1)

    def refuse(layer, why):
        with pytest.raises(ValueError, match=why):
            gradcam.grad_cam(model, layer, x)

    refuse("pair", "the layer puts out a tuple, not a map")
    refuse("side", "the score does not depend on the layer")
    refuse("unused", "the layer runs 0 times when the network runs once")
    model.side = model.conv
    refuse("conv", "the layer runs 2 times")
    model.side = nn.Conv2d(1, 5, 3)
    torch.nn.init.constant_(model.conv.weight, float("nan"))
    refuse("conv", "NaN or infinity: look at its weights")


def test_maps_that_do_not_fit_are_refused():
    maps, masks = torch.zeros(2, 6, 6), torch.ones(2, 6, 6, dtype=torch.bool)
    nan = maps * torch.nan
    for judge in (gradcam.pointing_hits, gradcam.energy_inside):
        for pair in ((maps, masks[:1]), (maps, masks.float()), (maps[0], masks[0]), (nan, masks)):
            with pytest.raises(ValueError, match=r"maps must be \[N, h, w\] and masks bool \[N, H, W\]"):
                judge(*pair)
    for wrong in (maps, torch.full((2, 10, 10), torch.nan)):
        with pytest.raises(ValueError, match=r"maps .* do not fit images \[2, 1, 10, 10\], or hold NaN"):
            gradcam.deletion(Bright(), images(2, size=10), wrong)
    with pytest.raises(ValueError, match="pairs of one shape"):
        gradcam.rank_correlation(maps, maps[:1])
    with pytest.raises(ValueError, match=r"need landmarks \[2, 68, 2\] without NaN"):
        gradcam.aligned(maps, torch.full((2, 68, 2), torch.nan), torch.zeros(68, 2))
