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
from helpers.training.config import SCHEDULES


class Faces:
    """Images whose brighter half, upper or lower, tells the label; some valence and arousal is unknown."""

    classes = ("up", "down")

    def __init__(self, num=96, seed=0):
        random = np.random.default_rng(seed)
        self.labels = random.integers(0, 2, num)
        self.images = random.integers(0, 200, (num, 16, 16), dtype=np.uint8)
        half = np.arange(16) // 8
        self.images += (55 * (half[None, :, None] == self.labels[:, None, None])).astype(np.uint8)
        self.distribution = np.eye(2, dtype=np.float32)[self.labels] * 0.8 + 0.1
        self.valence_arousal = random.uniform(-1, 1, (num, 2)).astype(np.float32)
        self.valence_arousal[::9] = np.nan


class StopAt(training.Stop):
    """Asks for the end when the loop looks for the n-th time."""

    def __init__(self, look):
        self.left = look

    @property
    def requested(self):
        self.left -= 1
        return self.left <= 0


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


def fit(model=None, loss=cross_entropy, train=None, validation=None, score=accuracy, **settings):
    model = network() if model is None else model
    how = {name: settings.pop(name) for name in HOW if name in settings}
    config = {"epochs": 4, "batch_size": 16, "lr": 0.01, "precision": "float32", **settings}
    faces, how = (train or Faces(), validation or Faces(64, 1)), {"device": "cpu", "progress": False, **how}
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


@pytest.mark.parametrize(("optimizer", "clip"), [("sgd", 0), ("sgd", 0.05), ("adam", 0.05), ("adamw", 0)])
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
    [whole] = Batches(Faces(64, 1), 64).epoch()
    for epoch in history.epochs:
        plain.train()
        hits, lost = [], []
        for batch in data.epoch(epoch["epoch"] - 1):
            chosen.zero_grad()
            outputs = plain(batch.images)
            loss = cross_entropy(outputs, batch.targets)
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(plain.parameters(), clip)
            chosen.step()
            lost.append(loss.item())
            hits += (outputs.argmax(1) == batch.targets["labels"]).tolist()
        assert epoch["train_accuracy"] == pytest.approx(np.mean(hits))
        assert epoch["train_loss"] == pytest.approx(np.mean(lost), rel=1e-4)
        plain.eval()
        with torch.no_grad():
            outputs = plain(whole.images)
        assert epoch["loss"] == pytest.approx(float(cross_entropy(outputs, whole.targets)), rel=1e-3)
        score = accuracy(outputs.numpy(), {"labels": Faces(64, 1).labels})
        if score > best[0]:
            best = score, copy.deepcopy(plain)
    assert history.best["accuracy"] == best[0]
    for mine, theirs in zip(model.parameters(), best[1].parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_it_learns_in_half_precision_as_well():
    exact, half = (
        fit(network(dropout=0), epochs=8, lr=0.02, precision=p)[1] for p in ("float32", "bfloat16")
    )
    lines = np.array([[e["train_loss"] for e in history.epochs] for history in (exact, half)])
    np.testing.assert_allclose(lines[1], lines[0], rtol=0.05)
    assert (lines[0] != lines[1]).any()
    assert exact.best["accuracy"] > 0.9


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
    assert trained[1].num_batches_tracked == 6  # a count is no mean


def test_compiled_or_not_it_trains(monkeypatch, said):
    def compiled(model, mode):
        def refuse(images):
            raise RuntimeError("no compiler\nat all")

        return refuse

    whole, _ = fit(network(dropout=0))
    monkeypatch.setattr(torch, "compile", compiled)
    assert same(fit(network(dropout=0), compile=True)[0], whole)
    assert said() == ["not compiled: torch.compile says no compiler"]


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
    before, model, calls = signal.getsignal(signal.SIGINT), network(), iter(range(1, 100))
    model.register_forward_pre_hook(
        lambda *_: os.kill(os.getpid(), signal.SIGINT) if next(calls) == 9 else None
    )
    assert fit(model, run=tmp_path)[1].stopped
    at = training.Run(tmp_path).load_state()[1]["at"]
    assert (at["epoch"], at["step"]) == (1, 2)  # call 7 was the validation
    assert signal.getsignal(signal.SIGINT) is before


class Other(nn.Sequential):
    """The same layers and shapes, put to another use."""

    def forward(self, images):
        return super().forward(images) * 2


def other_faces(num=96, seed=0):
    faces = Faces(num, seed)
    faces.labels = 1 - faces.labels
    return faces


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"lr": 0.02}, "lr 0.01, now 0.02"),
        ({"loss": losses.on_labels(label_smoothing=0.1, weight=torch.ones(2))}, "loss"),
        ({"train": other_faces()}, "train"),
        ({"validation": other_faces(64, 1)}, "validation"),
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
    longer, more = fit(network(seed=5), run=tmp_path, epochs=5)
    assert [line.split(" goes on ")[1] for line in said()] == ["with other settings: epochs 2, now 5"]
    assert (more.epochs[:2], len(more.epochs)) == (history.epochs, 5)
    fit(network(seed=5), run=tmp_path, epochs=5)  # another start, all else the same: another training
    assert "(start): starts anew" in said()[-1]


def test_a_training_starts_from_another_runs_weights_and_optimiser(tmp_path, said):
    first, _ = fit(run=tmp_path / "a", epochs=2, schedule="constant")
    settings = {"epochs": 1, "lr": 1e-9, "weight_decay": 0.0, "schedule": "constant"}
    for start_state, steps in ((True, 18), (False, 6)):
        run = training.Run(tmp_path / f"b{steps}")
        model, _ = fit(network(seed=7), run=run, start=tmp_path / "a", start_state=start_state, **settings)
        assert float(run.load_state()[0]["optimizer/0/step"]) == steps
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
    lines = []

    def second(_):
        with pytest.raises(
            RuntimeError, match=r"another training is under way in .*; give another folder$"
        ) as caught:
            fit(run=tmp_path)
        lines.append(str(caught.value))

    fit(run=tmp_path, epochs=1, on_epoch=second)
    assert len(lines) == 1
    assert "\n" not in lines[0]
    with training.Run(tmp_path).alone():  # and the lock is gone
        pass


def test_a_training_goes_on_with_the_threads_it_began_with(tmp_path, monkeypatch):
    seen, before = [], torch.get_num_threads()
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    for threads, look in ((3, 8), (2, 99)):
        model = network()
        model.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
        torch.set_num_threads(threads)
        fit(model, run=tmp_path, stop=StopAt(look))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert len(seen) > 16
    assert set(seen) == {3}


def test_a_run_leaves_one_folder_that_can_be_opened(tmp_path, said, monkeypatch):
    order, real = [], os.replace
    monkeypatch.setattr(os, "replace", lambda s, t, **k: order.append(os.path.basename(t)) or real(s, t, **k))
    draw = {"confusion": lambda outputs, targets, ax: ax.plot(outputs.argmax(1), targets["labels"])}
    torch.manual_seed(0)
    model = models.create("face-cnn", 2, widths=(4, 8), head_width=8)
    model, history = fit(model, run=tmp_path / "a", figures=draw, epochs=2)
    assert order.index("best.safetensors") < order.index("state.safetensors")  # it speaks of the weights
    assert order[-1] == "finished.json"
    names = {path.name for path in (tmp_path / "a").iterdir()} - {".lock"}
    assert names == {
        *("config.json", "history.csv", "best.safetensors", "predictions.npz", "curves.png", "confusion.png"),
        *("state.safetensors", "finished.json", "tensorboard"),
    }
    columns = [
        "epoch",
        "lr",
        "train_loss",
        "loss",
        "accuracy",
        "train_accuracy",
        "seconds",
        "images_per_second",
    ]
    assert list(pd.read_csv(tmp_path / "a" / "history.csv").columns) == columns
    (tmp_path / "alone.safetensors").write_bytes((tmp_path / "a" / "best.safetensors").read_bytes())
    for path in (tmp_path / "a", str(tmp_path / "alone.safetensors")):
        run = training.Run.open(path)
        assert same(run.model, model)
        faces = {name: run.record["faces"][name] for name in ("classes", "image_size", "channels")}
        assert faces == {"classes": ["up", "down"], "image_size": 16, "channels": 1}
    run = training.Run.open(tmp_path / "a")
    pd.testing.assert_frame_equal(run.history, history.frame())
    run.forget()
    assert run.finished is None
    with pytest.raises(FileNotFoundError, match="no trained network in"):
        training.Run.open(tmp_path / "a")
    assert said() == []


STRANGE = [
    {"classes": ["up", "\x1b[2Jdown"]},
    {"classes": "up"},
    {"image_size": 60_000},
    {"image_size": "16"},
]
STRANGE += [{"channels": 2}, {"channels": None}]


@pytest.mark.parametrize("change", STRANGE, ids=str)
def test_a_record_of_a_strange_run_is_refused_in_one_line(tmp_path, change):
    training.save_weights(network(), tmp_path / "best.safetensors")
    record = {"model": {}, "faces": {"classes": ["up"], "image_size": 16, "channels": 1}}
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="use run.load"):
        _ = training.Run.open(tmp_path).model
    record["faces"] |= change
    for text in (json.dumps(record), "[]", "{", "[" * 10**5, '"\\ud800"', "null"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=r"config.json does not say what was learned; train it again$"):
            training.Run.open(tmp_path)


def test_damaged_state_and_weights_are_named_and_change_nothing(tmp_path):
    fit(run=tmp_path, stop=StopAt(9))
    model, before = network(seed=4), network(seed=4)
    for name in ("state.safetensors", "best.safetensors"):
        content = (tmp_path / name).read_bytes()
        for place in (len(content) // 2, -5, 40):
            damaged = bytearray(content)
            damaged[place] ^= 1
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(ValueError, match=f"{name} is damaged"):
                fit(run=tmp_path)
        (tmp_path / name).write_bytes(content)
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


def test_schedules_agree_with_pytorch():
    steps, library = 40, torch.optim.lr_scheduler

    def theirs(make):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule, rates = make(optimizer), []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return rates

    expected = {
        "cosine": theirs(lambda o: library.CosineAnnealingLR(o, steps)),
        "step": theirs(lambda o: library.MultiStepLR(o, [20, 30])),
        "one-cycle": theirs(lambda o: library.LinearLR(o, 1, 0, steps)),
        **dict.fromkeys(("constant", "plateau"), [1.0] * steps),
    }
    for name in SCHEDULES:
        mine = [training.lr_factor(name, i / steps) for i in range(steps)]
        np.testing.assert_allclose(mine, expected[name], atol=1e-9)
        rates = [training.lr_factor(name, p, warmup=0.4) for p in (0, 0.1, 0.2, 0.3999, 0.4)]
        np.testing.assert_allclose(rates, [0, 0.25, 0.5, 1, 1], atol=1e-3)
        assert training.Config(schedule=name).warmup_share == (0.2 if name == "one-cycle" else 0)
    stepped = [training.lr_factor("step", (i + 0.5) / steps, step=7 / steps, gamma=0.3) for i in range(steps)]
    np.testing.assert_allclose(stepped, theirs(lambda o: library.StepLR(o, 7, 0.3)))
    shares = [training.Config(epochs=8, warmup=warmup).warmup_share for warmup in (0, 0.3, 1, 2, 9)]
    assert shares == [0, 0.3, 1 / 8, 2 / 8, 1]


def rates_of(**settings):
    return [each["lr"] for each in fit(**settings)[1].epochs]


def on_validation(*ranks):
    ranks = iter(ranks)
    return lambda outputs, targets: next(ranks) if len(targets["labels"]) == 64 else 0.0


def test_the_loop_follows_its_schedule_and_plateau_waits_and_watches_what_it_is_told_to():
    np.testing.assert_allclose(rates_of(schedule="constant"), [0.01] * 4)
    np.testing.assert_allclose(rates_of(schedule="step", step_size=1, gamma=0.5), 0.01 * 0.5 ** np.arange(4))
    how, ranks = {"schedule": "plateau", "plateau_patience": 2, "epochs": 6}, (0.5, 0.4, 0.3, 0.2, 0.1, 0.6)
    for factor in (0.5, 0.1):
        found = rates_of(score=on_validation(*ranks), plateau_factor=factor, lr=1.0, **how)
        np.testing.assert_allclose(found, [1, 1, 1, factor, factor, factor**2])
    how |= {"model": network(dropout=0), "plateau_monitor": "loss"}
    assert rates_of(score=on_validation(*ranks), lr=1e-6, **how) == [1e-6] * 6  # the loss falls all the time


def test_early_stopping_waits_and_counts_anew_when_more_epochs_are_asked_for(tmp_path, said):
    score = on_validation(0.3, 0.5, 0.4, 0.5, 0.2, 0.1, 0.2, 0.3, 0.9)
    how = {"score": score, "patience": 3, "run": tmp_path}
    _, history = fit(epochs=8, **how)
    assert (history.best_epoch, history.ended, len(history.epochs)) == (2, "early stopping", 5)
    _, history = fit(epochs=9, **how)
    assert [e["accuracy"] for e in history.epochs] == [0.3, 0.5, 0.4, 0.5, 0.2, 0.1, 0.2, 0.3]
    assert (history.best_epoch, len(said())) == (2, 1)


@pytest.mark.parametrize("how", [{"monitor": "loss"}, {"minimise": True}])
def test_less_may_be_better_and_a_score_that_is_no_number_is_never_the_best(how):
    _, history = fit(score=on_validation(np.nan, 0.3, 0.1, np.nan), **how)
    lines = [e[history.monitor] for e in history.epochs]
    assert history.best_epoch == 1 + np.nanargmin(lines)
    history = training.History(
        "x", epochs=[{"epoch": 1, "x": np.nan}, {"epoch": 2, "x": 0}, {"epoch": 3, "x": 0}]
    )
    assert history.best_epoch == 2


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


def labelled(*labels):
    faces = Faces()
    faces.labels = np.resize(labels, len(faces.labels))
    return faces


NO_CLASS = r"labels go from {} to {}, and there are 2 classes: a label must be from 0 to 1"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adamq"}, "unknown optimizer 'adamq'; did you mean 'adam"),
        ({"monitor": "acuracy"}, "monitor 'acuracy' is not among the metrics: accuracy"),
        ({"train": labelled(1, 2)}, NO_CLASS.format(1, 2)),
        ({"train": labelled(-1, 0)}, NO_CLASS.format(-1, 0)),
        ({"validation": labelled(0, 2)}, NO_CLASS.format(0, 2)),
    ],
)
def test_mistakes_are_named_before_the_first_step(settings, message):
    with pytest.raises(ValueError, match=message):
        fit(**settings)


def test_numbers_of_numpy_are_taken():
    config = training.Config(epochs=np.int64(3), lr=1, ema=np.float32(0.5))
    assert (type(config.epochs), type(config.lr), type(config.ema)) == (int, float, float)


def test_the_mean_over_mirrored_and_shifted_faces():
    model, faces, moved = network(), Faces(20), Faces(20)
    model[1].eval()
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
    assert [part.training for part in model[:3]] == [True, False, True]  # as they were


def test_what_cannot_be_predicted_is_named():
    features = Faces(20)
    features.images = np.ones((20, 5), np.float32)
    assert training.predict(nn.Linear(5, 3), features, device="cpu").shape == (20, 3)
    with pytest.raises(ValueError, match="tta 'flip' needs images, and these are features"):
        training.predict(nn.Linear(5, 3), features, tta="flip", device="cpu")
    with pytest.raises(ValueError, match="unknown tta 'flop'; did you mean 'flip'"):
        training.predict(network(), Faces(20), tta="flop", device="cpu")

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
    assert score.value == accuracy(training.predict(model, faces, device="cpu"), {"labels": faces.labels})
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
