"""From a slider's new value to the new figure, in the kernel: what moving a slider costs, panel by panel.

    python -m benchmarks.panels --record

Each panel is made as in its notebook and one of its sliders is moved back and forth. What comes on top is the
way through the server to the browser and back, which depends on neither.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import time

import numpy as np
import torch

from helpers import datasets, files, models, plotting, predictor, runtime, widgets


def moved(panel: widgets.Panel, name: str, values: list, times: int) -> dict[str, float]:
    """Return milliseconds from a control's new value to the new figure: clock (median, 95 %) and CPU (mean).

    Args:
        panel: the panel.
        name: of the control.
        values: where it is moved to, in turn.
        times: how many moves are counted, after three that are not.
    """
    took, spent = [], []
    for i in range(times + 3):
        before = panel.picture.value
        clock, cpu = time.perf_counter(), time.process_time()
        panel.controls[name].value = values[i % len(values)]
        took.append(1000 * (time.perf_counter() - clock))
        spent.append(1000 * (time.process_time() - cpu))
        assert panel.picture.value != before, f"{name} changes nothing"
    median, high = np.quantile(took[3:], [0.5, 0.95])
    return {"median": float(median), "p95": float(high), "cpu": float(np.mean(spent[3:]))}


def main() -> None:
    """Measure, print a table and, if asked, keep a record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    plotting.style()
    train, validation, _ = datasets.load("synthetic", num_faces=2000).splits(seed=0)
    model = models.create("face-cnn", 7, stem="unshuffle")
    reader = predictor.Predictor(model, train.classes)
    moves = {
        "01 faces": (widgets.faces_browser({"train": train}), "page", [2, 3, 4]),
        "01 action units": (widgets.action_unit_mixer(), "AU12", [0.3, 0.6, 0.9]),
        "02 picture": (widgets.hog_explorer(train, validation), "face", [1, 2, 3]),
        "06 losses": (widgets.loss_explorer(), "target happiness", [0.2, 0.4, 0.6]),
        "07 heat": (widgets.heat_maps(reader, validation), "face", [1, 2, 3]),
    }
    time.sleep(5)  # until the score of 02 is there: it is computed in a thread of its own
    rows = {name: moved(*move, given.times) for name, move in moves.items()}
    for name, row in rows.items():
        print(f"{name:16} {row['median']:6.0f} ms, 95 % within {row['p95']:.0f} ms, {row['cpu']:.0f} CPU-ms")
    if given.record:
        record = {"date": datetime.date.today().isoformat(), "machine": runtime.machine(), "panels": rows}
        with files.replacing("data/results/panel_latency.json") as file:
            file.write(json.dumps(record, indent=1).encode())


if __name__ == "__main__":
    main()
