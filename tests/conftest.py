"""What tests share: the drawn faces, the real ones where there are any, and settings that keep runs alike.

A test that needs real faces takes the fixture ``workbook_data`` (a folder) and carries ``@pytest.mark.real``.
A test that counts for long carries ``@pytest.mark.slow``; ``-m slow`` asks for those.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # processes share the cores; so do those that they start
    threads = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(max(1, threads))

import hypothesis
import matplotlib
import pytest

ROOT = Path(__file__).resolve().parents[1]

matplotlib.use("Agg")  # no test opens a window
hypothesis.settings.register_profile(
    "workbook", deadline=None, derandomize=True, max_examples=50, database=None, print_blob=True
)
hypothesis.settings.load_profile("workbook")


def _hear_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


HEAR_CTRL_C = _hear_ctrl_c if os.name == "posix" else None
"""``preexec_fn`` of a process that a test sends SIGINT: what runs in the background is started deaf to it."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in (config.option.markexpr or ""):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="a longer count; ask for it with -m slow"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Hold torch to one thread here: small tensors are no faster with more, and sums stay in one order.

    Set in this process only, not by OMP_NUM_THREADS, so that the kernels of the notebooks keep every core.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the project."""
    return ROOT


@pytest.fixture(scope="session")
def workbook_data() -> Path:
    """The folder with the real faces, as WORKBOOK_DATA names it; the test is skipped where it is not set."""
    named = os.environ.get("WORKBOOK_DATA")
    if not named:
        pytest.skip("needs real faces: set WORKBOOK_DATA to the folder that holds them")
    folder = Path(named)
    if not folder.is_dir():  # set but wrong is a mistake, not a reason to pass over the test
        pytest.fail(f"WORKBOOK_DATA names {folder}, which is not a folder")
    return folder


@pytest.fixture(scope="session")
def drawn_faces(tmp_path_factory: pytest.TempPathFactory):
    """A face set of 210 drawn faces of 48 x 48 pixels; shared, so a test must not write into it."""
    from helpers import datasets

    return datasets.load("synthetic", root=tmp_path_factory.mktemp("drawn"), num_faces=210, seed=0)
