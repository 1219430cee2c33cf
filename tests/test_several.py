"""Several trainings at once end as they would one by one, and a process that fails says so."""

import os
import signal
import subprocess
import sys
import time

import joblib
import psutil
import pytest
import torch
from test_training import fit, network, same

from helpers import training


@pytest.fixture(params=[1, 2], ids=["one by one", "two at a time"])
def cores(request, monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: request.param)
    return request.param


def twins():
    return {"a": network(), "b": network()}


def test_each_network_ends_as_if_trained_alone(cores, capsys):
    before = torch.get_num_threads()

    def trained(seed, net):  # a closure, as in a notebook
        return fit(net, seed=seed, epochs=1)[1].best["loss"], torch.get_num_threads(), os.getpid(), before

    nets = {seed: network(seed=seed) for seed in range(3)}
    found = training.side_by_side(trained, nets)
    assert capsys.readouterr().out.splitlines()[-1] == "3 of 3 trained"
    assert list(found) == [0, 1, 2]
    assert {threads for _, threads, _, _ in found.values()} == {1}
    assert ({who for _, _, who, _ in found.values()} == {os.getpid()}) == (cores == 1)
    for seed, net in nets.items():
        alone = network(seed=seed)
        assert trained(seed, alone)[0] == found[seed][0]
        assert same(alone, net)
    assert torch.get_num_threads() == before


def test_an_error_comes_back_with_its_place_and_ends_the_others(cores):
    def work(key, _):
        if key == "b":
            time.sleep(60)
        return {}["missing"]

    started = time.monotonic()
    with pytest.raises(KeyError, match="missing") as caught:
        training.side_by_side(work, twins(), progress=False)
    assert caught.value.__notes__ == ["while a was trained"]
    assert time.monotonic() - started < 50


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_a_killed_process_is_said_in_one_error_and_no_training_outlives_its_parent(root, monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    with pytest.raises(RuntimeError, match="unexpectedly terminated"):
        training.side_by_side(
            lambda key, _: key == "b" and os.kill(os.getpid(), signal.SIGKILL), twins(), False
        )
    script = f"""
import os, sys, time
sys.path[:0] = [{str(root)!r}, {str(root / "tests")!r}]
import joblib
joblib.cpu_count = lambda: 2
from test_several import training, twins
def work(*_):
    print(os.getpid(), flush=True)
    time.sleep(120)
training.side_by_side(work, twins(), progress=False)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    children = [psutil.Process(int(parent.stdout.readline())) for _ in range(2)]
    parent.kill()
    parent.wait()
    assert psutil.wait_procs(children, timeout=30)[1] == []
