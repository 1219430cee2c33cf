"""How many frames a second the predictor reads, and where the time goes: one moving face at 640 x 480.

    python -m benchmarks.predictor --data /data --record

A frame is decoded, searched, read and drawn on (its box and words). ``jpeg`` decodes files as the browser's
camera sends them, ``video`` an MJPEG film by OpenCV; ``ahead`` decodes the next frame in a thread meanwhile.
The whole frame is searched once in ten frames, in between only around the face (``predictor.Tracker``), so
the slowest frames are told besides the median. With ``--data``, also which share of real faces is found:
Muxspace's, 180 pixels wide, pasted one by one into noise.
"""

from __future__ import annotations

import argparse
import datetime
import io
import itertools
import json
import queue
import sys
import tempfile
import threading
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


Frames = Iterator[tuple[np.ndarray, float]]
"""Frames ``[3, H, W]`` with their times in seconds."""


def measure(reader: Predictor, source: Frames, watch: Stopwatch, warm_up: int = 20) -> dict:
    """Return frames a second, the time of a frame and its parts.

    Args:
        reader: what reads, watched.
        source: the frames; to take the next one counts as decoding.
        watch: notes the times.
        warm_up: frames that are not counted.
    """
    stream, following = reader.stream(), watch.around("decode", lambda: next(source, None))
    for _ in range(warm_up):
        stream.next(*following()).annotated()
    watch.took.clear()
    each, found = [], 0
    began, cpu, start = time.perf_counter(), time.process_time(), time.perf_counter()
    while (frame := following()) is not None:
        reading = stream.next(*frame)
        reading.annotated()
        now = time.perf_counter()
        each.append(1000 * (now - start))
        start, found = now, found + (len(reading.faces) == 1)
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


def jpegs(pictures: list[np.ndarray]) -> list[bytes]:
    """Return frames as the browser's camera would send them.

    Args:
        pictures: uint8 ``[3, H, W]``.
    """
    written = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture.transpose(1, 2, 0)).save(buffer, "JPEG", quality=85)
        written.append(buffer.getvalue())
    return written


def film(pictures: list[np.ndarray], path: Path) -> Path:
    """Write frames as an MJPEG film.

    Args:
        pictures: uint8 ``[3, H, W]``.
        path: the file.
    """
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, SIZE[::-1])
    for picture in pictures:
        writer.write(np.ascontiguousarray(picture.transpose(1, 2, 0)[..., ::-1]))
    writer.release()
    return path


def ahead(source: Frames) -> Frames:
    """Yield the same frames, decoded in a thread while the one before is read.

    Args:
        source: the frames.
    """
    ready: queue.Queue = queue.Queue(maxsize=2)

    def decode() -> None:
        for frame in itertools.chain(source, [None]):
            ready.put(frame)

    threading.Thread(target=decode, daemon=True).start()
    return iter(ready.get, None)


def share_found(data: Path, num: int) -> dict[str, float]:
    """Return which share of real faces is found in a still picture and in a single frame of a video.

    Args:
        data: the folder that holds the real sets.
        num: how many faces.
    """
    rng, side = np.random.default_rng(0), 180
    paths = sorted((data / "muxspace" / "images").iterdir())
    detectors = {"picture": (predictor.Detector(), {}), "frame": (Tracker().detector, {"around": 0.0})}
    result = dict.fromkeys([*detectors, *(f"{name}_false" for name in detectors)], 0.0)
    for i in rng.permutation(len(paths))[:num]:
        scene, corner = rng.integers(60, 190, SIZE, dtype=np.uint8), rng.integers(0, np.array(SIZE) - side)
        scene[corner[0] : corner[0] + side, corner[1] : corner[1] + side] = images.read(paths[i], side)
        for name, (detector, options) in detectors.items():
            boxes = detector.find(scene, **options)
            hits = [_overlap(box, *corner, side) > 0.5 for box in boxes]
            result[name] += any(hits) / num
            result[f"{name}_false"] += (len(hits) - any(hits)) / num
    return result


def _overlap(box: predictor.Box, top: int, left: int, side: int) -> float:
    """Return intersection over union of a box and a square."""
    high = min(box.top + box.side, top + side) - max(box.top, top)
    wide = min(box.left + box.side, left + side) - max(box.left, left)
    both = max(0, high) * max(0, wide)
    return both / (side**2 + box.side**2 - both)


def main() -> None:
    """Measure, print a table and, if asked, keep a record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=320)
    parser.add_argument("--data", type=Path, help="the folder that holds the real sets")
    parser.add_argument("--faces", type=int, default=300, help="real faces that are looked for")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    torch.manual_seed(0)
    reader, watch = Predictor(models.create("face-cnn", 7, stem="unshuffle"), emotions.FER7), Stopwatch()
    watched(reader, watch)
    result = {"sources": in_all_ways(reader, watch, list(frames(given.frames)))}
    if given.data:
        result["found"] = share_found(given.data, given.faces)
        print(
            "share of real faces found:", {name: round(share, 3) for name, share in result["found"].items()}
        )
    if given.record:
        record = {"date": datetime.date.today().isoformat(), "command": " ".join(sys.argv[1:]), "seed": 0}
        record |= {"machine": runtime.machine(), "size": SIZE, "network": reader.model.spec, **result}
        with files.replacing("data/results/predictor_speed.json") as file:
            file.write(json.dumps(record, indent=1).encode())


def in_all_ways(reader: Predictor, watch: Stopwatch, pictures: list[np.ndarray]) -> dict[str, dict]:
    """Return what :func:`measure` gives by source and number of threads, and print it.

    Args:
        reader: what reads, watched.
        watch: notes the times.
        pictures: the frames.
    """
    files_, rows = jpegs(pictures), {}
    with tempfile.TemporaryDirectory() as folder:
        path = film(pictures, Path(folder) / "face.avi")
        ways = {
            "jpeg": lambda: ((images.read(file, color=True), i / 30) for i, file in enumerate(files_)),
            "video": lambda: predictor.video_frames(path),
        }
        ways |= {f"{name}, ahead": lambda way=way: ahead(way()) for name, way in ways.items()}
        for threads, (name, way) in itertools.product((1, 2), ways.items()):
            torch.set_num_threads(threads)
            title = f"{name}, {threads} thread{'s' * (threads > 1)}"
            rows[title] = measure(reader, way(), watch)
            show(title, rows[title])
    return rows


def show(title: str, row: dict) -> None:
    """Print what was measured of one source.

    Args:
        title: the source.
        row: as :func:`measure` returned it.
    """
    whole, cpu = row["milliseconds_a_frame"], row["cpu_milliseconds_a_frame"]
    print(f"{title}: {row['frames_a_second']:.0f} frames a second, {cpu:.1f} CPU-ms each, ", end="")
    print(f"a frame {whole['median']:.1f} ms [{whole['p5']:.1f}, {whole['p95']:.1f}]")
    print("   ", ", ".join(f"{name} {part['mean']:.1f}" for name, part in row["parts"].items()), "ms")


if __name__ == "__main__":
    main()
