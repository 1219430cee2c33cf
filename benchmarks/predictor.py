"""How many frames a second the predictor reads, and where the time goes: one moving face at 640 x 480.

    python -m benchmarks.predictor --threads 2 --record

Frames come ready in memory, as from a camera; ``--video`` adds what OpenCV takes to decode an MJPEG file.
The whole frame is searched once in ten frames, in between only around the face (``predictor.Tracker``), so
the slowest frames are told besides the median. ``annotated`` draws the box and the words into the frame.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from helpers import emotions, faces, files, images, models, predictor, runtime
from helpers.predictor import Predictor, Reading, Tracker

SIZE = (480, 640)


def frames(num: int) -> Iterator[np.ndarray]:
    """Yield frames of a drawn face that wanders and changes, uint8 ``[3, H, W]``.

    Args:
        num: how many.
    """
    rng = np.random.default_rng(0)
    back = rng.integers(60, 190, (12, 16), dtype=np.uint8)
    back = np.asarray(Image.fromarray(back).resize(SIZE[::-1], Image.Resampling.BICUBIC)).astype(np.int16)
    smiles = torch.linspace(0, 1, 16)
    row = torch.zeros(16, len(faces.ACTION_UNITS))
    row[:, faces.ACTION_UNITS.index("AU12")] = smiles
    shown = faces.render(row, size=180).numpy()
    for i in range(num):
        frame = (back + rng.normal(0, 3, SIZE)).clip(0, 255).astype(np.uint8)
        top, left = int(140 + 90 * np.sin(i / 25)), int(220 + 170 * np.sin(i / 40))
        frame[top : top + 180, left : left + 180] = shown[abs(i % 31 - 15)]
        yield np.repeat(frame[None], 3, axis=0)


class Stopwatch:
    """Sums up what functions take, by name, in milliseconds of the clock."""

    def __init__(self) -> None:
        self.took: dict[str, list[float]] = defaultdict(list)

    def around(self, name: str, work: Callable) -> Callable:
        """Return the function with a watch around it.

        Args:
            name: what its time is noted under.
            work: the function.
        """

        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*arguments, **options)
            finally:
                self.took[name].append(1000 * (time.perf_counter() - began))

        return timed


def watched(reader: Predictor, watch: Stopwatch) -> None:
    """Put a watch around each step of reading a frame.

    Args:
        reader: what reads; changed in place.
        watch: notes the times.
    """
    images.grey = watch.around("grey", images.grey)
    Tracker.update = watch.around("find and follow", Tracker.update)
    reader._square = watch.around("cut out", reader._square)
    reader.outputs = watch.around("network", reader.outputs)
    Reading.annotated = watch.around("annotated", Reading.annotated)


def measure(reader: Predictor, source: list[tuple[np.ndarray, float]]) -> dict:
    """Return frames a second, the time of a frame and its parts.

    Args:
        reader: what reads.
        source: frames with their times.
    """
    watch, stream = Stopwatch(), reader.stream()
    watched(reader, watch)
    for frame in source[:20]:
        stream.next(*frame).annotated()
    watch.took.clear()
    each, found = [], 0
    began, cpu = time.perf_counter(), time.process_time()
    for frame in source[20:]:
        start = time.perf_counter()
        reading = stream.next(*frame)
        reading.annotated()
        each.append(1000 * (time.perf_counter() - start))
        found += len(reading.faces) == 1
    seconds, cpu, num = time.perf_counter() - began, time.process_time() - cpu, len(each)
    return {
        "frames": num,
        "with_its_face": found / num,
        "frames_a_second": num / seconds,
        "cpu_milliseconds_a_frame": 1000 * cpu / num,
        "milliseconds_a_frame": _spread(each),
        "parts": {name: {"mean": sum(took) / num, **_spread(took)} for name, took in watch.took.items()},
    }


def _spread(took: list[float]) -> dict[str, float]:
    low, median, high = np.quantile(took, [0.05, 0.5, 0.95])
    return {"median": float(median), "p5": float(low), "p95": float(high)}


def decoding(source: list[tuple[np.ndarray, float]]) -> dict[str, float]:
    """Return what OpenCV takes to decode a frame of an MJPEG file, in milliseconds.

    Args:
        source: the frames to write first.
    """
    import cv2

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "face.avi")
        writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 30, SIZE[::-1])
        for frame, _ in source:
            writer.write(np.ascontiguousarray(frame.transpose(1, 2, 0)))
        writer.release()
        took, before = [], time.perf_counter()
        for _ in predictor.video_frames(path):
            now = time.perf_counter()
            took.append(1000 * (now - before))
            before = now
    return _spread(took)


def main() -> None:
    """Measure, print a table and, if asked, keep a record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=320)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--video", action="store_true")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    reader = Predictor(models.create("face-cnn", 7, stem="unshuffle"), emotions.FER7)
    source = [(frame, i / 30) for i, frame in enumerate(frames(given.frames))]
    result = measure(reader, source)
    if given.video:
        result["decoding"] = decoding(source)
    for name, part in result["parts"].items():
        print(f"{name:16} {part['mean']:6.2f} ms a frame (median of a call {part['median']:.2f})")
    whole = result["milliseconds_a_frame"]
    print(f"{'a frame':16} {whole['median']:6.2f} ms [{whole['p5']:.2f}, {whole['p95']:.2f}]")
    cpu = result["cpu_milliseconds_a_frame"]
    print(f"{result['frames_a_second']:.0f} frames a second, {cpu:.1f} CPU-ms each")
    if given.record:
        record = {"date": datetime.date.today().isoformat(), "command": " ".join(sys.argv[1:]), "seed": 0}
        record |= {"machine": runtime.machine(), "size": SIZE, "network": reader.model.spec, **result}
        with files.replacing("data/results/predictor_speed.json") as file:
            file.write(json.dumps(record, indent=1).encode())


if __name__ == "__main__":
    main()
