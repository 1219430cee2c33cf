"""The loop: equal to the one everybody writes, resumed to the bit, and it says what it goes on from."""

import copy
import json
import math
import os
import signal
import sys
import warnings
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from helpers import files, losses, models, training
from helpers.batches import Augment, Batches
from helpers.training.config import SCHEDULES, make_optimizer


class Faces:
    """Images whose brighter half, upper or lower, tells the label."""

    valence_arousal = None
    distribution = None
    classes = ("up", "down")

    def __init__(self, num=96, seed=0):
        random = np.random.default_rng(seed)
        self.labels = random.integers(0, 2, num)
        self.images = random.integers(0, 200, (num, 16, 16), dtype=np.uint8)
        half = np.arange(16) // 8
        self.images += (55 * (half[None, :, None] == self.labels[:, None, None])).astype(np.uint8)


class StopAt(training.Stop):
    """Does something, by default asks for the end, when the loop looks for the n-th time."""

    def __init__(self, look, then=None):
        self.left, self.then = look, then

    @property
    def requested(self):
        self.left -= 1
        if self.left == 0 and self.then:
            self.then()
        return self.left <= 0 and not self.then


def network(dropout=0.2, seed=0):
    torch.manual_seed(seed)
    # no bias before batch norm: it has no gradient, and Adam would blow its rounding up to full steps
    layers = [nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)]
    layers += [nn.ReLU(), nn.AdaptiveAvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(32, 2))


def cross_entropy(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets["labels"])


def accuracy(outputs, targets):
    return float((outputs.argmax(1) == targets["labels"]).mean())


HOW = ("run", "start", "start_state", "stop", "on_epoch", "progress", "figures")


def fit(model=None, loss=cross_entropy, train=None, score=accuracy, **settings):
    model = network() if model is None else model
    how = {name: settings.pop(name) for name in HOW if name in settings}
    config = {"epochs": 4, "batch_size": 16, "lr": 0.01, "precision": "float32", **settings}
    faces, how = (train or Faces(), Faces(64, 1)), {"device": "cpu", "progress": False, **how}
    return model, training.fit(model, *faces, loss, {"accuracy": score}, training.Config(**config), **how)


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def scores(history):
    return [{k: v for k, v in e.items() if k not in {"seconds", "images_per_second"}} for e in history.epochs]


@pytest.fixture
def said():
    """Return what was warned of so far, line by line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield lambda: [str(each.message) for each in caught if each.category is UserWarning]


# --- learning


def test_it_learns_and_ends_with_the_best_epoch():
    model, history = fit(epochs=8, lr=0.02)
    assert history.best["accuracy"] > 0.9
    outputs = training.predict(model, Faces(64, 1), device="cpu", precision="float32")
    assert accuracy(outputs, {"labels": Faces(64, 1).labels}) == history.best["accuracy"]


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_it_is_the_loop_that_everybody_writes(optimizer, clip):
    plain = network(dropout=0)
    settings = {"optimizer": optimizer, "schedule": "constant", "seed": 5, "grad_clip": clip}
    model, history = fit(copy.deepcopy(plain), epochs=3, **settings)
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    extra = {"momentum": 0.9, "nesterov": True} if optimizer == "sgd" else {}
    decay, free = ([p for p in plain.parameters() if (p.ndim > 1) == many] for many in (True, False))
    groups = [{"params": decay, "weight_decay": 0.01}, {"params": free, "weight_decay": 0.0}]
    chosen = kinds[optimizer](groups, lr=0.01, **extra)
    data, best = Batches(Faces(), 16, seed=5, augment=Augment(), shuffle=True), (-1, None)
    for epoch in range(3):
        plain.train()
        hits = []
        for batch in data.epoch(epoch):
            chosen.zero_grad()
            outputs = plain(batch.images)
            cross_entropy(outputs, batch.targets).backward()
            if clip:
                nn.utils.clip_grad_norm_(plain.parameters(), clip)
            chosen.step()
            hits += (outputs.argmax(1) == batch.targets["labels"]).tolist()
        assert history.epochs[epoch]["train_accuracy"] == pytest.approx(np.mean(hits))
        plain.eval()
        with torch.no_grad():
            whole = next(iter(Batches(Faces(64, 1), 64).epoch()))
            score = accuracy(plain(whole.images).numpy(), {"labels": Faces(64, 1).labels})
        if score > best[0]:
            best = score, copy.deepcopy(plain)
    assert history.best["accuracy"] == best[0]
    for mine, theirs in zip(model.parameters(), best[1].parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_half_precision_learns_the_same():
    exact, half = (fit(network(dropout=0), epochs=6, precision=p)[1] for p in ("float32", "bfloat16"))
    lines = np.array([[e["train_loss"] for e in history.epochs] for history in (exact, half)])
    np.testing.assert_allclose(lines[1], lines[0], rtol=0.05)
    assert (lines[0] != lines[1]).any()


def test_the_same_seed_gives_the_same_bits_and_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(3)
    expected, model = torch.rand(1), network()
    torch.manual_seed(3)
    one, first = fit(model)
    assert torch.rand(1) == expected
    (again, second), (other, _) = fit(), fit(seed=1)
    assert same(one, again)
    assert scores(first) == scores(second)
    assert not same(one, other)


def test_the_running_mean_of_weights_is_what_its_definition_says():
    seen, model = [], network(dropout=0)
    model.register_forward_pre_hook(
        lambda part, _: seen.append(part[0].weight.detach().clone()) if part.training else None
    )
    trained, _ = fit(model, epochs=1, ema=0.5, schedule="constant")
    after = fit(network(dropout=0), epochs=1, schedule="constant")[0][0].weight.detach()
    mean = seen[0]
    for step, weight in enumerate([*seen[1:], after], start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * weight
    torch.testing.assert_close(trained[0].weight.detach(), mean)


def test_weight_decay_spares_biases_and_what_is_frozen_stays():
    model = network()
    optimizer = make_optimizer(model, training.Config(weight_decay=0.1))
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {id(model[0].weight), id(model[6].weight)}
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    fit(model, weight_decay=0.5)
    assert torch.equal(model[0].weight, before)


def test_several_heads_come_out_by_name_and_layers_may_have_two_names():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network()
            self.again = self.body[:3]

        def forward(self, images):
            return {"expression": self.body(images), "twice": 2 * self.body(images)}

    def loss(outputs, targets):
        return cross_entropy(outputs["expression"], targets) + 0 * outputs["twice"].sum()

    config, model = training.Config(epochs=1, batch_size=16), TwoHeads()
    score = {"accuracy": lambda outputs, targets: accuracy(outputs["expression"], targets)}
    training.fit(model, Faces(), Faces(64, 1), loss, score, config, progress=False)
    outputs = training.predict(model, Faces(10))
    np.testing.assert_allclose(outputs["twice"], 2 * outputs["expression"], rtol=1e-5)


def test_compiled_or_not_it_trains(monkeypatch, said):
    whole, _ = fit(network(dropout=0))

    def compiled(model, mode):
        def refuse(images):
            raise RuntimeError("no compiler\nat all")

        return refuse

    monkeypatch.setattr(torch, "compile", compiled)
    assert same(fit(network(dropout=0), compile=True)[0], whole)
    assert said() == ["not compiled: torch.compile says no compiler"]


# --- stopping and going on


@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": "sgd", "ema": 0.9}, {"schedule": "plateau"}, {"optimizer": "muon", "grad_clip": 0.1}],
)
@pytest.mark.parametrize("look", [1, 8, 13])
def test_stopped_and_resumed_is_the_same_to_the_bit(tmp_path, settings, look, said):
    whole, history = fit(**settings)
    _, stopped = fit(run=tmp_path, stop=StopAt(look), **settings)
    assert (stopped.stopped, stopped.ended) == (True, "stopped")
    assert not (tmp_path / "finished.json").exists()
    model, resumed = fit(network(seed=9), run=tmp_path, **settings)
    assert same(model, whole)
    assert scores(resumed) == scores(history)
    assert (resumed.stopped, resumed.ended) == (False, "all epochs")
    assert said() == []


def test_one_killed_between_its_last_epoch_and_its_mark_trains_no_more(tmp_path, monkeypatch):
    whole, history = fit(epochs=3)
    with monkeypatch.context() as patched:
        patched.setattr(training.Run, "end", lambda *_: sys.exit())
        with pytest.raises(SystemExit):
            fit(epochs=3, run=tmp_path)
    assert training.Run(tmp_path).finished is None
    model, resumed = fit(network(seed=9), epochs=3, run=tmp_path)
    assert same(model, whole)
    assert scores(resumed) == scores(history)
    assert training.Run(tmp_path).finished["epochs"] == 3


def test_an_interrupt_stops_at_the_next_batch_and_raises_nothing(tmp_path):
    before, stop = signal.getsignal(signal.SIGINT), training.Stop()
    model = network()
    looks = iter(range(1, 100))
    model.register_forward_pre_hook(
        lambda *_: os.kill(os.getpid(), signal.SIGINT) if next(looks) == 9 else None
    )
    _, history = fit(model, run=tmp_path, stop=stop)
    assert history.stopped
    _, about = training.Run(tmp_path).load_state()
    assert (about["at"]["epoch"], about["at"]["step"]) == (1, 2)  # call 7 was the validation
    assert signal.getsignal(signal.SIGINT) is before


class Other(nn.Sequential):
    """The same layers and shapes, put to another use."""

    def forward(self, images):
        return super().forward(images) * 2


def other_faces():
    faces = Faces()
    faces.labels = 1 - faces.labels
    return faces


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"lr": 0.02}, "lr 0.01, now 0.02"),
        ({"loss": losses.on_labels(label_smoothing=0.1, weight=torch.ones(2))}, "loss"),
        ({"train": other_faces()}, "train"),
        ({"model": network(dropout=0.3)}, "network"),
        ({"model": Other(*network())}, "network"),
    ],
)
@pytest.mark.parametrize("look", [9, 0], ids=["stopped", "finished"])
def test_another_training_starts_anew_says_why_and_keeps_what_was_there(tmp_path, changed, what, look, said):
    fit(loss=losses.on_labels(), run=tmp_path, stop=StopAt(look) if look else None, epochs=2)
    before = files.sha256(tmp_path / "best.safetensors")
    now = {"loss": losses.on_labels(), "epochs": 2, **changed}
    fresh, _ = fit(**copy.deepcopy(now))
    model, history = fit(run=tmp_path, **now)
    assert same(model, fresh)
    assert len(history.epochs) == 2
    [line] = said()
    assert line.startswith(f"another training stands in {tmp_path} ({what}")
    assert files.sha256(tmp_path / "replaced" / "best.safetensors") == before


def test_a_finished_training_is_not_trained_again_and_takes_more_epochs(tmp_path, said, capsys):
    model, history = fit(run=tmp_path, epochs=2)
    mark = training.Run(tmp_path).finished
    assert (mark["ended"], mark["epochs"], mark["best_epoch"]) == ("all epochs", 2, history.best_epoch)
    for begun in (network(), model):  # as it was begun, and as it ended: a cell that is run twice
        again, kept = fit(begun, run=tmp_path, epochs=2, progress=True)
        assert same(again, model)
        assert kept.epochs == history.epochs
        assert "finished already: 2 epochs" in capsys.readouterr().out
    assert said() == []
    longer, more = fit(network(seed=5), run=tmp_path, epochs=5, schedule="one-cycle")
    assert [line.split(" goes on ")[1] for line in said()] == ["with other settings: epochs 2, now 5"]
    assert more.epochs[:2] == history.epochs
    assert len(more.epochs) == 5
    fit(network(seed=5), run=tmp_path, epochs=5)  # another start, all else the same: another training
    assert "(start): starts anew" in said()[-1]


def test_a_training_starts_from_another_runs_weights_and_optimiser(tmp_path, said):
    first, _ = fit(run=tmp_path / "a", epochs=2, schedule="constant")
    tensors, _ = training.Run(tmp_path / "a").load_state()
    assert float(tensors["optimizer/0/step"]) == 12
    settings = {"epochs": 1, "lr": 1e-9, "weight_decay": 0.0, "schedule": "constant"}
    for start_state, steps in ((True, 18), (False, 6)):
        folder = tmp_path / f"b{steps}"
        model, _ = fit(network(seed=7), run=folder, start=tmp_path / "a", start_state=start_state, **settings)
        assert float(training.Run(folder).load_state()[0]["optimizer/0/step"]) == steps
        for mine, theirs in zip(model.parameters(), first.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
    wider = network(seed=7)
    wider[6] = nn.Linear(32, 3)
    training.save_weights(first, tmp_path / "file.safetensors")
    training.load_weights(wider, tmp_path / "file.safetensors", matching=True)
    assert torch.equal(wider[0].weight, first[0].weight)
    assert said() == []
    fit(wider, start=tmp_path / "a", **settings)
    assert said()[0].endswith("has no weights for 6.weight, 6.bias")
    with pytest.raises(FileNotFoundError, match=r"no trained network in .*/aa; did you mean 'a'"):
        fit(start=tmp_path / "aa")


def test_a_second_training_in_a_folder_is_refused_in_one_line(tmp_path):
    line = []

    def second(_):
        with pytest.raises(RuntimeError, match="another training is under way in") as caught:
            fit(run=tmp_path)
        line.append(str(caught.value))

    fit(run=tmp_path, epochs=1, on_epoch=second)
    assert len(line) == 1
    assert "\n" not in line[0]
    assert len(fit(run=tmp_path, epochs=2)[1].epochs) == 2  # and the lock is gone


def test_a_training_goes_on_with_the_threads_it_began_with(tmp_path, monkeypatch):
    seen, before = [], torch.get_num_threads()
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    for threads, look in ((3, 8), (2, 0)):
        model = network()
        model.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
        torch.set_num_threads(threads)
        fit(model, run=tmp_path, stop=StopAt(look) if look else None)
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert len(seen) > 16
    assert set(seen) == {3}


# --- what is kept


def test_a_run_leaves_one_folder_that_can_be_opened(tmp_path, said):
    draw = {"confusion": lambda outputs, targets, ax: ax.plot(outputs.argmax(1), targets["labels"])}
    torch.manual_seed(0)
    model = models.create("face-cnn", 2, widths=(4, 8), head_width=8)
    model, history = fit(model, run=tmp_path / "a", figures=draw, epochs=2)
    names = {path.name for path in (tmp_path / "a").iterdir()} - {".lock"}
    assert names == {
        *("config.json", "history.csv", "best.safetensors", "predictions.npz", "curves.png", "confusion.png"),
        *("state.safetensors", "finished.json", "tensorboard"),
    }
    assert list(pd.read_csv(tmp_path / "a" / "history.csv").columns) == [
        *("epoch", "lr", "train_loss", "loss", "accuracy", "train_accuracy", "seconds", "images_per_second")
    ]
    (tmp_path / "alone.safetensors").write_bytes((tmp_path / "a" / "best.safetensors").read_bytes())
    for path in (tmp_path / "a", str(tmp_path / "alone.safetensors")):
        run = training.Run.open(path)
        assert same(run.model, model)
        assert run.record["faces"]["classes"] == ["up", "down"]
    run = training.Run.open(tmp_path / "a")
    assert len(run.history) == 2
    assert set(run.record["identity"]) == {"train", "validation", "network", "loss", "start"}
    run.forget()
    assert training.Run(tmp_path / "a").finished is None
    with pytest.raises(FileNotFoundError, match="no trained network in"):
        training.Run.open(tmp_path / "a")
    assert said() == []


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["up", "\x1b[2Jdown"]},
        {"classes": "up"},
        {"image_size": 60_000},
        {"image_size": "16"},
        {"channels": 2},
        {"channels": None},
    ],
)
def test_a_record_of_a_strange_run_is_refused_in_one_line(tmp_path, change):
    training.save_weights(network(), tmp_path / "best.safetensors")
    record = {"model": {}, "faces": {"classes": ["up"], "image_size": 16, "channels": 1}}
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="use run.load"):
        _ = training.Run.open(tmp_path).model
    record["faces"] |= change
    for text in (json.dumps(record), "[]", "{", "[" * 10**5, '"\\ud800"', "null"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=r"config.json does not say what was learned") as caught:
            training.Run.open(tmp_path)
        assert "\n" not in str(caught.value)


def test_damaged_state_and_weights_are_named_and_change_nothing(tmp_path):
    fit(run=tmp_path, stop=StopAt(9))
    for name in ("state.safetensors", "best.safetensors"):
        content = (tmp_path / name).read_bytes()
        for place in (len(content) // 2, -5, 40):
            damaged = bytearray(content)
            damaged[place] ^= 1
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(ValueError, match=f"{name} is damaged"):
                fit(run=tmp_path)
        (tmp_path / name).write_bytes(content)
    model = network(seed=4)
    before = copy.deepcopy(model)
    (tmp_path / "short").write_bytes(content[:-40])
    for name, message in (("short", "short is damaged"), ("none", "none")):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            training.load_weights(model, tmp_path / name)
    with pytest.raises(ValueError, match="weights of another network than this Linear"):
        training.load_weights(nn.Linear(3, 2), tmp_path / "best.safetensors")
    assert same(model, before)


def test_only_state_and_weights_may_end_a_training(tmp_path, monkeypatch, said):
    real = os.replace

    def refused(source, target, **how):
        if str(target).endswith(refusing):
            raise PermissionError(13, "used by another process", str(target))
        return real(source, target, **how)

    monkeypatch.setattr(os, "replace", refused)
    refusing = ("history.csv", "predictions.npz", "config.json", "curves.png", "bad.png", "finished.json")
    figures = {"bad": lambda *_: 1 / 0}
    assert len(fit(run=tmp_path / "a", epochs=2, figures=figures)[1].epochs) == 2
    assert {line.split(" ")[0] for line in said()} == set(refusing)
    for refusing in ("best.safetensors", "state.safetensors"):
        with pytest.raises(OSError, match=refusing):
            fit(run=tmp_path / refusing, epochs=2)


def test_the_state_never_speaks_of_weights_that_are_not_there(tmp_path, monkeypatch):
    order, real = [], os.replace
    monkeypatch.setattr(os, "replace", lambda s, t, **k: order.append(os.path.basename(t)) or real(s, t, **k))
    fit(run=tmp_path, epochs=1)
    assert order.index("best.safetensors") < order.index("state.safetensors")
    assert order[-1] == "finished.json"


def test_a_line_an_epoch_stays_on_stdout_and_who_watches_is_told(capsys):
    fit(epochs=3, progress=True)
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3", "3 epochs"]
    assert all("\r" not in line and "train loss" in line for line in lines[:-1])
    told = []
    fit(progress=lambda share, values: told.append((share, values)))
    assert all(0 < share <= 1 for share, _ in told)
    assert set(told[0][1]) == {"epoch", "loss", "images/s"}
    assert capsys.readouterr() == ("", "")


# --- schedules and settings


def test_schedules_agree_with_pytorch():
    steps, parameter = 40, nn.Parameter(torch.zeros(1))

    def theirs(make):
        optimizer = torch.optim.SGD([parameter], lr=1.0)
        schedule, rates = make(optimizer), []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return rates

    library = torch.optim.lr_scheduler
    expected = {
        "cosine": theirs(lambda o: library.CosineAnnealingLR(o, steps)),
        "step": theirs(lambda o: library.MultiStepLR(o, [20, 30])),
        "one-cycle": theirs(lambda o: library.LinearLR(o, 1, 0, steps)),
        **dict.fromkeys(("constant", "plateau"), [1.0] * steps),
    }
    for name in SCHEDULES:
        mine = [training.lr_factor(name, i / steps) for i in range(steps)]
        np.testing.assert_allclose(mine, expected[name], atol=1e-9)
    stepped = [training.lr_factor("step", (i + 0.5) / steps, step=7 / steps, gamma=0.3) for i in range(steps)]
    np.testing.assert_allclose(stepped, theirs(lambda o: library.StepLR(o, 7, 0.3)))


def test_warm_up_is_a_share_or_epochs_and_none_but_for_one_cycle():
    for schedule in SCHEDULES:
        rates = [training.lr_factor(schedule, p, warmup=0.4) for p in (0, 0.1, 0.2, 0.3999, 0.4)]
        np.testing.assert_allclose(rates, [0, 0.25, 0.5, 1, 1], atol=1e-3)
        share = training.Config(schedule=schedule).warmup_share
        assert share == (0.2 if schedule == "one-cycle" else 0)
    shares = [training.Config(epochs=8, warmup=warmup).warmup_share for warmup in (0, 0.3, 1, 2, 9)]
    assert shares == [0, 0.3, 1 / 8, 2 / 8, 1]
    rates = [e["lr"] for e in fit(schedule="constant")[1].epochs]
    assert rates == [0.01] * 4
    rates = [e["lr"] for e in fit(schedule="step", step_size=1, gamma=0.5)[1].epochs]
    np.testing.assert_allclose(rates, 0.01 * 0.5 ** np.arange(4))


def on_validation(*ranks):
    ranks = iter(ranks)
    return lambda outputs, targets: next(ranks) if len(targets["labels"]) == 64 else 0.0


def test_plateau_waits_for_its_patience_and_watches_what_it_is_told_to():
    how = {"schedule": "plateau", "plateau_patience": 2, "lr": 1.0, "epochs": 6}
    ranks = (0.5, 0.4, 0.3, 0.2, 0.1, 0.6)
    for factor in (0.5, 0.1):
        _, history = fit(score=on_validation(*ranks), plateau_factor=factor, **how)
        expected = [1, 1, 1, factor, factor, factor**2]
        np.testing.assert_allclose([e["lr"] for e in history.epochs], expected)
    how["lr"] = 1e-6
    _, history = fit(network(dropout=0), score=on_validation(*ranks), plateau_monitor="loss", **how)
    assert [e["lr"] for e in history.epochs] == [1e-6] * 6  # the loss falls all the time


def test_early_stopping_waits_and_counts_anew_when_more_epochs_are_asked_for(tmp_path, said):
    score = on_validation(0.3, 0.5, 0.4, 0.5, 0.2, 0.1, 0.2, 0.3, 0.9)
    how = {"score": score, "patience": 3, "run": tmp_path}
    _, history = fit(epochs=8, **how)
    assert (history.best_epoch, history.ended, len(history.epochs)) == (2, "early stopping", 5)
    _, history = fit(epochs=9, **how)
    assert [e["accuracy"] for e in history.epochs] == [0.3, 0.5, 0.4, 0.5, 0.2, 0.1, 0.2, 0.3]
    assert (history.best_epoch, len(said())) == (2, 1)


def test_the_loss_may_be_what_is_monitored():
    _, history = fit(monitor="loss")
    lines = [e["loss"] for e in history.epochs]
    assert history.best_epoch == 1 + lines.index(min(lines))


LOWS = dict.fromkeys(("epochs", "lr", "lr_decay", "gamma", "plateau_patience", "plateau_factor"), 0)
LOWS |= dict.fromkeys(("weight_decay", "momentum", "warmup", "ema", "grad_clip"), -1e-9)
LOWS |= {"batch_size": 1} | dict.fromkeys(("step_size", "patience", "seed"), -1)
HIGHS = dict.fromkeys(("lr", "weight_decay", "warmup", "grad_clip", "epochs"), math.inf) | {"seed": 2**32}
HIGHS |= dict.fromkeys(("momentum", "plateau_factor", "ema"), 1) | dict.fromkeys(("lr_decay", "gamma"), 1.01)
OTHERS = {str: ("nonsense!", 3, None), bool: (1, "yes", None), Augment: (1, "v1", True)}


@pytest.mark.parametrize("name", [each.name for each in fields(training.Config)])
def test_every_setting_is_checked_in_type_and_range(name):
    values = OTHERS.get(type(getattr(training.Config(), name)), ("x", True, math.nan))
    values += tuple(ends[name] for ends in (LOWS, HIGHS) if name in ends)
    for value in values[1 if name.endswith("monitor") else 0 :]:
        with pytest.raises(ValueError, match=rf"(Config\({name}=|unknown {name} )") as caught:
            training.Config(**{name: value})
        assert "\n" not in str(caught.value)


def test_mistakes_are_named_and_numbers_of_numpy_taken():
    with pytest.raises(ValueError, match="unknown optimizer 'adamq'; did you mean 'adam"):
        training.Config(optimizer="adamq")
    with pytest.raises(ValueError, match="monitor 'acuracy' is not among the metrics: accuracy"):
        fit(monitor="acuracy")
    config = training.Config(epochs=np.int64(3), lr=1, ema=np.float32(0.5))
    assert (type(config.epochs), type(config.lr), type(config.ema)) == (int, float, float)


@pytest.mark.parametrize("labels", [[1, 2], [0, 2], [-1, 0]])
def test_a_label_that_is_no_class_is_refused_before_the_first_step(labels):
    faces = Faces()
    faces.labels = np.resize(labels, len(faces.labels))
    found = f"labels go from {labels[0]} to {labels[1]}, and there are 2 classes: a label must be from 0 to 1"
    with pytest.raises(ValueError, match=found):
        fit(train=faces)


# --- what a network predicts


def test_the_mean_over_mirrored_and_shifted_faces():
    model, faces, moved = network(), Faces(20), Faces(20)
    settings = {"device": "cpu", "precision": "float32"}
    height, width = faces.images.shape[1:]
    moved.images = faces.images[:, :, ::-1]
    one, two = (training.predict(model, f, **settings) for f in (faces, moved))
    flipped = training.predict(model, faces, tta="flip", **settings)
    np.testing.assert_allclose(flipped, (one + two) / 2, atol=1e-6)
    around, found = np.pad(faces.images, ((0, 0), (1, 1), (1, 1)), mode="edge"), []
    for down, right in np.ndindex(3, 3):
        moved.images = around[:, down : down + height, right : right + width]
        found.append(training.predict(model, moved, tta="flip", **settings))
    assert np.ptp(found, axis=0).max() > 0.01
    shifted = training.predict(model, faces, tta="shift", **settings)
    np.testing.assert_allclose(shifted, np.mean(found, axis=0), atol=1e-6)
    assert model.training  # as it was


def test_what_cannot_be_predicted_is_named():
    features = Faces(20)
    features.images = np.ones((20, 5), np.float32)
    assert training.predict(nn.Linear(5, 3), features, device="cpu").shape == (20, 3)
    with pytest.raises(ValueError, match="tta 'flip' needs images, and these are features"):
        training.predict(nn.Linear(5, 3), features, tta="flip", device="cpu")

    class Pair(nn.Sequential):
        def forward(self, images):
            return super().forward(images), images

    message = "a network must return a tensor, or a dict of tensors by head, not a tuple"
    with pytest.raises(TypeError, match=message):
        fit(Pair(*network()))


def test_evaluate_scores_with_an_interval():
    model, faces = fit(epochs=1, lr=0.002)[0], Faces(200, 2)
    result = training.evaluate(model, faces, {"accuracy": accuracy}, device="cpu")
    score = result.scores["accuracy"]
    assert score.value == accuracy(result.outputs, result.targets)
    spread = 1.96 * np.sqrt(score.value * (1 - score.value) / 200)
    assert score.high - score.low == pytest.approx(2 * spread, rel=0.25)
    assert score.low < score.value < score.high


def test_a_digest_is_of_all_that_a_thing_is_made_of():
    weighted = losses.on_labels(weight=torch.tensor([1.0, 2.0]))
    things = [losses.on_labels(), losses.on_labels(label_smoothing=0.1), weighted, losses.on_distribution()]
    things += [losses.on_distribution(losses.js_divergence), Faces(), other_faces(), Faces(95)]
    things += [{"a": 1}, {"a": 2}, [[1], 2], [[1, 2]]]
    things += [losses.weighted_sum({"a": losses.on_labels()}, {"a": weight}) for weight in (1.0, 2.0)]
    things += [losses.UncertaintyWeighted({"a": losses.on_labels()}, speed=speed) for speed in (1.0, 2.0)]
    found = [training.digest(thing) for thing in things]
    assert len(set(found)) == len(found)
    assert training.digest(losses.on_labels(label_smoothing=0.1)) == found[1]
    assert training.digest(Faces()) == found[5]
