"""The GPU path, on a device made of CPU memory: nothing is mixed, nothing waits within a step."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from emulated_device import Refused, emulated

from helpers import emotions, faces, gradcam, losses, metrics, models, predictor, training
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


# --- training ---

ACCURACY = {"accuracy": metrics.on_labels(metrics.accuracy)}
CONFIGS = {
    "adamw, one-cycle": {},
    "muon, cosine": {"optimizer": "muon", "schedule": "cosine"},
    "sgd, step, clipped": {"optimizer": "sgd", "schedule": "step", "grad_clip": 1.0},
    "adam, plateau, averaged": {"optimizer": "adam", "schedule": "plateau", "ema": 0.9},
}
LOSSES = {
    "labels": lambda: losses.on_labels(label_smoothing=0.1, weight=np.ones(7)),
    "distribution": losses.on_distribution,
    **{
        name: lambda name=name: losses.on_distribution(losses.divergences(emotions.FER7)[name])
        for name in ("emd", "js")
    },
}
SEVERAL = {"labels": 7, "valence": 1, "arousal": 1}


def network(heads=7, dropout=0.1):
    torch.manual_seed(0)
    return models.create("face-cnn", heads, stem="unshuffle", widths=(4, 8), dropout=dropout)


def faces_of(num=32, **how):
    return SimpleNamespace(**vars(some(num, **how)), classes=emotions.FER7)


def config(**how):
    return training.Config(**{"epochs": 2, "batch_size": 8, "monitor": "loss", **how})


def waits_of_a_step(device, kind, loss, heads=7, scores=ACCURACY, **how):
    """Return what waited in an epoch of four steps and did not in one of two."""
    faces, model = faces_of(), network(heads).to(kind)
    counts = []
    for size in (16, 8):
        device.syncs.clear()
        training.fit(
            model, faces, faces, loss, scores, config(batch_size=size, **how), device=kind, progress=False
        )
        counts.append(device.syncs.copy())
    return counts[1] - counts[0]


@pytest.mark.parametrize(("kind", "bfloat16"), [("cuda", True), ("cuda", False), ("mps", True)])
@pytest.mark.parametrize("name", CONFIGS)
def test_no_step_waits(kind, bfloat16, name):
    with emulated(kind, bfloat16) as device:
        loss = losses.on_labels()
        assert not waits_of_a_step(device, kind, loss, **CONFIGS[name])
        assert not device.lacking


@pytest.mark.parametrize(("kind", "name"), [("mps", "labels"), *(("cuda", name) for name in LOSSES)])
def test_no_loss_waits(kind, name):
    with emulated(kind) as device:
        loss = LOSSES[name]()
        assert not waits_of_a_step(device, kind, loss)
        assert not device.lacking


@pytest.mark.parametrize("kind", KINDS)
def test_several_heads_train_and_learned_weights_do(kind):
    terms = {name: losses.on_dimension(name, losses.ccc_loss) for name in ("valence", "arousal")}
    with emulated(kind) as device:
        loss = losses.UncertaintyWeighted(terms | {"labels": losses.on_labels()}, speed=10)
        before = [p.detach().clone() for p in loss.parameters()]
        assert not waits_of_a_step(device, kind, loss, SEVERAL, {})
        assert any(
            (a != b).any() for a, b in zip(before, [p.detach().cpu() for p in loss.parameters()], strict=True)
        )
        assert not device.lacking


def weights(model):
    return {name: values.cpu().clone() for name, values in model.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_on_a_device_is_that_of_the_cpu(kind):
    faces, plain = faces_of(), config(precision="float32")
    expected = network()
    training.fit(expected, faces, faces, losses.on_labels(), ACCURACY, plain, device="cpu", progress=False)
    with emulated(kind):
        model = network()
        training.fit(model, faces, faces, losses.on_labels(), ACCURACY, plain, device=kind, progress=False)
        found = weights(model)
    for name, values in weights(expected).items():
        torch.testing.assert_close(found[name], values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("kind", "bfloat16"), [("cuda", False), ("mps", True)])
def test_a_training_that_was_stopped_ends_the_same(kind, bfloat16, tmp_path):
    faces, how = faces_of(), config(ema=0.9)
    with emulated(kind, bfloat16):
        whole, stopped, resumed = network(), network(), network()

        def train(model, **more):
            loss = losses.on_labels()
            return training.fit(model, faces, faces, loss, ACCURACY, how, device=kind, progress=False, **more)

        train(whole)
        stop = training.Stop()
        history = train(stopped, run=tmp_path, stop=stop, on_epoch=stop.request)
        assert history.stopped
        train(resumed, run=tmp_path)
        expected, found = weights(whole), weights(resumed)
    for name, values in expected.items():
        assert torch.equal(found[name], values), name


def test_a_training_goes_on_in_another_half_precision(tmp_path):
    faces, stop = faces_of(), training.Stop()
    loss = losses.on_labels()
    first = training.fit(
        network(), faces, faces, loss, ACCURACY, config(), run=tmp_path, stop=stop, on_epoch=stop.request,
        device="cpu", progress=False,
    )  # fmt: skip
    assert first.stopped
    with emulated("cuda", bfloat16=False):
        history = training.fit(
            network(), faces, faces, losses.on_labels(), ACCURACY, config(), run=tmp_path, device="cuda",
            progress=False,
        )  # fmt: skip
        assert len(history.epochs) == 2


@pytest.mark.parametrize("grad_clip", [0.0, 0.5])
def test_half_precision_takes_the_step_of_float32(grad_clip):
    """Gradients are scaled for float16, and unscaled before they are clipped."""
    faces = faces_of(16)

    def loss(outputs, targets):
        return 1e-6 * torch.nn.functional.cross_entropy(outputs, targets["labels"])

    def change(device, bfloat16, **how):
        with emulated(device, bfloat16) if device != "cpu" else nullcontext():
            model = network(dropout=0.0)
            before = weights(model)
            how |= {"optimizer": "sgd", "momentum": 0.0, "lr": 1e5, "schedule": "constant", "epochs": 1}
            how |= {"batch_size": 16, "augment": None, "weight_decay": 0.0, "grad_clip": grad_clip * 1e-6}
            training.fit(model, faces, faces, loss, {}, config(**how), device=device, progress=False)
            return torch.cat([(v - before[k]).flatten() for k, v in weights(model).items() if "head" in k])

    expected, found = change("cpu", True, precision="float32"), change("cuda", False)
    assert torch.cosine_similarity(found, expected, dim=0) > 0.98
    assert found.norm() == pytest.approx(float(expected.norm()), rel=0.1)


@pytest.mark.parametrize("bfloat16", [True, False])
def test_float16_alone_scales_its_gradients(bfloat16, monkeypatch):
    scaled, scale = [], torch.amp.GradScaler.scale
    monkeypatch.setattr(
        torch.amp.GradScaler, "scale", lambda self, x: scaled.append(self._enabled) or scale(self, x)
    )
    with emulated("cuda", bfloat16):
        training.fit(
            network(), faces_of(16), faces_of(16), losses.on_labels(), {}, config(epochs=1), device="cuda",
            progress=False,
        )  # fmt: skip
    assert any(scaled) is not bfloat16


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_is_not_finite_is_named(kind):
    faces = faces_of()
    faces.valence_arousal[11] = np.inf

    def loss(outputs, targets):
        return outputs.square().mean() + targets["valence_arousal"].mean()

    with emulated(kind), pytest.raises(FloatingPointError, match=r"samples \[11\]"):
        training.fit(network(), faces, faces_of(seed=1), loss, {}, config(), device=kind, progress=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_does_not_fit_is_halved(kind):

    class Narrow(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, images):
            if len(images) > 8:
                raise torch.OutOfMemoryError("out of memory")
            return self.net(images)

    faces = faces_of(16)
    with emulated(kind), pytest.warns(UserWarning, match="parts of 8"):
        history = training.fit(
            Narrow(),
            faces,
            faces,
            losses.on_labels(),
            {},
            config(batch_size=16, epochs=1),
            device=kind,
            progress=False,
        )
    assert len(history.epochs) == 1


# --- asking a network ---


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_features_and_scores_come_back_as_arrays(kind):
    faces, expected = faces_of(), training.predict(network(), faces_of(), device="cpu")
    with emulated(kind) as device:
        model = network()
        found = training.predict(model, faces, device=kind, precision="float32")
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        for tta in ("flip", "shift"):
            assert training.predict(model, faces, tta=tta, device=kind).shape == (32, 7)
        assert training.features(model, faces, device=kind).shape[0] == 32
        scores = training.evaluate(model, faces, ACCURACY, device=kind).scores
        assert 0 <= scores["accuracy"].value <= 1
        assert not device.lacking


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "vit_b_16", "efficientnet_lite0"])
def test_every_network_takes_a_step(kind, name):
    model = models.create(name, 7, 1, **({"image_size": 32} if name == "vit_b_16" else {}))
    with emulated(kind) as device:
        images = torch.zeros(2, 1, 32, 32, device=kind)
        model.to(kind)
        torch.nn.functional.cross_entropy(model(images), torch.tensor([0, 1], device=kind)).backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        assert not device.lacking


@pytest.mark.parametrize("kind", KINDS)
def test_heat_maps_take_images_of_the_cpu(kind):
    images, classes = torch.randn(3, 1, 48, 48), torch.tensor([0, 3, 6])
    plain = models.create("face-cnn-fast", 7, widths=(8, 8, 8)).eval()
    expected = gradcam.grad_cam(plain, "blocks.1", images, classes)
    with emulated(kind) as device:
        model = copy.deepcopy(plain).to(kind)
        maps = gradcam.grad_cam(model, "blocks.1", images, classes)
        torch.testing.assert_close(torch.as_tensor(maps.cpu()), expected, atol=1e-4, rtol=1e-3)
        for curve in (gradcam.deletion, gradcam.insertion):
            curve(model, images, maps, classes)
        assert not device.lacking


@pytest.mark.parametrize("kind", KINDS)
def test_faces_are_drawn_on_the_device(kind):
    expected = faces.sample(8, 3, size=24)
    with emulated(kind) as device:
        found = faces.sample(8, 3, size=24, device=kind)
        assert (found.images.cpu().int() - expected.images.int()).abs().max() <= 1
        assert torch.equal(found.votes.cpu(), expected.votes)
        assert not device.lacking


@pytest.mark.parametrize("kind", KINDS)
def test_the_predictor_reads_an_image(kind):
    with emulated(kind):
        reader = predictor.Predictor(network(), emotions.FER7, device=kind)
        [face] = reader.image(np.zeros((48, 48), np.uint8), whole=True).faces
        assert abs(face.distribution.sum() - 1) < 1e-3
