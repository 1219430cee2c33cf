"""A training that runs out of memory goes on; one whose numbers are not finite stops and names the faces."""

from __future__ import annotations

import copy
import warnings
from functools import partial

import numpy as np
import pytest
import test_training
import torch
from test_training import Faces, StopAt, same
from torch import nn

from helpers import batches, losses, runtime, training
from helpers.training import evaluation


class Heads(nn.Module):
    """Two heads on one body, which may have batch norm and dropout, and layers with two names."""

    def __init__(self, norm: bool = True, dropout: float = 0.2, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        middle = nn.BatchNorm2d(8) if norm else nn.Identity()
        pooled = [nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(dropout)]
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=not norm), middle, *pooled)
        self.labels, self.valence_arousal = nn.Linear(32, 2), nn.Linear(32, 2)
        self.again = self.body[:2]  # parameters may have two names

    def forward(self, images):
        body = self.body(images)
        return {"labels": self.labels(body), "valence_arousal": self.valence_arousal(body)}


def on_degrees(distance):
    return lambda outputs, targets: distance(outputs["valence_arousal"], targets["valence_arousal"])


LOSSES = {
    "labels": losses.on_labels,
    "weighted labels": lambda: losses.on_labels(weight=torch.tensor([1.0, 5.0]), label_smoothing=0.1),
    "distribution": losses.on_distribution,
    "transport": lambda: losses.on_distribution(partial(losses.emd, distances=1 - torch.eye(2))),
    "CCC": lambda: on_degrees(losses.ccc_loss),
    "learned weights": lambda: losses.UncertaintyWeighted(
        {"labels": losses.on_labels(), "degrees": on_degrees(losses.mse)}, squared=["degrees"], speed=10
    ),
}


def score(outputs, targets) -> float:
    return float((outputs["labels"].argmax(1) == targets["labels"]).mean())


def fit(model=None, loss=None, **settings):
    how = {"epochs": 3, "batch_size": 24, "score": score, **settings}
    return test_training.fit(model or Heads(), loss or losses.on_labels(), **how)[1]


def losses_of(history):
    return [each["loss"] for each in history.epochs]


class Limited(nn.Module):
    """A network that says it is out of memory for more than so many images that are to be learned from."""

    def __init__(self, model: nn.Module, limit: int, words: str | BaseException = "can't allocate memory"):
        super().__init__()
        self.model, self.limit, self.words, self.seen = model, limit, words, []

    def forward(self, images):
        if torch.is_grad_enabled() and len(images) > self.limit:
            raise self.words if isinstance(self.words, BaseException) else RuntimeError(self.words)
        if torch.is_grad_enabled():
            self.seen.append(len(images))
        return self.model(images)


WORDS = {
    "CUDA": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "MPS": "MPS backend out of memory (MPS allocated: 1.00 GB, max allowed: 2.00 GB)",
    "CPU": "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried",
    "Windows": "DefaultCPUAllocator: not enough memory: you tried to allocate 1000 bytes.",
    "cuBLAS": "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "Python": MemoryError(),
}


@pytest.mark.parametrize("words", WORDS)
def test_out_of_memory_halves_until_it_fits_and_says_so_once_each(words):
    model = Limited(Heads(), 6, WORDS[words])
    with pytest.warns(UserWarning, match="out of memory: batches of 24 go through") as said:
        assert len(fit(model, epochs=2).epochs) == 2
    assert [str(w.message).split("parts of ")[1].split()[0] for w in said] == ["12", "6"]
    assert all("\n" not in str(w.message) for w in said)
    assert set(model.seen) == {6}


@pytest.mark.parametrize("num", [2, 5])
@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_of_the_parts_is_that_of_the_whole_batch(name, num):
    """For losses that tie samples together as well; batch norm aside."""
    model, data = Heads(norm=False, dropout=0.0).double(), Faces()
    images = torch.as_tensor(data.images[:24, None] / 64.0)
    targets = {key: torch.as_tensor(getattr(data, key)[:24]) for key in batches.TARGETS}
    whole, cut, expected = LOSSES[name](), LOSSES[name](), copy.deepcopy(model)
    value = whole(expected(images), targets)
    value.backward()
    batch = batches.Batch(images, targets, torch.arange(24))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    again, outputs = evaluation.in_parts(lambda piece, part: model(piece), cut, batch, num, model, scaler)
    torch.testing.assert_close(again, value.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(outputs["labels"].detach(), expected(images)["labels"].detach())
    pairs = [*zip(model.parameters(), expected.parameters(), strict=True)]
    if isinstance(whole, nn.Module):
        pairs += [*zip(cut.parameters(), whole.parameters(), strict=True)]
    for mine, theirs in pairs:
        assert (mine.grad is None) == (theirs.grad is None)
        if mine.grad is not None:
            torch.testing.assert_close(
                mine.grad, theirs.grad, rtol=0, atol=1e-6 * float(theirs.grad.abs().max())
            )


def test_running_means_move_once_a_part_and_dropout_is_the_same_in_both_passes():
    """The two passes over a part must agree, or the gradient is one of nothing."""
    seen = []

    class Watching(Heads):
        def forward(self, images):
            outputs = super().forward(images)
            seen.append((torch.is_grad_enabled(), outputs["labels"].detach().clone()))
            return outputs

    model = Limited(Watching(dropout=0.5), 12)
    with pytest.warns(UserWarning, match="out of memory"):
        fit(model, epochs=1)
    without, withg = ([out for graph, out in seen if graph is g and len(out) == 12] for g in (False, True))
    assert len(without) == len(withg) == 8
    for one, other in zip(without, withg, strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.equal(withg[0], withg[1])
    assert int(model.model.body[1].num_batches_tracked) == 8


def test_an_error_that_is_none_of_memory_or_cannot_be_helped_is_raised():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fit(Limited(Heads(), 0, "mat1 and mat2 shapes cannot be multiplied"))
    with pytest.warns(UserWarning, match="out of memory"), pytest.raises(RuntimeError, match="CUDA out of"):
        fit(Limited(Heads(), 1, WORDS["CUDA"]))


@pytest.mark.filterwarnings("ignore:out of memory")
@pytest.mark.parametrize("look", [3, 8])
def test_a_training_in_parts_is_resumed_to_the_bit_with_the_loss_that_learns(tmp_path, look):
    whole, model = Limited(Heads(), 12), Limited(Heads(seed=9), 12)
    once, again = LOSSES["learned weights"](), LOSSES["learned weights"]()
    history = fit(whole, once)
    assert fit(Limited(Heads(), 12), LOSSES["learned weights"](), run=tmp_path, stop=StopAt(look)).stopped
    assert losses_of(fit(model, again, run=tmp_path)) == losses_of(history)
    assert same(model, whole)
    assert torch.equal(again.slow, once.slow)


@pytest.mark.parametrize("settings", [{"optimizer": "adam"}, {"weight_decay": 0.5}])
def test_a_loss_is_trained_as_adam_would_train_it_without_weight_decay(settings):
    """One step of Adam from rest moves a number by its learning rate, whatever the gradient."""
    loss = LOSSES["learned weights"]()
    fit(Heads(), loss, epochs=1, batch_size=96, schedule="constant", **settings)
    np.testing.assert_allclose(loss.slow.detach().abs().numpy(), 0.01, rtol=1e-4)


def test_validation_too_goes_in_smaller_batches_where_memory_is_short():
    class Small(Heads):
        def forward(self, images):
            if not torch.is_grad_enabled() and len(images) > 12:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(images)

    model, whole = Small(), Heads()
    with pytest.warns(UserWarning, match="out of memory: predicting") as said:
        history = fit(model, epochs=1)
    assert [str(w.message).split()[4] for w in said] == ["256", "128", "64", "32", "16", "8"]
    np.testing.assert_allclose(losses_of(history), losses_of(fit(whole, epochs=1)), rtol=1e-6)
    assert same(model, whole)


def broken_at(monkeypatch, sample: int, change, first: int = 0) -> None:
    """Change one sample of every training batch that holds it, from an epoch on."""
    made = batches.Batches.epoch

    def breaking(self, epoch=0, start=0):
        for batch in made(self, epoch, start):
            for row in (batch.index == sample).nonzero().flatten() if self.shuffle and epoch >= first else ():
                change(batch, row)
            yield batch

    monkeypatch.setattr(batches.Batches, "epoch", breaking)


def set_pixel(value):
    return lambda batch, row: batch.images[row, 0, 3, 4].fill_(value)


def set_target(name, value):
    return lambda batch, row: batch.targets[name][row, 0].fill_(value)


BAD_SAMPLES = {
    "a pixel is NaN": ("labels", set_pixel(float("nan"))),
    "a pixel is -infinite, CCC": ("CCC", set_pixel(float("-inf"))),
    "a probability is NaN": ("distribution", set_target("distribution", float("nan"))),
    "valence is infinite": ("learned weights", set_target("valence_arousal", float("inf"))),
    "valence is infinite, CCC": ("CCC", set_target("valence_arousal", float("-inf"))),
}


@pytest.mark.filterwarnings("ignore:out of memory")
@pytest.mark.parametrize("limit", [24, 12])
@pytest.mark.parametrize("case", BAD_SAMPLES)
def test_a_bad_sample_is_named_alone_before_a_step_is_taken_on_it(monkeypatch, case, limit):
    name, change = BAD_SAMPLES[case]
    second = list(batches.Batches(Faces(), 24, shuffle=True).epoch())[1]
    sample = int(second.index[6])
    broken_at(monkeypatch, sample, change)
    model, steps, step = Limited(Heads(dropout=0.0), limit), [], torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: steps.append(1) or step(self))
    message = rf"at epoch 1, step 2.* \(samples \[{sample}\]\): look at these"
    with pytest.raises(FloatingPointError, match=message) as caught:
        fit(model, LOSSES[name]())
    assert "\n" not in str(caught.value)
    assert len(steps) == 1
    assert all(torch.isfinite(weights).all() for weights in model.parameters())


def test_after_the_bad_face_is_out_the_training_goes_on_from_its_folder(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        broken_at(patch, 5, set_pixel(float("nan")), first=2)
        with pytest.raises(FloatingPointError, match="epoch 3, step"):
            fit(run=tmp_path)
    model, whole = Heads(seed=4), Heads()
    assert losses_of(fit(model, run=tmp_path)) == losses_of(fit(whole))
    assert same(model, whole)
    outputs = training.predict(model, Faces(64, 1), precision="float32")
    with np.load(tmp_path / "predictions.npz") as kept:
        assert np.array_equal(kept["target labels"], Faces(64, 1).labels)
        for name in ("labels", "valence_arousal"):
            np.testing.assert_allclose(kept[f"output {name}"], outputs[name], atol=1e-5)


class Steep(torch.autograd.Function):
    """What it is given, with another slope."""

    @staticmethod
    def forward(context, values, factor):
        context.factor = factor
        return values.clone()

    @staticmethod
    def backward(context, slope):
        return slope * context.factor, None


@pytest.mark.parametrize(("factor", "clip"), [(float("nan"), 0.0), (float("inf"), 0.0), (float("inf"), 1.0)])
def test_a_gradient_that_is_not_finite_takes_no_step(tmp_path, factor, clip):
    """The loss is finite all the time; from the second epoch on a gradient is not."""
    model, best, calls = Heads(), Heads(seed=5), []

    def loss(outputs, targets):
        calls.append(1)  # in an epoch four batches and a validation
        steep = Steep.apply(outputs["labels"], factor if len(calls) > 5 else 1.0)
        return losses.on_labels()({"labels": steep}, targets)

    with pytest.raises(
        FloatingPointError, match=r"a gradient is not finite at epoch 2, step 1, .*samples \["
    ):
        fit(model, loss, run=tmp_path, grad_clip=clip)
    training.load_weights(best, tmp_path / "best.safetensors")
    assert same(best, model)  # the best so far, not what the failed step left
    assert all(torch.isfinite(weights).all() for weights in model.state_dict().values())


def test_outputs_that_are_not_finite_never_become_the_best(tmp_path):
    class Spoiled(Heads):
        def forward(self, images):
            outputs = super().forward(images)
            if not self.training and (tmp_path / "history.csv").exists():  # from the second epoch on
                outputs["labels"] = outputs["labels"].index_fill(0, torch.tensor([7]), float("nan"))
            return outputs

    model, best = Spoiled(), Heads(seed=5)
    message = r"outputs on the validation set .* epoch 2 \(samples \[7\]\)"
    with pytest.raises(FloatingPointError, match=message):
        fit(model, run=tmp_path)
    training.load_weights(best, tmp_path / "best.safetensors")
    assert same(best, model)


def test_a_training_that_goes_on_elsewhere_says_so(monkeypatch, tmp_path):
    def go_on(stop=None, **settings) -> list[str]:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            fit(run=tmp_path, stop=stop, **settings)
        return [str(each.message) for each in said if "machine" in str(each.message)]

    machine = runtime.machine()
    assert go_on(StopAt(5)) == go_on(StopAt(2)) == []
    monkeypatch.setattr(runtime, "machine", lambda: {**machine, "torch": "0.1"})
    [line] = go_on(StopAt(2))
    assert f"begun on another machine (torch {machine['torch']}, now 0.1); the last digits may" in line
    assert go_on(seed=7) == []  # it starts anew
