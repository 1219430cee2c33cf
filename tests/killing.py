"""Kill trainings at random moments, many in little time: PyTorch is imported once, each training is a fork.

``python tests/killing.py FOLDER KILLS SEED [FAMILY ...]`` prints one line of JSON for each loss family. A
training is killed by SIGKILL, goes on in the next process, is killed again, until it is through; its end is
compared with that of an undisturbed one. The process that forks never computes a gradient itself: autograd
does not survive a fork that follows one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.utils.tensorboard  # noqa: E402, F401 (now, not once in every fork)
from test_robust_training import LOSSES, Heads, fit  # noqa: E402

from helpers import files, training  # noqa: E402

WIDE = {"weights": torch.arange(2_000_000.0)}


def ran(work: Callable[[], None], seconds: float | None = None) -> int:
    """Run work in a fork, killed after some seconds; return its exit status, negative for a signal."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Slowed(training.Stop):
    """Never asks for the end, and takes a while each time it is asked."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    @property
    def requested(self) -> bool:
        time.sleep(self.seconds)
        return False


def train(name: str, folder: Path, seconds: float = 0.0) -> None:
    """Train to the end, each step taking a while, and write what came out."""
    torch.set_num_threads(1)
    loss = LOSSES[name]()
    resumed = (folder / "run" / "state.safetensors").exists()  # its weights replace these
    model = Heads(seed=int(time.monotonic_ns() % 1000) if resumed else 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it must go on, not start anew
        history = fit(model, loss, run=folder / "run", ema=0.9, batch_size=24, stop=Slowed(seconds))
    learned = loss.parameters() if isinstance(loss, torch.nn.Module) else ()
    tensors = [*model.state_dict().values(), *learned]
    digest = hashlib.sha256(b"".join(t.detach().contiguous().numpy().tobytes() for t in tensors)).hexdigest()
    left_out = {"seconds", "images_per_second"}
    lines = [{key: repr(value) for key, value in e.items() if key not in left_out} for e in history.epochs]
    with files.replacing(folder / "end.json") as stream:
        stream.write(json.dumps([digest, lines]).encode())


def save(folder: Path) -> None:
    """Do nothing but save, over and over."""
    model, run = Heads(), training.Run(folder / "run")
    while True:
        run.save_state(WIDE, {"epoch": 1})
        training.save_weights(model, run.best)


def verify(folder: Path) -> None:
    """Raise if anything in a killed training's folder is torn; sweep what the kill left."""
    run = training.Run(folder / "run")
    with run.alone():
        assert not list(run.folder.glob(".unfinished-*"))
        tensors, about = run.load_state()
        assert about.get("epoch") != 1 or torch.equal(tensors["weights"], WIDE["weights"])
        if run.best.exists():
            training.load_weights(Heads(), run.best)
        for path in run.folder.glob("*.json"):
            json.loads(path.read_bytes())
        for path in run.folder.glob("*.npz"):
            with np.load(path, allow_pickle=False) as arrays:
                assert [arrays[name] for name in arrays.files]


def family(name: str, folder: Path, kills: int, random: np.random.Generator) -> dict:
    """Kill trainings with one loss, or processes that save, often enough; return the counts."""
    counts = {"family": name, **dict.fromkeys(("kills", "resumed", "torn", "left", "other_end", "failed"), 0)}
    plain, here, takes, expected = folder / "plain", folder / "killed", 0.1, b""
    if name != "saving":
        plain.mkdir(parents=True)
        started = time.monotonic()
        assert ran(partial(train, name, plain)) == 0
        takes, expected = time.monotonic() - started, (plain / "end.json").read_bytes()
    while counts["kills"] < kills:
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        # killed some times, then left to end
        for last in [False] * int(random.integers(1, min(kills, 5) + 1)) + [True] * (name != "saving"):
            counts["resumed"] += (here / "run" / "state.safetensors").exists()
            work = partial(save, here) if name == "saving" else partial(train, name, here, 0.004 * (not last))
            status = ran(work, None if last else random.uniform(0.0, takes))
            counts["kills"] += status == -signal.SIGKILL
            counts["failed"] += status > 0
            counts["left"] += len(list((here / "run").glob(".unfinished-*")))
            try:
                verify(here)
            except Exception as error:
                counts["torn"] += 1
                counts["error"] = repr(error)
            if (here / "end.json").exists():
                break
        counts["other_end"] += name != "saving" and (here / "end.json").read_bytes() != expected
    return counts


if __name__ == "__main__":
    for number, name in enumerate(sys.argv[4:] or (*LOSSES, "saving")):
        random = np.random.default_rng([int(sys.argv[3]), number])
        counts = family(name, Path(sys.argv[1]) / str(number), int(sys.argv[2]), random)
        print(json.dumps(counts), flush=True)
