"""The notebook's Stop button at any moment: the kernel lives, the best weights load, the training goes on.

``pytest -m slow`` counts 100 interrupts of a real kernel; every run counts five.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import HEAR_CTRL_C
from jupyter_client import KernelManager

pytestmark = pytest.mark.skipif(os.name != "posix", reason="interrupts as POSIX has them")

TRAIN = """
from helpers import training
import hashlib, sys, time, torch
sys.path.append("tests")
from test_training import Faces, accuracy, cross_entropy, network
torch.set_num_threads(1)
begun = []

def loss(outputs, targets):
    if outputs.requires_grad:
        begun.append(time.time())
    return cross_entropy(outputs, targets)

model = network()
config = training.Config(epochs=4, batch_size=2, lr=0.01, precision="float32", seed=ROUND)
how = {"run": FOLDER, "device": "cpu", "progress": False}
history = training.fit(model, Faces(), Faces(64, 1), loss, {"accuracy": accuracy}, config, **how)
weights = b"".join(t.numpy().tobytes() for t in model.state_dict().values())
print("END", int(history.stopped), len(history.epochs), hashlib.sha256(weights).hexdigest())
"""
LOOK = """
if (__import__("pathlib").Path(FOLDER) / "best.safetensors").exists():
    training.load_weights(network(seed=1), FOLDER + "/best.safetensors")
print("LOOK", sum(moment > INTERRUPTED for moment in globals().get("begun", [])))
"""


class Kernel:
    """A kernel as JupyterLab starts one; ``takes`` is how many seconds a training lasts in it."""

    def __init__(self, root) -> None:
        self.takes = 4.0  # with the imports; measured after that
        self.manager = KernelManager(kernel_name="python3")
        settings = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(root)}
        self.manager.start_kernel(cwd=str(root), env=settings, preexec_fn=HEAR_CTRL_C)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def run(self, code: str) -> tuple[str, list[str]]:
        """Return a cell's status, "ok" or the error's name, and the words of the line that it printed."""
        printed: list[str] = []
        hear = lambda m: printed.append(m["content"]["text"]) if m["msg_type"] == "stream" else None  # noqa: E731
        reply = self.client.execute_interactive(code, store_history=False, timeout=180, output_hook=hear)
        content = reply["content"]
        return content.get("ename", content["status"]), "".join(printed).split()

    def interrupted(self, folder: str, number: int, share: float) -> str:
        """Interrupt one training after a share of its time and let it go on; return how it was met."""
        code, moments = TRAIN.replace("FOLDER", repr(folder)).replace("ROUND", str(number)), []
        timer = threading.Timer(
            share * self.takes, lambda: self.manager.interrupt_kernel() or moments.append(time.time())
        )
        timer.start()
        status, ended = self.run(code)
        timer.join()
        assert status in ("ok", "KeyboardInterrupt"), status
        look = LOOK.replace("FOLDER", repr(folder)).replace("INTERRUPTED", repr(moments[0]))
        looked, [_, begun_after] = self.run(look)
        assert looked == "ok"
        resumed, [_, stopped, epochs, digest] = self.run(code)
        assert (resumed, stopped, epochs) == ("ok", "0", "4")
        started = time.monotonic()
        whole = self.run(code.replace(repr(folder), repr(f"{folder}-whole")))
        self.takes = time.monotonic() - started
        assert whole == ("ok", ["END", "0", "4", digest])
        if status != "ok" or ended[1] == "0":
            return "before" if status != "ok" else "after"
        assert int(begun_after) <= 1
        return "training"


@pytest.mark.parametrize("num", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_an_interrupt_at_any_moment_costs_a_batch_at_most(root, tmp_path, num):
    """The first of each kernel may come from its first import on."""
    random, met, kernels = np.random.default_rng(num), [], []
    try:
        for number in range(num):
            kernels += [Kernel(root)] if number % 5 == 0 else []
            met.append(kernels[-1].interrupted(str(tmp_path / str(number)), number, random.uniform()))
    finally:
        for kernel in kernels:
            kernel.client.stop_channels()
            kernel.manager.shutdown_kernel(now=True)
    assert sum(how != "after" for how in met) > num / 2, met  # else little was tried


@pytest.mark.parametrize("room", ["training", "datasets"])
def test_an_interrupt_while_a_room_is_imported_waits_until_it_is_whole(root, room):
    script = f"""
import os, signal, sys, time
seen = []
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "numpy", "pandas") and name not in seen:
            seen.append(name)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
sys.meta_path.insert(0, Interrupting())
import helpers
try:
    from helpers import {room}
except KeyboardInterrupt:
    print("raised")
from helpers import {room}
print(sys.modules["helpers.{room}"] is {room}, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    how = {"cwd": root, "capture_output": True, "text": True, "timeout": 120, "preexec_fn": HEAR_CTRL_C}
    ran = subprocess.run([sys.executable, "-c", script], **how)
    assert ran.stdout.split() == ["raised", "True", "True"], ran.stderr


def test_a_room_that_is_not_there_is_an_attribute_that_is_not_there():
    import helpers

    with pytest.raises(AttributeError, match="module 'helpers' has no attribute 'trainign'"):
        _ = helpers.trainign
    with pytest.raises(ImportError, match="cannot import name 'trainign'"):
        from helpers import trainign  # noqa: F401
