"""What a new value of a control costs the kernel until the new figure is packed, panel by panel.

    python -m benchmarks.panels --record

From there to the screen took 18 to 31 ms more when it was measured in JupyterLab in a headless Chromium.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks import records
from helpers import datasets, losses, models, plotting, predictor, widgets

WARM_UP = 3
"""Moves that are not counted."""


class Move(NamedTuple):
    """A control of a panel, and where it is moved to by turns."""

    panel: str
    control: str
    values: tuple[float, float, float]


MOVES = {
    "01 faces": Move("faces_browser", "page", (2, 3, 4)),
    "01 action units": Move("action_unit_mixer", "AU12", (0.3, 0.6, 0.9)),
    "02 figure, face": Move("hog_explorer", "face", (1, 2, 3)),
    "02 figure and score, cell": Move("hog_explorer", "cell", (6, 12, 8)),
    "06 losses": Move("loss_explorer", "target happiness", (0.2, 0.4, 0.6)),
    "07 heat": Move("heat_maps", "face", (1, 2, 3)),
}


def panels() -> dict[str, widgets.Panel]:
    """Return the panels by the name of what makes them, on a few drawn faces."""
    train, validation, test = datasets.load("synthetic", num_faces=600).splits(seed=0)
    torch.manual_seed(0)
    reader = predictor.Predictor(models.create("face-cnn", 7, stem="unshuffle"), train.classes)
    three = ("anger", "fear", "happiness")
    return {
        "faces_browser": widgets.faces_browser({"train": train, "validation": validation, "test": test}),
        "action_unit_mixer": widgets.action_unit_mixer(),
        "hog_explorer": widgets.hog_explorer(train, validation),
        "loss_explorer": widgets.loss_explorer(losses.divergences(three), three),
        "heat_maps": widgets.heat_maps(reader, validation),
    }


def moved(panel: widgets.Panel, move: Move, times: int) -> dict[str, float]:
    """Return milliseconds by the clock and of CPU, and bytes of the PNG."""
    took, spent = [], []
    for i in range(times + WARM_UP):
        before = panel.image.value
        clock, cpu = time.perf_counter(), time.process_time()
        panel.controls[move.control].value = move.values[i % len(move.values)]
        took.append(1000 * (time.perf_counter() - clock))
        spent.append(1000 * (time.process_time() - cpu))
        assert panel.image.value != before, f"{move.control} changes nothing"
    row = {"median_ms": float(np.median(took[WARM_UP:])), "cpu_ms": float(np.mean(spent[WARM_UP:]))}
    return row | {"png_bytes": len(panel.image.value)}


def main() -> None:
    """Measure, print a table and, if asked, keep a record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--record", action="store_true")
    parser.set_defaults(seed=0, data=None)
    options = parser.parse_args()
    plotting.style()
    made, rows = panels(), {}
    for name, move in MOVES.items():
        row: dict[str, Any] = moved(made[move.panel], move, options.times)
        rows[name] = row
        size = row["png_bytes"] / 1000
        print(f"{name:27} {row['median_ms']:5.0f} ms, {row['cpu_ms']:.0f} CPU-ms, {size:.0f} kB")
    if options.record:
        records.write("panel_latency", records.circumstances(options) | {"panels": rows})


if __name__ == "__main__":
    main()
