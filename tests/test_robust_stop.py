"""The notebook's Stop button at any moment: the kernel lives, the best weights load, the training goes on.

``pytest -m slow`` counts 100 interrupts of a real kernel; every run counts five.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from jupyter_client import KernelManager

pytestmark = pytest.mark.skipif(os.name != "posix", reason="interrupts as POSIX has them")

TRAIN = """
from helpers import losses, training
import hashlib, pathlib, time
from types import SimpleNamespace
import numpy as np
import torch

torch.set_num_threads(1)
folder = pathlib.Path(FOLDER)
random = np.random.default_rng(0)
labels = random.integers(0, 2, 160)
images = (random.integers(0, 100, (160, 16, 16)) + 100 * labels[:, None, None]).astype(np.uint8)
faces = SimpleNamespace(images=images, labels=labels, distribution=None, valence_arousal=None)

def network(seed):
    torch.manual_seed(seed)
    layers = [torch.nn.Conv2d(1, 8, 3, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU()]
    layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 2)]
    return torch.nn.Sequential(*layers)

begun = []

def loss(outputs, targets):
    if outputs.requires_grad:
        begun.append(time.time())
    return losses.on_labels()(outputs, targets)

def accuracy(outputs, targets):
    return float((outputs.argmax(1) == targets["labels"]).mean())

model = network(0)
config = training.Config(epochs=4, batch_size=16, lr=0.01, precision="float32", seed=ROUND)
history = training.fit(
    model, faces, faces, loss, {"accuracy": accuracy}, config, run=folder, device="cpu", progress=False
)
weights = b"".join(t.numpy().tobytes() for t in model.state_dict().values())
print("END", int(history.stopped), len(history.epochs), hashlib.sha256(weights).hexdigest())
"""

LOOK = """
begun_after = sum(moment > INTERRUPTED for moment in globals().get("begun", []))
best = "none"
if (pathlib_ := __import__("pathlib").Path(FOLDER) / "best.safetensors").exists():
    from helpers import training
    training.load_weights(network(1), pathlib_)
    best = "loads"
print("LOOK", 6 * 7, begun_after, best)
"""


class Kernel:
    """A kernel as JupyterLab starts one; ``takes`` is how many seconds a training lasts in it."""

    def __init__(self, root: Path) -> None:
        self.takes = 4.0  # with the imports; measured after that
        self.manager = KernelManager(kernel_name="python3")
        settings = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(root)}
        self.manager.start_kernel(cwd=str(root), env=settings, preexec_fn=_hear_interrupts)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def start(self, code: str) -> str:
        return self.client.execute(code, store_history=False)

    def finish(self, message: str, timeout: float = 180) -> tuple[str, str]:
        """Return a cell's status, "ok" or the error's name, and what it printed."""
        printed, status = [], "ok"
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            try:
                said = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                assert self.manager.is_alive(), "the kernel died"
                continue
            if said["parent_header"].get("msg_id") != message:
                continue
            content = said["content"]
            if said["msg_type"] == "stream":
                printed.append(content["text"])
            if said["msg_type"] == "error":
                status = content["ename"]
            if said["msg_type"] == "status" and content["execution_state"] == "idle":
                return status, "".join(printed)
        raise AssertionError("the cell does not end")

    def run(self, code: str) -> tuple[str, str]:
        return self.finish(self.start(code))


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def line(printed: str, word: str) -> list[str]:
    [found] = [each.split()[1:] for each in printed.splitlines() if each.startswith(word)]
    return found


def interrupted(kernel: Kernel, folder: Path, number: int, share: float) -> str:
    """Interrupt one training after a share of its time and let it go on; return how it was met."""
    code = TRAIN.replace("FOLDER", repr(str(folder))).replace("ROUND", str(number))
    cell = kernel.start(code)
    time.sleep(share * kernel.takes)
    kernel.manager.interrupt_kernel()
    moment = time.time()
    status, printed = kernel.finish(cell)
    assert status in ("ok", "KeyboardInterrupt"), (status, printed)
    look = LOOK.replace("FOLDER", repr(str(folder))).replace("INTERRUPTED", repr(moment))
    looked, said = kernel.run(look)
    assert looked == "ok", (looked, said)
    alive, begun_after, best = line(said, "LOOK")
    assert alive == "42"
    ended, printed_again = kernel.run(code)
    assert ended == "ok", (ended, printed_again)
    stopped, epochs, digest = line(printed_again, "END")
    assert (stopped, epochs) == ("0", "4")
    started = time.monotonic()
    whole, printed_whole = kernel.run(code.replace(repr(str(folder)), repr(f"{folder}-whole")))
    kernel.takes = time.monotonic() - started
    assert whole == "ok"
    assert line(printed_whole, "END")[2] == digest
    if status != "ok" or line(printed, "END")[0] == "0":
        return "before" if status != "ok" else "after"
    assert int(begun_after) <= 1, begun_after
    return f"training, {best}"


def interrupts(root: Path, folder: Path, num: int, num_to_a_kernel: int) -> dict[str, int]:
    """Interrupt trainings, the first of each kernel from its first import on; count how they were met."""
    random, met, kernel = np.random.default_rng(num), {}, None
    try:
        for number in range(num):
            fresh = number % num_to_a_kernel == 0
            if fresh:
                if kernel:
                    kernel.close()
                kernel = Kernel(root)
            how = interrupted(kernel, folder / str(number), number, random.uniform())
            how = f"{'new' if fresh else 'used'} kernel, {how}"
            met[how] = met.get(how, 0) + 1
    finally:
        if kernel:
            kernel.close()
    return met


@pytest.mark.parametrize(
    ("num", "num_to_a_kernel"), [(5, 5), pytest.param(100, 5, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_an_interrupt_at_any_moment_costs_a_batch_at_most(root, tmp_path, num, num_to_a_kernel):
    met = interrupts(root, tmp_path, num, num_to_a_kernel)
    print(met)
    assert sum(met.values()) == num
    assert sum(times for how, times in met.items() if "after" not in how) > num / 2  # else little was tried


@pytest.mark.parametrize("room", ["training", "datasets"])
def test_an_interrupt_while_a_room_is_imported_waits_until_it_is_whole(root, room):
    script = f"""
import os, signal, sys, threading, time
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
    print("not raised")
except KeyboardInterrupt:
    print("raised", *seen)
from helpers import {room}
print(sys.modules["helpers.{room}"] is {room}, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=_hear_interrupts,
    )
    assert ran.returncode == 0, ran.stderr
    first, second = ran.stdout.splitlines()
    assert first.startswith("raised ")
    assert second == "True True"


def test_a_room_that_is_not_there_is_an_attribute_that_is_not_there():
    import helpers

    with pytest.raises(AttributeError, match="module 'helpers' has no attribute 'trainign'"):
        _ = helpers.trainign
    with pytest.raises(ImportError, match="cannot import name 'trainign'"):
        from helpers import trainign  # noqa: F401
