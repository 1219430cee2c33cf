"""Several trainings at once end as they would one by one, and a process that fails says so."""

import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import threading
import time

import pytest
import torch
from test_training import fit as fit_one
from test_training import network, same

from helpers import runtime, training

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they are trained one by one")


@pytest.fixture(params=[1, 2], ids=["one by one", "two at a time"])
def cores(request, monkeypatch):
    monkeypatch.setattr(runtime, "idle_threads", lambda: request.param)
    return request.param


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setattr(runtime, "idle_threads", lambda: 2)


def trained(seed, net):
    _, history = fit_one(net, seed=seed, epochs=1)
    return history.best["loss"]


def test_each_network_ends_as_if_trained_alone(cores, monkeypatch):
    nets = {seed: network(seed=seed) for seed in range(3)}
    losses = training.side_by_side(trained, nets, progress=False)
    monkeypatch.setattr(runtime, "idle_threads", lambda: 1)
    with runtime.threads(1):
        for seed, net in nets.items():
            alone = network(seed=seed)
            assert trained(seed, alone) == losses[seed]
            assert same(alone, net)
    assert list(losses) == [0, 1, 2]


def test_many_threads_before_the_fork_or_asked_for_after_it_do_no_harm(two):
    with runtime.threads(2):  # now OpenMP has threads, and a fork has none of them
        _ = torch.randn(600, 600) @ torch.randn(600, 600), torch.randn(10**6) + 1

    def work(*_):
        with runtime.threads(2):  # as a training does that goes on with the threads it began with
            return float((torch.randn(10**6) + 1).sum()), torch.get_num_threads()

    found = training.side_by_side(work, twins(), progress=False)
    assert [threads for _, threads in found.values()] == [1, 1]


def test_they_do_run_at_the_same_time(two):
    began = training.side_by_side(lambda *_: (os.getpid(), time.sleep(0.3), time.time())[::2], twins())
    (one, first), (other, second) = began.values()
    assert len({one, other, os.getpid()}) == 3
    assert abs(first - second) < 0.3, "one waited for the other"


def twins():
    return {"a": network(), "b": network()}


def test_an_error_comes_back_with_its_place_and_ends_the_others(cores):
    def work(key, _):
        if key == "b":
            time.sleep(60)
        if cores > 1:  # the process that brings the error is slow to end
            multiprocessing.util.Finalize(None, time.sleep, args=(60,), exitpriority=0)
        return {}["missing"]

    with pytest.raises(KeyError, match="missing") as caught:
        training.side_by_side(work, twins(), progress=False)
    assert multiprocessing.active_children() == []
    assert cores == 1 or "in work" in caught.value.__notes__[0]


def test_a_killed_process_is_named(two):
    with pytest.raises(RuntimeError, match="trained b was ended from outside"):
        training.side_by_side(lambda key, _: key == "b" and os.kill(os.getpid(), signal.SIGKILL), twins())


def test_what_cannot_be_handed_over_is_named(two):
    with pytest.raises(TypeError, match="what came of a cannot be handed over"):
        training.side_by_side(lambda key, _: (lambda: key) if key == "a" else time.sleep(60), twins())


def test_an_interrupt_ends_all(two):
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        training.side_by_side(lambda *_: time.sleep(60), twins(), progress=False)
    assert multiprocessing.active_children() == []


def test_threads_and_random_numbers_are_as_before(cores):
    before = torch.get_num_threads()
    nets = twins()
    state = torch.get_rng_state()
    seen = training.side_by_side(lambda *_: torch.get_num_threads(), nets, progress=False)
    assert (set(seen.values()), torch.get_num_threads()) == ({1}, before)
    assert torch.equal(torch.get_rng_state(), state)
