"""Two processes, one training: the weights, the history and the folder of a single process."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from helpers.training import distributed

PROGRAM = """
import sys
import torch
from helpers import datasets, losses, metrics, models, training
from helpers.batches import Augment

where = training.distributed.start()
torch.set_num_threads(1)
train, validation, _ = datasets.load("synthetic", sys.argv[2], num_faces=300).splits(seed=0)
torch.manual_seed(training.distributed.share()[0])  # what differs at the start must not matter
model = models.create("face-cnn", 7, widths=(4, 8), dropout=0.0)
settings = {"precision": "float32", "optimizer": "sgd", "lr": 0.05, "augment": Augment(), "ema": 0.9}
config = training.Config(epochs=2, batch_size=32, **settings)
if len(sys.argv) > 3:
    training.load_weights(model, sys.argv[3])
else:
    training.save_weights(model, sys.argv[1] + "/start.safetensors")
history = training.fit(
    model, train, validation, losses.on_labels(), {"accuracy": metrics.on_labels(metrics.accuracy)}, config,
    run=sys.argv[1] + "/run", progress=False,
)
if training.distributed.share()[0] == 0:
    training.save_weights(model, sys.argv[1] + "/end.safetensors")
"""


@pytest.fixture(scope="module")
def ends(tmp_path_factory, root):
    """Train once alone and once in two processes, from the same start."""
    data, *folders = (tmp_path_factory.mktemp(name) for name in ("data", "alone", "two"))
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29517"]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    for folder, launcher, start in zip(
        folders, ([], launch), ([], [str(folders[0] / "start.safetensors")]), strict=True
    ):
        program = folder / "program.py"
        program.write_text(PROGRAM, encoding="utf-8")
        words = [sys.executable, *launcher, str(program), str(folder), str(data), *start]
        done = subprocess.run(
            words, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return folders


def test_weights_history_and_folder_are_those_of_one_process(ends):
    files = [*(folder / "end.safetensors" for folder in ends), ends[0] / "start.safetensors"]
    alone, two, started = map(load_file, files)
    assert max(np.abs(alone[n] - started[n]).max() for n in alone if alone[n].dtype.kind == "f") > 1e-2
    for name, values in alone.items():
        np.testing.assert_allclose(two[name], values, rtol=0, atol=2e-4, err_msg=name)
    alone, two = (pd.read_csv(folder / "run" / "history.csv") for folder in ends)
    np.testing.assert_allclose(alone[["train_loss", "loss"]], two[["train_loss", "loss"]], atol=1e-3)
    names = [{path.name for path in (folder / "run").iterdir()} for folder in ends]
    assert names[0] == names[1]


def test_shared_statistics_are_those_of_batch_norm():
    images, mine, theirs = torch.randn(5, 3, 1, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        with distributed.shared_statistics(mine):
            torch.testing.assert_close(mine(images), theirs(images))
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(mine.state_dict(), theirs.state_dict())  # five values: 4 are not 5
