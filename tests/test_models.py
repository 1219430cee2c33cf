"""The networks: shapes, sizes counted by hand, stems and heads against torchvision's own answers."""

from __future__ import annotations

import pytest
import torch
import torchvision

from helpers import models

RESNETS = ("resnet18", "resnet34", "resnet50")
# Trainable numbers of torchvision's 1,000-class networks, as its documentation lists them.
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "efficientnet_b0": 5_288_548,
    "vit_b_16": 86_567_656,
}


def pictures(channels: int = 1, size: int = 48, num: int = 2) -> torch.Tensor:
    return torch.randn(num, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_face_cnn_has_the_size_counted_by_hand():
    convolutions = 9 * (1 * 32 + 32 * 64 + 64 * 128 + 128 * 256)
    batch_norms = 2 * (32 + 64 + 128 + 256)
    dense = (256 * 128 + 128) + (128 * 7 + 7)
    assert models.num_parameters(models.FaceCNN()) == convolutions + batch_norms + dense


def test_face_cnn_equals_the_same_layers_called_by_hand():
    net = models.FaceCNN(7).eval()
    state, maps = net.state_dict(), pictures() * 3 + 5
    spread = maps.var(dim=(2, 3), correction=0, keepdim=True)
    maps = (maps - maps.mean(dim=(2, 3), keepdim=True)) / (spread + 1e-5).sqrt()
    for i in range(4):
        norm = [state[f"blocks.{i}.1.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        maps = torch.nn.functional.conv2d(maps, state[f"blocks.{i}.0.weight"], padding=1)
        maps = torch.nn.functional.batch_norm(maps, *norm).relu()
        maps = torch.nn.functional.max_pool2d(maps, 2)
    assert maps.shape == (2, 256, 3, 3)
    dense = (maps.flatten(2).mean(2) @ state["dense.1.weight"].T + state["dense.1.bias"]).clamp(min=0)
    expected = dense @ state["head.weight"].T + state["head.bias"]
    torch.testing.assert_close(net(pictures() * 3 + 5), expected)


def test_light_and_contrast_do_not_matter_unless_asked():
    brighter = pictures() * 0.5 + 1
    blind, seeing = models.FaceCNN().eval(), models.FaceCNN(standardise=False).eval()
    torch.testing.assert_close(blind(brighter), blind(pictures()), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(seeing(brighter), seeing(pictures()), rtol=1e-3, atol=1e-4)


def test_a_network_is_made_again_from_its_spec():
    first = models.create("face-cnn", {"labels": 7, "valence": 1}, 3, stem="unshuffle", widths=(8, 16))
    again = models.create(**first.spec)
    again.load_state_dict(first.state_dict())
    torch.testing.assert_close(again.eval()(pictures(3)), first.eval()(pictures(3)))


@pytest.mark.parametrize("name", models.NAMES)
def test_every_network_answers_in_both_colours_and_with_several_heads(name):
    grey = models.create(name, 5).eval()
    assert grey(pictures()).shape == (2, 5)
    rgb = models.create(name, {"labels": 8, "valence_arousal": 2}, in_channels=3).eval()
    answers = rgb(pictures(3))
    assert {key: tuple(value.shape) for key, value in answers.items()} == {
        "labels": (2, 8),
        "valence_arousal": (2, 2),
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_torchvision_networks_keep_their_published_size(name):
    ours = models.create(name, 1000, in_channels=3, image_size=224)
    assert models.num_parameters(ours) == PUBLISHED[name]
    assert PUBLISHED[name] == torchvision.models.get_model_weights(name).IMAGENET1K_V1.meta["num_params"]


@pytest.mark.parametrize("name", [*RESNETS, "efficientnet_b0", "vit_b_16"])
def test_three_channels_and_the_standard_stem_change_nothing(name):
    torch.manual_seed(3)
    size = {"image_size": 48} if name == "vit_b_16" else {}
    reference = torchvision.models.get_model(name, weights=None, num_classes=6, **size).eval()
    ours = models.create(name, 6, in_channels=3).eval()
    names = dict(zip(ours.state_dict(), reference.state_dict(), strict=True))
    ours.load_state_dict({mine: reference.state_dict()[theirs] for mine, theirs in names.items()})
    torch.testing.assert_close(ours(pictures(3)), reference(pictures(3)))


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "vit_b_16"])
def test_grey_stem_sees_a_grey_picture_as_the_rgb_stem_does(name):
    torch.manual_seed(4)
    rgb = models.create(name, 7, in_channels=3).eval()
    torch.manual_seed(4)
    grey = models.create(name, 7, in_channels=1).eval()
    different = {
        key for key, value in grey.state_dict().items() if value.shape != rgb.state_dict()[key].shape
    }
    assert len(different) == 1
    shared = {key: value for key, value in rgb.state_dict().items() if key not in different}
    grey.load_state_dict(shared, strict=False)
    torch.testing.assert_close(grey(pictures()), rgb(pictures().expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_small_stem_keeps_the_resolution():
    net = models.create("resnet18", 7, stem="small")
    assert net.maxpool(net.relu(net.bn1(net.conv1(pictures())))).shape == (2, 64, 48, 48)
    standard = models.create("resnet18", 7)
    assert standard.maxpool(standard.relu(standard.bn1(standard.conv1(pictures())))).shape == (2, 64, 12, 12)
    assert models.create("efficientnet_b0", 7, stem="small").features[0](pictures()).shape[-1] == 48
    assert models.create("vit_b_16", 7, stem="small").seq_length == 6 * 6 + 1


def test_unshuffle_stem_turns_four_pixels_into_four_channels():
    net = models.FaceCNN(in_channels=3, stem="unshuffle", standardise=False)
    picture = pictures(3)
    moved = net.stem(picture)
    assert moved.shape == (2, 12, 24, 24)
    torch.testing.assert_close(moved[:, 6], picture[:, 1, 1::2, 0::2])
    assert net.blocks(moved).shape == (2, 256, 3, 3)


def test_readout_puts_the_maximum_beside_the_mean():
    net = models.FaceCNN(readout="mean+max", dropout=0.0, standardise=False).eval()
    seen = {}
    net.dense.register_forward_hook(lambda _, given, __: seen.update(features=given[0]))
    net(pictures())
    maps = net.blocks(pictures())
    expected = torch.stack([torch.cat([m.flatten(1).mean(1), m.flatten(1).max(1).values]) for m in maps])
    torch.testing.assert_close(seen["features"], expected)


def test_grid_readout_keeps_what_lies_where():
    net = models.FaceCNN(widths=(8, 8, 4), stem="unshuffle", readout="grid", dropout=0.0).eval()
    seen = {}
    net.dense.register_forward_hook(lambda _, given, __: seen.update(features=given[0]))
    for size, cell in ((48, 1), (96, 2)):
        pictures = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0))
        net(pictures)
        maps = net.blocks(net.stem(pictures)).unflatten(2, (6, cell)).unflatten(4, (6, cell))
        torch.testing.assert_close(seen["features"], maps.mean(dim=(3, 5)).flatten(1))


@pytest.mark.parametrize(("pool_first", "order"), [(False, "CBRCBRP"), (True, "CPBRCBR")])
def test_order_of_the_layers_in_a_block(pool_first, order):
    block = models.FaceCNN(convs=2, pool_first=pool_first).blocks[0]
    letters = {"Conv2d": "C", "BatchNorm2d": "B", "ReLU": "R", "MaxPool2d": "P"}
    assert "".join(letters[type(layer).__name__] for layer in block) == order


@pytest.mark.parametrize("name", ["face-cnn", "resnet18", "vit_b_16"])
def test_dropout_acts_in_training_only(name):
    net = models.create(name, 7, dropout=0.5)
    net.eval()
    torch.testing.assert_close(net(pictures()), net(pictures()))
    dropped = [part for part in net.modules() if isinstance(part, torch.nn.Dropout) and part.p == 0.5]
    dropped[-1].train()
    assert not torch.equal(net(pictures()), net(pictures()))


def test_efficientnet_keeps_its_own_dropout_unless_told():
    shares = [models.create("efficientnet_b0", 7, dropout=d).classifier[0] for d in (None, 0.4)]
    assert [layer.p for layer in shares] == [0.2, 0.4]
    assert isinstance(models.create("efficientnet_b0", 7, dropout=0.0).classifier, torch.nn.Linear)


def test_a_gradient_reaches_every_parameter():
    net = models.create("face-cnn-fast", {"labels": 7, "valence": 1})
    sum(value.square().sum() for value in net(pictures(num=4)).values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_num_parameters_leaves_frozen_ones_out_when_asked():
    net = models.FaceCNN()
    net.blocks.requires_grad_(False)
    assert models.num_parameters(net, trainable_only=True) == (256 * 128 + 128) + (128 * 7 + 7)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: models.create("resnet-18", 7), "did you mean 'resnet18'"),
        (lambda: models.create("face-cnn", 7, stem="unshufle"), "did you mean 'unshuffle'"),
        (lambda: models.create("resnet18", 7, stem="smal"), "did you mean 'small'"),
        (lambda: models.FaceCNN(readout="max"), "mean\\+max"),
        (lambda: models.FaceCNN(dropout=1.0), "dropout must be in"),
        (lambda: models.FaceCNN(widths=()), "widths"),
        (lambda: models.create("resnet18", {}), "num_classes must be 1 or more"),
        (lambda: models.FaceCNN(0), "num_classes must be 1 or more"),
        (lambda: models.create("vit_b_16", 7, stem="stride1"), "no stem of stride 1"),
        (lambda: models.create("vit_b_16", 7, stem="small", weights="DEFAULT"), "patches of 16 pixels"),
        (lambda: models.create("resnet18", 7, pixels="imagenett"), "did you mean 'imagenet'"),
        (lambda: models.create("resnet18", 7, resize=0), "resize must be 1 pixel or more"),
        (lambda: models.create("resnet18", 7, weights="DEFAULTS"), "did you mean 'DEFAULT'"),
    ],
)
def test_a_mistake_is_named_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
