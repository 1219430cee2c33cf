"""The loop: equal to the one everybody writes, resumed to the bit, not fooled by a damaged file."""

import copy
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from torch import nn

from helpers import files, runtime, training
from helpers.batches import Augment, Batches
from helpers.training.config import SCHEDULES, make_optimizer


class Faces:
    """Pictures whose brighter half, upper or lower, tells the label."""

    valence_arousal = None
    distribution = None

    def __init__(self, num=96, seed=0):
        random = np.random.default_rng(seed)
        self.labels = random.integers(0, 2, num)
        self.images = random.integers(0, 200, (num, 16, 16), dtype=np.uint8)
        half = np.arange(16) // 8
        self.images += (55 * (half[None, :, None] == self.labels[:, None, None])).astype(np.uint8)


def network(dropout=0.2, seed=0):
    torch.manual_seed(seed)
    # no bias before batch norm: it has no gradient, and Adam would blow its rounding up to full steps
    layers = [
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
    ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(32, 2))


def cross_entropy(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets["labels"])


def accuracy(outputs, targets):
    return float((outputs.argmax(1) == targets["labels"]).mean())


def fit(model=None, loss=cross_entropy, run=None, stop=None, **settings):
    model = model or network()
    config = training.Config(
        **{"epochs": 4, "batch_size": 16, "lr": 0.01, "precision": "float32", **settings}
    )
    history = training.fit(
        model,
        Faces(),
        Faces(64, 1),
        loss,
        {"accuracy": accuracy},
        config,
        run=run,
        stop=stop,
        device="cpu",
        progress=False,
    )
    return model, history


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def scores(history):
    return [{k: v for k, v in e.items() if k not in {"seconds", "images_per_second"}} for e in history.epochs]


def stop_at(call, stop, loss=cross_entropy):
    calls = iter(range(1, 10_000))

    def stopping(outputs, targets):
        if next(calls) == call:
            stop()
        return loss(outputs, targets)

    return stopping


def test_it_learns_and_keeps_the_best_epoch():
    model, history = fit(epochs=8, lr=0.02)
    assert history.best["accuracy"] > 0.9
    outputs = training.predict(model, Faces(64, 1), device="cpu", precision="float32")
    assert accuracy(outputs, {"labels": Faces(64, 1).labels}) == history.best["accuracy"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_it_is_the_loop_that_everybody_writes(optimizer):
    plain = network(dropout=0)
    settings = {
        "optimizer": optimizer,
        "schedule": "constant",
        "warmup": 0.0,
        "augment": Augment(),
        "seed": 5,
    }
    model, history = fit(copy.deepcopy(plain), epochs=3, **settings)
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    extra = {"momentum": 0.9, "nesterov": True} if optimizer == "sgd" else {}
    decay, free = ([p for p in plain.parameters() if (p.ndim > 1) == many] for many in (True, False))
    groups = [{"params": decay, "weight_decay": 0.01}, {"params": free, "weight_decay": 0.0}]
    chosen = kinds[optimizer](groups, lr=0.01, **extra)
    data, best = Batches(Faces(), 16, seed=5, augment=Augment(), shuffle=True), (-1, None)
    for epoch in range(3):
        plain.train()
        for batch in data.epoch(epoch):
            chosen.zero_grad()
            cross_entropy(plain(batch.images), batch.targets).backward()
            chosen.step()
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
    losses = np.array([[e["train_loss"] for e in history.epochs] for history in (exact, half)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    (one, first), (again, second), (other, _) = fit(), fit(), fit(seed=1)
    assert same(one, again)
    assert scores(first) == scores(second)
    assert not same(one, other)


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    model = network()
    torch.manual_seed(3)
    fit(model)
    assert torch.rand(1) == expected


def test_the_running_mean_of_weights_is_what_its_definition_says():
    seen = []
    model = network(dropout=0)

    def watching(outputs, targets):
        seen.append(model[0].weight.detach().clone())
        return cross_entropy(outputs, targets)

    trained, _ = fit(model, watching, epochs=1, ema=0.5, schedule="constant", warmup=0.0)
    after = fit(network(dropout=0), epochs=1, schedule="constant", warmup=0.0)[0][0].weight.detach()
    weights = [*seen[1 : 96 // 16], after]  # after each of the six steps
    mean = seen[0]
    for step, weight in enumerate(weights, start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * weight
    torch.testing.assert_close(trained[0].weight.detach(), mean)


@pytest.mark.parametrize("settings", [{}, {"optimizer": "sgd", "ema": 0.9}, {"schedule": "plateau"}])
@pytest.mark.parametrize("call", [1, 8, 13])
def test_stopped_and_resumed_is_the_same_to_the_bit(tmp_path, settings, call):
    whole, history = fit(**settings)
    stop = training.Stop()
    model, stopped = fit(loss=stop_at(call, stop.request), run=tmp_path, stop=stop, **settings)
    assert stopped.stopped
    assert len(stopped.epochs) < 4
    model, resumed = fit(network(seed=9), run=tmp_path, **settings)
    assert same(model, whole)
    assert scores(resumed) == scores(history)
    assert not resumed.stopped


def test_one_killed_between_its_last_epoch_and_its_end_trains_no_more(tmp_path, monkeypatch):
    whole, history = fit(epochs=3)

    def killed(*_):
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(training.Run, "finish", killed)
        with pytest.raises(SystemExit):
            fit(epochs=3, run=tmp_path)
    model, resumed = fit(network(seed=9), epochs=3, run=tmp_path)
    assert same(model, whole)
    assert scores(resumed) == scores(history)
    assert not (tmp_path / "state.pt").exists()


def test_an_interrupt_stops_at_the_next_batch_and_raises_nothing(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    interrupt = stop_at(9, lambda: os.kill(os.getpid(), signal.SIGINT))
    _, history = fit(loss=interrupt, run=tmp_path)
    assert history.stopped
    state = training.Run(tmp_path).load_state()
    assert (state["epoch"], state["step"]) == (1, 2)  # call 7 was the validation, 9 the second batch
    assert signal.getsignal(signal.SIGINT) is before


def test_killed_and_resumed_is_the_same_to_the_bit(tmp_path, root):
    whole, history = fit()
    script = f"""
        import os, signal, sys
        sys.path[:0] = [{str(root)!r}, {str(root / "tests")!r}]
        import torch
        torch.set_num_threads(1)
        from test_training import fit, stop_at
        fit(loss=stop_at(17, lambda: os.kill(os.getpid(), signal.SIGKILL)), run={str(tmp_path)!r})
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    model, resumed = fit(network(seed=9), run=tmp_path)
    assert same(model, whole)
    assert scores(resumed) == scores(history)


@pytest.mark.parametrize("changed", [{"lr": 0.02}, {"seed": 1}, {"augment": None}])
def test_another_configuration_starts_anew(tmp_path, changed):
    stop = training.Stop()
    fit(loss=stop_at(9, stop.request), run=tmp_path, stop=stop)
    fresh, _ = fit(**changed)
    model, history = fit(run=tmp_path, **changed)
    assert same(model, fresh)
    assert len(history.epochs) == 4


def test_a_run_leaves_one_folder(tmp_path):
    draw = {"confusion": lambda outputs, targets, ax: ax.plot(outputs.argmax(1), targets["labels"])}
    model = network()
    faces, config = (Faces(), Faces(64, 1)), training.Config(epochs=2, batch_size=16)
    metrics = {"accuracy": accuracy}
    training.fit(
        model, *faces, cross_entropy, metrics, config, run=tmp_path / "a", figures=draw, progress=False
    )
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {
        "config.json",
        "history.csv",
        "best.safetensors",
        "predictions.npz",
        "curves.png",
        "confusion.png",
        "tensorboard",
    }
    again = network(seed=3)
    training.load_weights(again, tmp_path / "a" / "best.safetensors")
    assert same(again, model)


def test_early_stopping_waits_as_long_as_it_should():
    ranks = iter([0.3, 0.5, 0.4, 0.5, 0.2, 0.9])
    history = training.fit(
        network(),
        Faces(),
        Faces(64, 1),
        cross_entropy,
        {"accuracy": lambda outputs, targets: next(ranks)},
        training.Config(epochs=6, batch_size=16, patience=3),
        progress=False,
    )
    assert [e["accuracy"] for e in history.epochs] == [0.3, 0.5, 0.4, 0.5, 0.2]
    assert history.best_epoch == 2


def test_the_loss_may_be_what_is_monitored():
    _, history = fit(monitor="loss")
    losses = [e["loss"] for e in history.epochs]
    assert history.best_epoch == 1 + losses.index(min(losses))


def test_a_loss_that_is_not_finite_names_epoch_step_and_samples(tmp_path):
    def broken(outputs, targets):
        return cross_entropy(outputs, targets) * (float("nan") if broken.calls == 8 else 1)

    def counting(outputs, targets):
        broken.calls = getattr(broken, "calls", 0) + 1
        return broken(outputs, targets)

    # six batches and a validation make seven calls an epoch
    with pytest.raises(FloatingPointError, match=r"epoch 2, step 1, lr .*samples \[\d+, ") as caught:
        fit(loss=counting, run=tmp_path)
    order = Batches(Faces(), 16, shuffle=True).order(1)[:8].tolist()
    assert str(order)[:-1] in str(caught.value)
    training.load_weights(network(), tmp_path / "best.safetensors")


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
    mine = {name: [training.lr_factor(name, i / steps) for i in range(steps)] for name in SCHEDULES}
    np.testing.assert_allclose(
        mine["cosine"], theirs(lambda o: library.CosineAnnealingLR(o, steps)), atol=1e-9
    )
    np.testing.assert_allclose(mine["step"], theirs(lambda o: library.MultiStepLR(o, [20, 30])), atol=1e-9)
    np.testing.assert_allclose(
        mine["one-cycle"], theirs(lambda o: library.LinearLR(o, 1, 0, steps)), atol=1e-9
    )
    assert set(mine["constant"]) == set(mine["plateau"]) == {1.0}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_rises_linearly_from_nothing(schedule):
    rates = [training.lr_factor(schedule, p, warmup=0.4) for p in (0, 0.1, 0.2, 0.3999, 0.4)]
    np.testing.assert_allclose(rates, [0, 0.25, 0.5, 1, 1], atol=1e-3)


def test_plateau_halves_after_its_patience():
    ranks = iter([0.5, 0.4, 0.3, 0.2, 0.1, 0.6])
    history = training.fit(
        network(),
        Faces(),
        Faces(64, 1),
        cross_entropy,
        {"accuracy": lambda outputs, targets: next(ranks)},
        training.Config(epochs=6, batch_size=16, lr=1.0, schedule="plateau", plateau_patience=2, warmup=0.0),
        progress=False,
    )
    assert [e["lr"] for e in history.epochs] == [1, 1, 1, 0.5, 0.5, 0.25]


def test_weight_decay_spares_biases_and_batch_norm():
    model = network()
    optimizer = make_optimizer(model, training.Config(weight_decay=0.1))
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {id(model[0].weight), id(model[6].weight)}


def test_frozen_parameters_stay():
    model = network()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    fit(model, weight_decay=0.5)
    assert torch.equal(model[0].weight, before)


def test_the_mean_over_the_mirror_image():
    model, faces = network(), Faces(20)
    mirrored = Faces(20)
    mirrored.images = faces.images[:, :, ::-1]
    settings = {"device": "cpu", "precision": "float32"}
    one, two = (training.predict(model, f, **settings) for f in (faces, mirrored))
    np.testing.assert_allclose(
        training.predict(model, faces, tta="flip", **settings), (one + two) / 2, atol=1e-6
    )
    assert model.training  # as it was


def test_the_mean_over_shifted_faces():
    model, faces, moved = network(), Faces(20), Faces(20)
    settings = {"device": "cpu", "precision": "float32"}
    height, width = faces.images.shape[1:]
    around, answers = np.pad(faces.images, ((0, 0), (1, 1), (1, 1)), mode="edge"), []
    for down, right in np.ndindex(3, 3):
        moved.images = around[:, down : down + height, right : right + width]
        answers.append(training.predict(model, moved, tta="flip", **settings))
    assert np.ptp(answers, axis=0).max() > 0.01
    np.testing.assert_allclose(
        training.predict(model, faces, tta="shift", **settings), np.mean(answers, axis=0), atol=1e-6
    )


def test_features_have_no_mirror_image():
    head = torch.nn.Linear(5, 3)
    features = Faces(20)
    features.images = np.ones((20, 5), np.float32)
    assert training.predict(head, features, device="cpu").shape == (20, 3)
    with pytest.raises(ValueError, match="tta 'flip' needs pictures, and these are features"):
        training.predict(head, features, tta="flip", device="cpu")


def test_evaluate_scores_with_an_interval():
    model, faces = fit(epochs=1, lr=0.002)[0], Faces(200, 2)
    result = training.evaluate(model, faces, {"accuracy": accuracy}, device="cpu")
    score = result.scores["accuracy"]
    assert score.value == accuracy(result.outputs, result.targets)
    spread = 1.96 * np.sqrt(score.value * (1 - score.value) / 200)
    assert score.high - score.low == pytest.approx(2 * spread, rel=0.25)
    assert score.low < score.value < score.high


def test_several_heads_come_out_by_name():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network()

        def forward(self, images):
            return {"expression": self.body(images), "twice": 2 * self.body(images)}

    def loss(outputs, targets):
        return cross_entropy(outputs["expression"], targets) + 0 * outputs["twice"].sum()

    def score(outputs, targets):
        return accuracy(outputs["expression"], targets)

    config = training.Config(epochs=1, batch_size=16)
    model = TwoHeads()
    training.fit(model, Faces(), Faces(64, 1), loss, {"accuracy": score}, config, progress=False)
    outputs = training.predict(model, Faces(10))
    np.testing.assert_allclose(outputs["twice"], 2 * outputs["expression"], rtol=1e-5)


def test_a_damaged_checkpoint_is_named(tmp_path):
    stop = training.Stop()
    fit(loss=stop_at(9, stop.request), run=tmp_path, stop=stop)
    path = tmp_path / "state.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="state.pt is damaged"):
        fit(run=tmp_path)


def test_damaged_or_foreign_weights_are_named_and_change_nothing(tmp_path):
    path = tmp_path / "best.safetensors"
    training.save_weights(network(), path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    (tmp_path / "flipped").write_bytes(content)
    (tmp_path / "short").write_bytes(content[:-40])
    model = network(seed=4)
    before = copy.deepcopy(model)
    for name in ("flipped", "short"):
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            training.load_weights(model, tmp_path / name)
    with pytest.raises(ValueError, match="weights of another network than this Linear"):
        training.load_weights(nn.Linear(3, 2), path)
    assert same(model, before)


def test_what_a_killed_process_left_is_swept(tmp_path):
    def write_half():
        with files.replacing(tmp_path / "a.txt") as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".unfinished-best.safetensorsx1").write_bytes(b"half")
    training.Run(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adamq"}, "unknown optimizer 'adamq'; did you mean 'adam"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"epochs": 0}, r"Config\(epochs=0\): must be at least 1"),
        ({"lr": 0}, r"Config\(lr=0\): must be above 0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"ema": 1}, r"Config\(ema=1\)"),
        ({"seed": -1}, r"Config\(seed=-1\)"),
        ({"monitor": "acuracy"}, "monitor 'acuracy' is not among the metrics: accuracy"),
    ],
)
def test_bad_settings_are_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        fit(**settings)
    assert "\n" not in str(caught.value)


# Shortcuts


@pytest.mark.parametrize(("idle", "threads"), [(0, 1), (30, 1), (55, 2), (160, 6), (200, 8), (400, 8)])
def test_a_training_leaves_busy_cores_alone(monkeypatch, idle, threads):
    ticks = iter([(1000, 5000), (1000 + idle, 5200)])  # of 200 ticks on eight cores
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(runtime, "_ticks", lambda: next(ticks))
    assert runtime.idle_threads(0) == threads


def test_a_number_of_threads_that_was_asked_for_stays(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert runtime.idle_threads(0) == 8
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(runtime, "_ticks", lambda: None)  # not Linux
    assert runtime.idle_threads(0) == 8


def test_a_training_goes_on_with_the_threads_it_began_with(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    for free in (3, 2):
        monkeypatch.setattr(runtime, "idle_threads", lambda free=free: free)
        model, stop = network(), training.Stop()
        model.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
        model.register_forward_pre_hook(lambda *_, stop=stop: stop.request() if len(seen) == 8 else None)
        fit(model, run=tmp_path, stop=stop)
    assert len(seen) > 16
    assert set(seen) == {3}
    assert torch.get_num_threads() == 1  # as it was


def test_memory_is_kept_for_the_next_step_and_given_back_at_the_end():
    script = """
        import numpy as np, resource
        from helpers import runtime

        def pages_cleared():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            np.ones(2**23)  # 64 MB, above what the C library would keep
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        def megabytes():
            return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20

        if not runtime.keep_memory():
            raise SystemExit(3)
        pages_cleared()
        print(pages_cleared())
        with runtime.kept_memory():
            before = megabytes()
            pages_cleared()
            print(pages_cleared())
            print(megabytes() - before)
        print(megabytes() - before)
        pages_cleared()
        print(pages_cleared())
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    if ran.returncode == 3:
        pytest.skip("not the GNU C library")
    assert ran.returncode == 0, ran.stderr
    before, inside, held, left, after = map(int, ran.stdout.split())
    assert before > 100
    assert inside <= 2
    assert held > 60
    assert left < 5
    assert after > 100


def test_work_spread_over_threads_comes_back_in_order_and_stops_at_the_first_error() -> None:
    wanted, begun = torch.get_num_threads(), []

    def work(item: int) -> tuple[int, int]:
        begun.append(item)
        if item == 3:
            raise ValueError("item 3")
        time.sleep(0.02 * (item % 2))  # the later one ends first
        return item, torch.get_num_threads()

    for num in (1, 2):
        assert runtime.spread(work, range(3), num) == [(0, 1), (1, 1), (2, 1)]
        begun.clear()
        with pytest.raises(ValueError, match="item 3"):
            runtime.spread(work, range(200), num)
        assert len(begun) < 100
        assert torch.get_num_threads() == wanted
