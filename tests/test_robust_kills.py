"""Trainings killed at random moments: nothing is torn, and the end is the undisturbed one's, to the bit.

``pytest -m slow`` counts 50 kills for each loss and 200 while saving; every run counts a few.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_robust_training import LOSSES

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes as POSIX has them")


def killed(root: Path, folder: Path, kills: int, *families: str) -> list[dict]:
    words = [sys.executable, root / "tests" / "killing.py", folder, str(kills), str(kills), *families]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    ran = subprocess.run(words, capture_output=True, text=True, env=settings, timeout=3000)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.parametrize(
    ("kills", "saving"), [(2, 10), pytest.param(50, 200, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_killed_trainings_end_as_undisturbed_ones_do(root, tmp_path, kills, saving):
    counts = killed(root, tmp_path / "training", kills, *LOSSES)
    counts += killed(root, tmp_path / "saving", saving, "saving")
    assert len(counts) == len(LOSSES) + 1
    for each in counts:
        assert each["kills"] >= kills
        assert each["torn"] == each["failed"] == each.get("other_end", 0) == 0, each
