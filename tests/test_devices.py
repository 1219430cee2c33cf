"""The GPU path, on a device made of CPU memory: nothing is mixed, nothing waits within a step."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from emulated_device import Refused, emulated

from helpers import emotions, faces, gradcam, losses, metrics, models, predictor, runtime, training
from helpers.batches import Augment, Batches

KINDS = ("cuda", "mps")
on_both = pytest.mark.parametrize("kind", KINDS)
ACCURACY = {"accuracy": metrics.on_labels(metrics.accuracy)}


def some(num=32, seed=0):
    """Return faces whose columns are float64, as NumPy makes them."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 256, (num, 16, 16), dtype=np.uint8), np.arange(num) % 7
    columns = {"valence_arousal": rng.uniform(-1, 1, (num, 2)), "distribution": np.eye(7)[labels]}
    return SimpleNamespace(images=images, labels=labels, **columns, classes=emotions.FER7)


def network(heads=7, dropout=0.1):
    torch.manual_seed(0)
    return models.create("face-cnn", heads, stem="unshuffle", widths=(4, 8), dropout=dropout)


def fit(device, model=None, loss=None, data=None, scores=ACCURACY, run=None, stop=None, **settings):
    model, data, loss = model or network(), data or some(), loss or losses.on_labels()
    config = training.Config(**{"epochs": 2, "batch_size": 8, "monitor": "loss", **settings})
    how = {"device": device, "progress": False, "run": run, "stop": stop, "on_epoch": stop and stop.request}
    return model, training.fit(model, data, some(), loss, scores, config, **how)


def weights(model):
    return {name: values.cpu().clone() for name, values in model.state_dict().items()}


@on_both
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
        here = there.to("cpu", non_blocking=True)
        assert here.tolist() == [0, 0, 0]  # a copy that nobody waits for has not arrived
        torch.cuda.Event().synchronize() if kind == "cuda" else there.cpu()
        assert here.tolist() == [1, 1, 1]


def test_each_process_takes_its_own_gpu_and_none_that_is_too_old(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda' is not on this machine; use 'auto'"):
        runtime.device("cuda")
    with emulated("cuda"), monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "device_count", lambda: 4)
        patched.setenv("LOCAL_RANK", "6")
        found = [str(runtime.device(name)) for name in ("auto", "cuda", "cuda:1", "cpu")]
        assert found == ["cuda:2", "cuda:2", "cuda:1", "cpu"]
        patched.setattr(torch.cuda, "get_device_capability", lambda *_: (6, 1))
        line = r"emulated is too old \(compute 6.1; this PyTorch needs 7.5\); computing on the CPU"
        with pytest.warns(UserWarning, match=line):
            assert runtime.device() == torch.device("cpu")
        with pytest.raises(ValueError, match="too old .*; use device='cpu'"):
            runtime.device("cuda")


@on_both
@pytest.mark.parametrize("resident", [True, False])
def test_batches_wait_once_an_epoch_and_are_those_of_the_cpu(kind, resident, tmp_path):
    faces, settings = some(60), {"seed": 3, "augment": Augment(perspective=0.1), "shuffle": True}
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


def learned():
    terms = {name: losses.on_dimension(name, losses.ccc_loss) for name in ("valence", "arousal")}
    return losses.UncertaintyWeighted(terms | {"labels": losses.on_labels()}, speed=10)


def of_distribution(name):
    return lambda: losses.on_distribution(losses.divergences(emotions.FER7)[name])


LOSSES = {
    "labels": lambda: losses.on_labels(label_smoothing=0.1, weight=np.ones(7)),
    "learned": learned,
    **{name: of_distribution(name) for name in ("kl", "emd", "js")},
}
SETTINGS = [
    ("cuda", True, "kl", {"optimizer": "adamw", "schedule": "one-cycle"}),
    ("cuda", True, "labels", {"optimizer": "muon", "schedule": "cosine"}),
    ("cuda", True, "emd", {"optimizer": "sgd", "schedule": "step", "grad_clip": 1.0}),
    ("cuda", True, "learned", {"optimizer": "adam", "schedule": "plateau", "ema": 0.9}),
    ("cuda", False, "js", {"optimizer": "muon", "grad_clip": 1.0}),
    ("cuda", False, "learned", {"optimizer": "sgd"}),
    ("cuda", False, "labels", {"optimizer": "adamw", "ema": 0.9}),
    ("mps", True, "labels", {"optimizer": "adamw", "grad_clip": 1.0, "ema": 0.9}),
    ("mps", True, "emd", {"optimizer": "muon"}),
    ("mps", True, "learned", {"optimizer": "sgd", "schedule": "plateau"}),
]


@pytest.mark.parametrize(("kind", "bfloat16", "name", "settings"), SETTINGS)
def test_no_step_waits_whatever_is_trained_and_how(kind, bfloat16, name, settings):
    """What waits in an epoch of four steps waits in one of two as well."""
    several = name == "learned"
    with emulated(kind, bfloat16) as device:
        model, loss = (
            network({"labels": 7, "valence": 1, "arousal": 1} if several else 7).to(kind),
            LOSSES[name](),
        )
        counts, scores = [], {} if several else ACCURACY
        for size in (16, 8):
            device.syncs.clear()
            fit(kind, model, loss, scores=scores, batch_size=size, **settings)
            counts.append(device.syncs.copy())
        assert not counts[1] - counts[0]
        assert not device.lacking
        assert not several or all(value != 1 for value in loss.weights().values())


@on_both
def test_a_training_on_a_device_is_that_of_the_cpu(kind):
    expected = weights(fit("cpu", precision="float32")[0])
    with emulated(kind):
        found = weights(fit(kind, precision="float32")[0])
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("kind", "bfloat16"), [("cuda", False), ("mps", True)])
def test_a_training_that_was_stopped_ends_the_same(kind, bfloat16, tmp_path):
    with emulated(kind, bfloat16):
        whole, _ = fit(kind, ema=0.9)
        assert fit(kind, run=tmp_path, stop=training.Stop(), ema=0.9)[1].stopped
        resumed, _ = fit(kind, run=tmp_path, ema=0.9)
        expected, found = weights(whole), weights(resumed)
    for name, values in expected.items():
        assert torch.equal(found[name], values), name


def test_a_training_goes_on_in_another_half_precision(tmp_path):
    assert fit("cpu", run=tmp_path, stop=training.Stop())[1].stopped
    with emulated("cuda", bfloat16=False):
        assert len(fit("cuda", run=tmp_path)[1].epochs) == 2


@pytest.mark.parametrize("grad_clip", [0.0, 0.5])
def test_half_precision_takes_the_step_of_float32(grad_clip):
    """Gradients are scaled for float16, and unscaled before they are clipped."""

    def loss(outputs, targets):
        return 1e-6 * torch.nn.functional.cross_entropy(outputs, targets["labels"])

    def change(device, **how):
        with emulated(device, bfloat16=False) if device != "cpu" else nullcontext():
            model = network(dropout=0.0)
            before = weights(model)
            how |= {"optimizer": "sgd", "momentum": 0.0, "lr": 1e5, "schedule": "constant", "epochs": 1}
            how |= {"batch_size": 16, "augment": None, "weight_decay": 0.0, "grad_clip": grad_clip * 1e-6}
            fit(device, model, loss, some(16), {}, **how)
            return torch.cat([(v - before[k]).flatten() for k, v in weights(model).items() if "head" in k])

    expected, found = change("cpu", precision="float32"), change("cuda")
    assert torch.cosine_similarity(found, expected, dim=0) > 0.98
    assert found.norm() == pytest.approx(float(expected.norm()), rel=0.1)


@pytest.mark.parametrize("bfloat16", [True, False])
def test_float16_alone_scales_its_gradients(bfloat16, monkeypatch):
    scaled, scale = [], torch.amp.GradScaler.scale
    monkeypatch.setattr(
        torch.amp.GradScaler, "scale", lambda self, x: scaled.append(self._enabled) or scale(self, x)
    )
    with emulated("cuda", bfloat16):
        fit("cuda", epochs=1)
    assert any(scaled) is not bfloat16


@on_both
def test_a_step_that_is_not_finite_is_named_though_nobody_waits_for_it(kind):
    data = some()
    data.valence_arousal[11] = np.inf

    def loss(outputs, targets):
        return outputs.square().mean() + targets["valence_arousal"].mean()

    with emulated(kind), pytest.raises(FloatingPointError, match=r"samples \[11\]"):
        fit(kind, None, loss, data, {})


@on_both
def test_a_batch_that_does_not_fit_is_halved(kind):
    class Narrow(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, images):
            if len(images) > 8 and self.training:
                raise torch.OutOfMemoryError("out of memory")
            return self.net(images)

    with emulated(kind), pytest.warns(UserWarning, match="parts of 8"):
        assert len(fit(kind, Narrow(), batch_size=16, epochs=1)[1].epochs) == 1


@on_both
def test_predictions_features_and_scores_come_back_as_arrays(kind):
    expected = training.predict(network(), some(), device="cpu")
    with emulated(kind) as device:
        model = network()
        found = training.predict(model, some(), device=kind, precision="float32")
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        for tta in ("flip", "shift"):
            assert training.predict(model, some(), tta=tta, device=kind).shape == (32, 7)
        assert training.features(model, some(), device=kind).shape[0] == 32
        scores = training.evaluate(model, some(), ACCURACY, device=kind).scores
        assert 0 <= scores["accuracy"].value <= 1
        [face] = (
            predictor.Predictor(model, emotions.FER7, device=kind).image(some().images[0], whole=True).faces
        )
        assert abs(face.distribution.sum() - 1) < 1e-3
        assert not device.lacking


@on_both
@pytest.mark.parametrize(
    "name", ["resnet18", "efficientnet_b0", "vit_b_16", "efficientnet_lite0", "face-cnn"]
)
def test_every_network_takes_a_step(kind, name):
    options = {"vit_b_16": {"image_size": 32}, "face-cnn": {"equalise": True}}
    model = models.create(name, 7, 1, **options.get(name, {}))
    with emulated(kind) as device:
        images, labels = torch.zeros(2, 1, 32, 32, device=kind), torch.tensor([0, 1], device=kind)
        model.to(kind)
        device.syncs.clear()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        assert not device.lacking
        assert not device.syncs


@on_both
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


@on_both
def test_faces_are_drawn_on_the_device(kind):
    expected = faces.sample(8, 3, size=24)
    with emulated(kind) as device:
        found = faces.sample(8, 3, size=24, device=kind)
        assert (found.images.cpu().int() - expected.images.int()).abs().max() <= 1
        assert torch.equal(found.votes.cpu(), expected.votes)
        assert not device.lacking
