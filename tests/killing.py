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


def forked(work: Callable[[], None]) -> int:
    """Run work in a fork of this process; return its process id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def waited(child: int) -> int:
    """Return a finished child's exit status, negative for the signal that ended it."""
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
    loss, model = LOSSES[name](), Heads()
    if (folder / "run" / "state.safetensors").exists():
        model = Heads(seed=int(time.monotonic_ns() % 1000))  # resumed weights replace these
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


def verified(folder: Path) -> None:
    """Raise if anything in a killed training's folder is torn; sweep what the kill left."""
    run = training.Run(folder / "run")
    with run.alone():
        assert not list((folder / "run").glob(".unfinished-*"))
        run.load_state()
        if run.best.exists():
            training.load_weights(Heads(), run.best)
        for name in ("config.json", "finished.json"):
            if (folder / "run" / name).exists():
                json.loads((folder / "run" / name).read_bytes())
        if (folder / "run" / "predictions.npz").exists():
            with np.load(folder / "run" / "predictions.npz", allow_pickle=False) as arrays:
                assert {name: arrays[name].shape for name in arrays.files}


def family(name: str, folder: Path, kills: int, random: np.random.Generator) -> dict:
    """Kill trainings with one loss until there are enough kills; return the counts."""
    names = ("kills", "trainings", "resumed", "torn", "left", "other_end", "failed")
    counts = {"family": name, **dict.fromkeys(names, 0)}
    plain = folder / "plain"
    plain.mkdir(parents=True)
    started = time.monotonic()
    assert waited(forked(lambda: train(name, plain))) == 0
    takes = time.monotonic() - started
    expected = (plain / "end.json").read_bytes()
    while counts["kills"] < kills:
        here = folder / "killed"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        counts["trainings"] += 1
        # killed some times, then left to end
        for last in [False] * int(random.integers(1, min(kills, 5) + 1)) + [True]:
            counts["resumed"] += (here / "run" / "state.safetensors").exists()
            child = forked(partial(train, name, here, 0.0 if last else 0.004))
            if not last:
                time.sleep(random.uniform(0.0, takes))
                os.kill(child, signal.SIGKILL)
            status = waited(child)
            counts["kills"] += status == -signal.SIGKILL
            counts["failed"] += status > 0
            counts["left"] += len(list((here / "run").glob(".unfinished-*")))
            try:
                verified(here)
            except Exception as error:
                counts["torn"] += 1
                counts["error"] = repr(error)
            if (here / "end.json").exists():
                break
        counts["other_end"] += (here / "end.json").read_bytes() != expected
    return counts


def saving(folder: Path, kills: int, random: np.random.Generator) -> dict:
    """Kill a process that does nothing but save, over and over."""
    counts = {"family": "saving alone", "kills": 0, "torn": 0, "left": 0, "failed": 0}
    folder.mkdir(parents=True)
    wide = {"weights": torch.arange(2_000_000.0)}

    def save() -> None:
        model, run = Heads(), training.Run(folder / "run")
        while True:
            run.save_state(wide, {"epoch": 1})
            training.save_weights(model, run.best)

    while counts["kills"] < kills:
        child = forked(save)
        time.sleep(random.uniform(0.0, 0.1))
        os.kill(child, signal.SIGKILL)
        counts["kills"] += waited(child) == -signal.SIGKILL
        counts["left"] += len(list((folder / "run").glob(".unfinished-*")))
        try:
            state, about = training.Run(folder / "run").load_state()
            assert not about or torch.equal(state["weights"], wide["weights"])
            verified(folder)
        except Exception as error:
            counts["torn"] += 1
            counts["error"] = repr(error)
    return counts


def main(folder: str, kills: str, seed: str, *families: str) -> None:
    """Print the counts of each family, one line of JSON each."""
    for number, name in enumerate(families or (*LOSSES, "saving")):
        random = np.random.default_rng([int(seed), number])
        below = Path(folder) / str(number)
        counts = (
            saving(below, int(kills), random) if name == "saving" else family(name, below, int(kills), random)
        )
        print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
