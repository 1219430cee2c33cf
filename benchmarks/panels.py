"""From pressing a slider to the new figure, panel by panel: in the browser, and what of it the kernel takes.

    python -m benchmarks.panels --record

Each panel stands in JupyterLab, in a headless Chromium, as in its notebook (``tests/browsing.py``). A slider
is pressed at one place after another; the clock runs in the page, from the event until the new figure is
decoded. Then the same is done without a browser: what the control's new value costs the kernel.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from helpers import datasets, files, losses, models, plotting, predictor, runtime, widgets
from tests import browsing

WARM_UP = 3
"""Moves that are not counted."""


class Move(NamedTuple):
    """A slider of a panel: the notebook, the panel, the control and its label, and where it is moved to."""

    notebook: str
    panel: str
    control: str
    label: str
    values: tuple[float, float, float]
    shares: tuple[float, float, float] = (0.2, 0.5, 0.8)


MOVES = {
    "01 faces": Move("01", "faces_browser", "page", "page", (2, 3, 4)),
    "01 action units": Move("01", "action_unit_mixer", "AU12", "12 lip corners up", (0.3, 0.6, 0.9)),
    "02 figure, face": Move("02", "hog_explorer", "face", "face", (1, 2, 3)),
    "02 figure, cell": Move("02", "hog_explorer", "cell", "cell (pixels)", (6, 12, 8)),
    "06 losses": Move("06", "loss_explorer", "target happiness", "target: happiness", (0.2, 0.4, 0.6)),
    "07 heat": Move("07", "heat_maps", "face", "face", (1, 2, 3)),
}

CLOCK = """(image) => {
  window.pressed = 0; window.waits = [];
  document.addEventListener('pointerdown', (event) => { window.pressed = event.timeStamp; }, true);
  new MutationObserver(async () => {
    const since = window.pressed;
    await image.decode().catch(() => 0);  // another figure has come meanwhile
    window.waits.push(performance.now() - since);
  }).observe(image, {attributes: true, attributeFilter: ['src']});
}"""


def pressed(page: browsing.Page, move: Move, times: int) -> list[float]:
    """Return milliseconds from the press of a slider until the new figure is decoded, in the browser.

    Args:
        page: the notebook.
        move: what is pressed.
        times: how often.
    """
    page.figure(page.panel(move.panel))
    page.page.wait_for_timeout(2000)  # JupyterLab scrolls to the last cell once all have run
    panel = page.panel(move.panel)
    page.page.evaluate(CLOCK, panel.locator("img").first.element_handle())
    for i in range(times + WARM_UP):
        page.move(panel, move.label, move.shares[i % 3])
        page.page.wait_for_function("count => window.waits.length >= count", arg=i + 1, timeout=20_000)
        page.page.wait_for_timeout(400)  # while its handle glides, 0.3 s, a slider takes no other press
    waits = page.page.evaluate("window.waits")
    assert len(waits) == times + WARM_UP, "each press changes the figure once"
    return waits[WARM_UP:]


def in_the_browser(times: int) -> dict[str, list[float]]:
    """Return what :func:`pressed` measures, by panel.

    Args:
        times: how often each slider is pressed.
    """
    waits = {}
    with tempfile.TemporaryDirectory() as name, browsing.chromium(Path(name)) as browser:
        for number in sorted({move.notebook for move in MOVES.values()}):
            browsing.write(Path(name), number)
        with browsing.served(Path(name), *browsing.LAB) as address:
            for title, move in MOVES.items():
                with browsing.in_lab(browser, address, move.notebook) as page:
                    waits[title] = pressed(page, move, times)
    return waits


def moved(panel: widgets.Panel, move: Move, times: int) -> dict[str, float]:
    """Return what a control's new value costs the kernel: milliseconds by the clock and of CPU, bytes of PNG.

    Args:
        panel: the panel.
        move: what is moved.
        times: how often.
    """
    took, spent = [], []
    for i in range(times + WARM_UP):
        before = panel.image.value
        clock, cpu = time.perf_counter(), time.process_time()
        panel.controls[move.control].value = move.values[i % len(move.values)]
        took.append(1000 * (time.perf_counter() - clock))
        spent.append(1000 * (time.process_time() - cpu))
        assert panel.image.value != before, f"{move.control} changes nothing"
        time.sleep(0.1)
    row = {"kernel_median": float(np.median(took[WARM_UP:])), "kernel_cpu": float(np.mean(spent[WARM_UP:]))}
    return row | {"png_bytes": len(panel.image.value)}


def in_the_kernel(times: int) -> dict[str, dict[str, float]]:
    """Return what :func:`moved` measures, by panel.

    Args:
        times: how often each control is moved.
    """
    plotting.style()
    train, validation, test = datasets.load("synthetic", num_faces=600).splits(seed=0)
    torch.manual_seed(0)
    reader = predictor.Predictor(models.create("face-cnn", 7, stem="unshuffle"), train.classes)
    three = ("anger", "fear", "happiness")
    panels = {
        "faces_browser": widgets.faces_browser({"train": train, "validation": validation, "test": test}),
        "action_unit_mixer": widgets.action_unit_mixer(),
        "hog_explorer": widgets.hog_explorer(train, validation),
        "loss_explorer": widgets.loss_explorer(losses.divergences(three), three),
        "heat_maps": widgets.heat_maps(reader, validation),
    }
    time.sleep(2)  # until the score of 02 is there: it is computed in a thread of its own
    return {title: moved(panels[move.panel], move, times) for title, move in MOVES.items()}


def main() -> None:
    """Measure, print a table and, if asked, keep a record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    waits, rows = in_the_browser(given.times), in_the_kernel(given.times)
    for name, row in rows.items():
        median, high = np.quantile(waits[name], [0.5, 0.95])
        rows[name] = {"median": float(median), "p95": float(high), **row}
        line = f"{name:17} {median:5.0f} ms in the browser, 95 % within {high:.0f}; "
        line += f"kernel {row['kernel_median']:.0f} ms, {row['kernel_cpu']:.0f} CPU-ms"
        print(f"{line}, {row['png_bytes'] / 1000:.0f} kB, load {os.getloadavg()[0]:.1f}")
    if given.record:
        record = {"date": datetime.date.today().isoformat(), "command": " ".join(sys.argv[1:]), "seed": 0}
        record |= {"machine": runtime.machine(), "load": os.getloadavg()[0], "panels": rows}
        with files.replacing("data/results/panel_latency.json") as file:
            file.write(json.dumps(record, indent=1).encode())


if __name__ == "__main__":
    main()
