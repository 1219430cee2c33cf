"""Trainings killed at random moments: nothing is torn, and the end is the undisturbed one's, to the bit.

``pytest -m slow`` counts 50 kills for each loss and 200 while saving; every run counts a few. As a program
(``tests/test_robust_kills.py FOLDER KILLS FAMILY ...``) it kills: PyTorch is imported once, each training is
a fork of a process that never computes a gradient itself, since autograd does not survive that.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from test_robust_training import LOSSES, Heads, fit  # noqa: E402
from test_training import scores  # noqa: E402

from helpers import files, training  # noqa: E402

WIDE = {"weights": torch.arange(2_000_000.0)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes as POSIX has them")
@pytest.mark.parametrize(
    ("kills", "saving"), [(2, 10), pytest.param(50, 200, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_killed_trainings_end_as_undisturbed_ones_do(tmp_path, kills, saving):
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    for num, families in ((kills, LOSSES), (saving, ["saving"])):
        words = [sys.executable, __file__, tmp_path, str(num), *families]
        ran = subprocess.run(words, capture_output=True, text=True, env=settings, timeout=3000)
        assert ran.returncode == 0, ran.stderr[-3000:]
        counts = [json.loads(line) for line in ran.stdout.splitlines()]
        assert [each["family"] for each in counts] == list(families)
        for each in counts:
            assert each["kills"] >= num
            assert each["torn"] == each["failed"] == each["other_end"] == 0, each


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
        history = fit(model, loss, run=folder / "run", ema=0.9, stop=Slowed(seconds))
    learned = [values.tolist() for values in loss.parameters()] if isinstance(loss, torch.nn.Module) else []
    weights = training.digest(*model.state_dict().values())
    with files.replacing(folder / "end.json") as stream:
        stream.write(json.dumps([weights, learned, scores(history)]).encode())


def save(folder: Path) -> None:
    """Do nothing but save, over and over."""
    model, run = Heads(), training.Run(folder / "run")
    while True:
        run.save_state((WIDE, {"epoch": 1}))
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
    counts = {"family": name, **dict.fromkeys(("kills", "torn", "other_end", "failed"), 0)}
    plain, here, takes, saving = folder / "plain", folder / "killed", 0.1, name == "saving"
    if not saving:
        plain.mkdir(parents=True)
        started = time.monotonic()
        assert ran(partial(train, name, plain)) == 0
        takes = time.monotonic() - started
    while counts["kills"] < kills:
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        # killed some times, then left to end
        for last in [False] * int(random.integers(1, min(kills, 5) + 1)) + [True] * (not saving):
            work = partial(save, here) if saving else partial(train, name, here, 0.004 * (not last))
            status = ran(work, None if last else random.uniform(0.0, takes))
            counts["kills"] += status == -signal.SIGKILL
            counts["failed"] += status > 0
            try:
                verify(here)
            except Exception as error:
                counts["torn"] += 1
                counts["error"] = repr(error)
            if (here / "end.json").exists():
                break
        ends = [] if saving else [(each / "end.json").read_bytes() for each in (plain, here)]
        counts["other_end"] += len(set(ends)) > 1
    return counts


if __name__ == "__main__":
    import seaborn  # noqa: F401 (now, not once in every fork)
    import torch.utils.tensorboard  # noqa: F401

    from helpers import plotting  # noqa: F401

    for number, name in enumerate(sys.argv[3:]):
        random = np.random.default_rng([int(sys.argv[2]), number])
        print(json.dumps(family(name, Path(sys.argv[1]) / name, int(sys.argv[2]), random)), flush=True)
