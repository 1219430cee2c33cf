"""Grad-CAM against Captum, against gradients taken by hand and against cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import skimage.transform
import torch
from torch import nn

from helpers import gradcam, models


def pictures(num=3, channels=1, size=48, seed=0):
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
        model.train()(pictures(16, size=size, seed=9))
    return model.eval()


@pytest.fixture(scope="module")
def small():
    return network(widths=(8, 12))


@pytest.fixture(scope="module")
def two_heads():
    return network(num_classes={"labels": 4, "valence_arousal": 2}, widths=(8, 12))


class Pooled(nn.Module):
    """A convolution, the mean of each map, a linear layer: here Grad-CAM is CAM (Zhou et al. 2016)."""

    def __init__(self):
        super().__init__()
        self.conv, self.side, self.head = nn.Conv2d(1, 5, 3), nn.Conv2d(1, 5, 3), nn.Linear(5, 3)
        self.tokens, self.pair = nn.Flatten(2), nn.LSTM(5, 5, batch_first=True)

    def forward(self, images):
        self.pair(self.side(images).mean((2, 3)))  # runs, and leads nowhere
        return self.head(self.tokens(self.conv(images)).mean(2))


# --- the map ---

WHERE = {
    "face-cnn": (48, ["blocks", "blocks.1", "blocks.3.2"]),
    "face-cnn-fast": (48, ["blocks", "blocks.2"]),
    "resnet18": (64, ["layer4", "layer2.1", "layer1.0.bn1"]),  # a ReLU that works in place follows the last
    "efficientnet_b0": (64, ["features", "features.4"]),
}


@pytest.mark.parametrize("name", WHERE)
def test_it_is_what_captum_computes(name):
    attr = pytest.importorskip("captum.attr", reason="needs Captum: pip install captum")
    size, layers = WHERE[name]
    model, images, targets = network(name, size=size), pictures(size=size), torch.tensor([0, 3, 6])
    for layer in layers:
        theirs = attr.LayerGradCam(model, model.get_submodule(layer)).attribute(images, target=targets)
        assert theirs.abs().max() > 1e-3, "a map of zeros proves nothing"
        ours = gradcam.grad_cam(model, layer, images, targets, signed=True, upsample=False)
        torch.testing.assert_close(ours, theirs[:, 0], rtol=1e-5, atol=1e-5)
        shown = attr.LayerAttribution.interpolate(theirs.relu(), (size, size), "bilinear")[:, 0]
        ours = gradcam.grad_cam(model, layer, images, targets)
        torch.testing.assert_close(ours, shown.detach(), rtol=1e-5, atol=1e-5)


def test_over_pooled_maps_it_is_the_weights_of_the_last_layer():
    model, images = Pooled(), pictures(4, size=12)
    weights = model.head.weight.detach().numpy()[2]
    maps = model.conv(images).detach().numpy()
    expected = np.einsum("k,nkyx->nyx", weights, maps) / 100  # 10 x 10 places share each weight
    signed = gradcam.grad_cam(model, "conv", images, 2, signed=True, upsample=False)
    np.testing.assert_allclose(signed, expected, atol=1e-6)
    plain = gradcam.grad_cam(model, model.conv, images, [2] * 4, upsample=False)
    np.testing.assert_allclose(plain, expected.clip(min=0), atol=1e-6)


def test_of_a_transformer_the_patches_are_put_back_in_their_places():
    model, images = network("vit_b_16", image_size=48), pictures(2)
    layer, kept = gradcam.last_map(model), []
    with torch.enable_grad():
        hook = model.get_submodule(layer).register_forward_hook(lambda *passed: kept.append(passed[2]))
        [slopes] = torch.autograd.grad(model(images)[:, 4].sum(), kept)
        hook.remove()
    tokens, slopes = kept[0].detach().numpy(), slopes.numpy()
    expected = np.empty((2, 3, 3))
    for n, row, column in np.ndindex(expected.shape):
        weights = slopes[n, 1:].mean(0)
        expected[n, row, column] = tokens[n, 1 + 3 * row + column] @ weights
    assert abs(expected).max() > 1e-3
    ours = gradcam.grad_cam(model, layer, images, 4, signed=True, upsample=False)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", models.NAMES)
def test_every_network_has_a_last_map(name):
    model = network(name)
    layer = gradcam.last_map(model)
    maps = gradcam.grad_cam(model, layer, pictures(2), signed=True)
    assert maps.shape == (2, 48, 48)
    assert maps.abs().amax((1, 2)).min() > 0
    with pytest.raises(ValueError, match="name one"):
        gradcam.last_map(Pooled())


def test_maps_are_enlarged_between_the_middles_of_their_cells():
    maps = pictures(3, size=6)[:, 0]
    for large, one in zip(gradcam.enlarged(maps, (48, 30)), maps, strict=True):
        expected = skimage.transform.resize(one.numpy(), (48, 30), order=1, mode="edge", anti_aliasing=False)
        np.testing.assert_allclose(large, expected, atol=1e-5)


def test_without_a_target_the_likeliest_class_is_explained():
    model, images = network(widths=(8, 12)), pictures(8)
    with torch.no_grad():
        model.head.bias -= model(images).mean(0)  # else one class is the likeliest in all of them
        found = model(images).argmax(1)
    assert len(set(found.tolist())) > 1
    named = gradcam.grad_cam(model, "blocks", images, found)
    torch.testing.assert_close(gradcam.grad_cam(model, "blocks", images), named)


def test_how_pictures_are_cut_into_batches_does_not_matter(small):
    targets = torch.arange(7)
    whole = gradcam.grad_cam(small, "blocks.0", pictures(7), targets)
    cut = gradcam.grad_cam(small, "blocks.0", pictures(7), targets, batch_size=3)
    torch.testing.assert_close(whole, cut)
    torch.testing.assert_close(whole[5:6], gradcam.grad_cam(small, "blocks.0", pictures(7)[5:6], 5))


def test_a_head_is_named_or_a_score_is_computed(two_heads):
    def cam(targets, head=None):
        return gradcam.grad_cam(two_heads, "blocks", pictures(), targets, head=head, signed=True)

    by_name = cam(1, "valence_arousal")
    torch.testing.assert_close(by_name, cam(lambda outputs: outputs["valence_arousal"][:, 1]))
    one, other = cam(1, "labels"), cam(0, "labels")
    assert not torch.allclose(one, by_name)
    difference = cam(lambda out: out["labels"][:, 1] - 2 * out["labels"][:, 0])
    torch.testing.assert_close(difference, one - 2 * other, rtol=1e-4, atol=1e-6)
    curve = gradcam.deletion(two_heads, pictures(), one.relu(), 1, head="labels", steps=4)
    torch.testing.assert_close(curve.scores[:, 0], two_heads(pictures())["labels"].softmax(1)[:, 1].detach())
    model = network(num_classes={"labels": 4}, widths=(8,))
    alone = gradcam.grad_cam(model, "blocks", pictures())  # the only head needs no name
    torch.testing.assert_close(alone, gradcam.grad_cam(model, "blocks", pictures(), head="labels"))


# --- what it leaves behind ---


def state(model):
    return [
        (name, part.training, len(part._forward_hooks), len(part._backward_hooks))
        for name, part in model.named_modules()
    ]


def test_the_network_is_left_as_it_was():
    model = network(widths=(8, 12)).train()
    model.blocks[0].eval()  # a block that is kept as it is while the rest is trained
    model.blocks[0][0].weight.requires_grad_(False)
    model(pictures()).sum().backward()
    before = state(model)
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    frozen = [p.requires_grad for p in model.parameters()]
    numbers = {name: value.clone() for name, value in model.state_dict().items()}
    images = pictures()
    maps = gradcam.grad_cam(model, "blocks", images, 2)
    gradcam.deletion(model, images, maps)
    assert state(model) == before
    assert [p.requires_grad for p in model.parameters()] == frozen
    assert not maps.requires_grad
    assert not images.requires_grad
    torch.testing.assert_close(dict(model.state_dict()), numbers, rtol=0, atol=0)
    for name, p in model.named_parameters():
        assert (p.grad is None) == (grads[name] is None)
        assert p.grad is None or torch.equal(p.grad, grads[name])


def test_after_an_error_nothing_is_left_either(small):
    small.train()
    before = state(small)

    def broken(outputs):
        raise KeyError("no such score")

    with pytest.raises(KeyError):
        gradcam.grad_cam(small, "blocks", pictures(), broken)
    with pytest.raises(RuntimeError):
        gradcam.grad_cam(small, "blocks", pictures(channels=2))  # the network itself refuses these
    with pytest.raises(KeyError):
        gradcam.deletion(small, pictures(), pictures()[:, 0], broken)
    assert state(small) == before
    small.eval()


def half() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, half])
def test_what_surrounds_it_changes_nothing(small, around):
    expected = gradcam.grad_cam(small, "blocks.0", pictures(), 3)
    curve = gradcam.insertion(small, pictures(), expected, 3)
    with around():
        assert torch.equal(gradcam.grad_cam(small, "blocks.0", pictures(), 3), expected)
        assert torch.equal(gradcam.insertion(small, pictures(), expected, 3).scores, curve.scores)
    small.requires_grad_(False)  # nor that the network is frozen
    assert torch.equal(gradcam.grad_cam(small, "blocks.0", pictures(), 3), expected)
    small.requires_grad_(True)


def test_a_selection_without_images_gives_no_maps(small):
    """A network that names one class leaves other selections empty."""
    none = gradcam.grad_cam(small, "blocks", pictures(0), torch.empty(0, dtype=torch.long))
    assert none.shape == (0, 48, 48)
    assert gradcam.grad_cam(small, "blocks", pictures(0), upsample=False).shape == (0, 12, 12)
    assert gradcam.deletion(small, pictures(0), none, steps=4).scores.shape == (0, 5)
    assert gradcam.insertion(small, pictures(0), none, 1).area.shape == (0,)
    masks = torch.zeros(0, 48, 48, dtype=torch.bool)
    assert gradcam.pointing_hits(none, masks).shape == gradcam.energy_inside(none, masks).shape == (0,)
    assert gradcam.rank_correlation(none, none).shape == (0,)


class ChannelsLast(nn.Module):
    """Puts out ``[B, h, w, D]``, as a Swin transformer's layers do."""

    def forward(self, maps):
        return maps.permute(0, 2, 3, 1)


def test_channels_last_maps_and_tokens_are_brought_into_place():
    torch.manual_seed(0)
    linear, mean = nn.Linear(5, 3), nn.AdaptiveAvgPool2d((1, 3))
    layers = (nn.Conv2d(1, 5, 3, stride=2), ChannelsLast(), nn.Flatten(1, 2), linear, mean, nn.Flatten())
    model, images = nn.Sequential(*layers), pictures(2, size=13)
    expected = gradcam.grad_cam(model, "0", images, 1, signed=True)
    for layer in ("1", "2"):
        found = gradcam.grad_cam(model, layer, images, 1, signed=True)
        torch.testing.assert_close(found, expected)


def test_weights_in_half_precision_give_nearly_the_same_map():
    model = network()
    expected = gradcam.grad_cam(model, "blocks.2", pictures(8), 3, signed=True)
    maps = gradcam.grad_cam(model.bfloat16(), "blocks.2", pictures(8), 3, signed=True)
    assert maps.dtype == torch.float32
    assert gradcam.rank_correlation(maps, expected).min() > 0.95
    torch.testing.assert_close(maps, expected, rtol=0, atol=0.05 * float(expected.abs().max()))


# --- what knows nothing ---


def test_random_maps_prefer_no_place():
    maps = gradcam.random_maps(3600, (6, 6), seed=3)
    assert torch.equal(maps, gradcam.random_maps(3600, (6, 6), seed=3))
    assert not torch.equal(maps[:9], gradcam.random_maps(9, (6, 6), seed=4))
    cells = torch.bincount(maps.flatten(1).argmax(1), minlength=36)
    assert scipy.stats.chisquare(cells).pvalue > 0.001
    masks = torch.zeros(3600, 48, 48, dtype=torch.bool)
    masks[:, 8:24, 24:40] = True  # four of the 36 cells
    hits = int(gradcam.pointing_hits(maps, masks).sum())
    assert scipy.stats.binomtest(hits, 3600, 4 / 36).pvalue > 0.001


def changed(model, twin):
    pairs = zip(model.state_dict().items(), twin.state_dict().values(), strict=True)
    return {name for (name, mine), theirs in pairs if not torch.equal(mine, theirs)}


def test_only_the_layers_named_forget(small):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    random_state = torch.get_rng_state()
    twin = gradcam.randomised(small, ["head", "blocks.1"], seed=5)
    assert torch.equal(torch.get_rng_state(), random_state)
    torch.testing.assert_close(dict(small.state_dict()), before, rtol=0, atol=0)
    assert {name.split(".")[0] + name.split(".")[1] for name in changed(small, twin)} == {
        *("headweight", "headbias", "blocks1")
    }
    assert twin.blocks[1][1].running_mean.abs().max() == 0
    assert changed(twin, gradcam.randomised(small, ["blocks.1", "head"], seed=6))
    assert not changed(twin, gradcam.randomised(small, ["head", "blocks.1"], seed=5))


def test_weights_of_an_unknown_kind_are_shuffled():
    model = models.create("vit_b_16", 7, image_size=16)
    twin = gradcam.randomised(model, ["encoder.layers.encoder_layer_11.self_attention"], seed=0)
    mine, theirs = (net.encoder.layers[-1].self_attention.in_proj_weight.flatten() for net in (model, twin))
    assert not torch.equal(mine, theirs)
    assert torch.equal(mine.sort().values, theirs.sort().values)


def test_a_cascade_forgets_from_the_output_down(small):
    steps = list(gradcam.cascade(small, ["head", "dense", "blocks.1", "blocks.0"]))
    assert [name for name, _ in steps] == ["head", "dense", "blocks.1", "blocks.0"]
    reached = [changed(small, twin) for _, twin in steps]
    assert all(a < b for a, b in zip(reached, reached[1:], strict=False))
    assert reached[0] == {"head.weight", "head.bias"}
    every = [name for name, _ in gradcam.cascade(small)]
    assert every == ["head", "dense.1", "blocks.1.1", "blocks.1.0", "blocks.0.1", "blocks.0.0"]


def test_rank_correlation_is_scipys():
    a, b = pictures(6, size=9)[:, 0], pictures(6, size=9, seed=1)[:, 0]
    b[:3] = a[:3] + 0.5 * b[:3]
    a, b = a.relu(), (b * 2).round()  # with ties
    expected = [scipy.stats.spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(gradcam.rank_correlation(a, b), expected, atol=1e-12)
    torch.testing.assert_close(gradcam.rank_correlation(a, a.exp()), torch.ones(6).double())
    assert gradcam.rank_correlation(torch.ones(1, 3, 3), a[:1, :3, :3]).isnan().all()


# --- against the truth ---


def test_a_map_points_at_the_centre_of_its_highest_cell():
    maps = torch.zeros(4, 5, 5)
    maps[0, 1, 3] = maps[1, 1, 3] = 2.0
    maps[2, 4, 0], maps[2, 0, 0] = 0.1, -5
    masks = torch.zeros(4, 5, 5, dtype=torch.bool)
    masks[0, 1, 3] = masks[2, 4, 0] = True
    masks[3] = True  # the last map points nowhere, so it cannot hit
    assert gradcam.pointing_hits(maps, masks).tolist() == [True, False, True, False]
    maps, masks = torch.zeros(3, 3, 2), torch.zeros(3, 48, 48, dtype=torch.bool)
    maps[:, 1, 1] = 1
    masks[0, 24, 36] = True  # the cell covers rows 16 to 31, columns 24 to 47
    masks[1] = ~masks[0]
    masks[2] = True
    assert gradcam.pointing_hits(maps, masks).tolist() == [True, False, True]


def test_energy_is_the_positive_share_inside():
    maps, masks = pictures(5, size=7)[:, 0], pictures(5, size=7, seed=2)[:, 0] > 0.3
    maps[4] = -1
    expected = []
    for values, inside in zip(maps.numpy().clip(min=0), masks.numpy(), strict=True):
        expected.append(values[inside].sum() / values.sum() if values.sum() else 0)
    np.testing.assert_allclose(gradcam.energy_inside(maps, masks), expected, rtol=1e-5)


# --- against the network ---


class Bright(nn.Module):
    """A network that believes in class 1 by how bright a picture is."""

    def forward(self, images):
        total = images.flatten(1).mean(1)
        return torch.stack([torch.zeros_like(total), 4 * total], 1)


def by_hand(images, maps, blank, steps, insert):
    """The curves of the class 1 of :class:`Bright`, one picture and one pixel after the other."""
    curves = []
    for picture, heat in zip(images.numpy()[:, 0], maps.numpy(), strict=True):
        order, curve = np.argsort(-heat.ravel()), []
        for step in range(steps + 1):
            shown = np.full(picture.size, blank) if insert else picture.ravel().copy()
            taken = order[: round(step / steps * picture.size)]
            shown[taken] = picture.ravel()[taken] if insert else blank
            curve.append(1 / (1 + np.exp(-4 * shown.mean())))
        curves.append(curve)
    return np.array(curves)


@pytest.mark.parametrize("insert", [False, True])
def test_curves_are_those_taken_pixel_by_pixel(insert):
    images, maps = pictures(5, size=10), pictures(5, size=10, seed=3)[:, 0]
    take = gradcam.insertion if insert else gradcam.deletion
    found = take(Bright(), images, maps, 1, blank=0.25, steps=8)
    expected = by_hand(images, maps, 0.25, 8, insert)
    np.testing.assert_allclose(found.shares, np.arange(9) / 8)
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)
    np.testing.assert_allclose(found.area, np.trapezoid(expected, dx=1 / 8, axis=1), atol=1e-6)


def test_no_map_deletes_or_inserts_faster_than_the_true_one():
    images = pictures(5, size=10)
    for take, sign in ((gradcam.deletion, -1), (gradcam.insertion, 1)):
        truth = take(Bright(), images, images[:, 0], 1).area
        for seed in range(3):
            noise = take(Bright(), images, gradcam.random_maps(5, (10, 10), seed), 1).area
            assert (sign * (truth - noise) > 0).all()


def test_blank_images_may_be_given():
    images, blank = pictures(4, size=10), pictures(4, size=10).flip(0)
    curve = gradcam.insertion(Bright(), images, pictures(4, size=10, seed=3)[:, 0], 1, blank=blank)
    for column, shown in ((0, blank), (-1, images)):
        torch.testing.assert_close(curve.scores[:, column], Bright()(shown).softmax(1)[:, 1])


def test_equally_hot_places_go_in_a_random_order():
    rows = torch.linspace(1, -1, 20)[:, None].expand(1, 1, 20, 20).contiguous()  # bright above, dark below
    flat = torch.zeros(1, 20, 20)
    curve = gradcam.deletion(Bright(), rows, flat, lambda outputs: outputs[:, 1], steps=4)
    assert curve.scores.abs().max() < 0.5  # row by row it would reach -1
    again = gradcam.deletion(Bright(), rows, flat, lambda outputs: outputs[:, 1], steps=4, seed=1)
    assert not torch.equal(curve.scores, again.scores)


def test_the_class_is_settled_on_the_whole_image():
    images = pictures(6, size=10)
    likeliest = Bright()(images).argmax(1)
    assert 0 < likeliest.sum() < 6
    for take in (gradcam.deletion, gradcam.insertion):  # not on the blank image
        named = take(Bright(), images, images[:, 0], likeliest)
        torch.testing.assert_close(take(Bright(), images, images[:, 0]).scores, named.scores)


# --- faces laid over each other ---


@pytest.mark.parametrize("similar", [False, True])
def test_faces_are_aligned_as_by_scikit_image(similar):
    random = np.random.default_rng(0)
    images = skimage.transform.resize(random.random((3, 6, 6)), (3, 40, 48), order=1)
    reference = random.uniform(8, 36, (12, 2))
    turn = np.array([[1.1, 0.2], [-0.15, 0.9]])
    landmarks = reference @ turn + [3, -2] + random.normal(0, 0.5, (3, 12, 2))
    given = (torch.as_tensor(a).float() for a in (images, landmarks, reference))
    moved = gradcam.aligned(*given, similar=similar)
    kind = skimage.transform.SimilarityTransform if similar else skimage.transform.AffineTransform
    ones = np.hstack([reference, np.ones((12, 1))])
    for picture, points, result in zip(images, landmarks, moved, strict=True):
        matrix = np.eye(3)
        matrix[:2] = np.linalg.lstsq(ones, points, rcond=None)[0].T
        back = kind.from_estimate(reference, points) if similar else kind(matrix=matrix)
        np.testing.assert_allclose(
            result, skimage.transform.warp(picture, back, order=1, mode="edge"), atol=1e-4
        )


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_a_face_that_lies_where_it_should_stays_as_it_is(mode):
    points, images = torch.rand(5, 2).mul(40), pictures(2)[:, 0]
    kept = gradcam.aligned(images, points.expand(2, -1, -1), points, similar=True, mode=mode)
    torch.testing.assert_close(kept, images, atol=1e-4, rtol=0)


# --- what is refused ---

NAN = torch.full((2, 1, 48, 48), float("nan"))


@pytest.mark.parametrize(
    ("layer", "images", "targets", "why"),
    [
        (
            "blocs",
            pictures(),
            None,
            r"no layer 'blocs' in the network; did you mean 'blocks'\?; its parts: stem,",
        ),
        (nn.ReLU(), pictures(), None, "this ReLU is no layer of the network; take one of its own"),
        (
            "dense",
            pictures(),
            None,
            r"the layer puts out \[3, 128\], no map \[B, D, h, w\]: take an earlier one",
        ),
        (
            "blocks",
            torch.cat([pictures(), NAN]),
            None,
            "2 of 5 images hold NaN or infinity, the first is number 3",
        ),
        (
            "blocks",
            pictures()[0],
            None,
            r"must be normalised float \[N, C, H, W\], not float32 \[1, 48, 48\]",
        ),
        ("blocks", pictures().byte(), None, "must be normalised float .* not uint8"),
        ("blocks", pictures(), 7, "there is no class 7: the network has 7, counted from 0"),
        ("blocks", pictures(), [0, -1, 6], "there is no class -1"),
        ("blocks", pictures(), [0, 1], r"a class for each of 3 images, not int64 \[2\]"),
        ("blocks", pictures(), torch.zeros(3), r"a class for each of 3 images, not float32 \[3\]"),
        ("blocks", pictures(), lambda outputs: outputs, r"one number for each of 3 images, not \[3, 7\]"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(small, layer, images, targets, why):
    with pytest.raises(ValueError, match=why) as error:
        gradcam.grad_cam(small, layer, images, targets)
    assert "\n" not in str(error.value)


def test_a_head_that_is_not_there_is_refused(two_heads, small):
    known = "the network has: 'labels', 'valence_arousal'"
    for model, head, why in (
        (two_heads, "label", rf"no head 'label'; did you mean 'labels'\?; {known}"),
        (two_heads, None, f"no head None; {known}"),
        (small, "labels", "no head 'labels'"),
    ):
        with pytest.raises(ValueError, match=why):
            gradcam.grad_cam(model, "blocks", pictures(), head=head)


def test_layers_that_cannot_be_explained_are_refused():
    model, images = Pooled(), pictures(2, size=12)
    with pytest.raises(ValueError, match="the layer puts out a tuple, not a map"):
        gradcam.grad_cam(model, "pair", images)
    with pytest.raises(ValueError, match="the score does not depend on the layer"):
        gradcam.grad_cam(model, "side", images)
    model.unused = nn.Conv2d(1, 1, 1)
    with pytest.raises(ValueError, match="the layer is not used when the network runs"):
        gradcam.grad_cam(model, "unused", images)
    model.side = model.conv
    with pytest.raises(ValueError, match="the layer runs 2 times in one pass"):
        gradcam.grad_cam(model, "conv", images)
    with torch.no_grad():
        model.conv.weight[0] = float("nan")
    model.side = nn.Conv2d(1, 5, 3)
    with pytest.raises(ValueError, match="NaN or infinity: look at its weights"):
        gradcam.grad_cam(model, "conv", images)


MAPS, MASKS = torch.zeros(2, 6, 6), torch.ones(2, 6, 6, dtype=torch.bool)


@pytest.mark.parametrize("judge", [gradcam.pointing_hits, gradcam.energy_inside])
@pytest.mark.parametrize(
    ("maps", "masks", "why"),
    [
        (
            MAPS,
            MASKS[:1],
            r"maps must be \[N, h, w\] and masks bool \[N, H, W\], not float32 \[2, 6, 6\] and",
        ),
        (MAPS, MASKS.float(), "and float32"),
        (MAPS[0], MASKS[0], "maps must be"),
        (torch.full((2, 6, 6), torch.nan), MASKS, "2 of 2 maps hold NaN"),
    ],
)
def test_maps_and_masks_that_do_not_fit_are_refused(judge, maps, masks, why):
    with pytest.raises(ValueError, match=why):
        judge(maps, masks)


def test_other_shapes_that_do_not_fit_are_refused():
    images = pictures(2, size=10)
    with pytest.raises(ValueError, match=r"maps \[2, 6, 6\] do not fit images \[2, 1, 10, 10\]; enlarge"):
        gradcam.deletion(Bright(), images, MAPS)
    with pytest.raises(ValueError, match="1 of 2 maps hold NaN"):
        gradcam.insertion(
            Bright(), images, images[:, 0].where(torch.tensor([True, False])[:, None, None], torch.nan)
        )
    with pytest.raises(ValueError, match=r"maps \[2, 6, 6\] do not fit masks \[2, 12, 12\]; enlarge"):
        gradcam.energy_inside(MAPS, torch.ones(2, 12, 12, dtype=torch.bool))
    with pytest.raises(ValueError, match="pairs of one shape"):
        gradcam.rank_correlation(MAPS, MAPS[:1])
    with pytest.raises(ValueError, match=r"need landmarks \[2, 68, 2\] without NaN"):
        gradcam.aligned(MAPS, torch.full((2, 68, 2), torch.nan), torch.zeros(68, 2))
    with pytest.raises(ValueError, match="no layer 'block.0' in the network; did you mean"):
        gradcam.randomised(network(widths=(8,)), ["block.0"])
